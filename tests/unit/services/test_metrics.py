"""Counters to frames, the probes, and the frame source."""

import asyncio
import gc
import os

import pytest
from msgspec.structs import replace

from rtb.domain.histogram import Histogram
from rtb.domain.metrics import Counts, Frame
from rtb.domain.snapshot import Snapshot
from rtb.openrtb import Loss, NoBid
from rtb.services.frame_source import FrameSource
from rtb.services.members import MAX_INSTANCES
from rtb.services.metrics import Metrics
from rtb.services.probes import GcWatch, LagProbe

SECOND = 10**9


class HandClock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.ns = 5 * SECOND

    def monotonic_ns(self) -> int:
        return self.ns

    def time(self) -> float:
        return 1_700_000_000 + self.ns / SECOND


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def metrics(clock: HandClock) -> Metrics:
    return Metrics("here", clock)


@pytest.fixture
def source(metrics: Metrics, clock: HandClock) -> FrameSource:
    return FrameSource(metrics, clock)


def test_frame_carries_all_counters_and_only_the_new_durations(metrics: Metrics, clock: HandClock) -> None:
    """Counters are since the start, histograms since the frame before."""
    metrics.won += 2
    metrics.spend_nanos += 1_500_000
    metrics.nbr[NoBid.SHED] += 1
    metrics.losses[Loss.OUTBID] += 3
    metrics.latency.record(40)
    clock.ns += SECOND
    first = metrics.frame()
    metrics.won += 1
    metrics.latency.record(41)
    clock.ns += SECOND
    second = metrics.frame()
    assert (first.instance, first.seq, first.uptime_ns) == ("here", 1, SECOND)
    assert first.counts == Counts(won=2, spend_nanos=1_500_000, nbr={502: 1}, losses={102: 3})
    assert first.latency == (40, 40, 1)
    assert (second.seq, second.uptime_ns, second.counts.won) == (2, 2 * SECOND, 3)
    assert second.latency == (41, 41, 1)
    assert second.rss_bytes > 0
    assert metrics.latency.count == 2


def test_longest_pause_is_of_one_frame_only(metrics: Metrics) -> None:
    """A pause is told once, its count and sum for ever."""
    metrics.gc_pauses.record(700)
    metrics.gc_pause_max_ns = 700
    assert metrics.frame().gc_pause_max_ns == 700
    later = metrics.frame()
    assert (later.gc_pause_max_ns, later.counts.gc_pauses, later.counts.gc_pause_ns) == (0, 1, 700)


def test_lag_of_a_held_up_loop_counts_for_every_timer_it_swallowed(clock: HandClock) -> None:
    """100 ms late with a timer every 20 ms: lateness of 100, 80, 60, 40, 20 and 0 ms, six samples."""
    lag = Histogram()
    probe = LagProbe(lag, clock, period_ms=20)
    probe._due_ns = clock.ns
    clock.ns += 100_000_000
    probe.fire()
    assert lag.count == 6
    assert lag.sum_ns == 300_000_000


async def test_lag_probe_measures_on_the_running_loop(clock: HandClock) -> None:
    """Started, it records by itself, again and again, until stopped."""
    recorded = asyncio.Event()

    class Telling(Histogram):
        def record(self, ns: int) -> None:
            super().record(ns)
            if self.count == 3:
                recorded.set()

    probe = LagProbe(Telling(), clock, period_ms=1)
    probe.start()
    await asyncio.wait_for(recorded.wait(), 60)
    probe.stop()


def test_gc_watch_counts_collections_until_stopped(metrics: Metrics, clock: HandClock) -> None:
    """One forced collection is at least one pause; after stop there are none."""
    watch = GcWatch(metrics, clock)
    watch.start()
    gc.collect()
    watch.stop()
    seen = metrics.gc_pauses.count
    assert seen >= 1
    gc.collect()
    assert metrics.gc_pauses.count == seen
    watch.stop()


def test_snapshot_has_rates_of_the_first_second_and_of_every_later_one(
    source: FrameSource, metrics: Metrics, clock: HandClock
) -> None:
    """10 auctions in the first second, 30 in the next two."""
    seen: list[Snapshot] = []
    end = source.subscribe(seen.append)
    metrics.won += 10
    clock.ns += SECOND
    source.tick()
    metrics.no_bid += 30
    metrics.nbr[500] += 30
    clock.ns += 2 * SECOND
    source.tick()
    end()
    clock.ns += SECOND
    source.tick()
    assert [(s.seq, s.rates.auctions, s.totals.auctions) for s in seen] == [(1, 10.0, 10), (2, 15.0, 40)]
    assert [(r.name, r.total, r.per_s) for r in seen[1].no_bids] == [("no_eligible_demand", 30, 15.0)]
    assert seen[1].bid_rate == 0.0
    assert [(p.time, p.auctions_per_s) for p in source.history][:2] == [(seen[0].time, 10.0), (seen[1].time, 15.0)]
    assert source.latest.seq == 3


def peer(seq: int, won: int, *, instance: str = "there", latency: tuple[int, ...] = ()) -> Frame:
    return Frame(
        instance=instance,
        seq=seq,
        time=0.0,
        uptime_ns=seq * SECOND,
        counts=Counts(won=won),
        latency=latency,
        in_flight=5,
    )


def test_other_instances_add_to_the_system(source: FrameSource, metrics: Metrics, clock: HandClock) -> None:
    """An instance met in the middle of its life counts in the totals at once, in the rates from its second frame."""
    source.receive(peer(100, 1_000))
    metrics.won += 10
    clock.ns += SECOND
    source.tick()
    assert (source.latest.totals.won, source.latest.rates.won) == (1_010, 10.0)
    source.receive(peer(101, 1_200, latency=(50, 50, 1)))
    clock.ns += SECOND
    source.tick()
    assert (source.latest.totals.won, source.latest.rates.won) == (1_210, 200.0)
    assert source.latest.latency.count == 1
    assert [row.instance for row in source.instances()] == ["here", "there"]
    assert (source.latest.live, source.latest.stale) == (2, 0)


def test_a_silent_instance_turns_stale_and_leaves_the_rates_but_not_the_totals(
    source: FrameSource, clock: HandClock
) -> None:
    """After more than 3 s without a frame; when it speaks again it is back."""
    source.receive(peer(1, 100))
    clock.ns += 3 * SECOND
    source.tick()
    assert (source.latest.rates.won, source.latest.in_flight) == (100.0, 5)
    clock.ns += 1
    source.tick()
    assert (source.latest.rates.won, source.latest.in_flight, source.latest.totals.won) == (0.0, 0, 100)
    assert [(row.instance, row.state) for row in source.instances()] == [("here", "live"), ("there", "stale")]
    assert (source.latest.live, source.latest.stale) == (1, 1)
    source.receive(peer(5, 500))
    clock.ns += 1
    source.tick()
    assert source.latest.rates.won == 100.0


def test_frames_out_of_order_or_repeated_are_dropped(source: FrameSource, clock: HandClock) -> None:
    """An older frame does not turn back the totals."""
    for seq, won in ((2, 200), (3, 300), (3, 999), (1, 50)):
        source.receive(peer(seq, won))
    clock.ns += SECOND
    source.tick()
    assert source.latest.totals.won == 300


def test_instances_are_bounded_and_totals_survive_their_leaving(source: FrameSource, clock: HandClock) -> None:
    """A thousand restarts leave no more rows than the limit, and no auction is forgotten."""
    for number in range(1_000):
        source.receive(peer(1, 1, instance=f"i{number}"))
    clock.ns += SECOND
    source.tick()
    assert len(source.instances()) == MAX_INSTANCES
    assert source.latest.totals.won == 1_000


def test_who_is_silent_for_long_leaves_and_counts_once_when_it_returns(source: FrameSource, clock: HandClock) -> None:
    """After five minutes; a partition that heals does not double what it had counted."""
    source.receive(peer(1, 100))
    clock.ns += 300 * SECOND
    source.tick()
    assert [row.state for row in source.instances()] == ["live", "stale"]
    clock.ns += SECOND
    source.tick()
    assert [row.instance for row in source.instances()] == ["here"]
    assert source.latest.totals.won == 100
    source.receive(peer(302, 150))
    clock.ns += SECOND
    source.tick()
    assert (source.latest.totals.won, len(source.instances())) == (150, 2)


def test_an_instance_that_stops_says_so(source: FrameSource, clock: HandClock) -> None:
    """It is neither live nor stale, adds to the totals only, and leaves after a minute."""
    source.receive(peer(1, 100))
    source.receive(replace(peer(2, 120), stopping=True))
    clock.ns += SECOND
    source.tick()
    [_, row] = source.instances()
    assert (row.state, row.auctions_per_s, source.latest.rates.won) == ("stopped", 0.0, 0.0)
    assert (source.latest.live, source.latest.stale, source.latest.totals.won) == (1, 0, 120)
    clock.ns += 60 * SECOND
    source.tick()
    assert [row.instance for row in source.instances()] == ["here"]
    assert source.latest.totals.won == 120


def test_a_farewell_is_a_last_frame(source: FrameSource, metrics: Metrics, clock: HandClock) -> None:
    """With everything that was counted."""
    metrics.won += 3
    clock.ns += SECOND
    frame = source.farewell()
    assert (frame.stopping, frame.counts.won, frame.seq) == (True, 3, 1)


def test_one_instance_alone(source: FrameSource, metrics: Metrics, clock: HandClock) -> None:
    """As the system is shown, and with points of its own; who is unknown has no view."""
    metrics.won += 10
    source.receive(peer(1, 100, latency=(2_000_000, 481, 1)))
    clock.ns += SECOND
    source.tick()
    found = source.view("there")
    assert found is not None
    snapshot, points = found
    assert (snapshot.seq, snapshot.totals.won, snapshot.rates.won, snapshot.in_flight, snapshot.live) == (
        1,
        100,
        100.0,
        5,
        1,
    )
    assert [(point.auctions_per_s, point.p99_ms is not None) for point in points] == [(100.0, True)]
    assert source.view("nobody") is None


def test_the_minute_is_reported_when_it_is_over(source: FrameSource, metrics: Metrics, clock: HandClock) -> None:
    """All instances together: of one that is met in the middle of its life what it does from then on.

    The clock stands at 1,700,000,005 s, 25 s into its minute.
    """
    source.receive(peer(100, 1_000))
    metrics.won, metrics.bids, metrics.wins, metrics.spend_nanos, metrics.consumed = 30, 40, 10, 2_500_000_000, 7
    metrics.message_time.record(40)
    clock.ns += 34 * SECOND
    source.receive(peer(134, 1_060, latency=(50, 50, 1)))
    source.tick()
    assert source.reports == ()
    clock.ns += 2 * SECOND
    source.tick()
    [report] = source.reports
    assert (report.time, report.instances) == (1_699_999_980, 2)
    assert (report.auctions, report.won, report.spend, report.win_rate) == (90, 90, 2.5, 0.25)
    assert (report.p99_ms, report.consumed, report.message_p50_ms) == (0.00005, 7, 0.00004)
    clock.ns += 60 * SECOND
    source.tick()
    assert [(report.time, report.auctions) for report in source.reports] == [(1_699_999_980, 90), (1_700_000_040, 0)]


def test_waiting_messages_stand_in_snapshot_and_point(metrics: Metrics, clock: HandClock) -> None:
    """As last seen by who looks."""
    source = FrameSource(metrics, clock, queue_ready=lambda: 12)
    clock.ns += SECOND
    source.tick()
    assert (source.latest.queue_ready, source.history[-1].queue_ready) == (12, 12)


def test_the_frame_says_where_it_runs(metrics: Metrics, clock: HandClock) -> None:
    """Process, host, version, since when."""
    about = metrics.frame().about
    assert (about.pid, about.since) == (os.getpid(), 1_700_000_005)
    assert about.host


def test_a_failing_listener_does_not_keep_the_snapshot_from_the_others(source: FrameSource, clock: HandClock) -> None:
    """Its error is logged, and everybody else is served."""
    seen: list[int] = []
    frames: list[int] = []

    def fail(_snapshot: Snapshot) -> None:
        raise RuntimeError("broken")

    source.subscribe(fail)
    source.subscribe(lambda snapshot: seen.append(snapshot.seq))
    source.on_frame(lambda frame: frames.append(frame.seq))
    clock.ns += SECOND
    source.tick()
    assert (seen, frames) == ([1], [1])


async def test_source_ticks_by_itself_until_stopped(metrics: Metrics, clock: HandClock) -> None:
    """Started on a loop it makes snapshots; stopped, no timer is left."""
    source = FrameSource(metrics, clock, interval_s=0.01)
    third = asyncio.Event()

    def listen(snapshot: Snapshot) -> None:
        clock.ns += SECOND
        if snapshot.seq == 3:
            third.set()

    source.subscribe(listen)
    source.start()
    source.start()
    await asyncio.wait_for(third.wait(), 60)
    source.stop()
    source.stop()
    assert source._gc._watch not in gc.callbacks
