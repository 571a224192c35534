"""Frequency caps: which counters a campaign has, and when it has been shown often enough."""

from __future__ import annotations

import pytest

from rtb.domain import frequency
from rtb.domain.campaign import Campaign, Creative, FrequencyCap, Per
from rtb.domain.frequency import Cap, OnUnknown, Unknown

HOURLY, DAILY = FrequencyCap(2, per=Per.HOUR), FrequencyCap(5, per=Per.DAY)


def capped(*caps: FrequencyCap, single: FrequencyCap | None = None) -> Campaign:
    """A campaign with these caps."""
    return Campaign(id="c", advertiser="a", creatives=(Creative(id="x"),), frequency_cap=single, frequency_caps=caps)


def test_every_cap_has_a_counter_of_its_own() -> None:
    """By the window; the single one counts under the campaign's id."""
    assert frequency.caps(capped(HOURLY, DAILY, single=FrequencyCap(9, 7))) == [
        Cap("c", 9, 7),
        Cap("c/3600", 2, 3_600),
        Cap("c/86400", 5, 86_400),
    ]
    assert frequency.caps(capped()) == ()


@pytest.mark.parametrize(
    ("counts", "reached"),
    [
        ({}, None),
        ({"c/3600": 1, "c/86400": 4}, None),
        ({"c/3600": 2, "c/86400": 4}, "c/3600"),
        ({"c/86400": 5}, "c/86400"),  # the hour is over, the day is not
        ({"c/3600": 7, "c/86400": 7}, "c/3600"),
        ({"c": 99, "d/3600": 99}, None),  # not its counters
    ],
)
def test_the_first_cap_that_is_reached_decides(counts: dict[str, int], reached: str | None) -> None:
    """Two an hour and five a day."""
    cap = frequency.capped(capped(HOURLY, DAILY), counts)
    assert (cap and cap.counter) == reached


def test_it_says_which_cap() -> None:
    """How often it was shown, and how often it may be."""
    assert frequency.objection(capped(HOURLY), {"c/3600": 3}) == "3 shown, at most 2 in 3600 s"
    assert frequency.objection(capped(HOURLY), {"c/3600": 1}) == ""
    assert frequency.objection(capped(HOURLY), Unknown(OnUnknown.SKIP)) == (
        "unknown how many shown, at most 2 in 3600 s"
    )


def test_unknown_counters_seem_empty_to_who_bids_and_full_to_who_skips() -> None:
    """However they are asked; campaigns without a cap, whose counter is "", are not concerned, nor counted."""
    bids, skips = Unknown(), Unknown(OnUnknown.SKIP)
    assert ("" in bids, "" in skips, bids.asked, skips.asked) == (False, False, 0, 0)
    assert ("c" in bids, bids.get("c"), bids.asked) == (False, 0, 2)
    assert ("c" in skips and skips["c"] > 10**9, skips.asked) == (True, 1)
    assert skips.get("c") > 10**9
    assert (bool(bids), dict(bids)) == (True, {})
    with pytest.raises(KeyError):
        bids["c"]
