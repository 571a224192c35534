"""A real RabbitMQ that is killed, frozen, absent, short of memory, or loses a queue: nothing confirmed is lost, memory
stays bounded, and everything comes back without a human."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import aiormq
import psutil
import pytest

from rtb.adapters.amqp import RabbitBroker
from rtb.adapters.clock import SystemClock
from rtb.errors import BrokerError
from rtb.lab.servers.process import accepts
from rtb.lab.servers.rabbitmq import RabbitServer, is_installed
from rtb.ports import DIRECT_REPLY_TO, Binding, Delivery, ExchangeType, Message, Overflow, QueueSpec, Topology

PATIENCE_S = 60.0
PUBLISHERS = 20
KILLS = 3
ROUND = 400
"""Messages confirmed before each kill."""

SETTLED_S = 1.5
"""RabbitMQ writes the name of a new quorum queue to disk after 500 ms (ra_directory, auto_save); killed before, it
forgets the queue. A daemon's queues are older than that."""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitServer]:
    """One node for all these tests; each leaves it running, or finds it restarted."""
    if not is_installed():
        pytest.skip("no rabbitmq-server on this machine: apt-get install rabbitmq-server")
    server = RabbitServer(tmp_path_factory.mktemp("rabbitmq"))
    yield server
    server.stop()


@pytest.fixture
def server(node: RabbitServer) -> RabbitServer:
    """The node, running."""
    if not accepts(node.port):
        node.start()
    return node


@pytest.fixture
def prefix() -> str:
    """Keeps the objects of one test apart from another's."""
    return uuid4().hex[:8]


@asynccontextmanager
async def connected(server: RabbitServer, **options: Any) -> AsyncIterator[RabbitBroker]:
    """A started connection that notices a dead broker within 6 s."""
    broker = RabbitBroker(server.url, SystemClock(), heartbeat_s=1, **options)
    await broker.start()
    try:
        yield broker
    finally:
        await asyncio.wait_for(broker.close(), PATIENCE_S)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what no event tells."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def publish(broker: RabbitBroker, exchange: str, key: str, id_: str) -> None:
    """Publish until it is confirmed, always with the same message_id."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                return await broker.publish(exchange, key, Message(body=id_.encode(), message_id=id_))
            except BrokerError:
                await asyncio.sleep(0.05)


def money(name: str, **more: Any) -> QueueSpec:
    """A quorum queue."""
    return QueueSpec(name, delivery_limit=20, overflow=Overflow.REJECT_PUBLISH, max_length=100_000, **more)


async def drained(broker: RabbitBroker, queue: str) -> None:
    """Return once nothing is ready for its one consumer: a second copy of what was confirmed late may be on its way."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            depth = await broker.depth(queue)
            if (depth.ready, depth.consumers) == (0, 1):
                return
            await asyncio.sleep(0.02)


class Seen:
    """Acknowledges everything and remembers the ids."""

    def __init__(self) -> None:
        self.ids: set[str] = set()

    def take(self, delivery: Delivery) -> None:
        """A consumer that tells duplicates by their message_id."""
        self.ids.add(delivery.message.message_id)
        delivery.ack()


async def test_a_broker_killed_three_times_loses_nothing_confirmed(server: RabbitServer, prefix: str) -> None:
    """Under load, on a quorum queue and on a classic one: every confirmed message reaches the consumer, who
    acknowledges across the kills; the exclusive queue of this connection is there again, and bound."""
    ex, quorum, classic, own = (f"{prefix}.{name}" for name in ("ex", "quorum", "classic", "own"))
    wanted = Topology(
        {ex: ExchangeType.FANOUT},
        [money(quorum), QueueSpec(classic), QueueSpec(own, exclusive=True)],
        [Binding(ex, own)],
    )
    confirmed: set[str] = set()
    seen, told = Seen(), Seen()
    stopping = False

    async def produce(broker: RabbitBroker, n: int) -> None:
        i = 0
        while not stopping:
            id_ = f"{n}-{i}"
            await publish(broker, "", (quorum, classic)[i % 2], id_)
            confirmed.add(id_)
            i += 1

    async with connected(server) as broker:
        await broker.declare(wanted)
        await asyncio.sleep(SETTLED_S)
        for queue in (quorum, classic):
            await broker.consume(queue, seen.take, prefetch=50)
        await broker.consume(own, told.take, prefetch=50)
        producers = [asyncio.create_task(produce(broker, n)) for n in range(PUBLISHERS)]
        for kill in range(KILLS):
            goal = len(confirmed) + ROUND
            await until(lambda goal=goal: len(confirmed) >= goal)  # type: ignore[misc]
            await asyncio.to_thread(server.kill)
            await until(lambda: not broker.connected)
            await asyncio.to_thread(server.start)
            await publish(broker, ex, "", f"back-{kill}")
        stopping = True
        await asyncio.gather(*producers)
        await until(lambda: confirmed <= seen.ids)
        await until(lambda: told.ids == {f"back-{kill}" for kill in range(KILLS)})
        assert broker.pending == 0
        for queue in (quorum, classic):
            await drained(broker, queue)


async def test_a_frozen_broker_is_left_and_found_again(server: RabbitServer, prefix: str) -> None:
    """While it stands still publishing fails in bounded time and the connection is given up; another connection can be
    closed; when it goes on, everything is there again and nothing confirmed was lost."""
    seen = Seen()
    async with connected(server, confirm_limit_s=1.0) as broker, connected(server, confirm_limit_s=1.0) as other:
        await broker.declare(Topology({}, [money(prefix)], []))
        await other.consume(prefix, lambda delivery: None, prefetch=1)
        await broker.consume(prefix, seen.take, prefetch=10)
        await publish(broker, "", prefix, "before")
        server.pause()
        try:
            with pytest.raises(BrokerError, match="not confirmed within 1 s"):
                await broker.publish("", prefix, Message(body=b"1", message_id="frozen"))
            await asyncio.wait_for(other.close(), PATIENCE_S)
            await until(lambda: not broker.connected)
            with pytest.raises(BrokerError, match=r"not sent to the broker within 1 s|the connection was lost"):
                await broker.publish("", prefix, Message(body=b"1", message_id="away"))
        finally:
            server.resume()
        await publish(broker, "", prefix, "after")
        await until(lambda: {"before", "after"} <= seen.ids)


async def test_under_a_memory_alarm_consumers_go_on_draining(server: RabbitServer, prefix: str) -> None:
    """Publishers wait, in a bounded number, and go on when the alarm is over; the consumer empties the queue."""
    seen = Seen()
    options = {"confirm_limit_s": PATIENCE_S, "max_pending": 50}
    async with connected(server, **options) as broker:
        await broker.declare(Topology({}, [money(prefix)], []))
        for n in range(0, 500, 50):
            await asyncio.gather(*(publish(broker, "", prefix, f"old-{n + i}") for i in range(50)))
        await asyncio.to_thread(server.raise_memory_alarm)
        try:
            waiting = [asyncio.create_task(publish(broker, "", prefix, "new-0"))]
            await until(lambda: broker.blocked is not None)
            waiting += [asyncio.create_task(publish(broker, "", prefix, f"new-{n}")) for n in range(1, 50)]
            await until(lambda: broker.pending == 50)
            with pytest.raises(BrokerError, match=r"50 messages .* blocks publishers"):
                await broker.publish("", prefix, Message(body=b"one more"))
            await broker.consume(prefix, seen.take, prefetch=10)
            await until(lambda: seen.ids >= {f"old-{n}" for n in range(500)})
            assert not any(task.done() for task in waiting[1:])
        finally:
            await asyncio.to_thread(server.clear_memory_alarm)
        await asyncio.gather(*waiting)
        await until(lambda: seen.ids >= {f"new-{n}" for n in range(50)})


async def test_what_is_deleted_under_its_users_is_declared_again(server: RabbitServer, prefix: str) -> None:
    """A queue deleted under its consumer, and an exchange under its publisher, come back with bindings and consumer;
    the connections stay, and direct replies still arrive."""
    seen, answers = Seen(), Seen()
    async with connected(server) as broker:
        await broker.declare(
            Topology({f"{prefix}.ex": ExchangeType.DIRECT}, [money(prefix)], [Binding(f"{prefix}.ex", prefix, "k")])
        )
        await broker.consume(prefix, seen.take, prefetch=10)
        await broker.consume(DIRECT_REPLY_TO, answers.take, prefetch=10)
        await publish(broker, f"{prefix}.ex", "k", "1")
        await until(lambda: "1" in seen.ids)
        async with aiormq.connect(server.url) as vandal:
            channel = await vandal.channel()
            await channel.queue_delete(prefix)
            await publish(broker, f"{prefix}.ex", "k", "2")
            await until(lambda: "2" in seen.ids)
            await channel.exchange_delete(f"{prefix}.ex")
            await publish(broker, f"{prefix}.ex", "k", "3")
            await until(lambda: "3" in seen.ids)
        assert broker.connected
        await broker.declare(Topology({}, [QueueSpec(f"{prefix}.ask")], []))
        await broker.publish("", f"{prefix}.ask", Message(body=b"", reply_to=DIRECT_REPLY_TO))
        asked = await broker.get(f"{prefix}.ask")
        assert asked is not None
        await publish(broker, "", asked.message.reply_to, "answer")
        await until(lambda: answers.ids == {"answer"})


async def test_a_message_that_kills_its_consumers_is_put_aside(server: RabbitServer, prefix: str) -> None:
    """With a delivery limit of 2 the third consumer that dies with it is the last; the next message gets through."""
    dead = f"{prefix}.dead"
    poison = QueueSpec(prefix, delivery_limit=2, dead_letter_exchange="", dead_letter_routing_key=dead)
    async with connected(server) as broker:
        await broker.declare(Topology({}, [poison, QueueSpec(dead)], []))
        await publish(broker, "", prefix, "poison")
        for _ in range(3):
            async with connected(server) as victim:
                taken: asyncio.Queue[Delivery] = asyncio.Queue()
                await victim.consume(prefix, taken.put_nowait, prefetch=1)
                assert (await asyncio.wait_for(taken.get(), PATIENCE_S)).message.message_id == "poison"
        buried, seen = Seen(), Seen()
        await broker.consume(dead, buried.take, prefetch=1)
        await until(lambda: buried.ids == {"poison"})
        await broker.consume(prefix, seen.take, prefetch=1)
        await publish(broker, "", prefix, "fine")
        await until(lambda: seen.ids == {"fine"})


async def test_a_consumer_slower_than_its_producer_needs_no_memory(server: RabbitServer, prefix: str) -> None:
    """Of 80 MB that wait for it a consumer holds its prefetch and no more."""
    held: list[Delivery] = []
    most = 0

    def take(delivery: Delivery) -> None:
        nonlocal most
        held.append(delivery)
        most = max(most, len(held))

    async with connected(server, confirm_limit_s=PATIENCE_S) as broker:
        await broker.declare(Topology({}, [QueueSpec(prefix)], []))
        await broker.consume(prefix, take, prefetch=100)
        message = Message(body=bytes(4_096), persistent=False)
        before = psutil.Process().memory_info().rss
        for _ in range(100):
            await asyncio.gather(*(broker.publish("", prefix, message) for _ in range(200)))
            for delivery in held[:10]:
                delivery.ack()
            del held[:10]
        grown = psutil.Process().memory_info().rss - before
        assert most <= 100
        assert (await broker.depth(prefix)).ready >= 20_000 - 100 - 10 * 100
        assert grown < 40 << 20
        await broker.purge(prefix)


async def test_a_daemon_starts_and_stops_without_its_broker(server: RabbitServer, prefix: str) -> None:
    """Without the broker a start fails, unless it is deferred: then what was declared and consumed is there when the
    broker comes. Closing without the broker takes a bounded time."""
    await asyncio.to_thread(server.kill)
    strict = RabbitBroker(server.url, SystemClock())
    with pytest.raises(BrokerError, match="cannot connect"):
        await strict.start()
    seen = Seen()
    async with connected(server, deferred=True) as broker:
        assert not broker.connected
        await broker.declare(Topology({}, [money(prefix)], []))
        await broker.consume(prefix, seen.take, prefetch=10)
        with pytest.raises(BrokerError, match="cannot connect"):
            await broker.depth(prefix)
        await asyncio.to_thread(server.start)
        await publish(broker, "", prefix, "1")
        await until(lambda: seen.ids == {"1"})
        await asyncio.to_thread(server.kill)
