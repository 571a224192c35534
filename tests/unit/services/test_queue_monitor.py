"""The broker's health: depths, rates, warnings that begin and end once, and messages by the minute."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping

import pytest
import pytest_asyncio

from rtb.adapters.clock import ManualClock
from rtb.adapters.memory_broker import MemoryBroker
from rtb.errors import BrokerError
from rtb.ports import Message
from rtb.ports.queue_stats import QueueFigures
from rtb.services import topology
from rtb.services.metrics import Metrics
from rtb.services.queue_monitor import MinuteRow, QueueMonitor, QueueRow, Warned
from tests.contract.brokers import Inbox

MS = 1_000_000
QUEUE = topology.BID_REQUESTS


class Told:
    """A management that tells what a test says."""

    def __init__(self, *figures: QueueFigures) -> None:
        self.now: Mapping[str, QueueFigures] | None = {figure.name: figure for figure in figures}
        self.closed = False

    async def figures(self) -> Mapping[str, QueueFigures]:
        """Tell."""
        if self.now is None:
            raise BrokerError("the management API does not answer")
        return self.now

    async def close(self) -> None:
        """Close."""
        self.closed = True


class Bench:
    """A monitor on a clock that is set by hand."""

    def __init__(self) -> None:
        self.clock = ManualClock(1_767_225_600.0)  # the beginning of a minute
        self.broker = MemoryBroker(self.clock)
        self.metrics = Metrics("test", self.clock)
        self.heard: list[tuple[str, Warned, bool]] = []
        self.monitor = self.make()

    def make(self, *queues: str, stats: Told | None = None) -> QueueMonitor:
        self.monitor = QueueMonitor(
            self.broker,
            self.metrics,
            self.clock,
            queues=queues,
            stats=stats,
            on_warning=lambda *what: self.heard.append(what),
        )
        return self.monitor

    async def row(self, passed_s: float = 5.0) -> QueueRow:
        """The first queue, some seconds later."""
        self.clock.advance(passed_s)
        return (await self.monitor.look()).queues[0]

    async def publish(self, count: int) -> None:
        for _ in range(count):
            await self.broker.publish("", QUEUE, Message(body=b""))


@pytest_asyncio.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    await made.broker.start()
    await made.broker.declare(topology.topology())
    yield made
    await made.monitor.stop()
    await made.broker.close()


async def test_every_queue_of_the_topology_is_seen(bench: Bench) -> None:
    """By passive declares."""
    report = await bench.make().look()
    assert [row.name for row in report.queues] == [queue.name for queue in topology.topology().queues]
    assert (report.time, report.problem) == (bench.clock.time(), "")


async def test_rates_are_messages_a_second(bench: Bench) -> None:
    """20 published and 10 delivered in 5 seconds are 4/s and 2/s; the first look cannot tell."""
    bench.make(QUEUE)
    first = await bench.row()
    assert (first.publish_per_s, first.deliver_per_s) == (None, None)
    inbox = await Inbox(ack=False).open(bench.broker, QUEUE, prefetch=10)
    await bench.publish(20)
    for _ in range(10):
        await inbox.next()
    row = await bench.row(5.0)
    assert row == QueueRow(QUEUE, ready=10, unacked=10, consumers=1, publish_per_s=4.0, deliver_per_s=2.0)


async def test_a_queue_without_consumers_is_warned_about_once(bench: Bench) -> None:
    """At the second look, because a consumer may be reconnecting; until one is there."""
    bench.make(QUEUE)
    assert (await bench.row()).warnings == ()
    assert (await bench.row()).warnings == (Warned.UNCONSUMED,)
    assert (await bench.row()).warnings == (Warned.UNCONSUMED,)
    inbox = await Inbox().open(bench.broker, QUEUE)
    assert (await bench.row()).warnings == ()
    assert bench.heard == [(QUEUE, Warned.UNCONSUMED, True), (QUEUE, Warned.UNCONSUMED, False)]
    await inbox.subscription.cancel()
    await bench.row()
    await inbox.open(bench.broker, QUEUE)
    await bench.row()
    await inbox.subscription.cancel()
    assert (await bench.row()).warnings == ()  # two looks in a row, not two in all


@pytest.mark.parametrize(
    ("looks", "warned"),
    [
        ([1_000, 1_000, 1_000], [False, False, False]),  # above 1,000
        ([1_001, 1_001, 1_001], [False, True, True]),
        ([1_001, 1_000, 1_001, 1_001], [False, False, False, True]),
        ([5_000, 5_000, 900, 801, 800, 900], [False, True, True, True, False, False]),  # ends at 80 %
    ],
)
async def test_many_waiting_messages(bench: Bench, looks: list[int], warned: list[bool]) -> None:
    """A warning begins above 1,000 and ends well below, so that it does not flicker."""
    stats = Told()
    bench.make(QUEUE, stats=stats)
    seen = []
    for ready in looks:
        stats.now = {QUEUE: QueueFigures(QUEUE, ready, 0, 1, 0.0, 0.0)}
        seen.append(Warned.WAITING in (await bench.row()).warnings)
    assert seen == warned


@pytest.mark.parametrize(
    ("published", "delivered", "warned"),
    [(200.0, 100.0, False), (201.0, 100.0, True), (9.0, 0.0, False), (11.0, 0.0, True), (None, None, False)],
)
async def test_publishing_at_twice_the_rate_of_delivery(
    bench: Bench, published: float | None, delivered: float | None, warned: bool
) -> None:
    """Above twice, and above what is noise; what is not told is not judged."""
    bench.make(QUEUE, stats=Told(QueueFigures(QUEUE, 0, 0, 1, published, delivered)))
    await bench.row()
    assert (Warned.OUTPACED in (await bench.row()).warnings) == warned


@pytest.mark.parametrize(
    ("queue", "ready", "warnings"),
    [
        (topology.LOSSES, 9_999, ()),  # keeps the newest; nobody has to consume it
        (topology.DEAD, 10, ()),
        (topology.DEAD, 2_000, (Warned.WAITING,)),
        (topology.retry_exchange(1), 2_000, (Warned.WAITING,)),
        (topology.BUDGET_ALERTS, 0, ()),
        (topology.BUDGET_ALERTS, 1, (Warned.UNCONSUMED,)),
        (topology.CAMPAIGN_UPDATES, 0, (Warned.UNCONSUMED,)),
    ],
)
async def test_which_queues_need_a_consumer(bench: Bench, queue: str, ready: int, warnings: tuple[Warned, ...]) -> None:
    """Those that daemons consume always; others once messages wait; some never."""
    bench.make(queue, stats=Told(QueueFigures(queue, ready, 0, 0, 0.0, 0.0)))
    await bench.row()
    assert (await bench.row()).warnings == warnings


async def test_what_management_does_not_tell_is_asked_of_the_broker(bench: Bench) -> None:
    """A new queue has no figures yet, and the management may be away; the report says so."""
    await bench.publish(3)
    stats = Told(QueueFigures(QUEUE, None, None, None))
    bench.make(QUEUE, stats=stats)
    assert (await bench.row()).ready == 3
    stats.now = None
    assert (await bench.row()).ready == 3
    assert bench.monitor.report.problem == "the management API does not answer"


async def test_a_consumer_that_the_management_does_not_know_yet_is_one(bench: Bench) -> None:
    """The management's figures lag behind by seconds; before a warning the broker itself is asked."""
    await Inbox().open(bench.broker, QUEUE)
    bench.make(QUEUE, stats=Told(QueueFigures(QUEUE, 0, 0, 0, 7.0, 7.0)))
    await bench.row()
    row = await bench.row()
    assert (row.consumers, row.publish_per_s, row.warnings) == (1, 7.0, ())


async def test_while_the_broker_is_away_there_are_no_rows(bench: Bench) -> None:
    """And the report says why."""
    bench.make(QUEUE)
    await bench.broker.close()
    report = await bench.monitor.look()
    assert (report.queues, bool(report.problem)) == ((), True)


async def test_one_missing_queue_hides_no_other(bench: Bench) -> None:
    """It is named."""
    report = await bench.make("gone", QUEUE).look()
    assert [row.name for row in report.queues] == [QUEUE]
    assert "gone" in report.problem


async def test_messages_are_counted_by_the_minute(bench: Bench) -> None:
    """What was counted within each minute on the wall, with the times it took."""
    bench.make(QUEUE)
    for name in ("published", "consumed", "retried", "dead_lettered", "message_errors"):
        setattr(bench.metrics, name, 5)
    for ms in (10, 20, 30):
        bench.metrics.message_time.record(ms * MS)
    await bench.row(59.0)
    assert bench.monitor.report.minutes == ()
    await bench.row(1.0)
    bench.metrics.consumed += 2
    await bench.row(60.0)
    first, second = bench.monitor.report.minutes
    assert first == MinuteRow(1_767_225_600, 5, 5, 5, 5, 5, first.p50_ms, first.p99_ms, first.max_ms)
    assert (first.p50_ms, first.p99_ms, first.max_ms) == pytest.approx((20, 30, 30), rel=1 / 32)
    assert second == MinuteRow(1_767_225_660, 0, 2, 0, 0, 0, None, None, None)


async def test_it_looks_by_itself(bench: Bench) -> None:
    """From its start on; it closes the management it was given."""
    begun = asyncio.Event()
    stats = Told(QueueFigures(QUEUE, 2_000, 0, 1, 0.0, 0.0))
    bench.monitor = QueueMonitor(
        bench.broker,
        bench.metrics,
        bench.clock,
        stats=stats,
        queues=[QUEUE],
        interval_s=0.0,
        on_warning=lambda *what: begun.set(),
    )
    bench.monitor.start()
    await asyncio.wait_for(begun.wait(), 20)
    await bench.monitor.stop()
    assert stats.closed
