"""RabbitMQ, Redis and PostgreSQL over TLS: certificates are checked, a refusal is one line, outages pass."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop

from rtb.adapters.amqp import RabbitBroker
from rtb.adapters.clock import SystemClock
from rtb.adapters.redis_state import RedisState
from rtb.adapters.sql_database import SqlDatabase
from rtb.adapters.sql_schema import migrate
from rtb.errors import BrokerError, StoreError
from rtb.lab.servers.certificates import Certificates
from rtb.lab.servers.postgres import PostgresServer
from rtb.lab.servers.rabbitmq import RabbitServer
from rtb.lab.servers.redis import RedisServer
from rtb.ports import Message, QueueSpec, Topology
from tests.contract.brokers import Inbox
from tests.support.daemon import Daemon
from tests.support.http import get
from tests.support.postgres import running
from tests.support.redis import MakeRedis
from tests.support.samples import bid_request, campaign

PATIENCE_S = 30.0
UNTRUSTED = r"its certificate is not trusted \(.*\); name its authority's file by "


@pytest.fixture(scope="module")
def rabbit(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[RabbitServer]:
    """A node that speaks TLS, for the tests of this file; none but the last one kills it."""
    server = RabbitServer(tmp_path_factory.mktemp("rabbitmq"), certificates=certificates)
    try:
        server.start()
        yield server
    finally:
        server.kill()
        server.stop()


@pytest.fixture(scope="module")
def postgres(certificates: Certificates) -> Iterator[PostgresServer]:
    """A PostgreSQL that speaks TLS to who asks."""
    with running(certificates) as server:
        yield server


def one_line(error: pytest.ExceptionInfo[BaseException], pattern: str) -> None:
    """The error is one line that fits."""
    text = str(error.value)
    assert "\n" not in text
    assert re.search(pattern, text), text


async def broken(url: str) -> str:
    """What a broker says that cannot be used."""
    broker = RabbitBroker(url, SystemClock())
    with pytest.raises(BrokerError) as error:
        await broker.start()
    assert "\n" not in str(error.value)
    return str(error.value)


def refused(server: RabbitServer, query: str) -> str:
    """What the broker says in a daemon's loop, after the place."""
    said = uvloop.run(broken(f"{server.tls_url}{query}"))
    place = f"cannot connect to 127.0.0.1:{server.tls_port}: "
    assert said.startswith(place)
    return said.removeprefix(place)


def test_a_broker_with_an_unknown_certificate_is_refused(
    rabbit: RabbitServer, strangers: Certificates, tmp_path: Path
) -> None:
    """Signed by nobody the system knows, or by another authority than the one that is named; a file that is not there
    or is no certificate is named."""
    setting = re.escape("broker.url ?cafile=FILE")
    for query in ("", f"?cafile={strangers.authority}"):
        assert re.fullmatch(UNTRUSTED + setting, refused(rabbit, query))
    assert refused(rabbit, f"?cafile={tmp_path}/none") == (
        f"cannot use {tmp_path}/none (broker.url ?cafile=FILE): No such file or directory"
    )
    (tmp_path / "text").write_text("hello")
    assert refused(rabbit, f"?cafile={tmp_path}/text") == (
        f"cannot use {tmp_path}/text (broker.url ?cafile=FILE): no certificate or crl found"
    )


def test_a_certificate_for_another_name_is_refused(rabbit: RabbitServer, certificates: Certificates) -> None:
    """Though its authority is known; and so is a server that speaks no TLS."""
    elsewhere = f"amqps://guest:guest@127.0.0.2:{rabbit.tls_port}/?cafile={certificates.authority}"
    plain = f"amqps://guest:guest@127.0.0.1:{rabbit.port}/?cafile={certificates.authority}"

    async def life() -> None:
        # The listener is bound to 127.0.0.1 alone: somebody at 127.0.0.2 hands the bytes on.
        async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            theirs, ours = await asyncio.open_connection("127.0.0.1", rabbit.tls_port)

            async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
                while data := await source.read(65_536):
                    sink.write(data)
                sink.close()

            await asyncio.gather(pump(reader, ours), pump(theirs, writer))

        async with await asyncio.start_server(carry, "127.0.0.2", rabbit.tls_port):
            assert "its certificate is refused: IP address mismatch, certificate is not valid for '127.0.0.2'" in (
                await broken(elsewhere)
            )
        assert "TLS fails: wrong version number" in await broken(plain)

    asyncio.run(life())


def test_redis_with_an_unknown_certificate_is_refused(
    make_redis: MakeRedis, certificates: Certificates, strangers: Certificates, tmp_path: Path
) -> None:
    """Each call says so at once, in one line that names the setting."""
    server = make_redis(certificates=certificates)
    setting = re.escape("state.url ?ssl_ca_certs=FILE")

    async def life() -> None:
        for query, pattern in (
            ("", UNTRUSTED + setting),
            (f"?ssl_ca_certs={strangers.authority}", UNTRUSTED + setting),
            (f"?ssl_ca_certs={tmp_path}/none", rf"cannot use {tmp_path}/none \({setting}\): No such file or directory"),
        ):
            state = RedisState(f"{server.tls_url}{query}", timeout_s=PATIENCE_S)
            with pytest.raises(StoreError) as error:
                await state.get_users(["u"])
            one_line(error, f"^Redis at 127.0.0.1:{server.tls_port}: {pattern}$")
            await state.close()

    uvloop.run(life())


async def test_a_database_with_an_unknown_certificate_is_refused(
    postgres: PostgresServer, certificates: Certificates, strangers: Certificates, tmp_path: Path
) -> None:
    """Unless the URL asks for no check; with the right authority it is used."""
    setting = re.escape("store.url ?sslrootcert=FILE")
    for query, pattern in (
        (f"?sslrootcert={strangers.authority}", f"cannot be used: {UNTRUSTED}{setting}$"),
        (f"?sslmode=verify-ca&sslrootcert={strangers.authority}", f"cannot be used: {UNTRUSTED}{setting}$"),
        (f"?sslrootcert={tmp_path}/none", rf"cannot use {tmp_path}/none \({setting}\): No such file or directory$"),
    ):
        with pytest.raises(StoreError) as error:
            await in_tls(f"{postgres.url}{query}")
        one_line(error, pattern)
    assert await in_tls(f"{postgres.url}?sslmode=verify-full&sslrootcert={certificates.authority}")
    assert await in_tls(f"{postgres.url}?sslmode=verify-ca&sslrootcert={certificates.authority}")
    assert await in_tls(f"{postgres.url}?sslmode=require")
    assert not await in_tls(f"{postgres.url}?sslmode=disable&sslrootcert={strangers.authority}")


async def in_tls(url: str) -> bool:
    """Whether a connection to the database is encrypted."""
    database = SqlDatabase(url)
    await database.start()
    try:
        async with database.read() as connection:
            found = await connection.exec_driver_sql("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
            return bool(found.scalar_one())
    finally:
        await database.close()


def test_redis_comes_back(make_redis: MakeRedis, certificates: Certificates) -> None:
    """Killed under a TLS connection, a call fails at once and a later one works."""
    server: RedisServer = make_redis(certificates=certificates)

    async def life() -> None:
        state = RedisState(f"{server.tls_url}?ssl_ca_certs={certificates.authority}", timeout_s=PATIENCE_S)
        await state.put_profiles({"u": b"{}"}, 3_600)
        server.kill()
        with pytest.raises(StoreError):
            await state.get_users(["u"])
        server.start()
        await state.put_profiles({"u": b"[]"}, 3_600)
        (user,) = await state.get_users(["u"])
        assert user.profile == b"[]"
        await state.close()

    uvloop.run(life())


def test_a_daemon_speaks_tls_to_all_of_them(
    tmp_path: Path,
    rabbit: RabbitServer,
    make_redis: MakeRedis,
    postgres: PostgresServer,
    certificates: Certificates,
) -> None:
    """It is ready, and answers an auction; so does one that does not trust its broker, which says why."""
    redis = make_redis(certificates=certificates)
    store = f"store.url={postgres.url}?sslmode=verify-full&sslrootcert={certificates.authority}"
    state = f"state.url={redis.tls_url}?ssl_ca_certs={certificates.authority}"
    asyncio.run(migrate(store.partition("=")[2]))
    trusting = f"broker.url={rabbit.tls_url}?cafile={certificates.authority}"
    with Daemon(tmp_path, store, state, trusting) as daemon:
        daemon.put_campaigns(campaign("tea", bid=3.0))
        assert daemon.auction(bid_request()).status == 200
        assert get(daemon.url, "/readyz").status == 200
    with Daemon(tmp_path, store, state, f"broker.url={rabbit.tls_url}") as daemon:
        daemon.err.wait_for(lambda line: "broker_away" in line and "broker.url ?cafile=FILE" in line, PATIENCE_S)
        assert daemon.auction(bid_request()).status == 200
        assert get(daemon.url, "/readyz").status == 503


def test_a_broker_killed_under_tls_comes_back(rabbit: RabbitServer, certificates: Certificates) -> None:
    """The connections notice it at once, come back by themselves, and close in bounded time."""

    async def life() -> None:
        broker = RabbitBroker(f"{rabbit.tls_url}?cafile={certificates.authority}", SystemClock(), heartbeat_s=1)
        await broker.start()
        await broker.declare(Topology({}, (QueueSpec("q"),), ()))
        inbox = await Inbox().open(broker, "q")
        await broker.publish("", "q", Message(body=b"before"))
        assert await inbox.bodies(1) == [b"before"]
        await asyncio.to_thread(rabbit.kill)
        with pytest.raises(BrokerError):
            await broker.publish("", "q", Message(body=b"meanwhile"))
        await asyncio.to_thread(rabbit.start)
        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    await broker.publish("", "q", Message(body=b"after"))
                except BrokerError:
                    continue
                break
        while (await inbox.bodies(1)) != [b"after"]:
            pass
        rabbit.pause()
        try:
            async with asyncio.timeout(PATIENCE_S):
                await broker.close()
        finally:
            rabbit.resume()

    uvloop.run(life())
