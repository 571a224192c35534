"""The brokers under contract, and a consumer that keeps what it gets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from rtb.adapters.amqp import RabbitBroker
from rtb.adapters.clock import SystemClock
from rtb.adapters.memory_broker import MemoryBroker
from rtb.lab.servers.rabbitmq import RabbitServer
from rtb.ports import Broker, Delivery, Subscription

PATIENCE_S = 20.0
"""How long to wait for what must happen; only a failing test ever waits so long."""

Connect = Callable[[], Awaitable[Broker]]


@asynccontextmanager
async def memory_brokers(_: pytest.FixtureRequest) -> AsyncIterator[Connect]:
    """Connections to one in-process server."""
    async with _connections(MemoryBroker(SystemClock(), on_error=lambda delivery, error: None)) as connect:
        yield connect


@asynccontextmanager
async def journaled_brokers(request: pytest.FixtureRequest) -> AsyncIterator[Connect]:
    """Connections to one in-process server that keeps a journal."""
    folder: Path = request.getfixturevalue("tmp_path") / uuid4().hex
    async with _connections(
        MemoryBroker(SystemClock(), on_error=lambda delivery, error: None, journal=folder)
    ) as connect:
        yield connect


@asynccontextmanager
async def _connections(first: MemoryBroker) -> AsyncIterator[Connect]:
    opened: list[MemoryBroker] = []

    async def connect() -> Broker:
        broker = first.peer() if opened else first
        opened.append(broker)
        await broker.start()
        return broker

    yield connect
    for broker in opened:
        await broker.close()


@asynccontextmanager
async def rabbit_brokers(request: pytest.FixtureRequest) -> AsyncIterator[Connect]:
    """Connections to the shared RabbitMQ."""
    server: RabbitServer = request.getfixturevalue("rabbit_server")
    opened: list[RabbitBroker] = []

    async def connect() -> Broker:
        broker = RabbitBroker(server.url, SystemClock(), on_error=lambda delivery, error: None)
        opened.append(broker)
        await broker.start()
        return broker

    yield connect
    for broker in opened:
        await broker.close()


BROKERS: dict[str, Callable[[pytest.FixtureRequest], AbstractAsyncContextManager[Connect]]] = {
    "memory": memory_brokers,
    "journal": journaled_brokers,
    "rabbitmq": rabbit_brokers,
}


class Inbox:
    """A consumer that keeps its deliveries; with `ack` it acknowledges each at once."""

    def __init__(self, *, ack: bool = True) -> None:
        self.ack = ack
        self.taken: list[Delivery] = []
        self.subscription: Subscription
        self._waiting: asyncio.Queue[Delivery] = asyncio.Queue()

    async def open(self, broker: Broker, queue: str, prefetch: int = 100) -> Inbox:
        """Consume the queue."""
        self.subscription = await broker.consume(queue, self._take, prefetch=prefetch)
        return self

    async def next(self) -> Delivery:
        """The next delivery, in the order of arrival."""
        return await asyncio.wait_for(self._waiting.get(), PATIENCE_S)

    async def bodies(self, count: int) -> list[bytes]:
        """The bodies of the next deliveries."""
        return [(await self.next()).message.body for _ in range(count)]

    def _take(self, delivery: Delivery) -> None:
        self.taken.append(delivery)
        self._waiting.put_nowait(delivery)
        if self.ack:
            delivery.ack()
