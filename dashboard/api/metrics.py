"""A campaign's figures, from every source and from the ledger."""

from __future__ import annotations

from aiohttp import web

from dashboard.answers import CampaignMetricsAnswer, DayRow, FiguresRow, SourceRow
from dashboard.api.requests import DAYS, ID, Route, answer, days, get, id_of
from rtb.domain.budget import budget_day
from rtb.domain.money import NANOS
from rtb.domain.performance import Counters, total
from rtb.domain.source_metrics import Figures
from rtb.ports import Clock
from rtb.services.campaigns import Campaigns
from rtb.services.metric_sources import MetricSources
from rtb.services.performance import Performance


class MetricsResource:
    """``/api/metrics/{id}``."""

    def __init__(self, catalogue: Campaigns, performance: Performance, sources: MetricSources, clock: Clock) -> None:
        """See `Api`."""
        self._catalogue = catalogue
        self._performance = performance
        self._sources = sources
        self._clock = clock

    def routes(self) -> list[Route]:
        """One campaign's."""
        of_campaign = get(
            "/api/metrics/{id}",
            "A campaign's figures from every source, merged.",
            CampaignMetricsAnswer,
            parameters=[ID, *DAYS],
            refusals=(400, 404, 503),
        )
        return [(of_campaign, self._of_campaign)]

    async def _of_campaign(self, request: web.Request) -> web.Response:
        campaign = self._catalogue.get(id_of(request))
        asked = days(request, budget_day(self._clock.time(), campaign.zone))
        since, until = asked.first.isoformat(), asked.last.isoformat()
        parts = await self._performance.stats(campaign.id, since, until)
        merged = (await self._sources.get([campaign.id], asked))[campaign.id]
        by_day: dict[str, list[Counters]] = {}
        for part in parts:
            by_day.setdefault(part.date, []).append(part.counters)
        sums = [(day, total(counters)) for day, counters in sorted(by_day.items())]
        return answer(
            CampaignMetricsAnswer(
                campaign_id=campaign.id,
                since=since,
                until=until,
                currency=merged.currency,
                standing=merged.standing.value,
                totals=None if merged.totals is None else _merged_figures(merged.totals),
                sources=[
                    SourceRow(
                        source=reading.source,
                        standing=reading.standing.value,
                        age_s=reading.age_s,
                        reason=reading.reason,
                        figures=None if reading.figures is None else _merged_figures(reading.figures),
                    )
                    for reading in merged.readings
                ],
                days=[DayRow(day, counters.wins, _ledger_figures(counters)) for day, counters in sums],
            )
        )


def _merged_figures(figures: Figures) -> FiguresRow:
    return FiguresRow(
        impressions=figures.impressions,
        clicks=figures.clicks,
        conversions=figures.conversions,
        spend=figures.spend_nanos / NANOS,
        revenue=figures.revenue_nanos / NANOS,
        ctr=figures.ctr,
        cvr=figures.cvr,
        cpc=figures.cpc,
        cpm=figures.cpm,
        roas=figures.roas,
    )


def _ledger_figures(counters: Counters) -> FiguresRow:
    return FiguresRow(
        impressions=counters.impressions,
        clicks=counters.clicks,
        conversions=counters.conversions,
        spend=counters.cost_nanos / NANOS,
        revenue=counters.revenue_nanos / NANOS,
        ctr=counters.ctr,
        cvr=counters.cvr,
        cpc=counters.cpc,
        cpm=counters.cpm,
        roas=counters.roas,
    )
