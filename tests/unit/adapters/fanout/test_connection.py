"""A response parses the same however TCP cuts it, and no bytes whatever break the connection's code."""

from __future__ import annotations

import asyncio
import gzip
import itertools
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtb.adapters.address_policy import AddressPolicy
from rtb.adapters.clock import ManualClock
from rtb.adapters.http_call import Call, Failure
from rtb.adapters.http_connection import Connection, inflate
from rtb.adapters.http_dns import Names
from rtb.adapters.http_pool import Limits, Pool

MAX_BODY = 2_000


class Wire(asyncio.Transport):
    """A transport that leads nowhere and says whether it is open."""

    def __init__(self) -> None:
        super().__init__()
        self.closing = False

    def is_closing(self) -> bool:
        """Whether it was aborted."""
        return self.closing

    def abort(self) -> None:
        """Close."""
        self.closing = True

    def write(self, data: object) -> None:
        """Send it nowhere."""


async def nowhere(host: str) -> list[str]:
    """No name has an address."""
    return []


def a_pool() -> Pool:
    """Of an endpoint that cannot be connected to."""
    clock = ManualClock()
    limits = Limits(max_body=MAX_BODY)
    return Pool("dsp.test", 80, None, limits, names=Names(clock, nowhere), policy=AddressPolicy(), clock=clock)


def receive(*pieces: bytes, pool: Pool | None = None) -> tuple[Call, bool]:
    """What a call comes to when its response arrives in these pieces, and whether the connection is used again."""
    pool = pool or a_pool()
    connection, wire = Connection(pool, "192.0.2.1"), Wire()
    connection.connection_made(wire)
    answered: list[Call] = []
    call = Call(b"request", answered.append, 0, None)
    pool.submit(call, pool.clock.monotonic_ns())
    for piece in pieces:
        if not wire.closing:
            connection.data_received(piece)
    reusable = not wire.closing
    if not answered:
        connection.connection_lost(None)
    assert answered == [call]
    reusable = reusable and len(pool.idle) == 1
    connection.abandon()
    return call, reusable


class ClosedWire(Wire):
    """One that has closed, and says so to none but those who write."""

    def write(self, data: object) -> None:
        """As uvloop does."""
        raise RuntimeError("the handler is closed")


async def test_a_connection_that_closed_unsaid_leaves_the_pool() -> None:
    """The call goes to the next one; nothing is left of the first that would count as open."""
    pool = a_pool()
    open_one, closed_one = Connection(pool, "192.0.2.1"), Connection(pool, "192.0.2.1")
    open_one.connection_made(Wire())
    closed_one.connection_made(ClosedWire())
    call = Call(b"request", lambda call: None, 0, None)
    pool.submit(call, pool.clock.monotonic_ns())
    assert (call.connection, open_one.call, closed_one.call) == (open_one, call, None)
    assert (pool.connections, pool.idle) == (1, [])
    open_one.abandon()


def cut(data: bytes, at: list[int]) -> list[bytes]:
    """The data in pieces, cut at these offsets."""
    edges = [0, *sorted(set(at)), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges) if a < b]


def chunked(body: bytes, sizes: list[int]) -> bytes:
    """The body in chunks."""
    chunks = [
        b"%x;note=1\r\n%b\r\n" % (len(piece), piece)
        for piece in cut(body, [size for size in sizes if size < len(body)])
    ]
    return b"transfer-encoding: chunked\r\n\r\n" + b"".join(chunks) + b"0\r\ntrailer: 1\r\n\r\n"


@given(
    body=st.binary(max_size=MAX_BODY),
    packed=st.booleans(),
    sizes=st.none() | st.lists(st.integers(1, MAX_BODY - 1), max_size=5),
    interim=st.booleans(),
    keep=st.booleans(),
    cuts=st.lists(st.integers(1, 4_000), max_size=30),
)
def test_any_cut_of_a_response_into_packets_parses_the_same(
    body: bytes, packed: bool, sizes: list[int] | None, interim: bool, keep: bool, cuts: list[int]
) -> None:
    """With a length or in chunks, compressed or not, after an interim response or not, kept alive or closed."""
    content = gzip.compress(body) if packed and body else body
    if len(content) > MAX_BODY:
        content, packed = body, False
    head = b"HTTP/1.1 103 Early Hints\r\nx: y\r\n\r\n" if interim else b""
    head += b"HTTP/1.1 200 OK\r\nserver: test\r\n"
    head += b"content-encoding: gzip\r\n" if packed else b""
    head += b"" if keep else b"connection: close\r\n"
    rest = b"content-length: %d\r\n\r\n%b" % (len(content), content) if sizes is None else chunked(content, sizes)
    pieces = cut(head + rest, [at for at in cuts if at < len(head + rest)])
    call, reusable = receive(*pieces)
    assert (call.failure, call.status, call.content, reusable) == (None, 200, body, keep)


HEADS = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: y\r\nContent-Length: %d\r\n\r\n",
        b"HTTP/1.1 500 Oops\r\ncontent-length: %d\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\ncontent-length: %d\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\ncontent-length: %d\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n",
        b"HTTP/1.0 200 OK\r\ncontent-length: %d\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\ncontent-encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n",
        b"\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n",
        b"HTTP/1.1 200 OK\ncontent-length: %d\n\n",
    ]
)
BODIES = st.sampled_from(
    [b"", b"\r\n\r\n", b"12\r\n\r\n", b"0\r\n\r\n", b"good", gzip.compress(b"good"), b"longer than that"]
)


@given(st.lists(st.tuples(HEADS, st.sampled_from([0, 3, 4, 6, 16]), BODIES), min_size=1, max_size=12))
def test_a_known_head_tells_what_parsing_would(responses: list[tuple[bytes, int, bytes]]) -> None:
    """One response after another of an endpoint, the lengths true or not: each as on an endpoint of its own."""
    pool = a_pool()
    for head, length, body in responses:
        raw = (head % length if b"%d" in head else head) + body
        alone, together = receive(raw), receive(raw, pool=pool)
        assert [found.failure for found, _ in (alone, together)] == [alone[0].failure] * 2
        assert (together[0].status, together[0].content, together[1]) == (alone[0].status, alone[0].content, alone[1])


def test_a_head_is_parsed_once() -> None:
    """And remembered by the length of the response, with the status."""
    pool = a_pool()
    raw = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood"
    for _ in range(2):
        assert receive(raw, pool=pool)[0].content == b"good"
        assert pool.heads == {len(raw): (raw[:-4], 200)}


@given(cuts=st.lists(st.integers(1, 60), max_size=30))
def test_a_204_has_no_body(cuts: list[int]) -> None:
    """Whatever its headers say [RFC 9112 6.3]."""
    raw = b"HTTP/1.1 204 No Content\r\nx-dsp: a\r\nkeep-alive: timeout=5\r\n\r\n"
    call, reusable = receive(*cut(raw, cuts))
    assert (call.failure, call.status, call.content, reusable) == (None, 204, b"", True)


@given(st.lists(st.binary(max_size=200) | st.sampled_from([b"HTTP/1.1 200 OK\r\n", b"\r\n", b"content-length: 3\r\n"])))
def test_any_bytes_end_a_call_once(pieces: list[bytes]) -> None:
    """With a response or a failure; a failed connection is never used again."""
    call, reusable = receive(*(piece for piece in pieces if piece))
    assert call.done
    assert call.failure is None or not reusable
    assert len(call.content) <= MAX_BODY


@pytest.mark.parametrize("excess", [0, 1])
def test_the_limit_is_exact(excess: int) -> None:
    """A body of the limit's size is taken, one byte more is not; the same after decompression."""
    body = b"x" * (MAX_BODY + excess)
    failure = Failure.TOO_LARGE if excess else None
    for content, encoding in ((body, b""), (gzip.compress(body), b"content-encoding: gzip\r\n")):
        head = b"HTTP/1.1 200 OK\r\n%bcontent-length: %d\r\n\r\n" % (encoding, len(content))
        assert receive(head + content)[0].failure is failure


@given(body=st.binary(max_size=500), limit=st.integers(0, 500))
def test_inflating_gives_the_body_or_the_reason(body: bytes, limit: int) -> None:
    """gzip and x-gzip are one [RFC 9110 8.4.1.3]."""
    for encoding in (b"gzip", b"x-gzip"):
        found = inflate(gzip.compress(body), encoding, limit)
        assert found == body if len(body) <= limit else cast(tuple[Failure, str], found)[0] is Failure.TOO_LARGE
