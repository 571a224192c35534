"""rtb.adapters.sql_schema on SQLite and PostgreSQL: databases of every age come to the newest schema, with all they
hold."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
import pytest_asyncio
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, inspect

from rtb.adapters.sql import SqlRepository
from rtb.adapters.sql_database import SqlDatabase
from rtb.adapters.sql_ledger import SqlLedger
from rtb.adapters.sql_schema import HEAD, current, migrate, pending, script
from rtb.adapters.sql_tables import METADATA
from rtb.domain import campaign as campaigns_
from rtb.domain.campaign import Campaign, Creative
from rtb.domain.profile import Profile
from rtb.errors import StoreError
from tests.support.postgres import PostgresDatabases, execute

FIRST_VERSION = (  # what the first version of rtb made, without migrations
    "CREATE TABLE campaigns (id VARCHAR(200) NOT NULL, version BIGINT NOT NULL, status VARCHAR(16) NOT NULL,"
    " advertiser VARCHAR(200) NOT NULL, body TEXT NOT NULL, PRIMARY KEY (id))",
    "CREATE INDEX campaigns_by_advertiser ON campaigns (advertiser)",
    "CREATE TABLE profiles (user_id TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (user_id))",
)
STORED = [
    Campaign(id=id_, advertiser="acme", creatives=(Creative(id="c"),), bid=1.0, version=3) for id_ in ("b", "a", "é")
]


async def run(database: str, *statements: str) -> None:
    """Plain SQL, past everything of rtb."""
    if "://" in database:
        await execute(database, *statements)
    else:
        with closing(sqlite3.connect(database)) as connection:
            for statement in statements:
                connection.execute(statement)
            connection.commit()


async def make_first_version(database: str) -> None:
    """The tables of the first version, with three campaigns and a profile."""
    rows = [
        f"INSERT INTO campaigns VALUES ('{c.id}', 3, 'active', 'acme', '{campaigns_.encode(c).decode()}')"
        for c in STORED
    ]
    await run(database, *FIRST_VERSION, *rows, """INSERT INTO profiles VALUES ('u', '{"user_id": "u"}')""")


@asynccontextmanager
async def opened(database: str) -> AsyncIterator[SqlDatabase]:
    """A database, closed in the end."""
    sql = SqlDatabase(database)
    await sql.start()
    yield sql
    await sql.close()


@pytest_asyncio.fixture(params=["sqlite", "postgresql"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    if request.param == "sqlite":
        return str(tmp_path / "rtb.db")
    return str(await request.getfixturevalue("postgres_databases").empty("ENCODING 'UTF8'"))


async def test_the_migrations_make_the_tables_of_the_code(database: str) -> None:
    """An empty database that is migrated has exactly the tables, columns, types and indexes that the code names."""

    def differences(connection: Connection) -> list[object]:
        options = {"compare_type": True, "compare_server_default": True}
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), METADATA))

    assert await pending(database) == ["0001", "0002", "0003", "0004", "0005", "0006"]
    assert await migrate(database) == ["0001", "0002", "0003", "0004", "0005", "0006"]
    async with opened(database) as sql, sql.read() as connection:
        assert await connection.run_sync(differences) == []
    assert await current(database) == HEAD
    assert await pending(database) == []
    assert await migrate(database) == []


async def test_tables_of_the_first_version_are_taken_over(database: str) -> None:
    """They had no revision: they get one, keep every campaign and profile, and each campaign gets a number."""
    await make_first_version(database)
    assert await current(database) is None
    assert await migrate(database) == ["0001", "0002", "0003", "0004", "0005", "0006"]
    repository = SqlRepository(database)
    await repository.start()
    ordered = sorted(STORED, key=lambda campaign: campaign.id)
    assert [part async for part in repository.campaigns()] == [ordered]
    assert await repository.profiles(["u"]) == [Profile("u")]
    assert [part async for part in repository.changes(0)] == [[(n, c) for n, c in enumerate(ordered, 1)]]
    assert await repository.last_change() == 3
    await repository.close()


async def test_one_revision_after_the_other(database: str) -> None:
    """A migration may stop at a revision; `pending` tells what is left."""
    assert await migrate(database, "0001") == ["0001"]
    assert await current(database) == "0001"
    assert await pending(database) == ["0002", "0003", "0004", "0005", "0006"]
    assert await migrate(database) == ["0002", "0003", "0004", "0005", "0006"]


async def test_a_script_does_the_same(database: str) -> None:
    """The printed SQL, run by hand, leaves what `migrate` leaves, on an empty and on an older database."""
    for revision in ("0001", "head"):
        for statement in (await script(database, revision)).split(";"):
            if statement.strip() and statement.strip() not in ("BEGIN", "COMMIT"):
                await run(database, statement)
    assert await current(database) == HEAD
    repository = SqlRepository(database)
    await repository.start()
    assert await repository.put_campaigns(STORED) == 3
    await repository.close()


async def test_daemons_that_migrate_at_once_wait_for_each_other(database: str) -> None:
    """Of several only one does it; all find the newest schema."""
    await make_first_version(database)
    ran = await asyncio.gather(*(migrate(database) for _ in range(4)))
    assert sorted(ran) == [[], [], [], ["0001", "0002", "0003", "0004", "0005", "0006"]]
    assert await current(database) == HEAD


async def test_a_migration_that_fails_changes_nothing(database: str) -> None:
    """A table that is in the way is named, and the database stays as it was."""
    await make_first_version(database)
    await run(database, "CREATE TABLE instances (something TEXT)")
    with pytest.raises(StoreError, match="instances"):
        await migrate(database)
    assert await current(database) is None
    async with opened(database) as sql, sql.read() as connection:
        tables = await connection.run_sync(lambda sync: set(inspect(sync).get_table_names()))
        columns = await connection.run_sync(lambda sync: [c["name"] for c in inspect(sync).get_columns("campaigns")])
    assert tables == {"campaigns", "profiles", "instances"}
    assert "changed" not in columns


async def test_tables_of_a_newer_version_are_left_alone(database: str) -> None:
    """Who is too old for the database says so, at start and at migration, whether it may upgrade or not."""
    await migrate(database)
    await run(database, "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StoreError, match=r"newer rtb \(revision 9999, this one knows 0006\); upgrade rtb"):
        await migrate(database)
    for upgrade in (False, True):
        with pytest.raises(StoreError, match="newer rtb"):
            await SqlRepository(database, upgrade=upgrade).start()


async def test_a_start_without_leave_to_upgrade(database: str) -> None:
    """It refuses an empty and an old database and names the command; with leave it upgrades, as SQLite does unasked."""
    with pytest.raises(StoreError, match="was never migrated; run `rtb migrate`"):
        await SqlRepository(database, upgrade=False).start()
    await make_first_version(database)
    with pytest.raises(StoreError, match="was never migrated; run `rtb migrate`"):
        await SqlLedger(database, upgrade=False).start()
    await migrate(database, "0001")
    with pytest.raises(StoreError, match=r"has old tables \(revision 0001, not 0006\); run `rtb migrate`"):
        await SqlRepository(database, upgrade=False).start()
    repository = SqlRepository(database, upgrade=None if "://" not in database else True)
    await repository.start()
    assert [part async for part in repository.campaigns()] == [sorted(STORED, key=lambda campaign: campaign.id)]
    await repository.close()


async def test_a_language_s_order_is_replaced(postgres_databases: PostgresDatabases) -> None:
    """In a PostgreSQL database of another collation ids are ordered by their characters all the same."""
    url = await postgres_databases.empty("LOCALE_PROVIDER icu ICU_LOCALE 'en-US' ENCODING 'UTF8'")
    await make_first_version(url)
    await migrate(url)
    repository = SqlRepository(url)
    await repository.start()
    ids = ["B", "a", "_", "é", "Z9", "z"]
    await repository.put_campaigns(
        [Campaign(id=i, advertiser="x", creatives=STORED[0].creatives, bid=1.0) for i in ids]
    )
    found = [c.id async for part in repository.campaigns(2) for c in part]
    assert found == sorted({*ids, "a", "b", "é"})
    await repository.close()
