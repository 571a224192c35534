"""An outcome as the answer that leaves the house: an OpenRTB bid response, or the house format.

Where a result carries the ticket of its win, markup and notices carry our tracking URLs, given `links` that know where
the tracker listens. A rehearsal sells nothing, so that it has neither.
"""

from __future__ import annotations

import msgspec
from msgspec import structs

from rtb import openrtb
from rtb.domain import money
from rtb.domain.auction import Result
from rtb.domain.intake import RemoteBid
from rtb.domain.macros import substituted, win_values
from rtb.domain.markup import MARKUP_TYPE, TOKEN, markup
from rtb.domain.money import Rates
from rtb.domain.targeting import Candidate
from rtb.domain.tracking import Ticket
from rtb.messages import HouseResponse, HouseStatus
from rtb.openrtb import BidRequest
from rtb.services.exchange import Outcome, Status
from rtb.services.links import Links

_TOKEN = TOKEN.encode()
_EXP = 1_000_000_007  # no bid has it
_EXP_FIELD = b'"exp":%d' % _EXP


def bid_response(
    request: BidRequest, outcome: Outcome, rates: Rates, links: Links | None = None
) -> openrtb.BidResponse:
    """The response to the SSP: one bid an imp that was won, at its clearing price in the request's currency.

    Without a win it carries `nbr` and no seatbid.
    """
    request_id = request.id or ""
    if outcome.nbr is not None:
        return openrtb.BidResponse(id=request_id, nbr=int(outcome.nbr))
    seats: dict[str, openrtb.SeatBid] = {}
    for result in outcome.results:
        winner = result.winner
        if winner is not None:
            bid = wire_bid(request, outcome, result, rates, links)
            seat = seats.get(winner.seat)
            if seat is None:
                seats[winner.seat] = openrtb.SeatBid(seat=winner.seat, bid=[bid])
            elif seat.bid is not None:
                seat.bid.append(bid)
    return openrtb.BidResponse(
        id=request_id, bidid=outcome.auction_id, cur=outcome.currency, seatbid=list(seats.values())
    )


def encoded(request: BidRequest, outcome: Outcome, rates: Rates, links: Links | None = None) -> bytes:
    """The JSON of `bid_response`, byte for byte. Most of a house bid was encoded when it first won."""
    seats: dict[str, list[bytes]] = {}
    for result in outcome.results:
        winner = result.winner
        if isinstance(winner, Candidate):
            seats.setdefault(winner.seat, []).append(_encoded_bid(winner, outcome, result, rates, links))
        elif winner is not None:
            return openrtb.encode(bid_response(request, outcome, rates, links))
    if not seats:
        return openrtb.encode(bid_response(request, outcome, rates, links))
    seatbid = [b'{"bid":[' + b",".join(bids) + b'],"seat":' + _json(seat) + b"}" for seat, bids in seats.items()]
    rest = _json({"bidid": outcome.auction_id, "cur": outcome.currency})
    return b'{"id":' + _json(request.id or "") + b',"seatbid":[' + b",".join(seatbid) + b"]," + rest[1:]


def _encoded_bid(winner: Candidate, outcome: Outcome, result: Result, rates: Rates, links: Links | None) -> bytes:
    prepared, ticket = winner.prepared, result.receipt
    price = money.to_cpm(rates.outward_micros(result.price_micros, outcome.currency))
    head = _json({"id": f"{outcome.auction_id}-{winner.impid}", "impid": winner.impid, "price": price})
    if ticket is None or links is None or not links.base:
        if not prepared.tail:
            prepared.tail = _json(_unpriced(winner, None))[1:]
        return head[:-1] + b"," + prepared.tail
    if prepared.base != links.base:
        tail, _, prepared.end = _json(_unpriced(winner, links))[1:].partition(_EXP_FIELD)
        prepared.parts, prepared.base = tail.split(_TOKEN), links.base
    tail = links.token(ticket).encode().join(prepared.parts)
    return b'%b,%b"exp":%d%b' % (head[:-1], tail, _exp(ticket), prepared.end)


_json = msgspec.json.Encoder().encode


def wire_bid(request: BidRequest, outcome: Outcome, result: Result, rates: Rates, links: Links | None) -> openrtb.Bid:
    """The bid that won an imp, a struct of its own; an imp without a winner has none."""
    winner = result.winner
    assert winner is not None
    price = money.to_cpm(rates.outward_micros(result.price_micros, outcome.currency))
    if links is not None and (result.receipt is None or not links.base):
        links = None
    if not isinstance(winner, Candidate):
        wire = _substituted(request, result, rates)
        nurl, burl, lurl = (None,) * 3 if links is None else links.notices_of(outcome.auction_id, result.impid)
        return structs.replace(wire, price=price, nurl=nurl, burl=burl, lurl=lurl)
    bid = _unpriced(winner, links)
    bid.id, bid.impid, bid.price = f"{outcome.auction_id}-{result.impid}", result.impid, price
    if links is not None:
        token = links.token(result.receipt)
        bid.exp = _exp(result.receipt)
        for field in ("nurl", "burl", "lurl", "adm"):
            setattr(bid, field, getattr(bid, field).replace(TOKEN, token))
    return bid


def _substituted(request: BidRequest, result: Result, rates: Rates) -> openrtb.Bid:
    """Another bidder's bid, the macros of its markup replaced; its own notices are the exchange's to fire."""
    winner = result.winner
    assert winner is not None
    wire: openrtb.Bid = winner.content
    if not isinstance(winner, RemoteBid) or wire.adm is None or "${" not in wire.adm:
        return wire
    qty = next((imp.qty for imp in request.imp or () if imp.id == result.impid), None)
    multiplier = None if qty is None else qty.multiplier
    is_test = result.receipt is None
    values = win_values(request.id or "", result, rates, multiplier=multiplier, test=is_test)
    return substituted(wire, values)


def _exp(ticket: Ticket) -> int:
    """Until when the impression is in time, in seconds from the auction [OpenRTB 2.6 4.2.3]."""
    return max(1, int(ticket.expires_at - ticket.won_at))


def _unpriced(winner: Candidate, links: Links | None) -> openrtb.Bid:
    """What a house bid says in every auction; with `links`, TOKEN and _EXP stand for what differs."""
    campaign, creative = winner.campaign, winner.creative
    nurl, burl, lurl = (None,) * 3 if links is None else links.notices
    return openrtb.Bid(
        nurl=nurl,
        burl=burl,
        lurl=lurl,
        adm=markup(creative, campaign.name, None if links is None else links.tracker),
        adomain=list(campaign.adomain) or None,
        cid=campaign.id,
        crid=creative.id,
        cat=list(campaign.cat) or None,
        cattax=campaign.cattax if campaign.cat and campaign.cattax != 1 else None,
        attr=list(creative.attr) or None,
        dealid=winner.dealid,
        w=creative.w or None,
        h=creative.h or None,
        exp=None if links is None else _EXP,
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
