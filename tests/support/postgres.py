"""PostgreSQL for tests. Import the fixtures into the conftest.py beside the tests that use them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import asyncpg  # type: ignore[import-untyped]
import pytest

from rtb.lab.servers.postgres import PostgresServer

MakeDatabase = Callable[..., Awaitable[str]]


@contextmanager
def _running() -> Iterator[PostgresServer]:
    """Not in a folder of pytest's: those are closed to the user that PostgreSQL runs as when we are root."""
    if not [*Path("/usr/lib/postgresql").glob("*/bin/initdb"), *filter(None, [shutil.which("initdb")])]:
        pytest.skip("no PostgreSQL on this machine: apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="rtb-postgres-"))
    server = PostgresServer(folder, durable=False)
    try:
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A running server that many tests share: it is never killed or frozen, and each test has a database of its own."""
    with _running() as server:
        yield server


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """A running server of the test's own, which it may kill."""
    with _running() as server:
        yield server


@pytest.fixture
def make_database(postgres_server: PostgresServer) -> MakeDatabase:
    """Makes empty databases on the shared server: ``url = await make_database()``."""

    async def make(options: str = "TEMPLATE template0") -> str:
        name = f"test_{uuid4().hex}"
        await execute(postgres_server.url, f"CREATE DATABASE {name} {options}")
        return postgres_server.url_of(name)

    return make


async def execute(url: str, *statements: str) -> None:
    """Run statements on a connection of their own."""
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()
