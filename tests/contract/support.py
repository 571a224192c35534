"""The adapters under contract, and a consumer that keeps what it gets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis.asyncio import Redis

from rtb.adapters.clock import ManualClock, SystemClock
from rtb.adapters.memory_broker import MemoryBroker
from rtb.adapters.memory_state import MemoryState
from rtb.adapters.redis_state import RedisState
from rtb.adapters.sql import SqlRepository
from rtb.lab.servers.redis import RedisServer
from rtb.ports import Broker, Delivery, Repository, StateStore, Subscription

PATIENCE_S = 20.0
"""How long to wait for what must happen; only a failing test ever waits so long."""

Connect = Callable[[], Awaitable[Broker]]


@asynccontextmanager
async def memory_brokers() -> AsyncIterator[Connect]:
    """Connections to one in-process server."""
    first = MemoryBroker(SystemClock(), on_error=lambda delivery, error: None)
    opened: list[MemoryBroker] = []

    async def connect() -> Broker:
        broker = first.peer() if opened else first
        opened.append(broker)
        await broker.start()
        return broker

    yield connect
    for broker in opened:
        await broker.close()


Heard = asyncio.Queue[tuple[str, bytes]]


@dataclass(frozen=True)
class StateUnderTest:
    """A state store, how to let time pass for it (no event tells that something has expired), and how to listen to the
    results of requests whose ids begin so."""

    store: StateStore
    pass_time: Callable[[float], Awaitable[None]]
    listen: Callable[[str], AbstractAsyncContextManager[Heard]]


@asynccontextmanager
async def memory_states(_: pytest.FixtureRequest) -> AsyncIterator[StateUnderTest]:
    """The in-process state store, on a clock that is advanced."""
    clock = ManualClock()
    state = MemoryState(clock)

    async def pass_time(seconds: float) -> None:
        clock.advance(seconds)

    @asynccontextmanager
    async def listen(prefix: str) -> AsyncIterator[Heard]:
        heard = Heard()
        state.listen(lambda request_id, body: heard.put_nowait((request_id, body)))
        yield heard

    yield StateUnderTest(state, pass_time, listen)
    await state.close()


@asynccontextmanager
async def redis_states(request: pytest.FixtureRequest) -> AsyncIterator[StateUnderTest]:
    """A database of the shared Redis."""
    server: RedisServer = request.getfixturevalue("redis_server")
    state = RedisState(server.url, timeout_s=PATIENCE_S)

    @asynccontextmanager
    async def listen(prefix: str) -> AsyncIterator[Heard]:
        heard = Heard()

        def hear(message: dict[str, bytes]) -> None:
            heard.put_nowait((message["channel"].decode().removeprefix("auction:results:"), message["data"]))

        async with Redis.from_url(server.url, protocol=2) as client, client.pubsub() as listener:
            await listener.psubscribe(f"auction:results:{prefix}*")
            await listener.get_message(timeout=PATIENCE_S)  # subscribed
            await listener.psubscribe(**{f"auction:results:{prefix}*": hear})
            running = asyncio.create_task(listener.run(poll_timeout=PATIENCE_S))
            yield heard
            running.cancel()
            await asyncio.wait([running])

    yield StateUnderTest(state, asyncio.sleep, listen)
    await state.close()


@asynccontextmanager
async def sqlite_repositories(folder: Path) -> AsyncIterator[Callable[[], Repository]]:
    """Repositories on one SQLite file."""
    opened: list[SqlRepository] = []

    def make() -> Repository:
        repository = SqlRepository(str(folder / "rtb.db"))
        opened.append(repository)
        return repository

    yield make
    for repository in opened:
        await repository.close()


BROKERS: dict[str, Callable[[], AbstractAsyncContextManager[Connect]]] = {"memory": memory_brokers}
STATES: dict[str, Callable[[pytest.FixtureRequest], AbstractAsyncContextManager[StateUnderTest]]] = {
    "memory": memory_states,
    "redis": redis_states,
}
REPOSITORIES: dict[str, Callable[[Path], AbstractAsyncContextManager[Callable[[], Repository]]]] = {
    "sqlite": sqlite_repositories
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
