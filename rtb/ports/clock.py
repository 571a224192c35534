"""Time, as the services see it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Clock(Protocol):
    """Time. The monotonic clock is the event loop's, so that deadlines and timers agree."""

    def monotonic_ns(self) -> int:
        """Nanoseconds on the monotonic clock."""
        ...

    def time(self) -> float:
        """Unix seconds."""
        ...


class Timer(Protocol):
    """A callback that is due."""

    def cancel(self) -> None:
        """Do not call it; nothing happens when it has been called."""
        ...


class TimerClock(Clock, Protocol):
    """A clock that can also wake somebody up."""

    def call_at(self, when_ns: int, callback: Callable[[], None]) -> Timer:
        """Call back once the monotonic clock reads `when_ns`; by the event loop's resolution it may be early."""
        ...
