"""rtb.adapters.memory_broker: what an in-process broker promises beyond the contract, on a clock that is advanced."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from rtb.adapters.clock import ManualClock
from rtb.adapters.memory_broker import PUBLISH_BURST, MemoryBroker
from rtb.errors import BrokerError
from rtb.ports import DEATH_COUNT, DEATH_REASON, Delivery, Message, Overflow, QueueSpec, Topology


async def opened(*queues: QueueSpec, clock: ManualClock | None = None) -> MemoryBroker:
    """A started broker with these queues."""
    broker = MemoryBroker(clock or ManualClock())
    await broker.start()
    await broker.declare(Topology({}, queues, []))
    return broker


async def send(broker: MemoryBroker, queue: str, *bodies: bytes, ttl_ms: int | None = None) -> None:
    """Publish to a queue."""
    for body in bodies:
        await broker.publish("", queue, Message(body=body, expiration_ms=ttl_ms))


async def turn() -> None:
    """One step of the loop: the broker's deliveries happen in it."""
    await asyncio.sleep(0)


async def ready(broker: MemoryBroker, queue: str) -> int:
    """The messages ready in a queue."""
    return (await broker.depth(queue)).ready


def dying(name: str, to: str, ttl_ms: int | None = None, max_length: int | None = None) -> QueueSpec:
    """A queue whose dead go to another."""
    return QueueSpec(name, ttl_ms=ttl_ms, max_length=max_length, dead_letter_exchange="", dead_letter_routing_key=to)


async def test_publishing_does_not_call_the_consumer() -> None:
    """The handler runs in the loop's next step, so a consumer that publishes cannot recurse."""
    broker = await opened(QueueSpec("q"))
    seen: list[Delivery] = []
    await broker.consume("q", seen.append, prefetch=10)
    await send(broker, "q", b"1")
    assert seen == []
    await turn()
    assert [delivery.message.body for delivery in seen] == [b"1"]


async def test_a_message_lives_exactly_its_time() -> None:
    """With 1,000 ms it is there after 999 ms and dead at 1,000 ms; nothing but the clock has to move."""
    clock = ManualClock()
    broker = await opened(dying("q", "dead", ttl_ms=1_000), QueueSpec("dead"), clock=clock)
    dead: list[Delivery] = []
    await broker.consume("dead", dead.append, prefetch=10)
    await send(broker, "q", b"1")
    clock.advance(0.999)
    await turn()
    assert dead == []
    clock.advance(0.001)
    await turn()
    assert [delivery.message.body for delivery in dead] == [b"1"]


async def test_an_expired_message_is_not_delivered() -> None:
    """A consumer that comes too late gets the next living one."""
    clock = ManualClock()
    broker = await opened(QueueSpec("q"), clock=clock)
    await send(broker, "q", b"1", ttl_ms=10)
    await send(broker, "q", b"2")
    clock.advance(0.010)
    seen: list[Delivery] = []
    await broker.consume("q", seen.append, prefetch=10)
    await turn()
    assert [delivery.message.body for delivery in seen] == [b"2"]


@pytest.mark.parametrize(
    ("queue_ms", "own_ms", "lives_ms"), [(100, 40, 40), (40, 100, 40), (None, 40, 40), (40, None, 40)]
)
async def test_the_shorter_time_to_live_counts(queue_ms: int | None, own_ms: int | None, lives_ms: int) -> None:
    """Of the queue's and the message's own."""
    clock = ManualClock()
    broker = await opened(QueueSpec("q", ttl_ms=queue_ms), clock=clock)
    await send(broker, "q", b"1", ttl_ms=own_ms)
    clock.advance((lives_ms - 1) / 1e3)
    assert await ready(broker, "q") == 1
    clock.advance(0.001)
    assert await ready(broker, "q") == 0
    assert (await broker.depth("q")).expired == 1


async def test_a_new_head_that_has_expired_dies_at_once() -> None:
    """A short-lived message behind an immortal one dies when that one is taken, though the consumer takes no more."""
    clock = ManualClock()
    broker = await opened(dying("q", "dead"), QueueSpec("dead"), clock=clock)
    await send(broker, "q", b"immortal")
    await send(broker, "q", b"short", ttl_ms=10)
    clock.advance(1)
    assert await ready(broker, "q") == 2
    await broker.consume("q", lambda delivery: None, prefetch=1)
    await turn()
    clock.advance(0)
    assert await ready(broker, "dead") == 1


async def test_a_requeued_message_keeps_its_expiry() -> None:
    """Time spent with a consumer counts."""
    clock = ManualClock()
    broker = await opened(dying("q", "dead", ttl_ms=1_000), QueueSpec("dead"), clock=clock)
    held: list[Delivery] = []
    subscription = await broker.consume("q", held.append, prefetch=1)
    await send(broker, "q", b"1")
    await turn()
    await subscription.cancel()
    clock.advance(0.6)
    held[0].nack(requeue=True)
    assert await ready(broker, "dead") == 0
    clock.advance(0.4)
    assert await ready(broker, "dead") == 1


async def test_an_unacknowledged_message_does_not_expire() -> None:
    """TTL is for waiting messages."""
    clock = ManualClock()
    broker = await opened(dying("q", "dead", ttl_ms=10), QueueSpec("dead"), clock=clock)
    held: list[Delivery] = []
    await broker.consume("q", held.append, prefetch=1)
    await send(broker, "q", b"1")
    await turn()
    clock.advance(60)
    held[0].ack()
    assert await ready(broker, "dead") == 0


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (2, 0, 1)])
async def test_requeued_messages_take_their_old_places(order: tuple[int, ...]) -> None:
    """In whatever order they come back, the queue is as it was."""
    broker = await opened(QueueSpec("q"))
    await send(broker, "q", b"0", b"1", b"2", b"3")
    held: list[Delivery] = []
    subscription = await broker.consume("q", held.append, prefetch=3)
    await turn()
    await subscription.cancel()
    for n in order:
        held[n].nack(requeue=True)
    again: list[Delivery] = []
    await broker.consume("q", again.append, prefetch=10)
    await turn()
    assert [delivery.message.body for delivery in again] == [b"0", b"1", b"2", b"3"]
    assert [delivery.delivery_count for delivery in again] == [1, 1, 1, 0]


async def test_automatic_circles_are_cut() -> None:
    """Two queues that expire into each other: the message is dropped when it would come to one of them again."""
    clock = ManualClock()
    broker = await opened(dying("a", "b", ttl_ms=10), dying("b", "a", ttl_ms=10), clock=clock)
    await send(broker, "a", b"1")
    clock.advance(0.01)
    assert [await ready(broker, name) for name in ("a", "b")] == [0, 1]
    clock.advance(0.01)
    assert [await ready(broker, name) for name in ("a", "b")] == [0, 0]


async def test_a_circle_through_a_consumer_goes_on() -> None:
    """Rejecting into a delay queue that leads back is how one retries: every round counts a death more."""
    clock = ManualClock()
    broker = await opened(dying("work", "delay"), dying("delay", "work", ttl_ms=1_000), clock=clock)
    counts: list[object] = []

    def reject(delivery: Delivery) -> None:
        counts.append(delivery.message.headers.get(DEATH_COUNT, 0))
        delivery.nack(requeue=False)

    await broker.consume("work", reject, prefetch=1)
    await send(broker, "work", b"1")
    for _ in range(4):
        await turn()
        clock.advance(1)
    assert counts == [0, 2, 4, 6]


async def test_a_full_queue_counts_what_its_consumers_are_about_to_take() -> None:
    """A burst within one step of the loop is not dropped while a consumer has room for it, beyond that it is."""
    broker = await opened(dying("q", "dead", max_length=1), QueueSpec("dead"))
    seen: list[Delivery] = []
    await broker.consume("q", seen.append, prefetch=3)
    await send(broker, "q", b"0", b"1", b"2", b"3", b"4")
    await turn()
    assert [delivery.message.body for delivery in seen] == [b"1", b"2", b"3"]
    assert (await ready(broker, "q"), await ready(broker, "dead")) == (1, 1)


async def test_a_cancelled_consumer_takes_its_room_along() -> None:
    """What it would have taken is over max_length now, and the oldest die."""
    broker = await opened(dying("q", "dead", max_length=1), QueueSpec("dead"))
    subscription = await broker.consume("q", lambda delivery: None, prefetch=3)
    await send(broker, "q", b"0", b"1", b"2", b"3")
    await subscription.cancel()
    assert (await ready(broker, "q"), await ready(broker, "dead")) == (1, 3)


async def test_a_requeue_into_a_full_queue_drops_the_oldest() -> None:
    """Memory stays bounded: the message that came back is the oldest. A rejecting queue keeps it instead."""
    for overflow, left in ((Overflow.DROP_HEAD, 1), (Overflow.REJECT_PUBLISH, 2)):
        broker = await opened(QueueSpec("q", max_length=1, overflow=overflow))
        held: list[Delivery] = []
        subscription = await broker.consume("q", held.append, prefetch=1)
        await send(broker, "q", b"0")
        await turn()
        await send(broker, "q", b"1")
        await subscription.cancel()
        held[0].nack(requeue=True)
        assert await ready(broker, "q") == left


async def test_a_full_dead_letter_queue_that_rejects_loses_the_dead() -> None:
    """Nobody waits for a dead letter: where it is refused, it ends."""
    broker = await opened(
        dying("q", "dead", max_length=1), QueueSpec("dead", max_length=1, overflow=Overflow.REJECT_PUBLISH)
    )
    await send(broker, "q", b"0", b"1", b"2")
    assert (await ready(broker, "q"), await ready(broker, "dead")) == (1, 1)


async def test_a_missing_dead_letter_exchange_ends_the_dead() -> None:
    """As in RabbitMQ, it may be declared later; until then the dead are dropped."""
    broker = await opened(QueueSpec("q", max_length=1, dead_letter_exchange="nowhere"))
    await send(broker, "q", b"0", b"1")
    assert await ready(broker, "q") == 1


@pytest.mark.parametrize("error", [RuntimeError("no"), asyncio.CancelledError()])
async def test_an_error_in_a_consumer_is_reported(error: BaseException) -> None:
    """on_error hears of the delivery and the error, which may be a cancellation; its own failure stops nothing."""
    heard: list[tuple[bytes, BaseException]] = []

    def on_error(delivery: Delivery, error: BaseException) -> None:
        heard.append((delivery.message.body, error))
        raise LookupError("the reporter is broken")

    loop_heard: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: loop_heard.append(context["exception"]))
    broker = MemoryBroker(ManualClock(), on_error=on_error)
    await broker.start()
    await broker.declare(Topology({}, [dying("q", "dead"), QueueSpec("dead")], []))

    def handle(delivery: Delivery) -> None:
        raise error

    await broker.consume("q", handle, prefetch=1)
    await send(broker, "q", b"1", b"2")
    await turn()
    assert heard == [(b"1", error), (b"2", error)]
    assert [type(one) for one in loop_heard] == [LookupError, LookupError]
    assert await ready(broker, "dead") == 2


async def test_an_error_after_the_ack_does_not_bring_the_message_back() -> None:
    """A handler that acknowledges and then raises has its message settled once."""
    loop_heard: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: loop_heard.append(context["exception"]))
    broker = await opened(dying("q", "dead"), QueueSpec("dead"))

    def handle(delivery: Delivery) -> None:
        delivery.ack()
        raise RuntimeError

    await broker.consume("q", handle, prefetch=1)
    await send(broker, "q", b"1")
    await turn()
    assert (len(loop_heard), await ready(broker, "dead"), (await broker.depth("q")).unacked) == (1, 0, 0)


async def test_a_requeueing_consumer_does_not_hold_up_the_loop() -> None:
    """A handler that gives back everything at once loops for ever, but only a slice of each step."""
    broker = await opened(QueueSpec("q"))
    count = 0

    def handle(delivery: Delivery) -> None:
        nonlocal count
        count += 1
        delivery.nack(requeue=True)

    subscription = await broker.consume("q", handle, prefetch=1)
    await send(broker, "q", b"1")
    for _ in range(5):
        await turn()
    assert count > 5
    await subscription.cancel()
    assert await ready(broker, "q") == 1


async def test_a_publisher_gives_way_to_consumers() -> None:
    """A loop that only publishes lets its consumer run, so a short queue does not overflow."""
    broker = await opened(QueueSpec("q", max_length=PUBLISH_BURST))
    seen: list[Delivery] = []

    def handle(delivery: Delivery) -> None:
        seen.append(delivery)
        delivery.ack()

    await broker.consume("q", handle, prefetch=1)
    for n in range(20 * PUBLISH_BURST):
        await send(broker, "q", b"%d" % n)
    await turn()
    assert [int(delivery.message.body) for delivery in seen] == list(range(20 * PUBLISH_BURST))


async def test_a_queue_counts_its_traffic() -> None:
    """Published, delivered and expired since it was declared."""
    clock = ManualClock()
    broker = await opened(QueueSpec("q"), clock=clock)
    await send(broker, "q", b"1", b"2", b"3")
    await send(broker, "q", b"4", ttl_ms=1)
    await broker.consume("q", lambda delivery: None, prefetch=2)
    await turn()
    await broker.purge("q")
    await send(broker, "q", b"5", ttl_ms=1)
    clock.advance(1)
    depth = await broker.depth("q")
    assert (depth.published, depth.delivered, depth.expired) == (5, 2, 1)


async def test_arrival_is_read_from_the_clock_at_delivery() -> None:
    """As with a broker far away, a message arrives in this process when its consumer gets it."""
    clock = ManualClock(monotonic_ns=0)
    broker = await opened(QueueSpec("q"), clock=clock)
    await send(broker, "q", b"1")
    clock.advance(3)
    seen: list[Delivery] = []
    await broker.consume("q", seen.append, prefetch=1)
    await turn()
    assert seen[0].arrived_ns == 3_000_000_000


async def test_an_exclusive_queue_dies_quietly() -> None:
    """Its messages are not dead-lettered, and a late ack of one does nothing."""
    broker = await opened(QueueSpec("dead"))
    peer = broker.peer()
    await peer.start()
    await peer.declare(
        Topology({}, [QueueSpec("own", exclusive=True, dead_letter_exchange="", dead_letter_routing_key="dead")], [])
    )
    held: list[Delivery] = []
    await peer.consume("own", held.append, prefetch=1)
    await send(broker, "own", b"1", b"2")
    await turn()
    await peer.close()
    held[0].nack(requeue=False)
    assert await ready(broker, "dead") == 0
    with pytest.raises(BrokerError, match="own"):
        await broker.depth("own")


async def test_queues_outlive_a_connection() -> None:
    """A broker that is closed and started again finds its queues, and what was unacknowledged, as RabbitMQ's client."""
    broker = await opened(QueueSpec("q"))
    held: list[Delivery] = []
    await broker.consume("q", held.append, prefetch=1)
    await send(broker, "q", b"1", b"2")
    await turn()
    await broker.close()
    await broker.start()
    depth = await broker.depth("q")
    assert (depth.ready, depth.unacked, depth.consumers) == (2, 0, 0)


def test_a_broker_moves_to_a_new_loop() -> None:
    """Work left when one loop ended goes on in the next, once the broker is started there."""
    broker = MemoryBroker(ManualClock())
    seen: list[bytes] = []

    async def publish() -> None:
        await broker.start()
        await broker.declare(Topology({}, [QueueSpec("q")], []))
        await broker.consume("q", lambda delivery: seen.append(delivery.message.body), prefetch=5)
        await broker.publish("", "q", Message(body=b"1"))

    async def go_on() -> None:
        await broker.start()
        await turn()

    run_until_step_ends(publish)
    asyncio.run(go_on())
    assert seen == [b"1"]


def run_until_step_ends(main: Callable[[], object]) -> None:
    """Drive a coroutine that never waits, without giving the loop's callbacks a turn."""
    loop = asyncio.new_event_loop()
    coroutine = main()
    assert asyncio.iscoroutine(coroutine)
    loop.call_soon(loop.stop)
    task = loop.create_task(coroutine)
    loop.run_forever()
    assert task.done()
    loop.close()


async def test_dead_letters_carry_the_reason_first() -> None:
    """Overflow within a burst tells maxlen, oldest first."""
    broker = await opened(dying("q", "dead", max_length=1), QueueSpec("dead"))
    await send(broker, "q", b"0", b"1", b"2")
    seen: list[Delivery] = []
    await broker.consume("dead", seen.append, prefetch=5)
    await turn()
    assert [(d.message.body, d.message.headers[DEATH_REASON]) for d in seen] == [(b"0", "maxlen"), (b"1", "maxlen")]
