"""The scrape, read back by prometheus-client's own parser."""

import random
import time
from collections.abc import Iterator

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from rtb.edges.prometheus import CONTENT_TYPE, render
from rtb.openrtb import Loss, NoBid
from rtb.services.metrics import Metrics
from rtb.services.queue_monitor import QueueReport, QueueRow, Warned


class SystemClock:
    """The real one."""

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()

    def time(self) -> float:
        return time.time()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics("a", SystemClock())


def scrape(metrics: Metrics) -> dict[str, Metric]:
    families: Iterator[Metric] = text_string_to_metric_families(render(metrics).decode())
    return {family.name: family for family in families}


def values(family: Metric, label: str) -> dict[str, float]:
    return {sample.labels[label]: sample.value for sample in family.samples}


def test_counters_and_their_labels(metrics: Metrics) -> None:
    """Outcomes are always all there; reasons appear with number and name once given."""
    metrics.won += 5
    metrics.shed += 2
    metrics.bids += 9
    metrics.bidder_timeouts += 4
    metrics.profile_hits += 1
    metrics.spend_nanos += 2_500_000_000
    metrics.nbr[NoBid.SHED] += 2
    metrics.losses[Loss.OUTBID] += 4
    families = scrape(metrics)
    assert values(families["rtb_auctions"], "outcome") == {"won": 5, "no_bid": 0, "timeout": 0, "shed": 2, "invalid": 0}
    assert [(s.labels, s.value) for s in families["rtb_no_bids"].samples] == [({"nbr": "502", "name": "shed"}, 2)]
    assert [(s.labels, s.value) for s in families["rtb_losses"].samples] == [({"reason": "102", "name": "outbid"}, 4)]
    assert families["rtb_shed"].samples[0].value == 2
    assert families["rtb_bids"].samples[0].value == 9
    assert families["rtb_bidder_timeouts"].samples[0].value == 4
    assert families["rtb_spend_currency_units"].samples[0].value == 2.5
    assert values(families["rtb_profile_lookups"], "result") == {"hit": 1, "miss": 0, "timeout": 0}


def test_duration_histogram_is_cumulative_and_agrees_with_the_durations(metrics: Metrics) -> None:
    """Buckets grow up to the count; none counts a longer duration, nor leaves out one 1/32 below its bound."""
    rng = random.Random(7)
    durations = [int(rng.lognormvariate(16, 1.5)) for _ in range(5_000)]
    for duration in durations:
        metrics.latency.record(duration)
    samples = scrape(metrics)["rtb_auction_duration_seconds"].samples
    buckets = [(float(s.labels["le"]), s.value) for s in samples if s.name.endswith("_bucket")]
    plain = {s.name: s.value for s in samples if not s.name.endswith("_bucket")}
    assert [bound for bound, _ in buckets] == sorted(bound for bound, _ in buckets)
    assert [count for _, count in buckets] == sorted(count for _, count in buckets)
    assert buckets[-1] == (float("inf"), 5_000)
    assert 0.1 in dict(buckets), "the deadline is a bucket bound"
    assert plain["rtb_auction_duration_seconds_count"] == 5_000
    assert plain["rtb_auction_duration_seconds_sum"] == pytest.approx(sum(durations) / 1e9)
    for bound, count in buckets:
        assert count <= sum(duration <= bound * 1e9 for duration in durations)
        assert count >= sum(duration * 33 / 32 <= bound * 1e9 for duration in durations)


def test_names_and_units_follow_the_conventions(metrics: Metrics) -> None:
    """Counters end in _total, everything timed is in seconds, each family has help and a type, and is there once."""
    text = render(metrics).decode()
    families = scrape(metrics)
    for name, family in families.items():
        assert family.documentation, name
        assert text.count(f"# TYPE {name} ") + text.count(f"# TYPE {name}_total ") == 1
        assert family.type != "counter" or all(sample.name.endswith("_total") for sample in family.samples)
        assert not name.endswith(("_ms", "_ns", "_micros", "_nanos"))
    for name in (
        "rtb_loop_lag_seconds",
        "rtb_gc_pause_seconds",
        "process_resident_memory_bytes",
        "process_cpu_seconds",
    ):
        assert name in families
    assert CONTENT_TYPE.startswith("text/plain")


def test_queues_are_told_where_they_are_watched(metrics: Metrics) -> None:
    """As gauges a queue; a rate that nobody tells is left out, a warning is 1 while it lasts."""
    seen = QueueRow("q", 7, 2, 1, 4.5, None, (Warned.WAITING,))
    text = render(metrics, QueueReport(queues=(seen,))).decode()
    assert 'rtb_queue_ready{queue="q"} 7.0' in text
    assert 'rtb_queue_unacked{queue="q"} 2.0' in text
    assert 'rtb_queue_consumers{queue="q"} 1.0' in text
    assert 'rtb_queue_publish_per_s{queue="q"} 4.5' in text
    assert 'rtb_queue_deliver_per_s{queue="q"}' not in text
    assert 'rtb_queue_warning{queue="q",warning="waiting"} 1.0' in text
    assert 'rtb_queue_warning{queue="q",warning="unconsumed"} 0.0' in text
