"""What comes after the auction, for a scrape: tracked events, refusals, notices, and what waits for the broker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from rtb.services.notices import Notices
from rtb.services.outbox import Outbox
from rtb.services.tracker import Tracker
from rtb.services.tracking import Tracking

_FATES = ("fired", "retried", "failed", "dropped", "refused")


@dataclass(frozen=True, slots=True)
class EventsCollector(Collector):
    """Reads these parts when asked; `caps_unknown` counts frequency caps that were decided without counters."""

    tracker: Tracker
    tracking: Tracking
    notices: Notices | None
    outbox: Outbox
    caps_unknown: Callable[[], int]

    def collect(self) -> Iterator[Metric]:
        """The families, in the order of an event's way."""
        tracker, outbox = self.tracker, self.outbox
        accepted = CounterMetricFamily("rtb_events", "Tracked events accepted by the edge.", labels=["kind"])
        for kind, count in tracker.accepted.items():
            accepted.add_metric([kind], count)
        yield accepted
        refused = CounterMetricFamily(
            "rtb_events_refused", "Tracked events and notices refused by the edge.", labels=["kind", "reason"]
        )
        for (kind, reason), count in tracker.refused.items():
            refused.add_metric([kind, reason], count)
        yield refused
        yield CounterMetricFamily(
            "rtb_events_unsafe", "Events answered before broker or disk had them.", value=tracker.unsafe
        )
        kept_out = CounterMetricFamily("rtb_events_not_counted", "Events charged to nobody.", labels=["reason"])
        for reason, count in self.tracking.refused.items():
            kept_out.add_metric([reason], count)
        yield kept_out
        if self.notices is not None:
            yield from self._notices(self.notices)
        yield CounterMetricFamily(
            "rtb_caps_unknown", "Frequency caps decided without counters.", value=self.caps_unknown()
        )
        yield GaugeMetricFamily("rtb_outbox_waiting", "Messages that wait for the broker.", value=outbox.waiting)
        lost = CounterMetricFamily("rtb_outbox_given_up", "Messages that nobody gets.", labels=["why"])
        for why in ("dropped", "unroutable", "lost"):
            lost.add_metric([why], getattr(outbox, why))
        yield lost

    def _notices(self, notices: Notices) -> Iterator[Metric]:
        fates = CounterMetricFamily("rtb_notices", "Notices to bidders, by fate.", labels=["kind", "fate"])
        for kind, tally in notices.sender.tallies.items():
            for fate in _FATES:
                fates.add_metric([kind.value, fate], getattr(tally, fate))
        yield fates
        yield GaugeMetricFamily("rtb_notices_waiting", "Notices on their way.", value=notices.sender.waiting)
        unknown = CounterMetricFamily("rtb_notices_not_made", "Sales without notices, by why.", labels=["why"])
        for why in ("overlooked", "forgotten"):
            unknown.add_metric([why], getattr(notices, why))
        yield unknown
