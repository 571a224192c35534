"""How each remote bidder does, and whether to ask it now: its counters, its breaker, its limits."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from rtb.domain.bidder_policy import BidderSettings, Skip, TokenBucket
from rtb.domain.breaker import Breaker, State
from rtb.domain.histogram import Histogram
from rtb.domain.metrics import BidderCounts, BidderTally
from rtb.ports import Clock

_CLOSED = State.CLOSED  # a member of an enum costs ten times a name
_MOST_UNSORTED = 1_000
"""Latencies that wait to be counted together, which takes a fraction of counting each."""


class BidderReport(BidderCounts, frozen=True, gc=False, kw_only=True):
    """What an operator sees of a bidder; times are milliseconds."""

    stripped: dict[str, int]
    p50_ms: float
    p99_ms: float


class BidderHealth:
    """Counters of one bidder, incremented in place, and the gate before it."""

    __slots__ = (
        "_bucket",
        "_clock",
        "_latencies",
        "_latency",
        "_latency_seen",
        "_most",
        "answers",
        "bids",
        "breaker",
        "calls",
        "errors",
        "in_flight",
        "name",
        "no_bids",
        "rejected",
        "skipped",
        "spend_nanos",
        "stripped",
        "timeouts",
        "wins",
    )

    def __init__(self, settings: BidderSettings, clock: Clock) -> None:
        """Healthy."""
        self.name = settings.name
        self._clock = clock
        self.breaker = Breaker(settings.breaker)
        self._bucket = TokenBucket(settings.qps) if settings.qps else None
        self._most = settings.max_in_flight
        self.in_flight = self.calls = self.answers = self.timeouts = 0
        self.bids = self.rejected = self.no_bids = self.wins = self.spend_nanos = 0
        self.errors: defaultdict[str, int] = defaultdict(int)
        self.skipped: defaultdict[str, int] = defaultdict(int)
        self.stripped: defaultdict[str, int] = defaultdict(int)
        """How often it was told less than the request says, by the reason."""
        self._latencies: list[int] = []
        self._latency = Histogram()
        self._latency_seen = Histogram()

    def refusal(self, now_ns: int) -> Skip | None:
        """Why not to ask it now; None counts a call as begun."""
        if self.in_flight >= self._most:
            return Skip.IN_FLIGHT
        breaker = self.breaker
        if (breaker.bad or breaker.state is not _CLOSED) and not breaker.admits(now_ns):
            return Skip.BREAKER
        if self._bucket is not None and not self._bucket.takes(now_ns):
            return Skip.QPS
        self.in_flight += 1
        self.calls += 1
        return None

    def ended(self) -> None:
        """A call is over, whatever came of it: that is told by one of the next three, now or once it is read."""
        self.in_flight -= 1

    def answered(self, now_ns: int, latency_ns: int, bids: int, rejected: int) -> None:
        """It answered in time, with so many valid and invalid bids."""
        self.answers += 1
        self._latencies.append(latency_ns)
        if len(self._latencies) >= _MOST_UNSORTED:
            self._sort_latencies()
        if bids or rejected:
            self.bids += bids
            self.rejected += rejected
        else:
            self.no_bids += 1
        self.breaker.record(now_ns, False)

    def timed_out(self, now_ns: int) -> None:
        """It did not answer in time."""
        self.timeouts += 1
        self.breaker.record(now_ns, True)

    def failed(self, now_ns: int, kind: str) -> None:
        """It answered wrongly or not at all; `kind` is one of a few words."""
        self.errors[kind] += 1
        self.breaker.record(now_ns, True)

    def won(self, cost_nanos: int) -> None:
        """One of its bids won and pays this."""
        self.wins += 1
        self.spend_nanos += cost_nanos

    def tally(self) -> BidderTally:
        """Counters until now, and the latencies since the tally before. One caller only, or both lose."""
        latency = self._sort_latencies().copy()
        tally = BidderTally(
            **self._counts(),
            spend_nanos=self.spend_nanos,
            stripped=dict(self.stripped),
            latency=latency.packed_since(self._latency_seen),
        )
        self._latency_seen = latency
        return tally

    def report(self) -> BidderReport:
        """The counters as an immutable value."""
        latency = self._sort_latencies()
        return BidderReport(
            **self._counts(),
            stripped=dict(self.stripped),
            p50_ms=latency.percentile(50) / 1e6,
            p99_ms=latency.percentile(99) / 1e6,
        )

    def _counts(self) -> dict[str, Any]:
        """What a `BidderCounts` says."""
        return {
            "name": self.name,
            "state": self.breaker.state.value,
            "share": round(self.breaker.share(self._clock.monotonic_ns()), 4),
            "in_flight": self.in_flight,
            "calls": self.calls,
            "answers": self.answers,
            "bids": self.bids,
            "rejected": self.rejected,
            "no_bids": self.no_bids,
            "wins": self.wins,
            "timeouts": self.timeouts,
            "errors": dict(self.errors),
            "skipped": dict(self.skipped),
        }

    def _sort_latencies(self) -> Histogram:
        """The histogram, with those in it that were not yet."""
        self._latency.record_all(self._latencies)
        self._latencies.clear()
        return self._latency
