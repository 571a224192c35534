"""What alert rules are compared with: the whole system's figures, and campaigns' figures of today."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from rtb.domain.alert import CAMPAIGN_METRICS, SYSTEM_METRICS
from rtb.domain.budget import budget_day
from rtb.domain.campaign import Campaign
from rtb.domain.money import NANOS
from rtb.domain.pacing import Pace
from rtb.domain.performance import Counters
from rtb.domain.snapshot import Snapshot
from rtb.ports import Clock
from rtb.services import topology
from rtb.services.frame_source import MetricsSource
from rtb.services.queue_monitor import QueueReport

__all__ = ["CAMPAIGN_METRICS", "SYSTEM_METRICS", "AlertValues", "campaign_values", "system_values"]


class AlertValues:
    """A callable as `AlertWatch` takes it."""

    def __init__(
        self,
        source: MetricsSource,
        queues: Callable[[], QueueReport],
        figures: Callable[[str, str], Counters],
        campaign: Callable[[str], Campaign | None],
        clock: Clock,
        *,
        pace: Callable[[str], Pace | None] = lambda campaign_id: None,
    ) -> None:
        """`figures` are a campaign's of a date (`Performance.current`)."""
        self._source = source
        self._queues = queues
        self._figures = figures
        self._campaign = campaign
        self._clock = clock
        self._pace = pace

    def __call__(self, campaign_id: str) -> Mapping[str, float | None]:
        """The values now; none of a campaign that is unknown."""
        if not campaign_id:
            return system_values(self._source.latest, self._queues())
        campaign = self._campaign(campaign_id)
        if campaign is None:
            return {}
        today = budget_day(self._clock.time(), campaign.zone)
        return campaign_values(campaign, self._figures(campaign_id, today), self._pace(campaign_id))


def system_values(snapshot: Snapshot, queues: QueueReport) -> Mapping[str, float | None]:
    """By the names of SYSTEM_METRICS; None before the first snapshot or look at the queues."""
    if not snapshot.seq:
        return {}
    rates, latency = snapshot.rates, snapshot.latency
    auctions = rates.auctions
    ready = {row.name: row.ready for row in queues.queues}
    return {
        "auctions_per_s": auctions,
        "bid_rate": snapshot.bid_rate,
        "win_rate": snapshot.win_rate,
        "timeout_rate": rates.timeout / auctions if auctions else None,
        "shed_rate": rates.shed / auctions if auctions else None,
        "latency_p50_ms": latency.p50_ms,
        "latency_p95_ms": latency.p95_ms,
        "latency_p99_ms": latency.p99_ms,
        "latency_p999_ms": latency.p999_ms,
        "loop_lag_max_ms": snapshot.lag.max_ms,
        "spend_per_s": rates.spend_nanos / NANOS,
        "bidder_timeouts_per_s": rates.bidder_timeouts,
        "bidder_errors_per_s": rates.bidder_errors,
        "in_flight": snapshot.in_flight,
        "instances": snapshot.live,
        "stale_instances": snapshot.stale,
        "rss_bytes": snapshot.rss_bytes,
        "queue_ready_max": max(ready.values(), default=None),
        "dead_letters": ready.get(topology.DEAD),
    }


def campaign_values(campaign: Campaign, today: Counters, pace: Pace | None) -> Mapping[str, float | None]:
    """By the names of CAMPAIGN_METRICS; a ratio without a divisor is None."""
    budget = campaign.daily_budget_nanos
    return {
        "wins": today.wins,
        "impressions": today.impressions,
        "clicks": today.clicks,
        "conversions": today.conversions,
        "spend": today.cost_nanos / NANOS,
        "revenue": today.revenue_nanos / NANOS,
        "ctr": today.ctr,
        "cvr": today.cvr,
        "cpm": today.cpm,
        "cpc": today.cpc,
        "cpa": today.cpa,
        "roas": today.roas,
        "budget_share": today.cost_nanos / budget if budget else None,
        "pace": pace.spent_nanos / pace.target_nanos if pace is not None and pace.target_nanos else None,
    }
