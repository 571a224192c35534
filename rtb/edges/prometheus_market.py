"""The market, for a scrape: remote bidders, conversion rates, and the log of auctions to be replayed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from rtb.domain.privacy_tally import told
from rtb.openrtb import NoBid
from rtb.services.bidder_health import BidderReport
from rtb.services.conversion_rates import RatesReport

_COUNTS = ("calls", "bids", "rejected", "no_bids", "timeouts")


@dataclass(frozen=True, slots=True)
class MarketCollector(Collector):
    """Reads these parts when asked. `rates` and `unrecorded` (auctions that the replay log dropped) are None where
    there is nothing to tell."""

    bidders: Callable[[], Sequence[BidderReport]]
    rates: Callable[[], RatesReport] | None
    unrecorded: Callable[[], int] | None
    faults: Callable[[], Mapping[NoBid, int]]

    def collect(self) -> Iterator[Metric]:
        """The families."""
        reports = self.bidders()
        for name in _COUNTS:
            family = CounterMetricFamily(f"rtb_bidder_{name}", f"Remote bidders: {name}.", labels=["bidder"])
            for report in reports:
                family.add_metric([report.name], getattr(report, name))
            yield family
        for name in ("errors", "skipped"):
            family = CounterMetricFamily(
                f"rtb_bidder_{name}_by", f"Remote bidders: {name}.", labels=["bidder", "reason"]
            )
            for report in reports:
                for reason, count in getattr(report, name).items():
                    family.add_metric([report.name, reason], count)
            yield family
        privacy = CounterMetricFamily(
            "rtb_bidder_privacy", "Requests at the privacy gate.", labels=["bidder", "told", "reason"]
        )
        for report in reports:
            for what, reason, count in told(report.calls, report.stripped, report.skipped).counts():
                privacy.add_metric([report.name, what, reason], count)
        yield privacy
        share = GaugeMetricFamily(
            "rtb_bidder_share", "Traffic that a bidder's breaker lets through.", labels=["bidder"]
        )
        for report in reports:
            share.add_metric([report.name], report.share)
        yield share
        if self.rates is not None:
            found = self.rates()
            if found.age_s is not None:
                yield GaugeMetricFamily("rtb_rates_age_seconds", "Age of the conversion rates.", value=found.age_s)
            yield GaugeMetricFamily("rtb_rates_stale", "Whether the rates are too old, or unread.", value=found.stale)
        faults = CounterMetricFamily("rtb_supply_faults", "Requests with a supply chain at fault.", labels=["reason"])
        for reason, count in self.faults().items():
            faults.add_metric([reason.name.lower()], count)
        yield faults
        if self.unrecorded is not None:
            yield CounterMetricFamily(
                "rtb_replay_dropped", "Auctions that the replay log did not keep.", value=self.unrecorded()
            )
