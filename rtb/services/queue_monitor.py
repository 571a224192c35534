"""The broker's health: what waits in the queues and how fast it moves, three warnings, and this process's messages by
the minute."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum

import structlog
from msgspec import Struct, structs

from rtb.domain.histogram import Histogram
from rtb.errors import BrokerError
from rtb.ports import Broker, Clock, QueueDepth, QueueFigures, QueueStats
from rtb.services import topology
from rtb.services.metrics import Metrics
from rtb.services.waiting import ended

MAX_WAITING = 1_000
ENOUGH_PER_S = 10.0
"""A queue that gets less is never outpaced: its rates are noise."""
CLEARED = 0.8
"""A warning ends at this share of what began it."""
LOOKS = 2
"""Looks in a row that must agree before a warning begins: consumers may be reconnecting."""
MINUTES = 60

INFORMATIONAL = frozenset({topology.LOSSES, topology.ALL_ALERTS})
"""Nobody has to consume these; they keep the newest and are no reason to worry."""
UNATTENDED = frozenset(
    {topology.DEAD, *(topology.retry_exchange(n) for n in range(1, len(topology.RETRY_DELAYS_MS) + 1))}
)
"""Nobody consumes these, but many messages in them are a reason to worry."""
CONSUMED = frozenset({topology.BID_REQUESTS, topology.CAMPAIGN_UPDATES, topology.WINS})
"""Daemons consume these, even when they are empty; any other queue needs a consumer once messages wait."""

_MS = 1e6
_SECOND = 1e9
_COUNTERS = ("published", "consumed", "retried", "dead_lettered", "message_errors")

_log = structlog.get_logger(__name__)


class Warned(StrEnum):
    """What is wrong with a queue."""

    WAITING = "waiting"
    UNCONSUMED = "unconsumed"
    OUTPACED = "outpaced"


class QueueRow(Struct, frozen=True, gc=False):
    """A queue as last seen; rates are messages a second, None where nobody tells."""

    name: str
    ready: int
    unacked: int
    consumers: int
    publish_per_s: float | None
    deliver_per_s: float | None
    warnings: tuple[Warned, ...] = ()


class MinuteRow(Struct, frozen=True, gc=False):
    """What this process did with messages in the minute that began at `time` (Unix seconds).

    Percentiles are of the time from arrival to acknowledgement, None without a message.
    """

    time: int
    published: int
    consumed: int
    retried: int
    dead_lettered: int
    errors: int
    p50_ms: float | None
    p99_ms: float | None
    max_ms: float | None


class QueueReport(Struct, frozen=True, gc=False):
    """The newest look: at `time` (Unix seconds, 0 before the first); `problem` is why there is none, or less of it."""

    time: float = 0.0
    queues: tuple[QueueRow, ...] = ()
    minutes: tuple[MinuteRow, ...] = ()
    problem: str = ""

    @property
    def ready(self) -> int | None:
        """Messages that wait in queues that somebody ought to consume; None before the first look."""
        if not self.queues:
            return None
        return sum(row.ready for row in self.queues if row.name not in INFORMATIONAL | UNATTENDED)


Listener = Callable[[str, Warned, bool], None]


class QueueMonitor:
    """Looks every few seconds; ``report`` is what it saw."""

    def __init__(
        self,
        broker: Broker,
        metrics: Metrics,
        clock: Clock,
        *,
        stats: QueueStats | None = None,
        queues: Sequence[str] = (),
        interval_s: float = 5.0,
        on_warning: Listener = lambda queue, warned, begins: None,
    ) -> None:
        """Watch `queues`, by default the topology's.

        Args:
            broker: tells depths where `stats` does not; it tells rates only if it counts messages.
            metrics: of this process.
            clock: time.
            stats: the broker's management, where there is one.
            queues: their names.
            interval_s: between two looks.
            on_warning: hears of a queue's warning as it begins and ends.
        """
        self._broker = broker
        self._metrics = metrics
        self._clock = clock
        self._stats = stats
        self._queues = tuple(queues) or tuple(queue.name for queue in topology.topology().queues)
        self._interval_s = interval_s
        self._on_warning = on_warning
        self._task: asyncio.Task[None] | None = None
        self._last: dict[str, tuple[int, QueueDepth]] = {}
        self._agreeing: dict[tuple[str, Warned], int] = {}
        self._warned: set[tuple[str, Warned]] = set()
        self._minutes = _Minutes(metrics, clock)
        self.report = QueueReport()

    def start(self) -> None:
        """Begin to look."""
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End; the last report stays readable."""
        if self._task is not None:
            await ended(self._task)
            self._task = None
        if self._stats is not None:
            await self._stats.close()

    async def look(self) -> QueueReport:
        """Look now. What cannot be seen is left out, and its warnings stay as they are."""
        self._minutes.tick()
        figures, problem = await self._figures()
        rows = []
        for name in self._queues:
            try:
                figure = await self._complete(name, figures.get(name))
            except BrokerError as error:
                problem = str(error)
                if not self._broker.connected:
                    break
                continue
            rows.append(self._row(figure))
        self.report = QueueReport(self._clock.time(), tuple(rows), self._minutes.rows, problem)
        return self.report

    async def _run(self) -> None:
        while True:
            try:
                await self.look()
            except Exception:
                _log.exception("queues_not_seen")
            await asyncio.sleep(self._interval_s)

    async def _figures(self) -> tuple[Mapping[str, QueueFigures], str]:
        if self._stats is None:
            return {}, ""
        try:
            return await self._stats.figures(), ""
        except BrokerError as error:
            return {}, str(error)

    async def _complete(self, name: str, figure: QueueFigures | None) -> QueueFigures:
        """The figures with what was missing in them, from the broker itself."""
        if figure is not None and None not in (figure.ready, figure.unacked, figure.consumers):
            if figure.consumers or not (figure.ready or name in CONSUMED):
                return figure
            # The management's figures are seconds old: a daemon that has just started is not in them.
            return structs.replace(figure, consumers=(await self._broker.depth(name)).consumers)
        depth = await self._broker.depth(name)
        now_ns = self._clock.monotonic_ns()
        earlier_ns, earlier = self._last.get(name, (now_ns, depth))
        self._last[name] = (now_ns, depth)
        passed_s = (now_ns - earlier_ns) / _SECOND
        return QueueFigures(
            name,
            depth.ready,
            depth.unacked,
            depth.consumers,
            _rate(earlier.published, depth.published, passed_s),
            _rate(earlier.delivered, depth.delivered, passed_s),
        )

    def _row(self, figure: QueueFigures) -> QueueRow:
        for warned, value, limit in _judged(figure):
            self._judge(figure.name, warned, begins=value > limit, ends=value <= CLEARED * limit)
        return QueueRow(
            figure.name,
            figure.ready or 0,
            figure.unacked or 0,
            figure.consumers or 0,
            figure.publish_per_s,
            figure.deliver_per_s,
            tuple(warned for warned in Warned if (figure.name, warned) in self._warned),
        )

    def _judge(self, queue: str, warned: Warned, *, begins: bool, ends: bool) -> None:
        key = (queue, warned)
        if key in self._warned:
            if ends:
                self._warned.discard(key)
                _log.info("queue_warning_ended", queue=queue, warning=warned.value)
                self._on_warning(queue, warned, False)
            return
        self._agreeing[key] = self._agreeing.get(key, 0) + 1 if begins else 0
        if self._agreeing[key] >= LOOKS:
            del self._agreeing[key]
            self._warned.add(key)
            _log.warning("queue_warning", queue=queue, warning=warned.value)
            self._on_warning(queue, warned, True)


class _Minutes:
    """The counters of a process, cut at the minutes of the clock on the wall."""

    def __init__(self, metrics: Metrics, clock: Clock) -> None:
        self._metrics = metrics
        self._clock = clock
        self._rows: deque[MinuteRow] = deque(maxlen=MINUTES)
        self._begin()

    @property
    def rows(self) -> tuple[MinuteRow, ...]:
        return tuple(self._rows)

    def tick(self) -> None:
        """Close the minute if it is over; what was counted until this look belongs to it."""
        if int(self._clock.time() // 60) == self._minute:
            return
        passed = self._metrics.message_time.since(self._times)
        counts = [getattr(self._metrics, name) - before for name, before in zip(_COUNTERS, self._counts, strict=True)]
        spread = (passed.percentile(50) / _MS, passed.percentile(99) / _MS, passed.max_ns / _MS)
        self._rows.append(MinuteRow(self._minute * 60, *counts, *(spread if passed.count else (None, None, None))))
        self._begin()

    def _begin(self) -> None:
        self._minute = int(self._clock.time() // 60)
        self._counts = [getattr(self._metrics, name) for name in _COUNTERS]
        self._times: Histogram = self._metrics.message_time.copy()


def _judged(figure: QueueFigures) -> list[tuple[Warned, float, float]]:
    """What a queue can be warned about, as a value and the limit it must not exceed; what is unknown is not judged."""
    name, ready, consumers = figure.name, figure.ready or 0, figure.consumers or 0
    if name in INFORMATIONAL:
        return []
    judged: list[tuple[Warned, float, float]] = [(Warned.WAITING, ready, MAX_WAITING)]
    if name in UNATTENDED:
        return judged
    idle = not ready and name not in CONSUMED
    judged.append((Warned.UNCONSUMED, float(not consumers and not idle), 0.0))
    if figure.publish_per_s is not None and figure.deliver_per_s is not None:
        judged.append((Warned.OUTPACED, figure.publish_per_s, max(ENOUGH_PER_S, 2 * figure.deliver_per_s)))
    return judged


def _rate(earlier: int | None, later: int | None, passed_s: float) -> float | None:
    """None also where a count runs backwards, because the queue was made anew."""
    if earlier is None or later is None or passed_s <= 0 or later < earlier:
        return None
    return (later - earlier) / passed_s
