"""Deadlines of many calls by one timer: they are put in slots of about a millisecond, and the timer is for the next."""

from __future__ import annotations

import heapq
from collections.abc import Callable

from rtb.adapters.http_call import Call
from rtb.ports.clock import Timer, TimerClock

SLOT_BITS = 20
"""A slot is 1.05 ms: a call expires no earlier than its deadline, and at most that much later."""


class DeadlineWheel:
    """Calls `expire` with every call that is not done when its deadline passes.

    Adding costs a look-up and an append; a call that was done in time is dropped when its slot comes.
    """

    def __init__(self, clock: TimerClock, expire: Callable[[Call], None]) -> None:
        """Empty, without a timer."""
        self._clock = clock
        self._expire = expire
        self.slots: dict[int, list[Call]] = {}
        """Calls by the slot after that of their deadline; a slot that is there may be added to directly."""
        self._order: list[int] = []
        self._timer: Timer | None = None

    def add(self, call: Call) -> None:
        """Watch a call."""
        slot = (call.deadline_ns >> SLOT_BITS) + 1
        calls = self.slots.get(slot)
        if calls is not None:
            calls.append(call)
            return
        self.slots[slot] = [call]
        heapq.heappush(self._order, slot)
        if self._order[0] == slot:
            self._wait()

    def stop(self) -> None:
        """Forget everything."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.slots.clear()
        self._order.clear()

    def _wait(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._clock.call_at(self._order[0] << SLOT_BITS, self._turn)

    def _turn(self) -> None:
        self._timer = None
        now_ns = self._clock.monotonic_ns()
        while self._order and self._order[0] << SLOT_BITS <= now_ns:
            for call in self.slots.pop(heapq.heappop(self._order)):
                if not call.done:
                    self._expire(call)
        if self._order and self._timer is None:
            self._wait()
