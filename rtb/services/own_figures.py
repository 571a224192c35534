"""The house's own ledger as a metric source."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

from rtb.domain.money import MICROS
from rtb.domain.performance import Counters
from rtb.domain.source_metrics import CampaignMetrics, Days, Figures, total
from rtb.errors import StoreError
from rtb.ports import Ledger
from rtb.ports.metric_source import BidResult, BidUpdate, SourceError, SourceFailure

LookUp = Callable[[Sequence[str], Days], Awaitable[Mapping[str, Figures]]]
"""The figures of campaigns; raises StoreError."""


def in_ledger(ledger: Ledger) -> LookUp:
    """Look figures up in the ledger. A campaign without a row did nothing, by the ledger's own word."""

    async def look_up(ids: Sequence[str], days: Days) -> Mapping[str, Figures]:
        found = dict.fromkeys(ids, Figures())
        for done in await ledger.performance(ids, since=days.first.isoformat(), until=days.last.isoformat()):
            found[done.campaign_id] = total([found[done.campaign_id], _figures(done.counters)])
        return found

    return look_up


class OwnFigures:
    """What the house's ledger says of its campaigns, by their ids here; implements MetricSource."""

    def __init__(
        self,
        look_up: LookUp,
        currency: str,
        *,
        name: str = "house",
        batch: int = 500,
    ) -> None:
        """Ask `look_up`, whose figures are in `currency`; a campaign that it leaves out is a failure, not a zero."""
        self._look_up = look_up
        self._currency = currency
        self.name = name
        self.batch = batch

    async def fetch(self, ids: Sequence[str], days: Days) -> Mapping[str, CampaignMetrics | SourceFailure]:
        """What the ledger says.

        Raises:
            SourceError: it is away.
        """
        try:
            found = await self._look_up(ids, days)
        except StoreError as error:
            raise SourceError(str(error)) from None
        return {campaign_id: CampaignMetrics(figures, self._currency) for campaign_id, figures in found.items()}

    async def update_bids(self, updates: Sequence[BidUpdate]) -> Sequence[BidResult]:
        """Refuse: a house campaign's bid is changed in its definition."""
        return [BidResult(update, reason="a bid of the house is set by changing its campaign") for update in updates]


def _figures(counters: Counters) -> Figures:
    return Figures(
        counters.impressions,
        counters.clicks,
        counters.conversions * MICROS,
        counters.cost_nanos,
        counters.revenue_nanos,
    )
