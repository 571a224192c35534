"""Time, as the services see it."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """Time. The monotonic clock is the event loop's, so that deadlines and timers agree."""

    def monotonic_ns(self) -> int:
        """Nanoseconds on the monotonic clock."""
        ...

    def time(self) -> float:
        """Unix seconds."""
        ...
