"""Contract of ports.Broker: expiry, overflow, delivery limits, and where the dead go."""

from __future__ import annotations

from collections.abc import Mapping

from rtb.ports import (
    DEATH_COUNT,
    DEATH_EXCHANGE,
    DEATH_QUEUE,
    DEATH_REASON,
    Binding,
    Broker,
    ExchangeType,
    Message,
    QueueSpec,
    Topology,
)
from tests.contract.brokers import Inbox


class Yard:
    """A queue that dead-letters into another, by its own name as key."""

    def __init__(self, prefix: str) -> None:
        self.queue, self.dlx, self.dead = f"{prefix}.q", f"{prefix}.dlx", f"{prefix}.dead"

    async def open(
        self,
        broker: Broker,
        *,
        ttl_ms: int | None = None,
        max_length: int | None = None,
        delivery_limit: int | None = None,
    ) -> None:
        """Declare both."""
        spec = QueueSpec(
            self.queue,
            ttl_ms=ttl_ms,
            max_length=max_length,
            delivery_limit=delivery_limit,
            dead_letter_exchange=self.dlx,
            dead_letter_routing_key=self.queue,
        )
        bindings = [Binding(self.dlx, self.dead, "#")]
        await broker.declare(Topology({self.dlx: ExchangeType.TOPIC}, [spec, QueueSpec(self.dead)], bindings))


def death(headers: Mapping[str, str | int | float]) -> tuple[str | int | float, ...]:
    """Reason, queue, exchange and count."""
    return tuple(headers[name] for name in (DEATH_REASON, DEATH_QUEUE, DEATH_EXCHANGE, DEATH_COUNT))


async def test_a_rejected_message_is_dead_lettered(broker: Broker, prefix: str) -> None:
    """Nack without requeue sends it on with the queue's dead-letter key, the reason, and its own properties."""
    yard = Yard(prefix)
    await yard.open(broker)
    await broker.publish("", yard.queue, Message(body=b"1", message_id="m", headers={"kept": "yes"}))
    (await (await Inbox(ack=False).open(broker, yard.queue)).next()).nack(requeue=False)
    grave = await (await Inbox().open(broker, yard.dead)).next()
    assert (grave.message.body, grave.message.message_id, grave.routing_key) == (b"1", "m", yard.queue)
    assert grave.message.headers["kept"] == "yes"
    assert death(grave.message.headers) == ("rejected", yard.queue, "", 1)


async def test_a_message_expires_with_its_queue(broker: Broker, prefix: str) -> None:
    """The queue's TTL kills a waiting message without anything else happening there."""
    yard = Yard(prefix)
    await yard.open(broker, ttl_ms=20)
    inbox = await Inbox().open(broker, yard.dead)
    await broker.publish("", yard.queue, Message(body=b"1"))
    grave = await inbox.next()
    assert death(grave.message.headers) == ("expired", yard.queue, "", 1)
    assert (await broker.depth(yard.queue)).ready == 0


async def test_the_shorter_time_to_live_counts(broker: Broker, prefix: str) -> None:
    """A message's own expiration applies when it is shorter than its queue's, and is gone from the dead letter."""
    yard = Yard(prefix)
    await yard.open(broker, ttl_ms=3_600_000)
    inbox = await Inbox().open(broker, yard.dead)
    await broker.publish("", yard.queue, Message(body=b"1", expiration_ms=20))
    grave = await inbox.next()
    assert (grave.message.headers[DEATH_REASON], grave.message.expiration_ms) == ("expired", None)


async def test_messages_expire_at_the_head(broker: Broker, prefix: str) -> None:
    """A message that expired behind a living one dies after it."""
    yard = Yard(prefix)
    await yard.open(broker)
    inbox = await Inbox().open(broker, yard.dead)
    await broker.publish("", yard.queue, Message(body=b"slow", expiration_ms=60))
    await broker.publish("", yard.queue, Message(body=b"fast", expiration_ms=1))
    assert await inbox.bodies(2) == [b"slow", b"fast"]


async def test_a_full_queue_drops_its_oldest(broker: Broker, prefix: str) -> None:
    """Over max_length the head dies of maxlen, and the rest stays."""
    yard = Yard(prefix)
    await yard.open(broker, max_length=2)
    for body in (b"1", b"2", b"3", b"4"):
        await broker.publish("", yard.queue, Message(body=body))
    inbox = await Inbox().open(broker, yard.dead)
    graves = [await inbox.next() for _ in range(2)]
    assert [grave.message.body for grave in graves] == [b"1", b"2"]
    assert death(graves[0].message.headers) == ("maxlen", yard.queue, "", 1)
    assert await (await Inbox().open(broker, yard.queue)).bodies(2) == [b"3", b"4"]


async def test_a_poisonous_message_dies_of_its_delivery_limit(broker: Broker, prefix: str) -> None:
    """With a limit of 2 a message can come back twice: it is delivered three times, then dead-lettered."""
    yard = Yard(prefix)
    await yard.open(broker, delivery_limit=2)
    await broker.publish("", yard.queue, Message(body=b"poison"))
    await broker.publish("", yard.queue, Message(body=b"fine"))
    inbox = await Inbox(ack=False).open(broker, yard.queue, prefetch=1)
    for n in range(3):
        delivery = await inbox.next()
        assert (delivery.message.body, delivery.delivery_count) == (b"poison", n)
        delivery.nack(requeue=True)
    assert (await inbox.next()).message.body == b"fine"
    grave = await (await Inbox().open(broker, yard.dead)).next()
    assert death(grave.message.headers) == ("delivery_limit", yard.queue, "", 1)


async def test_the_first_death_is_remembered(broker: Broker, prefix: str) -> None:
    """A message that dies twice keeps reason and queue of its first death and counts both."""
    first, second, last = f"{prefix}.1", f"{prefix}.2", f"{prefix}.3"
    await broker.declare(
        Topology(
            {},
            [
                QueueSpec(first, ttl_ms=5, dead_letter_exchange="", dead_letter_routing_key=second),
                QueueSpec(second, dead_letter_exchange="", dead_letter_routing_key=last),
                QueueSpec(last),
            ],
            [],
        )
    )
    await broker.publish("", first, Message(body=b"1"))
    (await (await Inbox(ack=False).open(broker, second)).next()).nack(requeue=False)
    grave = await (await Inbox().open(broker, last)).next()
    assert death(grave.message.headers) == ("expired", first, "", 2)


async def test_a_dead_letter_keeps_its_routing_key_by_default(broker: Broker, prefix: str) -> None:
    """Without a dead-letter key the message's own one routes it: so one delay queue serves many queues."""
    work, delay, delayed = f"{prefix}.work", f"{prefix}.delay", f"{prefix}.delayed"
    await broker.declare(
        Topology(
            {delayed: ExchangeType.FANOUT},
            [QueueSpec(work), QueueSpec(delay, ttl_ms=5, dead_letter_exchange="")],
            [Binding(delayed, delay)],
        )
    )
    inbox = await Inbox().open(broker, work)
    await broker.publish(delayed, work, Message(body=b"again"))
    delivery = await inbox.next()
    assert (delivery.message.body, delivery.queue, delivery.routing_key) == (b"again", work, work)
    assert death(delivery.message.headers) == ("expired", delay, delayed, 1)


async def test_without_a_dead_letter_exchange_the_dead_are_dropped(broker: Broker, prefix: str) -> None:
    """Rejecting a message of such a queue ends it."""
    await broker.declare(Topology({}, [QueueSpec(prefix)], []))
    await broker.publish("", prefix, Message(body=b"1"))
    (await (await Inbox(ack=False).open(broker, prefix)).next()).nack(requeue=False)
    depth = await broker.depth(prefix)
    assert (depth.ready, depth.unacked) == (0, 0)
