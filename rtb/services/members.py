"""The instances that send frames: which of them live, what they do together, and what each does."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence

from msgspec.structs import replace

from rtb.domain.histogram import PackedSum
from rtb.domain.metrics import (
    Counts,
    Frame,
    Rates,
    add_counts,
    add_rates,
    counts_between,
    rates,
    reasons,
)
from rtb.domain.snapshot import (
    MAX_REASONS,
    InstanceRow,
    MinuteReport,
    Point,
    Snapshot,
    Spread,
    minute_report,
    point,
    rounded,
    share,
    spread,
)
from rtb.openrtb import Loss, NoBid
from rtb.ports import Clock

MAX_INSTANCES = 256
MAX_REMEMBERED = 1_024
"""Instances dropped of which the counts are kept apart, so that one that comes back does not count twice."""
STALE_KEPT_S, STOPPED_KEPT_S = 300.0, 60.0
POINTS = 300
LIVE, STALE, STOPPED = "live", "stale", "stopped"
_MS = 1e6
_NANOS = _SECOND = 1e9


class Member:
    """An instance: its newest frame, and what follows from it and the one before."""

    __slots__ = ("baseline", "cpu", "frame", "heard_ns", "lag_max_ms", "points", "rates", "spread", "stopped")

    def __init__(self, frame: Frame, heard_ns: int) -> None:
        """Begin with the first frame that is heard; the first of its life counts from its start."""
        before = _before_first(frame)
        self.baseline = before.counts
        self.points: deque[Point] = deque(maxlen=POINTS)
        self.cpu: float | None = None
        self._take(frame, Rates() if before is frame else rates(before, frame), heard_ns)

    def hear(self, frame: Frame, heard_ns: int) -> None:
        """Go on with a later frame."""
        before = self.frame
        passed_ns = frame.uptime_ns - before.uptime_ns  # 0 for who stops within the nanosecond
        self.cpu = max(frame.cpu_ns - before.cpu_ns, 0) / passed_ns if passed_ns else None
        self._take(frame, rates(before, frame) if passed_ns else Rates(), heard_ns)

    def _take(self, frame: Frame, change: Rates, heard_ns: int) -> None:
        self.frame, self.rates, self.heard_ns = frame, change, heard_ns
        self.spread: Spread = spread(frame.latency)
        self.lag_max_ms = spread(frame.lag).max_ms
        self.stopped = frame.stopping


class Members:
    """Takes frames in, and makes snapshots of them once a second."""

    def __init__(self, clock: Clock, *, currency: str = "USD", stale_s: float = 3.0) -> None:
        """None yet. An instance that is silent for more than `stale_s` is stale: it stays in the totals, not in the
        rates, and leaves after STALE_KEPT_S; one that has said that it stops, after STOPPED_KEPT_S."""
        self._clock = clock
        self._currency = currency
        self._stale_ns = round(stale_s * _SECOND)
        self._members: OrderedDict[str, Member] = OrderedDict()
        self._dropped: OrderedDict[str, Counts] = OrderedDict()
        self._gone = Counts()
        self._pause_ns = 0
        self._begin_second()
        self._begin_minute()

    def receive(self, frame: Frame) -> Frame | None:
        """Take in a frame; one that is not newer than the last is dropped.

        Returns:
            The frame of the same instance before it, an empty one before the first of its life, the same frame where it
            is met in the middle of it; None where the frame was dropped.
        """
        now_ns = self._clock.monotonic_ns()
        member = self._members.get(frame.instance)
        if member is None:
            self._make_room()
            self._dropped.pop(frame.instance, None)
            before = _before_first(frame)
            self._members[frame.instance] = Member(frame, now_ns)
        else:
            before = member.frame
            if frame.seq <= before.seq or frame.uptime_ns < before.uptime_ns + (not frame.stopping):
                return None
            member.hear(frame, now_ns)
            self._members.move_to_end(frame.instance)  # the last heard stands last
        for total, packed in (
            (self._latency, frame.latency),
            (self._lag, frame.lag),
            (self._minute_latency, frame.latency),
            (self._minute_messages, frame.message_time),
        ):
            total.add(packed)
        self._pause_ns = max(self._pause_ns, frame.gc_pause_max_ns)
        return before

    def tick(self, seq: int, queue_ready: int | None) -> tuple[Snapshot, Point]:
        """The system in the second that ends now; `queue_ready` goes into it."""
        now_ns, now = self._clock.monotonic_ns(), self._clock.time()
        self._forget(now_ns)
        live = self._live(now_ns)
        latency, lag = self._latency.pack(), self._lag.pack()
        snapshot = Snapshot(
            seq=seq,
            time=round(now, 3),
            live=len(live),
            stale=sum(not member.stopped for member in self._members.values()) - len(live),
            totals=add_counts([self._gone, *self._dropped.values(), *(m.frame.counts for m in self._members.values())]),
            rates=add_rates([member.rates for member in live]),
            latency=spread(latency),
            lag=spread(lag),
            gc_pause_max_ms=round(self._pause_ns / _MS, 3),
            queue_ready=queue_ready,
        )
        snapshot = self._finished(snapshot, [member.frame for member in live])
        for member in live:
            frame = member.frame
            made = point(
                now,
                member.rates,
                frame.latency,
                spread=member.spread,
                lag_max_ms=member.lag_max_ms,
                in_flight=frame.in_flight,
            )
            member.points.append(made)
        self._begin_second()
        newest = point(
            now,
            snapshot.rates,
            latency,
            spread=snapshot.latency,
            lag_max_ms=snapshot.lag.max_ms,
            in_flight=snapshot.in_flight,
            queue_ready=queue_ready,
        )
        return snapshot, newest

    def rows(self) -> tuple[InstanceRow, ...]:
        """Every instance, ordered by id."""
        now_ns = self._clock.monotonic_ns()
        return tuple(self._row(self._members[name], now_ns) for name in sorted(self._members))

    def frames(self) -> list[Frame]:
        """The newest frame of each live instance."""
        return [member.frame for member in self._live(self._clock.monotonic_ns())]

    def view(self, instance: str, seq: int) -> tuple[Snapshot, Sequence[Point]] | None:
        """One instance as if it were alone, and its last points; None when it is not there."""
        member = self._members.get(instance)
        if member is None:
            return None
        frame = member.frame
        live = self._state(member, self._clock.monotonic_ns()) == LIVE
        snapshot = Snapshot(
            seq=seq,
            time=round(frame.time, 3),
            live=int(live),
            stale=int(not live and not member.stopped),
            totals=frame.counts,
            rates=member.rates if live else Rates(),
            latency=member.spread if live else Spread(),
            lag=spread(frame.lag) if live else Spread(),
            gc_pause_max_ms=round(frame.gc_pause_max_ns / _MS, 3),
        )
        return self._finished(snapshot, [frame] if live else []), tuple(member.points)

    def minute(self, time: int) -> MinuteReport:
        """What was heard since the last call, in the minute that began at `time`."""
        counts = add_counts([counts_between(m.baseline, m.frame.counts) for m in self._members.values()])
        report = minute_report(
            time, len(self._members), counts, self._minute_latency.pack(), self._minute_messages.pack()
        )
        for member in self._members.values():
            member.baseline = member.frame.counts
        self._begin_minute()
        return report

    def _finished(self, snapshot: Snapshot, frames: Sequence[Frame]) -> Snapshot:
        """The snapshot with what follows from its totals and rates, and the gauges of these frames."""
        totals, change = snapshot.totals, snapshot.rates
        return replace(
            snapshot,
            currency=self._currency,
            uptime_s=round(max((frame.uptime_ns for frame in frames), default=0) / _SECOND, 3),
            totals=replace(totals, nbr={}, losses={}),
            rates=rounded(change),
            bid_rate=share(change.won, change.auctions),
            win_rate=share(change.wins, change.bids),
            in_flight=sum(frame.in_flight for frame in frames),
            rss_bytes=sum(frame.rss_bytes for frame in frames),
            no_bids=reasons(NoBid, totals.nbr, change.nbr)[:MAX_REASONS],
            losses=reasons(Loss, totals.losses, change.losses)[:MAX_REASONS],
        )

    def _row(self, member: Member, now_ns: int) -> InstanceRow:
        frame, about = member.frame, member.frame.about
        state = self._state(member, now_ns)
        row = InstanceRow(
            instance=frame.instance,
            pid=about.pid,
            host=about.host,
            version=about.version,
            since=about.since,
            state=state,
            age_s=round((now_ns - member.heard_ns) / _SECOND, 3),
        )
        if state != LIVE:
            return row
        change = member.rates
        return replace(
            row,
            auctions_per_s=round(change.auctions, 3),
            bid_rate=share(change.won, change.auctions),
            timeout_rate=share(change.timeout, change.auctions),
            shed_rate=share(change.shed, change.auctions),
            spend_per_s=round(change.spend_nanos / _NANOS, 6),
            p50_ms=member.spread.p50_ms,
            p95_ms=member.spread.p95_ms,
            p99_ms=member.spread.p99_ms,
            lag_max_ms=member.lag_max_ms,
            cpu=None if member.cpu is None else round(member.cpu, 4),
            in_flight=frame.in_flight,
            rss_bytes=frame.rss_bytes,
        )

    def _state(self, member: Member, now_ns: int) -> str:
        if member.stopped:
            return STOPPED
        return STALE if now_ns - member.heard_ns > self._stale_ns else LIVE

    def _live(self, now_ns: int) -> list[Member]:
        return [member for member in self._members.values() if self._state(member, now_ns) == LIVE]

    def _forget(self, now_ns: int) -> None:
        """Let go of who is gone for long."""
        for name, member in list(self._members.items()):
            kept_s = STOPPED_KEPT_S if member.stopped else STALE_KEPT_S
            if now_ns - member.heard_ns > kept_s * _SECOND:
                self._drop(name)

    def _make_room(self) -> None:
        while len(self._members) >= MAX_INSTANCES:
            self._drop(next(iter(self._members)))  # the longest silent one

    def _drop(self, name: str) -> None:
        self._dropped[name] = self._members.pop(name).frame.counts
        if len(self._dropped) > MAX_REMEMBERED:
            _, counts = self._dropped.popitem(last=False)
            self._gone = add_counts([self._gone, counts])

    def _begin_second(self) -> None:
        self._latency, self._lag, self._pause_ns = PackedSum(), PackedSum(), 0

    def _begin_minute(self) -> None:
        self._minute_latency, self._minute_messages = PackedSum(), PackedSum()


def _before_first(frame: Frame) -> Frame:
    """What came before the first frame that is heard of an instance: nothing, or what we cannot know of."""
    if frame.seq != 1 or frame.uptime_ns <= 0:
        return frame
    return Frame(instance=frame.instance, seq=0, time=frame.time, uptime_ns=0)
