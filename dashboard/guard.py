"""Who may talk to the dashboard, and what a browser may do with its answers.

People log in (dashboard.access), or the server is bound to a loopback address (`check_bind`). In both cases another web
page in the same browser may still do harm. Against that: `Origin`, when there is one, is the server's own, and `Host`
is an address or a name we know, or a page could point its own name at 127.0.0.1 and pass for us (DNS rebinding).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from rtb.errors import ConfigError

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # with no-referrer the login form would come with the origin "null"
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


def require_loopback(host: str) -> None:
    """Let pass a bind address that only this machine reaches.

    Raises:
        ConfigError: others would reach it too, and there is no login.
    """
    if not _is_loopback(host):
        raise ConfigError(
            f"dashboard: host {host!r} is reachable from outside and the dashboard has no login; "
            "bind it to 127.0.0.1 and use an SSH tunnel or a proxy that authenticates"
        )


def check_bind(host: str, *, tokens: int, everyone: bool) -> None:
    """Let pass a bind address that fits the tokens: others than this machine's own users need one.

    Args:
        host: to bind to.
        tokens: how many there are.
        everyone: whether requests without a token are served.

    Raises:
        ConfigError: others could reach the dashboard and would be let in without a token, or nobody could log in.
    """
    if _is_loopback(host):
        if not tokens and not everyone:
            raise ConfigError("dashboard: there is no token to log in with; add one to dashboard.token_file")
    elif everyone:
        raise ConfigError(
            f"dashboard: host {host!r} is reachable from outside, and requests without a token are allowed; "
            "allow them on 127.0.0.1 only"
        )
    elif not tokens:
        raise ConfigError(
            f"dashboard: host {host!r} is reachable from outside, and there is no token; "
            "set dashboard.token_file, or bind it to 127.0.0.1"
        )


def middleware(names: Collection[str] = (), origins: Collection[str] = ()) -> Middleware:
    """Refuse foreign hosts (421) and origins (403).

    Args:
        names: host names the server is known by, besides localhost and plain addresses.
        origins: further origins whose pages may read, as in ``https://ops.example.com``.
    """
    known = {"localhost", *(name.lower() for name in names)}
    allowed = {origin.lower().rstrip("/") for origin in origins}

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not _known_host(request.host, known):
            raise web.HTTPMisdirectedRequest(
                text='{"error":"this server does not go by that name"}', content_type="application/json"
            )
        origin = request.headers.get("Origin")
        if origin is not None and not _same(origin, request.host) and origin.lower() not in allowed:
            raise web.HTTPForbidden(
                text='{"error":"pages of another origin may not use this"}', content_type="application/json"
            )
        return await handler(request)

    return guard


async def add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    """Put the security headers on every response; a signal of the app, so that errors have them too."""
    response.headers.update(HEADERS)
    response.headers.setdefault("Cache-Control", "no-cache")


def _same(origin: str, host: str) -> bool:
    scheme, _, netloc = origin.lower().partition("://")
    return scheme in ("http", "https") and bool(netloc) and netloc == host.lower()


def _known_host(host: str, names: Collection[str]) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname
    except ValueError:
        return False
    return name is not None and (name in names or _is_address(name))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)
