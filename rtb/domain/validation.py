"""Whether a bidder's bid may enter the auction: the checks of a single bid against the request, in a fixed order.

What depends on the other bids or on the deal's terms (floors, outbid, private auction) is rtb.domain.auction's.
Sources: OpenRTB 2.6 3.2.1 (block lists), 3.2.4 to 3.2.9 (what an imp accepts), 4.2.3 (bid); the loss reasons of 3.0.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from enum import StrEnum
from functools import lru_cache

from rtb.openrtb import MAX_PRICE_CPM, Audio, Banner, Bid, BidRequest, Imp, Loss, MarkupType, Native, Video

_BANNER, _VIDEO, _AUDIO, _NATIVE = MarkupType  # a member costs ten times a name
_NOBODY: frozenset[str] = frozenset()


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


def blocked_advertisers(request: BidRequest) -> frozenset[str]:
    """badv as `objection` compares it: made once for all bids on a request."""
    return frozenset([name.lower() for name in request.badv]) if request.badv else _NOBODY


def objection(
    bid: Bid,
    request: BidRequest,
    imp: Imp | None,
    *,
    crid: CridRule = CridRule.OPTIONAL,
    adomain: bool = False,
    badv: frozenset[str] | None = None,
) -> Loss | None:
    """The first reason to keep this bid out of the auction of `imp`, None when there is none.

    Args:
        bid: as the bidder sent it.
        request: what it answers.
        imp: the imp that bid.impid names, None when the request has no such imp.
        crid: whether a bid without crid is refused.
        adomain: whether a bid without adomain is refused even where the request blocks no advertiser.
        badv: the request's `blocked_advertisers`, where they are known already.
    """
    if imp is None or not bid.id:
        return Loss.INVALID_RESPONSE
    if bid.price is None or not 0 < bid.price <= MAX_PRICE_CPM:  # true for NaN, too
        return Loss.PRICE_MISSING
    if not bid.adm and not bid.adid:
        return Loss.MARKUP_MISSING
    if not bid.crid and crid is CridRule.ENFORCE:
        return Loss.CRID_MISSING
    names = bid.adomain
    if not names:
        if adomain or request.badv:
            return Loss.ADOMAIN_MISSING
    elif request.badv:
        if badv is None:
            badv = blocked_advertisers(request)
        for name in names:
            if is_or_under(name.lower(), badv):
                return Loss.ADVERTISER_BLOCKED
    if request.bapp and bid.bundle and bid.bundle in request.bapp:
        return Loss.APP_BLOCKED
    if bid.cat and (bid.cattax or 1) == (request.cattax or 1):
        if request.bcat and any(_cat_in(cat, request.bcat) for cat in bid.cat):
            return Loss.CATEGORY_BLOCKED
        if request.acat and not all(_cat_in(cat, request.acat) for cat in bid.cat):
            return Loss.CATEGORY_BLOCKED
    return _creative_objection(bid, request, imp)


def only_media(imp: Imp) -> int:
    """The markup type of an imp that offers nothing else; 0 where several are offered."""
    banner, video, audio, native = imp.banner, imp.video, imp.audio, imp.native
    if banner is not None:
        return 0 if video is not None or audio is not None or native is not None else 1
    if video is not None:
        return 0 if audio is not None or native is not None else 2
    if audio is not None:
        return 0 if native is not None else 3
    return 0 if native is None else 4


def is_usual(bid: Bid, imp: Imp, media: int, badv: frozenset[str]) -> bool:
    """Whether nothing speaks against a bid, told in a fraction of what `objection` takes: one of a size that was asked
    for, on an imp of one media, that says nothing of itself which the request might forbid. False tells nothing.

    Args:
        bid: as the bidder sent it.
        imp: the imp that bid.impid names.
        media: the imp's `only_media`.
        badv: the request's `blocked_advertisers`.
    """
    adm, price, names = bid.adm, bid.price, bid.adomain
    if (
        not (media and bid.id and adm and bid.crid and names and price)
        or not 0.001 <= price <= MAX_PRICE_CPM
        or (bid.mtype is not None and bid.mtype != media)
        or bid.cat
        or bid.attr
        or bid.bundle
        or bid.api
        or bid.apis
        or bid.language
        or bid.langb
        or (imp.secure == 1 and ("http:" in adm or "http%3A" in adm))
    ):
        return False
    if badv:
        for name in names:
            if not badv.isdisjoint(domains(name)):
                return False
    banner, w, h = imp.banner, bid.w, bid.h
    if banner is None:
        return bid.dur is None and not bid.protocol
    if w and h:
        for format_ in banner.format or (banner,):
            if format_.w == w and format_.h == h:
                break
        else:
            return False
    return True


def _creative_objection(bid: Bid, request: BidRequest, imp: Imp) -> Loss | None:
    languages = request.wlang or request.wlangb
    if languages and not _speaks(bid, languages):
        return Loss.LANGUAGE
    if imp.secure == 1 and bid.adm and _insecure(bid.adm):
        return Loss.NOT_SECURE
    media = _media(bid, imp)
    if media is None:
        return Loss.FORMAT
    if bid.attr and media.battr and not set(bid.attr).isdisjoint(media.battr):
        return Loss.ATTRIBUTE_BLOCKED
    if isinstance(media, Banner):
        if not _fits(bid, media, imp):
            return Loss.SIZE
    elif isinstance(media, Video | Audio):
        return _stream_objection(bid, media)
    apis = bid.apis or ([bid.api] if bid.api else None)
    return Loss.FORMAT if apis and _unsupported(apis, media.api) else None


def _media(bid: Bid, imp: Imp) -> Banner | Video | Audio | Native | None:
    """What of the imp the markup is for."""
    mtype = markup_type(bid, imp)
    if mtype is _BANNER:
        return imp.banner
    if mtype is _VIDEO:
        return imp.video
    if mtype is _AUDIO:
        return imp.audio
    return imp.native if mtype is _NATIVE else None


def _stream_objection(bid: Bid, stream: Video | Audio) -> Loss | None:
    if bid.protocol and stream.protocols and bid.protocol not in stream.protocols:
        return Loss.FORMAT
    if _unsupported(bid.apis or ([bid.api] if bid.api else []), stream.api):
        return Loss.FORMAT
    return None if bid.dur is None or _lasts(bid.dur, stream) else Loss.FORMAT


def _lasts(dur: int, stream: Video | Audio) -> bool:
    """Whether an ad of so many seconds fits; in a pod poddur limits the sum, the others still each ad [3.2.7]."""
    if stream.rqddurs:
        return dur in stream.rqddurs
    longest = stream.maxduration
    if longest and stream.maxextended:
        longest = None if stream.maxextended < 0 else longest + stream.maxextended
    if stream.poddur and dur > stream.poddur:
        return False
    return dur >= (stream.minduration or 0) and (not longest or dur <= longest)


def _speaks(bid: Bid, languages: Sequence[str] | None) -> bool:
    """Whether the creative's language is an allowed one, by primary subtag; "xx" has no words in it [4.2.3]."""
    language = bid.language or bid.langb
    if not languages or not language or language == "xx":
        return True
    return _primary(language) in {_primary(code) for code in languages}


def _primary(language: str) -> str:
    return language.lower().replace("_", "-").partition("-")[0]


def markup_type(bid: Bid, imp: Imp) -> MarkupType | None:
    """bid.mtype, or the imp's only media; in a mixed imp what the markup looks like, else the first media.

    None for a number that is no markup type.
    """
    if bid.mtype is not None:
        return MarkupType(bid.mtype) if 1 <= bid.mtype <= 4 else None
    video, audio, native = imp.video, imp.audio, imp.native
    if video is None and audio is None and native is None:
        return _BANNER if imp.banner is not None else _NATIVE
    first = _NATIVE
    if imp.banner is not None:
        first = _BANNER
    elif video is not None:
        first = _VIDEO
    elif audio is not None:
        first = _AUDIO
    if bid.adm:
        start = bid.adm[:256].lstrip()
        if "<VAST" in start:
            stream = _VIDEO if video is not None else _AUDIO
            return stream if video is not None or audio is not None else first
        if start.startswith("{") and native is not None:
            return _NATIVE
    return first


def _fits(bid: Bid, banner: Banner, imp: Imp) -> bool:
    """Whether the size is one that was asked for; a bid or a banner without size, or a flex format, fits."""
    w, h = bid.w, bid.h
    if not w or not h or imp.instl == 1:
        return True
    named = False
    for format_ in banner.format or ():
        if format_.wratio or (format_.w == w and format_.h == h):
            return True
        named = named or bool(format_.w and format_.h)
    if named:
        return False
    return not (banner.w and banner.h) or (banner.w == w and banner.h == h)


def _unsupported(apis: Sequence[int], supported: Sequence[int] | None) -> bool:
    """3.2.6: an API that is not listed is assumed not to be supported; no list at all restricts nothing here."""
    return bool(apis) and supported is not None and not set(apis) <= set(supported)


def _cat_in(cat: str, listed: Sequence[str]) -> bool:
    """A listed IAB1 also covers IAB1-3."""
    return cat in listed or cat.partition("-")[0] in listed


def is_or_under(domain: str, listed: Collection[str]) -> bool:
    """A listed ford.com is about ford.com and www.ford.com; all in lower case."""
    domain = domain.strip(" .")
    while domain:
        if domain in listed:
            return True
        domain = domain.partition(".")[2]
    return False


@lru_cache(maxsize=4_096)  # bidders name the same advertisers again and again
def domains(name: str) -> tuple[str, ...]:
    """An advertiser's domain in lower case, and all that it is under: what `is_or_under` looks for."""
    found = []
    domain = name.lower().strip(" .")
    while domain:
        found.append(domain)
        domain = domain.partition(".")[2]
    return tuple(found)


def _insecure(adm: str) -> bool:
    """Markup that loads over plain http, where nothing in it is https (as Prebid Server tells them apart)."""
    return ("http:" in adm or "http%3A" in adm) and not ("https:" in adm or "https%3A" in adm)
