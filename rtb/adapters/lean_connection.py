"""One HTTP/1.1 connection of rtb.adapters.lean_http: a request at a time, its answer read by httptools."""

from __future__ import annotations

import asyncio
from typing import cast

import httptools

from rtb.adapters.outgoing_http import MAX_HEADER
from rtb.ports.http import HttpResponse

MAX_HEAD = 2 * MAX_HEADER
"""Bytes before the body of an answer."""


class ClosedIdle(ConnectionError):
    """The server closed a connection that was kept open, before it answered: it may not have seen the request."""


class LeanConnection(asyncio.Protocol):
    """One request at a time. httptools calls the methods named on_..."""

    def __init__(self) -> None:
        self.idle_since = 0.0
        self.usable = True
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._waiter: asyncio.Future[HttpResponse] | None = None
        self._used = False
        self._begin(0)

    def _begin(self, max_body: int) -> None:
        self._max_body = max_body
        self._headers: dict[str, str] = {}
        self._body = bytearray()
        self._received = 0
        self._in_body = False

    async def exchange(self, request: bytes, max_body: int) -> HttpResponse:
        """Send a request and wait for its answer. Raises OSError."""
        self._begin(max_body)
        waiter = self._waiter = asyncio.get_running_loop().create_future()
        if self._transport is None or self._transport.is_closing():
            self._lost(None)
        else:
            self._transport.write(request)
        try:
            response: HttpResponse = await waiter
        finally:
            self._waiter = None
            self._used = True
        return response

    def abort(self) -> None:
        """Close it at once."""
        self.usable = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def data_received(self, data: bytes) -> None:
        if self._waiter is None or self._waiter.done():  # nobody asked
            self.abort()
            return
        if not self._in_body:
            self._received += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(OSError(f"not a proper HTTP response ({type(error).__name__})"))
            return
        if not self._in_body and self._received > MAX_HEAD:
            self._fail(OSError("not a proper HTTP response (endless header)"))

    def connection_lost(self, error: Exception | None) -> None:
        self.usable = False
        self._lost(error)

    def on_message_begin(self) -> None:
        if self._waiter is None or self._waiter.done():  # one answer too many
            self.usable = False
            self._begin(0)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._in_body = True

    def on_body(self, part: bytes) -> None:
        room = self._max_body - len(self._body)
        self._body += part[:room]
        if len(part) > room:
            self._done(whole=False)
            self.abort()

    def on_message_complete(self) -> None:
        if 100 <= self._parser.get_status_code() < 200:  # the answer is still to come
            self._begin(self._max_body)
            return
        self.usable = self.usable and self._parser.should_keep_alive()
        self._done(whole=True)

    def _done(self, *, whole: bool) -> None:
        if self._waiter is not None and not self._waiter.done():
            status = self._parser.get_status_code()
            self._waiter.set_result(HttpResponse(status, self._headers, bytes(self._body), whole))

    def _fail(self, error: OSError) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)
        self.abort()

    def _lost(self, error: Exception | None) -> None:
        if self._in_body and not {"content-length", "transfer-encoding"} & self._headers.keys():
            self._done(whole=True)  # its end was the connection's
        elif self._used and not self._received:
            self._fail(ClosedIdle("the server closed the connection"))
        else:
            self._fail(error if isinstance(error, OSError) else ConnectionError("the server closed the connection"))
