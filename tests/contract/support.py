"""The stores under contract."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

import msgspec
import pytest
from redis.asyncio import Redis, RedisCluster

from rtb.adapters.clock import ManualClock
from rtb.adapters.memory_state import MemoryState
from rtb.adapters.redis_state import FREQUENCY, RedisState
from rtb.adapters.sql import SqlRepository
from rtb.adapters.sql_database import SqlDatabase
from rtb.lab.servers.redis import RedisServer
from rtb.ports import Repository, StateStore

PATIENCE_S = 20.0
"""How long to wait for what must happen; only a failing test ever waits so long."""

Heard = asyncio.Queue[tuple[str, bytes]]


@dataclass(frozen=True)
class StateUnderTest:
    """A state store, how to let time pass for it, and how to listen to the results of requests whose ids begin so."""

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


class TimeMachine:
    """Lets time pass for what a test has written to Redis, whose clock nobody sets: it becomes so much older. So no
    test waits, and none is too late on a busy machine. The layout of keys is that of rtb.adapters.redis_state."""

    def __init__(self, kind: type[Redis] | type[RedisCluster], url: str, prefix: str) -> None:
        """For keys with this prefix in them."""
        self._kind = kind
        self._url = url
        self._prefix = prefix

    async def __call__(self, seconds: float) -> None:
        """So much later."""
        async with self._kind.from_url(self._url, protocol=2) as client:
            for key in [key async for key in client.scan_iter(match=f"*{self._prefix}*")]:
                await _age(client, key, round(seconds * 1_000))


async def _age(client: Redis | RedisCluster, key: bytes, ms: int) -> None:
    left_ms = await client.pttl(key)
    if left_ms <= ms:
        await client.delete(key)
        return
    if key.startswith(FREQUENCY.encode()):
        windows = msgspec.json.decode(await client.get(key))
        older = {name: (seen, end_ms - ms) for name, (seen, end_ms) in windows.items()}
        await client.set(key, msgspec.json.encode(older))
    await client.pexpire(key, left_ms - ms)


@asynccontextmanager
async def redis_states(request: pytest.FixtureRequest) -> AsyncIterator[StateUnderTest]:
    """The shared Redis."""
    server: RedisServer = request.getfixturevalue("redis_server")
    passed = TimeMachine(Redis, server.url, request.getfixturevalue("prefix"))
    async with _redis_states(server.url, RedisState(server.url, timeout_s=PATIENCE_S), passed) as state:
        yield state


@asynccontextmanager
async def redis_cluster_states(request: pytest.FixtureRequest) -> AsyncIterator[StateUnderTest]:
    """The shared cluster."""
    server: RedisServer = request.getfixturevalue("redis_cluster")
    passed = TimeMachine(RedisCluster, server.url, request.getfixturevalue("prefix"))
    async with _redis_states(server.url, RedisState(server.url, cluster=True, timeout_s=PATIENCE_S), passed) as state:
        yield state


@asynccontextmanager
async def _redis_states(url: str, state: RedisState, passed: TimeMachine) -> AsyncIterator[StateUnderTest]:
    @asynccontextmanager
    async def listen(prefix: str) -> AsyncIterator[Heard]:
        heard = Heard()

        def hear(message: dict[str, bytes]) -> None:
            heard.put_nowait((message["channel"].decode().removeprefix("auction:results:"), message["data"]))

        async with Redis.from_url(url, protocol=2) as client, client.pubsub() as listener:
            await listener.psubscribe(f"auction:results:{prefix}*")
            await listener.get_message(timeout=PATIENCE_S)  # subscribed
            await listener.psubscribe(**{f"auction:results:{prefix}*": hear})
            running = asyncio.create_task(listener.run(poll_timeout=PATIENCE_S))
            yield heard
            running.cancel()
            await asyncio.wait([running])

    yield StateUnderTest(state, passed, listen)
    await state.close()


@asynccontextmanager
async def sqlite_repositories(request: pytest.FixtureRequest) -> AsyncIterator[Callable[[], Repository]]:
    """Repositories on one SQLite file."""
    async with _repositories(str(request.getfixturevalue("tmp_path") / "rtb.db")) as make:
        yield make


@asynccontextmanager
async def postgresql_repositories(request: pytest.FixtureRequest) -> AsyncIterator[Callable[[], Repository]]:
    """Repositories on one database of a PostgreSQL server."""
    url = await request.getfixturevalue("postgres_databases").migrated()
    async with _repositories(url) as make:
        yield make


def patient(database: str) -> SqlDatabase:
    """A database for several at once, where processors and disks are slow: nobody gives up on another's write."""
    return SqlDatabase(database, busy_timeout_ms=60_000, answer_limit_s=60.0)


@asynccontextmanager
async def _repositories(database: str) -> AsyncIterator[Callable[[], Repository]]:
    opened: list[SqlRepository] = []

    def make() -> Repository:
        repository = SqlRepository(patient(database))
        opened.append(repository)
        return repository

    yield make
    for repository in opened:
        await repository.close()


STATES: dict[str, Callable[[pytest.FixtureRequest], AbstractAsyncContextManager[StateUnderTest]]] = {
    "memory": memory_states,
    "redis": redis_states,
    "redis-cluster": redis_cluster_states,
}
REPOSITORIES: dict[str, Callable[[pytest.FixtureRequest], AbstractAsyncContextManager[Callable[[], Repository]]]] = {
    "sqlite": sqlite_repositories,
    "postgresql": postgresql_repositories,
}
