"""A bidder's response taken in: currencies, seats, groups, and one bad bid among good ones."""

from __future__ import annotations

from typing import Any

import pytest

from rtb.domain.auction import Bid, Lost
from rtb.domain.intake import take_in
from rtb.domain.money import Rates
from rtb.openrtb import Banner, BidRequest, BidResponse, Imp, Loss, SeatBid
from rtb.openrtb import Bid as WireBid

REQUEST = BidRequest(id="r", imp=[Imp(id="1", banner=Banner()), Imp(id="2", banner=Banner(w=300, h=250))])
RATES = Rates("USD", {"EUR": 1.1})


def wire(bid_id: str, **fields: Any) -> WireBid:
    """A valid bid on imp 1."""
    return WireBid(**{"id": bid_id, "impid": "1", "price": 1.0, "adm": "<p>ad</p>", **fields})


def taken(
    *bids: WireBid, request: BidRequest = REQUEST, cur: str | None = None, **seat: Any
) -> tuple[list[Bid], list[Lost]]:
    """What comes of a response with one seatbid."""
    return take_in(BidResponse(id="r", cur=cur, seatbid=[SeatBid(bid=list(bids), **seat)]), request, "dsp", RATES)


def reasons(rejected: list[Lost]) -> dict[str, Loss]:
    """Reason by bid id."""
    return {lost.bid.content.id: lost.reason for lost in rejected}


@pytest.mark.parametrize(
    "response", [BidResponse(), BidResponse(id="r", seatbid=[]), BidResponse(seatbid=[SeatBid(), SeatBid(bid=[])])]
)
def test_no_bid_is_nothing(response: BidResponse) -> None:
    """7.1: the ways not to bid leave nothing."""
    assert take_in(response, REQUEST, "dsp", RATES) == ([], [])


def test_a_bid_as_the_auction_sees_it() -> None:
    """Names in lower case, price in micros, and the wire bid kept as it came."""
    sent = wire("b", price=1.25, dealid="d", adomain=["Ford.COM"], dur=15, mtype=1)
    (bid,), rejected = taken(sent, seat="s")
    assert (bid.impid, bid.seat, bid.bidder, bid.dealid, bid.group) == ("1", "s", "dsp", "d", "")
    assert (bid.price_micros, list(bid.adomain), bid.mtype, bid.dur) == (1_250_000, ["ford.com"], 1, 15)
    assert bid.content is sent
    assert rejected == []


def test_one_bad_bid_does_not_cost_the_others() -> None:
    """Each is judged on its own, and keeps its own reason."""
    bids, rejected = taken(wire("a"), wire("b", price=None), wire("c", adm=None), wire("d", impid="9"), wire("e"))
    assert [bid.content.id for bid in bids] == ["a", "e"]
    assert reasons(rejected) == {"b": Loss.PRICE_MISSING, "c": Loss.MARKUP_MISSING, "d": Loss.INVALID_RESPONSE}


def test_a_seatbid_without_a_seat_bids_as_the_bidder() -> None:
    """4.2.2 makes seat optional."""
    assert taken(wire("a"))[0][0].seat == "dsp"
    assert taken(wire("a"), seat="")[0][0].seat == "dsp"


def test_a_blocked_seat_loses_all_its_bids() -> None:
    """104, before anything else about the bid is looked at."""
    request = BidRequest(id="r", imp=REQUEST.imp, bseat=["s"])
    assert reasons(taken(wire("a"), wire("b", price=None), request=request, seat="s")[1]) == {
        "a": Loss.SEAT_BLOCKED,
        "b": Loss.SEAT_BLOCKED,
    }


@pytest.mark.parametrize(
    ("cur", "allowed", "micros"),
    [
        (None, None, 1_000_000),
        ("USD", None, 1_000_000),
        ("EUR", None, 1_100_000),
        ("EUR", ["EUR"], 1_100_000),
        ("USD", ["EUR"], 1_000_000),  # the exchange's own; it converts its answer
        ("EUR", ["USD"], None),
        ("GBP", None, None),
        ("GBP", ["GBP"], None),
    ],
)
def test_currencies(cur: str | None, allowed: list[str] | None, micros: int | None) -> None:
    """4.2.1: USD where none is named; without a rate, or not among the request's, the whole response is loss 3."""
    request = BidRequest(id="r", imp=REQUEST.imp, cur=allowed)
    bids, rejected = taken(wire("a"), request=request, cur=cur)
    if micros is None:
        assert reasons(rejected) == {"a": Loss.INVALID_RESPONSE}
    else:
        assert [bid.price_micros for bid in bids] == [micros]


def test_less_than_a_micro_is_no_price() -> None:
    """Nothing is sold for 0: a price that rounds to no micro is loss 9."""
    bids, rejected = taken(wire("a", price=1e-7), wire("b", price=1e-6))
    assert [bid.content.id for bid in bids] == ["b"]
    assert reasons(rejected) == {"a": Loss.PRICE_MISSING}


def test_a_group_is_one_of_its_response() -> None:
    """Two grouped seatbids of one seat are two groups; a seatbid without group is none."""
    seats = [SeatBid(seat="s", group=group, bid=[wire(str(n))]) for n, group in enumerate([1, 1, 0, None, 2])]
    bids, _ = take_in(BidResponse(seatbid=seats), REQUEST, "dsp", RATES)
    groups = [bid.group for bid in bids]
    assert len(set(groups[:2])) == 2
    assert all(groups[:2])
    assert groups[2:] == ["", "", ""]


def test_the_groups_of_two_bidders_differ() -> None:
    """Even where seat and place are the same."""
    response = BidResponse(seatbid=[SeatBid(seat="s", group=1, bid=[wire("a")])])
    (one,), _ = take_in(response, REQUEST, "x", RATES)
    (other,), _ = take_in(response, REQUEST, "y", RATES)
    assert one.group != other.group


def test_a_group_with_a_refused_bid_is_refused_whole() -> None:
    """4.2.2: it can no longer win all its imps; its good bids lose for the same reason, other seatbids do not."""
    response = BidResponse(
        seatbid=[
            SeatBid(seat="s", group=1, bid=[wire("a"), wire("b", impid="2", w=728, h=90)]),
            SeatBid(seat="s", group=1, bid=[wire("c")]),
        ]
    )
    bids, rejected = take_in(response, REQUEST, "dsp", RATES)
    assert [bid.content.id for bid in bids] == ["c"]
    assert reasons(rejected) == {"a": Loss.SIZE, "b": Loss.SIZE}
