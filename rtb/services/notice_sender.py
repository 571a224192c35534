"""Notices on their way out: a queue a host, few at once, tried again when that may help, dropped and counted at limits.

A host that is slow, broken or away delays its own notices and nobody else's. They are made and started one by one, the
hosts in turn, one in an iteration of the event loop and none in one that brought answers, so that an auction comes
behind one of them, or behind answers; only when many wait, several at a time. Each succeeds at most once; one whose
answer was lost is sent again, so that a receiver may see it twice (its endpoint should be idempotent: OpenRTB 2.6 7.8).
What waits is in memory alone: a process that is killed loses it.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Mapping
from enum import StrEnum
from functools import partial
from typing import Protocol

from msgspec import Struct

from rtb.errors import HttpError, HttpRefused
from rtb.ports.clock import Timer, TimerClock
from rtb.ports.http import NOTHING_MORE, CallingHttp

NS = 1_000_000_000
SICK_AFTER = 5
"""Failures in a row after which a host gets one notice at a time, until one succeeds."""
WAITING_PER_STEP = 64
"""One step is done in an iteration of the loop, and one more for so many that wait."""
FEW = 4
WAITING_PER_PLACE = 16
"""A few notices are under way to a host at once, and one more for so many that wait for it, up to its limit."""
MAX_BODY = 4 << 10
"""Bytes of an answer that are read, so that the connection can be used again; nobody looks at them."""

_WEB = re.compile(r"\s*https?://(?:[^/?#]*@)?([^/?#@\s]+)", re.IGNORECASE)


class Kind(StrEnum):
    """What a notice tells: OpenRTB's nurl, burl and lurl."""

    WIN = "win"
    BILLING = "billing"
    LOSS = "loss"


RETRIES_S: Mapping[Kind, tuple[float, ...]] = {
    Kind.WIN: (1.0, 5.0, 25.0),
    Kind.BILLING: (10.0,) * 6,  # every 10 seconds for the next minute [7.8]
    Kind.LOSS: (5.0,),
}
"""How long after each failure a notice is tried again."""


class Notice(Struct, eq=False, gc=False):
    """One notice; `url` has its macros replaced."""

    kind: Kind
    url: str
    headers: Mapping[str, str] = NOTHING_MORE
    tries: int = 0


class Tally(Struct):
    """What became of the notices of a kind; each ends as one of the others but `retried`, which counts attempts.

    `failed` were answered badly or not at all as often as they were tried, `dropped` did not find a place in a queue or
    were left when the time to stop was over, `refused` lead where no notice may go.
    """

    fired: int = 0
    retried: int = 0
    failed: int = 0
    dropped: int = 0
    refused: int = 0


class HostView(Struct, frozen=True):
    """A host as it stands: counts since it was first (or again) heard of, and its last error ("" for none) in Unix
    seconds."""

    host: str
    waiting: int
    in_flight: int
    fired: int
    failed: int
    sick: bool
    last_error: str
    last_error_at: float


class _Lane(Struct, eq=False):
    """The notices of one host."""

    host: str
    queue: deque[Notice]
    in_flight: int = 0
    resting: int = 0
    fired: int = 0
    failed: int = 0
    failures: int = 0
    last_error: str = ""
    last_error_at: float = 0.0

    @property
    def idle(self) -> bool:
        return not self.queue and not self.in_flight and not self.resting


class Source(Protocol):
    """Where notices come from."""

    @property
    def backlog(self) -> int:
        """About how much there is to be made."""
        ...

    def make_next(self) -> bool:
        """Make a notice and `send` it; False when there is none to be made."""
        ...


class _Nothing:
    """Whoever has notices sends them unasked."""

    backlog = 0

    def make_next(self) -> bool:
        """None."""
        return False


class NoticeSender:
    """Sends notices. `tallies` only grow."""

    def __init__(
        self,
        http: CallingHttp,
        clock: TimerClock,
        *,
        timeout_s: float = 2.0,
        at_once: int = 256,
        at_once_per_host: int = 64,
        waiting: int = 20_000,
        waiting_per_host: int = 4_000,
        hosts: int = 1_000,
    ) -> None:
        """Send through `http`.

        Args:
            http: with room for `at_once` connections.
            clock: says when to try again.
            timeout_s: for each attempt.
            at_once: attempts under way.
            at_once_per_host: of these to one host (and port).
            waiting: notices that are not done yet, whatever their state; loss notices fill at most half of it.
            waiting_per_host: of these for one host, likewise.
            hosts: that are remembered; one that has nothing to do makes place for a new one.
        """
        self._http = http
        self._clock = clock
        self._timeout_s = timeout_s
        self._at_once = at_once
        self._at_once_per_host = at_once_per_host
        self._limit = waiting
        self._limit_per_host = waiting_per_host
        self._most_hosts = hosts
        self._lanes: dict[str, _Lane] = {}
        self._ready: dict[_Lane, None] = {}
        self._resting: dict[Notice, tuple[_Lane, Timer]] = {}
        self._sent: dict[Notice, _Lane] = {}
        self._open = 0
        self._scheduled = False
        self._heard = False
        self._stopping = False
        self._calm = asyncio.Event()
        self._calm.set()
        self.source: Source = _Nothing()
        """Makes notices, in steps, after `wake`."""
        self.tallies: Mapping[Kind, Tally] = {kind: Tally() for kind in Kind}

    @property
    def waiting(self) -> int:
        """Notices not done yet."""
        return self._open

    def hosts(self) -> list[HostView]:
        """Every host it remembers, by name."""
        return [
            HostView(
                host=lane.host,
                waiting=len(lane.queue) + lane.resting,
                in_flight=lane.in_flight,
                fired=lane.fired,
                failed=lane.failed,
                sick=lane.failures >= SICK_AFTER,
                last_error=lane.last_error,
                last_error_at=lane.last_error_at,
            )
            for _, lane in sorted(self._lanes.items())
        ]

    def send(self, notice: Notice) -> None:
        """Have it sent, soon. Never raises and never waits."""
        tally = self.tallies[notice.kind]
        host = _host(notice.url)
        if not host:
            tally.refused += 1
            return
        lane = self._lanes.get(host) or self._new_lane(host)
        share = 2 if notice.kind is Kind.LOSS else 1
        if (
            lane is None
            or self._stopping
            or self._open * share >= self._limit
            or (len(lane.queue) + lane.resting) * share >= self._limit_per_host
        ):
            tally.dropped += 1
            return
        self._open += 1
        self._queue(lane, notice)

    def wake(self) -> None:
        """The source has something to make."""
        if not self._scheduled:
            self._scheduled = True
            self._calm.clear()
            asyncio.get_running_loop().call_soon(self._step)

    async def quiet(self) -> None:
        """Return once nothing is under way: every notice is done, or rests until it is tried again."""
        await self._calm.wait()

    async def stop(self, limit_s: float) -> None:
        """Take no more, try what waits once more, and drop what is not done after `limit_s`."""
        self._stopping = True
        for notice, (lane, timer) in list(self._resting.items()):
            timer.cancel()
            self._awake(lane, notice)
        try:
            async with asyncio.timeout(limit_s):
                await self.quiet()
        except TimeoutError:
            pass
        for lane in self._lanes.values():
            for notice in lane.queue:
                self._drop(notice)
            lane.queue.clear()
        self._ready.clear()
        for notice, lane in self._sent.items():
            lane.in_flight -= 1
            self._drop(notice)
        self._sent.clear()
        self._calm.set()

    def _new_lane(self, host: str) -> _Lane | None:
        if len(self._lanes) >= self._most_hosts:
            idle = next((lane for lane in self._lanes.values() if lane.idle), None)
            if idle is None:
                return None
            del self._lanes[idle.host]
        lane = self._lanes[host] = _Lane(host, deque())
        return lane

    def _queue(self, lane: _Lane, notice: Notice) -> None:
        lane.queue.append(notice)
        self._ready[lane] = None
        self.wake()

    def _step(self) -> None:
        """Start a notice, or make one; the rest in later iterations, behind what has arrived by then. Nothing is begun
        where answers were taken since the last step: an auction that has arrived meanwhile waits for these, not for
        both. They end by themselves, as nothing is sent that could be answered."""
        if self._heard:
            self._heard = False
            asyncio.get_running_loop().call_soon(self._step)
            return
        waiting = self._open - len(self._sent) - len(self._resting) + self.source.backlog
        for _ in range(1 + waiting // WAITING_PER_STEP):
            if not self._start_next() and not self.source.make_next():
                self._scheduled = False
                self._settle()
                return
        asyncio.get_running_loop().call_soon(self._step)

    def _start_next(self) -> bool:
        """Start one, the hosts in turn, if there is a place."""
        ready = self._ready
        while ready and len(self._sent) < self._at_once:
            lane = next(iter(ready))
            del ready[lane]
            if lane.queue and lane.in_flight < self._most(lane):
                if len(lane.queue) > 1:
                    ready[lane] = None
                self._start(lane, lane.queue.popleft())
                return True
        return False

    def _most(self, lane: _Lane) -> int:
        """How many may be under way to a host: more while more wait, so that few answers come at once."""
        if lane.failures >= SICK_AFTER:
            return 1
        return min(self._at_once_per_host, FEW + len(lane.queue) // WAITING_PER_PLACE)

    def _start(self, lane: _Lane, notice: Notice) -> None:
        lane.in_flight += 1
        self._sent[notice] = lane
        notice.tries += 1
        answered = partial(self._answered, notice)
        self._http.get(notice.url, answered, headers=notice.headers, timeout_s=self._timeout_s, max_body=MAX_BODY)

    def _answered(self, notice: Notice, status: int, error: HttpError | None) -> None:
        """An attempt is over."""
        lane = self._sent.pop(notice, None)
        if lane is None:  # dropped meanwhile
            return
        lane.in_flight -= 1
        self._heard = True
        if error is None and _accepted(notice.kind, status):
            lane.failures = 0
            lane.fired += 1
            self.tallies[notice.kind].fired += 1
            self._open -= 1
        else:
            self._failed(lane, notice, status, error)
        if lane.queue:
            self._ready[lane] = None
        if self._ready:
            self.wake()
        else:
            self._settle()

    def _failed(self, lane: _Lane, notice: Notice, status: int, error: HttpError | None) -> None:
        tally = self.tallies[notice.kind]
        self._note(lane, f"HTTP status {status}" if error is None else str(error))
        if isinstance(error, HttpRefused):
            tally.refused += 1
            self._open -= 1
            return
        again = (
            error is not None or notice.kind is Kind.BILLING or status >= 500 or status in (408, 425, 429)
        ) and not self._stopping
        waits = RETRIES_S[notice.kind]
        if again and notice.tries <= len(waits):
            tally.retried += 1
            self._rest(lane, notice, waits[notice.tries - 1])
        else:
            lane.failed += 1
            tally.failed += 1
            self._open -= 1

    def _settle(self) -> None:
        if not self._scheduled and not self._ready and not self._sent:
            self._calm.set()

    def _note(self, lane: _Lane, error: str) -> None:
        lane.failures += 1
        lane.last_error = error[:300]
        lane.last_error_at = self._clock.time()

    def _rest(self, lane: _Lane, notice: Notice, wait_s: float) -> None:
        due_ns = self._clock.monotonic_ns() + round(wait_s * NS)
        lane.resting += 1
        self._resting[notice] = (lane, self._clock.call_at(due_ns, lambda: self._awake(lane, notice)))

    def _awake(self, lane: _Lane, notice: Notice) -> None:
        del self._resting[notice]
        lane.resting -= 1
        self._queue(lane, notice)

    def _drop(self, notice: Notice) -> None:
        self.tallies[notice.kind].dropped += 1
        self._open -= 1


def _accepted(kind: Kind, status: int) -> bool:
    """7.8 takes 200 and 204 alone for a billing notice that arrived."""
    return status in (200, 204) if kind is Kind.BILLING else 200 <= status < 300


def _host(url: str) -> str:
    """Host and port, in lower case; "" for what is no web address. Where it really leads, the client decides."""
    found = _WEB.match(url)
    return found[1].lower() if found is not None else ""
