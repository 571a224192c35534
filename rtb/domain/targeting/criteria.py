"""Whether one campaign fits one imp, and if not, why: the exact rules, which the index must agree with."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from datetime import datetime
from enum import StrEnum
from zoneinfo import ZoneInfo

from msgspec import Struct

from rtb.domain import frequency, money, pricing
from rtb.domain.campaign import Campaign, Creative, Status
from rtb.domain.facts import Context, Placement
from rtb.domain.targeting import creatives, deals, geo
from rtb.domain.targeting.hours import hour_of_week

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


class Criterion(StrEnum):
    """What a campaign can fail by, in the order it is checked."""

    STATUS = "status"
    FLIGHT = "flight"
    HOURS = "hours"
    BUDGET = "budget"
    SEAT = "seat"
    ADVERTISER = "advertiser"
    CATEGORY = "category"
    SIZE = "size"
    CREATIVE = "creative"
    DEAL = "deal"
    COUNTRY = "country"
    REGION = "region"
    CITY = "city"
    GEO = "geo"
    DEVICETYPE = "devicetype"
    OS = "os"
    LANGUAGE = "language"
    DOMAIN = "domain"
    SITE_CAT = "site_cat"
    INTERESTS = "interests"
    SEGMENTS = "segments"
    FREQUENCY = "frequency"
    FLOOR = "floor"
    PACING = "pacing"


class Fit(Struct, frozen=True, gc=False):
    """The campaign can bid: with this creative, at this price, under this deal (None: openly)."""

    creative: Creative
    price_micros: int
    dealid: str | None = None


class Miss(Struct, frozen=True, gc=False):
    """The first criterion that fails, and one line with the values behind it, as in
    ``geo: 14.2 km from the nearest circle, radius 10 km``."""

    criterion: Criterion
    text: str


def check(
    campaign: Campaign, context: Context, placement: Placement, *, live: bool = True, pacing: str = ""
) -> Fit | Miss:
    """Whether the campaign may bid for the imp, or the first criterion, in the order of `Criterion`, that forbids it.

    Args:
        campaign: any, whatever its status.
        context: the facts of the request; `now` decides flight dates and hours.
        placement: the facts of the imp.
        live: whether its budget lets it bid now.
        pacing: why pacing keeps it out of this auction, as in ``takes part in 25 % of the auctions``; empty when not.
    """
    for criterion, objection in _OBJECTIONS:
        text = objection(campaign, context, placement)
        if criterion is Criterion.BUDGET and not live:
            text = "nothing left to spend now"
        if text:
            return Miss(criterion, f"{criterion.value}: {text}")
    creative = campaign.creatives[_chosen(campaign, context, placement)]
    price = pricing.price_micros(campaign, context, placement.floor_micros)
    dealid, floor = deals.settle(campaign, creative, price, placement)
    if not placement.sold:
        return Miss(Criterion.FLOOR, f"{Criterion.FLOOR.value}: in a currency without a rate")
    if price < floor:
        below = f"price {money.to_cpm(price):.2f} CPM is below {money.to_cpm(floor):.2f}"
        return Miss(Criterion.FLOOR, f"{Criterion.FLOOR.value}: {below}")
    if pacing:
        return Miss(Criterion.PACING, f"{Criterion.PACING.value}: {pacing}")
    return Fit(creative, price, dealid)


def _category(campaign: Campaign, context: Context, placement: Placement) -> str:
    """bcat and acat say nothing about categories of another taxonomy (`cattax`). Source: OpenRTB 2.6 3.2.1."""
    if campaign.cattax != context.cattax:
        return ""
    for cat in campaign.cat:
        if category_in(cat, context.cat_blocked):
            return f"{cat} is blocked"
        if context.cat_allowed is not None and not category_in(cat, context.cat_allowed):
            return f"{cat} is not among the allowed"
    return ""


def category_in(cat: str, listed: Container[str]) -> bool:
    """Whether a list of categories covers one: it or its parent is there, as IAB7 covers IAB7-39."""
    return cat in listed or ("-" in cat and cat[: cat.index("-")] in listed)


def advertiser_domains(campaign: Campaign) -> list[str]:
    """Names in `badv` that would block the campaign: its adomain and what it is under, but for a mere ``com``."""
    names: list[str] = []
    for adomain in campaign.adomain:
        name = adomain.lower()
        names.append(name)
        while name.count(".") > 1:
            name = name.partition(".")[2]
            names.append(name)
    return names


def _status(campaign: Campaign, context: Context, placement: Placement) -> str:
    return "" if campaign.status is Status.ACTIVE else f"is {campaign.status.value}"


def _flight(campaign: Campaign, context: Context, placement: Placement) -> str:
    if campaign.start is not None and context.now < campaign.start.timestamp():
        return f"starts {campaign.start.isoformat()}"
    if campaign.end is not None and context.now >= campaign.end.timestamp():
        return f"ended {campaign.end.isoformat()}"
    return ""


def _hours(campaign: Campaign, context: Context, placement: Placement) -> str:
    hours = campaign.targeting.hours
    if not hours or hour_of_week(campaign.timezone, context.now) in hours:
        return ""
    local = datetime.fromtimestamp(context.now, ZoneInfo(campaign.timezone))
    return f"not on {_DAYS[local.weekday()]} at {local:%H:%M} {campaign.timezone}"


def _budget(campaign: Campaign, context: Context, placement: Placement) -> str:
    return ""  # not the campaign's own: `check` is told


def _seat(campaign: Campaign, context: Context, placement: Placement) -> str:
    if context.seat_allowed is not None and campaign.advertiser not in context.seat_allowed:
        return f"{campaign.advertiser} is not among the allowed"
    return f"{campaign.advertiser} is blocked" if campaign.advertiser in context.seat_blocked else ""


def _advertiser(campaign: Campaign, context: Context, placement: Placement) -> str:
    if not context.adv_blocked:
        return ""
    if not campaign.adomain:
        return "no adomain to hold against the blocked domains"
    blocked = [name for name in advertiser_domains(campaign) if name in context.adv_blocked]
    return f"{blocked[0]} is blocked" if blocked else ""


def _size(campaign: Campaign, context: Context, placement: Placement) -> str:
    if any(creatives.has_shape(creative, offer) for offer in placement.offers for creative in campaign.creatives):
        return ""
    offered = [
        f"{offer.media.value} {' '.join(f'{w}x{h}' for w, h in offer.sizes)}".rstrip() for offer in placement.offers
    ]
    has = dict.fromkeys(f"{c.media.value} {c.w}x{c.h}" if c.w or c.h else c.media.value for c in campaign.creatives)
    return f"offered is {', '.join(offered) or 'nothing'}; has {', '.join(has)}"


def _creative(campaign: Campaign, context: Context, placement: Placement) -> str:
    if _chosen(campaign, context, placement) >= 0:
        return ""
    for offer in placement.offers:
        for creative in campaign.creatives:
            if creatives.has_shape(creative, offer):
                return (
                    f"{creative.id} {creatives.objection(creative, offer, placement.secure, context.language_allowed)}"
                )
    raise AssertionError("some creative has the shape: _size came first")


def _chosen(campaign: Campaign, context: Context, placement: Placement) -> int:
    return creatives.choose(campaign.creatives, placement.offers, placement.secure, context.language_allowed)


def _deal(campaign: Campaign, context: Context, placement: Placement) -> str:
    if not placement.private or deals.admitted(campaign, placement):
        return ""
    return f"private auction under {_listed(placement.deals)}; has {_listed(campaign.deals)}"


def _country(campaign: Campaign, context: Context, placement: Placement) -> str:
    wanted = campaign.targeting.country
    return _unmet([name.upper() for name in wanted], (context.country,))


def _region(campaign: Campaign, context: Context, placement: Placement) -> str:
    return _unmet([name.lower() for name in campaign.targeting.region], (context.region,))


def _city(campaign: Campaign, context: Context, placement: Placement) -> str:
    return _unmet([name.lower() for name in campaign.targeting.city], (context.city,))


def _geo(campaign: Campaign, context: Context, placement: Placement) -> str:
    circles = campaign.targeting.geo
    lat, lon = context.lat, context.lon
    if not circles:
        return ""
    if lat is None or lon is None:
        return "the request says no place"
    if geo.inside(circles, lat, lon):
        return ""
    away, radius = min((geo.distance_km(lat, lon, c.lat, c.lon), c.radius) for c in circles)
    return f"{away:.1f} km from the nearest circle, radius {radius:g} km"


def _devicetype(campaign: Campaign, context: Context, placement: Placement) -> str:
    return _unmet(campaign.targeting.devicetype, (context.devicetype,))


def _os(campaign: Campaign, context: Context, placement: Placement) -> str:
    return _unmet([name.lower() for name in campaign.targeting.os], (context.os,))


def _language(campaign: Campaign, context: Context, placement: Placement) -> str:
    return _unmet([name[:2].lower() for name in campaign.targeting.language], (context.language,))


def _domain(campaign: Campaign, context: Context, placement: Placement) -> str:
    targeting = campaign.targeting
    return _unmet([name.lower() for name in targeting.domain], context.domains) or _excluded(
        [name.lower() for name in targeting.domain_exclude], context.domains
    )


def _site_cat(campaign: Campaign, context: Context, placement: Placement) -> str:
    targeting = campaign.targeting
    return _unmet(targeting.site_cat, context.site_cats) or _excluded(targeting.site_cat_exclude, context.site_cats)


def _interests(campaign: Campaign, context: Context, placement: Placement) -> str:
    return _unmet([name.lower() for name in campaign.targeting.interests], context.interests)


def _segments(campaign: Campaign, context: Context, placement: Placement) -> str:
    return _unmet(campaign.targeting.segments, context.segments)


def _frequency(campaign: Campaign, context: Context, placement: Placement) -> str:
    return frequency.objection(campaign, context.frequency)


def _unmet(wanted: Sequence[object], found: Sequence[object]) -> str:
    if not wanted or any(value in wanted for value in found):
        return ""
    return f"{_listed(found)} is none of {_listed(wanted)}"


def _excluded(unwanted: Sequence[object], found: Sequence[object]) -> str:
    for value in found:
        if value in unwanted:
            return f"{value} is excluded"
    return ""


def _listed(values: Iterable[object]) -> str:
    return ", ".join(str(value) for value in values if value not in ("", 0)) or "none"


_OBJECTIONS: tuple[tuple[Criterion, Callable[[Campaign, Context, Placement], str]], ...] = (
    (Criterion.STATUS, _status),
    (Criterion.FLIGHT, _flight),
    (Criterion.HOURS, _hours),
    (Criterion.BUDGET, _budget),
    (Criterion.SEAT, _seat),
    (Criterion.ADVERTISER, _advertiser),
    (Criterion.CATEGORY, _category),
    (Criterion.SIZE, _size),
    (Criterion.CREATIVE, _creative),
    (Criterion.DEAL, _deal),
    (Criterion.COUNTRY, _country),
    (Criterion.REGION, _region),
    (Criterion.CITY, _city),
    (Criterion.GEO, _geo),
    (Criterion.DEVICETYPE, _devicetype),
    (Criterion.OS, _os),
    (Criterion.LANGUAGE, _language),
    (Criterion.DOMAIN, _domain),
    (Criterion.SITE_CAT, _site_cat),
    (Criterion.INTERESTS, _interests),
    (Criterion.SEGMENTS, _segments),
    (Criterion.FREQUENCY, _frequency),
)
"""Before the floor, which needs the creative and the deal."""
