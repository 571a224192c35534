"""Wins of house campaigns, posted to ``ad.events`` / ``event.win`` once the loop has answered this step's auctions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from rtb import messages
from rtb.domain.tracking import Ticket, event_id
from rtb.messages import MessageType, Win
from rtb.ports import LedgerKind, LedgerRow, Message
from rtb.services import topology

Post = Callable[[str, str, Message], None]


class Wins:
    """``house.on_win = Wins(...)``."""

    def __init__(self, post: Post) -> None:
        """`post` (exchange, routing key, message) must neither wait nor lose it."""
        self._post = post
        self._won: list[Ticket] = []
        self.posted = 0

    def __call__(self, ticket: Ticket) -> None:
        """Note a win; nothing is encoded before the answer."""
        if not self._won:
            asyncio.get_running_loop().call_soon(self.flush)
        self._won.append(ticket)

    def flush(self) -> None:
        """Post what was noted."""
        won, self._won = self._won, []
        exchange, routing_key = topology.ROUTES[MessageType.WIN]
        for ticket in won:
            message_id = event_id(ticket, "win")
            won_at = ticket.won_at
            body = messages.encode(MessageType.WIN, win_of(ticket), message_id=message_id, timestamp=won_at)
            self._post(exchange, routing_key, Message(body=body, message_id=message_id, timestamp=won_at))
        self.posted += len(won)


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
        key=f"{win.auction_id}:{win.impid}:win",
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
