"""The facts of a bid request that targeting reads, normalised once: a Context a request and a Placement an imp.

Names are lower case, categories carry their parent (IAB3-1 also counts as IAB3), the order of tuples is the request's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from msgspec import Struct

from rtb.domain import auction, money
from rtb.domain.auction import Terms
from rtb.domain.campaign import Media
from rtb.domain.profile import Profile
from rtb.openrtb import Audio, Banner, BidRequest, Content, Geo, Imp, Video

NO_COUNTS: Mapping[str, int] = {}
MOST_SIZES = 64
"""Formats of a banner that are read: no page offers more, and every one costs time."""

_T = TypeVar("_T")
_NO_REQUEST = BidRequest()


class Context(Struct, gc=False, kw_only=True):
    """What holds for every imp of a request.

    `now` is Unix seconds. `frequency` counts the user's impressions a campaign id, in that campaign's own window.
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
    frequency: Mapping[str, int] = NO_COUNTS
    cat_blocked: tuple[str, ...] = ()
    cat_allowed: tuple[str, ...] | None = None
    cattax: int = 1
    adv_blocked: tuple[str, ...] = ()
    seat_allowed: tuple[str, ...] | None = None
    seat_blocked: tuple[str, ...] = ()
    language_allowed: tuple[str, ...] | None = None


class Offer(Struct, frozen=True, gc=False, kw_only=True):
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
    least that any of them can be, else the floor.
    """

    impid: str = ""
    offers: tuple[Offer, ...] = ()
    floor_micros: int = 0
    lowest_micros: int = 0
    secure: bool = False
    deals: tuple[str, ...] = ()
    private: bool = False
    terms: Terms | None = None


def context(
    request: BidRequest,
    profile: Profile | None = None,
    frequency: Mapping[str, int] = NO_COUNTS,
    *,
    now: float = 0.0,
) -> Context:
    """The facts of a request, with what the profile adds to its interests and segments."""
    facts = Context(now=now, frequency=frequency)
    device, user = request.device, request.user
    geo = None
    if device is not None:
        geo = device.geo
        facts.devicetype = device.devicetype or 0
        if device.os:
            facts.os = device.os.lower()
        language = device.language or device.langb
        if language:
            facts.language = language[:2].lower()
    if user is not None:
        if geo is None:
            geo = user.geo
        facts.user_id = user.id or user.buyeruid or ""
        if user.keywords:
            facts.interests = _words(user.keywords)
        if user.kwarray:
            facts.interests += _words(user.kwarray)
        if user.data:
            facts.segments = tuple(dict.fromkeys([s.id for data in user.data for s in data.segment or () if s.id]))
    if geo is not None:
        _place(geo, facts)
    _venue(request, facts)
    if profile is not None:
        facts.interests += tuple([name.lower() for name in profile.interests])
        facts.segments += profile.segments
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
    return facts


def _place(geo: Geo, facts: Context) -> None:
    if geo.country:
        facts.country = geo.country.upper()
    if geo.region:
        facts.region = geo.region.lower()
    if geo.city:
        facts.city = geo.city.lower()
    lat, lon = geo.lat, geo.lon
    if lat is not None and lon is not None and -90 <= lat <= 90 and -180 <= lon <= 180:
        facts.lat, facts.lon = lat, lon


def _venue(request: BidRequest, facts: Context) -> None:
    """Site, app or screen: its domains and categories."""
    site, app, dooh = request.site, request.app, request.dooh
    cats: list[str] = []
    content: Content | None = None
    if site is not None:
        if site.domain:
            facts.domains = (site.domain.lower(),)
        if site.cat:
            cats += site.cat
        if site.sectioncat:
            cats += site.sectioncat
        if site.pagecat:
            cats += site.pagecat
        content = site.content
    elif app is not None:
        facts.domains = tuple([name.lower() for name in (app.domain, app.bundle) if name])
        if app.cat:
            cats += app.cat
        if app.sectioncat:
            cats += app.sectioncat
        if app.pagecat:
            cats += app.pagecat
        content = app.content
    elif dooh is not None:
        if dooh.domain:
            facts.domains = (dooh.domain.lower(),)
        content = dooh.content
    if content is not None and content.cat:
        cats += content.cat
    if cats:
        facts.site_cats = with_parents(cats)


def placement(imp: Imp, rates: money.Rates, terms: Terms | None = None) -> Placement:
    """The facts of an imp; `terms` are those it is sold under, where they are known already.

    Raises:
        KeyError: a floor is in a currency without a rate.
    """
    offers: list[Offer] = []
    if imp.banner is not None:
        offers.append(_banner(imp.banner, imp.instl == 1))
    video, audio = imp.video, imp.audio
    if video is not None:
        offers.append(_stream(Media.VIDEO, video))
    if audio is not None:
        offers.append(_stream(Media.AUDIO, audio))
    if imp.native is not None:
        offers.append(Offer(media=Media.NATIVE, attr_blocked=_tuple(imp.native.battr), api=_listed(imp.native.api)))
    if terms is None:
        terms = auction.terms(_NO_REQUEST, imp, rates)
    floor = terms.floor_micros
    facts = Placement(
        impid=terms.impid, offers=tuple(offers), floor_micros=floor, lowest_micros=floor, secure=imp.secure == 1
    )
    if terms.deals is not None or terms.streams is not None or terms.private:
        _settle_terms(facts, terms)
    return facts


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


def with_parents(cats: list[str]) -> tuple[str, ...]:
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
    """Each once, in lower case, without the blanks around; a comma separates words in a string."""
    words = keywords.lower().split(",") if isinstance(keywords, str) else [word.lower() for word in keywords]
    return tuple(dict.fromkeys(map(_strip, words)))
