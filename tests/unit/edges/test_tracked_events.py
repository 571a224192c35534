"""Impressions, clicks and conversions off their queues: to the ledger, to the retry queues, or to the dead letters."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from rtb import messages
from rtb.adapters.clock import SystemClock
from rtb.adapters.memory_broker import MemoryBroker
from rtb.domain.attribution import Refused
from rtb.domain.tracking import Ticket, event_id
from rtb.edges.event_consumers import TRACKED, tracked_consumers
from rtb.edges.failure import ATTEMPT
from rtb.errors import StoreError
from rtb.messages import MessageType, TrackedEvent
from rtb.ports import ERROR, NO_HEADERS, LedgerKind, Message
from rtb.services import topology
from rtb.services.metrics import Metrics
from tests.unit.services.tracked import CLICK, CONVERSION, IMPRESSION, SIGNER, Tracked

QUEUES = {kind: queue for queue, kind in TRACKED.items()}


class World(Tracked):
    """With a broker, and a consumer a queue."""

    def __init__(self) -> None:
        super().__init__()
        clock = SystemClock()
        self.broker = MemoryBroker(clock)
        self.metrics = Metrics("test", clock)
        self.consumers = tracked_consumers(self.broker, self.tracking, self.metrics, clock, linger_s=0.001)

    async def send(self, kind: LedgerKind, ticket: Ticket, attempt: int = 0) -> None:
        """As an edge does it, or a retry queue; it has been handled when this returns."""
        event = TrackedEvent(received_at=self.clock.time(), token=SIGNER.token(ticket))
        name = event_id(ticket, kind.value)
        body = messages.encode(MessageType(kind.value), event, message_id=name, timestamp=1.0)
        await self.publish(QUEUES[kind], Message(body=body, headers={ATTEMPT: attempt} if attempt else NO_HEADERS))

    async def publish(self, queue: str, message: Message) -> None:
        """Anything at all."""
        await self.broker.publish("", queue, message)
        for consumer in self.consumers:
            await consumer.drain()


@pytest_asyncio.fixture
async def world() -> AsyncIterator[World]:
    """Running."""
    world = World()
    await world.broker.start()
    await world.broker.declare(topology.topology())
    for consumer in world.consumers:
        await consumer.start()
    yield world
    for consumer in world.consumers:
        await consumer.stop()
    await world.broker.close()


async def test_each_queue_has_its_kind(world: World) -> None:
    """An impression, its click and its conversion come to three rows, and nothing is left on a queue."""
    ticket = world.ticket()
    for kind in (IMPRESSION, CLICK, CONVERSION):
        await world.send(kind, ticket)
    assert {row.kind for row in await world.rows()} == {IMPRESSION, CLICK, CONVERSION}
    depths = [await world.broker.depth(queue) for queue in TRACKED]
    assert [(depth.ready, depth.unacked) for depth in depths] == [(0, 0)] * 3


async def test_a_click_comes_again_three_times(world: World) -> None:
    """It waits on the retry queue of its attempt; after the third it is refused, and is no dead letter."""
    ticket = world.ticket("cpc")
    for attempt in range(3):
        await world.send(CLICK, ticket, attempt)
        retried = await world.broker.get(topology.retry_exchange(attempt + 1))
        assert retried is not None
        assert (retried.routing_key, retried.message.headers[ATTEMPT]) == (topology.CLICKS, attempt + 1)
        assert retried.message.headers[ERROR] == Refused.NO_IMPRESSION
        retried.ack()
    await world.send(CLICK, ticket, 3)
    assert await world.refused() == [Refused.NO_IMPRESSION]
    assert (world.metrics.retried, world.metrics.dead_lettered) == (3, 0)


GOOD: dict[str, Any] = {"received_at": 1.0, "token": "t"}


@pytest.mark.parametrize(
    ("message_type", "data", "says"),
    [
        (MessageType.CLICK, GOOD, "click does not belong on ad.impressions"),
        (MessageType.IMPRESSION, {"token": "t"}, "data.received_at: required"),
        (MessageType.IMPRESSION, {**GOOD, "currency": "euro"}, "data.currency"),
        (MessageType.IMPRESSION, {**GOOD, "ip": "192.0.2.1\0"}, "NUL"),
    ],
)
async def test_what_makes_no_sense_is_a_dead_letter(
    world: World, message_type: MessageType, data: dict[str, Any], says: str
) -> None:
    """With the field that is wrong; it is not among the refused, for it is no event."""
    body = messages.encode(message_type, data, message_id="m", timestamp=1.0)
    await world.publish(topology.IMPRESSIONS, Message(body=body, message_id="m"))
    dead = await world.broker.get(topology.DEAD)
    assert dead is not None
    assert says in str(dead.message.headers[ERROR])
    dead.ack()
    assert await world.refused() == []


async def test_one_event_that_a_store_refuses_does_not_hold_up_the_others(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is tried alone then, and the one goes to the retry queue."""
    append = world.ledger.append

    async def picky(rows: Any, *, epochs: Any) -> Any:
        if any(row.auction_id == "b" for row in rows):
            raise StoreError("refused")
        return await append(rows, epochs=epochs)

    monkeypatch.setattr(world.ledger, "append", picky)
    tickets = [world.ticket(auction_id=name) for name in "abc"]
    await asyncio.gather(*(world.send(IMPRESSION, ticket) for ticket in tickets))
    assert sorted(await world.charged()) == ["a:1:impression", "c:1:impression"]
    assert (await world.broker.depth(topology.retry_exchange(1))).ready == 1
