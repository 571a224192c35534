"""rtb.adapters on PostgreSQL: what can be wrong with a server, each told in one line."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from rtb.adapters.sql import SqlRepository
from rtb.adapters.sql_database import SqlDatabase
from rtb.domain.campaign import Campaign, Creative
from rtb.domain.profile import Profile
from rtb.errors import StoreError
from rtb.lab.servers.postgres import PostgresServer
from rtb.lab.servers.process import free_port
from tests.support.postgres import PostgresDatabases, execute

CAMPAIGN = Campaign(id="c-1", advertiser="acme", creatives=(Creative(id="c"),), bid=1.0)


@asynccontextmanager
async def opened(url: str, **options: float) -> AsyncIterator[SqlRepository]:
    """A started repository, closed in the end."""
    repository = SqlRepository(SqlDatabase(url, **options))  # type: ignore[arg-type]
    try:
        await repository.start()
        yield repository
    finally:
        await repository.close()


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[asyncpg.Connection]:
    """A plain connection."""
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


async def refusal(url: str, **options: float) -> str:
    """The line that start fails with: one line, without the password."""
    with pytest.raises(StoreError) as caught:
        async with opened(url, **options):
            pass
    line = str(caught.value)
    assert "\n" not in line
    assert password(url) not in line
    return line


def password(url: str) -> str:
    """The password in a URL."""
    return url.partition("@")[0].rpartition(":")[2]


async def test_nobody_listens() -> None:
    """It cannot be reached."""
    url = f"postgresql://rtb:topsecret@127.0.0.1:{free_port()}/rtb"
    assert "cannot be reached: " in await refusal(url)


async def test_an_unknown_host() -> None:
    """It cannot be reached, either."""
    assert "cannot be reached: " in await refusal("postgresql://rtb:topsecret@nowhere.invalid/rtb")


async def test_somebody_who_never_answers() -> None:
    """A port behind which nothing speaks is given up in time."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"postgresql://rtb:topsecret@127.0.0.1:{server.getsockname()[1]}/rtb"
        assert "did not answer in time" in await refusal(url, answer_limit_s=0.2)


async def test_a_wrong_password(postgres_server: PostgresServer) -> None:
    """The URL is to be checked; neither password is told."""
    right = password(postgres_server.url)
    line = await refusal(postgres_server.url.replace(right, "topsecret"))
    assert line.endswith("refuses the user or the password; check the URL")
    assert right not in line


async def test_a_missing_database(postgres_server: PostgresServer) -> None:
    """It is to be made."""
    line = await refusal(postgres_server.url_of("nowhere"))
    assert line.endswith("/nowhere does not exist; create it with createdb, then run `rtb migrate`")


async def test_an_empty_database(postgres_databases: PostgresDatabases) -> None:
    """It is to be migrated."""
    assert (await refusal(await postgres_databases.empty())).endswith("was never migrated; run `rtb migrate`")


async def test_tables_that_vanished(postgres_databases: PostgresDatabases) -> None:
    """A database that somebody spoiled under a running daemon is to be migrated."""
    url = await postgres_databases.migrated()
    async with opened(url) as repository:
        await execute(url, "DROP TABLE profiles")
        with pytest.raises(StoreError, match="has no tables of rtb, or old ones; run `rtb migrate`"):
            await repository.profiles(["u"])


async def test_a_read_only_server(postgres_databases: PostgresDatabases) -> None:
    """Reading works, writing tells why not."""
    url = await postgres_databases.migrated()
    name = url.rpartition("/")[2]
    async with opened(url) as writer:
        await writer.put_campaigns([CAMPAIGN])
    await execute(url, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    async with opened(url) as reader:
        assert await reader.campaign("c-1") == CAMPAIGN
        with pytest.raises(StoreError, match="takes no writes: it is read-only or a standby"):
            await reader.put_profiles([Profile("u")])


async def test_a_user_without_rights(postgres_databases: PostgresDatabases, postgres_server: PostgresServer) -> None:
    """The rights are to be granted."""
    url = await postgres_databases.migrated()
    user = f"guest_{url[-8:]}"
    await execute(url, f"CREATE USER {user} PASSWORD 'opensesame'", f"GRANT SELECT ON alembic_version TO {user}")
    guest = url.replace(f"rtb:{password(url)}", f"{user}:opensesame")
    async with opened(guest) as repository:
        with pytest.raises(StoreError, match="does not permit that; grant the user rights"):
            await repository.campaign("c-1")


async def test_too_many_connections(postgres_databases: PostgresDatabases) -> None:
    """The limit is named."""
    url = await postgres_databases.migrated()
    name, user = url.rpartition("/")[2], f"guest_{url[-8:]}"
    await execute(url, f"CREATE USER {user} PASSWORD 'opensesame'", f"ALTER DATABASE {name} CONNECTION LIMIT 1")
    guest = url.replace(f"rtb:{password(url)}", f"{user}:opensesame")
    async with connected(guest):
        assert "has too many connections" in await refusal(guest)


async def test_a_connection_that_was_cut_is_replaced(postgres_databases: PostgresDatabases) -> None:
    """After an administrator ended the daemon's connections the next call works as if nothing had been."""
    url = await postgres_databases.migrated()
    async with opened(url) as repository:
        await repository.put_campaigns([CAMPAIGN])
        await execute(
            url,
            "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        assert await repository.campaign("c-1") == CAMPAIGN


async def test_a_writer_that_is_kept_waiting(postgres_databases: PostgresDatabases) -> None:
    """Who cannot write because of another's lock gives up in time, and can write once it is gone."""
    url = await postgres_databases.migrated()
    async with connected(url) as other, opened(url, answer_limit_s=4.0) as repository:
        transaction = other.transaction()
        await transaction.start()
        await other.execute("LOCK TABLE profiles")
        with pytest.raises(StoreError, match="did not answer in time"):
            await repository.put_profiles([Profile("u")])
        await transaction.rollback()
        await repository.put_profiles([Profile("u")])
        assert await repository.profiles(["u"]) == [Profile("u")]


@pytest.mark.parametrize("option", ["sslmode=disable", "ssl=disable"])
async def test_options_in_the_url(postgres_databases: PostgresDatabases, option: str) -> None:
    """sslmode is understood, as every PostgreSQL tool does."""
    async with opened(f"{await postgres_databases.migrated()}?{option}") as repository:
        assert await repository.last_change() == 0


async def test_a_unix_socket(postgres_databases: PostgresDatabases, postgres_server: PostgresServer) -> None:
    """The folder of the server's socket may stand for its host."""
    url = await postgres_databases.migrated()
    name = url.rpartition("/")[2]
    local = f"postgresql://rtb:{password(url)}@/{name}?host={postgres_server.folder}&port={postgres_server.port}"
    async with opened(local) as repository:
        assert await repository.last_change() == 0


def test_an_unknown_option_in_the_url() -> None:
    """It is named before anything is opened."""
    with pytest.raises(StoreError, match="unknown option 'sslmodus'; known are host, port, sslmode and sslrootcert"):
        SqlDatabase("postgresql://rtb@127.0.0.1/rtb?sslmodus=disable")
