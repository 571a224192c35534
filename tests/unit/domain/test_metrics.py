"""Histogram, frames, their merge, and rates."""

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtb.domain import metrics
from rtb.domain.histogram import MAX_NS, Histogram, merged
from rtb.domain.metrics import Counts, Frame, Rates
from rtb.errors import Malformed
from rtb.openrtb import NoBid

DURATIONS = st.lists(st.one_of(st.integers(0, MAX_NS), st.integers(0, 200_000_000)), min_size=1, max_size=200)


def histogram(values: list[int]) -> Histogram:
    filled = Histogram()
    for value in values:
        filled.record(value)
    return filled


def nearest_rank(values: list[int], q: int) -> int:
    """The definition: the smallest value that at least q percent of all values do not exceed."""
    return sorted(values)[max(1, math.ceil(q * len(values) / 100)) - 1]


@given(DURATIONS, st.integers(0, 100))
def test_percentile_is_never_below_the_true_value_and_at_most_a_32nd_above(values: list[int], q: int) -> None:
    """Every percentile stands within 1/32 above that of the sorted list."""
    exact = nearest_rank(values, q)
    assert exact <= histogram(values).percentile(q) <= exact * 33 // 32


@given(DURATIONS, DURATIONS)
def test_merged_histograms_equal_one_that_saw_everything(left: list[int], right: list[int]) -> None:
    """Merging is adding: nothing is lost or averaged."""
    together, parts = histogram(left + right), merged([histogram(left), histogram(right)])
    assert parts.counts == together.counts
    assert parts.sum_ns == together.sum_ns == sum(left) + sum(right)


@given(DURATIONS, DURATIONS)
def test_since_gives_what_was_recorded_after_the_copy(before: list[int], after: list[int]) -> None:
    """A copy marks a moment; later records show up in the difference alone."""
    running = histogram(before)
    mark = running.copy()
    for value in after:
        running.record(value)
    assert running.since(mark).pack() == running.packed_since(mark) == histogram(after).pack()
    assert running.packed_since(running.copy()) == ()


@given(DURATIONS)
def test_wire_form_keeps_everything(values: list[int]) -> None:
    """A histogram survives the wire, at two numbers a bucket in use and the sum."""
    original = histogram(values)
    packed = original.pack()
    assert len(packed) <= 2 * len(set(values)) + 1
    assert Histogram.unpack(packed).counts == original.counts
    assert Histogram.unpack(packed).sum_ns == original.sum_ns


@given(DURATIONS, st.lists(st.integers(0, MAX_NS), min_size=1, max_size=20))
def test_counts_at_a_bound_are_never_flattering(values: list[int], bounds: list[int]) -> None:
    """No duration above a bound is counted at it, and none more than 1/32 below it is left out."""
    bounds.sort()
    for bound, count in zip(bounds, histogram(values).at_most(bounds), strict=True):
        assert count <= sum(value <= bound for value in values)
        assert count >= sum(value * 33 // 32 <= bound for value in values)


def test_values_outside_the_range_count_at_its_ends() -> None:
    """A clock that ran backwards and an hour-long stall fall into the first and the last bucket."""
    ends = histogram([-5, 3600 * 10**9])
    assert (ends.percentile(50), ends.percentile(100)) == (0, MAX_NS)


@given(st.lists(st.integers(min_value=-5, max_value=4 * MAX_NS)))
def test_many_are_counted_as_one_by_one(values: list[int]) -> None:
    """Whatever the values, `record_all` counts what `record` would, those at the ends included."""
    one_by_one, at_once = Histogram(), Histogram()
    for value in values:
        one_by_one.record(value)
    at_once.record_all(values)
    assert (at_once.counts, at_once.sum_ns) == (one_by_one.counts, one_by_one.sum_ns)


def test_percentiles_of_a_thousand_known_values() -> None:
    """Ranks by hand: of 1 to 60 ns, all told apart, p50 is 30 and p95 is 57; p99.9 of 1,000 values is the 999th."""
    exact = histogram(list(range(1, 61)))
    assert [exact.percentile(q) for q in (0, 50, 95, 100)] == [1, 30, 57, 60]
    assert histogram([1] * 999 + [2]).percentile(99.9) == 1
    assert Histogram().percentile(99) == Histogram().max_ns == 0
    with pytest.raises(ValueError):
        exact.percentile(101)


@pytest.mark.parametrize(
    "packed", [(1, 2), (-1,), (5, 3, 0), (5, 3, -1), (9, 4, 1, 3, 1), (9, 4, 1, 4, 1), (1, 99_999, 1), (1, -1, 1)]
)
def test_damaged_wire_forms_are_refused(packed: tuple[int, ...]) -> None:
    """Half pairs, negative sums, empty, unordered and unknown buckets do not pass."""
    with pytest.raises(Malformed):
        Histogram.unpack(packed)


def frame(instance: str = "a", seq: int = 1, uptime_s: float = 1.0, **fields: object) -> Frame:
    return msgspec.structs.replace(
        Frame(instance=instance, seq=seq, time=1000.0 + uptime_s, uptime_ns=round(uptime_s * 1e9)), **fields
    )


def test_merge_adds_counters_and_histograms_and_takes_the_longest_pause() -> None:
    """Two instances: counts add by name and reason, and the system's p99 comes from all their auctions."""
    fast, slow = histogram([1_000_000] * 99), histogram([80_000_000] * 99)
    system = metrics.merge(
        [
            frame("a", 7, 50, counts=Counts(won=3, nbr={500: 2}), latency=fast.pack(), in_flight=4, rss_bytes=10),
            frame("b", 9, 20, counts=Counts(won=4, nbr={500: 1, 15: 5}), latency=slow.pack(), gc_pause_max_ns=8),
        ]
    )
    assert system.counts == Counts(won=7, nbr={500: 3, 15: 5})
    assert (system.in_flight, system.rss_bytes, system.gc_pause_max_ns) == (4, 10, 8)
    assert (system.seq, system.uptime_ns) == (9, 50 * 10**9)
    together = Histogram.unpack(system.latency)
    assert together.count == 198
    # 80 ms is the true p99 of both; the mean of the two instances' own p99 would be 40.5 ms.
    assert 80_000_000 <= together.percentile(99) <= 82_500_000


def test_merge_of_nothing_is_empty() -> None:
    """No instance alive: zeros, no error."""
    assert metrics.merge([]).counts == Counts()


def test_rates_are_differences_over_the_instances_own_clock() -> None:
    """Three seconds and a lost frame lie between the two: counts are divided by three."""
    before = frame(seq=4, uptime_s=10, counts=Counts(won=100, no_bid=50, bids=400, wins=90, nbr={500: 50}))
    after = frame(
        seq=7,
        uptime_s=13,
        counts=Counts(won=160, no_bid=80, bids=700, wins=150, spend_nanos=6_000_000, nbr={500: 62, 3: 18}),
    )
    change = metrics.rates(before, after)
    assert (change.auctions, change.won, change.no_bid) == (30.0, 20.0, 10.0)
    assert (change.bid_rate, change.win_rate) == (60 / 90, 60 / 300)
    assert change.spend_nanos == 2_000_000.0
    assert change.nbr == {500: 4.0, 3: 6.0}


def test_rates_need_a_later_frame() -> None:
    """The same moment twice has no rate."""
    with pytest.raises(ValueError):
        metrics.rates(frame(), frame())


def test_rates_without_traffic_have_no_shares() -> None:
    """0 of 0 is not 0 %."""
    idle = metrics.rates(frame(seq=1, uptime_s=1), frame(seq=2, uptime_s=2))
    assert (idle.auctions, idle.bid_rate, idle.win_rate) == (0.0, None, None)


def test_rates_of_instances_add_up() -> None:
    """The system's rates are the sums, its shares those of the sums."""
    system = metrics.add_rates(
        [Rates(auctions=100, won=90, bids=200, wins=90, nbr={500: 10}), Rates(auctions=300, won=30, nbr={500: 1, 3: 2})]
    )
    assert (system.auctions, system.bid_rate, system.win_rate) == (400, 0.3, 0.45)
    assert system.nbr == {500: 11, 3: 2}


def test_frames_survive_the_wire() -> None:
    """Decode gives back what was encoded; zeros cost nothing."""
    original = frame(counts=Counts(won=1, losses={102: 4}), latency=histogram([5, 900_000]).pack(), in_flight=2)
    assert metrics.decode(metrics.encode(original)) == original
    assert b"no_bid" not in metrics.encode(original)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b'{"instance":"a"}',
        b'{"instance":"","seq":1,"time":1,"uptime_ns":1}',
        b'{"instance":"a","seq":-1,"time":1,"uptime_ns":1}',
        b'{"instance":"a","seq":1,"time":1,"uptime_ns":1,"counts":{"won":-5}}',
        b'{"instance":"a","seq":1,"time":1,"uptime_ns":1,"latency":[1,2]}',
        b'{"instance":"a","seq":1,"time":1,"uptime_ns":1,"lag":[1,99999,1]}',
        b"[" * 100_000,
    ],
)
def test_what_is_no_frame_is_malformed(data: bytes) -> None:
    """Another instance's message never crashes this one."""
    with pytest.raises(Malformed):
        metrics.decode(data)


def test_reasons_are_named_and_the_most_frequent_lately_first() -> None:
    """By rate, then total; a code outside the list keeps its number."""
    found = metrics.reasons(NoBid, {500: 900, 15: 5, 777: 5}, {15: 3.0})
    assert [(reason.code, reason.name, reason.total, reason.per_s) for reason in found] == [
        (15, "insufficient_time", 5, 3.0),
        (500, "no_eligible_demand", 900, 0.0),
        (777, "code_777", 5, 0.0),
    ]
