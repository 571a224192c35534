"""Messages per CPU-second of this process through a real RabbitMQ: consumed, answered (confirmed), acknowledged.

python -m benchmarks.amqp [messages] [url]

Four ways to do the same, each with its confirm before the acknowledgement, `PREFETCH` messages at once: this system's
adapter without and with a task per message, aiormq's channel with multiple acknowledgements, and aio-pika's messages.
Without a url a private server is started.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import aio_pika
import aiormq
import uvloop
from aio_pika.abc import AbstractIncomingMessage
from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel

from rtb.adapters.amqp import RabbitBroker
from rtb.adapters.clock import SystemClock
from rtb.errors import BrokerError
from rtb.lab.servers.rabbitmq import RabbitServer
from rtb.ports import Delivery, Message, QueueSpec, Topology

PREFETCH = 500
BODY = bytes(1024)
ACK_EVERY = 50
RUNS = 3

Way = Callable[[str, int], Coroutine[Any, Any, float]]


def topology() -> Topology:
    """Where messages come from, and where answers go; the newest thousand are kept."""
    return Topology({}, [QueueSpec("work", max_length=1_000_000), QueueSpec("answers", max_length=1_000)], [])


class Countdown:
    """Measures this process's CPU time from `start` until `done` was called so often."""

    def __init__(self, count: int) -> None:
        self.left = count
        self.finished = asyncio.Event()
        self.start = time.process_time()

    def done(self) -> None:
        """One less."""
        self.left -= 1
        if not self.left:
            self.finished.set()

    async def spent(self) -> float:
        """CPU seconds, at the end."""
        await self.finished.wait()
        return time.process_time() - self.start


async def fill(url: str, count: int) -> None:
    """Put so many messages into the queue."""
    broker = RabbitBroker(url, SystemClock(), confirm_limit_s=60)
    await broker.start()
    await broker.declare(topology())
    message = Message(body=BODY, message_id="id", timestamp=1.0, persistent=False)
    for _ in range(0, count, 1_000):
        await asyncio.gather(*(broker.publish("", "work", message) for _ in range(1_000)))
    await broker.close()


async def adapter(url: str, count: int) -> float:
    """This system's adapter, as its consumers use it: a callback hears of the confirm."""
    broker = RabbitBroker(url, SystemClock())
    await broker.start()
    await broker.declare(topology())
    countdown = Countdown(count)

    def take(delivery: Delivery) -> None:
        def confirmed(error: BrokerError | None) -> None:
            assert error is None
            delivery.ack()
            countdown.done()

        broker.send("", "answers", answer_to(delivery), confirmed)

    await broker.consume("work", take, prefetch=PREFETCH)
    spent = await countdown.spent()
    await broker.close()
    return spent


async def adapter_with_tasks(url: str, count: int) -> float:
    """The same with a task per message, which waits for the confirm."""
    broker = RabbitBroker(url, SystemClock())
    await broker.start()
    await broker.declare(topology())
    tasks: set[asyncio.Task[None]] = set()
    countdown = Countdown(count)

    async def handle(delivery: Delivery) -> None:
        await broker.publish("", "answers", answer_to(delivery))
        delivery.ack()
        countdown.done()

    def take(delivery: Delivery) -> None:
        task = asyncio.get_running_loop().create_task(handle(delivery))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    await broker.consume("work", take, prefetch=PREFETCH)
    spent = await countdown.spent()
    await broker.close()
    return spent


def answer_to(delivery: Delivery) -> Message:
    """As long as the question."""
    return Message(body=delivery.message.body, message_id="id", correlation_id="c", persistent=False)


async def aiormq_channel(url: str, count: int) -> float:
    """aiormq's channel, acknowledging up to the contiguous confirmed tag every ACK_EVERY messages."""
    consuming, publishing = await aiormq.connect(url), await aiormq.connect(url)
    source, target = await consuming.channel(), await publishing.channel()
    assert isinstance(target, Channel)
    await source.basic_qos(prefetch_count=PREFETCH)
    properties = aiormq.spec.Basic.Properties(delivery_mode=1, correlation_id="c")
    finished: set[int] = set()
    acked = 0
    countdown = Countdown(count)

    async def take(message: DeliveredMessage) -> None:
        nonlocal acked
        await target.basic_publish(
            message.body, exchange="", routing_key="answers", mandatory=True, properties=properties, wait=False
        )
        assert message.delivery_tag is not None
        finished.add(message.delivery_tag)
        upto = acked
        while upto + 1 in finished:
            upto += 1
            finished.discard(upto)
        if upto - acked >= ACK_EVERY or upto == count:
            acked = upto
            await source.basic_ack(upto, multiple=True, wait=False)
        elif upto > acked:
            finished.update(range(acked + 1, upto + 1))
        countdown.done()

    await source.basic_consume("work", take)
    spent = await countdown.spent()
    await consuming.close()
    await publishing.close()
    return spent


async def aio_pika_messages(url: str, count: int) -> float:
    """aio-pika's own message surface."""
    consuming, publishing = await aio_pika.connect(url), await aio_pika.connect(url)
    source, target = await consuming.channel(), await publishing.channel(on_return_raises=True)
    await source.set_qos(PREFETCH)
    queue = await source.get_queue("work")
    countdown = Countdown(count)

    async def take(message: AbstractIncomingMessage) -> None:
        await target.default_exchange.publish(aio_pika.Message(message.body, correlation_id="c"), "answers")
        await message.ack()
        countdown.done()

    await queue.consume(take)
    spent = await countdown.spent()
    await consuming.close()
    await publishing.close()
    return spent


@contextlib.contextmanager
def server(url: str | None) -> Iterator[str]:
    """A broker to measure with."""
    if url is not None:
        yield url
        return
    with tempfile.TemporaryDirectory() as folder:
        private = RabbitServer(Path(folder))
        private.start()
        try:
            yield private.url
        finally:
            private.stop()


def main() -> None:
    """Print one line per way, the best of some runs."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    ways: dict[str, Way] = {
        "this adapter": adapter,
        "this adapter, task per message": adapter_with_tasks,
        "aiormq channel, multiple ack": aiormq_channel,
        "aio-pika messages": aio_pika_messages,
    }
    with server(sys.argv[2] if len(sys.argv) > 2 else None) as url:
        for name, way in ways.items():
            best = float("inf")
            for _ in range(RUNS):
                uvloop.run(fill(url, count))
                best = min(best, uvloop.run(way(url, count)))
            print(f"{name:31} {count / best:10,.0f} messages per CPU-second, {best / count * 1e6:6.1f} us each")


if __name__ == "__main__":
    main()
