"""Outcomes and latencies of a run. The counters always balance: sent = won + no_bid + timeout + shed + error + lost."""

from __future__ import annotations

from enum import IntEnum

from hdrh.histogram import HdrHistogram

HOUR_US = 3_600_000_000
SIGNIFICANT_DIGITS = 3


class Outcome(IntEnum):
    """What became of a request."""

    WON = 0
    NO_BID = 1
    TIMEOUT = 2
    SHED = 3
    ERROR = 4
    LOST = 5


class Tally:
    """Counts of a run's measured part.

    Latencies are kept as counts by microsecond, which is what a hot path in Python can afford (one dictionary update);
    `histogram` folds them into an HdrHistogram afterwards. They count answers only: what was lost has no latency.
    """

    def __init__(self) -> None:
        """Start at zero."""
        self.sent = 0
        self.counts = [0] * len(Outcome)
        self.reasons: dict[str, int] = {}
        self.latencies_us: dict[int, int] = {}
        self.recent_us: dict[int, int] = {}
        self.lags_us: dict[int, int] = {}

    def record(self, outcome: Outcome, reason: str, latency_ns: int) -> None:
        """One request is over; `reason` tells errors and losses apart."""
        self.counts[outcome] += 1
        if reason:
            self.reasons[reason] = self.reasons.get(reason, 0) + 1
        if outcome is not Outcome.LOST:
            us = latency_ns // 1000
            recent = self.recent_us
            recent[us] = recent.get(us, 0) + 1

    def record_lag(self, lag_ns: int) -> None:
        """A request was noticed to be due that much late: the tool's own fault."""
        us = lag_ns // 1000
        self.lags_us[us] = self.lags_us.get(us, 0) + 1

    def fold(self) -> dict[int, int]:
        """Move the recent latencies to the others; what they were."""
        recent, self.recent_us = self.recent_us, {}
        for us, count in recent.items():
            self.latencies_us[us] = self.latencies_us.get(us, 0) + count
        return recent

    @property
    def over(self) -> int:
        """Requests with an outcome."""
        return sum(self.counts)

    @property
    def answered(self) -> int:
        """Requests with an outcome other than lost."""
        return self.over - self.counts[Outcome.LOST]

    @property
    def balances(self) -> bool:
        """Whether every request sent has exactly one outcome, and every answer a latency."""
        self.fold()
        return self.sent == self.over and sum(self.latencies_us.values()) == self.answered

    def misses(self, deadline_us: int) -> int:
        """Answers that took longer than the deadline."""
        self.fold()
        return sum(count for us, count in self.latencies_us.items() if us > deadline_us)


def histogram(counts_us: dict[int, int]) -> HdrHistogram:
    """The HdrHistogram, 1 us to 1 h at 3 digits, of counts by microsecond."""
    hdr = HdrHistogram(1, HOUR_US, SIGNIFICANT_DIGITS)
    for us, count in counts_us.items():
        hdr.record_value(min(max(us, 1), HOUR_US), count)
    return hdr


def percentile_us(counts_us: dict[int, int], percent: float) -> int:
    """The smallest microsecond that at least `percent` of the counts are at or below; 0 of nothing."""
    rank = -(-sum(counts_us.values()) * percent // 100)
    seen = 0
    for us in sorted(counts_us):
        seen += counts_us[us]
        if seen >= rank:
            return us
    return 0
