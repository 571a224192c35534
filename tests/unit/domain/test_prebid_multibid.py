"""How many bids of a bidder a page takes: Prebid Server's own cases (openrtb_ext/multibid_test.go)."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from rtb.domain.prebid_multibid import BidLimit, MultiBid, limits


def found(*entries: dict[str, Any]) -> tuple[dict[str, BidLimit], list[str]]:
    return limits(msgspec.convert(entries, list[MultiBid]))


PUBMATIC = {"bidder": "pubmatic", "maxbids": 2, "targetbiddercodeprefix": "pm"}
OF_PUBMATIC = {"pubmatic": BidLimit(2, "pm")}


@pytest.mark.parametrize(
    ("entries", "expected", "flaws"),
    [
        ((), {}, []),
        (({"bidder": "pubmatic"},), {}, ["[0]: ignored, maxbids is missing"]),
        (({"maxbids": 2},), {}, ["[0]: ignored, it names no bidder"]),
        (
            (PUBMATIC, {"bidder": "PubMatic", "maxbids": 3, "targetbiddercodeprefix": "pubm"}),
            OF_PUBMATIC,
            ["[1]: ignored for 'PubMatic', which an entry before it names"],
        ),
        (
            (PUBMATIC, {"bidder": "appnexus", "bidders": ["rubicon"], "maxbids": 2, "targetbiddercodeprefix": "appN"}),
            {**OF_PUBMATIC, "appnexus": BidLimit(2, "appN")},
            ["[1].bidders: ignored beside bidder"],
        ),
        (
            ({"bidders": ["appnexus", "someBidder"], "maxbids": 2},),
            {"appnexus": BidLimit(2), "somebidder": BidLimit(2)},
            [],
        ),
        (
            (PUBMATIC, {"bidders": ["appnexus", "pubmatic"], "maxbids": 2}),
            {**OF_PUBMATIC, "appnexus": BidLimit(2)},
            ["[1]: ignored for 'pubmatic', which an entry before it names"],
        ),
        (
            ({"bidders": ["appnexus"], "maxbids": 2, "targetbiddercodeprefix": "appN"},),
            {"appnexus": BidLimit(2)},
            ["[0].targetbiddercodeprefix: ignored beside bidders; give each an entry of its own"],
        ),
        (
            ({"bidder": "appnexus", "maxbids": 0, "targetbiddercodeprefix": "appN"},),
            {"appnexus": BidLimit(1, "appN")},
            ["[0].maxbids: 0 is taken for 1; send 1 to 9"],
        ),
        (
            ({"bidder": "appnexus", "maxbids": 10, "targetbiddercodeprefix": "appN"},),
            {"appnexus": BidLimit(9, "appN")},
            ["[0].maxbids: 10 is taken for 9; send 1 to 9"],
        ),
    ],
)
def test_limits_and_what_is_wrong(
    entries: tuple[dict[str, Any], ...], expected: dict[str, BidLimit], flaws: list[str]
) -> None:
    """What Prebid Server makes of the same entries, and warns of."""
    assert found(*entries) == (expected, [f"ext.prebid.multibid{flaw}" for flaw in flaws])


def test_what_the_ad_server_calls_a_bid() -> None:
    """The code itself, then prefix and number; without a prefix it hears of no further bid."""
    assert [BidLimit(3, "bidA").target("bidderA", place) for place in (1, 2, 3)] == ["bidderA", "bidA2", "bidA3"]
    assert [BidLimit(2).target("bidderC", place) for place in (1, 2)] == ["bidderC", ""]
