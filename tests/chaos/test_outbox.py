"""The outbox and a RabbitMQ that is killed under load."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

from rtb.adapters.amqp import RabbitBroker
from rtb.adapters.clock import SystemClock
from rtb.adapters.spool import FileSpool
from rtb.ports import Delivery, Message, QueueSpec, Topology
from rtb.services.metrics import Metrics
from rtb.services.outbox import Outbox
from tests.support.rabbitmq import MakeRabbit

COUNT = 6_000


async def test_a_broker_killed_under_load(make_rabbit: MakeRabbit, tmp_path: Path) -> None:
    """Everything posted before, while and after it is dead arrives, the first time of each in the order of posting but
    for what was in flight, and nothing is lost."""
    server, clock = make_rabbit(), SystemClock()
    await asyncio.to_thread(server.start)
    broker = RabbitBroker(server.url, clock, heartbeat_s=1)
    await broker.start()
    await broker.declare(Topology({}, (QueueSpec("q"),), ()))
    came: dict[int, None] = {}
    whole = asyncio.Event()

    def take(delivery: Delivery) -> None:
        came[int(delivery.message.body)] = None
        delivery.ack()
        if len(came) == COUNT:
            whole.set()

    await broker.consume("q", take, prefetch=100)
    outbox = Outbox(broker, FileSpool(tmp_path / "spool"), Metrics("test", clock))
    await outbox.start()
    posted = 0

    def post(count: int) -> None:
        nonlocal posted
        for _ in range(count):
            outbox.post("", "q", Message(body=b"%d" % posted, message_id=str(posted)))
            posted += 1

    post(1_000)
    await outbox.deliver("", "q", Message(body=b"%d" % posted))
    posted += 1
    post(2_000)
    killing = asyncio.create_task(asyncio.to_thread(server.kill))
    while not killing.done():
        post(1)
        await asyncio.sleep(0)
        if posted >= COUNT - 1_000:
            break
    await killing
    post(COUNT - posted)
    await outbox.flush(1)
    assert outbox.waiting == outbox.spooled > 0
    await asyncio.to_thread(server.start)
    async with asyncio.timeout(60):
        await whole.wait()
    order = list(came)
    late = sum(after < before for before, after in itertools.pairwise(order))
    assert late <= 2  # at the kill: what was confirmed behind what was not
    assert outbox.lost == outbox.dropped == outbox.unroutable == 0
    await outbox.stop()
    await broker.close()
