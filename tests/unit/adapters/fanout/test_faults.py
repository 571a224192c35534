"""The fan-out client against servers that misbehave: every call ends once, with its reason, and harms no other."""

from __future__ import annotations

import asyncio
import gzip
import zlib

import pytest

from rtb.adapters.http_client import Failure, FanoutClient, Limits
from tests.support.fanout import ask
from tests.support.raw_server import RawServer, answering, read_request, reset

SMALL = Limits(max_body=1_000)
TIME_S = 1.0
"""What a call has: a busy machine has connected and sent it by then."""
GOOD = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood"


BROKEN = {
    "not HTTP": (b"SSH-2.0-OpenSSH_9.2\r\n", Failure.MALFORMED),
    "an unknown version": (b"HTTP/3.7 200 OK\r\n\r\n", Failure.MALFORMED),
    "two lengths": (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nhi", Failure.MALFORMED),
    "a length that is none": (b"HTTP/1.1 200 OK\r\ncontent-length: two\r\n\r\nhi", Failure.MALFORMED),
    "an overflowing length": (b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\n", Failure.MALFORMED),
    "length and chunks": (
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        Failure.MALFORMED,
    ),
    "a chunk size that is none": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n", Failure.MALFORMED),
    "a switch of protocols": (
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        Failure.MALFORMED,
    ),
    "an announced body too large": (b"HTTP/1.1 200 OK\r\ncontent-length: 1001\r\n\r\n", Failure.TOO_LARGE),
    "a body that becomes too large": (
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + (b"1f4\r\n" + b"x" * 500 + b"\r\n") * 3,
        Failure.TOO_LARGE,
    ),
    "a header without end": (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 30_000, Failure.TOO_LARGE),
    "too many headers": (b"HTTP/1.1 200 OK\r\n" + b"x-name: value\r\n" * 2_000, Failure.TOO_LARGE),
    "interim responses without end": (b"HTTP/1.1 100 Continue\r\n\r\n" * 2_000, Failure.TOO_LARGE),
    "an encoding nobody offered": (
        b"HTTP/1.1 200 OK\r\ncontent-encoding: br\r\ncontent-length: 2\r\n\r\nhi",
        Failure.MALFORMED,
    ),
    "gzip that is none": (
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\nhi",
        Failure.MALFORMED,
    ),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_what_is_no_response_fails_the_call_and_closes_the_connection(client: FanoutClient, name: str) -> None:
    """At once, not at the deadline; the next call gets a connection of its own and its answer."""
    raw, failure = BROKEN[name]
    first = True

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal first
        broken, first = first, False
        await answering(raw if broken else GOOD)(reader, writer)

    async with RawServer(script) as server:
        endpoint = client.endpoint(server.url, limits=SMALL)
        call = await ask(client, endpoint)
        assert (call.failure, call.content) == (failure, b"")
        assert call.detail
        if "encoding" not in name and "gzip" not in name:  # there the framing was right: the connection is fine
            await server.until(lambda: server.open == 0)
            assert (await ask(client, endpoint)).content == b"good"
            assert server.connections == 2


def framed(body: bytes) -> bytes:
    """A gzip response of these bytes as they are."""
    return b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


async def test_a_decompression_bomb_is_cut_at_the_limit(client: FanoutClient) -> None:
    """A kilobyte that would become a megabyte; also gzip that ends early, or has something behind it."""
    bomb = gzip.compress(b"\0" * 900_000)
    good = gzip.compress(b"good")
    assert len(bomb) < 1_000
    cases = {
        framed(bomb): Failure.TOO_LARGE,
        framed(good[:-9]): Failure.MALFORMED,
        framed(good + b"more"): Failure.MALFORMED,
        framed(zlib.compress(b"good")): Failure.MALFORMED,
    }
    async with RawServer(answering(*cases, framed(good))) as server:
        endpoint = client.endpoint(server.url, limits=SMALL)
        for failure in cases.values():
            assert (await ask(client, endpoint)).failure is failure
        assert (await ask(client, endpoint)).content == b"good"


async def test_a_silent_server_costs_a_call_its_time_and_its_connection(client: FanoutClient) -> None:
    """The deadline ends it; what the server might still say would belong to nobody."""
    async with RawServer(answering(b"")) as server:
        call = await ask(client, client.endpoint(server.url), within_s=TIME_S)
        assert call.failure is Failure.TIMEOUT
        await server.until(lambda: server.connections == 1 and server.open == 0)


async def test_a_dripping_server_gains_nothing_by_it(client: FanoutClient) -> None:
    """A byte now and then does not move the deadline."""

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        for byte in GOOD:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(TIME_S / 10)  # what dripping is

    async with RawServer(drip) as server:
        call = await ask(client, client.endpoint(server.url), within_s=TIME_S)
        assert (call.failure, call.content) == (Failure.TIMEOUT, b"")
        await server.until(lambda: server.connections == 1 and server.open == 0)


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\ncontent-le", GOOD[:-1], b"HTTP/1.1 204 No"])
@pytest.mark.parametrize("way", ["reset", "close", "half-close"])
async def test_a_connection_that_ends_early_ends_the_call(client: FanoutClient, sent: bytes, way: str) -> None:
    """By RST, by FIN, or by FIN of one direction; a cut response is none."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(sent)
        await writer.drain()
        if way == "reset":
            reset(writer)
        elif way == "half-close":
            writer.write_eof()
            await reader.read()

    async with RawServer(script) as server:
        call = await ask(client, client.endpoint(server.url))
        assert (call.failure, call.status, call.content) == (Failure.CLOSED, 0, b"")
        await server.until(lambda: server.open == 0)


async def test_a_chunked_response_that_is_cut_is_none(client: FanoutClient) -> None:
    """Without the last chunk the end of the stream is no end of the body."""
    cut = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\ngood\r\n"
    async with RawServer(answering(cut, close=True)) as server:
        assert (await ask(client, client.endpoint(server.url))).failure is Failure.CLOSED


async def test_a_body_may_end_with_the_connection(client: FanoutClient) -> None:
    """A response with neither length nor chunks lasts until the server closes [RFC 9112 6.3]."""
    async with RawServer(answering(b"HTTP/1.1 200 OK\r\n\r\ngood", close=True)) as server:
        call = await ask(client, client.endpoint(server.url))
        assert (call.failure, call.status, call.content) == (None, 200, b"good")


async def test_interim_responses_are_passed_over(client: FanoutClient) -> None:
    """100 and 103 come before the answer [RFC 9110 15.2], in the same packet or not."""
    early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"
    async with RawServer(answering(early + GOOD, early + GOOD)) as server:
        endpoint = client.endpoint(server.url)
        assert [(await ask(client, endpoint)).content for _ in range(2)] == [b"good", b"good"]
        assert server.connections == 1


@pytest.mark.parametrize("surplus", [GOOD, b"HTTP/1.1 200", b"\0garbage", b"HTTP/1.1 100 Continue\r\n\r\n"])
async def test_what_follows_a_response_is_never_taken_for_the_next(client: FanoutClient, surplus: bytes) -> None:
    """The answer before it is good; the connection is not used again."""
    async with RawServer(answering(GOOD + surplus, GOOD)) as server:
        endpoint = client.endpoint(server.url)
        assert (await ask(client, endpoint)).content == b"good"
        assert (await ask(client, endpoint)).content == b"good"
        assert server.connections == 2


async def test_what_an_idle_connection_says_unasked_closes_it(client: FanoutClient) -> None:
    """As a 408 of a server that waited too long: it answers no call of ours."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(GOOD)
        if server.connections == 1:
            await said.wait()
            writer.write(b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n")
        await reader.read(1)

    said = asyncio.Event()
    async with RawServer(script) as server:
        endpoint = client.endpoint(server.url)
        assert (await ask(client, endpoint)).content == b"good"
        said.set()
        await server.until(lambda: server.open == 0)
        assert (await ask(client, endpoint)).status == 200
        assert server.connections == 2


async def test_an_idle_connection_that_closes_as_it_is_used_costs_nothing(client: FanoutClient) -> None:
    """The call is sent once more, on a connection of its own; when that closes as well, it fails."""
    closed = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal closed
        await read_request(reader)
        if closed < 3:
            writer.write(GOOD)
            await writer.drain()
            await read_request(reader)
            closed += 1
        reset(writer)

    async with RawServer(script) as server:
        endpoint = client.endpoint(server.url)
        assert [(await ask(client, endpoint)).content for _ in range(2)] == [b"good", b"good"]
        closed = 3
        call = await ask(client, endpoint)
        assert (call.failure, server.connections) == (Failure.CLOSED, 3)


async def test_a_flood_harms_nobody_else(client: FanoutClient) -> None:
    """While one server sends without end, another's answers arrive."""

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"10000\r\n" + b"x" * 65_536 + b"\r\n")
            await writer.drain()

    async with RawServer(flood) as noisy, RawServer(answering(*[GOOD] * 20)) as quiet:
        loud, calm = client.endpoint(noisy.url), client.endpoint(quiet.url)
        floods = [asyncio.create_task(ask(client, loud)) for _ in range(20)]
        assert {(await ask(client, calm)).content for _ in range(20)} == {b"good"}
        assert {call.failure for call in await asyncio.gather(*floods)} == {Failure.TOO_LARGE}


async def test_a_server_that_does_not_read_is_given_up_at_the_deadline(client: FanoutClient) -> None:
    """A megabyte stays in buffers; the call times out and the connection goes."""
    never = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await never.wait()

    async with RawServer(script) as server:
        call = await ask(client, client.endpoint(server.url), b"x" * 8_000_000, within_s=0.05)
        assert call.failure is Failure.TIMEOUT
