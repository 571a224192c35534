"""`ports.HttpClient` for many small requests: HTTP/1.1 on asyncio and httptools, in a fraction of aiohttp's time.

The same policy as in rtb.adapters.outgoing_http, applied to the address that a connection is made to; no redirects, no
cookies. It asks for no compression, and leaves a body as it is when a server compresses it all the same.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from base64 import b64encode
from collections import deque
from collections.abc import Mapping, Sequence
from time import monotonic
from urllib.parse import unquote

from aiohttp.abc import AbstractResolver
from msgspec import Struct, field
from yarl import URL

from rtb.adapters.address_policy import AddressPolicy
from rtb.adapters.lean_connection import ClosedIdle, LeanConnection
from rtb.adapters.outgoing_http import KEEP_ALIVE_S
from rtb.adapters.outgoing_names import GuardedResolver, KeptNames, SystemResolver
from rtb.adapters.outgoing_target import MAX_URL, line, outgoing_target, where
from rtb.domain.remembered import Remembered
from rtb.errors import HttpError, HttpRefused
from rtb.ports.http import MAX_BODY, NOTHING_MORE, HttpResponse, Method

MOST_SERVERS = 4_096

_HEADERS = "User-Agent: rtb\r\nAccept: */*\r\nAccept-Encoding: identity"
_PLAIN = re.compile(r"(https?://[!-\"$-.0->@-~]+)((?:[/?#][!-~]*)?)")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


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
        self._names = KeptNames(GuardedResolver(resolver or SystemResolver(), self._policy))
        self._servers: Remembered[str, _Server] = Remembered(self._server, MOST_SERVERS)
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
        server, path = self._target(url)
        request = _request(method, path, server, headers, body)
        if self._closed:
            raise HttpError(f"{server.name}: the client is closed")
        origin = self._origins.get(server.key)
        if origin is None:
            origin = self._origins[server.key] = _Origin(server.key, asyncio.Semaphore(self._per_host))
        origin.users += 1
        try:
            async with asyncio.timeout(timeout_s), origin.places, self._places:
                return await self._exchange(origin, request, max_body, again=method != "POST")
        except TimeoutError:
            raise HttpError(f"{server.name} did not answer in {timeout_s:g} s") from None
        except OSError as error:
            raise HttpError(f"{server.name}: {line(error)}") from None
        except ValueError as error:  # a host that no name server would take
            raise HttpRefused(f"{server.name}: {line(error)}") from None
        finally:
            origin.users -= 1
            self._settle(origin)

    def _target(self, url: str) -> tuple[_Server, str]:
        """The server, and what to ask it for. Raises HttpRefused."""
        found = _PLAIN.fullmatch(url) if len(url) <= MAX_URL else None
        if found is None:
            target = outgoing_target(url, self._policy)
            return _server(target), target.raw_path_qs
        path = found[2].partition("#")[0]
        return self._servers[found[1]], path if path.startswith("/") else f"/{path}"

    def _server(self, url: str) -> _Server:
        return _server(outgoing_target(url, self._policy))

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
            except ClosedIdle:
                if not again:
                    raise
        return await self._use(origin, await self._connect(origin.key), request, max_body)

    async def _use(self, origin: _Origin, connection: LeanConnection, request: bytes, max_body: int) -> HttpResponse:
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

    async def _connect(self, key: tuple[str, str, int]) -> LeanConnection:
        scheme, host, port = key
        loop = asyncio.get_running_loop()
        failure: OSError | None = None
        secure = scheme == "https"
        for address in await self._names.addresses(host, port):
            try:
                _, connection = await loop.create_connection(
                    LeanConnection,
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


class _Server(Struct, frozen=True):
    """Where a URL leads: scheme, host and port, its name in errors, and the headers that every request to it has."""

    key: tuple[str, str, int]
    name: str
    headers: str


class _Origin(Struct, eq=False):
    """The connections to a scheme, host and port; the idle ones by the time they were last used."""

    key: tuple[str, str, int]
    places: asyncio.Semaphore
    idle: deque[LeanConnection] = field(default_factory=deque)
    busy: set[LeanConnection] = set()
    users: int = 0

    def free(self) -> LeanConnection | None:
        """The one used last, if it was not long ago."""
        while self.idle:
            connection = self.idle.pop()
            if connection.usable and monotonic() - connection.idle_since < KEEP_ALIVE_S:
                return connection
            connection.abort()
        return None


def _server(target: URL) -> _Server:
    user, _, host = target.raw_authority.rpartition("@")
    headers = f"Host: {host}\r\n{_HEADERS}"
    if user:
        headers += f"\r\nAuthorization: Basic {b64encode(unquote(user).encode()).decode()}"
    return _Server((target.scheme, target.raw_host or "", target.port or 0), where(target), headers)


def _request(method: str, path: str, server: _Server, headers: Mapping[str, str], body: bytes) -> bytes:
    """The bytes to send. Raises HttpRefused: a header with a control character in it."""
    lines = [f"{method} {path} HTTP/1.1\r\n{server.headers}"]
    if body or method != "GET":
        lines.append(f"Content-Length: {len(body)}")
    for name, value in headers.items():
        if _CONTROL.search(name) or _CONTROL.search(value):
            raise HttpRefused(f"{server.name}: the header {name!r} has a control character in it")
        lines.append(f"{name}: {value}")
    lines.append("\r\n")
    return "\r\n".join(lines).encode() + body
