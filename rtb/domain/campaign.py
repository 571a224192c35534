"""Campaigns and creatives: immutable values; a change replaces the value.

`Campaign` is also the format of ``config/campaigns.json`` and ``rtb campaigns import``: amounts there are in currency
units, converted once by the properties. A targeting key left out means "everyone".
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from msgspec import Meta, Struct

from rtb.domain import money
from rtb.errors import InvalidCampaign

Name = Annotated[str, Meta(min_length=1, max_length=200)]
Amount = Annotated[float, Meta(ge=0)]
Chance = Annotated[float, Meta(ge=0, le=1)]
Share = Annotated[float, Meta(gt=0, le=1)]
Seconds = Annotated[int, Meta(ge=1, le=90 * 86_400)]
ExternalId = Annotated[str, Meta(min_length=1, max_length=200)]


class Status(StrEnum):
    """Whether a campaign may bid at all."""

    ACTIVE = "active"
    PAUSED = "paused"
    ENDED = "ended"


class Pricing(StrEnum):
    """What the advertiser pays for: a thousand impressions, a click, a conversion."""

    CPM = "cpm"
    CPC = "cpc"
    CPA = "cpa"


class Pacing(StrEnum):
    """How a daily budget is spent: as soon as possible, evenly over the day, or as traffic came on the last days."""

    ASAP = "asap"
    EVEN = "even"
    LEARNED = "learned"


class Per(StrEnum):
    """The window of a frequency cap, by name."""

    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"
    LIFETIME = "lifetime"


MILLION = 1_000_000
DAY_S = 86_400
LIFETIME_S = 400 * DAY_S
"""How long lifetime counts are kept from the first one: no browser keeps a user id longer [RFC 6265bis 5.5]."""
WINDOWS_S = {Per.MINUTE: 60, Per.HOUR: 3_600, Per.DAY: DAY_S, Per.LIFETIME: LIFETIME_S}


class Media(StrEnum):
    """The four kinds of an imp's media [OpenRTB 2.6 3.2.4]."""

    __hash__ = str.__hash__  # Enum's own is a Python function, too slow for the keys of the index

    BANNER = "banner"
    VIDEO = "video"
    AUDIO = "audio"
    NATIVE = "native"


class Value(Struct, frozen=True, gc=False, omit_defaults=True, forbid_unknown_fields=True):
    """Base of the catalogue's values."""


class Circle(Value, frozen=True):
    """A geo circle: degrees, radius in km."""

    lat: Annotated[float, Meta(ge=-90, le=90)]
    lon: Annotated[float, Meta(ge=-180, le=180)]
    radius: Annotated[float, Meta(gt=0, le=20_040)] = 10.0


class FrequencyCap(Value, frozen=True):
    """At most `count` impressions to one user in `seconds`, or `per` minute, hour, day or lifetime.

    A window begins with the first impression in it.
    """

    count: Annotated[int, Meta(ge=1)]
    seconds: Annotated[int, Meta(ge=1, le=LIFETIME_S)] = DAY_S
    per: Per | None = None

    @property
    def window_s(self) -> int:
        """The length of its window in seconds."""
        return self.seconds if self.per is None else WINDOWS_S[self.per]

    @property
    def contradiction(self) -> str:
        """Why `seconds` and `per` cannot both be meant; "" when they can."""
        if self.per is None or self.seconds in (DAY_S, self.window_s):
            return ""
        return f"{self.seconds} seconds are not a {self.per.value}; give one of the two"


class Optimise(Value, frozen=True):
    """How much of the user's value and of the context's score goes into the bid (rtb.domain.pricing), 1 for all."""

    value: Chance = 1.0
    context: Chance = 1.0


class Targeting(Value, frozen=True):
    """Who sees it; keys are ANDed, values of one key ORed, and an empty key means everyone.

    interests and segments match the request's keywords and data segments and the user's profile; country is ISO-3166-1
    alpha-3 as in device.geo; domain is the site's or app's domain or the app's bundle; site_cat its IAB categories;
    hours are hours of the week in the campaign's time zone, 0 = Monday 00:00 to 167.
    """

    interests: tuple[str, ...] = ()
    segments: tuple[str, ...] = ()
    geo: tuple[Circle, ...] = ()
    country: tuple[str, ...] = ()
    region: tuple[str, ...] = ()
    city: tuple[str, ...] = ()
    devicetype: tuple[int, ...] = ()
    os: tuple[str, ...] = ()
    language: tuple[str, ...] = ()
    domain: tuple[str, ...] = ()
    domain_exclude: tuple[str, ...] = ()
    site_cat: tuple[str, ...] = ()
    site_cat_exclude: tuple[str, ...] = ()
    hours: tuple[Annotated[int, Meta(ge=0, le=167)], ...] = ()


class Creative(Value, frozen=True):
    """One ad: its media, size in DIPS (0 = fits any), `dur` in seconds, and the markup or what to make it from."""

    id: Name
    media: Media = Media.BANNER
    w: Annotated[int, Meta(ge=0)] = 0
    h: Annotated[int, Meta(ge=0)] = 0
    dur: Annotated[int, Meta(ge=0)] = 0
    mime: str = ""
    protocol: int = 0
    api: int = 0
    attr: tuple[int, ...] = ()
    btype: int = 0
    language: str = ""
    secure: bool = True
    adm: str = ""
    image_url: str = ""
    landing_page: str = ""


class Campaign(Value, frozen=True):
    """A house campaign: `bid` is CPM, per click or per conversion by `pricing`; amounts in currency units.

    `version` grows by one with every change; the repository refuses an older one.

    `max_bid`, in the unit of `bid`, bounds what `optimise` makes of it; the house keeps the share `margin` of each bid.
    At the share `alert_at` of the daily budget an alert goes out (None: where the daemon's setting says), at `pause_at`
    it pauses until the next budget day. `external_ids` are what metric sources call it, a source each. Clicks and
    conversions are attributed within the windows (None: the daemon's settings); with a `view_window_s` of 0 a
    conversion needs a click.
    """

    id: Name
    advertiser: Name
    creatives: Annotated[tuple[Creative, ...], Meta(min_length=1)]
    name: str = ""
    adomain: tuple[str, ...] = ()
    cat: tuple[str, ...] = ()
    cattax: int = 1
    status: Status = Status.ACTIVE
    pricing: Pricing = Pricing.CPM
    bid: Amount = 0.0
    pctr: Chance = 0.001
    pcvr: Chance = 0.01
    daily_budget: Amount | None = None
    lifetime_budget: Amount | None = None
    start: datetime | None = None
    end: datetime | None = None
    timezone: str = "UTC"
    frequency_cap: FrequencyCap | None = None
    deals: tuple[str, ...] = ()
    targeting: Targeting = Targeting()
    version: Annotated[int, Meta(ge=1, le=2**63 - 1)] = 1
    pacing: Pacing = Pacing.ASAP
    pause_at: Share = 1.0
    alert_at: Share | None = None
    max_bid: Amount | None = None
    margin: Annotated[float, Meta(ge=0, le=0.95)] = 0.0
    optimise: Optimise | None = None
    frequency_caps: Annotated[tuple[FrequencyCap, ...], Meta(max_length=8)] = ()
    external_ids: dict[Name, ExternalId] | None = None
    click_window_s: Seconds | None = None
    view_window_s: Annotated[int, Meta(ge=0, le=90 * DAY_S)] | None = None

    @property
    def bid_micros(self) -> int:
        """What a thousand impressions are worth to it (eCPM) in CPM micros: the bid itself, or by pctr and pcvr."""
        return self._ecpm_micros(self.bid)

    @property
    def most_micros(self) -> int:
        """The most that a thousand impressions may cost it, in CPM micros; of one impression, in nanos."""
        if self.optimise is None:
            return self.bid_micros
        most = self.bid * (1 + self.optimise.value) * (1 + self.optimise.context)
        return self._ecpm_micros(most if self.max_bid is None else min(most, self.max_bid))

    @property
    def top_micros(self) -> int:
        """The most it bids in any auction, in CPM micros: what the index ranks it by."""
        return self.most_micros if not self.margin else self.most_micros * self.media_ppm // MILLION

    @property
    def media_ppm(self) -> int:
        """What of its money buys media, in millionths; the margin is the rest."""
        return MILLION - round(self.margin * MILLION)

    @property
    def optimises(self) -> bool:
        """Whether its price differs from auction to auction (rtb.domain.pricing), up to `top_micros`."""
        return self.optimise is not None

    @property
    def paces(self) -> bool:
        """Whether its daily budget is spread over the day (rtb.domain.pacing)."""
        return self.pacing is not Pacing.ASAP

    @property
    def pause_nanos(self) -> int | None:
        """What of the daily budget is spent before it pauses, in nanos; None without a daily budget."""
        limit = self.daily_budget_nanos
        return limit if limit is None or self.pause_at == 1.0 else int(limit * self.pause_at)

    def external_id(self, source: str) -> str:
        """What a metric source calls it, "" when it is not there."""
        return (self.external_ids or {}).get(source, "")

    @property
    def daily_budget_nanos(self) -> int | None:
        """The budget of one day in the campaign's time zone, in nanos; None is without limit."""
        return None if self.daily_budget is None else money.unit_nanos(self.daily_budget)

    @property
    def lifetime_budget_nanos(self) -> int | None:
        """The budget of its whole life, in nanos; None is without limit."""
        return None if self.lifetime_budget is None else money.unit_nanos(self.lifetime_budget)

    @property
    def zone(self) -> ZoneInfo:
        """The time zone that budget days and hours are counted in."""
        return ZoneInfo(self.timezone)

    def _ecpm_micros(self, bid: float) -> int:
        if self.pricing is Pricing.CPM:
            return money.to_micros(bid)
        chance = self.pctr if self.pricing is Pricing.CPC else self.pctr * self.pcvr
        return money.to_micros(bid * chance * 1000)


_decoder = msgspec.json.Decoder(Campaign)
_encoder = msgspec.json.Encoder()


def decode(data: bytes) -> Campaign:
    """A campaign from its JSON.

    Raises:
        InvalidCampaign: names the field and what is wrong with it.
    """
    try:
        campaign = _decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidCampaign(_reason(error)) from None
    return validated(campaign)


def convert(obj: Any) -> Campaign:
    """A campaign from decoded JSON; raises as `decode` does."""
    try:
        campaign = msgspec.convert(obj, Campaign)
    except (msgspec.MsgspecError, RecursionError) as error:
        name = obj.get("id") if isinstance(obj, dict) else None
        raise InvalidCampaign(f"campaign {name!r}: {_reason(error)}") from None
    return validated(campaign)


def encode(campaign: Campaign) -> bytes:
    """The JSON of a campaign, defaults left out."""
    return _encoder.encode(campaign)


def validated(campaign: Campaign) -> Campaign:
    """The same campaign, its adomain in lower case, when its amounts, time zone and dates make sense.

    Raises:
        InvalidCampaign: names the campaign and the field.
    """
    field = "bid"
    try:
        if campaign.bid_micros <= 0 or ((campaign.margin or campaign.optimise) and campaign.top_micros <= 0):
            raise ValueError("the auction price is 0; raise bid (or pctr, pcvr)")
        field = "daily_budget"
        _ = campaign.daily_budget_nanos
        field = "lifetime_budget"
        _ = campaign.lifetime_budget_nanos
        field = "timezone"
        _ = campaign.zone
        field = "start, end"
        if (campaign.start and campaign.start.tzinfo is None) or (campaign.end and campaign.end.tzinfo is None):
            raise ValueError("give a UTC offset, as in 2026-12-01T00:00:00+09:00")
        field = "end"
        if campaign.start and campaign.end and campaign.end <= campaign.start:
            raise ValueError("must be after start")
        field = "creatives"
        if len({creative.id for creative in campaign.creatives}) < len(campaign.creatives):
            raise ValueError("two have the same id")
    except (ValueError, OSError, ZoneInfoNotFoundError) as error:  # OSError: the zone "America" is a directory
        what = f"no time zone {campaign.timezone[:64]!r}" if field == "timezone" else str(error)
        raise InvalidCampaign(f"campaign {campaign.id!r}: {field}: {what}") from None
    if wrong := _nonsense(campaign):
        raise InvalidCampaign(f"campaign {campaign.id!r}: {wrong}")
    adomain = tuple([name.lower() for name in campaign.adomain])
    return campaign if adomain == campaign.adomain else msgspec.structs.replace(campaign, adomain=adomain)


def _nonsense(campaign: Campaign) -> str:
    """What of its ways to spend contradicts itself, field first; "" when nothing does."""
    if campaign.max_bid is not None and campaign.max_bid < campaign.bid:
        return f"max_bid: {campaign.max_bid} is below bid, {campaign.bid}"
    if campaign.daily_budget is None:
        if campaign.pacing is not Pacing.ASAP:
            return f"pacing: {campaign.pacing.value!r} spreads a daily budget; set daily_budget"
        if campaign.pause_at != 1.0:
            return "pause_at: is a share of a daily budget; set daily_budget"
    if campaign.frequency_cap is not None and (wrong := campaign.frequency_cap.contradiction):
        return f"frequency_cap: {wrong}"
    caps = campaign.frequency_caps
    if caps:
        for i, cap in enumerate(caps):
            if wrong := cap.contradiction:
                return f"frequency_caps[{i}]: {wrong}"
        if len({cap.window_s for cap in caps}) < len(caps):
            return "frequency_caps: two have the same window"
    return ""


def _reason(error: Exception) -> str:
    what, _, where = " ".join(str(error).strip("'").split()).partition(" - at `$")
    where = where.rstrip("`").lstrip(".")
    return f"{where}: {what[:1].lower()}{what[1:]}" if where else what
