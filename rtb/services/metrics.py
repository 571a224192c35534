"""The counters of this process: the hot path increments plain integers; a frame of them is made once a second."""

from __future__ import annotations

import os
import socket
import time
from collections import defaultdict
from collections.abc import Sequence
from importlib import metadata

import psutil  # type: ignore[import-untyped]

from rtb.domain.histogram import Histogram
from rtb.domain.metrics import COUNTERS, About, BidderTally, Counts, Frame
from rtb.ports import Clock


class Metrics:
    """Counters of one process, incremented in place: ``metrics.won += 1``, ``metrics.nbr[code] += 1``,
    ``metrics.latency.record(ns)``.

    The names are those of `Counts`; `nbr` and `losses` are indexed by reason code. All only grow, except `in_flight`,
    the number of auctions under way now. Beside them, of queue messages: `retried`, `message_errors` (mistakes of ours)
    and `message_time`, from arrival to acknowledgement.
    """

    __slots__ = (
        "_about",
        "_clock",
        "_lag_seen",
        "_latency_seen",
        "_messages_seen",
        "_process",
        "_seq",
        "_started_ns",
        "bidder_errors",
        "bidder_skips",
        "bidder_timeouts",
        "bids",
        "consumed",
        "dead_lettered",
        "gc_pause_max_ns",
        "gc_pauses",
        "imps",
        "in_flight",
        "instance",
        "invalid",
        "lag",
        "latency",
        "losses",
        "message_errors",
        "message_time",
        "nbr",
        "no_bid",
        "profile_hits",
        "profile_misses",
        "profile_timeouts",
        "published",
        "retried",
        "shed",
        "spend_nanos",
        "timeout",
        "wins",
        "won",
    )

    def __init__(self, instance: str, clock: Clock) -> None:
        """Start at zero. `instance` is new at every process start, or counters would seem to run backwards."""
        self.instance = instance
        self.won = self.no_bid = self.timeout = self.shed = self.invalid = 0
        self.imps = self.bids = self.wins = self.spend_nanos = 0
        self.bidder_timeouts = self.bidder_errors = self.bidder_skips = 0
        self.profile_hits = self.profile_misses = self.profile_timeouts = 0
        self.consumed = self.published = self.dead_lettered = 0
        self.retried = self.message_errors = 0
        self.in_flight = 0
        self.nbr: defaultdict[int, int] = defaultdict(int)
        self.losses: defaultdict[int, int] = defaultdict(int)
        self.latency = Histogram()
        self.lag = Histogram()
        self.gc_pauses = Histogram()
        self.message_time = Histogram()
        self.gc_pause_max_ns = 0
        self._clock = clock
        self._started_ns = clock.monotonic_ns()
        self._seq = 0
        self._latency_seen = Histogram()
        self._lag_seen = Histogram()
        self._messages_seen = Histogram()
        self._process = psutil.Process()
        self._about = About(os.getpid(), socket.gethostname(), _version(), round(clock.time(), 3))

    @property
    def uptime_ns(self) -> int:
        """How long this process counts."""
        return self._clock.monotonic_ns() - self._started_ns

    def counts(self) -> Counts:
        """The counters as an immutable value."""
        plain = {name: getattr(self, name) for name in COUNTERS if not name.startswith("gc_")}
        return Counts(
            **plain,
            gc_pauses=self.gc_pauses.count,
            gc_pause_ns=self.gc_pauses.sum_ns,
            nbr={int(code): count for code, count in self.nbr.items()},
            losses={int(code): count for code, count in self.losses.items()},
        )

    def frame(self, bidders: Sequence[BidderTally] = ()) -> Frame:
        """The next frame: counters until now, histograms since the frame before. One caller only, or both lose."""
        latency, lag, messages = self.latency.copy(), self.lag.copy(), self.message_time.copy()
        pause_max_ns, self.gc_pause_max_ns = self.gc_pause_max_ns, 0
        self._seq += 1
        frame = Frame(
            instance=self.instance,
            seq=self._seq,
            time=self._clock.time(),
            uptime_ns=self.uptime_ns,
            counts=self.counts(),
            latency=latency.packed_since(self._latency_seen),
            lag=lag.packed_since(self._lag_seen),
            message_time=messages.packed_since(self._messages_seen),
            gc_pause_max_ns=pause_max_ns,
            in_flight=self.in_flight,
            rss_bytes=self._process.memory_info().rss,
            cpu_ns=time.process_time_ns(),
            about=self._about,
            bidders=tuple(bidders),
        )
        self._latency_seen, self._lag_seen, self._messages_seen = latency, lag, messages
        return frame


def _version() -> str:
    try:
        return metadata.version("rtb")
    except metadata.PackageNotFoundError:  # run from a checkout that was not installed
        return ""
