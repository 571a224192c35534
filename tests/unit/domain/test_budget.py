"""Limits, buckets, and budget days where the campaign lives."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtb.domain.budget import LIFE, Limit, bucket, budget_day, day_before, day_end, limit

NEW_YORK = ZoneInfo("America/New_York")
SEOUL = ZoneInfo("Asia/Seoul")


def utc(text: str) -> float:
    """Unix seconds of a time in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def test_the_cap_of_a_limit() -> None:
    """A share of it, but a small limit may be leased whole."""
    assert limit(1_000, share=0.25) == Limit(1_000, 250)
    assert limit(1_000, share=0.25, floor_nanos=400) == Limit(1_000, 400)
    assert limit(300, share=0.25, floor_nanos=400) == Limit(300, 300)
    assert limit(0) == Limit(0, 0)


@pytest.mark.parametrize("nanos", [-1, 9 * 10**15 + 1])
def test_a_limit_that_no_store_holds_exactly(nanos: int) -> None:
    """It is refused, with the amount."""
    with pytest.raises(ValueError, match=str(nanos)):
        limit(nanos)


def test_holds_of_the_same_ten_seconds_share_a_bucket() -> None:
    """Named by its end in seconds; a hold never lapses before its own expiry."""
    assert [bucket(ms) for ms in (10_000, 10_001, 19_999, 20_000, 20_001)] == [10, 20, 20, 20, 30]


def test_budget_days_are_dates_of_the_zone() -> None:
    """15:00 UTC is midnight in Seoul; a day of 23 hours is one day."""
    assert budget_day(utc("2026-11-22 14:59:59"), SEOUL) == "2026-11-22"
    assert budget_day(utc("2026-11-22 15:00:00"), SEOUL) == "2026-11-23"
    assert budget_day(utc("2026-03-08 05:00:00"), NEW_YORK) == "2026-03-08"
    assert budget_day(utc("2026-03-09 03:59:59"), NEW_YORK) == "2026-03-08"
    assert budget_day(utc("2026-03-09 04:00:00"), NEW_YORK) == "2026-03-09"
    assert day_before("2026-03-01") == "2026-02-28"
    assert day_before("2026-01-02", 3) == "2025-12-30"
    assert day_before("2026-01-01") < LIFE


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
