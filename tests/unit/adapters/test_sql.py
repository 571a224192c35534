"""rtb.adapters.sql: what can be wrong with a database, each told in one line."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rtb.adapters.sql import SqlRepository
from rtb.adapters.sql_database import _SqliteConnection
from rtb.domain.campaign import Campaign, Creative
from rtb.domain.profile import Profile
from rtb.errors import StoreError

CAMPAIGN = Campaign(id="c-1", advertiser="acme", creatives=(Creative(id="c"),), bid=1.0)


@contextlib.asynccontextmanager
async def opened(database: object, busy_timeout_ms: int = 5_000) -> AsyncIterator[SqlRepository]:
    """A started repository, closed in the end."""
    repository = SqlRepository(str(database), busy_timeout_ms=busy_timeout_ms)
    try:
        await repository.start()
        yield repository
    finally:
        await repository.close()


async def refusal(database: object) -> str:
    """The line that start fails with."""
    with pytest.raises(StoreError) as caught:
        async with opened(database):
            pass
    line = str(caught.value)
    assert "\n" not in line
    return line


async def test_a_missing_directory(tmp_path: Path) -> None:
    """The line names the database and the directory."""
    line = await refusal(tmp_path / "no" / "rtb.db")
    assert line == (
        f"database {tmp_path}/no/rtb.db cannot be opened: directory {tmp_path}/no does not exist; create it"
    )


async def test_a_directory_in_place_of_a_file(tmp_path: Path) -> None:
    """It cannot be opened."""
    assert await refusal(tmp_path) == f"database {tmp_path} cannot be opened; check the path and its permissions"


async def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    """Another kind of file is left alone."""
    path = tmp_path / "notes.txt"
    path.write_text("these are notes, not a database\n" * 100)
    assert await refusal(path) == f"database {path} is not a SQLite database; give another path"
    assert path.read_text().startswith("these are notes")


async def test_a_read_only_database(tmp_path: Path) -> None:
    """Reading works, writing tells why not."""
    path = tmp_path / "rtb.db"
    async with opened(path) as writer:
        await writer.put_campaigns([CAMPAIGN])
    async with opened(f"sqlite:///file:{path}?mode=ro&uri=true") as reader:
        assert await reader.campaign("c-1") == CAMPAIGN
        with pytest.raises(StoreError, match=r"is read-only; check the permissions"):
            await reader.put_profiles([Profile("u")])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
async def test_a_directory_without_permission(tmp_path: Path) -> None:
    """A database cannot be made where one may not write."""
    tmp_path.chmod(0o500)
    try:
        assert "permissions" in await refusal(tmp_path / "rtb.db")
    finally:
        tmp_path.chmod(0o700)


async def test_a_locked_database(tmp_path: Path) -> None:
    """A writer that another one keeps waiting for too long is told so; readers are not disturbed."""
    path = tmp_path / "rtb.db"
    async with opened(path, busy_timeout_ms=1) as repository:
        await repository.put_campaigns([CAMPAIGN])
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match=rf"^database {path} is locked: another writer did not finish in time"):
            await repository.put_profiles([Profile("u")])
        assert await repository.campaign("c-1") == CAMPAIGN
        other.execute("ROLLBACK")
        other.close()
        await repository.put_profiles([Profile("u")])


def test_a_connection_is_closed_again(tmp_path: Path) -> None:
    """Without harm, as any of SQLite's is: its transaction ended with it the first time."""
    path = tmp_path / "rtb.db"
    connection = sqlite3.connect(path, isolation_level=None, factory=_SqliteConnection)
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("CREATE TABLE t (n int)")
    for _ in range(2):
        connection.close()
    with contextlib.closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,)


async def test_a_new_database_that_another_writes_to(tmp_path: Path) -> None:
    """Who comes to a file without a write-ahead log waits until another's transaction is over, then begins one."""
    path = tmp_path / "rtb.db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        asyncio.get_running_loop().call_later(0.2, other.execute, "COMMIT")
        async with opened(path, busy_timeout_ms=60_000) as repository:
            assert not other.in_transaction
            await repository.put_campaigns([CAMPAIGN])
        assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)


async def test_a_broken_body(tmp_path: Path) -> None:
    """A campaign or profile that somebody spoiled is named, with what is wrong with it."""
    path = tmp_path / "rtb.db"
    async with opened(path) as repository:
        await repository.put_campaigns([CAMPAIGN])
        await repository.put_profiles([Profile("u-1")])
        with contextlib.closing(sqlite3.connect(path)) as other:
            other.execute("UPDATE campaigns SET body = '{\"id\": 5}'")
            other.execute("UPDATE profiles SET body = 'tea'")
            other.commit()
        with pytest.raises(StoreError, match=r"holds a broken campaign 'c-1': id: "):
            await repository.campaign("c-1")
        with pytest.raises(StoreError, match=r"holds a broken campaign 'c-1': id: "):
            await anext(aiter(repository.campaigns()))
        with pytest.raises(StoreError, match=r"holds a broken user 'u-1': "):
            await repository.profiles(["u-1"])


@pytest.mark.parametrize("database", [":memory:", "sqlite://", "sqlite:///:memory:"])
async def test_a_database_in_memory(database: str) -> None:
    """All connections of one repository see the same one, which ends with it."""
    async with opened(database) as repository:
        await repository.put_campaigns([CAMPAIGN])
        assert [part async for part in repository.campaigns()] == [[CAMPAIGN]]
    async with opened(database) as repository:
        assert await repository.campaign("c-1") is None


async def test_a_database_may_be_given_as_url(tmp_path: Path) -> None:
    """A path and its URL are the same database."""
    async with opened(tmp_path / "rtb.db") as repository:
        await repository.put_campaigns([CAMPAIGN])
    async with opened(f"sqlite:///{tmp_path}/rtb.db") as repository:
        assert await repository.campaign("c-1") == CAMPAIGN


@pytest.mark.parametrize("database", ["mysql://me:secret@host/rtb", "://"])
def test_an_unusable_url(database: str) -> None:
    """Another kind of database, or no URL at all, is refused before anything is opened; secrets are not repeated."""
    with pytest.raises(StoreError) as caught:
        SqlRepository(database)
    assert "secret" not in str(caught.value)
    assert "postgresql" in str(caught.value)


async def test_the_schema_can_be_searched(tmp_path: Path) -> None:
    """Beside the body stand the columns that an operator filters by, in a database that plain SQL reads."""
    path = tmp_path / "rtb.db"
    async with opened(path) as repository:
        await repository.put_campaigns([CAMPAIGN])
        with contextlib.closing(sqlite3.connect(path)) as other:
            rows = other.execute("SELECT id, version, status, advertiser, body ->> '$.bid' FROM campaigns").fetchall()
            assert rows == [("c-1", 1, "active", "acme", 1.0)]
            assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
