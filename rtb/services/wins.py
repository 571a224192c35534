"""Wins of house campaigns, posted to ``ad.events`` / ``event.win`` once the loop has answered their auctions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from msgspec import UNSET
from msgspec.structs import replace

from rtb import messages
from rtb.domain.tracking import Ticket
from rtb.messages import MAX_MORE_WINS, MessageType, Win
from rtb.ports import LedgerKind, LedgerRow, Message
from rtb.services import topology

_IN_A_MESSAGE = 1 + MAX_MORE_WINS

GATHER_S = 0.025
"""How long a win may wait for others where nobody bills it: each message is encoded, published, confirmed, delivered
and acknowledged, and every ten milliseconds would be too often for that. Nobody waits for it: its impression is later,
and proves it where a daemon was killed meanwhile."""
MOST = 64
"""Wins that are posted at once, so that no auction waits for long behind them."""

Post = Callable[[str, str, Message], None]


class Wins:
    """``house.on_win = Wins(...)``."""

    def __init__(self, post: Post, *, gather_s: float = 0.0) -> None:
        """`post` (exchange, routing key, message) must neither wait nor lose it; before it `gather_s` pass, or so much
        as brings MOST of them."""
        self._post = post
        self._gather_s = gather_s
        self._most = MOST if gather_s else 1
        self._won: list[Ticket] = []
        self._posting: asyncio.Handle | None = None
        self.posted = 0

    def __call__(self, ticket: Ticket) -> None:
        """Note a win; nothing is encoded before the answer."""
        self._won.append(ticket)
        noted = len(self._won)
        if noted == self._most:
            self._cancel()
            self._posting = asyncio.get_running_loop().call_soon(self.flush)
        elif noted == 1:
            self._posting = asyncio.get_running_loop().call_later(self._gather_s, self.flush)

    def flush(self) -> None:
        """Post what was noted."""
        self._cancel()
        won, self._won = self._won, []
        exchange, routing_key = topology.ROUTES[MessageType.WIN]
        for first in range(0, len(won), _IN_A_MESSAGE):
            self._post(
                exchange, routing_key, message_of([win_of(ticket) for ticket in won[first : first + _IN_A_MESSAGE]])
            )
        self.posted += len(won)

    def _cancel(self) -> None:
        if self._posting is not None:
            self._posting.cancel()
            self._posting = None


def message_of(wins: Sequence[Win]) -> Message:
    """A message of one to 16 wins, called by the first."""
    win, message_id, won_at = wins[0], event_id_of(wins[0]), wins[0].received_at
    if len(wins) > 1:
        win = replace(win, more=tuple(wins[1:]))
    body = messages.encode(MessageType.WIN, win, message_id=message_id, timestamp=won_at)
    return Message(body=body, message_id=message_id, timestamp=won_at)


def wins_of(win: Win) -> Sequence[Win]:
    """Every win of a message."""
    return (win,) if win.more is UNSET else (replace(win, more=UNSET), *win.more)


def event_id_of(win: Win) -> str:
    """The message id of a win that was posted alone, as `rtb.domain.tracking.event_id` has it."""
    return f"{win.auction_id}:{win.impid}:win"


def win_of(ticket: Ticket) -> Win:
    """What is told of a win."""
    return Win(
        auction_id=ticket.auction_id,
        impid=ticket.impid,
        campaign_id=ticket.campaign_id,
        day=ticket.day,
        price_nanos=ticket.held_nanos,
        expires_at=ticket.expires_at,
        instance=ticket.instance,
        received_at=ticket.won_at,
        creative_id=ticket.creative_id,
        user=ticket.user,
    )


def win_row(win: Win, date: str, event_id: str) -> LedgerRow:
    """The ledger row of a win, not charged yet."""
    return LedgerRow(
        key=event_id_of(win),
        kind=LedgerKind.WIN,
        campaign_id=win.campaign_id,
        day=win.day,
        auction_id=win.auction_id,
        impid=win.impid,
        instance=win.instance,
        price_nanos=win.price_nanos,
        charged_nanos=0,
        expires_at=win.expires_at,
        received_at=win.received_at,
        date=date,
        event_id=event_id,
        creative_id=win.creative_id,
        user=win.user,
    )
