"""Who may do what: bearer tokens for programs, a login page and a session cookie for people, two roles.

A viewer reads; an operator also changes. The cookie is SameSite=Strict and HttpOnly: other sites' pages do not send it
and scripts do not see it. What changes something, and the WebSocket, must besides come from a page of ours when it
comes with a cookie: browsers then send an `Origin`, which dashboard.guard has looked at. Whoever stays, at the
WebSocket, is looked at again: `Access.stands`.
"""

from __future__ import annotations

import asyncio
import contextlib
import html
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs

import msgspec
import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from dashboard.tokens import Identity, Pass, Role, Tokens
from rtb.errors import StoreError
from rtb.ports import StateStore

COOKIE = "rtb_session"
SESSION_S = 12 * 3_600
FAILURES = 5
"""Wrong tokens from one address within WINDOW_S; more are not even looked at."""
ALL_FAILURES = 100
"""The same of all addresses together."""
WINDOW_S = 60.0
SHARE_S = 1.0
MAX_ADDRESSES = 10_000
MAX_LOGIN_BYTES = 4_096
SAFE = frozenset({"GET", "HEAD"})

_PAGE = Path(__file__).parent / "web" / "login.html"
_OPEN_PATHS = frozenset({"/login", "/logout"})
_OPEN_FOLDER = "/web/"
_log = structlog.get_logger(__name__)
IDENTITY = web.RequestKey("identity", Identity)
PASS = web.RequestKey("pass", Pass)


class Attempts:
    """Counts wrong tokens: so many from one address, and so many at all, a minute."""

    def __init__(self, monotonic_ns: Callable[[], int]) -> None:
        """None yet."""
        self._monotonic_ns = monotonic_ns
        self._failures: OrderedDict[str, list[int]] = OrderedDict()

    def wait_s(self, address: str) -> int:
        """How many seconds until this address may try again, 0 when it may now."""
        since = self._monotonic_ns() - round(WINDOW_S * 1e9)
        waits = [0]
        for name, most in ((address, FAILURES), ("", ALL_FAILURES)):
            recent = [at for at in self._failures.get(name, ()) if at > since]
            if len(recent) >= most:
                waits.append((recent[-most] - since) // 1_000_000_000 + 1)
        return max(waits)

    def failed(self, address: str) -> None:
        """It was a wrong one."""
        for name, most in ((address, FAILURES), ("", ALL_FAILURES)):
            self._failures[name] = [*self._failures.pop(name, []), self._monotonic_ns()][-most:]
        while len(self._failures) > MAX_ADDRESSES:
            self._failures.popitem(last=False)


class Access:
    """The gate in front of the dashboard: `middleware`, and the routes of `add_routes`."""

    def __init__(
        self,
        tokens: Tokens,
        time: Callable[[], float],
        monotonic_ns: Callable[[], int],
        *,
        everyone: Identity | None = None,
        secure: bool = False,
        state: StateStore | None = None,
    ) -> None:
        """Let in who has a token, or a session that began with one.

        Args:
            tokens: of those who may.
            time: Unix seconds.
            monotonic_ns: of the event loop.
            everyone: who a request without either is by; on a loopback address, when it is configured so.
            secure: the browser speaks TLS, to a proxy: it keeps the cookie to it.
            state: where daemons tell each other who has logged out, besides by the token file.
        """
        self.ended: list[Callable[[], None]] = []
        """Called when somebody has logged out."""
        self._tokens = tokens
        self._time = time
        self._attempts = Attempts(monotonic_ns)
        self._everyone = None if everyone is None else Pass(everyone)
        self._secure = secure
        self._state = state
        self._left = asyncio.Event()
        self._page = _PAGE.read_text(encoding="utf-8")

    @property
    def middleware(self) -> Middleware:
        """Puts IDENTITY into the request, or refuses it: 401 without a good token, 403 without the role."""

        @web.middleware
        async def access(request: web.Request, handler: Handler) -> web.StreamResponse:
            if request.path in _OPEN_PATHS or request.path.startswith(_OPEN_FOLDER):
                return await handler(request)
            found = self._identify(request)
            if found is None:
                return _ask_to_log_in(request)
            identity = found.identity
            if request.method not in SAFE and identity.role is not Role.OPERATOR:
                return refusal(403, f"{identity.name!r} may look only; this needs the role operator")
            request[IDENTITY], request[PASS] = identity, found
            return await handler(request)

        return access

    def add_routes(self, app: web.Application) -> None:
        """``GET /login``, the page, and ``POST /login`` and ``/logout``, what it does."""
        app.router.add_get("/login", self._show)
        app.router.add_post("/login", self._log_in)
        app.router.add_post("/logout", self._log_out)

    def stands(self, given: Pass) -> bool:
        """Whether who was let in with this may stay."""
        return given == self._everyone or self._tokens.stands(given, self._time())

    def refresh(self) -> None:
        """Know who has got a token, or lost one; to be called every second."""
        self._tokens.refresh()

    async def share(self) -> None:
        """Tell other daemons who has logged out, at once, and hear of it, once a second, until cancelled."""
        shared = True
        while self._state is not None:
            self._left.clear()
            try:
                await self._tokens.meet(self._state, self._time())
                shared = True
            except StoreError as error:
                if shared:
                    _log.warning("dashboard_logouts_not_shared", reason=str(error), note="until the store is back")
                shared = False
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._left.wait(), SHARE_S)

    def _identify(self, request: web.Request) -> Pass | None:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme:
            if scheme.lower() != "bearer":
                return None
            self._hold_off(request)
            found = self._tokens.identify(token.strip())
            if found is None:
                self._failed(request)
            return found
        found = self._tokens.resume(request.cookies.get(COOKIE, ""), self._time())
        if found is None:
            return self._everyone
        acts = request.method not in SAFE or "Upgrade" in request.headers
        return None if acts and "Origin" not in request.headers else found

    async def _show(self, _request: web.Request) -> web.Response:
        return self._login_page()

    async def _log_in(self, request: web.Request) -> web.StreamResponse:
        if wait_s := self._attempts.wait_s(_address(request)):
            return self._login_page(
                f"Too many wrong tokens; try again in {wait_s} s.", 429, {"Retry-After": str(wait_s)}
            )
        if (request.content_length or MAX_LOGIN_BYTES + 1) > MAX_LOGIN_BYTES:
            return self._login_page("That is no token.", 413)
        fields = parse_qs((await request.read()).decode(errors="replace"))
        found = self._tokens.identify(fields.get("token", [""])[0].strip())
        if found is None:
            self._failed(request)
            return self._login_page("That token is not known here.", 401)
        identity = found.identity
        _log.info("dashboard_login", name=identity.name, role=identity.role.value, peer=_address(request))
        response = web.Response(status=303, headers={"Location": "/"})
        response.set_cookie(
            COOKIE,
            self._tokens.session(identity, int(self._time()) + SESSION_S),
            max_age=SESSION_S,
            path="/",
            httponly=True,
            samesite="Strict",
            secure=self._secure or request.secure,
        )
        return response

    async def _log_out(self, request: web.Request) -> web.Response:
        self._tokens.end(request.cookies.get(COOKIE, ""), self._time())
        self._left.set()
        for listener in self.ended:
            listener()
        response = web.Response(status=303, headers={"Location": "/login"})
        response.del_cookie(COOKIE, path="/", httponly=True, samesite="Strict", secure=self._secure)
        return response

    def _login_page(self, problem: str = "", status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
        text = self._page.replace("<!--problem-->", html.escape(problem))
        return web.Response(text=text, status=status, content_type="text/html", headers=headers)

    def _hold_off(self, request: web.Request) -> None:
        if wait_s := self._attempts.wait_s(_address(request)):
            raise web.HTTPTooManyRequests(
                text=_error(f"too many wrong tokens; try again in {wait_s} s"),
                content_type="application/json",
                headers={"Retry-After": str(wait_s)},
            )

    def _failed(self, request: web.Request) -> None:
        self._attempts.failed(_address(request))
        _log.warning("dashboard_wrong_token", peer=_address(request))


def refusal(status: int, line: str, headers: dict[str, str] | None = None) -> web.Response:
    """An error as every answer of the API is one: ``{"error": one line}``."""
    return web.Response(text=_error(line), status=status, content_type="application/json", headers=headers)


def _ask_to_log_in(request: web.Request) -> web.Response:
    if request.path == "/" and request.method in SAFE:
        return web.Response(status=303, headers={"Location": "/login"})
    return refusal(401, "log in at /login, or send a bearer token", {"WWW-Authenticate": 'Bearer realm="rtb"'})


def _address(request: web.Request) -> str:
    return request.remote or "?"


def _error(line: str) -> str:
    return msgspec.json.encode({"error": line}).decode()
