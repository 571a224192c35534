"""rtb.domain.performance: counters add, ratios are made of sums."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtb.domain.performance import NOTHING, Counters, counted, total

COUNTERS = st.builds(
    Counters, *[st.integers(0, 10**9)] * 4, *[st.integers(0, 10**15)] * 2, *[st.integers(0, 10**9)] * 2
)


def test_ratios_by_hand() -> None:
    """Each ratio from its definition: 2 % CTR, 10 % CVR, CPC 0.25, CPA
    2.50, CPM 5.00, ROAS 4, of the bids in the sample 25 % won."""
    done = Counters(2_000, 1_000, 20, 2, 5_000_000_000, 20_000_000_000, sampled_bids=500, sampled_wins=125)
    assert (done.ctr, done.cvr, done.cpc, done.cpa, done.cpm, done.roas) == (0.02, 0.1, 0.25, 2.5, 5.0, 4.0)
    assert (done.shown, done.win_rate, done.against(10_000_000_000)) == (0.5, 0.25, 0.5)


def test_without_a_divisor_there_is_no_ratio() -> None:
    """Not zero, and no error."""
    ratios = (NOTHING.ctr, NOTHING.cvr, NOTHING.cpc, NOTHING.cpa, NOTHING.cpm, NOTHING.roas, NOTHING.shown)
    assert set(ratios) == {None}
    assert (NOTHING.win_rate, NOTHING.against(0)) == (None, None)


@given(st.lists(COUNTERS, max_size=5), st.lists(COUNTERS, max_size=5))
def test_merging_in_any_order_is_the_same(one: list[Counters], two: list[Counters]) -> None:
    """Instances may be added up pair by pair or all at once."""
    assert total(one + two) == total(one) + total(two) == total((two + one)[::-1])


@pytest.mark.parametrize("kind", ["win", "impression", "click", "conversion"])
def test_rows_are_counted_by_their_kind(kind: str) -> None:
    """With what they cost and were worth."""
    assert counted(kind, 3, 5, 7) == Counters(**{f"{kind}s": 3}, cost_nanos=5, revenue_nanos=7)
