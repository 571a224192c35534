"""Seconds of an exchange that a test makes up: so many auctions, all of one duration."""

from __future__ import annotations

from rtb.openrtb import Loss, NoBid
from tests.support.dashboard_site import DashboardSite


def second(site: DashboardSite, *, won: int = 0, no_bid: int = 0, latency_ms: float = 1.0) -> None:
    """Let a second pass with these auctions; each that is won had 4 bids and cost 0.001."""
    metrics = site.world.metrics
    metrics.won += won
    metrics.no_bid += no_bid
    metrics.nbr[NoBid.NO_ELIGIBLE_DEMAND] += no_bid
    metrics.bids += 4 * won
    metrics.wins += won
    metrics.losses[Loss.OUTBID] += 3 * won
    metrics.spend_nanos += won * 1_000_000
    for _ in range(won + no_bid):
        metrics.latency.record(round(latency_ms * 1e6))
    site.world.clock.advance(1.0)
    site.source.tick()
