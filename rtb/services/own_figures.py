"""The house's own ledger as a metric source."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

from rtb.domain.source_metrics import CampaignMetrics, Days, Figures
from rtb.errors import StoreError
from rtb.ports.metric_source import BidResult, BidUpdate, SourceError, SourceFailure


class OwnFigures:
    """What the house's ledger says of its campaigns, by their ids here; implements MetricSource."""

    def __init__(
        self,
        look_up: Callable[[Sequence[str], Days], Awaitable[Mapping[str, Figures]]],
        currency: str,
        *,
        name: str = "house",
        batch: int = 1_000,
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
