"""Price buckets and key-values for ad servers."""

from __future__ import annotations

from fractions import Fraction

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtb.domain.prebid_targeting import NAMED, Granularity, PriceRange, Targeting, key_values
from rtb.errors import BadRequest

WINNERS = Targeting(includebidderkeys=False)


def targeting(text: str) -> Targeting:
    return msgspec.json.decode(text, type=Targeting).checked()


# The tables of Prebid's "Price Granularity": what the named granularities make of prices at their edges.
@pytest.mark.parametrize(
    ("name", "buckets"),
    [
        ("low", {0.49: "0.00", 0.50: "0.50", 4.99: "4.50", 5.00: "5.00", 9.99: "5.00"}),
        ("medium", {0.09: "0.00", 0.10: "0.10", 1.57: "1.50", 20.00: "20.00", 20.01: "20.00"}),
        ("med", {1.57: "1.50"}),
        ("high", {0.01: "0.01", 1.15: "1.15", 19.999: "19.99", 21.00: "20.00"}),
        ("auto", {4.99: "4.95", 5.00: "5.00", 5.09: "5.00", 5.10: "5.10", 9.99: "9.90", 10.49: "10.00", 19.7: "19.50"}),
        ("dense", {2.999: "2.99", 3.04: "3.00", 3.05: "3.05", 7.99: "7.95", 8.49: "8.00", 8.5: "8.50", 25: "20.00"}),
    ],
)
def test_named_granularities(name: str, buckets: dict[float, str]) -> None:
    """Prices are rounded down to their bucket; above the last range its end counts."""
    assert {price: NAMED[name].bucket(round(price * 1e6)) for price in buckets} == buckets


def test_ranges_and_precision_of_the_request_s_own() -> None:
    """Steps count from the beginning of a range, which is the end of the one before: 2.5 + 2 x 1.2 = 4.9."""
    ranges = '[{"max": 2.5, "increment": 0.5}, {"max": 6, "increment": 1.2}]'
    own = targeting(f'{{"pricegranularity": {{"precision": 1, "ranges": {ranges}}}}}').granularity("banner")
    assert [own.bucket(micros) for micros in (2_400_000, 2_500_000, 5_700_000, 5_000_000, 6_100_000)] == [
        "2.0",
        "2.5",
        "4.9",
        "4.9",
        "6.0",
    ]


def test_precision_alone_keeps_the_medium_ranges() -> None:
    """As in Prebid Server."""
    assert targeting('{"pricegranularity": {"precision": 4}}').granularity("native").bucket(1_570_000) == "1.5000"


@given(
    st.integers(0, 30_000_000),
    st.lists(st.tuples(st.integers(1, 8_000_000), st.integers(1, 3_000_000)), min_size=1, max_size=4),
)
def test_a_bucket_is_the_greatest_step_not_above_the_price(price: int, steps: list[tuple[int, int]]) -> None:
    """Against exact fractions, for any ranges."""
    ranges, top = [], 0
    for width, increment in steps:
        top += width
        ranges.append(PriceRange(top / 1e6, increment / 1e6))
    bucket = Granularity(precision=6, ranges=tuple(ranges)).bucket(price)
    floor = 0
    expected = Fraction(top)
    for width, increment in steps:
        if price <= floor + width:
            expected = max(Fraction(floor + n * increment) for n in range((price - floor) // increment + 1))
            break
        floor += width
    assert Fraction(bucket) == expected / 1_000_000


def test_media_can_have_buckets_of_their_own() -> None:
    """Of a video 1.57 falls to 1.00; of all others to 1.50."""
    asked = targeting('{"pricegranularity": "med", "mediatypepricegranularity": {"video": "low"}}')
    assert [asked.granularity(media).bucket(1_570_000) for media in ("video", "banner", "audio")] == [
        "1.50",
        "1.50",
        "1.50",
    ]
    assert asked.granularity("video").bucket(1_450_000) == "1.00"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"pricegranularity": "fine"}', "ext.prebid.targeting.pricegranularity: 'fine' is none of low"),
        (
            '{"mediatypepricegranularity": {"native": {"ranges": '
            '[{"max": 5, "increment": 1}, {"max": 5, "increment": 2}]}}}',
            "ext.prebid.targeting.mediatypepricegranularity.native.ranges[1].max: 5.0 is not above",
        ),
    ],
)
def test_nonsense_is_refused(text: str, reason: str) -> None:
    """With the field's name."""
    with pytest.raises(BadRequest) as refused:
        targeting(text)
    assert str(refused.value).startswith(reason)


def test_the_winner_s_keys() -> None:
    """Without a bidder's name, and without what is not known."""
    keys = key_values(WINNERS, bidder="rtb", price_micros=2_010_000, media="banner", size=(300, 250))
    assert keys == {"hb_pb": "2.00", "hb_bidder": "rtb", "hb_size": "300x250"}
    assert key_values(WINNERS, bidder="rtb", price_micros=2_010_000, media="audio") == {
        "hb_pb": "2.00",
        "hb_bidder": "rtb",
    }


def test_bidder_keys_are_cut_to_twenty_characters() -> None:
    """As in Prebid Server's documentation; the values are not cut."""
    asked = Targeting(includewinners=False)
    keys = key_values(asked, bidder="audienceNetwork", price_micros=510_000, media="video", size=(200, 250))
    assert keys == {
        "hb_pb_audienceNetwor": "0.50",
        "hb_bidder_audienceNe": "audienceNetwork",
        "hb_size_audienceNetw": "200x250",
    }


def test_deals_formats_apps_and_prefixes() -> None:
    """Deals may have their bidder's keys where nothing else has."""
    asked = Targeting(includebidderkeys=False, includeformat=True, alwaysincludedeals=True, prefix="own")
    plain = key_values(asked, bidder="rtb", price_micros=1_000_000, media="native", app=True)
    assert plain == {"own_pb": "1.00", "own_bidder": "rtb", "own_format": "native", "own_env": "mobile-app"}
    dealt = key_values(asked, bidder="rtb", price_micros=1_000_000, media="native", dealid="d-1")
    assert dealt == {
        "own_pb": "1.00",
        "own_pb_rtb": "1.00",
        "own_bidder": "rtb",
        "own_bidder_rtb": "rtb",
        "own_format": "native",
        "own_format_rtb": "native",
        "own_deal": "d-1",
        "own_deal_rtb": "d-1",
    }
