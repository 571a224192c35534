"""What a campaign's ads did: counters that add up over instances, days and campaigns, and the ratios made of them.

A ratio is made of sums, never of other ratios, and is None where its divisor is 0. Amounts are integer nanos of the
exchange currency.
"""

from __future__ import annotations

from msgspec import Struct

from rtb.domain.money import NANOS


class Counters(Struct, frozen=True, gc=False):
    """`cost_nanos` is what the campaign's budget paid, `revenue_nanos` what its conversions were worth to the
    advertiser."""

    wins: int = 0
    impressions: int = 0
    clicks: int = 0
    conversions: int = 0
    cost_nanos: int = 0
    revenue_nanos: int = 0

    def __add__(self, other: Counters) -> Counters:
        """The sums."""
        return Counters(
            self.wins + other.wins,
            self.impressions + other.impressions,
            self.clicks + other.clicks,
            self.conversions + other.conversions,
            self.cost_nanos + other.cost_nanos,
            self.revenue_nanos + other.revenue_nanos,
        )

    @property
    def ctr(self) -> float | None:
        """Clicks an impression."""
        return _ratio(self.clicks, self.impressions)

    @property
    def cvr(self) -> float | None:
        """Conversions a click; those that a view alone led to count, so it may be above 1."""
        return _ratio(self.conversions, self.clicks)

    @property
    def cpc(self) -> float | None:
        """Cost of a click, in units of the currency."""
        return _ratio(self.cost_nanos, self.clicks * NANOS)

    @property
    def cpa(self) -> float | None:
        """Cost of a conversion, in units of the currency."""
        return _ratio(self.cost_nanos, self.conversions * NANOS)

    @property
    def cpm(self) -> float | None:
        """Cost of a thousand impressions, in units of the currency."""
        return _ratio(self.cost_nanos * 1_000, self.impressions * NANOS)

    @property
    def roas(self) -> float | None:
        """Revenue a unit of cost: return on ad spend."""
        return _ratio(self.revenue_nanos, self.cost_nanos)

    @property
    def shown(self) -> float | None:
        """Impressions a win: what of the wins was seen."""
        return _ratio(self.impressions, self.wins)

    def win_rate(self, bids: int) -> float | None:
        """Wins a bid; only who bids knows how many those were."""
        return _ratio(self.wins, bids)

    def against(self, target_nanos: int) -> float | None:
        """Cost as a part of what was to be spent by now: 1.0 is on target."""
        return _ratio(self.cost_nanos, target_nanos)


NOTHING = Counters()


class Performed(Struct, frozen=True, gc=False):
    """What one campaign's ads did on a date, of the wins of one instance."""

    campaign_id: str
    date: str
    instance: str
    counters: Counters


def counted(kind: str, count: int, charged_nanos: int, value_nanos: int) -> Counters:
    """The counters of so many rows of one kind of the ledger: win, impression, click or conversion.

    Raises:
        KeyError: another kind.
    """
    return Counters(**{_FIELDS[kind]: count}, cost_nanos=charged_nanos, revenue_nanos=value_nanos)


_FIELDS = {"win": "wins", "impression": "impressions", "click": "clicks", "conversion": "conversions"}


def total(parts: list[Counters]) -> Counters:
    """Their sum."""
    sum_ = NOTHING
    for part in parts:
        sum_ = sum_ + part
    return sum_


def _ratio(dividend: int, divisor: int) -> float | None:
    return dividend / divisor if divisor else None
