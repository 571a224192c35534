"""The admin command ``campaigns.metrics``: a campaign's figures from every source, merged."""

from __future__ import annotations

from datetime import date
from typing import Any

from rtb.domain.budget import budget_day
from rtb.domain.money import NANOS
from rtb.domain.source_metrics import Days, Figures, MergedMetrics, Reading
from rtb.edges.admin import Command, given
from rtb.errors import BadRequest
from rtb.ports import Clock
from rtb.services.campaigns import Campaigns
from rtb.services.metric_sources import MetricSources


def metrics_command(sources: MetricSources, catalogue: Campaigns, clock: Clock) -> Command:
    """``campaigns.metrics``: of campaign `id` on dates from `since` to `until` (today)."""

    async def run(arguments: dict[str, Any]) -> Any:
        campaign = catalogue.get(given(arguments, "id", str))
        today = budget_day(clock.time(), campaign.zone)
        try:
            first = date.fromisoformat(given(arguments, "since", str, None) or today)
            last = date.fromisoformat(given(arguments, "until", str, None) or max(today, first.isoformat()))
        except ValueError:
            raise BadRequest("since, until: give dates as in 2026-11-22") from None
        if last < first:
            raise BadRequest("until: must not be before since")
        days = Days(first, last)
        return _merged((await sources.get([campaign.id], days))[campaign.id])

    return run


def _merged(merged: MergedMetrics) -> dict[str, Any]:
    return {
        "id": merged.campaign_id,
        "since": merged.days.first.isoformat(),
        "until": merged.days.last.isoformat(),
        "currency": merged.currency,
        "standing": merged.standing.value,
        "totals": None if merged.totals is None else _figures(merged.totals),
        "sources": [_reading(reading) for reading in merged.readings],
    }


def _reading(reading: Reading) -> dict[str, Any]:
    return {
        "source": reading.source,
        "standing": reading.standing.value,
        "age_s": reading.age_s,
        "reason": reading.reason,
        **({} if reading.figures is None else _figures(reading.figures)),
    }


def _figures(figures: Figures) -> dict[str, Any]:
    """Counts, amounts in units of the exchange currency, and ratios of the sums."""
    return {
        "impressions": figures.impressions,
        "clicks": figures.clicks,
        "conversions": figures.conversions,
        "spend": figures.spend_nanos / NANOS,
        "revenue": figures.revenue_nanos / NANOS,
        "ctr": figures.ctr,
        "cvr": figures.cvr,
        "cpc": figures.cpc,
        "cpm": figures.cpm,
        "roas": figures.roas,
    }
