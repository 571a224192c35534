"""What the index posts a campaign under: (dimension, value) pairs, so that a request can look campaigns up by value."""

from __future__ import annotations

from collections.abc import Hashable
from sys import intern
from typing import Final

from msgspec import Struct

from rtb.domain.campaign import Campaign, Creative
from rtb.domain.targeting import geo
from rtb.domain.targeting.creatives import stream_seconds
from rtb.domain.targeting.criteria import advertiser_domains

SHAPE: Final = 0
"""(media, w, h, seconds of a stream)."""
SEAT: Final = 1
ADVERTISER: Final = 2
"""What `badv` would name; "" without an adomain."""
CATEGORY: Final = 3
"""(cattax, category)."""
PARENT: Final = 22
"""(cattax, what a category is under): a list that names IAB7 covers IAB7-39."""
DEAL: Final = 4
START: Final = 5
"""Unix seconds, as END."""
END: Final = 6
SCHEDULE: Final = 7
"""(time zone, bitmap of hours of the week)."""
COUNTRY: Final = 8
REGION: Final = 9
CITY: Final = 10
CELL: Final = 11
DEVICETYPE: Final = 12
OS: Final = 13
LANGUAGE: Final = 14
DOMAIN: Final = 15
DOMAIN_EXCLUDE: Final = 16
SITE_CAT: Final = 17
SITE_CAT_EXCLUDE: Final = 18
INTEREST: Final = 19
SEGMENT: Final = 20
KIND: Final = 21
"""The `Kind` of its creatives."""
DIMENSIONS: Final = 23

Posting = tuple[int, Hashable]


class Kind(Struct, eq=False, gc=False):
    """Campaigns whose creatives are alike to any imp: the same media, sizes, durations, attributes in the same order.

    Compared by identity; the index keeps one of each while it has `users`.
    """

    creatives: tuple[Creative, ...]
    users: int = 0


def traits(campaign: Campaign) -> Hashable:
    """Equal for two campaigns if and only if their creatives are of one kind."""
    return tuple(
        [
            (c.media, c.w, c.h, c.dur, c.mime, c.protocol, c.api, c.attr, c.btype, c.language, c.secure)
            for c in campaign.creatives
        ]
    )


def postings(campaign: Campaign, kind: Kind) -> list[Posting]:
    """Everything the campaign is posted under. For an including dimension a campaign that names any value is also
    posted under None, so that those who name none can be told."""
    found: list[Posting] = [(KIND, kind), (SEAT, campaign.advertiser)]
    found += [(SHAPE, (c.media, c.w, c.h, stream_seconds(c))) for c in campaign.creatives]
    if campaign.adomain:
        found += [(ADVERTISER, name) for name in advertiser_domains(campaign)]
    else:
        found.append((ADVERTISER, ""))
    if campaign.cat:
        found += [(CATEGORY, (campaign.cattax, cat)) for cat in campaign.cat]
        found += [(PARENT, (campaign.cattax, cat[: cat.index("-")])) for cat in campaign.cat if "-" in cat]
    if campaign.deals:
        found += [(DEAL, dealid) for dealid in campaign.deals]
    if campaign.start is not None:
        found.append((START, campaign.start.timestamp()))
    if campaign.end is not None:
        found.append((END, campaign.end.timestamp()))
    _add_targeting(found, campaign)
    return found


def alike(one: Campaign, other: Campaign) -> bool:
    """Whether both are posted under the same, as when only the price, the budget or the name changed."""
    return (
        one.targeting == other.targeting
        and one.creatives == other.creatives
        and one.advertiser == other.advertiser
        and one.adomain == other.adomain
        and one.cat == other.cat
        and one.cattax == other.cattax
        and one.deals == other.deals
        and one.start == other.start
        and one.end == other.end
        and one.timezone == other.timezone
    )


def _add_targeting(found: list[Posting], campaign: Campaign) -> None:
    targeting = campaign.targeting
    if targeting.hours:
        found.append((SCHEDULE, (campaign.timezone, sum(1 << hour for hour in set(targeting.hours)))))
    if targeting.country:
        found.append((COUNTRY, None))
        found += [(COUNTRY, name.upper()) for name in targeting.country]
    if targeting.region:
        found.append((REGION, None))
        found += [(REGION, name.lower()) for name in targeting.region]
    if targeting.city:
        found.append((CITY, None))
        found += [(CITY, name.lower()) for name in targeting.city]
    if targeting.geo:
        found.append((CELL, None))
        found += [(CELL, cell) for circle in targeting.geo for cell in geo.cells_of_circle(circle)]
    if targeting.devicetype:
        found.append((DEVICETYPE, None))
        found += [(DEVICETYPE, number) for number in targeting.devicetype]
    if targeting.os:
        found.append((OS, None))
        found += [(OS, name.lower()) for name in targeting.os]
    if targeting.language:
        found.append((LANGUAGE, None))
        found += [(LANGUAGE, name[:2].lower()) for name in targeting.language]
    if targeting.domain:
        found.append((DOMAIN, None))
        found += [(DOMAIN, name.lower()) for name in targeting.domain]
    if targeting.domain_exclude:
        found += [(DOMAIN_EXCLUDE, name.lower()) for name in targeting.domain_exclude]
    if targeting.site_cat:
        found.append((SITE_CAT, None))
        found += [(SITE_CAT, name) for name in targeting.site_cat]
    if targeting.site_cat_exclude:
        found += [(SITE_CAT_EXCLUDE, name) for name in targeting.site_cat_exclude]
    if targeting.interests:
        found.append((INTEREST, None))
        found += [(INTEREST, intern(name.lower())) for name in targeting.interests]
    if targeting.segments:
        found.append((SEGMENT, None))
        found += [(SEGMENT, intern(name)) for name in targeting.segments]
