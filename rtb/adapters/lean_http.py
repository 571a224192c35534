"""`ports.HttpClient` for many small requests: HTTP/1.1 on asyncio and httptools, in a fraction of aiohttp's time.

The same policy as in rtb.adapters.outgoing_http, applied to the address that a connection is made to; no redirects, no
cookies. It asks for no compression, and leaves a body as it is when a server compresses it all the same.

`get` is for those who send thousands: it calls back, and a request costs no task.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from base64 import b64encode
from collections.abc import Mapping, Sequence
from time import monotonic
from urllib.parse import unquote

from aiohttp.abc import AbstractResolver
from msgspec import Struct
from yarl import URL

from rtb.adapters.address_policy import AddressPolicy
from rtb.adapters.lean_call import Call
from rtb.adapters.lean_pool import LeanPool, Places
from rtb.adapters.outgoing_http import KEEP_ALIVE_S
from rtb.adapters.outgoing_names import GuardedResolver, KeptNames, SystemResolver
from rtb.adapters.outgoing_target import MAX_URL, line, outgoing_target, where
from rtb.domain.remembered import Remembered
from rtb.errors import HttpError, HttpRefused
from rtb.ports.http import MAX_BODY, NOTHING_MORE, Answered, HttpResponse, Method

MOST_SERVERS = 4_096
CLOSED = "the client is closed"

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
        self._places = Places(connections)
        self._pools: dict[tuple[str, str, int], LeanPool] = {}
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
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def end(call: Call) -> None:
            if not answered.done():
                answered.set_result(None)

        call = Call(request, end, timeout_s=timeout_s, max_body=max_body, again=method != "POST")
        pool = self._submit(server, call)
        try:
            await answered
        except asyncio.CancelledError:
            call.forget()
            pool.drop(call)
            raise
        if call.error is not None:
            raise _no_response(server, call) from None
        named = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in call.headers}
        return HttpResponse(call.status, named, call.body, call.whole)

    def get(
        self,
        url: str,
        answered: Answered,
        *,
        headers: Mapping[str, str] = NOTHING_MORE,
        timeout_s: float = 5.0,
        max_body: int = MAX_BODY,
    ) -> None:
        """See `ports.http.CallingHttp`."""
        try:
            server, path = self._target(url)
            if headers:
                request = _request("GET", path, server, headers, b"")
            else:
                request = f"GET {path} HTTP/1.1\r\n{server.headers}\r\n\r\n".encode()
        except HttpRefused as error:
            answered(0, error)
            return

        def end(call: Call) -> None:
            answered(call.status, None if call.error is None else _no_response(server, call))

        self._submit(server, Call(request, end, timeout_s=timeout_s, max_body=max_body, again=True))

    def _submit(self, server: _Server, call: Call) -> LeanPool:
        pool = self._pools.get(server.key)
        if pool is None:
            pool = LeanPool(server.key, self._per_host, self._places, self._names, self._tls)
            self._pools[server.key] = pool
        loop = asyncio.get_running_loop()
        if self._closed:
            call.end(ConnectionError(CLOSED))
            return pool
        if self._sweeper is None:
            self._sweeper = loop.call_later(KEEP_ALIVE_S, self._sweep)
        call.timer = loop.call_later(call.timeout_s, _expire, pool, call)
        pool.submit(call)
        return pool

    def _target(self, url: str) -> tuple[_Server, str]:
        """The server, and what to ask it for. Raises HttpRefused."""
        at = url.find("/", 8)
        if 0 < at < len(url) <= MAX_URL and (server := self._servers.get(url[:at])) is not None:
            path = url[at:]  # as nearly all are: the server is known, and nothing odd follows
            if path.isascii() and path.isprintable() and " " not in path and "#" not in path:
                return server, path
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
        pools, self._pools = self._pools, {}
        opening = [task for pool in pools.values() for task in pool.close(CLOSED)]
        await asyncio.gather(*opening, return_exceptions=True)
        await self._names.close()

    def _sweep(self) -> None:
        """Close what nobody has used for a while."""
        before = monotonic() - KEEP_ALIVE_S
        for key, pool in list(self._pools.items()):
            pool.sweep(before)
            if not pool.in_use:
                del self._pools[key]
        self._sweeper = asyncio.get_running_loop().call_later(KEEP_ALIVE_S, self._sweep) if self._pools else None


class _Server(Struct, frozen=True):
    """Where a URL leads: scheme, host and port, its name in errors, and the headers that every request to it has."""

    key: tuple[str, str, int]
    name: str
    headers: str


def _expire(pool: LeanPool, call: Call) -> None:
    pool.drop(call)
    call.end(TimeoutError())


def _no_response(server: _Server, call: Call) -> HttpError:
    error = call.error
    if isinstance(error, TimeoutError):
        return HttpError(f"{server.name} did not answer in {call.timeout_s:g} s")
    if isinstance(error, HttpRefused):
        return error
    assert error is not None
    if isinstance(error, ValueError):  # a host that no name server would take
        return HttpRefused(f"{server.name}: {line(error)}")
    return HttpError(f"{server.name}: {line(error)}")


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
