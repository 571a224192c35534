"""What a dashboard shows of frames: the system or one instance as a snapshot, a point of the charts, a row.

Numbers are rounded to what a person can tell apart: they go to many browsers every second.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

from msgspec import Struct, structs

from rtb.domain.histogram import BUCKETS, MAX_NS, packed_percentiles, upper_ns
from rtb.domain.metrics import Counts, Rates, Reason

_MS = 1e6
_NANOS = 1e9
_HEAT_MS = (
    *(0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100),
    *(150, 200, 500, 1000),
)
HEAT_BOUNDS_MS: Sequence[float] = _HEAT_MS
"""Upper bounds of the buckets of a point's `heat`; one more bucket has no bound."""
_HEAT_NS = [round(bound * _MS) for bound in _HEAT_MS]
_HEAT_OF = [bisect_left(_HEAT_NS, upper_ns(index)) for index in range(BUCKETS)]
MAX_REASONS = 8
"""Reasons a snapshot names of each kind."""


class Spread(Struct, frozen=True, gc=False):
    """The percentiles of a histogram in ms; all None when nothing was recorded."""

    count: int = 0
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    p999_ms: float | None = None
    max_ms: float | None = None


class Snapshot(Struct, frozen=True, gc=False, kw_only=True):
    """The system, or one instance, as a dashboard shows it; amounts in nanos of `currency`.

    `totals` include instances that are gone; rates, spreads and gauges are of the live ones. The counts by reason stand
    in `no_bids` and `losses`, the most frequent of them. `queue_ready` is how many messages wait in queues that
    somebody ought to consume, None where nobody has looked.
    """

    seq: int = 0
    time: float = 0.0
    currency: str = "USD"
    uptime_s: float = 0.0
    live: int = 0
    stale: int = 0
    totals: Counts = Counts()
    rates: Rates = Rates()
    bid_rate: float | None = None
    win_rate: float | None = None
    latency: Spread = Spread()
    lag: Spread = Spread()
    gc_pause_max_ms: float = 0.0
    in_flight: int = 0
    rss_bytes: int = 0
    queue_ready: int | None = None
    no_bids: tuple[Reason, ...] = ()
    losses: tuple[Reason, ...] = ()


class Point(Struct, frozen=True, gc=False, array_like=True):
    """One second of the charts' past. Rates are shares of the auctions (`win_rate`: of the bids), `spend_per_s` units
    of the currency. `heat` is the first of HEAT_BOUNDS_MS in use and the counts from there on, empty without
    auctions."""

    time: float
    auctions_per_s: float
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    p999_ms: float | None
    bid_rate: float | None
    win_rate: float | None
    timeout_rate: float | None
    shed_rate: float | None
    spend_per_s: float
    queue_ready: int | None
    in_flight: int
    lag_max_ms: float | None
    heat: tuple[int, ...]


class InstanceRow(Struct, frozen=True, gc=False, kw_only=True):
    """One instance at a glance. `state` is live, stale (silent for a while) or stopped (it said so), `since` when it
    started, in Unix seconds. Only a live one has rates; `cpu` is the share of a core."""

    instance: str
    pid: int
    host: str
    version: str
    since: float
    state: str
    age_s: float
    auctions_per_s: float = 0.0
    bid_rate: float | None = None
    timeout_rate: float | None = None
    shed_rate: float | None = None
    spend_per_s: float = 0.0
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    lag_max_ms: float | None = None
    cpu: float | None = None
    in_flight: int = 0
    rss_bytes: int = 0


class MinuteReport(Struct, frozen=True, gc=False, kw_only=True):
    """What all instances did in the minute that began at `time` (Unix seconds); `spend` is units of the currency.

    `errors` counts messages that failed by a mistake of ours; `message_p50_ms` and `message_p99_ms` are from arrival to
    acknowledgement.
    """

    time: int
    instances: int
    auctions: int
    won: int
    no_bid: int
    timeout: int
    shed: int
    invalid: int
    bids: int
    wins: int
    spend: float
    bid_rate: float | None
    win_rate: float | None
    timeout_rate: float | None
    shed_rate: float | None
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    p999_ms: float | None
    max_ms: float | None
    consumed: int
    published: int
    retried: int
    dead_lettered: int
    errors: int
    message_p50_ms: float | None
    message_p99_ms: float | None


def spread(packed: Sequence[int]) -> Spread:
    """The percentiles that people ask for, of a packed histogram."""
    count = sum(packed[2::2])
    if not count:
        return Spread()
    return Spread(count, *(_ms(ns) for ns in packed_percentiles(packed, (50, 95, 99, 99.9, 100))))


def heat(packed: Sequence[int]) -> tuple[int, ...]:
    """A packed histogram in the coarse buckets of a heat strip; what may be above a bound counts as above it."""
    counts: dict[int, int] = {}
    for index, count in zip(packed[1::2], packed[2::2], strict=True):
        bucket = _HEAT_OF[index]
        counts[bucket] = counts.get(bucket, 0) + count
    if not counts:
        return ()
    first, last = min(counts), max(counts)
    return (first, *(counts.get(bucket, 0) for bucket in range(first, last + 1)))


def point(
    time: float,
    rates: Rates,
    latency: Sequence[int],
    *,
    spread: Spread,
    lag_max_ms: float | None,
    in_flight: int,
    queue_ready: int | None = None,
) -> Point:
    """What the charts keep of a second in which auctions took `latency` (packed), whose spread is `spread`."""
    return Point(
        time=round(time, 3),
        auctions_per_s=round(rates.auctions, 3),
        p50_ms=spread.p50_ms,
        p95_ms=spread.p95_ms,
        p99_ms=spread.p99_ms,
        p999_ms=spread.p999_ms,
        bid_rate=share(rates.won, rates.auctions),
        win_rate=share(rates.wins, rates.bids),
        timeout_rate=share(rates.timeout, rates.auctions),
        shed_rate=share(rates.shed, rates.auctions),
        spend_per_s=round(rates.spend_nanos / _NANOS, 6),
        queue_ready=queue_ready,
        in_flight=in_flight,
        lag_max_ms=lag_max_ms,
        heat=heat(latency),
    )


def minute_report(
    time: int, instances: int, counts: Counts, latency: Sequence[int], messages: Sequence[int]
) -> MinuteReport:
    """The report of what was counted in a minute; `latency` of auctions and of `messages` are packed histograms."""
    auctions, of_auctions, of_messages = counts.auctions, spread(latency), spread(messages)
    return MinuteReport(
        time=time,
        instances=instances,
        auctions=auctions,
        won=counts.won,
        no_bid=counts.no_bid,
        timeout=counts.timeout,
        shed=counts.shed,
        invalid=counts.invalid,
        bids=counts.bids,
        wins=counts.wins,
        spend=round(counts.spend_nanos / _NANOS, 6),
        bid_rate=share(counts.won, auctions),
        win_rate=share(counts.wins, counts.bids),
        timeout_rate=share(counts.timeout, auctions),
        shed_rate=share(counts.shed, auctions),
        p50_ms=of_auctions.p50_ms,
        p95_ms=of_auctions.p95_ms,
        p99_ms=of_auctions.p99_ms,
        p999_ms=of_auctions.p999_ms,
        max_ms=of_auctions.max_ms,
        consumed=counts.consumed,
        published=counts.published,
        retried=counts.retried,
        dead_lettered=counts.dead_lettered,
        errors=counts.message_errors,
        message_p50_ms=of_messages.p50_ms,
        message_p99_ms=of_messages.p99_ms,
    )


def share(part: float, whole: float) -> float | None:
    """Of a whole, 0 to 1; None of nothing."""
    return round(part / whole, 5) if whole else None


def rounded(rates: Rates) -> Rates:
    """The rates to a thousandth, amounts and times in nanos to one, without those by reason."""
    exact: dict[str, Any] = structs.asdict(rates)
    return Rates(
        **{
            name: round(value, 0 if name.endswith(("_nanos", "_ns")) else 3)
            for name, value in exact.items()
            if name not in ("nbr", "losses")
        }
    )


def _ms(ns: int) -> float:
    """Four digits are more than a histogram tells."""
    return float(f"{min(ns, MAX_NS) / _MS:.4g}")
