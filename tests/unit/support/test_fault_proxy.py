"""The fault proxy does what its name says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.fault_proxy import FaultProxy


@pytest_asyncio.fixture
async def proxy() -> AsyncIterator[FaultProxy]:
    """In front of an echo server."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with FaultProxy(server.sockets[0].getsockname()[1]) as proxy:
        yield proxy
    server.close()


async def test_bytes_pass_both_ways_and_a_half_close_too(proxy: FaultProxy) -> None:
    """What is sent comes back, whole, after the sender has said that it is done."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(bytes(1_000_000))
    writer.write_eof()
    assert await reader.read(-1) == bytes(1_000_000)
    assert (proxy.accepted, proxy.to_server.passed, proxy.to_client.passed) == (1, 1_000_000, 1_000_000)
    writer.close()


async def test_a_stall_holds_everything_until_it_flows(proxy: FaultProxy) -> None:
    """The connection stays open; nothing is lost."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    proxy.stall()
    writer.write(b"hello")
    pending = asyncio.ensure_future(reader.readexactly(5))
    done, _ = await asyncio.wait([pending], timeout=0.05)
    assert not done
    proxy.flow()
    assert await pending == b"hello"
    writer.close()


async def test_delay_and_drip_keep_the_order(proxy: FaultProxy) -> None:
    """A delay counts from each arrival, so it does not add up; a drip comes byte by byte."""
    loop = asyncio.get_running_loop()
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    proxy.to_client.delay_s = 0.05
    begun = loop.time()
    writer.write(b"abc")
    assert await reader.readexactly(3) == b"abc"
    assert loop.time() - begun >= 0.049
    proxy.to_client.delay_s, proxy.to_client.drip_bytes, proxy.to_client.drip_s = 0.0, 1, 0.02
    begun = loop.time()
    writer.write(b"def")
    assert await reader.readexactly(3) == b"def"
    assert loop.time() - begun >= 3 * 0.019
    writer.close()


async def test_a_reset_is_one(proxy: FaultProxy) -> None:
    """Open connections end with RST; a new one works. After a cut nobody listens, until it is restored."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(b"a")
    assert await reader.readexactly(1) == b"a"
    proxy.reset()
    with pytest.raises(ConnectionResetError):
        await reader.readexactly(1)
    writer.transport.abort()
    await proxy.cut()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", proxy.port)
    assert proxy.connections == 0
    await proxy.restore()
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(b"b")
    assert await reader.readexactly(1) == b"b"
    writer.close()
