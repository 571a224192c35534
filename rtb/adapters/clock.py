"""Clocks: the system's, and one that moves when told to."""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Callable
from itertools import count

from rtb.ports.clock import Timer

NS = 1_000_000_000


class SystemClock:
    """The machine's clocks; its monotonic one is also the event loop's."""

    monotonic_ns = staticmethod(time.monotonic_ns)
    """Nanoseconds on the monotonic clock."""
    time = staticmethod(time.time)
    """Unix seconds."""

    def call_at(self, when_ns: int, callback: Callable[[], None]) -> Timer:
        """Call back on the running loop."""
        delay_ns = when_ns - time.monotonic_ns()
        return asyncio.get_running_loop().call_later(max(delay_ns, 0) / NS, callback)


class ManualClock:
    """A deterministic clock for tests and replays: it stands still until it is advanced."""

    def __init__(self, time: float = 1_767_225_600.0, monotonic_ns: int = NS) -> None:
        """Start at a Unix time, by default 2026-01-01 00:00 UTC."""
        self._time = time
        self._now_ns = monotonic_ns
        self._timers: list[tuple[int, int, _ManualTimer]] = []
        self._order = count()

    def monotonic_ns(self) -> int:
        """Nanoseconds on the monotonic clock."""
        return self._now_ns

    def time(self) -> float:
        """Unix seconds."""
        return self._time

    def call_at(self, when_ns: int, callback: Callable[[], None]) -> Timer:
        """Call back from within the `advance` that reaches `when_ns`."""
        timer = _ManualTimer(callback)
        heapq.heappush(self._timers, (when_ns, next(self._order), timer))
        return timer

    def advance(self, seconds: float) -> None:
        """Let time pass, calling what becomes due in order, each at its own time."""
        end_ns = self._now_ns + round(seconds * NS)
        while self._timers and self._timers[0][0] <= end_ns:
            when_ns, _, timer = heapq.heappop(self._timers)
            self._move(max(when_ns, self._now_ns))
            timer.fire()
        self._move(end_ns)

    def step(self, seconds: float) -> None:
        """Set the wall clock forward or back, as an administrator does; the monotonic clock does not move."""
        self._time += seconds

    def _move(self, now_ns: int) -> None:
        self._time += (now_ns - self._now_ns) / NS
        self._now_ns = now_ns


class _ManualTimer:
    __slots__ = ("_callback",)

    def __init__(self, callback: Callable[[], None]) -> None:
        self._callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self._callback = None

    def fire(self) -> None:
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()
