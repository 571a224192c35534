"""One HTTP/1.1 connection of rtb.adapters.lean_http: a request at a time, its answer read by httptools."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

import httptools

from rtb.adapters.lean_call import Call
from rtb.adapters.outgoing_http import MAX_HEADER

if TYPE_CHECKING:
    from rtb.adapters.lean_pool import LeanPool

MAX_HEAD = 2 * MAX_HEADER
"""Bytes before the body of an answer."""

_FRAMING = frozenset((b"content-length", b"transfer-encoding"))


class ClosedIdle(ConnectionError):
    """The server closed a connection that was kept open, before it answered: it may not have seen the request."""


class LeanConnection(asyncio.Protocol):
    """Tells its pool when it is open, free and gone. httptools calls the methods named on_..."""

    def __init__(self, pool: LeanPool) -> None:
        """Not open yet."""
        self.idle_since = 0.0
        self.usable = True
        self.call: Call | None = None
        self._pool = pool
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._used = False
        self._begin()

    def _begin(self) -> None:
        self._headers: list[tuple[bytes, bytes]] = []
        self._body = b""
        self._received = 0
        self._in_body = self._complete = False

    def send(self, call: Call) -> bool:
        """Put a request on the wire; False when the connection is closing."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return False
        self.call = call
        call.connection = self
        self._begin()
        transport.write(call.request)
        return True

    def abort(self) -> None:
        """Close it at once; what it carried ends elsewhere."""
        self.usable = False
        self.call = None
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Open."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def data_received(self, data: bytes) -> None:
        """Feed the parser, and hand the answer over once the parser is done with what came."""
        if self.call is None:  # nobody asked
            self.abort()
            return
        if not self._in_body:
            self._received += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self._complete:
                self._fail(OSError(f"not a proper HTTP response ({type(error).__name__})"))
                return
            self.usable = False
        if self._complete:
            self._answer()
        elif not self._in_body and self._received > MAX_HEAD:
            self._fail(OSError("not a proper HTTP response (endless header)"))

    def connection_lost(self, error: Exception | None) -> None:
        """Gone; the answer to what it carried may have ended with it."""
        self.usable = False
        if self.call is None:
            self._pool.lost(self)
        elif self._in_body and not any(name.lower() in _FRAMING for name, _ in self._headers):
            self._answer()  # its end was the connection's
        elif self._used and not self._received:
            self._fail(ClosedIdle("the server closed the connection"))
        else:
            self._fail(error if isinstance(error, OSError) else ConnectionError("the server closed the connection"))

    def on_message_begin(self) -> None:
        """An answer begins; one too many spoils the connection."""
        if self._complete:
            self.usable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep it."""
        if not self._complete:
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The length of what follows does not count any more."""
        if not self._complete:
            self._in_body = True

    def on_body(self, part: bytes) -> None:
        """Keep what is wanted of it."""
        call = self.call
        if call is None or self._complete:
            return
        room = call.max_body - len(self._body)
        self._body += part[:room]
        if len(part) > room:
            call.whole = self.usable = False
            self._note_status(call)

    def on_message_complete(self) -> None:
        """Whole."""
        call = self.call
        if call is None or self._complete:
            return
        if 100 <= self._parser.get_status_code() < 200:  # the answer is still to come
            self._begin()
            return
        self.usable = self.usable and self._parser.should_keep_alive()  # afterwards the parser has forgotten
        self._note_status(call)

    def _note_status(self, call: Call) -> None:
        call.status = self._parser.get_status_code()
        self._complete = True

    def _answer(self) -> None:
        """Give the answer away; the connection is free before anybody hears of it."""
        call, self.call = self.call, None
        assert call is not None
        if not self._complete:
            call.status = self._parser.get_status_code()
        call.headers, call.body = self._headers, self._body
        self._used = True
        self._pool.released(self)
        call.end()

    def _fail(self, error: OSError) -> None:
        call = self.call
        self.abort()
        self._pool.lost(self, call, error)
