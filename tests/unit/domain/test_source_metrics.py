"""Merging metrics: sums without regard to order, trust that is never lost on the way, rates from sums."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtb.domain.money import Rates
from rtb.domain.source_metrics import (
    CampaignMetrics,
    Days,
    Figures,
    Reading,
    Standing,
    converted,
    count,
    merge,
    millionths,
    nanos,
    total,
)

TODAY = Days(date(2026, 1, 1), date(2026, 1, 1))
AMOUNTS = st.integers(0, 10**24)
FIGURES = st.builds(Figures, AMOUNTS, AMOUNTS, AMOUNTS, AMOUNTS, AMOUNTS)
READINGS = st.one_of(
    st.builds(Reading, st.text(max_size=3), st.sampled_from([Standing.FRESH, Standing.STALE]), FIGURES),
    st.builds(Reading, st.text(max_size=3), st.just(Standing.UNKNOWN)),
)


@given(st.lists(READINGS, max_size=8), st.randoms(use_true_random=False))
def test_order_does_not_matter(readings: list[Reading], random: Random) -> None:
    """Any order gives the same totals, standing, stale and unknown sources."""
    shuffled = random.sample(readings, len(readings))
    one, other = merge("c", TODAY, "USD", readings), merge("c", TODAY, "USD", shuffled)
    assert one.totals == other.totals
    assert one.standing is other.standing
    assert (one.stale, one.unknown) == (other.stale, other.unknown)


@given(st.lists(READINGS, max_size=8))
def test_no_mark_is_lost(readings: list[Reading]) -> None:
    """Totals hold each source that told something, once; every stale and unknown one is named; the worst one counts."""
    merged = merge("c", TODAY, "USD", readings)
    told = [reading.figures for reading in readings if reading.figures is not None]
    if not told:
        assert merged.totals is None
    else:
        assert merged.totals is not None
        assert merged.totals.impressions == sum(figures.impressions for figures in told)
        assert merged.totals.spend_nanos == sum(figures.spend_nanos for figures in told)
        assert merged.totals.revenue_nanos == sum(figures.revenue_nanos for figures in told)
    stale = sorted(reading.source for reading in readings if reading.standing is Standing.STALE)
    unknown = sorted(reading.source for reading in readings if reading.standing is Standing.UNKNOWN)
    assert (list(merged.stale), list(merged.unknown)) == (stale, unknown)
    if unknown or not readings:
        assert merged.standing is Standing.UNKNOWN
    else:
        assert merged.standing is (Standing.STALE if stale else Standing.FRESH)


@given(st.lists(st.lists(FIGURES, max_size=4), max_size=4))
def test_sums_of_sums(groups: list[list[Figures]]) -> None:
    """It does not matter in which groups parts are added."""
    assert total(total(group) for group in groups) == total(part for group in groups for part in group)


def test_rates_come_from_sums() -> None:
    """Two sources of 1,000 and 3,000 impressions with CTRs of 10 % and 2 % have 4 %, not 6 %."""
    both = total([Figures(1000, 100, 10_000_000, 50 * 10**9, 100 * 10**9), Figures(3000, 60, 6_000_000, 30 * 10**9, 0)])
    assert both.ctr == 0.04  # 160 / 4,000
    assert both.cvr == 0.1  # 16 / 160
    assert both.cpc == 0.5  # 80 / 160
    assert both.cpm == 20.0  # 80 / 4
    assert both.roas == 1.25  # 100 / 80
    assert both.conversions == 16.0


def test_no_rate_without_what_it_is_of() -> None:
    """None, not zero."""
    nothing = Figures()
    assert (nothing.ctr, nothing.cvr, nothing.cpc, nothing.cpm, nothing.roas) == (None,) * 5


def test_currencies_are_converted() -> None:
    """1.10 USD a EUR: spend is rounded up to the nano, revenue down; counts stay."""
    own = CampaignMetrics(Figures(10, 2, 500_000, 1_000_000_001, 1_000_000_001), "EUR")
    rates = Rates("USD", {"EUR": 1.1})
    assert converted(own, rates) == Figures(10, 2, 500_000, 1_100_000_002, 1_100_000_001)
    with pytest.raises(KeyError):
        converted(CampaignMetrics(Figures(), "JPY"), rates)


def test_days_are_in_order() -> None:
    """The last one is not before the first."""
    with pytest.raises(ValueError, match="2025-12-31 is before 2026-01-01"):
        Days(date(2026, 1, 1), date(2025, 12, 31))


@given(st.decimals(0, 10**15, allow_nan=False, places=9))
def test_amounts_are_exact(amount: Decimal) -> None:
    """Nine places and fifteen digits lose nothing, as a string."""
    assert nanos(str(amount)) == int(amount.scaleb(9))


def test_numbers_as_sources_write_them() -> None:
    """Strings and numbers; half-even beyond the last place."""
    assert (count("9708"), count(3), count("3.0")) == (9708, 3, 3)
    assert (nanos("20.54"), nanos(20.54), nanos("0.0000000005")) == (20_540_000_000, 20_540_000_000, 0)
    assert (millionths(2.5), millionths("3")) == (2_500_000, 3_000_000)


@pytest.mark.parametrize("text", ["", "x", "-1", "NaN", "Infinity", "1e16", "1,5", "sNaN", "9" * 5_000])
def test_what_is_no_number(text: str) -> None:
    """One line, whatever the source wrote."""
    for read in (count, nanos, millionths):
        with pytest.raises(ValueError, match="is not") as caught:
            read(text)
        assert len(str(caught.value)) < 100
