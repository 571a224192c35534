"""A campaign's metrics from several sources, and their sum: figures, how far each can be trusted, derived rates.

Sources tell counts and amounts; rates (CTR, CPC, ...) are derived from the sums, for an average of averages is neither.
What a source could not tell is never a zero: it is stale (older figures, with their age) or unknown.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from decimal import Decimal, InvalidOperation
from enum import StrEnum

from msgspec import Struct

from rtb.domain.money import MICROS, NANOS, Rates
from rtb.domain.ratios import cost_of, ratio

_MOST = Decimal(10) ** 15  # of any currency unit; above that an answer is broken, not rich


class Days(Struct, frozen=True):
    """Whole days, both ends included, as the source counts days (the time zone of the account there)."""

    first: date
    last: date

    def __post_init__(self) -> None:
        """Raise ValueError when the last day is before the first."""
        if self.last < self.first:
            raise ValueError(f"{self.last} is before {self.first}")


class Figures(Struct, frozen=True, gc=False):
    """Counts and amounts that add up. Conversions are in millionths, for some sources tell parts of one; amounts are
    nanos of one currency, which whoever holds the figures knows."""

    impressions: int = 0
    clicks: int = 0
    conversions_micros: int = 0
    spend_nanos: int = 0
    revenue_nanos: int = 0

    @property
    def conversions(self) -> float:
        """Conversions, parts of one included."""
        return self.conversions_micros / MICROS

    @property
    def ctr(self) -> float | None:
        """Clicks an impression, None without impressions."""
        return ratio(self.clicks, self.impressions)

    @property
    def cvr(self) -> float | None:
        """Conversions a click, None without clicks."""
        return ratio(self.conversions_micros, self.clicks * MICROS)

    @property
    def cpc(self) -> float | None:
        """Currency units a click, None without clicks."""
        return cost_of(self.spend_nanos, self.clicks)

    @property
    def cpm(self) -> float | None:
        """Currency units a thousand impressions, None without impressions."""
        return cost_of(self.spend_nanos, self.impressions, 1_000)

    @property
    def roas(self) -> float | None:
        """Revenue a unit of spend, None without spend."""
        return ratio(self.revenue_nanos, self.spend_nanos)


class CampaignMetrics(Struct, frozen=True, gc=False):
    """What one source tells of one campaign, in its own currency (ISO 4217)."""

    figures: Figures
    currency: str


class Told(Struct, frozen=True):
    """What a source told of a campaign and some days, and when (Unix seconds)."""

    campaign_id: str
    source: str
    days: Days
    metrics: CampaignMetrics
    told_at: float


class Standing(StrEnum):
    """How far figures can be trusted: as of the last refresh; of an earlier one, for some reason; there are none."""

    FRESH = "fresh"
    STALE = "stale"
    UNKNOWN = "unknown"


class Reading(Struct, frozen=True):
    """One source's part in a campaign: `figures` in the exchange currency (None when unknown), their age, and why they
    are not fresh ("" when they are)."""

    source: str
    standing: Standing
    figures: Figures | None = None
    age_s: float | None = None
    reason: str = ""


class MergedMetrics(Struct, frozen=True):
    """A campaign over some days, from all its sources, in the exchange currency.

    `totals` are of the sources that have told anything, and None when none has: read them with `standing`, which is the
    worst of the readings (unknown without any).
    """

    campaign_id: str
    days: Days
    currency: str
    totals: Figures | None
    standing: Standing
    readings: tuple[Reading, ...]

    @property
    def stale(self) -> tuple[str, ...]:
        """The sources whose figures are old."""
        return tuple(reading.source for reading in self.readings if reading.standing is Standing.STALE)

    @property
    def unknown(self) -> tuple[str, ...]:
        """The sources that are missing from the totals."""
        return tuple(reading.source for reading in self.readings if reading.standing is Standing.UNKNOWN)


_WORST_FIRST = (Standing.UNKNOWN, Standing.STALE, Standing.FRESH)


def merge(campaign_id: str, days: Days, currency: str, readings: Iterable[Reading]) -> MergedMetrics:
    """The sum of what is known, whatever the order of the readings, and its worst standing."""
    parts = tuple(sorted(readings, key=lambda reading: reading.source))
    standings = {reading.standing for reading in parts}
    known = [reading.figures for reading in parts if reading.figures is not None]
    return MergedMetrics(
        campaign_id=campaign_id,
        days=days,
        currency=currency,
        totals=total(known) if known else None,
        standing=next((standing for standing in _WORST_FIRST if standing in standings), Standing.UNKNOWN),
        readings=parts,
    )


def total(parts: Iterable[Figures]) -> Figures:
    """The sum."""
    impressions = clicks = conversions = spend = revenue = 0
    for part in parts:
        impressions += part.impressions
        clicks += part.clicks
        conversions += part.conversions_micros
        spend += part.spend_nanos
        revenue += part.revenue_nanos
    return Figures(impressions, clicks, conversions, spend, revenue)


def converted(metrics: CampaignMetrics, rates: Rates) -> Figures:
    """The figures in the exchange currency: spend rounded up to a nano, revenue down, so neither flatters.

    Raises:
        KeyError: no rate for the currency.
    """
    own, code = metrics.figures, metrics.currency
    return Figures(
        own.impressions,
        own.clicks,
        own.conversions_micros,
        rates.inward_micros(own.spend_nanos, code),  # the rates do not mind the unit: nanos in, nanos out
        rates.bid_micros(own.revenue_nanos, code),
    )


def count(number: str | int) -> int:
    """A count as sources write them: an integer, or one in a string.

    Raises:
        ValueError: it is none, or negative.
    """
    if isinstance(number, str) and len(number) <= 15 and number.isascii() and number.isdecimal():
        return int(number)  # as nearly all are; the rest is for those that are odd
    value = _decimal(number)
    if value != int(value):
        raise ValueError(f"{number!r} is not a whole number")
    return int(value)


def millionths(number: str | float) -> int:
    """Micros of a number as sources write them, half-even at the millionth; raises as `count`."""
    return round(_decimal(number) * MICROS)


def nanos(amount: str | float) -> int:
    """Nanos of an amount as sources write them ("12.34", 12.34), exact to the nano; raises as `count`."""
    return round(_decimal(amount) * NANOS)


def _decimal(number: str | float) -> Decimal:
    try:
        value = Decimal(str(number))
    except InvalidOperation:
        raise ValueError(f"{str(number)[:40]!r} is not a number") from None
    if value.is_nan() or not 0 <= value <= _MOST:
        raise ValueError(f"{str(number)[:40]} is not between 0 and 10**15")
    return value
