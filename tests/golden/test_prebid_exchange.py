"""Prebid Server's exchange tests, run through our auction: who wins, and what is refused.

Prebid Server hands all bids on at their own prices and marks the dearest of an imp; ours picks that one. Its mock bids
say their media in `bidType` (our mtype) and carry no markup, which ours requires, so they are given some.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rtb.domain import auction, money
from rtb.domain.auction import Bid, Lost, Result
from rtb.domain.intake import take_in
from rtb.openrtb import Loss, MarkupType, decode_request, decode_response

DATA = Path(__file__).parents[3] / "shared" / "data" / "pbs-exchangetest"

NOT_A_SIZE = "a size that the imp's formats do not list, which Prebid Server lets pass up to a size of its own"

# What we refuse and Prebid Server lets pass, bid id -> our reason: banner bids on imps that offer video alone (3.2.4: a
# bid must conform to one of the offered types). Everything else of these cases must come out alike.
STRICTER: dict[str, dict[str, Loss]] = {
    "alternate-bidder-codes.json": {"appnexus-bid-1": Loss.FORMAT, "appnexus-bid-2": Loss.FORMAT},
    "multi-bids-error.json": {"apn-bid": Loss.FORMAT, "apn-bid-2": Loss.FORMAT},
    "multi-bids-with-extra-bids.json": {"apn-bid": Loss.FORMAT, "apn-bid-2": Loss.FORMAT},
    "multi-bid-default-bid-limit.json": {"992342532": Loss.FORMAT},
}
# What Prebid Server refuses too: bid id -> our reason for it.
REFUSED: dict[str, dict[str, Loss]] = {
    "bid_response_validation_enforce_creative.json": {"apn-bid": Loss.SIZE, "rubi-bid": Loss.SIZE},
    "bid_response_validation_enforce_secure.json": {"apn-bid": Loss.NOT_SECURE, "rubi-bid": Loss.NOT_SECURE},
}
# Prebid Server has "enforce" as a setting of its own; OpenRTB says the same with imp.secure.
SECURE = frozenset({"bid_response_validation_enforce_secure.json"})
LEFT_OUT: dict[str, str] = {
    "bid_response_validation_enforce_one_bid_rejected.json": NOT_A_SIZE,
    "bid_response_validation_warn_creative.json": f"a warning only; here it is {NOT_A_SIZE}",
    "bid_response_validation_warn_secure.json": f"a warning only, and the bids have {NOT_A_SIZE}",
    "mediatypepricegranularity-native.json": "native bids on imps that offer video alone; about price buckets",
    "targeting-cache-vast-banner.json": NOT_A_SIZE,
}
RUN = (
    "alternate-bidder-codes.json",
    "append-bidder-names.json",
    "bid_response_validation_enforce_creative.json",
    "bid_response_validation_enforce_secure.json",
    "extra-bids-with-aliases-adaptercode.json",
    "generate-bid-id-error.json",
    "generate-bid-id-one.json",
    "include-brand-category.json",
    "multi-bid-default-bid-limit.json",
    "multi-bids-error.json",
    "multi-bids-with-extra-bids.json",
    "request-multi-bidders-one-no-resp.json",
    "targeting-no-winners.json",
)
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="Prebid Server's exchange tests are not in ../shared/data")


@needs_data
def test_every_case_is_run_or_left_out_with_a_reason() -> None:
    """No case of the collection is forgotten."""
    assert sorted([*RUN, *LEFT_OUT]) == sorted(path.name for path in DATA.iterdir())


@needs_data
@pytest.mark.parametrize("name", RUN)
def test_the_dearest_eligible_bid_wins(name: str) -> None:
    """Our winner of each imp is the dearest bid that Prebid Server answers with, the one it marks as hb_bidder."""
    case = _load(name)
    results, rejected = _run(name, case)
    stricter = STRICTER.get(name, {})
    assert {lost.bid.content.id: lost.reason for lost in rejected} == REFUSED.get(name, {}) | stricter
    passed = [
        {"seat": seat["seat"], **bid}
        for seat in case["response"]["bids"].get("seatbid", ())
        for bid in seat["bid"]
        if bid["id"] not in stricter
    ]
    for result in results:
        best = max((bid for bid in passed if bid["impid"] == result.impid), key=lambda bid: bid["price"], default=None)
        winner = result.winner
        assert (winner and (winner.seat, winner.content.id)) == (best and (best["seat"], best["id"]))
        marked = _marked(passed, result.impid)
        assert winner is None or marked in {None, winner.seat}


@needs_data
@pytest.mark.parametrize("name", RUN)
def test_what_the_winner_pays(name: str) -> None:
    """First price pays the bid; second price the next advertiser's bid and a cent, without one a cent (no floors)."""
    case = _load(name)
    for result in _run(name, case)[0]:
        winner = result.winner
        if winner is None:
            continue
        if case["incomingRequest"]["ortbRequest"].get("at") == 1:
            assert result.price_micros == winner.price_micros
            continue
        rivals = [lost.bid for lost in result.losses if lost.reason is Loss.OUTBID]
        others = [bid.price_micros for bid in rivals if (bid.bidder, bid.seat) != (winner.bidder, winner.seat)]
        assert result.price_micros == min(winner.price_micros, max(others, default=0) + 10_000)


def _load(name: str) -> dict[str, Any]:
    case: dict[str, Any] = json.loads((DATA / name).read_text(encoding="utf-8"))
    return case


def _run(name: str, case: dict[str, Any]) -> tuple[list[Result], list[Lost]]:
    asked = case["incomingRequest"]["ortbRequest"]
    if name in SECURE:
        asked["imp"] = [{**imp, "secure": 1} for imp in asked["imp"]]
    request = decode_request(json.dumps(asked).encode())
    rates = money.Rates()
    bids: dict[str, list[Bid]] = {}
    rejected: list[Lost] = []
    for bidder, outgoing in case["outgoingRequests"].items():
        response = decode_response(json.dumps(_response(outgoing["mockResponse"])).encode())
        valid, refused = take_in(response, request, bidder, rates)
        rejected += refused
        for bid in valid:
            bids.setdefault(bid.impid, []).append(bid)
    terms = [auction.terms(request, imp, rates) for imp in request.imp or ()]
    return auction.clear_all(bids, terms, auction.tie_break(b"key", "auction")), rejected


def _response(mock: dict[str, Any]) -> dict[str, Any]:
    """A mock response as a wire bid response."""
    seats = []
    for seat in mock.get("pbsSeatBids") or ():
        bids = []
        for pbs_bid in seat["pbsBids"]:
            bid = {"adm": "<p>ad</p>", **pbs_bid["ortbBid"]}
            if "bidType" in pbs_bid:
                bid["mtype"] = int(MarkupType[pbs_bid["bidType"].upper()])
            bids.append(bid)
        seats.append({"seat": seat["seat"], "bid": bids})
    return {"id": "some-request-id", "seatbid": seats}


def _marked(passed: list[dict[str, Any]], impid: str) -> str | None:
    """The seat that Prebid Server marks as the imp's winner, where the case asks for targeting."""
    for bid in passed:
        targeting = bid.get("ext", {}).get("prebid", {}).get("targeting", {})
        if bid["impid"] == impid and "hb_bidder" in targeting:
            marked: str = targeting["hb_bidder"]
            return marked
    return None
