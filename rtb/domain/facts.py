"""The facts of a bid request that targeting reads, normalised once: a Context a request and a Placement an imp.

Names are lower case, categories carry their parent (IAB3-1 also counts as IAB3), the order of tuples is the request's.
What many requests say alike (places, devices, venues, keywords, banners) is remembered as it was normalised.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from sys import intern
from typing import Final, TypeVar

from msgspec import Struct

from rtb.domain import money
from rtb.domain.campaign import Media
from rtb.domain.profile import Profile
from rtb.domain.remembered import Remembered
from rtb.domain.terms import Terms, terms_of
from rtb.openrtb import Audio, Banner, BidRequest, Content, Imp, Video

NO_COUNTS: Mapping[str, int] = {}
MOST_SIZES = 64
"""Formats of a banner that are read: no page offers more, and every one costs time."""
NEVER: Final = 1 << 62
"""CPM micros that nobody bids."""

_MOST: Final = 8192
"""How many of each are remembered."""
_LONGEST: Final = 512
"""Characters of keywords that are worth it."""

_T = TypeVar("_T")
_Venue = tuple[tuple[str, ...], tuple[str, ...]]
_NO_REQUEST = BidRequest()


class Context(Struct, gc=False, kw_only=True):
    """What holds for every imp of a request.

    `now` is Unix seconds. `user_value` is the profile's, -1 to 1. `frequency` counts the user's impressions, a counter
    each (rtb.domain.frequency).
    `cat_blocked` is bcat, `cat_allowed` acat (None = no restriction), both in taxonomy `cattax`.
    """

    now: float = 0.0
    country: str = ""
    region: str = ""
    city: str = ""
    lat: float | None = None
    lon: float | None = None
    devicetype: int = 0
    os: str = ""
    language: str = ""
    domains: tuple[str, ...] = ()
    site_cats: tuple[str, ...] = ()
    interests: tuple[str, ...] = ()
    segments: tuple[str, ...] = ()
    user_id: str = ""
    user_value: float = 0.0
    frequency: Mapping[str, int] = NO_COUNTS
    cat_blocked: tuple[str, ...] = ()
    cat_allowed: tuple[str, ...] | None = None
    cattax: int = 1
    adv_blocked: tuple[str, ...] = ()
    seat_allowed: tuple[str, ...] | None = None
    seat_blocked: tuple[str, ...] = ()
    language_allowed: tuple[str, ...] | None = None


class Offer(Struct, frozen=True, gc=False, kw_only=True, cache_hash=True):
    """One media an imp is offered as. `sizes` are (w, h) in DIPS, empty when any size will do; durations in seconds,
    `maxdur` 0 without limit."""

    media: Media
    sizes: tuple[tuple[int, int], ...] = ()
    attr_blocked: tuple[int, ...] = ()
    type_blocked: tuple[int, ...] = ()
    mimes: tuple[str, ...] = ()
    protocols: tuple[int, ...] = ()
    api: tuple[int, ...] | None = None
    mindur: int = 0
    maxdur: int = 0
    durations: tuple[int, ...] = ()


class Placement(Struct, gc=False, kw_only=True):
    """What one imp adds: its offers, floor in CPM micros of the exchange currency, ids of the deals on the table.

    `terms` are set where floors differ from bid to bid (deals, streams sold by duration); `lowest_micros` is then the
    least that any of them can be, else the floor. An imp that is not `sold` has a floor that nobody reaches.
    """

    impid: str = ""
    offers: tuple[Offer, ...] = ()
    floor_micros: int = 0
    lowest_micros: int = 0
    secure: bool = False
    deals: tuple[str, ...] = ()
    private: bool = False
    terms: Terms | None = None
    sold: bool = True


def context(
    request: BidRequest,
    profile: Profile | None = None,
    frequency: Mapping[str, int] = NO_COUNTS,
    *,
    now: float = 0.0,
) -> Context:
    """The facts of a request, with what the profile adds to its interests and segments."""
    device, user = request.device, request.user
    geo = None
    devicetype, os, language = 0, "", ""
    if device is not None:
        geo = device.geo
        devicetype, os, language = _devices[device.devicetype, device.os, device.language or device.langb]
    user_id = ""
    interests: tuple[str, ...] = ()
    segments: tuple[str, ...] = ()
    if user is not None:
        geo = geo or user.geo
        user_id = user.id or user.buyeruid or ""
        if user.keywords:
            interests = _words(user.keywords)
        if user.kwarray:
            interests += _words(user.kwarray)
        if user.data:
            segments = tuple(dict.fromkeys([s.id for data in user.data for s in data.segment or () if s.id]))
    if profile is not None:
        interests += tuple([name.lower() for name in profile.interests])
        segments += profile.segments
    country = region = city = ""
    lat: float | None = None
    lon: float | None = None
    if geo is not None:
        country, region, city = _places[geo.country, geo.region, geo.city]
        lat, lon = geo.lat, geo.lon
        if lat is None or lon is None or not -90 <= lat <= 90 or not -180 <= lon <= 180:
            lat = lon = None
    domains, site_cats = _venue(request)
    facts = Context(
        now=now,
        country=country,
        region=region,
        city=city,
        lat=lat,
        lon=lon,
        devicetype=devicetype,
        os=os,
        language=language,
        domains=domains,
        site_cats=site_cats,
        interests=interests,
        segments=segments,
        user_id=user_id,
        frequency=frequency,
    )
    if profile is not None:
        facts.user_value = profile.value
    _lists(request, facts)
    return facts


def _lists(request: BidRequest, facts: Context) -> None:
    """Whom and what the request lets in."""
    if request.bcat:
        facts.cat_blocked = tuple(request.bcat)
    if request.acat:
        facts.cat_allowed = tuple(request.acat)
    if request.cattax:
        facts.cattax = request.cattax
    if request.badv:
        facts.adv_blocked = tuple([domain.lower() for domain in request.badv])
    if request.wseat:
        facts.seat_allowed = tuple(request.wseat)
    if request.bseat:
        facts.seat_blocked = tuple(request.bseat)
    allowed = request.wlang or request.wlangb
    if allowed:
        facts.language_allowed = tuple([code[:2].lower() for code in allowed])


def _device(key: tuple[int | None, str | None, str | None]) -> tuple[int, str, str]:
    devicetype, os, language = key
    return devicetype or 0, (os or "").lower(), (language or "")[:2].lower()


def _place(key: tuple[str | None, str | None, str | None]) -> tuple[str, str, str]:
    country, region, city = key
    return (country or "").upper(), (region or "").lower(), (city or "").lower()


def _venue(request: BidRequest) -> _Venue:
    """Site, app or screen: its domains and categories."""
    site, app, dooh = request.site, request.app, request.dooh
    if site is not None:
        return _venues[site.domain, None, _cats(site.cat, site.sectioncat, site.pagecat, site.content)]
    if app is not None:
        return _venues[app.domain, app.bundle, _cats(app.cat, app.sectioncat, app.pagecat, app.content)]
    if dooh is not None:
        return _venues[dooh.domain, None, _cats(None, None, None, dooh.content)]
    return (), ()


def _cats(
    cat: list[str] | None, sectioncat: list[str] | None, pagecat: list[str] | None, content: Content | None
) -> tuple[str, ...]:
    """In this order, as the request names them."""
    if sectioncat or pagecat or (content is not None and content.cat):
        return (*(cat or ()), *(sectioncat or ()), *(pagecat or ()), *((content and content.cat) or ()))
    return tuple(cat) if cat else ()


def _normal_venue(key: tuple[str | None, str | None, tuple[str, ...]]) -> _Venue:
    domain, bundle, cats = key
    return tuple([name.lower() for name in (domain, bundle) if name]), with_parents(cats)


def placement(imp: Imp, rates: money.Rates, terms: Terms | None = None) -> Placement:
    """The facts of an imp; `terms` are those it is sold under, where they are known already."""
    if terms is None:
        terms = terms_of(_NO_REQUEST, imp, rates)
    banner = imp.banner
    if banner is not None and imp.video is None and imp.audio is None and imp.native is None:
        offers = _banner_alone(banner, imp.instl == 1)
    else:
        offers = _offers(imp)
    floor = terms.floor_micros
    facts = Placement(impid=terms.impid, offers=offers, floor_micros=floor, lowest_micros=floor, secure=imp.secure == 1)
    if terms.deals is not None or terms.streams is not None or terms.private:
        _settle_terms(facts, terms)
    if not terms.sold:
        facts.sold, facts.floor_micros, facts.lowest_micros = False, NEVER, NEVER
    return facts


def _offers(imp: Imp) -> tuple[Offer, ...]:
    offers: list[Offer] = []
    if imp.banner is not None:
        offers.append(_banner(imp.banner, imp.instl == 1))
    if imp.video is not None:
        offers.append(_stream(Media.VIDEO, imp.video))
    if imp.audio is not None:
        offers.append(_stream(Media.AUDIO, imp.audio))
    if imp.native is not None:
        offers.append(Offer(media=Media.NATIVE, attr_blocked=_tuple(imp.native.battr), api=_listed(imp.native.api)))
    return tuple(offers)


def _banner_alone(banner: Banner, interstitial: bool) -> tuple[Offer, ...]:
    """The offer of an imp that is a banner; requests share the objects of equal banners (`openrtb.decode_request`)."""
    key = id(banner), interstitial
    known = _banners.get(key)
    if known is None or known[0] is not banner:
        if len(_banners) >= _MOST:
            _banners.clear()
        known = _banners[key] = banner, (_banner(banner, interstitial),)
    return known[1]


def _banner(banner: Banner, interstitial: bool) -> Offer:
    """A size is any of `format`, else w x h; an interstitial and a flex format take any size."""
    sizes: list[tuple[int, int]] = []
    any_size = interstitial
    for size in (banner.format or ())[:MOST_SIZES]:
        if size.wratio:
            any_size = True
        elif size.w and size.h:
            sizes.append((size.w, size.h))
    if not sizes and banner.w and banner.h:
        sizes.append((banner.w, banner.h))
    return Offer(
        media=Media.BANNER,
        sizes=() if any_size else tuple(sizes),
        attr_blocked=_tuple(banner.battr),
        type_blocked=_tuple(banner.btype),
        api=_listed(banner.api),
        mimes=_tuple(banner.mimes),
    )


def _stream(media: Media, stream: Video | Audio) -> Offer:
    return Offer(
        media=media,
        attr_blocked=_tuple(stream.battr),
        mimes=_tuple(stream.mimes),
        protocols=_tuple(stream.protocols),
        api=_listed(stream.api),
        mindur=stream.minduration or 0,
        maxdur=stream.maxduration or 0,
        durations=_tuple(stream.rqddurs),
    )


def _settle_terms(facts: Placement, terms: Terms) -> None:
    facts.terms = terms
    facts.private = terms.private
    facts.deals = tuple(terms.deals or ())
    if terms.streams is not None:
        facts.lowest_micros = 0
    for deal in (terms.deals or {}).values():
        lowest = 0 if deal.cpm_per_second_micros or deal.durfloors else deal.floor_micros
        if lowest is not None and lowest < facts.lowest_micros:
            facts.lowest_micros = lowest


def with_parents(cats: Sequence[str]) -> tuple[str, ...]:
    """The categories and the tier-1 parents of the dashed ones, each once: IAB3-1 gives IAB3-1 and IAB3."""
    found = dict.fromkeys(cats)
    for cat in cats:
        if "-" in cat:
            found[cat[: cat.index("-")]] = None
    return tuple(found)


def _tuple(values: list[_T] | None) -> tuple[_T, ...]:
    return tuple(values) if values else ()


def _listed(values: list[_T] | None) -> tuple[_T, ...] | None:
    """None stays None: an API framework list that is absent restricts nothing, an empty one everything."""
    return None if values is None else tuple(values)


_strip = str.strip


def _words(keywords: str | list[str]) -> tuple[str, ...]:
    """Each once, in lower case, without the blanks around; a comma separates words in a string.

    They are interned, as the words that campaigns ask for: those are found by identity, without comparing letters.
    """
    if isinstance(keywords, str):
        return _keywords[keywords] if len(keywords) <= _LONGEST else _split(keywords)
    return tuple(dict.fromkeys([intern(word.lower().strip()) for word in keywords]))


def _split(keywords: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(map(intern, map(_strip, keywords.lower().split(",")))))


_devices = Remembered(_device, _MOST)
_places = Remembered(_place, _MOST)
_venues = Remembered(_normal_venue, _MOST)
_keywords = Remembered(_split, _MOST)
_banners: dict[tuple[int, bool], tuple[Banner, tuple[Offer, ...]]] = {}
"""By identity: the banner itself stands beside its offer, so that its id means it as long as it is here."""
