"""What dashboards show of packed histograms and rates."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rtb.domain.histogram import MAX_NS, Histogram, merge_packed, packed_percentiles
from rtb.domain.metrics import Counts, Rates
from rtb.domain.snapshot import HEAT_BOUNDS_MS, Spread, heat, minute_report, point, rounded, share, spread

DURATIONS = st.lists(st.one_of(st.integers(0, MAX_NS), st.integers(0, 200_000_000)), max_size=200)
MS = 1_000_000


def packed(values: list[int]) -> tuple[int, ...]:
    """The wire form of a histogram of these durations."""
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    return histogram.pack()


@given(DURATIONS, st.lists(st.integers(0, 100), min_size=1, max_size=5))
def test_percentiles_of_the_wire_form_are_those_of_the_histogram(values: list[int], qs: list[int]) -> None:
    """In one pass over the buckets in use."""
    qs.sort()
    histogram = Histogram.unpack(packed(values))
    assert packed_percentiles(packed(values), qs) == [histogram.percentile(q) for q in qs]


@given(st.lists(DURATIONS, max_size=4))
def test_wire_forms_merge_as_histograms_do(parts: list[list[int]]) -> None:
    """Nothing is lost or averaged; nothing merged is empty or an empty histogram."""
    merged = merge_packed([packed(part) for part in parts])
    together = packed([value for part in parts for value in part])
    assert merged == (together if len(together) > 1 else ())


def test_a_spread_names_five_percentiles() -> None:
    """Of 1 to 60 ns, all told apart: the 30th, 57th, 60th; of nothing nothing."""
    assert spread(packed(list(range(1, 61)))) == Spread(60, 0.00003, 0.000057, 0.00006, 0.00006, 0.00006)
    assert spread(()) == Spread()


@given(DURATIONS)
def test_heat_has_every_auction_once_and_flatters_none(values: list[int]) -> None:
    """Counted by hand: nothing above a bound is counted below it, and nothing more than 1/32 below it above."""
    found = heat(packed(values))
    counts = [0] * (len(HEAT_BOUNDS_MS) + 1)
    if found:
        counts[found[0] : found[0] + len(found) - 1] = found[1:]
        assert found[1]
        assert found[-1]
    assert sum(counts) == len(values)
    for n, bound in enumerate(HEAT_BOUNDS_MS):
        assert sum(counts[: n + 1]) <= sum(value <= bound * MS for value in values)
        assert sum(counts[: n + 1]) >= sum(value * 33 / 32 <= bound * MS for value in values)


def test_heat_tells_the_deadline_apart() -> None:
    """100 ms is a bound; two auctions of 1 ms and one far above it."""
    assert 100 in HEAT_BOUNDS_MS
    first, *counts = heat(packed([MS - 40_000, MS - 40_000, 140 * MS]))
    assert (HEAT_BOUNDS_MS[first], counts[0], HEAT_BOUNDS_MS[first + len(counts) - 1], counts[-1]) == (1, 2, 150, 1)
    assert sum(counts) == 3


def test_a_point_has_shares_of_the_auctions() -> None:
    """Of 200 a second: 150 with a bid, 20 late, 10 shed; 300 of 1,200 bids won."""
    rates = Rates(auctions=200, won=150, timeout=20, shed=10, bids=1_200, wins=300, spend_nanos=1.5e9)
    made = point(9.12345, rates, (), spread=Spread(), lag_max_ms=1.0, in_flight=3, queue_ready=7)
    assert (made.time, made.bid_rate, made.win_rate, made.timeout_rate, made.shed_rate) == (
        9.123,
        0.75,
        0.25,
        0.1,
        0.05,
    )
    assert (made.spend_per_s, made.queue_ready, made.in_flight, made.heat) == (1.5, 7, 3, ())


def test_a_minute_without_anything_has_no_shares() -> None:
    """Zeros, and None where nothing can be divided by."""
    report = minute_report(60, 1, Counts(), (), ())
    assert (report.auctions, report.spend, report.bid_rate, report.p99_ms, report.message_p99_ms) == (
        0,
        0,
        None,
        None,
        None,
    )


def test_numbers_are_short_on_the_wire() -> None:
    """A thousandth a second is told apart, nanos are whole; counts by reason stand elsewhere."""
    exact = Rates(won=1 / 3, spend_nanos=1_000_000 / 3, gc_pause_ns=0.4, nbr={500: 1.0})
    assert rounded(exact) == Rates(won=0.333, spend_nanos=333_333.0, gc_pause_ns=0.0)
    assert share(1, 3) == 0.33333
    assert share(1, 0) is None
