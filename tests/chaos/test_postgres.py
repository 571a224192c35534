"""PostgreSQL killed, restarted and frozen under a ledger that is written to.

Nothing committed is lost, nothing is there twice, calls end in bounded time, and all goes on without a human.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import repeat
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from rtb import messages
from rtb.adapters.clock import SystemClock
from rtb.adapters.memory_broker import MemoryBroker
from rtb.adapters.sql import SqlRepository
from rtb.adapters.sql_database import SqlDatabase
from rtb.adapters.sql_ledger import SqlLedger
from rtb.adapters.sql_schema import migrate
from rtb.domain.campaign import Campaign, Creative, encode
from rtb.errors import StoreError
from rtb.lab.servers.postgres import PostgresServer
from rtb.messages import MessageType
from rtb.ports import LedgerKind, LedgerRow, Message
from rtb.services import topology
from tests.support.catalogue import CatalogueDaemon
from tests.unit.parts import campaign, world

WRITERS = 3
PATIENCE_S = 60.0
ANSWER_LIMIT_S = 4.0  # more than a busy machine keeps a call from its answer


def batch(writer: int, number: int) -> list[LedgerRow]:
    """Ten rows of one nano each, and one that every writer writes."""
    keys = [*(f"{writer}-{number}-{n}" for n in range(10)), f"shared-{number}"]
    return [
        LedgerRow(
            key=key,
            kind=LedgerKind.IMPRESSION,
            campaign_id="c-1",
            day="2026-11-22",
            auction_id=key,
            impid="1",
            instance=f"writer {writer}",
            price_nanos=1,
            charged_nanos=1,
            expires_at=0.0,
            received_at=float(number),
        )
        for key in keys
    ]


class Writers:
    """Daemons that append batch after batch, each until it is written, as the outbox does."""

    def __init__(self, ledger: SqlLedger) -> None:
        self.acknowledged: set[str] = set()
        self.errors: list[Exception] = []
        self._ledger = ledger
        self._stop = False
        self._progress = asyncio.Condition()
        self._batches = 0
        self._tasks = [asyncio.ensure_future(self._write(writer)) for writer in range(WRITERS)]

    async def progress(self, batches: int = 10) -> None:
        """Wait for so many batches more."""
        goal = self._batches + batches
        async with asyncio.timeout(PATIENCE_S), self._progress:
            await self._progress.wait_for(lambda: self._batches >= goal)

    async def trouble(self) -> None:
        """Wait for an error more."""
        known = len(self.errors)
        async with asyncio.timeout(PATIENCE_S), self._progress:
            await self._progress.wait_for(lambda: len(self.errors) > known)

    async def end(self) -> None:
        """Let each finish its batch."""
        self._stop = True
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*self._tasks)

    async def _write(self, writer: int) -> None:
        number = 0
        while not self._stop:
            number += 1
            await self._write_until_written(batch(writer, number))

    async def _write_until_written(self, rows: list[LedgerRow]) -> None:
        for pause_s in repeat(0.02):  # as an outbox waits before it tries again
            if await self._written(rows):
                return
            await asyncio.sleep(pause_s)

    async def _written(self, rows: list[LedgerRow]) -> bool:
        try:
            async with asyncio.timeout(10 * ANSWER_LIMIT_S):
                await self._ledger.append(rows, epochs={"c-1": 1})
        except StoreError as error:
            self.errors.append(error)
            return False
        else:
            self.acknowledged.update(row.key for row in rows)
            self._batches += 1
            return True
        finally:
            async with self._progress:
                self._progress.notify_all()


@asynccontextmanager
async def writing(server: PostgresServer) -> AsyncIterator[Writers]:
    """Writers at work; in the end the ledger holds exactly what was acknowledged, each row once."""
    await migrate(server.url)
    database = SqlDatabase(server.url, answer_limit_s=ANSWER_LIMIT_S)
    ledger = SqlLedger(database)
    await ledger.start()
    await ledger.raise_epochs(["c-1"])
    writers = Writers(ledger)
    try:
        await writers.progress()
        yield writers
        await writers.end()
        keys = [row.key async for part in ledger.rows() for row in part]
        assert sorted(keys) == sorted(writers.acknowledged)
        assert await ledger.spent() == {("c-1", "2026-11-22"): len(keys)}
    finally:
        await ledger.close()


@pytest.mark.parametrize("harm", [PostgresServer.kill, PostgresServer.stop], ids=["killed", "stopped"])
async def test_a_server_that_ends_under_load(
    own_postgres: PostgresServer, harm: Callable[[PostgresServer], None]
) -> None:
    """Three times over: what was acknowledged is there, what was not is written afterwards, and all errors are
    StoreErrors of one line."""
    async with writing(own_postgres) as writers:
        for _ in range(3):
            await asyncio.to_thread(harm, own_postgres)
            await writers.trouble()
            await asyncio.to_thread(own_postgres.start)
            await writers.progress()
    assert writers.errors
    assert all("\n" not in str(error) for error in writers.errors)


async def test_a_frozen_server(own_postgres: PostgresServer) -> None:
    """Calls end with an error in bounded time though nobody answers; when the server goes on, so do they. What was
    given up and committed all the same is not there twice."""
    async with writing(own_postgres) as writers:
        own_postgres.pause()
        await writers.trouble()
        await writers.trouble()
        own_postgres.resume()
        await writers.progress()
    assert any("did not answer in time" in str(error) for error in writers.errors)


async def test_a_restart_between_two_calls(own_postgres: PostgresServer) -> None:
    """A repository that was idle meanwhile does not notice."""
    await migrate(own_postgres.url)
    repository = SqlRepository(own_postgres.url)
    await repository.start()
    campaign = Campaign(id="c-1", advertiser="acme", creatives=(Creative(id="c"),), bid=1.0)
    await repository.put_campaigns([campaign])
    await asyncio.to_thread(own_postgres.restart)
    assert await repository.campaign("c-1") == campaign
    await asyncio.to_thread(own_postgres.kill)
    with pytest.raises(StoreError, match="cannot be reached"):
        await repository.campaign("c-1")
    await asyncio.to_thread(own_postgres.start)
    assert await repository.campaign("c-1") == campaign
    await repository.close()


async def test_the_campaign_writer_outlasts_restarts(own_postgres: PostgresServer, tmp_path: Path) -> None:
    """Updates that arrive while the server is killed and started, twice, are all in the repository in the end, in their
    order; none is a dead letter."""
    await migrate(own_postgres.url)
    part = world(own_postgres.url)
    await part.repository.start()
    broker = MemoryBroker(SystemClock())
    await broker.start()
    await broker.declare(topology.topology())
    daemon = CatalogueDaemon("d", part, broker, tmp_path)
    await daemon.start()
    try:
        for turn in range(2):
            await asyncio.to_thread(own_postgres.kill)
            for number in range(10):
                await tell(broker, campaign(f"c-{turn}-{number}"))
                await tell(broker, replace(campaign(f"c-{turn}-{number}"), bid=9.0, version=2))
            await daemon.writer_waits()
            await asyncio.to_thread(own_postgres.start)
            for number in range(10):
                known = await daemon.at_version(f"c-{turn}-{number}", 2)
                assert known == await part.repository.campaign(f"c-{turn}-{number}")
                assert known is not None
                assert known.bid == 9.0
        assert (await broker.depth(topology.DEAD)).ready == 0
    finally:
        await daemon.stop()
        await broker.close()
        await part.profiles.close()
        await part.repository.close()


async def tell(broker: MemoryBroker, value: Campaign) -> None:
    """An update from outside."""
    name = f"{value.id}:{value.version}"
    body = messages.encode(
        MessageType.CAMPAIGN_UPDATE, msgspec.Raw(encode(value)), message_id=name, timestamp=1_795_305_600.0
    )
    await broker.publish(*topology.ROUTES[MessageType.CAMPAIGN_UPDATE], Message(body=body, message_id=name))
