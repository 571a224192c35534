"""What alert rules are compared with."""

from __future__ import annotations

from rtb.adapters.clock import ManualClock
from rtb.domain.alert import CAMPAIGN_METRICS, SYSTEM_METRICS
from rtb.domain.pacing import Pace
from rtb.domain.performance import Counters
from rtb.services.alert_values import AlertValues
from rtb.services.frame_source import FrameSource
from rtb.services.metrics import Metrics
from rtb.services.queue_monitor import QueueReport, QueueRow
from tests.unit.parts import campaign


class Parts:
    """Where the values come from."""

    def __init__(self) -> None:
        self.clock = ManualClock()  # 2026-01-01 00:00 UTC, 09:00 in Seoul
        self.metrics = Metrics("a", self.clock)
        self.source = FrameSource(self.metrics, self.clock)
        self.report = QueueReport()
        self.figures: dict[tuple[str, str], Counters] = {}
        self.campaigns = {"c": campaign("c", daily_budget=10.0, timezone="America/New_York"), "free": campaign("free")}
        self.values = AlertValues(
            self.source,
            lambda: self.report,
            lambda id_, date: self.figures.get((id_, date), Counters()),
            self.campaigns.get,
            self.clock,
            pace=lambda id_: Pace(1.0, 3_000_000_000, 2_000_000_000) if id_ == "c" else None,
        )


def test_values_have_the_names_that_rules_may_use() -> None:
    """All of them, and no other."""
    parts = Parts()
    parts.clock.advance(1)
    parts.source.tick()
    assert list(parts.values("")) == list(SYSTEM_METRICS)
    assert list(parts.values("c")) == list(CAMPAIGN_METRICS)


def test_before_anything_was_seen_nothing_is_known() -> None:
    """No snapshot, an unknown campaign, no auction, no look at the queues: unknown, not zero."""
    parts = Parts()
    assert dict(parts.values("")) == {}
    assert dict(parts.values("gone")) == {}
    parts.clock.advance(1)
    parts.source.tick()
    values = parts.values("")
    assert values["auctions_per_s"] == 0.0
    assert {values[name] for name in ("timeout_rate", "bid_rate", "latency_p99_ms", "queue_ready_max")} == {None}


def test_the_system_by_the_second() -> None:
    """8 auctions in a second: 2 late, 1 shed; 0.5 spent; the fullest queue holds 7."""
    parts = Parts()
    parts.metrics.won, parts.metrics.no_bid, parts.metrics.timeout, parts.metrics.shed = 4, 1, 2, 1
    parts.metrics.spend_nanos = 500_000_000
    parts.report = QueueReport(
        1.0, (QueueRow("ad.wins", 7, 0, 1, None, None), QueueRow("ad.dead", 3, 0, 0, None, None))
    )
    parts.clock.advance(1)
    parts.source.tick()
    values = parts.values("")
    assert (values["auctions_per_s"], values["timeout_rate"], values["shed_rate"], values["bid_rate"]) == (
        8.0,
        0.25,
        0.125,
        0.5,
    )
    assert (values["spend_per_s"], values["queue_ready_max"], values["dead_letters"], values["instances"]) == (
        0.5,
        7,
        3,
        1,
    )


def test_a_campaign_by_its_own_day() -> None:
    """In New York it is still the day before; 2.5 of a budget of 10 is a quarter."""
    parts = Parts()
    parts.figures["c", "2025-12-31"] = Counters(20, 10, 2, 1, 2_500_000_000, 5_000_000_000)
    parts.figures["c", "2026-01-01"] = Counters(99, 99, 99, 99, 99, 99)
    values = parts.values("c")
    assert (values["wins"], values["spend"], values["budget_share"], values["pace"]) == (20, 2.5, 0.25, 1.5)
    assert (values["ctr"], values["roas"], values["cpa"]) == (0.2, 2.0, 2.5)
    free = parts.values("free")
    assert (free["spend"], free["budget_share"], free["pace"], free["ctr"]) == (0.0, None, None, None)
