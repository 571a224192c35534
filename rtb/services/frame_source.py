"""The source of frames and snapshots, once a second, that dashboards, scrapes and peers read."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import structlog
from msgspec.structs import replace

from rtb.domain.metrics import BidderTally, Frame
from rtb.domain.snapshot import InstanceRow, MinuteReport, Point, Snapshot
from rtb.ports import Clock
from rtb.services.bidder_board import BidderBoard, BidderRow
from rtb.services.members import Members
from rtb.services.metrics import Metrics
from rtb.services.probes import GcWatch, LagProbe

KEPT_S = 3_600
"""Seconds of history."""
REPORTS = 60
_T = TypeVar("_T")

_log = structlog.get_logger(__name__)


class MetricsSource(Protocol):
    """What a dashboard needs: the system, all instances merged, and each of them."""

    @property
    def latest(self) -> Snapshot:
        """The newest snapshot; an empty one with seq 0 before the first."""
        ...

    @property
    def history(self) -> Sequence[Point]:
        """The last hour, oldest first, up to and including `latest`."""
        ...

    @property
    def reports(self) -> Sequence[MinuteReport]:
        """The last hour's minutes that are over, oldest first."""
        ...

    @property
    def own(self) -> Frame:
        """This process: its newest frame, an empty one before the first."""
        ...

    def instances(self) -> Sequence[InstanceRow]:
        """Every instance heard of lately, ordered by id."""
        ...

    def bidders(self) -> Sequence[BidderRow]:
        """Every bidder that some live instance has, ordered by name."""
        ...

    def view(self, instance: str) -> tuple[Snapshot, Sequence[Point]] | None:
        """One instance alone: its snapshot and its last points, None when it has left."""
        ...

    def subscribe(self, listener: Callable[[Snapshot], None]) -> Callable[[], None]:
        """Call the listener with every new snapshot, on the loop; the result ends that."""
        ...


class FrameSource:
    """Once a second: a frame of this process, and a snapshot of all instances heard of lately.

    What others tell comes in by `receive`. An instance is stale when it has not been heard of for `stale_s`: it stays
    in the totals, not in the rates.
    """

    def __init__(
        self,
        metrics: Metrics,
        clock: Clock,
        *,
        currency: str = "USD",
        interval_s: float = 1.0,
        stale_s: float = 3.0,
        history: int = KEPT_S,
        bidders: Callable[[], Sequence[BidderTally]] = tuple,
        queue_ready: Callable[[], int | None] = lambda: None,
    ) -> None:
        """Keep `history` points for charts.

        Args:
            metrics: of this process.
            clock: time.
            currency: of all amounts.
            interval_s: between two frames.
            stale_s: how long an instance may be silent.
            history: points kept.
            bidders: what this process knows of each remote bidder, asked once a frame (`BidderHealth.tally`).
            queue_ready: messages waiting, as last seen (`QueueReport.ready`).
        """
        self._metrics = metrics
        self._interval_s = interval_s
        self._bidders = bidders
        self._queue_ready = queue_ready
        self._clock = clock
        self._history: deque[Point] = deque(maxlen=history)
        self._reports: deque[MinuteReport] = deque(maxlen=REPORTS)
        self._minute = int(clock.time() // 60)
        self._latest = Snapshot(currency=currency)
        self._own = Frame(instance=metrics.instance, seq=0, time=clock.time(), uptime_ns=0)
        self._members = Members(clock, currency=currency, stale_s=stale_s)
        self._board = BidderBoard(clock)
        self._frame_listeners: list[Callable[[Frame], None]] = []
        self._listeners: list[Callable[[Snapshot], None]] = []
        self._probe = LagProbe(metrics.lag, clock)
        self._gc = GcWatch(metrics, clock)
        self._timer: asyncio.TimerHandle | None = None

    @property
    def latest(self) -> Snapshot:
        """The newest snapshot; an empty one with seq 0 before the first."""
        return self._latest

    @property
    def lag_ns(self) -> int:
        """How late the event loop was when last measured, a few hundredths of a second ago."""
        return self._probe.last_ns

    @property
    def history(self) -> Sequence[Point]:
        """The last hour, oldest first."""
        return tuple(self._history)

    @property
    def reports(self) -> Sequence[MinuteReport]:
        """The last hour's minutes that are over, oldest first."""
        return tuple(self._reports)

    @property
    def own(self) -> Frame:
        """This process: its newest frame, an empty one before the first."""
        return self._own

    def instances(self) -> Sequence[InstanceRow]:
        """Every instance heard of lately, ordered by id."""
        return self._members.rows()

    def bidders(self) -> Sequence[BidderRow]:
        """Every bidder that some live instance has, ordered by name."""
        return self._board.rows(self._members.frames())

    def view(self, instance: str) -> tuple[Snapshot, Sequence[Point]] | None:
        """One instance alone: its snapshot and its last points, None when it has left."""
        return self._members.view(instance, self._latest.seq)

    def subscribe(self, listener: Callable[[Snapshot], None]) -> Callable[[], None]:
        """Call the listener with every new snapshot; the result ends that."""
        self._listeners.append(listener)
        return lambda: _discard(self._listeners, listener)

    def on_frame(self, listener: Callable[[Frame], None]) -> Callable[[], None]:
        """Call the listener with every frame of this process, to send it to the others; the result ends that."""
        self._frame_listeners.append(listener)
        return lambda: _discard(self._frame_listeners, listener)

    def start(self) -> None:
        """Begin, on the running loop: the frames, the loop-lag probe, the garbage collection watch."""
        if self._timer is not None:
            return
        self._probe.start()
        self._gc.start()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_at(loop.time() + self._interval_s, self._run, loop, loop.time() + self._interval_s)

    def stop(self) -> None:
        """End; what was heard stays readable."""
        if self._timer is None:
            return
        self._timer.cancel()
        self._timer = None
        self._probe.stop()
        self._gc.stop()

    def receive(self, frame: Frame) -> None:
        """Take in a frame, of this process or another; one that is not newer than the last is dropped."""
        before = self._members.receive(frame)
        if before is not None:
            self._board.receive(before, frame)

    def tick(self) -> None:
        """Make a frame and a snapshot now, and hand them out; `start` calls it once a second."""
        self._own = self._metrics.frame(self._bidders())
        self.receive(self._own)
        _tell(self._frame_listeners, self._own)
        self._latest, point = self._members.tick(self._latest.seq + 1, self._queue_ready())
        self._history.append(point)
        minute = int(self._clock.time() // 60)
        if minute != self._minute:
            self._reports.append(self._members.minute(self._minute * 60))
            self._minute = minute
        _tell(self._listeners, self._latest)

    def farewell(self) -> Frame:
        """The last frame of this process, for the others to know that it is not merely silent."""
        return replace(self._metrics.frame(), stopping=True)

    def _run(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        due += self._interval_s
        if due <= loop.time():
            due = loop.time() + self._interval_s  # missed seconds are not made up for
        self._timer = loop.call_at(due, self._run, loop, due)
        self.tick()


def _tell(listeners: Sequence[Callable[[_T], None]], value: _T) -> None:
    for listener in tuple(listeners):
        try:
            listener(value)
        except Exception:
            # One that fails must not keep the second from the others.
            _log.exception("metrics_listener_failed")


def _discard(listeners: list[Callable[[_T], None]], listener: Callable[[_T], None]) -> None:
    if listener in listeners:
        listeners.remove(listener)
