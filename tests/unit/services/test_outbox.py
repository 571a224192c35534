"""What is posted is published in order, or waits on disk until it can be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from rtb.adapters.clock import SystemClock
from rtb.adapters.spool import FileSpool
from rtb.errors import BrokerError, Unroutable
from rtb.ports import ExchangeType, Message, Overflow, QueueSpec, Topology
from rtb.ports.broker import Binding
from rtb.services import outbox as module
from rtb.services.metrics import Metrics
from rtb.services.outbox import Outbox
from tests.contract.brokers import Inbox
from tests.support.brokers import MoodyBroker
from tests.support.turned_loop import TurnedLoop, on_turned_loop

EXCHANGE = "out"
QUEUES = (QueueSpec("a"), QueueSpec("tiny", max_length=1, overflow=Overflow.REJECT_PUBLISH))
BINDINGS = (Binding(EXCHANGE, "a", "a"), Binding(EXCHANGE, "tiny", "tiny"))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Come back to a broker that was away within milliseconds."""
    monkeypatch.setattr(module, "FIRST_WAIT_S", 0.005)
    monkeypatch.setattr(module, "LONGEST_WAIT_S", 0.02)


class Bench:
    """An outbox on a connection that can fail, and what arrives at the other end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = SystemClock()
        self.broker = MoodyBroker(self.clock)
        self.server = self.broker.peer()
        self.metrics = Metrics("test", self.clock)
        self.arrived = Inbox()
        self.outboxes: list[Outbox] = []

    async def start(self) -> Bench:
        await self.broker.start()
        await self.server.start()
        await self.server.declare(Topology({EXCHANGE: ExchangeType.DIRECT}, QUEUES, BINDINGS))
        await self.arrived.open(self.server, "a")
        return self

    async def outbox(self, *, limit: int = 20_000, patience_s: float = 20.0) -> Outbox:
        made = Outbox(self.broker, FileSpool(self.folder), self.metrics, limit=limit, patience_s=patience_s)
        self.outboxes.append(made)
        await made.start()
        return made

    async def got(self, count: int) -> list[int]:
        """The numbers of the next messages that arrive."""
        return [int(body) for body in await self.arrived.bodies(count)]


@pytest_asyncio.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = await Bench(tmp_path / "spool").start()
    yield made
    for outbox in made.outboxes:
        await outbox.stop(0.1)
    await made.broker.close()
    await made.server.close()


class StuckSpool(FileSpool):
    """On a disk that takes nothing and says nothing."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.reached = asyncio.Event()

    async def append(self, records: Sequence[bytes]) -> None:
        """Begin, and never end."""
        self.reached.set()
        await asyncio.Event().wait()


class SlowSpool(FileSpool):
    """On a disk that takes each write when it is told to."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.reached = asyncio.Event()
        self.go_on = asyncio.Event()

    async def append(self, records: Sequence[bytes]) -> None:
        """Wait, then write."""
        self.reached.set()
        await self.go_on.wait()
        self.go_on.clear()
        await super().append(records)


def numbered(n: int, *, persistent: bool = True, **fields: object) -> Message:
    return Message(body=b"%d" % n, message_id=str(n), persistent=persistent, **fields)  # type: ignore[arg-type]


def post(outbox: Outbox, numbers: range, *, key: str = "a", persistent: bool = True) -> None:
    for n in numbers:
        outbox.post(EXCHANGE, key, numbered(n, persistent=persistent))


async def test_what_is_posted_is_published_in_order(bench: Bench) -> None:
    """Many more than fit into one flight; flush returns once all of them are confirmed."""
    outbox = await bench.outbox()
    post(outbox, range(1_000))
    await outbox.flush(20)
    assert (outbox.confirmed, outbox.waiting, outbox.spooled, bench.metrics.published) == (1_000, 0, 0, 1_000)
    assert await bench.got(1_000) == list(range(1_000))


async def test_a_broker_that_is_away_loses_nothing(bench: Bench) -> None:
    """Posted before, while and after it is away: everything arrives in order once it is back."""
    outbox = await bench.outbox()
    post(outbox, range(100))
    await outbox.flush(20)
    await bench.broker.close()
    post(outbox, range(100, 200))
    await outbox.flush(20)
    assert (outbox.confirmed, outbox.spooled, outbox.waiting) == (100, 100, 100)
    await bench.broker.start()
    post(outbox, range(200, 300))
    assert await bench.got(300) == list(range(300))
    assert (outbox.dropped, outbox.lost) == (0, 0)


async def test_what_is_in_the_spool_outlives_the_process(bench: Bench) -> None:
    """The next one publishes it first, with all its properties."""
    first = await bench.outbox()
    await bench.broker.close()
    whole = numbered(1, correlation_id="c", reply_to="r", timestamp=1.5, headers={"x": 1, "y": "z"})
    first.post(EXCHANGE, "a", whole)
    await first.stop()
    await bench.broker.start()
    second = await bench.outbox()
    second.post(EXCHANGE, "a", numbered(2))
    assert (await bench.arrived.next()).message == whole
    assert await bench.got(1) == [2]


@pytest.mark.parametrize("between", range(6))
async def test_stop_ends_though_confirms_arrive_meanwhile(bench: Bench, between: int) -> None:
    """Those of what is being published from the spool, so many iterations of the loop after it was told to stop."""
    outbox = await bench.outbox()
    await bench.broker.close()
    post(outbox, range(3))
    await outbox.flush(20)
    bench.broker.silent = True
    await bench.broker.start()
    await bench.broker.entered(3)
    stopping = asyncio.create_task(outbox.stop(20))
    for _ in range(between):
        await asyncio.sleep(0)
    bench.broker.confirm()
    async with asyncio.timeout(20):
        await stopping
    assert (outbox.lost, outbox.dropped) == (0, 0)


async def test_what_was_posted_during_the_replay_leaves_the_outbox_open(bench: Bench) -> None:
    """It is sent, and the task is out of its way: when the broker goes away next, it is there at once."""
    outbox = await bench.outbox(patience_s=3_600)
    await bench.broker.close()
    post(outbox, range(3))
    await outbox.flush(20)
    bench.broker.silent = True
    await bench.broker.start()
    await bench.broker.entered(3)
    post(outbox, range(3, 4))
    bench.broker.confirm()
    bench.broker.silent = True
    await bench.broker.entered(4)
    for _ in range(10):
        await asyncio.sleep(0)
    bench.broker.confirm()
    await bench.broker.close()
    async with asyncio.timeout(20):
        await outbox.deliver(EXCHANGE, "a", numbered(4))
    assert (outbox.confirmed, outbox.replayed, outbox.spooled) == (4, 3, 4)


async def test_stop_ends_though_the_disk_does_not_answer(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for a message that is neither confirmed nor on disk by then hears that it is lost."""
    monkeypatch.setattr(module, "DISK_S", 0.01)
    bench.broker.frozen = True
    spool = StuckSpool(bench.folder)
    outbox = Outbox(bench.broker, spool, bench.metrics, patience_s=0.01)
    await outbox.start()
    delivering = [asyncio.create_task(outbox.deliver(EXCHANGE, "a", numbered(n, persistent=n != 1))) for n in range(2)]
    await spool.reached.wait()
    assert outbox.waiting == 1  # the other one was dropped; what is on its way to the disk waits still
    async with asyncio.timeout(20):
        await outbox.stop(0.01)
    for task in delivering:
        with pytest.raises(BrokerError):
            await task
    assert (outbox.lost, outbox.dropped, outbox.waiting) == (1, 1, 0)


def test_a_slow_disk_is_given_the_time_to_take_what_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On stop, while the broker confirms nothing: three writes that each take most of what one may, and nothing is lost
    though they take longer together."""
    monkeypatch.setattr(module, "DISK_S", 600.0)
    monkeypatch.setattr(module, "SPILL", 1)

    async def test(loop: TurnedLoop) -> None:
        bench = await Bench(tmp_path / "spool").start()
        bench.broker.frozen = True
        spool = SlowSpool(bench.folder)
        outbox = Outbox(bench.broker, spool, bench.metrics, patience_s=3_600)
        await outbox.start()
        await outbox.flush(20)
        post(outbox, range(module.WINDOW + 2))
        stopping = asyncio.create_task(outbox.stop(0.01))
        for _ in range(3):
            await spool.reached.wait()
            spool.reached.clear()
            await loop.turn(500.0)
            spool.go_on.set()
        await stopping
        assert (outbox.spooled, outbox.lost, outbox.waiting) == (module.WINDOW + 2, 0, module.WINDOW + 2)
        await bench.broker.close()
        await bench.server.close()

    on_turned_loop(test)


async def test_what_is_lost_at_the_stop_is_said_in_one_line(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """How many, the first of them and why; not a line for each."""
    monkeypatch.setattr(module, "DISK_S", 0.01)
    await bench.broker.close()
    outbox = Outbox(bench.broker, FileSpool(bench.folder, max_bytes=1), bench.metrics)
    await outbox.start()
    post(outbox, range(7, 10))
    with capture_logs() as lines:
        await outbox.stop(0.01)
    (line,) = [line for line in lines if line["event"] == "message_lost"]
    assert (line["messages"], line["first_message_id"], outbox.lost) == (3, "7", 3)
    assert "broker.spool" in line["reason"]


async def test_what_is_replayed_waits_once(bench: Bench) -> None:
    """Messages in flight from the spool are on disk until they are confirmed: ten are ten."""
    await bench.broker.close()
    outbox = await bench.outbox()
    post(outbox, range(10))
    await outbox.flush(20)
    bench.broker.frozen = True
    await bench.broker.start()
    async with asyncio.timeout(20):
        await bench.broker.entered(10)
    assert (outbox.waiting, outbox.spooled) == (10, 10)
    bench.broker.thaw()
    assert await bench.got(10) == list(range(10))


async def test_nothing_is_taken_after_the_stop(bench: Bench) -> None:
    """Whoever posts then hears at once that it is lost."""
    outbox = await bench.outbox()
    await outbox.stop()
    with pytest.raises(BrokerError, match="stopped"):
        await outbox.deliver(EXCHANGE, "a", numbered(1))
    assert (outbox.lost, outbox.waiting) == (1, 0)


async def test_perishable_messages_are_dropped_and_counted(bench: Bench) -> None:
    """While the broker is away; they never reach the disk."""
    outbox = await bench.outbox()
    await bench.broker.close()
    post(outbox, range(10), persistent=False)
    await outbox.flush(20)
    assert (outbox.dropped, outbox.spooled, outbox.waiting) == (10, 0, 0)


async def test_a_frozen_broker_hands_over_to_the_spool(bench: Bench) -> None:
    """Without a confirm within the patience, what is in flight and what comes later is safe on disk."""
    bench.broker.frozen = True
    outbox = await bench.outbox(patience_s=0.01)
    post(outbox, range(300))
    await outbox.flush(20)
    assert (outbox.spooled, outbox.confirmed) == (300, 0)
    bench.broker.thaw()
    assert await bench.got(300) == list(range(300))


async def test_a_full_buffer_hands_over_to_the_spool(bench: Bench) -> None:
    """However patient it is: memory is bounded."""
    bench.broker.frozen = True
    outbox = await bench.outbox(limit=300, patience_s=3_600)
    post(outbox, range(600))
    await asyncio.wait_for(outbox.flush(20), 60)
    assert outbox.spooled == 600
    bench.broker.thaw()
    assert await bench.got(600) == list(range(600))


async def test_flush_ends_in_its_limit(bench: Bench) -> None:
    """What a frozen broker does not confirm by then is on disk."""
    bench.broker.frozen = True
    outbox = await bench.outbox(patience_s=3_600)
    post(outbox, range(1_000))
    async with asyncio.timeout(60):
        while outbox.spooled < 1_000:  # once, unless the disk is slow
            await outbox.flush(1.0)
    assert (outbox.spooled, outbox.waiting, outbox.lost) == (1_000, 1_000, 0)


async def test_an_unroutable_message_is_counted_and_blocks_nobody(bench: Bench) -> None:
    """Nobody will ever get it, and whoever delivers it hears so."""
    outbox = await bench.outbox()
    outbox.post(EXCHANGE, "nowhere", numbered(1))
    with pytest.raises(Unroutable):
        await outbox.deliver(EXCHANGE, "nowhere", numbered(2))
    post(outbox, range(3, 5))
    assert await bench.got(2) == [3, 4]
    assert (outbox.unroutable, outbox.spooled, outbox.lost) == (2, 0, 0)


async def test_one_full_queue_does_not_block_the_others(bench: Bench) -> None:
    """Of the replay, what alone is refused goes to the end; when its queue has room it arrives."""
    outbox = await bench.outbox()
    await bench.broker.close()
    post(outbox, range(3), key="tiny")
    post(outbox, range(10, 20))
    await outbox.flush(20)
    await bench.broker.start()
    assert await bench.got(10) == list(range(10, 20))
    tiny = await Inbox().open(bench.server, "tiny")
    assert sorted(await tiny.bodies(3)) == [b"0", b"1", b"2"]


async def test_delivered_means_safe(bench: Bench) -> None:
    """Confirmed, or on disk; a perishable message that is dropped is an error."""
    outbox = await bench.outbox()
    await outbox.deliver(EXCHANGE, "a", numbered(1))
    assert outbox.confirmed == 1
    await bench.broker.close()
    await outbox.deliver(EXCHANGE, "a", numbered(2))
    assert outbox.spooled == 1
    with pytest.raises(BrokerError, match="not persistent"):
        await outbox.deliver(EXCHANGE, "a", numbered(3, persistent=False))


async def test_who_posts_can_hear_that_it_is_safe(bench: Bench) -> None:
    """Without waiting: None once it is confirmed or on disk, else why not; each is told once."""
    outbox = await bench.outbox()
    heard: dict[str, BrokerError | None] = {}

    def post_and_hear(name: str, key: str = "a", *, persistent: bool = True) -> None:
        def done(error: BrokerError | None) -> None:
            assert name not in heard
            heard[name] = error

        outbox.post(EXCHANGE, key, numbered(len(name), persistent=persistent), done)

    post_and_hear("confirmed")
    post_and_hear("unroutable", "nowhere")
    await outbox.flush(20)
    await bench.broker.close()
    post_and_hear("kept")
    post_and_hear("perishable", persistent=False)
    await outbox.flush(20)
    assert {name: type(error) for name, error in heard.items()} == {
        "confirmed": type(None),
        "unroutable": Unroutable,
        "kept": type(None),
        "perishable": BrokerError,
    }
    assert (outbox.confirmed, outbox.spooled) == (1, 1)


async def test_whoever_hears_may_fail(bench: Bench) -> None:
    """A callback that raises is logged; the messages behind it go on, and flush returns."""
    outbox = await bench.outbox()

    def done(error: BrokerError | None) -> None:
        raise ZeroDivisionError

    for n in range(3):
        outbox.post(EXCHANGE, "a", numbered(n), done)
    await asyncio.wait_for(outbox.flush(20), 20)
    assert await bench.got(3) == [0, 1, 2]


async def test_whoever_hears_may_post(bench: Bench) -> None:
    """Each confirmed message posts the next, five thousand times: neither the stack nor the order suffers."""
    outbox = await bench.outbox()
    await outbox.flush(20)  # it is open

    def go_on(n: int) -> None:
        if n < 5_000:
            outbox.post(EXCHANGE, "a", numbered(n), lambda error: go_on(n + 1))

    go_on(0)
    assert await bench.got(5_000) == list(range(5_000))


async def test_an_open_outbox_publishes_at_once(bench: Bench) -> None:
    """Nothing waits for another step of the loop: what was posted stands in its queue when post returns."""
    outbox = await bench.outbox()
    await outbox.flush(20)
    outbox.post(EXCHANGE, "a", numbered(1))
    assert (outbox.confirmed, outbox.waiting) == (1, 0)


async def test_what_is_refused_in_flight_keeps_its_place(bench: Bench) -> None:
    """Of fifty messages sent at once the broker refuses a few: they go through the spool, and nothing overtakes the
    rest twice; what is posted meanwhile comes behind them."""
    outbox = await bench.outbox()
    await outbox.flush(20)
    refused = {b"7", b"23", b"24"}
    bench.broker.refuses = lambda exchange, key, message: message.body in refused
    post(outbox, range(50))
    post(outbox, range(50, 60))
    await outbox.flush(20)
    bench.broker.refuses = None
    numbers = await bench.got(60)
    first = numbers[: numbers.index(7)]
    assert first == sorted(first)
    assert sorted(numbers) == list(range(60))
    assert [n for n in numbers if n in (7, 23, 24)] == [7, 23, 24]
    assert outbox.lost == outbox.dropped == 0


async def test_flush_ends_though_the_disk_is_full_too(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backlog, a disk that takes no more and a broker that is back: what was posted goes to the broker."""
    monkeypatch.setattr(module, "DISK_S", 0.1)
    await bench.broker.close()
    outbox = Outbox(bench.broker, FileSpool(bench.folder, max_bytes=100), bench.metrics, limit=10)
    bench.outboxes.append(outbox)
    await outbox.start()
    post(outbox, range(1))
    await outbox.flush(20)
    post(outbox, range(1, 9))
    await outbox.flush(0.01)
    assert (outbox.spooled, outbox.waiting) == (1, 9)
    await bench.broker.start()
    await asyncio.wait_for(outbox.flush(0), 20)
    assert sorted(await bench.got(9)) == list(range(9))


async def test_a_spool_without_room_keeps_memory_bounded(bench: Bench) -> None:
    """What cannot be kept anywhere is counted as lost; what could be kept arrives."""
    await bench.broker.close()
    spool = FileSpool(bench.folder, max_bytes=1)
    outbox = Outbox(bench.broker, spool, bench.metrics, limit=10)
    bench.outboxes.append(outbox)
    await outbox.start()
    post(outbox, range(25))
    post(outbox, range(100, 101), persistent=False)
    assert (outbox.waiting, outbox.lost, outbox.dropped) == (20, 5, 1)
    await bench.broker.start()
    assert await bench.got(20) == list(range(20))


async def test_a_record_that_cannot_be_read_is_skipped(bench: Bench) -> None:
    """Another version of the program may have written it."""
    spool = FileSpool(bench.folder)
    await spool.open()
    await spool.append([b"\xc1 not msgpack"])
    await spool.close()
    outbox = await bench.outbox()
    post(outbox, range(2))
    assert await bench.got(2) == [0, 1]
    await outbox.flush(20)
    assert outbox.waiting == 0
