"""Counts and percentiles."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtb.lab.load.tally import Outcome, Tally, histogram, percentile_us

MS = 1_000_000


def test_accounts_balance_only_when_every_request_has_an_outcome() -> None:
    """sent = won + no_bid + timeout + shed + error + lost."""
    tally = Tally()
    tally.sent = 6
    for outcome in list(Outcome)[:5]:
        tally.record(outcome, "", MS)
    assert not tally.balances
    tally.record(Outcome.LOST, "connection closed", MS)
    assert tally.balances
    assert tally.answered == 5
    assert tally.reasons == {"connection closed": 1}


def test_what_is_lost_has_no_latency() -> None:
    """A percentile of answers must not be moved by requests that got none."""
    tally = Tally()
    tally.record(Outcome.LOST, "unanswered", 2000 * MS)
    tally.fold()
    assert tally.latencies_us == {}


def test_misses_are_answers_after_the_deadline() -> None:
    """An answer at the deadline is in time, one microsecond later it is not."""
    tally = Tally()
    for latency_ns in (99 * MS, 100 * MS, 100 * MS + 1000, 500 * MS):
        tally.record(Outcome.NO_BID, "", latency_ns)
    assert tally.misses(100_000) == 2


def test_recent_latencies_are_folded_once() -> None:
    """Folding hands out what came since the last time and adds it to the total."""
    tally = Tally()
    tally.record(Outcome.WON, "", 5000)
    assert tally.fold() == {5: 1}
    tally.record(Outcome.WON, "", 5000)
    assert tally.fold() == {5: 1}
    assert tally.fold() == {}
    assert tally.latencies_us == {5: 2}


def test_percentiles_of_one_to_a_thousand() -> None:
    """Of 1..1000 us the p50 is 500, the p99 990 and the p100 1000, by counting and, to 3 digits, by HdrHistogram."""
    counts = dict.fromkeys(range(1, 1001), 1)
    for percent, us in ((50, 500), (90, 900), (99, 990), (99.9, 999), (100, 1000)):
        assert percentile_us(counts, percent) == us
        assert histogram(counts).get_value_at_percentile(percent) == pytest.approx(us, rel=0.001)
    assert percentile_us({}, 99) == 0


@given(st.lists(st.integers(1, 10_000_000), min_size=1, max_size=200), st.sampled_from((50.0, 90.0, 99.0, 99.9)))
def test_percentile_is_that_of_the_sorted_list(values: list[int], percent: float) -> None:
    """Counting by microsecond gives the nearest-rank percentile of the plain list."""
    counts: dict[int, int] = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    rank = next(n for n in range(1, len(values) + 1) if n * 100 >= percent * len(values))
    assert percentile_us(counts, percent) == sorted(values)[rank - 1]
