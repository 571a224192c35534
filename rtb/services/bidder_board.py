"""How the remote bidders do, over all instances: counters added up, rates of the last second and of the last minute."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

from msgspec import Struct

from rtb.domain.breaker import State
from rtb.domain.histogram import PackedSum
from rtb.domain.metrics import BidderCounts, BidderTally, Frame
from rtb.domain.privacy_tally import Told, told
from rtb.domain.snapshot import share, spread
from rtb.ports import Clock

SLOTS, SLOT_S = 12, 5
"""The last minute, in pieces."""
_NANOS = _SECOND = 1e9
_WORST_FIRST = (State.OPEN.value, State.HALF_OPEN.value, State.CLOSED.value)
_SUMS = ("calls", "answers", "bids", "rejected", "no_bids", "wins", "spend_nanos", "timeouts")


class BidderRow(BidderCounts, frozen=True, gc=False, kw_only=True):
    """A remote bidder over all live instances. Counters are since it was configured there; the rates a second are of
    the last one, shares and percentiles of the last minute: bids a call, wins a bid, timeouts and errors a call.

    `state` and `share` are the worst of all breakers; `states` names the instances where one is not closed. `spend` is
    units of the exchange currency. `privacy` tells what became of requests at the privacy gate.
    """

    states: dict[str, str]
    spend: float
    privacy: Told
    calls_per_s: float
    bids_per_s: float
    timeouts_per_s: float
    errors_per_s: float
    skipped_per_s: float
    bid_rate: float | None
    win_rate: float | None
    timeout_rate: float | None
    error_rate: float | None
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None


class _Change:
    """What happened between two tallies of one bidder, or in several such times."""

    __slots__ = ("bids", "calls", "errors", "latency", "skipped", "timeouts", "wins")

    def __init__(self) -> None:
        self.calls = self.bids = self.wins = self.timeouts = self.errors = self.skipped = 0
        self.latency = PackedSum()

    def add(self, before: BidderTally | None, after: BidderTally) -> None:
        """A bidder that was configured anew counts from 0 again."""
        if before is None or after.calls < before.calls:
            before = BidderTally(name=after.name)
        self.calls += after.calls - before.calls
        self.bids += max(after.bids - before.bids, 0)
        self.wins += max(after.wins - before.wins, 0)
        self.timeouts += max(after.timeouts - before.timeouts, 0)
        self.errors += max(sum(after.errors.values()) - sum(before.errors.values()), 0)
        self.skipped += max(sum(after.skipped.values()) - sum(before.skipped.values()), 0)
        self.latency.add(after.latency)

    def include(self, other: _Change) -> None:
        """Have happened besides."""
        self.calls += other.calls
        self.bids += other.bids
        self.wins += other.wins
        self.timeouts += other.timeouts
        self.errors += other.errors
        self.skipped += other.skipped
        self.latency.add(other.latency.pack())


class _PerSecond(Struct, frozen=True, gc=False):
    calls: float
    bids: float
    timeouts: float
    errors: float
    skipped: float


class BidderBoard:
    """Takes frames in, and makes rows of what they say about bidders."""

    def __init__(self, clock: Clock) -> None:
        """None yet."""
        self._clock = clock
        self._lately: dict[str, deque[tuple[int, _Change]]] = {}
        self._rates: dict[str, dict[str, _PerSecond]] = {}

    def receive(self, before: Frame, after: Frame) -> None:
        """Take in a frame and the one before it; where they are the same, nothing is known of what happened."""
        if not after.bidders or before is after or after.stopping:
            self._rates.pop(after.instance, None)
            return
        earlier = {tally.name: tally for tally in before.bidders}
        seconds = (after.uptime_ns - before.uptime_ns) / _SECOND
        found = self._rates[after.instance] = {}
        slot = self._clock.monotonic_ns() // (SLOT_S * 1_000_000_000)
        for tally in after.bidders:
            change = _Change()
            change.add(earlier.get(tally.name), tally)
            counts = (change.calls, change.bids, change.timeouts, change.errors, change.skipped)
            found[tally.name] = _PerSecond(*(count / seconds for count in counts))
            slots = self._lately.setdefault(tally.name, deque(maxlen=SLOTS))
            if not slots or slots[-1][0] != slot:
                slots.append((slot, _Change()))
            slots[-1][1].include(change)

    def rows(self, frames: Iterable[Frame]) -> tuple[BidderRow, ...]:
        """Of the bidders in the newest frames of the live instances, ordered by name."""
        tallies: dict[str, dict[str, BidderTally]] = {}
        for frame in frames:
            for tally in frame.bidders:
                tallies.setdefault(tally.name, {})[frame.instance] = tally
        self._lately = {name: slots for name, slots in self._lately.items() if name in tallies}
        return tuple(self._row(name, tallies[name]) for name in sorted(tallies))

    def _row(self, name: str, tallies: Mapping[str, BidderTally]) -> BidderRow:
        of_all = tallies.values()
        sums = {field: sum(getattr(tally, field) for tally in of_all) for field in _SUMS}
        spend = sums.pop("spend_nanos") / _NANOS
        per_s = [found[name] for instance in tallies if name in (found := self._rates.get(instance, {}))]
        minute = self._minute(name)
        times = spread(minute.latency.pack())
        skipped = _by_reason(tally.skipped for tally in of_all)
        return BidderRow(
            name=name,
            state=next((state for state in _WORST_FIRST if any(tally.state == state for tally in of_all)), "closed"),
            states={
                instance: tally.state
                for instance, tally in sorted(tallies.items())
                if tally.state != State.CLOSED.value
            },
            share=round(min(tally.share for tally in of_all), 4),
            in_flight=sum(tally.in_flight for tally in of_all),
            **sums,
            spend=round(spend, 6),
            errors=_by_reason(tally.errors for tally in of_all),
            skipped=skipped,
            privacy=told(sums["calls"], _by_reason(tally.stripped for tally in of_all), skipped),
            calls_per_s=round(sum(rate.calls for rate in per_s), 3),
            bids_per_s=round(sum(rate.bids for rate in per_s), 3),
            timeouts_per_s=round(sum(rate.timeouts for rate in per_s), 3),
            errors_per_s=round(sum(rate.errors for rate in per_s), 3),
            skipped_per_s=round(sum(rate.skipped for rate in per_s), 3),
            bid_rate=share(minute.bids, minute.calls),
            win_rate=share(minute.wins, minute.bids),
            timeout_rate=share(minute.timeouts, minute.calls),
            error_rate=share(minute.errors, minute.calls),
            p50_ms=times.p50_ms,
            p95_ms=times.p95_ms,
            p99_ms=times.p99_ms,
        )

    def _minute(self, name: str) -> _Change:
        oldest = self._clock.monotonic_ns() // (SLOT_S * 1_000_000_000) - SLOTS
        total = _Change()
        for slot, change in self._lately.get(name, ()):
            if slot > oldest:
                total.include(change)
        return total


def _by_reason(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The sums, the most frequent first."""
    total: dict[str, int] = {}
    for part in parts:
        for reason, count in part.items():
            total[reason] = total.get(reason, 0) + count
    return dict(sorted(total.items(), key=lambda item: (-item[1], item[0])))
