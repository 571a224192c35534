"""The ledgers under contract."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from rtb.adapters.memory_ledger import MemoryLedger
from rtb.adapters.sql_ledger import SqlLedger
from rtb.ports import Ledger
from tests.contract.support import patient

OpenLedger = Callable[[], Awaitable[Ledger]]


@asynccontextmanager
async def memory_ledgers(_request: pytest.FixtureRequest) -> AsyncIterator[OpenLedger]:
    """One ledger, shared in the process."""
    ledger = MemoryLedger()

    async def connect() -> Ledger:
        return ledger

    yield connect


@asynccontextmanager
async def sqlite_ledgers(request: pytest.FixtureRequest) -> AsyncIterator[OpenLedger]:
    """Ledgers on one SQLite file."""
    async with _sql_ledgers(str(request.getfixturevalue("tmp_path") / "rtb.db")) as connect:
        yield connect


@asynccontextmanager
async def postgresql_ledgers(request: pytest.FixtureRequest) -> AsyncIterator[OpenLedger]:
    """Ledgers on one database of a PostgreSQL server."""
    async with _sql_ledgers(await request.getfixturevalue("postgres_databases").migrated()) as connect:
        yield connect


@asynccontextmanager
async def _sql_ledgers(database: str) -> AsyncIterator[OpenLedger]:
    opened: list[SqlLedger] = []

    async def connect() -> Ledger:
        ledger = SqlLedger(patient(database))
        opened.append(ledger)
        await ledger.start()
        return ledger

    yield connect
    for ledger in opened:
        await ledger.close()


LEDGERS: dict[str, Callable[[pytest.FixtureRequest], AbstractAsyncContextManager[OpenLedger]]] = {
    "memory": memory_ledgers,
    "sqlite": sqlite_ledgers,
    "postgresql": postgresql_ledgers,
}
