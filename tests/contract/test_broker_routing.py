"""Contract of ports.Broker: declaring, routing, publishing."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from rtb.errors import BrokerError, Unroutable
from rtb.ports import DIRECT_REPLY_TO, Binding, Broker, ExchangeType, Message, Overflow, QueueSpec, Topology
from tests.contract.brokers import Connect, Inbox


def topology(
    kind: ExchangeType = ExchangeType.DIRECT,
    *,
    exchange: str,
    queues: Sequence[str],
    bindings: Sequence[tuple[str, str]],
) -> Topology:
    """One exchange with bindings of (routing key, queue)."""
    return Topology(
        {exchange: kind}, [QueueSpec(q) for q in queues], [Binding(exchange, q, key) for key, q in bindings]
    )


async def depth(broker: Broker, queue: str) -> int:
    """The messages ready in a queue."""
    return (await broker.depth(queue)).ready


async def test_a_direct_exchange_routes_by_the_exact_key(broker: Broker, prefix: str) -> None:
    """A direct exchange delivers to every queue bound with the very key, and to no other."""
    ex, a, b, c = (f"{prefix}.{name}" for name in ("ex", "a", "b", "c"))
    await broker.declare(topology(exchange=ex, queues=[a, b, c], bindings=[("k", a), ("k", b), ("k.x", c)]))
    await broker.publish(ex, "k", Message(body=b"1"))
    assert [await depth(broker, queue) for queue in (a, b, c)] == [1, 1, 0]


async def test_a_topic_exchange_routes_by_pattern(broker: Broker, prefix: str) -> None:
    """``*`` stands for one word and ``#`` for any number of words."""
    ex, one, any_, exact = (f"{prefix}.{name}" for name in ("ex", "one", "any", "exact"))
    await broker.declare(
        topology(
            ExchangeType.TOPIC,
            exchange=ex,
            queues=[one, any_, exact],
            bindings=[("event.*", one), ("event.#", any_), ("event.click", exact)],
        )
    )
    for key in ("event.click", "event.win", "event.click.late", "event"):
        await broker.publish(ex, key, Message(body=b"1"))
    assert [await depth(broker, queue) for queue in (one, any_, exact)] == [2, 4, 1]


async def test_a_fanout_exchange_ignores_the_key(broker: Broker, prefix: str) -> None:
    """A fanout exchange delivers to every bound queue."""
    ex, a, b = (f"{prefix}.{name}" for name in ("ex", "a", "b"))
    await broker.declare(topology(ExchangeType.FANOUT, exchange=ex, queues=[a, b], bindings=[("", a), ("x", b)]))
    await broker.publish(ex, "whatever", Message(body=b"1"))
    assert [await depth(broker, queue) for queue in (a, b)] == [1, 1]


async def test_a_queue_gets_a_message_once(broker: Broker, prefix: str) -> None:
    """Several bindings of one queue that fit a message make one copy."""
    ex, queue = f"{prefix}.ex", f"{prefix}.q"
    bindings = [("#", queue), ("a.*", queue), ("a.b", queue)]
    await broker.declare(topology(ExchangeType.TOPIC, exchange=ex, queues=[queue], bindings=bindings))
    await broker.publish(ex, "a.b", Message(body=b"1"))
    assert await depth(broker, queue) == 1


async def test_the_default_exchange_routes_to_the_queue_named_by_the_key(broker: Broker, prefix: str) -> None:
    """Exchange "" needs no binding."""
    await broker.declare(Topology({}, [QueueSpec(prefix)], []))
    await broker.publish("", prefix, Message(body=b"1"))
    inbox = await Inbox().open(broker, prefix)
    delivery = await inbox.next()
    assert (delivery.queue, delivery.routing_key, delivery.message.body) == (prefix, prefix, b"1")


async def test_a_message_arrives_as_it_was_published(broker: Broker, prefix: str) -> None:
    """Body, properties and headers survive; a first delivery says so."""
    sent = Message(
        body=b"\x00\xff{}",
        message_id="m-1",
        correlation_id="c-1",
        reply_to="r-1",
        timestamp=1_767_225_600.0,
        persistent=False,
        headers={"attempt": 2, "source": "test", "share": 0.5},
    )
    await broker.declare(Topology({}, [QueueSpec(prefix)], []))
    await broker.publish("", prefix, sent)
    delivery = await (await Inbox().open(broker, prefix)).next()
    got = delivery.message
    assert (got.body, got.message_id, got.correlation_id, got.reply_to) == (b"\x00\xff{}", "m-1", "c-1", "r-1")
    assert (got.timestamp, got.persistent, dict(got.headers)) == (1_767_225_600.0, False, dict(sent.headers))
    assert (delivery.redelivered, delivery.delivery_count) == (False, 0)


async def test_messages_come_in_the_order_published(broker: Broker, prefix: str) -> None:
    """A queue is first in, first out."""
    await broker.declare(Topology({}, [QueueSpec(prefix)], []))
    for n in range(200):
        await broker.publish("", prefix, Message(body=b"%d" % n))
    inbox = await Inbox().open(broker, prefix, prefetch=7)
    assert await inbox.bodies(200) == [b"%d" % n for n in range(200)]


async def test_a_reply_goes_through_the_default_exchange(connect: Connect, prefix: str) -> None:
    """A requester names its own queue in reply_to and recognises the answer by its correlation_id."""
    server, client = await connect(), await connect()
    requests, replies = f"{prefix}.requests", f"{prefix}.replies"
    await server.declare(Topology({}, [QueueSpec(requests)], []))
    await client.declare(Topology({}, [QueueSpec(replies, exclusive=True)], []))
    answers = await Inbox().open(client, replies)
    work = await Inbox().open(server, requests)
    await client.publish("", requests, Message(body=b"ask", reply_to=replies, correlation_id="c-7"))
    asked = (await work.next()).message
    await server.publish("", asked.reply_to, Message(body=b"answer", correlation_id=asked.correlation_id))
    answer = (await answers.next()).message
    assert (answer.body, answer.correlation_id) == (b"answer", "c-7")


async def test_a_direct_reply_needs_no_queue(connect: Connect, prefix: str) -> None:
    """Who consumes DIRECT_REPLY_TO gets the answers to its own requests, and nothing has to be acknowledged."""
    server, client, other = await connect(), await connect(), await connect()
    await server.declare(Topology({}, [QueueSpec(prefix)], []))
    work = await Inbox().open(server, prefix)
    answers = await Inbox(ack=False).open(client, DIRECT_REPLY_TO, prefetch=1)
    others = await Inbox(ack=False).open(other, DIRECT_REPLY_TO, prefetch=1)
    for n, requester in enumerate((client, other, client)):
        request = Message(body=b"ask", reply_to=DIRECT_REPLY_TO, correlation_id=f"c-{n}")
        await requester.publish("", prefix, request)
    for _ in range(3):
        asked = (await work.next()).message
        await server.publish("", asked.reply_to, Message(body=b"answer", correlation_id=asked.correlation_id))
    assert [(await answers.next()).message.correlation_id for _ in range(2)] == ["c-0", "c-2"]
    assert (await others.next()).message.correlation_id == "c-1"


async def test_a_direct_reply_to_nobody_is_lost(connect: Connect, prefix: str) -> None:
    """When the requester has gone there is no error; one who never consumed cannot ask."""
    server, client = await connect(), await connect()
    await server.declare(Topology({}, [QueueSpec(prefix)], []))
    request = Message(body=b"ask", reply_to=DIRECT_REPLY_TO)
    with pytest.raises(BrokerError, match="nobody here consumes it"):
        await client.publish("", prefix, request)
    answers = await Inbox().open(client, DIRECT_REPLY_TO)
    await client.publish("", prefix, request)
    asked = (await (await Inbox().open(server, prefix)).next()).message
    await answers.subscription.cancel()
    await server.publish("", asked.reply_to, Message(body=b"answer"))
    with pytest.raises(BrokerError, match="nobody here consumes it"):
        await client.publish("", prefix, request)


async def test_a_mandatory_message_without_a_queue_is_unroutable(broker: Broker, prefix: str) -> None:
    """Publishing into the void is an error that names exchange and key, unless the message is not mandatory."""
    await broker.declare(Topology({prefix: ExchangeType.DIRECT}, [], []))
    with pytest.raises(Unroutable, match=rf"{prefix}.*no\.such"):
        await broker.publish(prefix, "no.such", Message(body=b"1"))
    with pytest.raises(Unroutable):
        await broker.publish("", f"{prefix}.nobody", Message(body=b"1"))
    await broker.publish(prefix, "no.such", Message(body=b"1"), mandatory=False)


async def test_publishing_to_an_unknown_exchange_fails(broker: Broker, prefix: str) -> None:
    """The error names the exchange; the connection stays usable."""
    with pytest.raises(BrokerError, match=prefix):
        await broker.publish(prefix, "k", Message(body=b"1"))
    await broker.declare(Topology({}, [QueueSpec(prefix)], []))
    await broker.publish("", prefix, Message(body=b"1"))
    assert await depth(broker, prefix) == 1


async def test_a_full_rejecting_queue_refuses_the_publisher(broker: Broker, prefix: str) -> None:
    """With reject-publish nothing that stands in the queue is lost."""
    spec = QueueSpec(prefix, max_length=2, overflow=Overflow.REJECT_PUBLISH)
    await broker.declare(Topology({}, [spec], []))
    for body in (b"1", b"2"):
        await broker.publish("", prefix, Message(body=body))
    with pytest.raises(BrokerError):
        await broker.publish("", prefix, Message(body=b"3"))
    assert await (await Inbox().open(broker, prefix)).bodies(2) == [b"1", b"2"]
    await broker.publish("", prefix, Message(body=b"4"))


async def test_declaring_again_changes_nothing(connect: Connect, prefix: str) -> None:
    """The same topology can be declared by everybody, at any time, and keeps the messages."""
    first, second = await connect(), await connect()
    same = topology(exchange=f"{prefix}.ex", queues=[f"{prefix}.q"], bindings=[("k", f"{prefix}.q")])
    await first.declare(same)
    await first.publish(f"{prefix}.ex", "k", Message(body=b"1"))
    await second.declare(same)
    await second.publish(f"{prefix}.ex", "k", Message(body=b"2"))
    assert await depth(first, f"{prefix}.q") == 2


@pytest.mark.parametrize(
    "other",
    [
        QueueSpec("q", ttl_ms=2_000),
        QueueSpec("q", ttl_ms=1_000, max_length=5),
        QueueSpec("q", ttl_ms=1_000, dead_letter_exchange="x"),
        QueueSpec("q"),
    ],
)
async def test_a_queue_declared_otherwise_is_named(broker: Broker, prefix: str, other: QueueSpec) -> None:
    """A queue that exists with other properties is an error that names it, and stays as it was."""
    name = f"{prefix}.q"
    await broker.declare(Topology({}, [QueueSpec(name, ttl_ms=1_000)], []))
    changed = QueueSpec(
        name, ttl_ms=other.ttl_ms, max_length=other.max_length, dead_letter_exchange=other.dead_letter_exchange
    )
    with pytest.raises(BrokerError, match=name):
        await broker.declare(Topology({}, [changed], []))
    await broker.declare(Topology({}, [QueueSpec(name, ttl_ms=1_000)], []))


async def test_an_exchange_declared_otherwise_is_named(broker: Broker, prefix: str) -> None:
    """An exchange that exists with another type is an error that names it."""
    await broker.declare(Topology({prefix: ExchangeType.TOPIC}, [], []))
    with pytest.raises(BrokerError, match=prefix):
        await broker.declare(Topology({prefix: ExchangeType.FANOUT}, [], []))


async def test_differences_are_told_and_not_mended(broker: Broker, prefix: str) -> None:
    """A missing or different exchange or queue has one line that names it; nothing is declared by asking."""
    ex, same, other, none = (f"{prefix}.{name}" for name in ("ex", "same", "other", "none"))
    money = QueueSpec(same, max_length=5, overflow=Overflow.REJECT_PUBLISH, delivery_limit=3, dead_letter_exchange="")
    await broker.declare(Topology({ex: ExchangeType.TOPIC, same: ExchangeType.FANOUT}, [money, QueueSpec(other)], []))
    wanted = Topology(
        {ex: ExchangeType.DIRECT, same: ExchangeType.FANOUT, none: ExchangeType.TOPIC},
        [money, QueueSpec(other, max_length=1), QueueSpec(none)],
        [],
    )
    for _ in range(2):
        found = await broker.differences(wanted)
        assert len(found) == 4
        assert found[0].startswith(f"exchange {ex} exists")
        assert found[1] == f"exchange {none} is missing"
        assert found[2].startswith(f"queue {other} exists")
        assert found[3] == f"queue {none} is missing"


async def test_binding_what_does_not_exist_fails(broker: Broker, prefix: str) -> None:
    """A binding needs its exchange and its queue."""
    await broker.declare(Topology({f"{prefix}.ex": ExchangeType.DIRECT}, [QueueSpec(f"{prefix}.q")], []))
    with pytest.raises(BrokerError, match=rf"{prefix}\.none"):
        await broker.declare(Topology({}, [], [Binding(f"{prefix}.none", f"{prefix}.q", "k")]))
    with pytest.raises(BrokerError, match=rf"{prefix}\.none"):
        await broker.declare(Topology({}, [], [Binding(f"{prefix}.ex", f"{prefix}.none", "k")]))


async def test_purge_drops_what_is_ready(broker: Broker, prefix: str) -> None:
    """Purging tells how many messages there were; unacknowledged ones stay with their consumer."""
    await broker.declare(Topology({}, [QueueSpec(prefix)], []))
    for body in (b"1", b"2", b"3"):
        await broker.publish("", prefix, Message(body=body))
    inbox = await Inbox(ack=False).open(broker, prefix, prefetch=1)
    held = await inbox.next()
    assert await broker.purge(prefix) == 2
    held.nack(requeue=True)
    again = await inbox.next()
    assert again.message.body == b"1"
    again.ack()


async def test_an_unknown_queue_is_named(broker: Broker, prefix: str) -> None:
    """Consuming, measuring or purging a queue that is not there fails; the connection stays usable."""
    for call in (
        broker.consume(prefix, lambda delivery: None, prefetch=1),
        broker.depth(prefix),
        broker.purge(prefix),
        broker.get(prefix),
    ):
        with pytest.raises(BrokerError, match=prefix):
            await call
    await broker.declare(Topology({}, [QueueSpec(prefix)], []))
    assert await depth(broker, prefix) == 0


async def test_an_exclusive_queue_ends_with_its_connection(connect: Connect, prefix: str) -> None:
    """Only the connection that declared it may consume; once that is closed, the queue and its bindings are gone."""
    owner, other = await connect(), await connect()
    ex = f"{prefix}.ex"
    await owner.declare(
        Topology(
            {ex: ExchangeType.FANOUT}, [QueueSpec(f"{prefix}.own", exclusive=True)], [Binding(ex, f"{prefix}.own")]
        )
    )
    await other.publish(ex, "", Message(body=b"1"))
    with pytest.raises(BrokerError, match=rf"{prefix}\.own"):
        await other.consume(f"{prefix}.own", lambda delivery: None, prefetch=1)
    await owner.close()
    with pytest.raises(Unroutable):
        await other.publish(ex, "", Message(body=b"2"))


async def test_a_closed_connection_says_so(connect: Connect, prefix: str) -> None:
    """A connection is ready between start and close; afterwards publishing fails, and closing again does nothing."""
    broker = await connect()
    assert broker.connected
    await broker.close()
    assert not broker.connected
    with pytest.raises(BrokerError):
        await broker.publish("", prefix, Message(body=b"1"))
    await broker.close()
