"""What an instance tells about itself each second, and what follows from it: frames, their merge, rates.

A `Frame` carries counters that only grow since the process started, so a lost frame loses nothing, and histograms of
its own second. Merging adds counters and histograms; a percentile is read from merged counts and never averaged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta, Struct

from rtb.domain.histogram import Histogram, merge_packed
from rtb.errors import Malformed

__all__ = [
    "COUNTERS",
    "About",
    "BidderTally",
    "Counts",
    "Frame",
    "Histogram",
    "Rates",
    "Reason",
    "add_counts",
    "add_rates",
    "counts_between",
    "decode",
    "encode",
    "merge",
    "rates",
    "reason_name",
    "reasons",
]

Count = Annotated[int, Meta(ge=0)]
_Number = TypeVar("_Number", int, float)


class Counts(Struct, frozen=True, gc=False, omit_defaults=True):
    """Counters since the process started.

    An auction is a request that was answered, by one outcome: won (at least one bid went back), no_bid, timeout (all
    bidders were late), shed (refused under load), invalid (HTTP 400). imps are the impressions offered in them, bids
    the valid bids of all bidders, wins the imps sold. spend_nanos is the clearing prices of the wins, in nanos of the
    exchange currency. consumed, published, retried, dead_lettered count queue messages, message_errors those that
    failed by a mistake of ours; nbr and losses count by reason code.
    """

    won: Count = 0
    no_bid: Count = 0
    timeout: Count = 0
    shed: Count = 0
    invalid: Count = 0
    imps: Count = 0
    bids: Count = 0
    wins: Count = 0
    bidder_timeouts: Count = 0
    bidder_errors: Count = 0
    bidder_skips: Count = 0
    spend_nanos: Count = 0
    profile_hits: Count = 0
    profile_misses: Count = 0
    profile_timeouts: Count = 0
    consumed: Count = 0
    published: Count = 0
    retried: Count = 0
    dead_lettered: Count = 0
    message_errors: Count = 0
    gc_pauses: Count = 0
    gc_pause_ns: Count = 0
    nbr: dict[int, Count] = {}
    losses: dict[int, Count] = {}

    @property
    def auctions(self) -> int:
        """Requests answered, whatever the outcome."""
        return self.won + self.no_bid + self.timeout + self.shed + self.invalid


COUNTERS = tuple(name for name in Counts.__struct_fields__ if name not in ("nbr", "losses"))
"""The names of the plain counters, in the order of the fields."""


class About(Struct, frozen=True, gc=False, omit_defaults=True):
    """Where an instance runs, and since when (Unix seconds)."""

    pid: Count = 0
    host: Annotated[str, Meta(max_length=255)] = ""
    version: Annotated[str, Meta(max_length=64)] = ""
    since: float = 0.0


class BidderCounts(Struct, frozen=True, gc=False, kw_only=True):
    """What a bidder did since it was configured.

    `answers` came in time; `bids` are the valid, `rejected` the invalid ones in them, `no_bids` answers without either.
    `errors` and `skipped` (not asked) count by reason. `state` and `share` (of the traffic that it lets through) are
    the breaker's.
    """

    name: Annotated[str, Meta(min_length=1, max_length=64)]
    state: Annotated[str, Meta(max_length=16)] = "closed"
    share: float = 1.0
    in_flight: int = 0
    calls: Count = 0
    answers: Count = 0
    bids: Count = 0
    rejected: Count = 0
    no_bids: Count = 0
    wins: Count = 0
    timeouts: Count = 0
    errors: dict[str, Count] = {}
    skipped: dict[str, Count] = {}


class BidderTally(BidderCounts, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """What an instance knows of one bidder.

    `stripped` counts by reason how often it was told less than the request says. `latency` is a packed histogram of
    answers since the tally before.
    """

    spend_nanos: Count = 0
    stripped: dict[str, Count] = {}
    latency: tuple[int, ...] = ()


class Frame(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """One instance at one moment; merged, the whole system.

    `time` is Unix seconds; `uptime_ns` runs on the instance's own monotonic clock, and only its differences are used.
    `latency` (auctions), `lag` (how late the event loop ran its timers) and `message_time` (of queue messages, from
    arrival to acknowledgement) are packed histograms of the time since the frame before, as is `gc_pause_max_ns`.
    `cpu_ns` is the processor time used since the start. The last frame says that the instance is `stopping`.
    """

    instance: Annotated[str, Meta(min_length=1, max_length=200)]
    seq: Count
    time: float
    uptime_ns: Count
    counts: Counts = Counts()
    latency: tuple[int, ...] = ()
    lag: tuple[int, ...] = ()
    message_time: tuple[int, ...] = ()
    gc_pause_max_ns: Count = 0
    in_flight: int = 0
    rss_bytes: Count = 0
    cpu_ns: Count = 0
    about: About = About()
    bidders: tuple[BidderTally, ...] = ()
    stopping: bool = False


class Rates(Struct, frozen=True, gc=False):
    """Per second, by the names of `Counts`; they add up over instances."""

    auctions: float = 0.0
    won: float = 0.0
    no_bid: float = 0.0
    timeout: float = 0.0
    shed: float = 0.0
    invalid: float = 0.0
    imps: float = 0.0
    bids: float = 0.0
    wins: float = 0.0
    bidder_timeouts: float = 0.0
    bidder_errors: float = 0.0
    bidder_skips: float = 0.0
    spend_nanos: float = 0.0
    profile_hits: float = 0.0
    profile_misses: float = 0.0
    profile_timeouts: float = 0.0
    consumed: float = 0.0
    published: float = 0.0
    retried: float = 0.0
    dead_lettered: float = 0.0
    message_errors: float = 0.0
    gc_pauses: float = 0.0
    gc_pause_ns: float = 0.0
    nbr: dict[int, float] = {}
    losses: dict[int, float] = {}

    @property
    def bid_rate(self) -> float | None:
        """The share of auctions answered with a bid, None without auctions."""
        return self.won / self.auctions if self.auctions else None

    @property
    def win_rate(self) -> float | None:
        """The share of bids that won their imp, None without bids."""
        return self.wins / self.bids if self.bids else None


class Reason(Struct, frozen=True, gc=False):
    """How often a reason was given: since the start, and per second."""

    code: int
    name: str
    total: int
    per_s: float


_decoder = msgspec.json.Decoder(Frame)
_encoder = msgspec.json.Encoder()


def encode(frame: Frame) -> bytes:
    """The JSON of a frame, zeros left out."""
    return _encoder.encode(frame)


def decode(data: bytes) -> Frame:
    """A frame from its JSON.

    Raises:
        Malformed: it is not one; the message says where.
    """
    try:
        frame = _decoder.decode(data)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise Malformed(f"frame: {error}") from None
    for packed in (frame.latency, frame.lag, frame.message_time, *(tally.latency for tally in frame.bidders)):
        Histogram.unpack(packed)
    return frame


def merge(frames: Sequence[Frame], instance: str = "system") -> Frame:
    """One frame for several instances: counters, histograms, in-flight, memory and processor time add; pauses take the
    longest. What is each one's own is left out."""
    return Frame(
        instance=instance,
        seq=max((frame.seq for frame in frames), default=0),
        time=max((frame.time for frame in frames), default=0.0),
        uptime_ns=max((frame.uptime_ns for frame in frames), default=0),
        counts=add_counts([frame.counts for frame in frames]),
        latency=merge_packed(frame.latency for frame in frames),
        lag=merge_packed(frame.lag for frame in frames),
        message_time=merge_packed(frame.message_time for frame in frames),
        gc_pause_max_ns=max((frame.gc_pause_max_ns for frame in frames), default=0),
        in_flight=sum(frame.in_flight for frame in frames),
        rss_bytes=sum(frame.rss_bytes for frame in frames),
        cpu_ns=sum(frame.cpu_ns for frame in frames),
    )


def add_counts(parts: Sequence[Counts]) -> Counts:
    """The sum of counters, by name and by reason."""
    return Counts(
        **{name: sum(getattr(part, name) for part in parts) for name in COUNTERS},
        nbr=_add_by_code(part.nbr for part in parts),
        losses=_add_by_code(part.losses for part in parts),
    )


def rates(previous: Frame, current: Frame) -> Rates:
    """What happened per second between two frames of one instance; lost frames between them do no harm.

    Raises:
        ValueError: `current` is not the later one.
    """
    seconds = (current.uptime_ns - previous.uptime_ns) / 1e9
    if seconds <= 0:
        raise ValueError(f"frame {current.seq} of {current.instance} is not after frame {previous.seq}")
    before, after = previous.counts, current.counts
    per_s = {name: max(0, getattr(after, name) - getattr(before, name)) / seconds for name in COUNTERS}
    return Rates(
        auctions=max(0, after.auctions - before.auctions) / seconds,
        nbr=_code_rates(before.nbr, after.nbr, seconds),
        losses=_code_rates(before.losses, after.losses, seconds),
        **per_s,
    )


def counts_between(before: Counts, after: Counts) -> Counts:
    """What was counted after `before` was taken; nothing where a counter began again."""
    plain = {name: max(0, getattr(after, name) - getattr(before, name)) for name in COUNTERS}
    return Counts(**plain, nbr=_since(before.nbr, after.nbr), losses=_since(before.losses, after.losses))


def add_rates(parts: Sequence[Rates]) -> Rates:
    """The rates of several instances together."""
    return Rates(
        **{name: sum(getattr(part, name) for part in parts) for name in ("auctions", *COUNTERS)},
        nbr=_add_by_code(part.nbr for part in parts),
        losses=_add_by_code(part.losses for part in parts),
    )


def reason_name(kind: type[IntEnum], code: int) -> str:
    """A reason in lower-case words with underscores; ``code_123`` for one that the list does not know."""
    try:
        return kind(code).name.lower()
    except ValueError:
        return f"code_{code}"


def reasons(kind: type[IntEnum], totals: Mapping[int, int], per_s: Mapping[int, float]) -> tuple[Reason, ...]:
    """Reasons given at least once, the most frequent lately first."""
    found = [
        Reason(code, reason_name(kind, code), total, round(per_s.get(code, 0.0), 3)) for code, total in totals.items()
    ]
    found.sort(key=lambda reason: (-reason.per_s, -reason.total, reason.code))
    return tuple(found)


def _add_by_code(parts: Iterable[Mapping[int, _Number]]) -> dict[int, _Number]:
    total: dict[int, _Number] = {}
    for part in parts:
        for code, value in part.items():
            total[code] = total[code] + value if code in total else value
    return total


def _since(before: Mapping[int, int], after: Mapping[int, int]) -> dict[int, int]:
    return {code: max(0, count - before.get(code, 0)) for code, count in after.items()}


def _code_rates(before: Mapping[int, int], after: Mapping[int, int], seconds: float) -> dict[int, float]:
    return {code: max(0, count - before.get(code, 0)) / seconds for code, count in after.items()}
