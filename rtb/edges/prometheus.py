"""The counters of this process in the Prometheus text format.

They are read when a scrape comes: the hot path pays nothing for being watched. Several instances are scraped one by
one and added up by Prometheus.

Source: https://prometheus.io/docs/practices/naming/ (base units, ``_total`` on counters).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import IntEnum

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from rtb.domain.histogram import Histogram
from rtb.domain.metrics import Counts, reason_name
from rtb.openrtb import Loss, NoBid
from rtb.services.metrics import Metrics
from rtb.services.queue_monitor import QueueReport, Warned

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

_AUCTION_MS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 120, 150, 250, 500, 1000)
_PAUSE_MS = (0.1, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000)
_OUTCOMES = ("won", "no_bid", "timeout", "shed", "invalid")
_PLAIN = (
    ("shed", "rtb_shed", "Auctions refused under load."),
    ("imps", "rtb_imps", "Impressions offered in the auctions."),
    ("bids", "rtb_bids", "Valid bids of all bidders."),
    ("wins", "rtb_wins", "Impressions sold."),
    ("bidder_timeouts", "rtb_bidder_timeouts", "Bidders that did not answer before the auction's deadline."),
    ("bidder_errors", "rtb_bidder_errors", "Bidders that failed or answered nonsense."),
    ("bidder_skips", "rtb_bidder_skips", "Bidders that were not asked, or not waited for."),
    ("consumed", "rtb_queue_consumed", "Queue messages consumed."),
    ("published", "rtb_queue_published", "Queue messages published and confirmed."),
    ("dead_lettered", "rtb_queue_dead_lettered", "Queue messages dead-lettered."),
)
_QUEUE = (
    ("ready", "Messages waiting."),
    ("unacked", "Messages delivered and not acknowledged."),
    ("consumers", "Consumers."),
    ("publish_per_s", "Messages a second in."),
    ("deliver_per_s", "Messages a second out."),
)


def render(metrics: Metrics, queues: QueueReport | None = None, *others: Collector) -> bytes:
    """The answer to a scrape: the counters, the event loop's health, and the process by prometheus-client's names.

    With `queues`, the broker's as last seen by this process; every daemon sees the same ones, so do not add them up.
    `others` have something to tell, too.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_MetricsCollector(metrics))
    if queues is not None:
        registry.register(_QueueCollector(queues))
    for other in others:
        registry.register(other)
    ProcessCollector(registry=registry)
    return generate_latest(registry)


class _MetricsCollector(Collector):
    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        metrics = self._metrics
        counts = metrics.counts()
        auctions = CounterMetricFamily("rtb_auctions", "Bid requests answered, by outcome.", labels=["outcome"])
        for outcome in _OUTCOMES:
            auctions.add_metric([outcome], getattr(counts, outcome))
        yield auctions
        yield _by_reason("rtb_no_bids", "Auctions without a bid, by OpenRTB no-bid reason.", "nbr", NoBid, counts.nbr)
        yield _by_reason("rtb_losses", "Bids that lost, by OpenRTB loss reason.", "reason", Loss, counts.losses)
        for attribute, name, text in _PLAIN:
            yield CounterMetricFamily(name, text, value=getattr(counts, attribute))
        yield CounterMetricFamily(
            "rtb_spend_currency_units",
            "Clearing prices of the impressions sold, in units of the exchange currency.",
            value=counts.spend_nanos / 1e9,
        )
        yield CounterMetricFamily("rtb_queue_retried", "Queue messages to be tried again.", value=metrics.retried)
        yield CounterMetricFamily(
            "rtb_queue_errors", "Queue messages that uncovered a mistake of ours.", value=metrics.message_errors
        )
        yield _profiles(counts)
        yield GaugeMetricFamily("rtb_auctions_in_flight", "Auctions under way.", value=metrics.in_flight)
        yield GaugeMetricFamily("rtb_uptime_seconds", "Time since the start.", value=metrics.uptime_ns / 1e9)
        yield _histogram("rtb_auction_duration_seconds", "Time from arrival to answer.", metrics.latency, _AUCTION_MS)
        yield _histogram(
            "rtb_queue_message_duration_seconds",
            "Time from a message's arrival to its acknowledgement.",
            metrics.message_time,
            _AUCTION_MS,
        )
        yield _histogram("rtb_loop_lag_seconds", "How late the event loop runs its timers.", metrics.lag, _PAUSE_MS)
        yield _histogram("rtb_gc_pause_seconds", "Garbage collections.", metrics.gc_pauses, _PAUSE_MS)


class _QueueCollector(Collector):
    def __init__(self, report: QueueReport) -> None:
        self._report = report

    def collect(self) -> Iterator[Metric]:
        gauges = [GaugeMetricFamily(f"rtb_queue_{name}", text, labels=["queue"]) for name, text in _QUEUE]
        warnings = GaugeMetricFamily("rtb_queue_warning", "1 while there is one.", labels=["queue", "warning"])
        for row in self._report.queues:
            for gauge, (name, _) in zip(gauges, _QUEUE, strict=True):
                value = getattr(row, name)
                if value is not None:
                    gauge.add_metric([row.name], value)
            for warned in Warned:
                warnings.add_metric([row.name, warned.value], float(warned in row.warnings))
        yield from gauges
        yield warnings


def _by_reason(name: str, text: str, label: str, kind: type[IntEnum], counts: Mapping[int, int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=[label, "name"])
    for code in sorted(counts):
        family.add_metric([str(code), reason_name(kind, code)], counts[code])
    return family


def _profiles(counts: Counts) -> Metric:
    family = CounterMetricFamily("rtb_profile_lookups", "Profile lookups, by result.", labels=["result"])
    for result, count in (
        ("hit", counts.profile_hits),
        ("miss", counts.profile_misses),
        ("timeout", counts.profile_timeouts),
    ):
        family.add_metric([result], count)
    return family


def _histogram(name: str, text: str, histogram: Histogram, bounds_ms: tuple[float, ...]) -> Metric:
    """Cumulative buckets; durations within 1/32 below a bound may count above it, never the other way round."""
    counts = histogram.at_most([round(bound * 1e6) for bound in bounds_ms])
    buckets = [(str(bound / 1000), float(count)) for bound, count in zip(bounds_ms, counts, strict=True)]
    buckets.append(("+Inf", float(histogram.count)))
    return HistogramMetricFamily(name, text, buckets=buckets, sum_value=histogram.sum_ns / 1e9)
