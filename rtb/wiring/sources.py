"""Metrics of campaigns from elsewhere: the platforms that the settings name, beside the house's own ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from rtb.adapters.facebook_insights import FacebookInsights
from rtb.adapters.google_ads import GoogleAds
from rtb.adapters.google_token import GoogleToken
from rtb.adapters.outgoing_http import OutgoingHttp
from rtb.adapters.sql_told_figures import SqlToldFigures
from rtb.domain.campaign import Status
from rtb.domain.source_metrics import Days
from rtb.ports.metric_source import MetricSource
from rtb.services.figure_memory import FigureMemory
from rtb.services.metric_refresh import MetricRefresh
from rtb.services.metric_sources import MetricSources
from rtb.services.own_figures import OwnFigures, in_ledger
from rtb.services.request_gate import IN_FLIGHT, Gate
from rtb.wiring.ground import Ground


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """The sources, and what keeps them fresh; nothing is started, and `refresh` and
    `memory` are None when nobody wants them."""

    sources: MetricSources
    refresh: MetricRefresh | None
    memory: FigureMemory | None
    http: OutgoingHttp

    async def start(self) -> None:
        """Bring back what was told before, and begin to fetch ahead, where that is wanted."""
        if self.memory is not None:
            await self.memory.start()
        if self.refresh is not None:
            await self.refresh.start()

    async def stop(self) -> None:
        """End; what is under way is not waited for."""
        if self.refresh is not None:
            await self.refresh.stop()
        await self.sources.close()
        if self.memory is not None:
            await self.memory.stop()
        await self.http.close()


def elsewhere(ground: Ground) -> Elsewhere:
    """The sources that the settings name."""
    settings, clock, rates, late = ground.settings, ground.clock, ground.rates, ground.late
    http = OutgoingHttp()
    given = settings.sources
    overall = asyncio.Semaphore(IN_FLIGHT)
    sources: list[MetricSource] = []
    facebook, google = settings.facebook, settings.google
    if facebook.token:
        sources.append(
            FacebookInsights(
                http,
                Gate(clock, overall, in_flight=given.in_flight, per_second=given.per_second),
                token=facebook.token,
                app_secret=facebook.app_secret,
                currency=facebook.currency,
                click_field=facebook.click_field,
                conversion=facebook.conversion,
            )
        )
    if google.customer_id:
        gate = Gate(clock, overall, in_flight=given.in_flight, per_second=given.per_second)
        token = GoogleToken(
            http,
            gate,
            clock,
            client_id=google.client_id,
            client_secret=google.client_secret,
            refresh_token=google.refresh_token,
        )
        sources.append(
            GoogleAds(
                http,
                gate,
                access_token=token,
                developer_token=google.developer_token,
                customer_id=google.customer_id,
                login_customer_id=google.login_customer_id,
                currency=google.currency,
                bid_unit_micros=google.bid_unit_micros,
            )
        )

    def external_ids(campaign_id: str) -> Mapping[str, str]:
        campaign = late.campaign(campaign_id)
        return (campaign.external_ids or {}) if campaign is not None else {}

    def watched() -> tuple[list[str], Days]:
        today = datetime.fromtimestamp(clock.time(), UTC).date()
        running = [one.id for one in late.house.campaigns() if one.external_ids and one.status is Status.ACTIVE]
        return running, Days(today, today)

    house = OwnFigures(in_ledger(ground.out.ledger), rates.currency)
    merged = MetricSources(sources, external_ids, rates, clock, house=house, keep=given.keep)
    refresh = MetricRefresh(merged, watched, interval_s=given.refresh_s) if given.refresh_s and sources else None
    memory = FigureMemory(SqlToldFigures(ground.out.database), merged, clock, keep=given.keep) if sources else None
    return Elsewhere(merged, refresh, memory, http)
