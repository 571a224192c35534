"""An outcome as the answer that leaves the house: an OpenRTB bid response, or the house format."""

from __future__ import annotations

import msgspec
from msgspec import structs

from rtb import openrtb
from rtb.domain import money
from rtb.domain.auction import Result
from rtb.domain.markup import MARKUP_TYPE, markup
from rtb.domain.money import Rates
from rtb.domain.targeting import Candidate
from rtb.messages import HouseResponse, HouseStatus
from rtb.services.exchange import Outcome, Status


def bid_response(request_id: str, outcome: Outcome, rates: Rates) -> openrtb.BidResponse:
    """The response to the SSP: one bid an imp that was won, at its clearing price in the request's currency.

    Without a win it carries `nbr` and no seatbid.
    """
    if outcome.nbr is not None:
        return openrtb.BidResponse(id=request_id, nbr=int(outcome.nbr))
    seats: dict[str, openrtb.SeatBid] = {}
    for result in outcome.results:
        winner = result.winner
        if winner is not None:
            bid = _bid(outcome, result, rates)
            seat = seats.get(winner.seat)
            if seat is None:
                seats[winner.seat] = openrtb.SeatBid(seat=winner.seat, bid=[bid])
            elif seat.bid is not None:
                seat.bid.append(bid)
    return openrtb.BidResponse(
        id=request_id, bidid=outcome.auction_id, cur=outcome.currency, seatbid=list(seats.values())
    )


def encoded(request_id: str, outcome: Outcome, rates: Rates) -> bytes:
    """The JSON of `bid_response`, byte for byte. Most of a house bid was encoded when it first won."""
    seats: dict[str, list[bytes]] = {}
    for result in outcome.results:
        winner = result.winner
        if isinstance(winner, Candidate):
            seats.setdefault(winner.seat, []).append(_encoded_bid(winner, outcome, result, rates))
        elif winner is not None:
            return openrtb.encode(bid_response(request_id, outcome, rates))
    if not seats:
        return openrtb.encode(bid_response(request_id, outcome, rates))
    seatbid = [b'{"bid":[' + b",".join(bids) + b'],"seat":' + _json(seat) + b"}" for seat, bids in seats.items()]
    rest = _json({"bidid": outcome.auction_id, "cur": outcome.currency})
    return b'{"id":' + _json(request_id) + b',"seatbid":[' + b",".join(seatbid) + b"]," + rest[1:]


def _encoded_bid(winner: Candidate, outcome: Outcome, result: Result, rates: Rates) -> bytes:
    prepared = winner.prepared
    if not prepared.tail:
        prepared.tail = _json(_unpriced(winner))[1:]
    price = money.to_cpm(rates.outward_micros(result.price_micros, outcome.currency))
    head = _json({"id": f"{outcome.auction_id}-{winner.impid}", "impid": winner.impid, "price": price})
    return head[:-1] + b"," + prepared.tail


_json = msgspec.json.Encoder().encode


def _bid(outcome: Outcome, result: Result, rates: Rates) -> openrtb.Bid:
    winner = result.winner
    assert winner is not None
    price = money.to_cpm(rates.outward_micros(result.price_micros, outcome.currency))
    if not isinstance(winner, Candidate):
        wire: openrtb.Bid = winner.content  # its notices are the exchange's to fire, the rest is passed on
        return structs.replace(wire, price=price, nurl=None, burl=None, lurl=None)
    bid = _unpriced(winner)
    bid.id, bid.impid, bid.price = f"{outcome.auction_id}-{result.impid}", result.impid, price
    return bid


def _unpriced(winner: Candidate) -> openrtb.Bid:
    """What a house bid says in every auction."""
    campaign, creative = winner.campaign, winner.creative
    return openrtb.Bid(
        adm=markup(creative, campaign.name),
        adomain=list(campaign.adomain) or None,
        cid=campaign.id,
        crid=creative.id,
        cat=list(campaign.cat) or None,
        cattax=campaign.cattax if campaign.cat and campaign.cattax != 1 else None,
        attr=list(creative.attr) or None,
        dealid=winner.dealid,
        w=creative.w or None,
        h=creative.h or None,
        dur=creative.dur or None,
        mtype=int(MARKUP_TYPE[creative.media]),
    )


def house_response(request_id: str, outcome: Outcome, rates: Rates) -> HouseResponse:
    """The answer in the house format: the first imp's winner, its bid and clearing price as CPM."""
    result = next((result for result in outcome.results if result.winner is not None), None)
    if outcome.status is not Status.WON or result is None or result.winner is None:
        timeout = outcome.status is Status.TIMEOUT
        return HouseResponse(request_id=request_id, status=HouseStatus.TIMEOUT if timeout else HouseStatus.NO_BID)
    winner = result.winner
    answer = HouseResponse(
        request_id=request_id,
        status=HouseStatus.SUCCESS,
        bid_price=money.to_cpm(rates.outward_micros(winner.price_micros, outcome.currency)),
        clearing_price=money.to_cpm(rates.outward_micros(result.price_micros, outcome.currency)),
    )
    if not isinstance(winner, Candidate):
        wire: openrtb.Bid = winner.content
        ad_id = wire.crid or wire.adid
        return structs.replace(answer, campaign_id=wire.cid, ad_id=ad_id, creative_url=wire.iurl)
    return structs.replace(
        answer,
        campaign_id=winner.campaign.id,
        ad_id=winner.creative.id,
        creative_url=winner.creative.image_url,
        landing_page=winner.creative.landing_page,
    )
