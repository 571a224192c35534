"""Prebid Server's exchange tests: each a request, what its mock bidders answer, and what Prebid Server makes of it.

Prebid Server hands all bids on at their own prices and marks the dearest of an imp. Its mock bids say their media in
`bidType` (our mtype) and carry no markup, which ours requires, so they are given some. Where a case rests on a setting
of its host, its request says the same in OpenRTB's own words (`ADAPTED`). Every case of the collection is run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from rtb.openrtb import Loss, MarkupType

DATA = Path(__file__).parents[3] / "shared" / "data" / "pbs-exchangetest"
NAMES = tuple(sorted(path.name for path in DATA.glob("*.json")))
needs_data = pytest.mark.skipif(not NAMES, reason="Prebid Server's exchange tests are not in ../shared/data")

_SIZES = "Prebid Server lets banners pass up to a size of its own; ours must have one that the imp offers"
_SECURE = 'Prebid Server has "enforce" as a setting of its own; OpenRTB says the same with imp.secure'
_NATIVE = "the bids are native ads, and the imps offer videos alone, which OpenRTB 3.2.4 does not allow"

ADAPTED: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "bid_response_validation_enforce_one_bid_rejected.json": (_SIZES, {"banner": {"format": [{"w": 20, "h": 50}]}}),
    "bid_response_validation_enforce_secure.json": (_SECURE, {"secure": 1}),
    "bid_response_validation_warn_creative.json": (_SIZES, {"banner": {"format": [{"w": 200, "h": 500}]}}),
    "bid_response_validation_warn_secure.json": (_SIZES, {"banner": {"format": [{"w": 20, "h": 50}]}}),
    "mediatypepricegranularity-native.json": (_NATIVE, {"native": {"request": "{}"}}),
    "targeting-cache-vast-banner.json": (_SIZES, {"banner": {"w": 200, "h": 250}}),
}
"""What the imps of a case say here, and why."""

STRICTER: Mapping[str, Mapping[str, Loss]] = {
    "alternate-bidder-codes.json": {"appnexus-bid-1": Loss.FORMAT, "appnexus-bid-2": Loss.FORMAT},
    "multi-bids-error.json": {"apn-bid": Loss.FORMAT, "apn-bid-2": Loss.FORMAT},
    "multi-bids-with-extra-bids.json": {"apn-bid": Loss.FORMAT, "apn-bid-2": Loss.FORMAT},
    "multi-bid-default-bid-limit.json": {"992342532": Loss.FORMAT},
}
"""What we refuse and Prebid Server lets pass, bid id -> our reason: banner bids on imps that offer video alone (3.2.4).
Everything else of these cases comes out alike."""
REFUSED: Mapping[str, Mapping[str, Loss]] = {
    "bid_response_validation_enforce_creative.json": {"apn-bid": Loss.SIZE, "rubi-bid": Loss.SIZE},
    "bid_response_validation_enforce_one_bid_rejected.json": {"apn-bid": Loss.SIZE},
    "bid_response_validation_enforce_secure.json": {"apn-bid": Loss.NOT_SECURE, "rubi-bid": Loss.NOT_SECURE},
}
"""What Prebid Server refuses too: bid id -> our reason for it."""


def load(name: str) -> dict[str, Any]:
    """A case, its request adapted."""
    case: dict[str, Any] = json.loads((DATA / name).read_text(encoding="utf-8"))
    _, said = ADAPTED.get(name, ("", {}))
    for imp in request(case)["imp"]:
        imp.update(said)
    return case


def request(case: Mapping[str, Any]) -> dict[str, Any]:
    """What the page asks."""
    found: dict[str, Any] = case["incomingRequest"]["ortbRequest"]
    return found


def seats(mock: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The seatbids of a mock response as they are on the wire."""
    return [
        {"seat": seat["seat"], "bid": [_wire(pbs_bid) for pbs_bid in seat["pbsBids"]]}
        for seat in mock.get("pbsSeatBids") or ()
    ]


def _wire(pbs_bid: Mapping[str, Any]) -> dict[str, Any]:
    bid = {"adm": "<p>ad</p>", **pbs_bid["ortbBid"]}
    if "bidType" in pbs_bid:
        bid["mtype"] = int(MarkupType[pbs_bid["bidType"].upper()])
    return bid


def passed(name: str, case: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The bids that Prebid Server answers with, but for those that we refuse; each with its seat."""
    return [
        {"seat": seat["seat"], **bid}
        for seat in case["response"]["bids"].get("seatbid", ())
        for bid in seat["bid"]
        if bid["id"] not in STRICTER.get(name, {})
    ]
