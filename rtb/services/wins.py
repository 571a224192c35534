"""Wins of house campaigns, posted to ``ad.events`` / ``event.win`` once the loop has answered this step's auctions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from rtb import messages
from rtb.messages import MessageType, Win
from rtb.ports import Clock, Message
from rtb.services import topology
from rtb.services.budgets import Hold

Post = Callable[[str, str, Message], None]


class Wins:
    """``house.on_win = Wins(...)``."""

    def __init__(self, post: Post, clock: Clock, *, instance: str) -> None:
        """`post` (exchange, routing key, message) must neither wait nor lose it."""
        self._post = post
        self._clock = clock
        self._instance = instance
        self._won: list[Win] = []
        self.posted = 0

    def __call__(self, auction_id: str, impid: str, campaign_id: str, cost_nanos: int, hold: Hold) -> None:
        """Note a win; nothing is encoded before the answer."""
        if not self._won:
            asyncio.get_running_loop().call_soon(self.flush)
        now = self._clock.time()
        expires_at, day = hold.expires_at, hold.day
        name = impid.replace("\0", "\ufffd")  # no database takes a NUL
        self._won.append(Win(auction_id, name, campaign_id, day, cost_nanos, expires_at, self._instance, now))

    def flush(self) -> None:
        """Post what was noted."""
        won, self._won = self._won, []
        exchange, routing_key = topology.ROUTES[MessageType.WIN]
        for win in won:
            message_id = f"{win.auction_id}:{win.impid}:win"[:255]
            body = messages.encode(MessageType.WIN, win, message_id=message_id, timestamp=win.received_at)
            self._post(exchange, routing_key, Message(body=body, message_id=message_id, timestamp=win.received_at))
        self.posted += len(won)
