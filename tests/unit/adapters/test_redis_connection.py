"""rtb.adapters.redis_connection: many calls under way on one connection, to a real server and to a bad one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from urllib.parse import quote

import pytest
import pytest_asyncio

from rtb.adapters.redis_connection import RedisConnection, Refused, connect
from tests.support.fault_proxy import FaultProxy
from tests.support.redis import MakeRedis


async def test_each_call_gets_its_own_replies(make_redis: MakeRedis) -> None:
    """In the order they were sent, errors among them, whoever has gone meanwhile, and byte by byte."""
    async with FaultProxy(make_redis().port) as proxy:
        connection = await connect(f"redis://127.0.0.1:{proxy.port}/3")
        proxy.to_client.drip_bytes, proxy.to_client.drip_s = 1, 0.0
        calls = [connection.call([("SET", f"k{n}", n), ("GET", f"k{n}"), ("LPUSH", f"k{n}", 1)]) for n in range(20)]
        calls[3].cancel()
        for n, call in enumerate(calls):
            if n != 3:
                ok, value, error = await call
                assert (ok, value) == (b"OK", b"%d" % n)
                assert isinstance(error, Refused)
                assert str(error).startswith("WRONGTYPE ")
        connection.abort()


async def test_user_password_and_database_are_those_of_the_url(make_redis: MakeRedis) -> None:
    """Escaped as URLs are; a wrong password is refused by name."""
    server = make_redis()
    password, where = "p@ss:/ü", f"127.0.0.1:{server.port}"
    server.command("CONFIG", "SET", "requirepass", password)
    for user in ("", "default"):
        connection = await connect(f"redis://{user}:{quote(password, safe='')}@{where}/5")
        (described,) = await connection.call([("CLIENT", "INFO")])
        assert b" db=5 " in described
        connection.abort()
    with pytest.raises(Refused, match="WRONGPASS"):
        await connect(f"redis://:wrong@{where}")
    with pytest.raises(Refused, match="NOAUTH"):
        await connect(f"redis://{where}")


async def test_a_retired_connection_answers_what_is_under_way(make_redis: MakeRedis) -> None:
    """It takes no new calls, and closes after the last reply; an aborted one ends its calls at once."""
    url = make_redis().url
    retired, aborted = await connect(url), await connect(url)
    call = retired.call([("PING",)])
    retired.retire()
    assert not retired.usable
    assert await call == [b"PONG"]
    assert retired.lost
    call = aborted.call([("PING",)])
    aborted.abort()
    for ended in (call, aborted.call([("PING",)])):
        with pytest.raises(ConnectionError):
            await ended


Talk = Callable[[bytes], Awaitable[RedisConnection]]


@pytest_asyncio.fixture
async def talk() -> AsyncIterator[Talk]:
    """Connect to a server that answers SELECT, and everything else with these bytes."""
    servers: list[asyncio.Server] = []

    async def start(answer: bytes) -> RedisConnection:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"SELECT\r\n$1\r\n0\r\n")
            writer.write(b"+OK\r\n")
            await reader.read(1_000)
            writer.write(answer)
            await reader.read()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        servers.append(server)
        return await connect(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}")

    yield start
    for server in servers:
        server.close()


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"+1\r\n+2\r\n", b"*1000000000000\r\n"])
async def test_who_does_not_speak_redis_is_left(talk: Talk, answer: bytes) -> None:
    """Garbage, or more replies than were asked for: the connection ends, and with it what is under way."""
    connection = await talk(answer)
    call = connection.call([("PING",)])
    await asyncio.wait([call])
    assert call.exception() is not None or call.result() == [b"1"]
    assert connection.lost
