"""What was last told of campaigns, and why there is nothing newer."""

from __future__ import annotations

from collections import OrderedDict

from msgspec import Struct

from rtb.domain.money import Rates
from rtb.domain.source_metrics import CampaignMetrics, Days, Figures, Reading, Standing, Told, converted
from rtb.ports import Clock
from rtb.ports.metric_source import SourceFailure

NS = 1_000_000_000


class _Kept(Struct, gc=False):
    """Of one campaign at one source: the last figures, and the reason of a failure since."""

    figures: Figures | None = None
    got_ns: int = 0
    tried_ns: int = 0
    reason: str = ""


class KeptMetrics:
    """The last figures of each campaign and range of days at each source, in the currency of `rates`.

    With more than `keep` campaigns and ranges, those that were told longest ago are forgotten, and then unknown.
    """

    def __init__(self, rates: Rates, clock: Clock, *, fresh_s: float, retry_s: float, keep: int) -> None:
        """Figures are fresh for `fresh_s`; what failed is due again after `retry_s`."""
        self._rates = rates
        self._clock = clock
        self._fresh_ns = round(fresh_s * NS)
        self._retry_ns = round(retry_s * NS)
        self._keep = keep
        self._kept: OrderedDict[tuple[str, Days], dict[str, _Kept]] = OrderedDict()

    def note(self, campaign_id: str, days: Days, source: str, outcome: CampaignMetrics | SourceFailure) -> None:
        """Remember what a source told. A failure leaves the figures as they are."""
        of_campaign = self._kept.setdefault((campaign_id, days), {})
        self._kept.move_to_end((campaign_id, days))
        kept = of_campaign.setdefault(source, _Kept())
        kept.tried_ns = self._clock.monotonic_ns()
        if isinstance(outcome, SourceFailure):
            kept.reason = outcome.reason
        elif not self._rates.knows(outcome.currency):
            kept.reason = f"there is no exchange rate for {outcome.currency}"
        else:
            kept.figures, kept.got_ns, kept.reason = converted(outcome, self._rates), kept.tried_ns, ""

    def recall(self, told: Told) -> None:
        """Remember what was told before this process began, unless there is something newer."""
        if (told.campaign_id, told.days) in self._kept and told.source in self._kept[told.campaign_id, told.days]:
            return
        self.note(told.campaign_id, told.days, told.source, told.metrics)
        kept = self._kept[told.campaign_id, told.days][told.source]
        kept.got_ns = kept.tried_ns = kept.tried_ns - round(max(self._clock.time() - told.told_at, 0.0) * NS)

    def is_due(self, campaign_id: str, days: Days, source: str) -> bool:
        """Whether to ask the source: it was not asked yet, or too long ago."""
        kept = self._kept.get((campaign_id, days), {}).get(source)
        if kept is None:
            return True
        patience_ns = self._retry_ns if kept.reason else self._fresh_ns
        return self._clock.monotonic_ns() - kept.tried_ns >= patience_ns

    def reading(self, campaign_id: str, days: Days, source: str, away: str = "") -> Reading:
        """What is known now; `away` is why the source has not been asked, when it has not."""
        kept = self._kept.get((campaign_id, days), {}).get(source)
        if kept is None:
            return Reading(source, Standing.UNKNOWN, reason=away or "not fetched yet")
        if kept.figures is None:
            return Reading(source, Standing.UNKNOWN, reason=kept.reason)
        age_ns = self._clock.monotonic_ns() - kept.got_ns
        reason = kept.reason
        if not reason and age_ns > self._fresh_ns:
            reason = away or "not asked for again since"
        return Reading(source, Standing.STALE if reason else Standing.FRESH, kept.figures, age_ns / NS, reason)

    def forget(self) -> None:
        """Let go of what is too much."""
        while len(self._kept) > self._keep:
            self._kept.popitem(last=False)
