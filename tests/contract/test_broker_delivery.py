"""Contract of ports.Broker: consuming, acknowledging, requeueing, cancelling, closing."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AbstractAsyncContextManager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtb.ports import ERROR, Binding, Broker, Delivery, ExchangeType, Message, QueueSpec, Topology
from tests.contract.brokers import BROKERS, Connect, Inbox


async def fill(broker: Broker, queue: str, count: int) -> None:
    """Declare a plain queue and publish 0, 1, 2, ... to it."""
    await broker.declare(Topology({}, [QueueSpec(queue)], []))
    for n in range(count):
        await broker.publish("", queue, Message(body=b"%d" % n))


async def test_an_acknowledged_message_is_gone(broker: Broker, prefix: str) -> None:
    """A delivery counts as unacknowledged until its ack, and then no more."""
    await fill(broker, prefix, 2)
    inbox = await Inbox(ack=False).open(broker, prefix)
    first, second = await inbox.next(), await inbox.next()
    depth = await broker.depth(prefix)
    assert (depth.ready, depth.unacked, depth.consumers) == (0, 2, 1)
    first.ack()
    second.ack()
    depth = await broker.depth(prefix)
    assert (depth.ready, depth.unacked) == (0, 0)


async def test_a_consumer_gets_no_more_than_its_prefetch(broker: Broker, prefix: str) -> None:
    """With prefetch 2 the third message comes only after an acknowledgement."""
    await fill(broker, prefix, 5)
    inbox = await Inbox(ack=False).open(broker, prefix, prefetch=2)
    first, _ = await inbox.next(), await inbox.next()
    other = f"{prefix}.other"
    await fill(broker, other, 1)
    await (await Inbox().open(broker, other)).next()  # had there been a third, it would have come before this one
    assert len(inbox.taken) == 2
    first.ack()
    assert (await inbox.next()).message.body == b"2"


async def test_consumers_take_turns(broker: Broker, prefix: str) -> None:
    """Two consumers with room share the messages of a queue equally."""
    await fill(broker, prefix, 0)
    left = await Inbox(ack=False).open(broker, prefix)
    right = await Inbox(ack=False).open(broker, prefix)
    for n in range(10):
        await broker.publish("", prefix, Message(body=b"%d" % n))
    assert sorted(await left.bodies(5) + await right.bodies(5)) == [b"%d" % n for n in range(10)]


async def test_a_consumer_without_room_is_passed_over(broker: Broker, prefix: str) -> None:
    """A consumer that does not acknowledge does not hold up the others."""
    await fill(broker, prefix, 0)
    stuck = await Inbox(ack=False).open(broker, prefix, prefetch=1)
    busy = await Inbox().open(broker, prefix, prefetch=1)
    for n in range(20):
        await broker.publish("", prefix, Message(body=b"%d" % n))
    await stuck.next()
    assert len(await busy.bodies(19)) == 19


async def test_a_requeued_message_comes_again(broker: Broker, prefix: str) -> None:
    """Nack with requeue puts it back to the head, and the next delivery tells that it was delivered before."""
    await fill(broker, prefix, 3)
    inbox = await Inbox(ack=False).open(broker, prefix, prefetch=1)
    for seen in range(3):
        delivery = await inbox.next()
        assert (delivery.message.body, delivery.redelivered) == (b"0", seen > 0)
        delivery.nack(requeue=True)
    (await inbox.next()).ack()
    assert (await inbox.next()).message.body == b"1"


async def test_a_delivery_is_settled_once(broker: Broker, prefix: str) -> None:
    """What comes after the first ack or nack does nothing, also when the message is out with somebody else."""
    await fill(broker, prefix, 1)
    inbox = await Inbox(ack=False).open(broker, prefix)
    first = await inbox.next()
    first.nack(requeue=True)
    second = await inbox.next()
    first.ack()
    first.nack(requeue=True)
    assert (await broker.depth(prefix)).unacked == 1
    second.ack()
    second.nack(requeue=True)
    depth = await broker.depth(prefix)
    assert (depth.ready, depth.unacked) == (0, 0)


async def test_a_cancelled_consumer_gets_nothing_more(broker: Broker, prefix: str) -> None:
    """After cancel, what it holds can still be acknowledged and the rest goes to the others."""
    await fill(broker, prefix, 2)
    gone = await Inbox(ack=False).open(broker, prefix, prefetch=1)
    held = await gone.next()
    await gone.subscription.cancel()
    held.ack()
    heir = await Inbox().open(broker, prefix)
    assert (await heir.next()).message.body == b"1"
    assert len(gone.taken) == 1
    depth = await broker.depth(prefix)
    assert (depth.ready, depth.unacked, depth.consumers) == (0, 0, 1)


async def test_closing_gives_back_what_was_not_acknowledged(connect: Connect, prefix: str) -> None:
    """Unacknowledged deliveries of a closed connection come to the next consumer in their order, as redelivered.

    The acknowledgement made room for message 3, which may have been on its way to the first consumer; 4 was not.
    """
    first, second = await connect(), await connect()
    await fill(first, prefix, 5)
    inbox = await Inbox(ack=False).open(first, prefix, prefetch=3)
    deliveries = [await inbox.next() for _ in range(3)]
    deliveries[1].ack()
    await first.close()
    heir = await Inbox().open(second, prefix)
    again = [await heir.next() for _ in range(4)]
    assert [delivery.message.body for delivery in again] == [b"0", b"2", b"3", b"4"]
    assert [delivery.redelivered for delivery in again[:2] + again[3:]] == [True, True, False]
    deliveries[0].ack()  # late: its connection is gone
    assert (await second.depth(prefix)).unacked == 0


async def test_acknowledgements_may_come_in_any_order(connect: Connect, prefix: str) -> None:
    """What was settled out of turn stays settled when the connection ends, and only the rest comes again."""
    first, second = await connect(), await connect()
    await fill(first, prefix, 200)
    inbox = await Inbox(ack=False).open(first, prefix, prefetch=200)
    deliveries = [await inbox.next() for _ in range(200)]
    for n in (*range(0, 200, 3), *range(199, 0, -3)):  # every third from the left, then others from the right
        deliveries[n].ack()
    open_ = sorted(set(range(200)) - set(range(0, 200, 3)) - set(range(199, 0, -3)))
    assert (await first.depth(prefix)).unacked == len(open_)
    await first.close()
    heir = await Inbox().open(second, prefix)
    assert await heir.bodies(len(open_)) == [b"%d" % n for n in open_]
    assert (await second.depth(prefix)).ready == 0


async def test_a_handler_may_publish(broker: Broker, prefix: str) -> None:
    """A consumer can start a publish from its handler; the message it causes arrives like any other."""
    await fill(broker, prefix, 1)
    tasks: list[asyncio.Task[None]] = []
    arrived = asyncio.Event()

    def handle(delivery: Delivery) -> None:
        n = int(delivery.message.body)
        if n < 100:
            tasks.append(asyncio.ensure_future(broker.publish("", prefix, Message(body=b"%d" % (n + 1)))))
        else:
            arrived.set()
        delivery.ack()

    await broker.consume(prefix, handle, prefetch=1)
    await arrived.wait()
    await asyncio.gather(*tasks)


async def test_a_handler_that_raises_does_not_stop_the_queue(broker: Broker, prefix: str) -> None:
    """Its delivery is dead-lettered with the error as reason, and the next message is delivered."""
    dlx, dead = f"{prefix}.dlx", f"{prefix}.dead"
    await broker.declare(
        Topology(
            {dlx: ExchangeType.FANOUT},
            [QueueSpec(prefix, dead_letter_exchange=dlx), QueueSpec(dead)],
            [Binding(dlx, dead)],
        )
    )
    seen: asyncio.Queue[bytes] = asyncio.Queue()

    def handle(delivery: Delivery) -> None:
        if delivery.message.body == b"poison":
            raise ValueError("cannot\nread this")
        delivery.ack()
        seen.put_nowait(delivery.message.body)

    await broker.consume(prefix, handle, prefetch=1)
    await broker.publish("", prefix, Message(body=b"poison"))
    await broker.publish("", prefix, Message(body=b"fine"))
    assert await seen.get() == b"fine"
    grave = await (await Inbox().open(broker, dead)).next()
    assert grave.message.body == b"poison"
    assert grave.message.headers[ERROR] == "ValueError: cannot read this"


async def test_single_messages_can_be_taken(broker: Broker, prefix: str) -> None:
    """get hands out the head, to be acknowledged like a delivery, and None when nothing is ready."""
    await fill(broker, prefix, 3)
    taken = [await broker.get(prefix) for _ in range(4)]
    first, second, third, none = taken
    assert first is not None
    assert second is not None
    assert third is not None
    assert none is None
    assert [d.message.body for d in (first, second, third)] == [b"0", b"1", b"2"]
    assert (first.queue, first.routing_key, first.redelivered) == (prefix, prefix, False)
    first.ack()
    third.nack(requeue=True)
    second.nack(requeue=True)
    depth = await broker.depth(prefix)
    assert (depth.unacked, depth.consumers) == (0, 0)
    again = await broker.get(prefix)
    assert again is not None
    assert (again.message.body, again.redelivered) == (b"1", True)
    again.ack()


async def test_prefetch_must_be_positive(broker: Broker, prefix: str) -> None:
    """No prefetch would mean no bound on memory."""
    await fill(broker, prefix, 0)
    with pytest.raises(ValueError):
        await broker.consume(prefix, lambda delivery: None, prefetch=0)


STEPS = st.one_of(
    st.just(("publish", 0)),
    st.just(("publish", 0)),
    st.just(("subscribe", 0)),
    st.just(("breathe", 0)),
    st.tuples(st.sampled_from(["ack", "requeue", "reject", "cancel"]), st.integers(0, 50)),
)


EXAMPLES = {"journal": 20, "memory": 150, "rabbitmq": 30}


@pytest.mark.parametrize("name", BROKERS)
def test_no_message_is_lost_or_doubled(name: str, request: pytest.FixtureRequest) -> None:
    """Whatever consumers do, in the end each message was either acknowledged once, or rejected once, or is still there,
    and what is still there comes in the order it was published."""

    @settings(deadline=None, max_examples=EXAMPLES[name])
    @given(steps=st.lists(STEPS, max_size=60), prefetch=st.integers(1, 4))
    def live(steps: list[tuple[str, int]], prefetch: int) -> None:
        asyncio.run(_live_through(BROKERS[name](request), steps, prefetch))

    live()


async def _live_through(
    brokers: AbstractAsyncContextManager[Connect], steps: list[tuple[str, int]], prefetch: int
) -> None:
    async with brokers as connect:
        broker, heir = await connect(), await connect()
        queues = [QueueSpec("q", dead_letter_exchange="", dead_letter_routing_key="dead"), QueueSpec("dead")]
        await broker.declare(Topology({}, queues, []))
        await broker.purge("q")
        await broker.purge("dead")
        inboxes: list[Inbox] = []
        settled: set[int] = set()
        acked: list[bytes] = []
        rejected: list[bytes] = []
        published = 0
        for verb, pick in steps:
            open_ = [d for inbox in inboxes for d in inbox.taken if id(d) not in settled]
            if verb == "publish":
                await broker.publish("", "q", Message(body=b"%d" % published))
                published += 1
            elif verb == "subscribe":
                inboxes.append(await Inbox(ack=False).open(broker, "q", prefetch))
            elif verb == "breathe":
                await asyncio.sleep(0)
                await broker.depth("q")
            elif verb == "cancel" and inboxes:
                await inboxes[pick % len(inboxes)].subscription.cancel()
            elif verb in ("ack", "requeue", "reject") and open_:
                delivery = open_[pick % len(open_)]
                settled.add(id(delivery))
                if verb == "ack":
                    delivery.ack()
                    acked.append(delivery.message.body)
                else:
                    delivery.nack(requeue=verb == "requeue")
                    rejected += [delivery.message.body] * (verb == "reject")
        await broker.close()
        last = await Inbox().open(heir, "q")
        left = await last.bodies(published - len(acked) - len(rejected))
        dead = await (await Inbox().open(heir, "dead")).bodies(len(rejected))
        assert dead == rejected
        assert left == sorted(left, key=int)
        assert Counter(acked + left + dead) == Counter(b"%d" % n for n in range(published))
        assert (await heir.depth("q")).ready == (await heir.depth("dead")).ready == 0
