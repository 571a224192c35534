"""What a campaign's ads did: counters that add up over instances, days and campaigns, and the ratios made of them.

A ratio is made of sums, never of other ratios, and is None where its divisor is 0. Amounts are integer nanos of the
exchange currency.
"""

from __future__ import annotations

from msgspec import Struct

from rtb.domain.ratios import cost_of, ratio


class Counters(Struct, frozen=True, gc=False):
    """`cost_nanos` is what the campaign's budget paid, `revenue_nanos` what its conversions were worth to the
    advertiser. `sampled_bids` and `sampled_wins` are those of one auction in several (rtb.services.bid_sample); they
    make the win rate, and nothing else is made of them."""

    wins: int = 0
    impressions: int = 0
    clicks: int = 0
    conversions: int = 0
    cost_nanos: int = 0
    revenue_nanos: int = 0
    sampled_bids: int = 0
    sampled_wins: int = 0

    def __add__(self, other: Counters) -> Counters:
        """The sums."""
        return Counters(
            self.wins + other.wins,
            self.impressions + other.impressions,
            self.clicks + other.clicks,
            self.conversions + other.conversions,
            self.cost_nanos + other.cost_nanos,
            self.revenue_nanos + other.revenue_nanos,
            self.sampled_bids + other.sampled_bids,
            self.sampled_wins + other.sampled_wins,
        )

    @property
    def ctr(self) -> float | None:
        """Clicks an impression."""
        return ratio(self.clicks, self.impressions)

    @property
    def cvr(self) -> float | None:
        """Conversions a click; those that a view alone led to count, so it may be above 1."""
        return ratio(self.conversions, self.clicks)

    @property
    def cpc(self) -> float | None:
        """Cost of a click, in units of the currency."""
        return cost_of(self.cost_nanos, self.clicks)

    @property
    def cpa(self) -> float | None:
        """Cost of a conversion, in units of the currency."""
        return cost_of(self.cost_nanos, self.conversions)

    @property
    def cpm(self) -> float | None:
        """Cost of a thousand impressions, in units of the currency."""
        return cost_of(self.cost_nanos, self.impressions, 1_000)

    @property
    def roas(self) -> float | None:
        """Revenue a unit of cost: return on ad spend."""
        return ratio(self.revenue_nanos, self.cost_nanos)

    @property
    def shown(self) -> float | None:
        """Impressions a win: what of the wins was seen."""
        return ratio(self.impressions, self.wins)

    @property
    def win_rate(self) -> float | None:
        """Wins a bid, of the auctions in the sample."""
        return ratio(self.sampled_wins, self.sampled_bids)

    def against(self, target_nanos: int) -> float | None:
        """Cost as a part of what was to be spent by now: 1.0 is on target."""
        return ratio(self.cost_nanos, target_nanos)


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
