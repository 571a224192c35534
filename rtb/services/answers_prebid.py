"""An outcome as a Prebid client reads it: the OpenRTB response with ``ext.prebid``, always a 200.

The differences from the plain response: bids stand under the bidder codes of the page, each bid tells its media and the
key-values for the ad server, and where the request is a page's own, the win notice is ``ext.prebid.events.win``, for a
page that finds a nurl beside a video's markup takes it for the address of the video.

Source: Prebid Server, endpoint /openrtb2/auction, "OpenRTB Response Extensions".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any

from rtb import openrtb
from rtb.domain.auction import Bid
from rtb.domain.macros import Values, substitute
from rtb.domain.money import Rates
from rtb.domain.prebid import Asked
from rtb.domain.prebid_targeting import key_values
from rtb.domain.seat_non_bid import NonBid, of_failure, of_loss, of_skip
from rtb.services.answers import wire_bid
from rtb.services.exchange import NOT_OFFERED, Auction, Outcome
from rtb.services.links import Links

_MEDIA = {1: "banner", 2: "video", 3: "audio", 4: "native"}
_MS = 1_000_000
_OWN_NBR = 500

LATE, BAD_INPUT, BAD_RESPONSE, MULTIBID_WARNING, OTHER_WARNING = 1, 2, 3, 10_006, 10_999
"""Codes in ext.errors and ext.warnings, Prebid Server's."""
_MESSAGES = {
    LATE: "did not answer in time",
    BAD_INPUT: "no bidder here has this code; /info/bidders lists them",
    BAD_RESPONSE: "could not be reached, or gave no valid answer",
}


def prebid_response(
    asked: Asked,
    auction: Auction,
    outcome: Outcome,
    rates: Rates,
    links: Links | None = None,
    further: Sequence[Outcome] = (),
) -> openrtb.BidResponse:
    """The response to a request that `asked` Prebid for something; with or without bids it is a response. `further` are
    the bids beside the winners (rtb.services.further_bids)."""
    seats: dict[str, list[openrtb.Bid]] = {}
    places: Counter[tuple[str, str]] = Counter()  # of a seat's bids on an imp
    for each in (outcome, *further):
        for result in each.results:
            if result.winner is not None:
                seat = asked.seat(result.winner)
                places[seat, result.impid] += 1
                bid = wire_bid(auction.request, each, result, rates, links)
                price_micros = rates.outward_micros(result.price_micros, outcome.currency)
                place = places[seat, result.impid]
                _tell(bid, asked, auction, result.winner, seat, price_micros, place, won=each is outcome)
                seats.setdefault(seat, []).append(bid)
    seatbid = [openrtb.SeatBid(seat=seat, bid=bids) for seat, bids in seats.items()]
    return openrtb.BidResponse(
        id=auction.request.id or "",
        bidid=outcome.auction_id if seatbid else None,
        cur=outcome.currency or None,
        nbr=None if outcome.nbr is None else int(outcome.nbr),
        seatbid=seatbid or None,
        ext=_ext(asked, auction, outcome),
    )


def _tell(
    bid: openrtb.Bid,
    asked: Asked,
    auction: Auction,
    made: Bid,
    seat: str,
    price_micros: int,
    place: int,
    *,
    won: bool,
) -> None:
    """Add what a page wants to know of a bid as it was `made`; `price_micros` are of the answer's currency, `place`
    counts the seat's bids on the imp from 1."""
    media = _MEDIA.get(bid.mtype or made.mtype, "banner")
    prebid: dict[str, Any] = {"type": media}
    if seat != made.bidder:
        prebid["meta"] = {"adaptercode": made.bidder}
    targeting, limit = asked.request.targeting, asked.limit(seat)
    target = limit.target(seat, place)
    if target and limit.maxbids > 1:
        prebid["targetbiddercode"] = target
    if targeting is not None and target:
        prebid["targeting"] = key_values(
            targeting,
            bidder=target,
            price_micros=price_micros,
            media=media,
            size=(bid.w, bid.h) if bid.w and bid.h else None,
            dealid=bid.dealid or "",
            app=auction.request.app is not None,
            winner=won,
        )
    if asked.for_page and bid.nurl:
        prebid["events"] = {"win": substitute(bid.nurl, Values(price=_decimal(price_micros)))}
        bid.nurl = None
    imp = asked.imps.get(made.impid)
    if imp is not None and imp.passthrough:
        prebid["passthrough"] = imp.passthrough
    bid.ext = {**(bid.ext if isinstance(bid.ext, dict) else {}), "prebid": prebid}


def _ext(asked: Asked, auction: Auction, outcome: Outcome) -> dict[str, Any]:
    said = asked.request
    prebid: dict[str, Any] = {}
    if said.auctiontimestamp:
        prebid["auctiontimestamp"] = said.auctiontimestamp
    if said.passthrough:
        prebid["passthrough"] = said.passthrough
    warnings = [{"code": OTHER_WARNING, "message": line} for line in asked.warnings]
    warnings += [{"code": MULTIBID_WARNING, "message": line} for line in asked.flaws]
    ext = {
        "responsetimemillis": _times(asked, auction),
        "errors": _errors(asked, auction),
        "warnings": {"general": warnings} if warnings else None,
        "tmaxrequest": (auction.deadline_ns - auction.received_ns) // _MS,
        "prebid": prebid,
        "seatnonbid": _seat_non_bids(asked, auction, outcome) if said.returnallbidstatus else None,
    }
    return {name: value for name, value in ext.items() if value}


def _times(asked: Asked, auction: Auction) -> dict[str, int]:
    """How long each remote bidder took, and under the exchange's own code how long the whole auction did."""
    times = {
        asked.label(name): (answered_ns - auction.fanned_out_ns) // _MS
        for name, answered_ns in auction.answered_ns.items()
    }
    if any(asked.own in codes.values() for codes in asked.codes.values()):
        times[asked.label(asked.own)] = (auction.settled_ns - auction.received_ns) // _MS
    return times


def _errors(asked: Asked, auction: Auction) -> dict[str, list[dict[str, Any]]]:
    """Who was late, failed, or is not there at all. What exactly happened is not the page's business."""
    codes = dict.fromkeys(auction.pending, LATE)
    for name, failure in auction.failures.items():
        codes[name] = LATE if of_failure(failure) is NonBid.TIMEOUT else BAD_RESPONSE
    errors = {asked.label(name): [{"code": code, "message": _MESSAGES[code]}] for name, code in codes.items()}
    for code in asked.unknown:
        errors[code] = [{"code": BAD_INPUT, "message": _MESSAGES[BAD_INPUT]}]
    return errors


def _seat_non_bids(asked: Asked, auction: Auction, outcome: Outcome) -> list[dict[str, Any]]:
    """``ext.seatnonbid``: every bidder and imp that it was to be offered and did not win, each with its reasons."""
    seats: dict[str, dict[tuple[str, int], None]] = {}
    for bidder, impid, status in _non_bids(asked, auction, outcome):
        seats.setdefault(asked.label(bidder), {})[impid, status] = None
    return [
        {"seat": seat, "nonbid": [{"impid": impid, "statuscode": status} for impid, status in found]}
        for seat, found in seats.items()
    ]


def _non_bids(asked: Asked, auction: Auction, outcome: Outcome) -> Iterator[tuple[str, str, int]]:
    won = {(result.winner.bidder, result.impid) for result in outcome.results if result.winner is not None}
    won |= {(bid.bidder, bid.impid) for bid in outcome.further}
    lost = [each for result in outcome.results for each in result.losses] + auction.rejected
    places = {(each.bid.bidder, each.bid.impid) for each in lost} | won
    for each in lost:
        if (each.bid.bidder, each.bid.impid) not in won:
            yield each.bid.bidder, each.bid.impid, of_loss(each.reason)
    for name in asked.bidders:
        if auction.skipped.get(name) == NOT_OFFERED:
            continue
        status = _status(auction, outcome, name)
        mine = None if auction.offered is None else auction.offered.get(name, ())
        for impid in asked.codes:
            if (mine is None or impid in mine) and (name, impid) not in places:
                yield name, impid, status


def _status(auction: Auction, outcome: Outcome, name: str) -> int:
    if not auction.fanned_out_ns:  # nobody was asked; up to 17 both lists give the same reasons
        return int(outcome.nbr) if outcome.nbr is not None and outcome.nbr < _OWN_NBR else NonBid.BLOCKED
    if name in auction.pending:
        return NonBid.TIMEOUT
    if name in auction.failures:
        return of_failure(auction.failures[name])
    return of_skip(auction.skipped[name]) if name in auction.skipped else NonBid.NO_BID


def _decimal(micros: int) -> str:
    return f"{(Decimal(micros) / 1_000_000).normalize():f}"
