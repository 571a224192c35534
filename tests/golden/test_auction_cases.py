"""Golden auctions: a request and what the bidders answered in, winners, prices and every loss out.

Each file of cases/ stands alone: `request` and `bids` (a response by bidder) as on the wire, `config` where it is not
the default, `results` an imp in CPM of the exchange currency, and the bids that intake `refused`. `source` says where
the expected values come from; none was copied from an output.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rtb.domain import auction, money
from rtb.domain.auction import Bid, Lost, Result
from rtb.domain.intake import take_in
from rtb.domain.terms import terms_of
from rtb.domain.validation import CridRule
from rtb.openrtb import decode_request, decode_response

CASES = sorted((Path(__file__).parent / "cases").glob("*.json"))


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_case(path: Path) -> None:
    """The auction of the file comes out as its source says, and every bid has exactly one fate."""
    case = json.loads(path.read_text(encoding="utf-8"))
    results, refused = run(case)
    assert [_as_case(result) for result in results] == case["results"]
    assert {lost.bid.content.id: int(lost.reason) for lost in refused} == case.get("refused", {})
    fates = [bid.content.id for result in results for bid in _bids(result)] + [lost.bid.content.id for lost in refused]
    sent = [bid["id"] for r in case["bids"].values() for seat in r.get("seatbid", ()) for bid in seat["bid"]]
    assert sorted(fates) == sorted(sent)


def test_every_case_names_its_source() -> None:
    """A case without a source would only pin down what the code does."""
    assert CASES
    assert all(json.loads(path.read_text(encoding="utf-8"))["source"] for path in CASES)


def run(case: dict[str, Any]) -> tuple[list[Result], list[Lost]]:
    """The results of the case's auction, and what intake refused."""
    config = case.get("config", {})
    rates = money.Rates(config.get("currency", "USD"), config.get("rates"))
    request = decode_request(json.dumps(case["request"]).encode())
    bids: dict[str, list[Bid]] = {}
    refused: list[Lost] = []
    for bidder, answer in case["bids"].items():
        response = decode_response(json.dumps(answer).encode())
        crid, adomain = CridRule(config.get("crid", "optional")), config.get("adomain_required", False)
        valid, rejected = take_in(response, request, bidder, rates, crid=crid, adomain=adomain)
        refused += rejected
        for bid in valid:
            bids.setdefault(bid.impid, []).append(bid)
    results = auction.clear_all(
        bids,
        [terms_of(request, imp, rates) for imp in request.imp or ()],
        auction.tie_break(b"golden", "auction"),
        increment_micros=money.to_micros(config.get("increment_cpm", 0.01)),
        deals_first=config.get("deals", "priority") == "priority",
    )
    return results, refused


def _bids(result: Result) -> list[Bid]:
    return ([] if result.winner is None else [result.winner]) + [lost.bid for lost in result.losses]


def _as_case(result: Result) -> dict[str, Any]:
    losses = {
        lost.bid.content.id: {
            "reason": int(lost.reason),
            "min_to_win": None if lost.min_to_win_micros is None else money.to_cpm(lost.min_to_win_micros),
        }
        for lost in result.losses
    }
    if result.winner is None:
        return {"impid": result.impid, "winner": None, "losses": losses}
    return {
        "impid": result.impid,
        "winner": result.winner.content.id,
        "price": money.to_cpm(result.price_micros),
        "min_to_win": money.to_cpm(result.min_to_win_micros),
        "losses": losses,
    }
