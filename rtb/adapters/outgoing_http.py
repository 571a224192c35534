"""`ports.HttpClient` on aiohttp: URLs that others chose, asked without trusting them or their servers.

The address policy (rtb.adapters.address_policy) applies to the addresses that a connection is about to be made to, so a
name that resolves to a public address when it is looked at and to an internal one when it is used gains nothing.
Redirects are not followed, cookies not kept, proxies of the environment not used.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping, Sequence

import aiohttp
from aiohttp.abc import AbstractResolver

from rtb.adapters.address_policy import AddressPolicy
from rtb.adapters.outgoing_names import KEPT_S, GuardedResolver, SystemResolver
from rtb.adapters.outgoing_target import line, outgoing_target, where
from rtb.errors import HttpError, HttpRefused
from rtb.ports.http import MAX_BODY, NOTHING_MORE, HttpResponse, Method

KEEP_ALIVE_S = 4.0
"""Shorter than what servers keep idle connections for, so that a request rarely meets one that is being closed."""
MAX_HEADER = 8_190


class OutgoingHttp:
    """A pool of connections to servers outside. It must be made and used on one event loop."""

    def __init__(
        self,
        *,
        allow: Sequence[str] = (),
        connections: int = 256,
        connections_per_host: int = 16,
        resolver: AbstractResolver | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Ask public servers, and those of the hosts, addresses and networks that `allow` lists (for development).

        Args:
            allow: as `AddressPolicy` takes them.
            connections: open at once; further requests wait for one within their timeout.
            connections_per_host: of these to one host and port.
            resolver: of names; the system's by default.
            tls: certificates to trust other than the system's.

        Raises:
            ConfigError: an entry of `allow` is malformed.
        """
        self._policy = AddressPolicy(allow)
        self._connections = connections
        self._per_host = connections_per_host
        self._names = GuardedResolver(resolver or SystemResolver(), self._policy)
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None
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
        if self._closed:
            raise HttpError(f"{where(target)}: the client is closed")
        session = self._session or self._open()
        try:
            async with (
                asyncio.timeout(timeout_s),
                session.request(method, target, headers=headers, data=body or None, allow_redirects=False) as response,
            ):
                content, whole = await _read(response, max_body)
                if not whole:
                    response.close()
                named = {name.lower(): value for name, value in response.headers.items()}
                return HttpResponse(response.status, named, content, whole)
        except TimeoutError:
            raise HttpError(f"{where(target)} did not answer in {timeout_s:g} s") from None
        except (aiohttp.InvalidURL, ValueError) as error:  # ValueError: a header with a line break in it
            raise HttpRefused(f"{where(target)}: {line(error)}") from None
        except (aiohttp.ClientError, OSError) as error:
            raise HttpError(f"{where(target)}: {_reason(error)}") from None

    async def close(self) -> None:
        """End what is under way and close the connections, for good."""
        self._closed = True
        session, self._session = self._session, None
        if session is not None:
            await session.close()
        await self._names.close()

    def _open(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            limit=self._connections,
            limit_per_host=self._per_host,
            keepalive_timeout=KEEP_ALIVE_S,
            ttl_dns_cache=KEPT_S,
            resolver=self._names,
            ssl=self._tls or True,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": "rtb"},
            timeout=aiohttp.ClientTimeout(total=None),
            max_line_size=MAX_HEADER,
            max_field_size=MAX_HEADER,
        )
        return self._session


async def _read(response: aiohttp.ClientResponse, limit: int) -> tuple[bytes, bool]:
    body = bytearray()
    async for part in response.content.iter_any():
        body += part
        if len(body) > limit:
            return bytes(body[:limit]), False
    return bytes(body), True


def _reason(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientResponseError):  # its text has the whole URL
        return f"not a proper HTTP response ({type(error).__name__})"
    return line(error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error)
