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

    A call that is done in time leaves its slot by itself, so that nothing keeps it.
    """

    def __init__(self, clock: TimerClock, expire: Callable[[Call], None]) -> None:
        """Empty, without a timer."""
        self._clock = clock
        self._expire = expire
        self.latest: dict[Call, None] = {}
        """The calls of the slot that was added to last: of deadlines from `begin_ns` to before `end_ns`."""
        self.begin_ns = self.end_ns = 0
        self._slots: dict[int, dict[Call, None]] = {}
        """Calls by the slot after that of their deadline."""
        self._order: list[int] = []
        self._timer: Timer | None = None

    def add(self, call: Call) -> None:
        """Watch a call."""
        if not self.begin_ns <= call.deadline_ns < self.end_ns:
            self.find(call.deadline_ns)
        call.watch = calls = self.latest
        calls[call] = None

    def find(self, deadline_ns: int) -> None:
        """Have the slot of a deadline as the `latest`."""
        slot = (deadline_ns >> SLOT_BITS) + 1
        self.begin_ns, self.end_ns = (slot - 1) << SLOT_BITS, slot << SLOT_BITS
        calls = self._slots.get(slot)
        if calls is not None:
            self.latest = calls
            return
        self.latest = self._slots[slot] = {}
        heapq.heappush(self._order, slot)
        if self._order[0] == slot:
            self._wait()

    def stop(self) -> None:
        """Forget everything."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.begin_ns = self.end_ns = 0
        self._slots.clear()
        self._order.clear()

    def _wait(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._clock.call_at(self._order[0] << SLOT_BITS, self._turn)

    def _turn(self) -> None:
        """Expire what is due. Slots whose calls are all done are passed over: mostly the next that has any is as far
        away as deadlines are longer than calls."""
        self._timer = None
        now_ns = self._clock.monotonic_ns()
        while self._order and (self._order[0] << SLOT_BITS <= now_ns or not self._slots[self._order[0]]):
            self.begin_ns = self.end_ns = 0  # the latest may be the one that goes
            for call in [*self._slots.pop(heapq.heappop(self._order))]:
                if not call.done:
                    self._expire(call)
        if self._order and self._timer is None:
            self._wait()
