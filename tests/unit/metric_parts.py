"""Sources that a test plays, and the service over two of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import date

from rtb.adapters.clock import ManualClock
from rtb.domain.money import Rates
from rtb.domain.source_metrics import CampaignMetrics, Days, Figures
from rtb.ports.metric_source import BidResult, BidUpdate, SourceFailure
from rtb.services.metric_sources import MetricSources

TODAY = Days(date(2026, 1, 1), date(2026, 1, 1))
ONE = CampaignMetrics(Figures(1), "USD")


class Platform:
    """A source that a test plays: it tells `told`, when `ready`, or raises `error`."""

    def __init__(self, name: str, batch: int = 2) -> None:
        self.name = name
        self.batch = batch
        self.told: dict[str, CampaignMetrics | SourceFailure] = {}
        self.error: Exception | None = None
        self.ready = asyncio.Event()
        self.ready.set()
        self.asked: list[tuple[str, ...]] = []
        self.arrived = asyncio.Semaphore(0)
        self.inside = self.most = 0
        self.refuse: Callable[[BidUpdate], str] = lambda update: ""

    async def fetch(self, ids: Sequence[str], days: Days) -> Mapping[str, CampaignMetrics | SourceFailure]:
        """Tell."""
        self.asked.append(tuple(ids))
        self.inside += 1
        self.most = max(self.most, self.inside)
        self.arrived.release()
        try:
            await asyncio.sleep(0)
            await self.ready.wait()
        finally:
            self.inside -= 1
        if self.error is not None:
            raise self.error
        return {campaign_id: self.told[campaign_id] for campaign_id in ids if campaign_id in self.told}

    async def update_bids(self, updates: Sequence[BidUpdate]) -> Sequence[BidResult]:
        """Apply, or refuse."""
        self.asked.append(tuple(update.target_id for update in updates))
        await self.ready.wait()
        if self.error is not None:
            raise self.error
        return [self._result(update) for update in updates]

    def _result(self, update: BidUpdate) -> BidResult:
        reason = self.refuse(update)
        return BidResult(update, None if reason else update.bid_nanos, reason)


class Bench:
    """Two sources and what is asked of them."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.one = Platform("one")
        self.two = Platform("two")
        self.ids: dict[str, dict[str, str]] = {name: {"one": f"1{name}", "two": f"2{name}"} for name in "abcde"}
        self.made: list[MetricSources] = []

    def sources(self, **more: object) -> MetricSources:
        """The service over both."""
        rates = Rates("USD", {"EUR": 1.5})
        made = MetricSources(
            [self.one, self.two],
            lambda name: self.ids.get(name, {}),
            rates,
            self.clock,
            **more,  # type: ignore[arg-type]
        )
        self.made.append(made)
        return made

    def tell(self, campaign_id: str, one: CampaignMetrics, two: CampaignMetrics) -> None:
        """Let both know of a campaign."""
        self.one.told[f"1{campaign_id}"] = one
        self.two.told[f"2{campaign_id}"] = two


@asynccontextmanager
async def opened() -> AsyncIterator[Bench]:
    """Two sources; who still asks at the end is sent home."""
    bench = Bench()
    yield bench
    for made in bench.made:
        await made.close()
