"""What holds this process up: a late event loop, and the garbage collector."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING

from rtb.domain.histogram import Histogram
from rtb.ports import Clock

if TYPE_CHECKING:
    from rtb.services.metrics import Metrics


class LagProbe:
    """How late the event loop runs its timers: a chain of them, each measured when it fires.

    A hold-up of several periods counts once for every timer that would have fired during it, so that percentiles speak
    of time and not of the few timers that got through.
    """

    def __init__(self, lag: Histogram, clock: Clock, period_ms: int = 20) -> None:
        """Record lateness into `lag` every `period_ms`."""
        self._lag = lag
        self._clock = clock
        self._period_ns = period_ms * 1_000_000
        self._due_ns = 0
        self._timer: asyncio.TimerHandle | None = None
        self.last_ns = 0
        """How late the newest timer was."""

    def start(self) -> None:
        """Begin, on the running loop."""
        self._due_ns = self._clock.monotonic_ns() + self._period_ns
        self._timer = asyncio.get_running_loop().call_later(self._period_ns / 1e9, self.fire)

    def stop(self) -> None:
        """End."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def fire(self) -> None:
        """Measure now, and set the next timer when started."""
        late_ns = self._clock.monotonic_ns() - self._due_ns
        self.last_ns = late_ns
        self._lag.record(late_ns)
        for missed in range(1, min(late_ns // self._period_ns, 1000) + 1):
            self._lag.record(late_ns - missed * self._period_ns)
        if self._timer is not None:
            self.start()


class GcWatch:
    """How long garbage collections hold up the process."""

    def __init__(self, metrics: Metrics, clock: Clock) -> None:
        """Record pauses into `metrics`."""
        self._metrics = metrics
        self._clock = clock
        self._started_ns = 0

    def start(self) -> None:
        """Begin to watch."""
        gc.callbacks.append(self._watch)

    def stop(self) -> None:
        """End."""
        if self._watch in gc.callbacks:
            gc.callbacks.remove(self._watch)

    def _watch(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._started_ns = self._clock.monotonic_ns()
            return
        pause_ns = self._clock.monotonic_ns() - self._started_ns
        self._metrics.gc_pauses.record(pause_ns)
        self._metrics.gc_pause_max_ns = max(self._metrics.gc_pause_max_ns, pause_ns)
