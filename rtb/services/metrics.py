"""The counters of this process, and the source of frames and snapshots that dashboards, scrapes and peers read.

The hot path increments plain integers of `Metrics`; everything else happens once a second.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import psutil  # type: ignore[import-untyped]
import structlog

from rtb.domain.histogram import Histogram
from rtb.domain.metrics import (
    COUNTERS,
    Counts,
    Frame,
    InstanceRow,
    Point,
    Rates,
    Snapshot,
    add_counts,
    add_rates,
    merge,
    point,
    rates,
    reasons,
    spread,
)
from rtb.openrtb import Loss, NoBid
from rtb.ports import Clock
from rtb.services.probes import GcWatch, LagProbe

MAX_INSTANCES = 256
_MS = 1e6
_SECOND = 1e9
_T = TypeVar("_T")

_log = structlog.get_logger(__name__)


class MetricsSource(Protocol):
    """What a dashboard needs."""

    @property
    def latest(self) -> Snapshot:
        """The newest snapshot; an empty one with seq 0 before the first."""
        ...

    @property
    def history(self) -> Sequence[Point]:
        """The last minutes, oldest first, up to and including `latest`."""
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
        "_clock",
        "_lag_seen",
        "_latency_seen",
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

    def frame(self) -> Frame:
        """The next frame: counters until now, histograms since the frame before. One caller only, or both lose."""
        latency, lag, pause_max_ns = self.latency.copy(), self.lag.copy(), self.gc_pause_max_ns
        self.gc_pause_max_ns = 0
        self._seq += 1
        frame = Frame(
            instance=self.instance,
            seq=self._seq,
            time=self._clock.time(),
            uptime_ns=self.uptime_ns,
            counts=self.counts(),
            latency=latency.since(self._latency_seen).pack(),
            lag=lag.since(self._lag_seen).pack(),
            gc_pause_max_ns=pause_max_ns,
            in_flight=self.in_flight,
            rss_bytes=psutil.Process().memory_info().rss,
        )
        self._latency_seen, self._lag_seen = latency, lag
        return frame


class _Member:
    """An instance that sends frames."""

    __slots__ = ("frame", "heard_ns", "rates")

    def __init__(self, frame: Frame, rates: Rates, heard_ns: int) -> None:
        self.frame = frame
        self.rates = rates
        self.heard_ns = heard_ns


class FrameSource:
    """Once a second: a frame of this process, and a snapshot of all instances heard of lately.

    An instance is stale when it has not been heard of for `stale_s`: it stays in the totals, not in the rates.
    """

    def __init__(
        self,
        metrics: Metrics,
        clock: Clock,
        *,
        currency: str = "USD",
        interval_s: float = 1.0,
        stale_s: float = 3.0,
        history: int = 300,
    ) -> None:
        """Keep `history` points for charts."""
        self._metrics = metrics
        self._clock = clock
        self._currency = currency
        self._interval_s = interval_s
        self._stale_ns = round(stale_s * _SECOND)
        self._history: deque[Point] = deque(maxlen=history)
        self._latest = Snapshot(currency=currency)
        self._members: dict[str, _Member] = {}
        self._gone = Counts()
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
        """The last minutes, oldest first."""
        return tuple(self._history)

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
        last = self._members.pop(frame.instance, None)
        if last is None:
            self._make_room()
            change = _first_rates(frame)
        elif frame.seq <= last.frame.seq or frame.uptime_ns <= last.frame.uptime_ns:
            self._members[frame.instance] = last
            return
        else:
            change = rates(last.frame, frame)
        # The last heard stands last.
        self._members[frame.instance] = _Member(frame, change, self._clock.monotonic_ns())

    def tick(self) -> None:
        """Make a frame and a snapshot now, and hand them out; `start` calls it once a second."""
        frame = self._metrics.frame()
        self.receive(frame)
        _tell(self._frame_listeners, frame)
        self._latest = self._snapshot()
        self._history.append(point(self._latest))
        _tell(self._listeners, self._latest)

    def _run(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        due += self._interval_s
        if due <= loop.time():
            due = loop.time() + self._interval_s  # missed seconds are not made up for
        self._timer = loop.call_at(due, self._run, loop, due)
        self.tick()

    def _make_room(self) -> None:
        while len(self._members) >= MAX_INSTANCES:
            longest_silent = next(iter(self._members))
            self._gone = add_counts([self._gone, self._members.pop(longest_silent).frame.counts])

    def _snapshot(self) -> Snapshot:
        now_ns = self._clock.monotonic_ns()
        members = sorted(self._members.values(), key=lambda member: member.frame.instance)
        live = [member for member in members if now_ns - member.heard_ns <= self._stale_ns]
        totals = add_counts([self._gone, *(member.frame.counts for member in members)])
        change = add_rates([member.rates for member in live])
        system = merge([member.frame for member in live])
        return Snapshot(
            seq=self._latest.seq + 1,
            time=self._clock.time(),
            currency=self._currency,
            uptime_s=system.uptime_ns / _SECOND,
            totals=totals,
            rates=change,
            bid_rate=change.bid_rate,
            win_rate=change.win_rate,
            latency=spread(Histogram.unpack(system.latency)),
            lag=spread(Histogram.unpack(system.lag)),
            gc_pause_max_ms=system.gc_pause_max_ns / _MS,
            in_flight=system.in_flight,
            rss_bytes=system.rss_bytes,
            no_bids=reasons(NoBid, totals.nbr, change.nbr),
            losses=reasons(Loss, totals.losses, change.losses),
            instances=tuple(self._row(member, now_ns) for member in members),
        )

    def _row(self, member: _Member, now_ns: int) -> InstanceRow:
        frame, age_ns = member.frame, now_ns - member.heard_ns
        stale = age_ns > self._stale_ns
        return InstanceRow(
            instance=frame.instance,
            stale=stale,
            age_s=age_ns / _SECOND,
            uptime_s=frame.uptime_ns / _SECOND,
            auctions_per_s=0.0 if stale else member.rates.auctions,
            p99_ms=None if stale else spread(Histogram.unpack(frame.latency)).p99_ms,
            lag_max_ms=None if stale else spread(Histogram.unpack(frame.lag)).max_ms,
            in_flight=0 if stale else frame.in_flight,
            rss_bytes=0 if stale else frame.rss_bytes,
        )


def _first_rates(frame: Frame) -> Rates:
    """All of its uptime for an instance's first frame; nothing for one that we meet in the middle of its life."""
    if frame.seq != 1 or frame.uptime_ns <= 0:
        return Rates()
    return rates(Frame(instance=frame.instance, seq=0, time=frame.time, uptime_ns=0), frame)


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
