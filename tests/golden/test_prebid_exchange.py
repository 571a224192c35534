"""Prebid Server's exchange tests, run through our auction: who wins, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rtb.domain import auction, money
from rtb.domain.auction import Bid, Lost, Result
from rtb.domain.intake import take_in
from rtb.domain.terms import terms_of
from rtb.openrtb import Loss, decode_request, decode_response
from tests.support import pbs_cases
from tests.support.pbs_cases import NAMES, REFUSED, STRICTER

pytestmark = pbs_cases.needs_data


@pytest.mark.parametrize("name", NAMES)
def test_the_dearest_eligible_bid_wins(name: str) -> None:
    """Our winner of each imp is the dearest bid that Prebid Server answers with, the one it marks as hb_bidder."""
    case = pbs_cases.load(name)
    results, rejected = _run(case)
    stricter = STRICTER.get(name, {})
    assert {lost.bid.content.id: lost.reason for lost in rejected} == {**REFUSED.get(name, {}), **stricter}
    passed = pbs_cases.passed(name, case)
    for result in results:
        best = max((bid for bid in passed if bid["impid"] == result.impid), key=lambda bid: bid["price"], default=None)
        winner = result.winner
        assert (winner and (winner.seat, winner.content.id)) == (best and (best["seat"], best["id"]))
        marked = _marked(passed, result.impid)
        assert winner is None or marked in {None, winner.seat}


@pytest.mark.parametrize("name", NAMES)
def test_what_the_winner_pays(name: str) -> None:
    """First price pays the bid; second price the next advertiser's bid and a cent, without one a cent (no floors)."""
    case = pbs_cases.load(name)
    for result in _run(case)[0]:
        winner = result.winner
        if winner is None:
            continue
        if pbs_cases.request(case).get("at") == 1:
            assert result.price_micros == winner.price_micros
            continue
        rivals = [lost.bid for lost in result.losses if lost.reason is Loss.OUTBID]
        others = [bid.price_micros for bid in rivals if (bid.bidder, bid.seat) != (winner.bidder, winner.seat)]
        assert result.price_micros == min(winner.price_micros, max(others, default=0) + 10_000)


def _run(case: dict[str, Any]) -> tuple[list[Result], list[Lost]]:
    request = decode_request(json.dumps(pbs_cases.request(case)).encode())
    rates = money.Rates()
    bids: dict[str, list[Bid]] = {}
    rejected: list[Lost] = []
    for bidder, outgoing in case["outgoingRequests"].items():
        answer = {"id": request.id, "seatbid": pbs_cases.seats(outgoing["mockResponse"])}
        response = decode_response(json.dumps(answer).encode())
        valid, refused = take_in(response, request, bidder, rates)
        rejected += refused
        for bid in valid:
            bids.setdefault(bid.impid, []).append(bid)
    terms = [terms_of(request, imp, rates) for imp in request.imp or ()]
    return auction.clear_all(bids, terms, auction.tie_break(b"key", "auction")), rejected


def _marked(passed: list[dict[str, Any]], impid: str) -> str | None:
    """The seat that Prebid Server marks as the imp's winner, where the case asks for targeting."""
    for bid in passed:
        targeting = bid.get("ext", {}).get("prebid", {}).get("targeting", {})
        if bid["impid"] == impid and "hb_bidder" in targeting:
            marked: str = targeting["hb_bidder"]
            return marked
    return None
