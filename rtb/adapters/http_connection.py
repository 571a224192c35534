"""One keep-alive HTTP/1.1 connection of the fan-out client: an asyncio.Protocol over httptools' response parser.

A server says the same head again and again. One that was parsed before, and that says all there is to know of its
response, is remembered by the length of that; a response that begins with it and is as long is not parsed again.
"""

from __future__ import annotations

import asyncio
import zlib
from typing import TYPE_CHECKING, Any, cast

import httptools

from rtb.adapters.http_call import Call, Failure

if TYPE_CHECKING:
    from rtb.adapters.http_pool import Pool

MAX_HEADER_BYTES = 16_384
MAX_FRAMING = 8
"""How many bytes a server may spend a byte of body: chunks of one byte take six."""
MAX_HEADS = 1_024
"""How many heads are remembered an endpoint, of at most so many bytes."""
_HEAD_END = b"\r\n\r\n"


class Connection(asyncio.Protocol):
    """Carries one call at a time; httptools calls the on_* methods while a response arrives.

    A connection is used again only after a response that was whole, asked to be kept, and followed by nothing.
    """

    __slots__ = (
        "_body",
        "_chunks",
        "_complete",
        "_encoding",
        "_fed",
        "_framed",
        "_header_bytes",
        "_heads",
        "_keep",
        "_keep_alive",
        "_now_ns",
        "_parser",
        "_plain",
        "_pool",
        "_problem",
        "_size",
        "_status",
        "_surplus",
        "address",
        "call",
        "idle_since_ns",
        "served",
        "transport",
    )

    _body: bytes
    _chunks: list[bytes] | None
    _complete: bool
    _encoding: bytes
    _framed: bool
    _header_bytes: int
    _plain: bool
    _problem: tuple[Failure, str] | None
    _size: int
    _status: int
    _surplus: bool

    def __init__(self, pool: Pool, address: str) -> None:
        """Wait for connection_made."""
        self._pool = pool
        self._heads = pool.heads
        self._now_ns = pool.clock.monotonic_ns
        self._parser: Any = None
        self.address = address
        self.transport: asyncio.Transport | None = None
        self.call: Call | None = None
        self.idle_since_ns = 0
        self.served = False
        self._fed = 0
        self._keep = False
        self._keep_alive = b""
        self._clear()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Join the pool."""
        self.transport = cast(asyncio.Transport, transport)  # uvloop's own class is no asyncio.Transport
        self._parser = httptools.HttpResponseParser(self)
        self._pool.opened(self)

    def take(self, call: Call, now_ns: int) -> bool:
        """Put a call on the wire; False when the connection is closing, or was idle for too long and now is."""
        if now_ns - self.idle_since_ns > self._pool.keep_alive_ns:
            self.abandon()
            return False
        transport = self.transport
        if transport is None or transport.is_closing():
            return False
        self.call = call
        call.connection = self
        call.sent_ns = now_ns
        try:
            transport.write(call.head + call.body)
        except RuntimeError:  # uvloop's transport may have closed without saying so
            self.call = call.connection = None
            self._pool.lost(self)
            return False
        return True

    def abandon(self) -> None:
        """Close at once: nobody waits for what may still come."""
        self.call = None
        if self.transport is not None:
            self.transport.abort()
            self._pool.lost(self)

    def data_received(self, data: bytes) -> None:
        """Take a response whose head is known; have any other parsed."""
        call = self.call
        if call is None:  # nobody asked for this
            self.abandon()
            return
        known = self._heads.get(len(data))
        if known is None or self._fed or not data.startswith(known[0]):
            self._parse(call, data)
            return
        self.call = None
        self.served = True
        pool = self._pool
        self.idle_since_ns = now_ns = self._now_ns()
        if pool.waiting or pool.retired:
            pool.released(self, now_ns)
        else:
            pool.idle.append(self)
        head, status = known
        call.settle(now_ns, status, data[len(head) :])

    def _parse(self, call: Call, data: bytes) -> None:
        first = not self._fed
        self._fed += len(data)
        if self._fed > MAX_HEADER_BYTES + MAX_FRAMING * self._pool.max_body:
            self._problem = (Failure.TOO_LARGE, "its framing is larger than its body")
        else:
            try:
                self._parser.feed_data(data)
            except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
                if self._complete:
                    self._surplus = True
                elif self._problem is None:
                    self._problem = (Failure.MALFORMED, f"not an HTTP/1.1 response: {error}"[:200])
        if self._problem is not None:
            self._give_up(call, *self._problem)
        elif self._complete:
            if first and self._plain and self._keep and not self._surplus:
                self._remember(data)
            self._finish(call)

    def _remember(self, data: bytes) -> None:
        """Keep the head of a response that came whole, if nothing but its length says where it ends."""
        end = data.find(_HEAD_END) + 4
        if end <= MAX_HEADS and len(data) == end + self._size:
            if len(self._heads) >= MAX_HEADS:
                self._heads.clear()
            self._heads[len(data)] = (data[:end], self._status)

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave the pool; a call under way failed, unless the end of the stream is the end of its response."""
        call, self.call = self.call, None
        self.transport = self._parser = None
        self._pool.lost(self)
        if call is None:
            return
        if self._status >= 200 and not self._framed and exc is None:
            self._settle(call)
        elif self.served and not self._fed and not call.retried:
            call.retried = True  # it closed an idle connection just as we used it [RFC 9112 9.3.1]
            call.connection = None
            self._pool.submit(call, self._now_ns())
        else:
            detail = "the server closed the connection" if exc is None else f"{type(exc).__name__}: {exc}"
            call.fail(self._pool.clock.monotonic_ns(), Failure.CLOSED, detail)

    def on_message_begin(self) -> None:
        """A response begins."""
        if self._complete:
            self._surplus = True
        else:
            self._clear()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Watch the size, and the few headers that matter here."""
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > MAX_HEADER_BYTES:
            self._problem = (Failure.TOO_LARGE, f"its headers are over {MAX_HEADER_BYTES} bytes")
            return
        length = len(name)
        if length == 14 and name.lower() == b"content-length":
            self._framed = True
            if int(value) > self._pool.max_body:
                self._too_large()
        elif length == 16 and name.lower() == b"content-encoding":
            self._encoding = value.strip().lower()
            self._plain = False
        elif length == 17 and name.lower() == b"transfer-encoding":
            self._framed = True
            self._plain = False
        elif length == 10 and value != self._keep_alive and name.lower() == b"keep-alive":
            self._keep_alive = value
            self._pool.server_keeps(value)

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        """A piece of the body, mostly the whole."""
        if self._surplus or self._problem is not None:
            return
        self._size += len(body)
        if self._size > self._pool.max_body:
            self._too_large()
        elif not self._body and self._chunks is None:
            self._body = body
        elif self._chunks is None:
            self._chunks = [self._body, body]
        else:
            self._chunks.append(body)

    def on_message_complete(self) -> None:
        """A whole response; an interim one (1xx) is passed over [RFC 9110 15.2]."""
        if self._complete:
            return
        if self._status >= 200:
            self._complete = True
            self._keep = self._parser.should_keep_alive()  # afterwards the parser has forgotten
            self._plain &= self._framed or self._status == 204
        elif self._status == 101:
            self._problem = (Failure.MALFORMED, "it switches to a protocol that nobody asked for")

    def _clear(self) -> None:
        self._body = self._encoding = b""
        self._chunks = None
        self._header_bytes = self._size = self._status = 0
        self._complete = self._surplus = self._framed = False
        self._plain = True
        self._problem = None

    def _finish(self, call: Call) -> None:
        """Pass a whole response on; the connection is free before its caller hears of it."""
        transport = self.transport
        keep = self._keep and not self._surplus and transport is not None and not transport.is_closing()
        status, body, chunks, encoding = self._status, self._body, self._chunks, self._encoding
        self.call = None
        self.served = True
        self._fed = self._status = 0
        self._complete = False
        now_ns = self._now_ns()
        if keep:
            self._pool.released(self, now_ns)
        else:
            self.abandon()
        self._deliver(call, status, body if chunks is None else b"".join(chunks), encoding, now_ns)

    def _settle(self, call: Call) -> None:
        """Pass on a response that ended with its connection."""
        body = self._body if self._chunks is None else b"".join(self._chunks)
        self._deliver(call, self._status, body, self._encoding, self._now_ns())

    def _deliver(self, call: Call, status: int, body: bytes, encoding: bytes, now_ns: int) -> None:
        if encoding and encoding != b"identity" and body:
            inflated = inflate(body, encoding, self._pool.max_body)
            if isinstance(inflated, tuple):
                call.fail(now_ns, *inflated)
                return
            body = inflated
        call.settle(now_ns, status, body)

    def _give_up(self, call: Call, failure: Failure, detail: str) -> None:
        self.abandon()
        call.fail(self._pool.clock.monotonic_ns(), failure, detail)

    def _too_large(self) -> None:
        self._problem = (Failure.TOO_LARGE, f"its body is over {self._pool.max_body} bytes")


def inflate(body: bytes, encoding: bytes, limit: int) -> bytes | tuple[Failure, str]:
    """The body without its content encoding, or what is wrong with it."""
    if encoding not in (b"gzip", b"x-gzip"):
        return Failure.MALFORMED, f"content-encoding {encoding.decode('latin-1')!r:.40} is not what was offered"
    inflater = zlib.decompressobj(wbits=31)
    try:
        inflated = inflater.decompress(body, limit + 1)
    except zlib.error:
        return Failure.MALFORMED, "its body is not gzip, as its header says"
    if len(inflated) > limit:
        return Failure.TOO_LARGE, f"its body is over {limit} bytes once decompressed"
    if not inflater.eof or inflater.unused_data:
        return Failure.MALFORMED, "its gzip body ends early or goes on after its end"
    return inflated
