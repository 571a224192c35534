"""rtb.lab.servers.postgres: a server that tests may treat badly."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import asyncpg
import pytest

from rtb.lab.servers.postgres import PostgresServer
from rtb.lab.servers.process import ServerFailed
from tests.support.postgres import execute


async def fetch(url: str, query: str) -> object:
    """One value."""
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


async def test_what_is_committed_survives_a_kill_and_a_restart(own_postgres: PostgresServer) -> None:
    """The server comes back on the same port, with the same data, however it ended."""
    url = own_postgres.url
    await execute(url, "CREATE TABLE t (n int)", "INSERT INTO t VALUES (1)")
    own_postgres.kill()
    with pytest.raises(OSError):
        await asyncpg.connect(url)
    own_postgres.start()
    own_postgres.restart()
    assert own_postgres.url == url
    assert await fetch(url, "SELECT n FROM t") == 1
    assert await fetch(url, "SELECT current_database() || current_user") == "rtbrtb"
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(url.replace("rtb:", "rtb:x"))


async def test_a_frozen_server_answers_nothing_until_it_goes_on(own_postgres: PostgresServer) -> None:
    """Open connections stay open; what was asked meanwhile is answered afterwards."""
    connection = await asyncpg.connect(own_postgres.url)
    own_postgres.pause()
    asked = asyncio.ensure_future(connection.fetchval("SELECT 7"))
    done, _ = await asyncio.wait([asked], timeout=0.2)
    assert not done
    own_postgres.resume()
    assert await asked == 7
    await connection.close()


@pytest.fixture
def closed_folder(tmp_path: Path) -> Path:
    """A folder that user postgres cannot enter."""
    tmp_path.chmod(0o700)
    return tmp_path / "inner"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root hands the server to another user")
def test_a_folder_out_of_its_reach(closed_folder: Path) -> None:
    """The error says where it cannot be set up, and why."""
    with pytest.raises(ServerFailed, match=rf"cannot be set up in {closed_folder}: .*ermission denied"):
        PostgresServer(closed_folder, durable=False).start()
