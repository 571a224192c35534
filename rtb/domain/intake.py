"""A bidder's response taken in: the bids that enter the auction, and why each of the others does not."""

from __future__ import annotations

from rtb.domain import money
from rtb.domain.auction import Bid, Lost
from rtb.domain.validation import (
    CridRule,
    blocked_advertisers,
    is_usual,
    markup_type,
    objection,
    only_media,
    seat_objection,
)
from rtb.openrtb import MAX_PRICE_CPM, BidRequest, BidResponse, Imp, Loss
from rtb.openrtb import Bid as WireBid

_NO_IMP: tuple[Imp | None, int] = (None, 0)


class RemoteBid(Bid, kw_only=True):
    """A bid that came over the wire: `content` is it as it came, `currency` and `bidid` are its response's.

    The price was in that currency; it has a rate unless the bid was refused for it.
    """

    currency: str = ""
    bidid: str = ""


class Offer:
    """What bids on a request are checked against, made ready once for all bidders of an auction."""

    __slots__ = ("badv", "imps", "request", "to_any_seat")

    imps: dict[str | None, tuple[Imp, int]]
    """By id, each with the only media that it offers."""

    def __init__(self, request: BidRequest) -> None:
        """Of a request."""
        self.request = request
        self.imps = {imp.id: (imp, only_media(imp)) for imp in request.imp or ()}
        self.badv = blocked_advertisers(request)
        self.to_any_seat = not (request.wseat or request.bseat)


def take_in(
    response: BidResponse,
    request: BidRequest,
    bidder: str,
    rates: money.Rates,
    *,
    crid: CridRule = CridRule.OPTIONAL,
    adomain: bool = False,
    offer: Offer | None = None,
) -> tuple[list[Bid], list[Lost]]:
    """Check a response bid by bid; one bad bid does not cost the others.

    A response in a currency that the request does not allow, or that has no rate, loses whole with reason 3. A seatbid
    without a seat bids as the bidder itself. Prices are converted to the exchange currency, rounded down.

    Returns:
        The valid bids and the refused ones.

    Source: OpenRTB 2.6 4.2.1 to 4.2.3.
    """
    if offer is None:
        offer = Offer(request)
    usual = usual_bids(response, offer, bidder, rates.currency)
    if usual is not None:
        return usual, []
    currency = response.cur or "USD"
    allowed = currency == rates.currency or ((not request.cur or currency in request.cur) and rates.knows(currency))
    bidid = response.bidid or ""
    bids: list[Bid] = []
    rejected: list[Lost] = []
    for n, seatbid in enumerate(response.seatbid or ()):
        seat = seatbid.seat or bidder
        blocked = seat_objection(request, seat)
        for wire in seatbid.bid or ():
            imp, _ = offer.imps.get(wire.impid, _NO_IMP)
            reason = (
                (None if allowed else Loss.INVALID_RESPONSE)
                or blocked
                or objection(wire, request, imp, crid=crid, adomain=adomain, badv=offer.badv)
            )
            bid = _bid(wire, imp, seat, bidder, rates, currency, allowed, bidid)
            if reason is None and bid.price_micros == 0:  # less than a micro is no price
                reason = Loss.PRICE_MISSING
            if seatbid.group == 1:
                bid.group = f"{bidder}/{seat}/{n}"
            if reason is None:
                bids.append(bid)
            else:
                rejected.append(Lost(bid, reason))
    return (_whole_groups(bids, rejected) if rejected else bids), rejected


def usual_bids(response: BidResponse, offer: Offer, bidder: str, currency: str) -> list[Bid] | None:
    """The bids of a response in the exchange's own `currency` whose bids are all usual ones (`is_usual`), as nearly all
    responses are; None tells nothing: `take_in` has to look closer. So has its caller if it answers another request."""
    if not offer.to_any_seat or (response.cur or "USD") != currency or response.id != offer.request.id:
        return None
    imps, badv, bidid = offer.imps, offer.badv, response.bidid or ""
    bids: list[Bid] = []
    for seatbid in response.seatbid or ():
        if seatbid.group == 1:
            return None
        seat = seatbid.seat or bidder
        for wire in seatbid.bid or ():
            imp, media = imps.get(wire.impid, _NO_IMP)
            if imp is None or not is_usual(wire, imp, media, badv):
                return None
            names = wire.adomain or ()
            bids.append(
                RemoteBid(
                    impid=imp.id or "",
                    seat=seat,
                    price_micros=money.to_micros(wire.price or 0.0),
                    bidder=bidder,
                    dealid=wire.dealid or None,
                    adomain=(names[0].lower(),) if len(names) == 1 else [name.lower() for name in names],
                    mtype=media,
                    dur=wire.dur or 0,
                    content=wire,
                    currency=currency,
                    bidid=bidid,
                )
            )
    return bids


def _bid(
    wire: WireBid,
    imp: Imp | None,
    seat: str,
    bidder: str,
    rates: money.Rates,
    currency: str,
    allowed: bool,
    bidid: str,
) -> RemoteBid:
    price = wire.price
    micros = 0
    if price is not None and 0 < price <= MAX_PRICE_CPM:
        micros = money.to_micros(price)
        if allowed and currency != rates.currency:
            micros = rates.bid_micros(micros, currency)
    return RemoteBid(
        impid=wire.impid or "",
        seat=seat,
        price_micros=micros,
        bidder=bidder,
        dealid=wire.dealid or None,
        adomain=[name.lower() for name in wire.adomain] if wire.adomain else (),
        mtype=0 if imp is None else int(markup_type(wire, imp) or 0),
        dur=wire.dur or 0,
        content=wire,
        currency=currency,
        bidid=bidid,
    )


def _whole_groups(bids: list[Bid], rejected: list[Lost]) -> list[Bid]:
    """A group with a refused bid cannot win all its imps: the rest of it is refused with the same reason."""
    broken = {lost.bid.group: lost.reason for lost in rejected if lost.bid.group}
    if not broken:
        return bids
    rejected += [Lost(bid, broken[bid.group]) for bid in bids if bid.group in broken]
    return [bid for bid in bids if bid.group not in broken]
