"""The in-process broker with a journal: what is confirmed outlives the process, what is acknowledged does not return.

A process that was killed leaves its files as they are: here a copy of the folder, made at that moment.
"""

from __future__ import annotations

import asyncio
import resource
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from rtb.adapters import memory_journal
from rtb.adapters.clock import ManualClock
from rtb.adapters.memory_broker import MemoryBroker
from rtb.adapters.memory_journal import Journal, Kept
from rtb.errors import BrokerError
from rtb.ports import DEATH_QUEUE, DEATH_REASON, Binding, ExchangeType, Message, Overflow, QueueSpec, Topology

TOPOLOGY = Topology(
    {"events": ExchangeType.FANOUT},
    (
        QueueSpec("work", delivery_limit=3, dead_letter_exchange="", dead_letter_routing_key="dead"),
        QueueSpec("later", ttl_ms=1_000, dead_letter_exchange="", dead_letter_routing_key="work"),
        QueueSpec("tiny", max_length=1, overflow=Overflow.REJECT_PUBLISH),
        QueueSpec("a"),
        QueueSpec("b"),
        QueueSpec("dead"),
    ),
    (Binding("events", "a"), Binding("events", "b")),
)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write what nobody waits for within milliseconds, too."""
    monkeypatch.setattr(memory_journal, "GATHER_S", 0.0)
    monkeypatch.setattr(memory_journal, "LINGER_S", 0.001)
    monkeypatch.setattr(memory_journal, "RETRY_S", 0.01)


class Life:
    """Processes that follow one another on one journal."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = ManualClock()
        self.brokers: list[MemoryBroker] = []
        self._copies = 0

    async def begin(self, folder: Path | None = None) -> MemoryBroker:
        """A process on this folder, or on the one of all."""
        broker = MemoryBroker(self.clock, journal=folder or self.folder)
        self.brokers.append(broker)
        await broker.start()
        await broker.declare(TOPOLOGY)
        return broker

    async def after_a_kill(self, away_s: float = 0) -> MemoryBroker:
        """What a new process finds after a while if the present one dies now."""
        self._copies += 1
        copy = self.folder.with_name(f"copy{self._copies}")
        while True:
            try:
                shutil.copytree(self.folder, copy)
                break
            except shutil.Error:  # the thread deleted a file meanwhile: that was no moment in time
                shutil.rmtree(copy)
        self.clock.advance(away_s)
        return await self.begin(copy)


@pytest_asyncio.fixture
async def life(tmp_path: Path) -> AsyncIterator[Life]:
    made = Life(tmp_path / "journal")
    yield made
    for broker in made.brokers:
        await broker.close()


async def send(broker: MemoryBroker, queue: str, *bodies: bytes) -> None:
    """Publish, confirmed."""
    for body in bodies:
        await broker.publish("", queue, Message(body=body, message_id=body.decode()))


async def standing(broker: MemoryBroker, queue: str) -> list[bytes]:
    """The bodies in a queue; they are taken."""
    found = []
    while (delivery := await broker.get(queue)) is not None:
        found.append(delivery.message.body)
    return found


async def test_what_was_confirmed_is_there_after_a_kill(life: Life) -> None:
    """With all that it had, in order, as redelivered."""
    broker = await life.begin()
    whole = Message(
        body=b"1", message_id="m", correlation_id="c", reply_to="r", timestamp=1.5, headers={"x": 1, "y": "z", "w": 0.5}
    )
    await broker.publish("", "work", whole)
    await send(broker, "work", b"2", b"3")
    next_one = await life.after_a_kill()
    first = await next_one.get("work")
    assert first is not None
    assert (first.message, first.queue, first.routing_key) == (whole, "work", "work")
    assert (first.redelivered, first.delivery_count) == (True, 1)
    assert await standing(next_one, "work") == [b"2", b"3"]


async def test_only_persistent_messages_in_durable_queues_are_kept(life: Life) -> None:
    """As in RabbitMQ: not what is perishable, nor what stands in a connection's own queue."""
    broker = await life.begin()
    await broker.declare(Topology({}, [QueueSpec("own", exclusive=True)], [Binding("events", "own")]))
    await broker.publish("events", "", Message(body=b"kept"))
    await broker.publish("events", "", Message(body=b"perishable", persistent=False))
    assert await standing(broker, "own") == [b"kept", b"perishable"]
    next_one = await life.after_a_kill()
    assert [await standing(next_one, name) for name in ("a", "b")] == [[b"kept"], [b"kept"]]


async def test_what_is_acknowledged_does_not_come_back(life: Life) -> None:
    """Nor what is purged; what was delivered and not acknowledged does."""
    broker = await life.begin()
    await send(broker, "work", b"1", b"2", b"3")
    await send(broker, "a", b"purged")
    held = [await broker.get("work") for _ in range(2)]
    assert held[0] is not None
    held[0].ack()
    await broker.purge("a")
    await send(broker, "b", b"the next batch")
    next_one = await life.after_a_kill()
    assert await standing(next_one, "work") == [b"2", b"3"]
    assert await standing(next_one, "a") == []


async def test_a_stop_is_no_worse_than_a_kill(life: Life) -> None:
    """What is pending is written when it is closed; a journal without messages leaves no segment behind."""
    broker = await life.begin()
    await send(broker, "work", b"1", b"2")
    delivery = await broker.get("work")
    assert delivery is not None
    delivery.ack()
    await broker.close()
    again = await life.begin()
    assert await standing(again, "work") == [b"2"]
    await again.close()
    last = await life.begin()
    (left,) = [await last.get("work")]
    assert left is not None
    left.ack()
    await last.close()
    assert list(life.folder.glob("*.journal")) == []


async def test_a_connection_that_comes_back_finds_everything_once(life: Life) -> None:
    """Closed and started again in one process: the messages of the journal are there, in order, and none is doubled."""
    broker = await life.begin()
    await send(broker, "work", b"1", b"2")
    await broker.close()
    await broker.start()
    await send(broker, "work", b"3")
    assert await standing(broker, "work") == [b"1", b"2", b"3"]


async def test_a_message_dies_in_its_next_queue_too(life: Life) -> None:
    """Whenever the process is killed, a rejected message is in the queue or in the dead letters, with its reason."""
    broker = await life.begin()
    await send(broker, "work", b"1")
    delivery = await broker.get("work")
    assert delivery is not None
    delivery.nack(requeue=False)
    at_once = await life.after_a_kill()
    assert [await standing(at_once, name) for name in ("work", "dead")] == [[b"1"], []]
    await send(broker, "a", b"the next batch")
    later = await life.after_a_kill()
    assert await standing(later, "work") == []
    dead = await later.get("dead")
    assert dead is not None
    assert (dead.message.headers[DEATH_REASON], dead.message.headers[DEATH_QUEUE]) == ("rejected", "work")


async def test_time_goes_on_while_nobody_is_there(life: Life) -> None:
    """A retry that is due in 1 s, 0.4 s before and 0.5 s after the kill, waits 0.1 s more; one that is long due goes on
    at once."""
    broker = await life.begin()
    await send(broker, "later", b"1")
    life.clock.advance(0.4)
    soon = await life.after_a_kill(away_s=0.5)
    assert ((await soon.depth("later")).ready, (await soon.depth("work")).ready) == (1, 0)
    life.clock.advance(0.1)
    assert await standing(soon, "work") == [b"1"]
    late = await life.after_a_kill(away_s=3_600)
    assert ((await late.depth("later")).ready, await standing(late, "work")) == (0, [b"1"])


async def test_a_queue_that_is_declared_later_gets_what_is_its_own(life: Life) -> None:
    """What the journal has for a queue that nobody declares waits there, through further starts."""
    broker = await life.begin()
    await broker.declare(Topology({}, [QueueSpec("old")], []))
    await send(broker, "old", b"1", b"2")
    await broker.close()
    await (await life.begin()).close()
    last = await life.begin()
    await last.declare(Topology({}, [QueueSpec("old")], []))
    assert await standing(last, "old") == [b"1", b"2"]


async def test_a_disk_that_refuses_is_the_publishers_error(life: Life) -> None:
    """It says so, the message is nowhere; acknowledgements and moves go on, and are on disk once it takes them."""
    broker = await life.begin()
    await send(broker, "work", b"1", b"2")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, hard))
    try:
        with pytest.raises(BrokerError, match=r"not kept: journal .* File too large"):
            await send(broker, "work", b"3")
        with pytest.raises(BrokerError, match="File too large"):
            await send(broker, "tiny", b"4")
        first, second = await broker.get("work"), await broker.get("work")
        assert first is not None
        assert second is not None
        first.ack()
        second.nack(requeue=False)
        with pytest.raises(BrokerError, match="File too large"):
            await send(broker, "work", b"3")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    await send(broker, "tiny", b"5")  # the refused one takes no room
    assert await standing(broker, "work") == []
    next_one = await life.after_a_kill()
    found = [await standing(next_one, name) for name in ("work", "dead", "tiny")]
    assert found == [[], [b"2"], [b"5"]]


async def test_a_full_queue_counts_what_is_on_its_way(life: Life) -> None:
    """Two messages sent within one step, where one fits: the second is refused though the first is not yet on disk."""
    broker = await life.begin()
    said: list[BrokerError | None] = []
    for body in (b"1", b"2"):
        broker.send("", "tiny", Message(body=body), said.append)
    await send(broker, "a", b"the next batch")
    assert [type(error) for error in said] == [BrokerError, type(None)]
    assert await standing(broker, "tiny") == [b"1"]


async def test_a_message_too_large_for_the_journal_is_refused(life: Life) -> None:
    """Over 16 MiB; the broker goes on."""
    broker = await life.begin()
    with pytest.raises(BrokerError, match="not kept: a record has"):
        await broker.publish("", "work", Message(body=bytes(16 << 20)))
    await send(broker, "work", b"1")


async def test_one_process_at_a_time(life: Life, tmp_path: Path) -> None:
    """A second one is told, and so is one whose folder cannot be."""
    await life.begin()
    with pytest.raises(BrokerError, match="in use by another process"):
        await life.begin()
    (tmp_path / "file").write_text("")
    with pytest.raises(BrokerError, match=r"journal .*file"):
        await life.begin(tmp_path / "file")


async def test_the_journals_of_workers_that_are_no_more_are_inherited(life: Life, tmp_path: Path) -> None:
    """Of four workers two are left: the first takes over what workers 2 and 3 had, unless somebody uses it."""
    for number in range(1, 5):
        worker = await life.begin(tmp_path / f"journal.{number}")
        await send(worker, "work", b"%d" % number, b"%d0" % number)
        if number < 4:
            await worker.close()
    await send(await life.begin(), "work", b"own")
    await life.brokers[-1].close()
    heir = MemoryBroker(life.clock, journal=life.folder, heir_from=2)
    life.brokers.append(heir)
    await heir.start()
    await heir.declare(TOPOLOGY)
    assert await standing(heir, "work") == [b"own", b"2", b"20", b"3", b"30"]
    await send(heir, "work", b"new")
    next_one = await life.after_a_kill()
    assert await standing(next_one, "work") == [b"own", b"2", b"20", b"3", b"30", b"new"]
    assert await standing(await life.begin(tmp_path / "journal.1"), "work") == [b"1", b"10"]


def kept(body: bytes) -> Kept:
    return Kept("q", "", "q", body, "", "", "", None, None, {})


async def journal(folder: Path, segment_bytes: int = 8 << 20) -> tuple[Journal, list[bytes]]:
    """An open journal, and what it found."""
    made = Journal(folder, segment_bytes=segment_bytes)
    return made, [one.body for _, one in await made.open()]


async def written(one: Journal, *bodies: bytes) -> range:
    """Write messages and wait until they are durable; their ids."""
    done = asyncio.get_running_loop().create_future()
    first = one.put([kept(body) for body in bodies], done.set_result)
    assert await done is None
    return range(first, first + len(bodies))


def size(path: Path) -> int:
    """Of a file in bytes, 0 once it is deleted: the journal's thread may do so at any moment."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


async def test_a_message_that_nobody_takes_keeps_no_others_on_disk(tmp_path: Path) -> None:
    """Of 20,000 messages of 100 bytes each but the first few is acknowledged soon: the log stays within a few segments
    of 10,000 bytes, and those few are still in it."""
    one, _ = await journal(tmp_path, 10_000)
    stuck = await written(one, *(b"stuck %d" % n for n in range(3)))
    longest = 0
    for _ in range(200):
        for id_ in await written(one, *(bytes(100) for _ in range(100))):
            one.gone(id_)
        longest = max(longest, sum(map(size, tmp_path.glob("*.journal"))))
    assert longest < 100_000
    await one.close()
    one, found = await journal(tmp_path, 10_000)
    assert found == [b"stuck 0", b"stuck 1", b"stuck 2"]
    for id_ in stuck:
        one.gone(id_)
    await one.close()
    assert (await journal(tmp_path))[1] == []


@pytest.mark.timeout(1_200)  # a slow disk takes half a second for each of many syncs
@settings(max_examples=50, deadline=None)
@given(
    bodies=st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=8),
    data=st.data(),
    tail=st.sampled_from([b"", b"\0" * 30, b"\xff" * 30]),
)
def test_any_truncation_keeps_the_whole_records(
    tmp_path_factory: pytest.TempPathFactory, bodies: list[bytes], data: st.DataObject, tail: bytes
) -> None:
    """Cut anywhere, with or without rubbish behind the cut: what was written in front of it is there, and the journal
    can be used."""
    folder = tmp_path_factory.mktemp("journal")

    async def write() -> list[int]:
        ends = []
        one, _ = await journal(folder)
        for body in bodies:
            await written(one, body)
            ends.append(sum(path.stat().st_size for path in folder.glob("*.journal")))
        await one.close()
        return ends

    async def read(*more: bytes) -> list[bytes]:
        one, found = await journal(folder)
        if more:
            await written(one, *more)
        await one.close()
        return found

    ends = asyncio.run(write())
    (segment,) = folder.glob("*.journal")
    whole = segment.read_bytes()
    cut = data.draw(st.integers(0, len(whole)))
    segment.write_bytes(whole[:cut] + (tail if cut < len(whole) else b""))
    expected = [body for body, end in zip(bodies, ends, strict=True) if end <= cut]
    found = asyncio.run(read(b"later"))
    assert found[: len(expected)] == expected
    if not tail:
        assert found == expected
    assert asyncio.run(read()) == [*found, b"later"]
