"""PostgreSQL for tests. tests/conftest.py makes the fixtures known."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import asyncpg  # type: ignore[import-untyped]
import pytest

from rtb.adapters.sql_schema import migrate
from rtb.lab.servers.certificates import Certificates
from rtb.lab.servers.postgres import PostgresServer

REMOVE_LIMIT_S = 60.0


@contextmanager
def running(certificates: Certificates | None = None) -> Iterator[PostgresServer]:
    """A server of our own. Not in a folder of pytest's: those are closed to the user it runs as when we are root."""
    if not [*Path("/usr/lib/postgresql").glob("*/bin/initdb"), *filter(None, [shutil.which("initdb")])]:
        pytest.skip("no PostgreSQL on this machine: apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="rtb-postgres-"))
    server = PostgresServer(folder, durable=False, certificates=certificates)
    try:
        server.start()
        yield server
    finally:
        try:
            server.kill()
        finally:
            command = ["rm", "-rf", str(folder)]  # some 60,000 files: rmtree takes seconds
            subprocess.run(command, check=True, timeout=REMOVE_LIMIT_S)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A running server that many tests share: it is never killed or frozen, and each test has a database of its own."""
    with running() as server:
        yield server


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """A running server of the test's own, which it may kill."""
    with running() as server:
        yield server


class PostgresDatabases:
    """Makes databases on a shared server, each under a new name; they go with the server."""

    def __init__(self, server: PostgresServer) -> None:
        """None yet."""
        self._server = server
        self._template = ""

    async def empty(self, options: str = "") -> str:
        """The URL of a database without tables; `options` are those of CREATE DATABASE."""
        name = f"test_{uuid4().hex}"
        await execute(self._server.url, f"CREATE DATABASE {name} TEMPLATE template0 {options}")
        return self._server.url_of(name)

    async def migrated(self) -> str:
        """The URL of a database with the newest schema: a copy of one that was migrated once."""
        if not self._template:
            url = await self.empty()
            await migrate(url)
            self._template = url.rpartition("/")[2]
        name = f"test_{uuid4().hex}"
        await execute(self._server.url, f"CREATE DATABASE {name} TEMPLATE {self._template}")
        return self._server.url_of(name)


@pytest.fixture(scope="session")
def postgres_databases(postgres_server: PostgresServer) -> PostgresDatabases:
    """Databases on the shared server."""
    return PostgresDatabases(postgres_server)


async def execute(url: str, *statements: str) -> None:
    """Run statements on a connection of their own."""
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()
