"""The deadlines of auctions that wait for bidders: one timer for all of them, none for each."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable

from rtb.ports import Clock
from rtb.services.open_auction import Auction

Done = Callable[[Auction, Exception | None], None]
"""Hears that an auction is settled, or of the mistake of ours that prevented it."""

_SLOT_BITS = 20
"""A slot is 1.05 ms, and what is due in it is ended as it begins: by that much before its deadline at most."""


class Deadlines:
    """Calls `expire` with the auctions whose deadline has come, and who is to hear of them."""

    def __init__(self, clock: Clock, expire: Callable[[Auction, Done], None]) -> None:
        """Nobody waits yet."""
        self._now_ns = clock.monotonic_ns
        self._expire = expire
        self._slots: dict[int, dict[Auction, Done]] = {}
        self._order: list[int] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(self, auction: Auction, done: Done) -> None:
        """Watch an auction."""
        slot = auction.deadline_ns >> _SLOT_BITS
        waiting = self._slots.get(slot)
        if waiting is not None:
            waiting[auction] = done
            return
        self._slots[slot] = {auction: done}
        heapq.heappush(self._order, slot)
        if self._order[0] == slot:
            self._wait()

    def remove(self, auction: Auction) -> Done:
        """Watch it no longer: who was to hear of it."""
        return self._slots[auction.deadline_ns >> _SLOT_BITS].pop(auction)

    def _wait(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        slot = self._order[0]
        left_ns = (slot << _SLOT_BITS) - self._now_ns()
        self._timer = asyncio.get_running_loop().call_later(max(left_ns, 0) / 1e9, self._turn, slot)

    def _turn(self, slot: int) -> None:
        """A slot's time has come, and that of earlier ones; of later ones, if this is late. Those that nobody waits in
        any more are passed over: mostly the next with somebody is as far away as auctions are done early."""
        self._timer = None
        until = max(slot, self._now_ns() >> _SLOT_BITS)
        while self._order and (self._order[0] <= until or not self._slots[self._order[0]]):
            ending = heapq.heappop(self._order)
            waiting = self._slots[ending]
            while waiting:  # what ends one may complete another, or bring one more
                self._end(*waiting.popitem())
            del self._slots[ending]
        if self._order and self._timer is None:
            self._wait()

    def _end(self, auction: Auction, done: Done) -> None:
        """What fails here is one auction's; the others of its time must end all the same."""
        try:
            self._expire(auction, done)
        except Exception as error:
            context = {"message": f"auction {auction.id} did not end as it should", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)
