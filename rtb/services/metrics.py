"""The counters of this process, and the source of frames and snapshots that dashboards, scrapes and peers read.

The hot path increments plain integers of `Metrics`; everything else happens once a second.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Protocol, TypeVar

import psutil  # type: ignore[import-untyped]
import structlog
from msgspec.structs import replace

from rtb.domain.histogram import Histogram
from rtb.domain.metrics import COUNTERS, About, BidderTally, Counts, Frame
from rtb.domain.snapshot import InstanceRow, MinuteReport, Point, Snapshot
from rtb.ports import Clock
from rtb.services.bidder_board import BidderBoard, BidderRow
from rtb.services.members import Members
from rtb.services.probes import GcWatch, LagProbe

KEPT_S = 3_600
"""Seconds of history."""
REPORTS = 60
_SECOND = 1e9
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


class Metrics:
    """Counters of one process, incremented in place: ``metrics.won += 1``, ``metrics.nbr[code] += 1``,
    ``metrics.latency.record(ns)``.

    The names are those of `Counts`; `nbr` and `losses` are indexed by reason code. All only grow, except `in_flight`,
    the number of auctions under way now. Beside them, of queue messages: `retried`, `message_errors` (mistakes of ours)
    and `message_time`, from arrival to acknowledgement.
    """

    __slots__ = (
        "_about",
        "_clock",
        "_lag_seen",
        "_latency_seen",
        "_messages_seen",
        "_process",
        "_seq",
        "_started_ns",
        "bidder_errors",
        "bidder_skips",
        "bidder_timeouts",
        "bids",
        "consumed",
        "dead_lettered",
        "gc_pause_max_ns",
        "gc_pauses",
        "imps",
        "in_flight",
        "instance",
        "invalid",
        "lag",
        "latency",
        "losses",
        "message_errors",
        "message_time",
        "nbr",
        "no_bid",
        "profile_hits",
        "profile_misses",
        "profile_timeouts",
        "published",
        "retried",
        "shed",
        "spend_nanos",
        "timeout",
        "wins",
        "won",
    )

    def __init__(self, instance: str, clock: Clock) -> None:
        """Start at zero. `instance` is new at every process start, or counters would seem to run backwards."""
        self.instance = instance
        self.won = self.no_bid = self.timeout = self.shed = self.invalid = 0
        self.imps = self.bids = self.wins = self.spend_nanos = 0
        self.bidder_timeouts = self.bidder_errors = self.bidder_skips = 0
        self.profile_hits = self.profile_misses = self.profile_timeouts = 0
        self.consumed = self.published = self.dead_lettered = 0
        self.retried = self.message_errors = 0
        self.in_flight = 0
        self.nbr: defaultdict[int, int] = defaultdict(int)
        self.losses: defaultdict[int, int] = defaultdict(int)
        self.latency = Histogram()
        self.lag = Histogram()
        self.gc_pauses = Histogram()
        self.message_time = Histogram()
        self.gc_pause_max_ns = 0
        self._clock = clock
        self._started_ns = clock.monotonic_ns()
        self._seq = 0
        self._latency_seen = Histogram()
        self._lag_seen = Histogram()
        self._messages_seen = Histogram()
        self._process = psutil.Process()
        self._about = About(os.getpid(), socket.gethostname(), _version(), round(clock.time(), 3))

    @property
    def uptime_ns(self) -> int:
        """How long this process counts."""
        return self._clock.monotonic_ns() - self._started_ns

    def counts(self) -> Counts:
        """The counters as an immutable value."""
        plain = {name: getattr(self, name) for name in COUNTERS if not name.startswith("gc_")}
        return Counts(
            **plain,
            gc_pauses=self.gc_pauses.count,
            gc_pause_ns=self.gc_pauses.sum_ns,
            nbr={int(code): count for code, count in self.nbr.items()},
            losses={int(code): count for code, count in self.losses.items()},
        )

    def frame(self, bidders: Sequence[BidderTally] = ()) -> Frame:
        """The next frame: counters until now, histograms since the frame before. One caller only, or both lose."""
        latency, lag, messages = self.latency.copy(), self.lag.copy(), self.message_time.copy()
        pause_max_ns, self.gc_pause_max_ns = self.gc_pause_max_ns, 0
        self._seq += 1
        frame = Frame(
            instance=self.instance,
            seq=self._seq,
            time=self._clock.time(),
            uptime_ns=self.uptime_ns,
            counts=self.counts(),
            latency=latency.packed_since(self._latency_seen),
            lag=lag.packed_since(self._lag_seen),
            message_time=messages.packed_since(self._messages_seen),
            gc_pause_max_ns=pause_max_ns,
            in_flight=self.in_flight,
            rss_bytes=self._process.memory_info().rss,
            cpu_ns=time.process_time_ns(),
            about=self._about,
            bidders=tuple(bidders),
        )
        self._latency_seen, self._lag_seen, self._messages_seen = latency, lag, messages
        return frame


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


def _version() -> str:
    try:
        return metadata.version("rtb")
    except metadata.PackageNotFoundError:  # run from a checkout that was not installed
        return ""
