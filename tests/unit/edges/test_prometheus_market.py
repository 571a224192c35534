"""Remote bidders, as a scrape reads them."""

from __future__ import annotations

from rtb.adapters.clock import ManualClock
from rtb.domain.bidder_policy import BidderSettings
from rtb.domain.privacy import Reason
from rtb.edges.prometheus_market import MarketCollector
from rtb.openrtb import NoBid
from rtb.services.bidder_health import BidderHealth


def test_what_bidders_were_told_is_counted_with_its_reason() -> None:
    """Of three calls one was whole, one without precise geography, one anonymous; four requests were not sent."""
    clock = ManualClock()
    health = BidderHealth(BidderSettings(name="acme", url="https://acme.test/bid"), clock)
    assert [health.refusal(clock.monotonic_ns()) for _ in range(3)] == [None] * 3
    health.stripped[Reason.GDPR_GEO.value] += 1
    health.stripped[Reason.COPPA.value] += 1
    health.skipped[Reason.US.value] += 4
    health.skipped["country"] += 9
    collector = MarketCollector(lambda: [health.report()], None, None, dict[NoBid, int])
    families = {family.name: family for family in collector.collect()}
    found = {(s.labels["told"], s.labels["reason"]): s.value for s in families["rtb_bidder_privacy"].samples}
    assert found == {
        ("whole", ""): 1,
        ("coarse", "gdpr: no opt-in to precise geolocation"): 1,
        ("anonymous", "coppa"): 1,
        ("not_asked", "us privacy: opted out"): 4,
    }
    skipped = {s.labels["reason"]: s.value for s in families["rtb_bidder_skipped_by"].samples}
    assert skipped == {"us privacy: opted out": 4, "country": 9}
