"""Thousands of tracked events while everything they pass through is killed: to the nano, all books say the same."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from rtb.adapters.amqp import RabbitBroker
from rtb.adapters.clock import SystemClock
from rtb.adapters.memory_accounts import MemoryAccounts
from rtb.adapters.memory_broker import MemoryBroker
from rtb.adapters.memory_state import MemoryState
from rtb.adapters.redis_accounts import RedisAccounts
from rtb.adapters.redis_state import RedisState
from rtb.adapters.sql_database import SqlDatabase
from rtb.adapters.sql_ledger import SqlLedger
from rtb.adapters.sql_schema import migrate
from rtb.lab.servers.postgres import PostgresServer
from rtb.services import topology
from tests.support.rabbitmq import MakeRabbit
from tests.support.redis import MakeRedis
from tests.support.tracked_world import (
    CLICK,
    CONVERSION,
    IMPRESSION,
    TIMING,
    Daemon,
    Post,
    Simulator,
    Stores,
    check,
    publish,
    settled,
)

SETTLED_S = 1.5
"""RabbitMQ writes the name of a new quorum queue to disk after 500 ms (ra_directory, auto_save); killed before, it
forgets the queue. A daemon's queues are older than that."""
Harm = Callable[[], Awaitable[None]]


async def test_the_servers_are_killed_under_the_events(
    make_rabbit: MakeRabbit, make_redis: MakeRedis, own_postgres: PostgresServer
) -> None:
    """Wins and impressions while RabbitMQ is killed, Redis comes back empty and a daemon dies; clicks while PostgreSQL
    is killed; conversions while another daemon dies."""
    rabbit, redis = make_rabbit(), await asyncio.to_thread(make_redis)
    await asyncio.gather(asyncio.to_thread(rabbit.start), migrate(own_postgres.url))
    ledger = SqlLedger(SqlDatabase(own_postgres.url, answer_limit_s=5.0))
    await ledger.start()
    stores = Stores(
        lambda: RabbitBroker(rabbit.url, SystemClock()),
        lambda: RedisAccounts(redis.url, TIMING),
        lambda: RedisState(redis.url),
        ledger,
    )
    publisher = stores.broker()
    await publisher.start()
    await publisher.declare(topology.topology())
    daemons = {name: await Daemon(stores, name).start() for name in ("one", "two")}
    await asyncio.sleep(SETTLED_S)

    async def kill_rabbit() -> None:
        await asyncio.to_thread(rabbit.kill)
        await asyncio.to_thread(rabbit.start)

    async def empty_redis() -> None:
        await asyncio.to_thread(redis.restart_empty)

    async def kill_postgres() -> None:
        await asyncio.to_thread(own_postgres.kill)
        await asyncio.to_thread(own_postgres.start)

    def restart(name: str) -> Harm:
        async def harm() -> None:
            await daemons[name].kill()
            daemons[name] = await Daemon(stores, name).start()

        return harm

    async def under(posts: list[Post], *harms: Harm) -> None:
        """Publish a part before each harm, and the rest while it lasts."""
        size = len(posts) // (len(harms) + 1) + 1
        for number, harm in enumerate([*harms, None]):
            part = posts[number * size : (number + 1) * size]
            publishing = asyncio.ensure_future(publish(publisher, part))
            if harm is not None:
                await harm()
            await publishing
        await settled(ledger, simulator)

    simulator = Simulator(7)
    try:
        tickets, posts = simulator.wins(1_500)
        seen = simulator.some(tickets, 0.9)
        await under(posts + simulator.events(IMPRESSION, seen), restart("one"), kill_rabbit, empty_redis)
        clicked = simulator.some(seen, 0.4)
        await under(simulator.events(CLICK, clicked), kill_postgres)
        await under(simulator.events(CONVERSION, simulator.some(clicked, 0.4)), restart("two"))
        await check(daemons["one"], simulator)
    finally:
        await asyncio.gather(*(daemon.stop() for daemon in daemons.values()))
        await publisher.close()
        await ledger.close()


async def test_an_embedded_daemon_dies_again_and_again(tmp_path: Path) -> None:
    """In-process broker and accounts, a SQLite file: what it had in hand is handled by the next, whose accounts are
    rebuilt from the ledger."""
    first = MemoryBroker(SystemClock())
    await first.start()
    await first.declare(topology.topology())
    ledger = SqlLedger(str(tmp_path / "rtb.db"))
    await ledger.start()
    clock = SystemClock()
    state = MemoryState(clock)
    stores = Stores(first.peer, lambda: MemoryAccounts(clock, TIMING), lambda: state, ledger, near=True)
    simulator = Simulator(11)
    daemon = await Daemon(stores, "life 0").start()
    tickets, posts = simulator.wins(2_000)
    seen = simulator.some(tickets, 0.9)
    clicked = simulator.some(seen, 0.4)
    lives = 0
    for kind, these in ((IMPRESSION, seen), (CLICK, clicked), (CONVERSION, simulator.some(clicked, 0.4))):
        part = simulator.events(kind, these) + (posts if kind is IMPRESSION else [])
        third = len(part) // 3 + 1
        for start in range(0, len(part), third):
            publishing = asyncio.ensure_future(publish(first, part[start : start + third]))
            await asyncio.sleep(0.02)  # somewhere in the middle of a batch
            lives += 1
            await daemon.kill()
            daemon = await Daemon(stores, f"life {lives}").start()
            await publishing
        await settled(ledger, simulator)
    await check(daemon, simulator)
    await daemon.stop()
    await first.close()
    await ledger.close()
