"""HTTP/1.1 for the hot edges: an asyncio.Protocol over httptools.

One write a response, bounded header and body, pipelined requests answered in order, slow and idle senders cut off by
one sweep a second rather than a timer a request. What to answer is a `Responder`'s business.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, cast

import httptools

from rtb.edges.http_responses import broken, error, without_body
from rtb.edges.inflate import GZIP, NotInflated, inflate
from rtb.ports import Clock

MAX_HEADER_BYTES = 16_384
MAX_PIPELINED = 64
MAX_HEADS = 1_024
"""How many heads are remembered, of at most so many bytes, too."""
MAX_FRAMING = 8
"""How many bytes a client may spend a byte of body: chunks of one byte take six."""

HEEDED = (b"/t/", b"/events")
"""Where the headers of a request matter: beneath these paths they are kept for the responder."""

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_HEAD_END = b"\r\n\r\n"
_CLOSE = b"\r\nconnection: close\r\n"


class Responder(Protocol):
    """What answers the requests of a connection."""

    def respond(self, connection: Connection, method: bytes, path: bytes, body: bytes) -> bytes | None:
        """The whole response, or None when `connection.answer(slot, response)` will bring it later."""
        ...


@dataclass(slots=True)
class Limits:
    """What a connection may do."""

    body_bytes: int = 262_144
    connections: int = 4096
    idle_s: float = 75.0
    request_s: float = 5.0


class Slot:
    """The place of one response in a connection's order. `lines` are put into its head: each ends in CRLF, and CRLF
    stands before the first."""

    __slots__ = ("close", "lines", "response")

    def __init__(self, close: bool) -> None:
        self.response: bytes | None = None
        self.close = close
        self.lines = b""


class Head(NamedTuple):
    """What a head says of a request that keeps its connection and sends a body of plain JSON."""

    method: bytes
    target: bytes
    path: bytes
    body_bytes: int
    origin: bytes


@dataclass(slots=True)
class Server:
    """The connections of a listening socket, and the sweep over them."""

    responder: Responder
    clock: Clock
    limits: Limits = field(default_factory=Limits)
    connections: set[Connection] = field(default_factory=set)
    draining: bool = False
    heads: dict[bytes, Head] = field(default_factory=dict)
    """Heads that were parsed before: a client sends the same again and again, but for the length."""

    def __call__(self) -> Connection:
        """A protocol for a new connection, as loop.create_server wants it."""
        return Connection(self)

    def sweep(self) -> None:
        """Cut off connections that are idle, or whose request does not come to its end; called every second."""
        now_ns = self.clock.monotonic_ns()
        for connection in list(self.connections):
            connection.expire(now_ns)

    def drain(self) -> None:
        """Answer what is under way and close every connection after it."""
        self.draining = True
        for connection in list(self.connections):
            connection.close_when_done()


class Connection(asyncio.Protocol):
    """One client connection; httptools calls the on_* methods while a request arrives."""

    __slots__ = (
        "_body",
        "_chunks",
        "_closing",
        "_encoding",
        "_expect",
        "_failed",
        "_fed",
        "_framing",
        "_header_bytes",
        "_in_request",
        "_offered",
        "_parser",
        "_peer",
        "_server",
        "_since_ns",
        "_size",
        "_slots",
        "_transport",
        "_url",
        "_writing_paused",
        "arrived_ns",
        "headers",
        "origin",
    )

    def __init__(self, server: Server) -> None:
        """Wait for connection_made."""
        self._server = server
        self._transport: asyncio.Transport | None = None
        self._parser: Any = None
        self._slots: deque[Slot] = deque()
        self._url = b""
        self._body = b""
        self._chunks: list[bytes] | None = None
        self._header_bytes = 0
        self._encoding = b""
        self._expect = False
        self._framing = b""
        self._offered = False
        self._failed = False
        self._closing = False
        self._fed = 0
        self._size = 0
        self._writing_paused = False
        self._since_ns = 0
        self._in_request = False
        self._peer: str | None = None
        self.arrived_ns = 0
        self.origin = b""
        """The site whose page sent the request that is being responded to; b"" where no page did."""
        self.headers: list[tuple[bytes, bytes]] | None = None
        """Of the request that is being responded to, those of no use here; None where nobody heeds them."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection, or close it at once when there are too many."""
        server = self._server
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own class is no asyncio.Transport
        if server.draining or len(server.connections) >= server.limits.connections:
            self._transport.abort()
            return
        self._parser = httptools.HttpRequestParser(self)
        self._since_ns = server.clock.monotonic_ns()
        server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it; an auction still running for it ends unheard."""
        self._transport = None
        self._parser = None
        self._server.connections.discard(self)

    def eof_received(self) -> bool:
        """The client sends no more, but may still read: what is under way is answered, then the connection closed."""
        self.close_when_done()
        return bool(self._slots)

    def pause_writing(self) -> None:
        """The client does not read its responses: take no further requests from it."""
        self._writing_paused = True
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """It reads again."""
        self._writing_paused = False
        self._read_on()

    def data_received(self, data: bytes) -> None:
        """Feed the parser; what it cannot parse is a 400 and the end of the connection."""
        if self._failed or self._parser is None:
            return
        server = self._server
        self.arrived_ns = server.clock.monotonic_ns()
        fresh = not self._in_request and not self._closing
        if fresh:
            end = data.find(_HEAD_END) + 4
            head = server.heads.get(data[:end])
            if head is not None and len(data) == end + head.body_bytes and not server.draining:
                self._since_ns, self._url, self.headers = self.arrived_ns, head.target, None
                self.origin = head.origin
                self._respond(head.method, head.path, data[end:], close=False)
                return
        if self._fed > MAX_HEADER_BYTES + MAX_FRAMING * self._server.limits.body_bytes:
            self._too_large()  # a header or trailer line without end, or a body in tiny chunks
            return
        self._fed += len(data)  # of one request: where the next begins in it, counting starts anew
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            self._decline(data[offer.args[0] :])
        except httptools.HttpParserError as error:
            if not self._failed:
                self._fail(b"400 Bad Request", f"not an HTTP/1.1 request: {error}")
        else:
            if fresh and not self._in_request and self._framing.startswith(b"content-length"):
                self._remember(data)

    def _remember(self, data: bytes) -> None:
        """Keep the head of a request that was parsed, if that is all it takes to know another of it."""
        server = self._server
        end = data.find(_HEAD_END) + 4
        if (
            len(data) != end + self._size  # else there is more than this one request
            or end > MAX_HEADS
            or self._failed
            or self._parser is None
            or self._chunks is not None
            or self._encoding
            or self._expect
            or self._offered
            or self.headers is not None
            or not self._parser.should_keep_alive()
        ):
            return
        if len(server.heads) >= MAX_HEADS:
            server.heads.clear()
        path = self._url.partition(b"?")[0]
        server.heads[data[:end]] = Head(self._parser.get_method(), self._url, path, self._size, self.origin)

    def on_message_begin(self) -> None:
        """A request begins."""
        self._since_ns = self.arrived_ns
        self._in_request = True
        self._url = self._body = self._encoding = self._framing = self.origin = b""
        self._chunks = None
        self._header_bytes = self._fed = self._size = 0
        self._expect = self._offered = False
        self.headers = None

    def on_url(self, url: bytes) -> None:
        """The request target, perhaps in pieces."""
        self._url += url
        if url.startswith(HEEDED) or not url.startswith(b"/") or self._parser.get_method() == b"OPTIONS":
            self.headers = []
        if len(self._url) > MAX_HEADER_BYTES:
            self._fail(b"414 URI Too Long", "the request target is too long")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Watch the size, and the few headers that matter here."""
        self._header_bytes += len(name) + len(value)
        length = len(name)
        if self._header_bytes > MAX_HEADER_BYTES:
            self._fail(b"431 Request Header Fields Too Large", f"headers are over {MAX_HEADER_BYTES} bytes")
        elif length == 14 and name.lower() == b"content-length":
            self._framing = b"content-length: %b\r\n" % value
            if int(value) > self._server.limits.body_bytes:
                self._too_large()
        elif length == 16 and name.lower() == b"content-encoding":
            self._encoding = value.strip().lower()
        elif length == 17 and name.lower() == b"transfer-encoding":
            self._framing = b"transfer-encoding: %b\r\n" % value
        elif length == 6 and name.lower() == b"origin":
            self.origin = value
        elif length == 6 and name.lower() == b"expect":
            self._expect = True
        elif length == 7 and name.lower() == b"upgrade":
            self._offered = True
        elif self.headers is not None:
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Let a client that asks first go on."""
        if self._expect and not self._failed and self._transport is not None and not self._slots:
            self._transport.write(_CONTINUE)

    def on_body(self, body: bytes) -> None:
        """A piece of the body, mostly the whole."""
        if self._failed:
            return
        if not self._body and self._chunks is None:
            self._body = body
        elif self._chunks is None:
            self._chunks = [self._body, body]
        else:
            self._chunks.append(body)
        self._size += len(body)
        if self._size > self._server.limits.body_bytes:
            self._too_large()

    def on_message_complete(self) -> None:
        """A whole request: have it answered, in turn."""
        if self._failed or self._transport is None:
            return
        method: bytes = self._parser.get_method()
        if method == b"CONNECT" or (self._offered and self._parser.should_upgrade()):
            return  # HttpParserUpgrade comes next
        body = self._body if self._chunks is None else b"".join(self._chunks)
        if self._encoding and self._encoding != b"identity":
            try:
                body = inflate(body, self._encoding, self._server.limits.body_bytes)
            except NotInflated as reason:
                self._fail(b"400 Bad Request", str(reason))
                return
        self._in_request = False
        if not self._url.startswith(b"/"):
            self._url = _origin_form(self._url)
        close = not self._parser.should_keep_alive() or self._server.draining
        self._respond(method, self._url.partition(b"?")[0], body, close=close, plain=not self._encoding)

    def _respond(self, method: bytes, path: bytes, body: bytes, *, close: bool, plain: bool = True) -> None:
        """Have it answered. `plain`: no header says how the body is encoded, so that it may be gzip unannounced."""
        slot = Slot(close)
        self._slots.append(slot)
        self._closing = close
        try:
            if plain and body.startswith(GZIP):
                body = inflate(body, b"gzip", self._server.limits.body_bytes)
            answer = self._server.responder.respond(self, method, path, body)
        except NotInflated as reason:
            answer = error(b"400 Bad Request", str(reason))
        except Exception as mistake:
            answer = broken(path, mistake)
        if answer is not None:
            self.answer(slot, without_body(answer) if method == b"HEAD" else answer)
        if len(self._slots) >= MAX_PIPELINED and self._transport is not None:
            self._transport.pause_reading()

    @property
    def slot(self) -> Slot:
        """The place of the request that is being responded to."""
        return self._slots[-1]

    @property
    def target(self) -> bytes:
        """The whole request target, with its query."""
        return self._url

    @property
    def peer(self) -> str:
        """The address of the other end."""
        if self._peer is None:
            name = self._transport.get_extra_info("peername") if self._transport is not None else None
            self._peer = name[0] if isinstance(name, tuple) else ""
        return self._peer

    def answer(self, slot: Slot, response: bytes) -> None:
        """Write a response as soon as it is its turn; a client that has gone is no error."""
        slot.response = response
        slots, transport = self._slots, self._transport
        if transport is None or transport.is_closing():
            slots.clear()
            return
        was_full = len(slots) >= MAX_PIPELINED
        while slots and (ready := slots[0].response) is not None:
            done = slots.popleft()
            if done.lines:
                ready = ready.replace(b"\r\n", done.lines, 1)
            if done.close:
                transport.write(ready.replace(b"\r\n", _CLOSE, 1))
                transport.close()
                return
            transport.write(ready)
        if was_full and len(slots) < MAX_PIPELINED:
            self._read_on()

    def expire(self, now_ns: int) -> None:
        """Cut the connection off when it has been silent, or half-way through a request, for too long."""
        if self._slots or self._transport is None:
            return
        limits = self._server.limits
        limit_s = limits.request_s if self._in_request else limits.idle_s
        if now_ns - self._since_ns > limit_s * 1e9:
            self._transport.abort()

    def close_when_done(self) -> None:
        """Close now when nothing is under way, else after the last response."""
        if self._transport is None:
            return
        if self._slots:
            self._slots[-1].close = True
        else:
            self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def _decline(self, rest: bytes) -> None:
        """Take a request that offers another protocol (as Java's HTTP client does) in HTTP/1.1 [RFC 9110 7.8].

        The parser has skipped its body: a new one gets the request again, without the offer, and the `rest`.
        """
        method: bytes = self._parser.get_method()
        if method == b"CONNECT":
            self._fail(b"405 Method Not Allowed", "this is no proxy", b"allow: GET, HEAD, POST\r\n")
            return
        encoding = b"content-encoding: %b\r\n" % self._encoding if self._encoding else b""
        head = b"%b %b HTTP/1.1\r\nconnection: close\r\n" % (method, self._url) + self._framing + encoding
        self._parser = httptools.HttpRequestParser(self)
        self.data_received(head + b"\r\n" + rest)

    def _read_on(self) -> None:
        if self._transport is not None and not self._writing_paused:
            self._transport.resume_reading()

    def _too_large(self) -> None:
        limit = self._server.limits.body_bytes
        self._fail(b"413 Content Too Large", f"the body is over {limit} bytes; send fewer imps or less ext")

    def _fail(self, status: bytes, reason: str, extra: bytes = b"") -> None:
        """Answer after what came before, and close: the rest of the stream cannot be trusted."""
        self._failed = True
        slot = Slot(close=True)
        self._slots.append(slot)
        self.answer(slot, error(status, reason, extra))


def _origin_form(target: bytes) -> bytes:
    """The path and query of a request target in absolute form, which a server must accept [RFC 9112 3.2.2]."""
    _, scheme_ends, rest = target.partition(b"://")
    if not scheme_ends:
        return target
    authority = rest.replace(b"?", b"/").partition(b"/")[0]
    path = rest[len(authority) :]
    return path if path.startswith(b"/") else b"/" + path
