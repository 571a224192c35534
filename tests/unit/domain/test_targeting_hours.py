"""Hours of the week in a campaign's zone, across clock changes and in half-hour zones."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtb.domain.targeting.hours import Hours, hour_of_week


def utc(*parts: int) -> float:
    """Unix seconds of a moment in UTC."""
    return datetime(*parts, tzinfo=UTC).timestamp()  # type: ignore[misc,arg-type]


@pytest.mark.parametrize(
    ("zone", "now", "hour"),
    [
        ("UTC", utc(2026, 3, 9), 0),  # Monday 00:00
        ("UTC", utc(2026, 3, 8, 23, 59), 167),
        ("America/New_York", utc(2026, 3, 8, 6, 59), 145),  # Sunday 01:59 EST (UTC-5)
        ("America/New_York", utc(2026, 3, 8, 7), 147),  # Sunday 03:00 EDT: 02:00 does not exist
        ("America/New_York", utc(2026, 11, 1, 5, 30), 145),  # Sunday 01:30 EDT
        ("America/New_York", utc(2026, 11, 1, 6, 30), 145),  # Sunday 01:30 again, EST
        ("Asia/Kolkata", utc(2026, 3, 11, 3, 29), 56),  # Wednesday 08:59 (UTC+5:30)
        ("Asia/Kolkata", utc(2026, 3, 11, 3, 30), 57),
        ("Asia/Kathmandu", utc(2026, 3, 11, 3, 15), 57),  # Wednesday 09:00 (UTC+5:45)
    ],
)
def test_hour_of_the_week_on_the_wall(zone: str, now: float, hour: int) -> None:
    """0 is Monday 00:00, where the campaign is."""
    assert hour_of_week(zone, now) == hour
    assert Hours().at(zone, now)[0] == hour


@given(
    zone=st.sampled_from(
        ["America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "America/St_Johns", "Africa/Monrovia", "UTC"]
    ),
    moments=st.lists(
        st.one_of(
            st.floats(0, 2e9),
            st.floats(utc(2026, 3, 8, 6), utc(2026, 3, 8, 8)),
            st.floats(utc(2010, 3, 14, 3), utc(2010, 3, 14, 4)),  # Newfoundland changed at 00:01
            st.floats(utc(1972, 1, 7), utc(1972, 1, 8)),  # Liberia left UTC-0:44:30
        ),
        min_size=1,
        max_size=6,
    ),
)
def test_what_is_remembered_is_true_as_long_as_it_says(zone: str, moments: list[float]) -> None:
    """In any order of moments; the interval holds the moment, and both its ends have the same hour."""
    hours = Hours()
    for now in moments:
        hour, since, until = hours.at(zone, now)
        assert hour == hour_of_week(zone, now)
        assert since <= now < until
        assert hour_of_week(zone, since) == hour_of_week(zone, until - 0.001) == hour
