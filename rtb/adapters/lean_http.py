"""`ports.HttpClient` for many small requests: HTTP/1.1 on asyncio and httptools, in a fraction of aiohttp's time.

The same policy as in rtb.adapters.outgoing_http, applied to the address that a connection is made to; no redirects, no
cookies. It asks for no compression, and leaves a body as it is when a server compresses it all the same.
"""

from __future__ import annotations

import asyncio
import ssl
from base64 import b64encode
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import cast
from urllib.parse import unquote

import httptools
from aiohttp.abc import AbstractResolver
from msgspec import Struct, field
from yarl import URL

from rtb.adapters.address_policy import AddressPolicy
from rtb.adapters.outgoing_http import KEEP_ALIVE_S, MAX_HEADER, NAMES_KEPT_S
from rtb.adapters.outgoing_names import GuardedResolver, SystemResolver
from rtb.adapters.outgoing_target import is_literal, line, outgoing_target, where
from rtb.errors import HttpError, HttpRefused
from rtb.ports.http import MAX_BODY, NOTHING_MORE, HttpResponse, Method

MOST_NAMES = 1_000
_ACCEPT = "Accept: */*\r\nAccept-Encoding: identity"
MAX_HEAD = 2 * MAX_HEADER
"""Bytes before the body of an answer."""


class LeanHttp:
    """A pool of connections to servers outside. It must be used on one event loop."""

    def __init__(
        self,
        *,
        allow: Sequence[str] = (),
        connections: int = 256,
        connections_per_host: int = 64,
        resolver: AbstractResolver | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """The arguments are those of `OutgoingHttp`.

        Raises:
            ConfigError: an entry of `allow` is malformed.
        """
        self._policy = AddressPolicy(allow)
        self._names = _Names(GuardedResolver(resolver or SystemResolver(), self._policy))
        self._tls = tls or ssl.create_default_context()
        self._per_host = connections_per_host
        self._places = asyncio.Semaphore(connections)
        self._origins: dict[tuple[str, str, int], _Origin] = {}
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False

    async def send(
        self,
        method: Method,
        url: str,
        *,
        headers: Mapping[str, str] = NOTHING_MORE,
        body: bytes = b"",
        timeout_s: float = 5.0,
        max_body: int = MAX_BODY,
    ) -> HttpResponse:
        """See `ports.HttpClient`.

        Raises:
            HttpError: no response. HttpRefused: not asked.
        """
        target = outgoing_target(url, self._policy)
        request = _request(method, target, headers, body)
        if self._closed:
            raise HttpError(f"{where(target)}: the client is closed")
        key = (target.scheme, target.raw_host or "", target.port or 0)
        origin = self._origins.get(key)
        if origin is None:
            origin = self._origins[key] = _Origin(key, asyncio.Semaphore(self._per_host))
        origin.users += 1
        try:
            async with asyncio.timeout(timeout_s), origin.places, self._places:
                return await self._exchange(origin, request, max_body, again=method != "POST")
        except TimeoutError:
            raise HttpError(f"{where(target)} did not answer in {timeout_s:g} s") from None
        except OSError as error:
            raise HttpError(f"{where(target)}: {line(error)}") from None
        except ValueError as error:  # a host that no name server would take
            raise HttpRefused(f"{where(target)}: {line(error)}") from None
        finally:
            origin.users -= 1
            self._settle(origin)

    async def close(self) -> None:
        """End what is under way and close the connections, for good."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        for origin in self._origins.values():
            for connection in [*origin.idle, *origin.busy]:
                connection.abort()
            origin.idle.clear()
        await self._names.close()

    async def _exchange(self, origin: _Origin, request: bytes, max_body: int, *, again: bool) -> HttpResponse:
        """One request on an open connection, or on a new one when there is none or the server was closing it."""
        connection = origin.free()
        if connection is not None:
            try:
                return await self._use(origin, connection, request, max_body)
            except _ClosedIdle:
                if not again:
                    raise
        return await self._use(origin, await self._connect(origin.key), request, max_body)

    async def _use(self, origin: _Origin, connection: _Connection, request: bytes, max_body: int) -> HttpResponse:
        origin.busy.add(connection)
        try:
            if self._closed:
                raise ConnectionError("the client is closed")
            response = await connection.exchange(request, max_body)
        except BaseException:  # cancelled, too: what may still come would answer the next request
            connection.abort()
            raise
        finally:
            origin.busy.discard(connection)
        if connection.usable and not self._closed:
            connection.idle_since = monotonic()
            origin.idle.append(connection)
            if self._sweeper is None:
                self._sweeper = asyncio.get_running_loop().call_later(KEEP_ALIVE_S, self._sweep)
        else:
            connection.abort()
        return response

    async def _connect(self, key: tuple[str, str, int]) -> _Connection:
        scheme, host, port = key
        loop = asyncio.get_running_loop()
        failure: OSError | None = None
        secure = scheme == "https"
        for address in await self._names.addresses(host, port):
            try:
                _, connection = await loop.create_connection(
                    _Connection,
                    address,
                    port,
                    ssl=self._tls if secure else None,
                    server_hostname=host.rstrip(".") if secure else None,
                )
            except OSError as error:
                failure = error
            else:
                return connection
        raise failure or OSError(f"{host} has no address")

    def _settle(self, origin: _Origin) -> None:
        if not origin.users and not origin.idle:
            self._origins.pop(origin.key, None)

    def _sweep(self) -> None:
        """Close what nobody has used for a while."""
        self._sweeper = None
        before = monotonic() - KEEP_ALIVE_S
        for origin in list(self._origins.values()):
            while origin.idle and origin.idle[0].idle_since <= before:
                origin.idle.popleft().abort()
            self._settle(origin)
        if any(origin.idle for origin in self._origins.values()):
            self._sweeper = asyncio.get_running_loop().call_later(KEEP_ALIVE_S, self._sweep)


class _ClosedIdle(ConnectionError):
    """The server closed a connection that was kept open, before it answered: it may not have seen the request."""


class _Origin(Struct, eq=False):
    """The connections to a scheme, host and port; the idle ones by the time they were last used."""

    key: tuple[str, str, int]
    places: asyncio.Semaphore
    idle: deque[_Connection] = field(default_factory=deque)
    busy: set[_Connection] = set()
    users: int = 0

    def free(self) -> _Connection | None:
        """The one used last, if it was not long ago."""
        while self.idle:
            connection = self.idle.pop()
            if connection.usable and monotonic() - connection.idle_since < KEEP_ALIVE_S:
                return connection
            connection.abort()
        return None


class _Connection(asyncio.Protocol):
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
            self._fail(_ClosedIdle("the server closed the connection"))
        else:
            self._fail(error if isinstance(error, OSError) else ConnectionError("the server closed the connection"))


class _Names:
    """What names lead to, kept for some seconds; one look-up of a name at a time."""

    def __init__(self, resolver: GuardedResolver) -> None:
        self._resolver = resolver
        self._known: OrderedDict[tuple[str, int], tuple[float, list[str]]] = OrderedDict()
        self._asked: dict[tuple[str, int], asyncio.Task[list[str]]] = {}

    async def addresses(self, host: str, port: int) -> list[str]:
        """Those that are allowed, at least one. Raises OSError, HttpRefused."""
        if is_literal(host):
            return [host]
        key = (host, port)
        known = self._known.get(key)
        if known is not None and known[0] > monotonic():
            return known[1]
        task = self._asked.get(key)
        if task is None:
            task = self._asked[key] = asyncio.create_task(self._look_up(host, port))
            task.add_done_callback(lambda task: self._answered(key, task))
        try:
            return await asyncio.shield(task)  # others may wait for it, too
        except asyncio.CancelledError:
            if task.cancelled():
                raise OSError("the client is closed") from None
            raise

    async def close(self) -> None:
        for task in self._asked.values():
            task.cancel()
        await self._resolver.close()

    async def _look_up(self, host: str, port: int) -> list[str]:
        return [found["host"] for found in await self._resolver.resolve(host, port)]

    def _answered(self, key: tuple[str, int], task: asyncio.Task[list[str]]) -> None:
        del self._asked[key]
        if task.cancelled() or task.exception() is not None:
            return
        self._known.pop(key, None)
        self._known[key] = (monotonic() + NAMES_KEPT_S, task.result())
        if len(self._known) > MOST_NAMES:
            self._known.popitem(last=False)


def _request(method: str, target: URL, headers: Mapping[str, str], body: bytes) -> bytes:
    """The bytes to send. Raises HttpRefused: a header with a control character in it."""
    authority = target.raw_authority
    user, _, host = authority.rpartition("@")
    lines = [f"{method} {target.raw_path_qs} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: rtb\r\n{_ACCEPT}"]
    if user:
        lines.append(f"Authorization: Basic {b64encode(unquote(user).encode()).decode()}")
    if body or method != "GET":
        lines.append(f"Content-Length: {len(body)}")
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines.append("\r\n")
    text = "\r\n".join(lines)
    if any("\r" in part or "\n" in part or "\0" in part for header in headers.items() for part in header):
        raise HttpRefused(f"{where(target)}: a header has a line break in it")
    return text.encode() + body
