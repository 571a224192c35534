"""Whether a bidder's bid may enter the auction: the checks of a single bid against the request, in a fixed order.

What depends on the other bids or on the deal's terms (floors, outbid, private auction) is rtb.domain.auction's.
Sources: OpenRTB 2.6 3.2.1 (block lists), 3.2.4 to 3.2.9 (what an imp accepts), 4.2.3 (bid); the loss reasons of 3.0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum

from rtb.openrtb import MAX_PRICE_CPM, Audio, Banner, Bid, BidRequest, Imp, Loss, MarkupType, Video


class CridRule(StrEnum):
    """4.2.3 makes crid optional; many exchanges want it for creative review."""

    OPTIONAL = "optional"
    ENFORCE = "enforce"


def seat_objection(request: BidRequest, seat: str) -> Loss | None:
    """104 when wseat leaves the seat out or bseat names it; both apply where both are given."""
    if request.wseat and seat not in request.wseat:
        return Loss.SEAT_BLOCKED
    if request.bseat and seat in request.bseat:
        return Loss.SEAT_BLOCKED
    return None


def objection(
    bid: Bid, request: BidRequest, imp: Imp | None, *, crid: CridRule = CridRule.OPTIONAL, adomain: bool = False
) -> Loss | None:
    """The first reason to keep this bid out of the auction of `imp`, None when there is none.

    Args:
        bid: as the bidder sent it.
        request: what it answers.
        imp: the imp that bid.impid names, None when the request has no such imp.
        crid: whether a bid without crid is refused.
        adomain: whether a bid without adomain is refused even where the request blocks no advertiser.
    """
    if imp is None or not bid.id:
        return Loss.INVALID_RESPONSE
    if bid.price is None or not math.isfinite(bid.price) or not 0 < bid.price <= MAX_PRICE_CPM:
        return Loss.PRICE_MISSING
    if not bid.adm and not bid.adid:
        return Loss.MARKUP_MISSING
    if not bid.crid and crid is CridRule.ENFORCE:
        return Loss.CRID_MISSING
    return _advertiser_objection(bid, request, adomain) or _creative_objection(bid, request, imp)


def _advertiser_objection(bid: Bid, request: BidRequest, adomain: bool) -> Loss | None:
    if not bid.adomain and (adomain or request.badv):
        return Loss.ADOMAIN_MISSING
    if request.badv and bid.adomain:
        blocked = {name.lower() for name in request.badv}
        if any(_is_or_under(name.lower(), blocked) for name in bid.adomain):
            return Loss.ADVERTISER_BLOCKED
    if request.bapp and bid.bundle and bid.bundle in request.bapp:
        return Loss.APP_BLOCKED
    if bid.cat and (bid.cattax or 1) == (request.cattax or 1):
        if request.bcat and any(_cat_in(cat, request.bcat) for cat in bid.cat):
            return Loss.CATEGORY_BLOCKED
        if request.acat and not all(_cat_in(cat, request.acat) for cat in bid.cat):
            return Loss.CATEGORY_BLOCKED
    return None


def _creative_objection(bid: Bid, request: BidRequest, imp: Imp) -> Loss | None:
    languages = request.wlang or request.wlangb
    if languages and bid.language and bid.language[:2].lower() not in {code[:2].lower() for code in languages}:
        return Loss.LANGUAGE
    if imp.secure == 1 and bid.adm and _insecure(bid.adm):
        return Loss.NOT_SECURE
    mtype = markup_type(bid, imp)
    media = (
        {
            MarkupType.BANNER: imp.banner,
            MarkupType.VIDEO: imp.video,
            MarkupType.AUDIO: imp.audio,
            MarkupType.NATIVE: imp.native,
        }.get(mtype)
        if mtype is not None
        else None
    )
    if media is None:
        return Loss.FORMAT
    if bid.attr and media.battr and not set(bid.attr).isdisjoint(media.battr):
        return Loss.ATTRIBUTE_BLOCKED
    if isinstance(media, Banner) and not _fits(bid, media, imp):
        return Loss.SIZE
    if isinstance(media, Video | Audio):
        return _stream_objection(bid, media)
    apis = bid.apis or ([bid.api] if bid.api else [])
    return Loss.FORMAT if _unsupported(apis, media.api) else None


def _stream_objection(bid: Bid, stream: Video | Audio) -> Loss | None:
    if bid.protocol and stream.protocols and bid.protocol not in stream.protocols:
        return Loss.FORMAT
    if _unsupported(bid.apis or ([bid.api] if bid.api else []), stream.api):
        return Loss.FORMAT
    if bid.dur is None:
        return None
    if stream.rqddurs:
        return None if bid.dur in stream.rqddurs else Loss.FORMAT
    if bid.dur < (stream.minduration or 0):
        return Loss.FORMAT
    if stream.maxduration and bid.dur > stream.maxduration and not stream.poddur:
        return Loss.FORMAT
    return None


def markup_type(bid: Bid, imp: Imp) -> MarkupType | None:
    """bid.mtype, or the imp's only media; the first of a mixed imp. None for a number that is no markup type."""
    if bid.mtype is not None:
        return MarkupType(bid.mtype) if 1 <= bid.mtype <= 4 else None
    if imp.banner is not None:
        return MarkupType.BANNER
    if imp.video is not None:
        return MarkupType.VIDEO
    return MarkupType.AUDIO if imp.audio is not None else MarkupType.NATIVE


def _fits(bid: Bid, banner: Banner, imp: Imp) -> bool:
    """Whether the size is one that was asked for; a bid or a banner without size, or a flex format, fits."""
    if not bid.w or not bid.h:
        return True
    if imp.instl == 1 or any(format_.wratio for format_ in banner.format or ()):
        return True
    sizes = [(format_.w, format_.h) for format_ in banner.format or () if format_.w and format_.h]
    if banner.w and banner.h and not sizes:
        sizes = [(banner.w, banner.h)]
    return not sizes or (bid.w, bid.h) in sizes


def _unsupported(apis: Sequence[int], supported: Sequence[int] | None) -> bool:
    """3.2.6: an API that is not listed is assumed not to be supported; no list at all restricts nothing here."""
    return bool(apis) and supported is not None and not set(apis) <= set(supported)


def _cat_in(cat: str, listed: Sequence[str]) -> bool:
    """A listed IAB1 also covers IAB1-3."""
    return cat in listed or cat.partition("-")[0] in listed


def _is_or_under(domain: str, blocked: set[str]) -> bool:
    """ford.com blocks ford.com and www.ford.com."""
    while domain:
        if domain in blocked:
            return True
        domain = domain.partition(".")[2]
    return False


def _insecure(adm: str) -> bool:
    """Markup that loads over plain http, where nothing in it is https (as Prebid Server tells them apart)."""
    return ("http:" in adm or "http%3A" in adm) and not ("https:" in adm or "https%3A" in adm)
