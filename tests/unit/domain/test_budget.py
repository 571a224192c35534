"""A budget of a day: never above its limit, and new at midnight where the campaign lives."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtb.domain.budget import Account, day_end

NEW_YORK = ZoneInfo("America/New_York")
SEOUL = ZoneInfo("Asia/Seoul")


def utc(text: str) -> float:
    """Unix seconds of a time in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def test_spending_to_the_limit() -> None:
    """The last nano can be spent, one more cannot, and a refused debit spends nothing."""
    account = Account(limit_nanos=100, day_ends=0)
    assert account.debit(60)
    assert not account.debit(41)
    assert account.spent_nanos == 60
    assert account.debit(40)
    assert not account.spendable(1)
    assert account.debit(0)
    assert account.spent_nanos == 100


def test_no_limit() -> None:
    """A limit of None is none; what was spent is still counted."""
    account = Account(limit_nanos=None, day_ends=0)
    assert account.debit(10**18)
    assert account.spent_nanos == 10**18


def test_a_limit_lowered_below_what_is_spent() -> None:
    """Nothing more is spent, and nothing is taken back."""
    account = Account(limit_nanos=50, day_ends=0, spent_nanos=60)
    assert not account.spendable(1)
    assert not account.debit(1)
    assert account.spent_nanos == 60


def test_a_negative_cost_is_an_error() -> None:
    """Spending cannot fill a budget."""
    account = Account(limit_nanos=100, day_ends=0, spent_nanos=50)
    with pytest.raises(ValueError, match="negative"):
        account.debit(-1)
    assert account.spent_nanos == 50


@given(st.integers(0, 1000), st.lists(st.integers(0, 400)))
def test_never_above_the_limit(limit: int, costs: list[int]) -> None:
    """Whatever is debited in whatever order: spent is the sum of what was accepted, and at most the limit.

    What is refused would not have fitted.
    """
    account = Account(limit_nanos=limit, day_ends=0)
    accepted = 0
    for cost in costs:
        if account.debit(cost):
            accepted += cost
        else:
            assert accepted + cost > limit
        assert account.spent_nanos == accepted <= limit


@pytest.mark.parametrize(
    ("zone", "now", "end"),
    [
        (ZoneInfo("UTC"), "2026-01-01 00:00:00", "2026-01-02 00:00:00"),
        (ZoneInfo("UTC"), "2026-12-31 23:59:59", "2027-01-01 00:00:00"),
        # New York, 8 March 2026: EST until 02:00, then EDT; 23 hours, from 05:00 UTC to 04:00 UTC
        (NEW_YORK, "2026-03-08 05:00:00", "2026-03-09 04:00:00"),
        (NEW_YORK, "2026-03-08 06:59:59", "2026-03-09 04:00:00"),
        (NEW_YORK, "2026-03-08 07:00:00", "2026-03-09 04:00:00"),
        (NEW_YORK, "2026-03-08 04:59:59", "2026-03-08 05:00:00"),
        # New York, 1 November 2026: EDT until 02:00, then EST; 25 hours, from 04:00 UTC to 05:00 UTC
        (NEW_YORK, "2026-11-01 04:00:00", "2026-11-02 05:00:00"),
        (NEW_YORK, "2026-11-01 05:30:00", "2026-11-02 05:00:00"),  # 01:30 EDT
        (NEW_YORK, "2026-11-01 06:30:00", "2026-11-02 05:00:00"),  # 01:30 again, EST
        (NEW_YORK, "2026-11-01 03:59:59", "2026-11-01 04:00:00"),
        # Seoul has no summer time: midnight is 15:00 UTC, on those days too
        (SEOUL, "2026-03-08 14:59:59", "2026-03-08 15:00:00"),
        (SEOUL, "2026-03-08 15:00:00", "2026-03-09 15:00:00"),
        (SEOUL, "2026-11-01 00:00:00", "2026-11-01 15:00:00"),
        # Cairo's summer time begins at midnight: 24 April 2026 starts at 01:00, the moment 23 April ends
        (ZoneInfo("Africa/Cairo"), "2026-04-23 12:00:00", "2026-04-23 22:00:00"),
        (ZoneInfo("Africa/Cairo"), "2026-04-23 22:00:00", "2026-04-24 21:00:00"),
    ],
)
def test_the_end_of_a_day(zone: ZoneInfo, now: str, end: str) -> None:
    """The next midnight of the zone, worked out by hand in UTC; days of 23 and 25 hours among them."""
    assert day_end(utc(now), zone) == utc(end)


@given(
    st.floats(min_value=utc("2020-01-01"), max_value=utc("2040-01-01")),
    st.sampled_from(["America/New_York", "Asia/Seoul", "Africa/Cairo", "Australia/Lord_Howe", "Asia/Kathmandu"]),
)
@settings(deadline=None)
def test_a_day_ends_soon_and_at_midnight(now: float, zone: str) -> None:
    """After now, within 25 hours, on the next date there; and a second before, it is still today there."""
    there = ZoneInfo(zone)
    end = day_end(now, there)
    assert 0 < end - now <= 25 * 3600
    today = datetime.fromtimestamp(now, there).date()
    assert (datetime.fromtimestamp(end, there).date() - today).days == 1
    assert datetime.fromtimestamp(end - 1, there).date() == today


def test_a_new_day_is_a_new_budget() -> None:
    """At its end and not before, spent starts again at nothing; a day that was slept through as well."""
    account = Account(limit_nanos=100, day_ends=day_end(utc("2026-03-08 12:00:00"), NEW_YORK), spent_nanos=100)
    assert not account.roll(utc("2026-03-09 03:59:59"), NEW_YORK)
    assert account.spent_nanos == 100
    assert account.roll(utc("2026-03-09 04:00:00"), NEW_YORK)
    assert (account.spent_nanos, account.day_ends) == (0, utc("2026-03-10 04:00:00"))
    assert account.roll(utc("2026-03-20 12:00:00"), NEW_YORK)
    assert account.day_ends == utc("2026-03-21 04:00:00")
