"""HTTP/1.1 over real sockets: order, framing, limits, time-outs, draining."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from rtb.adapters.clock import ManualClock
from rtb.edges.http1 import MAX_PIPELINED, Connection, Limits, Server, Slot
from rtb.edges.http_responses import error, response

LIMITS = Limits(body_bytes=1_000, connections=3, idle_s=75.0, request_s=5.0)


class Echo:
    """Answers with what it was asked: at once, or for paths under /later when a test says so."""

    def __init__(self) -> None:
        self.seen: list[tuple[bytes, bytes, bytes]] = []
        self.waiting: list[tuple[Connection, Slot, bytes]] = []
        self._came = asyncio.Event()

    def respond(self, connection: Connection, method: bytes, path: bytes, body: bytes) -> bytes | None:
        """The method, path and body, joined by spaces."""
        self.seen.append((method, path, body))
        self._came.set()
        if path == b"/bug":
            raise ZeroDivisionError
        whole = response(b"200 OK", b" ".join((method, path, body)))
        if path.startswith(b"/later"):
            self.waiting.append((connection, connection.slot, whole))
            return None
        return whole

    async def asked(self, times: int) -> None:
        """Wait until so many requests have come."""
        while len(self.seen) < times:
            self._came.clear()
            await self._came.wait()

    def release(self, index: int = 0) -> None:
        """Answer one that waits."""
        connection, slot, whole = self.waiting.pop(index)
        connection.answer(slot, whole)


class Client:
    """The other end of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, *data: bytes) -> None:
        self.writer.write(b"".join(data))

    async def read(self, *, head: bool = False) -> tuple[int, dict[str, str], bytes]:
        """One response: status, headers, body."""
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines[1:] if line)
        length = 0 if head else int(headers.get("content-length", "0"))
        return int(lines[0].split()[1]), headers, await self.reader.readexactly(length)

    async def bodies(self, count: int) -> list[bytes]:
        return [(await self.read())[2] for _ in range(count)]

    async def closed(self) -> bool:
        """Whether the server ends the connection without a further byte."""
        try:
            return await self.reader.read() == b""
        except ConnectionResetError:
            return True


class Bench:
    """A listening server on a clock that is set by hand."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.echo = Echo()
        self.server = Server(self.echo, self.clock, LIMITS)
        self.clients: list[Client] = []
        self.port = 0

    async def connect(self) -> Client:
        client = Client(*await asyncio.open_connection("127.0.0.1", self.port))
        self.clients.append(client)
        return client

    async def settled(self) -> None:
        """All that was sent has been read: a request on another connection, sent later, was answered."""
        for _ in range(3):
            other = await self.connect()
            other.send(get(b"/settled", b"connection: close"))
            await other.read()
            await other.closed()  # by the server, which has let go of it then
        self.echo.seen = [seen for seen in self.echo.seen if seen[1] != b"/settled"]


@pytest_asyncio.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    listener = await asyncio.get_running_loop().create_server(made.server, "127.0.0.1", 0)
    made.port = listener.sockets[0].getsockname()[1]
    yield made
    for client in made.clients:
        client.writer.close()
    for connection in list(made.server.connections):
        connection.abort()
    listener.close()
    await listener.wait_closed()


def get(path: bytes = b"/", *headers: bytes, method: bytes = b"GET", version: bytes = b"1.1") -> bytes:
    return b"%b %b HTTP/%b\r\nhost: x\r\n%b\r\n" % (method, path, version, b"".join(h + b"\r\n" for h in headers))


def post(body: bytes, path: bytes = b"/", *headers: bytes) -> bytes:
    return get(path, b"content-length: %d" % len(body), *headers, method=b"POST") + body


def chunked(*chunks: bytes, path: bytes = b"/") -> bytes:
    framed = b"".join(b"%x;ext=1\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return get(path, b"transfer-encoding: chunked", method=b"POST") + framed + b"0\r\nx-trailer: t\r\n\r\n"


async def test_a_request_reaches_the_responder(bench: Bench) -> None:
    """Method, path without its query, whole body; the connection stays for the next."""
    client = await bench.connect()
    client.send(post(b"hello", b"/a/b?c=d"))
    assert await client.read() == (
        200,
        {"content-type": "application/json", "content-length": "15"},
        b"POST /a/b hello",
    )
    client.send(get(b"/next"))
    assert (await client.read())[2] == b"GET /next "


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"http://x/a/b?c=/d", b"/a/b"),
        (b"HTTPS://x:8080/a", b"/a"),
        (b"http://x", b"/"),
        (b"http://x?a/b", b"/"),
        (b"*", b"*"),
    ],
)
async def test_a_target_in_absolute_form_counts_by_its_path(bench: Bench, target: bytes, path: bytes) -> None:
    """A server must accept it, though only proxies are sent it [RFC 9112 3.2.2]."""
    client = await bench.connect()
    client.send(get(target, method=b"OPTIONS"))
    assert await client.bodies(1) == [b"OPTIONS %b " % path]


async def test_bodies_in_chunks_are_joined(bench: Bench) -> None:
    """Extensions and trailers are ignored; an empty body is one too."""
    client = await bench.connect()
    client.send(chunked(b"ab", b"c", b"def"), chunked(), post(b"g"))
    assert await client.bodies(3) == [b"POST / abcdef", b"POST / ", b"POST / g"]


async def test_pipelined_requests_are_answered_in_order(bench: Bench) -> None:
    """Though some are answered at once and others later, in another order."""
    client = await bench.connect()
    paths = [b"/later/1", b"/2", b"/later/3", b"/4", b"/later/5"]
    client.send(*map(get, paths))
    await bench.echo.asked(5)
    bench.echo.release(2)
    bench.echo.release(1)
    bench.echo.release(0)
    assert await client.bodies(5) == [b"GET %b " % path for path in paths]


async def test_what_is_ready_goes_out_while_a_later_one_waits(bench: Bench) -> None:
    """Only what stands behind an open answer is held back."""
    client = await bench.connect()
    client.send(get(b"/1"), get(b"/later/2"), get(b"/3"))
    assert await client.bodies(1) == [b"GET /1 "]
    await bench.echo.asked(3)
    bench.echo.release()
    assert await client.bodies(2) == [b"GET /later/2 ", b"GET /3 "]


@pytest.mark.parametrize("kind", [b"/later", b"/now"])
async def test_a_long_pipeline_is_read_as_it_is_answered(bench: Bench, kind: bytes) -> None:
    """With MAX_PIPELINED answers open nothing more is read; all are answered in order in the end."""
    client = await bench.connect()
    body = b"x" * 990
    total = 1_500
    paths = [b"/later/0", *(b"%b/%d" % (kind, n) for n in range(1, total))]
    sending = asyncio.ensure_future(drained(client, [post(body, path) for path in paths]))
    await bench.echo.asked(MAX_PIPELINED)
    await bench.settled()
    read_at_once = 262_144 // len(post(body)) + 2  # what one read from the socket may bring
    read = len(bench.echo.seen)
    assert read <= MAX_PIPELINED + read_at_once
    if kind == b"/later":
        bench.echo.release(-1)  # out of turn: it makes no room
        await bench.settled()
        assert len(bench.echo.seen) == read
    reading = asyncio.ensure_future(client.bodies(total))
    for n in range(1, total + 1):
        await bench.echo.asked(min(n, total))
        while bench.echo.waiting:
            bench.echo.release(-1)
    assert [answer.split()[1] for answer in await reading] == paths
    await sending


async def drained(client: Client, requests: list[bytes]) -> None:
    for one in requests:
        client.send(one)
        await client.writer.drain()


@pytest.mark.parametrize(
    ("headers", "body", "text"),
    [
        ([b"content-encoding: gzip"], gzip.compress(b"hello"), b"hello"),
        ([b"Content-Encoding: GZIP "], gzip.compress(b"hello"), b"hello"),
        ([b"content-encoding: deflate"], zlib.compress(b"hello"), b"hello"),
        ([b"content-encoding: identity"], b"hello", b"hello"),
        ([b"content-encoding: gzip"], gzip.compress(b"x" * 1_000), b"x" * 1_000),
    ],
)
async def test_compressed_bodies(bench: Bench, headers: list[bytes], body: bytes, text: bytes) -> None:
    """[2.4]; up to the limit once decompressed."""
    client = await bench.connect()
    client.send(post(body, b"/", *headers))
    assert (await client.read())[2] == b"POST / " + text


@pytest.mark.parametrize(
    ("headers", "body", "reason"),
    [
        (b"gzip", gzip.compress(b"x" * 1_001), "the body is over 1000 bytes once decompressed"),
        (b"gzip", gzip.compress(b"\0" * 10_000_000)[:1_000], "the body is over 1000 bytes once decompressed"),
        (b"gzip", b"hello", "content-encoding: the body is not what the header says"),
        (b"gzip", gzip.compress(b"hello" * 50)[:-9], "content-encoding: the compressed body ends early"),
        (b"gzip", b"", "content-encoding: the compressed body ends early"),
        (b"br", b"hello", "content-encoding: 'br' is not supported; use gzip or none"),
    ],
)
async def test_bodies_that_cannot_be_decompressed(bench: Bench, headers: bytes, body: bytes, reason: str) -> None:
    """A 4xx with the reason, and the end of the connection; the responder never sees it."""
    client = await bench.connect()
    client.send(post(body, b"/", b"content-encoding: " + headers))
    status, answer, text = await client.read()
    assert (status, answer["x-rtb-error"], text.decode(), answer["connection"]) == (400, reason, f"{reason}\n", "close")
    assert await client.closed()
    assert bench.echo.seen == []


BIG = b"x" * 600


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (get(b"/", b"content-length: 1001", method=b"POST"), 413),
        (chunked(BIG, BIG), 413),
        (get(b"/" + b"x" * 17_000), 414),
        (get(b"/", b"x: " + b"y" * 17_000), 431),
        (get(b"/", *[b"x-%d: y" % n for n in range(3_000)]), 431),
        (b"\x16\x03\x01\x02\x00", 400),
        (b"GET / HTTP/1.1\r\nbad header\r\n\r\n", 400),
        (get(b"/", b"content-length: 3", b"transfer-encoding: chunked", method=b"POST") + b"0\r\n\r\n", 400),
        (get(b"/", b"content-length: 3", b"content-length: 4", method=b"POST") + b"abcd", 400),
        (get(b"/", b"content-length: -1", method=b"POST"), 400),
        (get(b"/", b"transfer-encoding: chunked", method=b"POST") + b"zz\r\n", 400),
    ],
)
async def test_what_is_over_a_limit_or_no_http_ends_the_connection(bench: Bench, data: bytes, status: int) -> None:
    """One answer that says why, none for what follows in the stream; the responder sees nothing of it."""
    client = await bench.connect()
    client.send(data, get(b"/smuggled"))
    found, headers, body = await client.read()
    assert (found, headers["connection"], headers["x-openrtb-version"]) == (status, "close", "2.6")
    assert body.decode() == headers["x-rtb-error"] + "\n"
    assert await client.closed()
    assert bench.echo.seen == []


async def test_the_limits_themselves_are_inside(bench: Bench) -> None:
    """A body of exactly the limit, by length and in chunks."""
    client = await bench.connect()
    whole = b"x" * 1_000
    client.send(post(whole), chunked(whole[:300], whole[300:]))
    assert await client.bodies(2) == [b"POST / " + whole] * 2


async def test_an_error_waits_for_the_answers_before_it(bench: Bench) -> None:
    """Requests before the broken one are answered, in order, then the error, then the end."""
    client = await bench.connect()
    client.send(get(b"/later/1"), get(b"/2"), b"nonsense\r\n\r\n")
    await bench.echo.asked(2)
    bench.echo.release()
    assert [(await client.read())[0] for _ in range(3)] == [200, 200, 400]
    assert await client.closed()


async def test_a_mistake_of_ours_is_a_500(bench: Bench) -> None:
    """It says nothing of itself, the connection goes on."""
    client = await bench.connect()
    client.send(get(b"/bug"), get(b"/2"))
    status, _, body = await client.read()
    assert (status, body) == (500, b"the exchange failed; its log says why\n")
    assert await client.bodies(1) == [b"GET /2 "]


@pytest.mark.parametrize(
    "request_",
    [get(b"/1", b"connection: close"), get(b"/1", version=b"1.0"), get(b"/later/1", b"connection: close")],
)
async def test_the_last_request_of_a_connection(bench: Bench, request_: bytes) -> None:
    """Asked to, or by HTTP/1.0, the connection is closed after the answer, which says so; nothing after it counts."""
    client = await bench.connect()
    client.send(request_, get(b"/2"))
    await bench.echo.asked(1)
    if bench.echo.waiting:
        bench.echo.release()
    status, headers, _ = await client.read()
    assert (status, headers["connection"]) == (200, "close")
    assert await client.closed()
    assert len(bench.echo.seen) == 1


async def test_head_gets_no_body(bench: Bench) -> None:
    """The length is GET's; what follows is the next response."""
    client = await bench.connect()
    client.send(get(b"/1", method=b"HEAD"), get(b"/2"))
    status, headers, _ = await client.read(head=True)
    assert (status, headers["content-length"]) == (200, "8")
    assert await client.bodies(1) == [b"GET /2 "]


async def test_a_client_that_asks_first_is_told_to_go_on(bench: Bench) -> None:
    """100 Continue before the body; not when the body will be refused anyway."""
    client = await bench.connect()
    client.send(get(b"/", b"content-length: 2", b"expect: 100-continue", method=b"POST"))
    assert (await client.read())[0] == 100
    client.send(b"ok")
    assert await client.bodies(1) == [b"POST / ok"]
    client.send(get(b"/", b"content-length: 2000", b"expect: 100-continue", method=b"POST"))
    assert (await client.read())[0] == 413


async def test_an_offer_of_http_2_is_declined(bench: Bench) -> None:
    """As Java's client makes it: one answer, in HTTP/1.1, to the whole request with its body."""
    client = await bench.connect()
    client.send(post(b"body", b"/p", b"connection: upgrade, http2-settings", b"upgrade: h2c", b"http2-settings: AA"))
    assert await client.bodies(1) == [b"POST /p body"]
    assert await client.closed()


async def test_a_client_that_goes_away_is_no_error(bench: Bench) -> None:
    """What comes for it afterwards goes nowhere, and the connection is let go of."""
    client = await bench.connect()
    client.send(get(b"/later/1"), get(b"/later/2"))
    await bench.echo.asked(2)
    client.writer.transport.abort()
    await bench.settled()
    bench.echo.release()
    await bench.settled()
    bench.echo.release()
    await bench.settled()
    assert not bench.server.connections


async def test_a_client_that_only_stops_sending_is_answered(bench: Bench) -> None:
    """Half-closed: it still reads the answer that was under way, then the end."""
    client = await bench.connect()
    client.send(get(b"/later/1"))
    client.writer.write_eof()
    await bench.echo.asked(1)
    await bench.settled()
    bench.echo.release()
    assert await client.bodies(1) == [b"GET /later/1 "]
    assert await client.closed()


async def test_an_idle_connection_is_cut_off(bench: Bench) -> None:
    """After idle_s of silence, from the start or since its last request began, and not before."""
    client = await bench.connect()
    client.send(get(b"/1"))
    await client.read()
    bench.clock.advance(75)
    bench.server.sweep()
    client.send(get(b"/2"))
    assert await client.bodies(1) == [b"GET /2 "]
    bench.clock.advance(75.1)
    bench.server.sweep()
    assert await client.closed()


@pytest.mark.parametrize(
    "part", [b"G", b"POST / HTTP/1.1\r\nx: y\r\n", b"POST / HTTP/1.1\r\ncontent-length: 9\r\n\r\nab"]
)
async def test_half_a_request_is_cut_off(bench: Bench, part: bytes) -> None:
    """After request_s, however often a byte drips in: the clock runs from the first."""
    client = await bench.connect()
    client.send(part[:1])
    await bench.settled()
    bench.clock.advance(4)
    client.send(part[1:])
    await bench.settled()
    bench.server.sweep()
    assert len(bench.server.connections) == 1
    bench.clock.advance(1.1)
    bench.server.sweep()
    assert await client.closed()


async def test_who_waits_for_an_answer_is_not_cut_off(bench: Bench) -> None:
    """That is our doing, and has its own deadline."""
    client = await bench.connect()
    client.send(get(b"/later/1"))
    await bench.echo.asked(1)
    bench.clock.advance(1_000)
    bench.server.sweep()
    bench.echo.release()
    assert await client.bodies(1) == [b"GET /later/1 "]


async def test_there_is_a_limit_to_connections(bench: Bench) -> None:
    """One more is closed at once; when one ends, there is room again."""
    clients = [await bench.connect() for _ in range(3)]
    for client in clients:
        client.send(get())
        await client.read()
    assert await (await bench.connect()).closed()
    clients[0].send(get(b"/", b"connection: close"))
    await clients[0].read()
    assert await clients[0].closed()
    again = await bench.connect()
    again.send(get(b"/again"))
    assert await again.bodies(1) == [b"GET /again "]


async def test_draining(bench: Bench) -> None:
    """Idle connections close at once, busy ones after their last answer, and no new one is taken."""
    idle, busy = await bench.connect(), await bench.connect()
    idle.send(get(b"/1"))
    await idle.read()
    busy.send(get(b"/later/1"), get(b"/later/2"))
    await bench.echo.asked(3)
    bench.server.drain()
    assert await idle.closed()
    assert await (await bench.connect()).closed()
    bench.echo.release()
    bench.echo.release()
    first, second = await busy.read(), await busy.read()
    assert ("connection" in first[1], second[1]["connection"]) == (False, "close")
    assert await busy.closed()


class Wire(asyncio.Transport):
    """A transport into memory, for a stream cut into pieces at will, which a socket would join again."""

    def __init__(self) -> None:
        super().__init__()
        self.out = b""
        self.ended = False

    def write(self, data: Any) -> None:
        """Keep it."""
        self.out += data

    def is_closing(self) -> bool:
        """Whether it was closed."""
        return self.ended

    def close(self) -> None:
        """Close."""
        self.ended = True

    def pause_reading(self) -> None:
        """The pieces come all the same."""

    def resume_reading(self) -> None:
        """They come anyway."""


BODIES = st.binary(max_size=40)
REQUESTS = st.one_of(
    st.builds(get, st.sampled_from([b"/", b"/a?b", b"/long/path"])),
    st.builds(post, BODIES),
    st.builds(lambda chunks: chunked(*chunks), st.lists(st.binary(min_size=1, max_size=9), max_size=4)),
    st.builds(lambda body: post(gzip.compress(body), b"/", b"content-encoding: gzip"), BODIES),
    st.builds(lambda body: post(body, b"/u", b"connection: upgrade", b"upgrade: h2c"), BODIES),
    st.just(get(b"/", b"connection: close")),
    st.just(b"\r\nnonsense"),
)


@given(requests=st.lists(REQUESTS, max_size=6), cuts=st.lists(st.integers(0, 2_000), max_size=8))
def test_how_a_stream_is_cut_makes_no_difference(requests: list[bytes], cuts: list[int]) -> None:
    """In one piece or in many, or one piece a request, whether its head was seen before or not: the same requests, the
    same bytes back, the same end."""
    server = Server(Echo(), ManualClock(), LIMITS)

    def through(pieces: list[bytes]) -> tuple[list[tuple[bytes, bytes, bytes]], bytes, bool]:
        echo, wire = Echo(), Wire()
        server.responder = echo
        connection = Connection(server)
        connection.connection_made(wire)
        for piece in pieces:
            if not wire.ended and piece:
                connection.data_received(piece)
        connection.connection_lost(None)
        return echo.seen, wire.out, wire.ended

    stream = b"".join(requests)
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    pieces = [stream[a:b] for a, b in pairwise(edges)]
    assert through(pieces) == through([stream])
    assert through([stream[n : n + 1] for n in range(len(stream))]) == through([stream])
    assert through(requests) == through([stream])
    assert through(requests) == through([stream])
    assert set(server.heads) <= {request[: request.find(b"\r\n\r\n") + 4] for request in requests}


async def test_a_head_that_was_seen_before_is_known(bench: Bench) -> None:
    """Of any connection; what it says of the length holds for the next body, too."""
    for body in (b"one", b"two"):
        client = await bench.connect()
        client.send(post(body, b"/a?b"))
        assert await client.bodies(1) == [b"POST /a " + body]
    assert [head.path for head in bench.server.heads.values()] == [b"/a"]
    client.send(post(b"six", b"/a?b")[:-1])
    client.send(b"x")
    assert await client.bodies(1) == [b"POST /a six"]


@given(reason=st.text(max_size=700))
def test_a_reason_cannot_break_out_of_its_header(reason: str) -> None:
    """Whatever is in it, the response has its five header lines, printable ASCII all, and a body as long as it says."""
    head, _, body = error(b"400 Bad Request", reason).partition(b"\r\n\r\n")
    status, *lines = head.split(b"\r\n")
    assert (status, len(lines)) == (b"HTTP/1.1 400 Bad Request", 4)
    assert all(32 <= byte < 127 for line in lines for byte in line)
    assert b"content-length: %d" % len(body) in lines


def test_a_204_has_no_length() -> None:
    """[RFC 9110 8.6]; an empty 200 has one."""
    assert response(b"204 No Content", b"", b"a: b\r\n") == b"HTTP/1.1 204 No Content\r\na: b\r\n\r\n"
    assert response(b"200 OK", b"") == b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
