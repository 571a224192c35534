"""Who gets in, over a real server: bearer tokens, the login page, the cookie, the roles, the limits."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from structlog.testing import capture_logs

from dashboard.access import IDENTITY, Access
from dashboard.guard import check_bind
from dashboard.server import create_app
from dashboard.tokens import Identity, Role, Tokens, add_token, token_file
from rtb.adapters.clock import ManualClock
from rtb.adapters.memory_state import MemoryState
from rtb.errors import ConfigError, StoreError
from rtb.services.frame_source import FrameSource
from rtb.services.metrics import Metrics

LOCAL = Identity("local", Role.OPERATOR)
OPS, WALL = {"Authorization": "Bearer ops-token"}, {"Authorization": "bearer wall-token"}


def tokens() -> Tokens:
    """An operator and a viewer."""
    return Tokens(
        {
            "ops": (Role.OPERATOR, hashlib.sha256(b"ops-token").hexdigest()),
            "wall": (Role.VIEWER, hashlib.sha256(b"wall-token").hexdigest()),
        },
        bytes(32),
    )


class Site:
    """A dashboard with a login, and a route that changes something."""

    def __init__(self, known: Tokens | None = None, **options: Any) -> None:
        self.clock = ManualClock()
        self.source = FrameSource(Metrics("a", self.clock), self.clock)
        access = Access(known or tokens(), self.clock.time, self.clock.monotonic_ns, **options)
        app = create_app(self.source, access=access)

        async def change(request: web.Request) -> web.Response:
            return web.json_response({"by": request[IDENTITY].name})

        app.router.add_post("/api/change", change)
        self.runner = web.AppRunner(app, shutdown_timeout=1)
        self.session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        self.origin = ""

    async def start(self) -> None:
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", 0).start()
        self.origin = f"http://127.0.0.1:{self.runner.addresses[0][1]}"

    async def stop(self) -> None:
        await self.session.close()
        await self.runner.cleanup()

    async def ask(self, method: str, path: str, **options: Any) -> tuple[int, dict[str, str], str]:
        """Status, headers and body; redirects are not followed."""
        async with self.session.request(method, self.origin + path, allow_redirects=False, **options) as response:
            return response.status, dict(response.headers), await response.text()

    async def log_in(self, token: str = "ops-token") -> str:
        """The Cookie header of a new session."""
        status, headers, _ = await self.ask("POST", "/login", data={"token": token}, headers={"Origin": self.origin})
        assert (status, headers["Location"]) == (303, "/")
        return headers["Set-Cookie"].split(";")[0]

    @asynccontextmanager
    async def listen(self, headers: dict[str, str]) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """A client of the WebSocket that has been greeted."""
        async with self.session.ws_connect(self.origin + "/ws", headers=headers, origin=self.origin) as ws:
            assert (await ws.receive_json())["type"] == "initial"
            yield ws

    def tick(self, seconds: float = 1) -> None:
        """So much later."""
        self.clock.advance(seconds)
        self.source.tick()


Start = Callable[..., Awaitable[Site]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    sites: list[Site] = []

    async def start(**options: Any) -> Site:
        sites.append(Site(**options))
        await sites[-1].start()
        return sites[-1]

    yield start
    for site in sites:
        await site.stop()


async def test_strangers_see_the_login_page_only(start: Start) -> None:
    """The page sends them there, everything else refuses in one line; files of the page are open."""
    site = await start()
    status, headers, _ = await site.ask("GET", "/")
    assert (status, headers["Location"]) == (303, "/login")
    for method, path in (("GET", "/api/metrics"), ("POST", "/api/change"), ("GET", "/ws"), ("GET", "/nowhere")):
        status, headers, body = await site.ask(method, path)
        assert (status, headers["WWW-Authenticate"]) == (401, 'Bearer realm="rtb"')
        assert body == '{"error":"log in at /login, or send a bearer token"}'
    status, headers, body = await site.ask("GET", "/login")
    assert (status, headers["Content-Security-Policy"].split(";")[0]) == (200, "default-src 'self'")
    assert 'name="token"' in body
    assert (await site.ask("GET", "/web/login.css"))[0] == 200


async def test_tokens_open_the_api(start: Start) -> None:
    """A viewer's to read, an operator's to change as well."""
    site = await start()
    assert (await site.ask("GET", "/api/metrics", headers=WALL))[0] == 200
    status, _, body = await site.ask("POST", "/api/change", headers=WALL)
    assert (status, body) == (403, '{"error":"\'wall\' may look only; this needs the role operator"}')
    status, _, body = await site.ask("POST", "/api/change", headers=OPS)
    assert (status, body) == (200, '{"by": "ops"}')
    for wrong in ("Bearer wrong", "Bearer", "Basic b3BzLXRva2Vu", "ops-token"):
        assert (await site.ask("GET", "/api/metrics", headers={"Authorization": wrong}))[0] == 401


async def test_a_session_is_a_cookie_that_nobody_else_sends(start: Start) -> None:
    """HttpOnly, SameSite=Strict, for the whole site; Secure where the browser speaks TLS to a proxy."""
    for secure in (False, True):
        site = await start(secure=secure)
        _, headers, _ = await site.ask("POST", "/login", data={"token": " ops-token "})
        [morsel] = SimpleCookie(headers["Set-Cookie"]).values()
        assert morsel["httponly"]
        assert (morsel["samesite"], morsel["path"], morsel["max-age"]) == ("Strict", "/", "43200")
        assert bool(morsel["secure"]) is secure
        assert "ops-token" not in headers["Set-Cookie"]


async def test_a_session_opens_the_page_until_it_ends(start: Start) -> None:
    """For twelve hours. Logging out takes the cookie away."""
    site = await start()
    cookie = {"Cookie": await site.log_in()}
    assert (await site.ask("GET", "/", headers=cookie))[0] == 200
    assert (await site.ask("GET", "/api/metrics", headers=cookie))[0] == 200
    site.clock.advance(12 * 3_600)
    assert (await site.ask("GET", "/api/metrics", headers=cookie))[0] == 401
    status, headers, _ = await site.ask("POST", "/logout")
    assert (status, headers["Location"]) == (303, "/login")
    assert "rtb_session=" in headers["Set-Cookie"]
    assert "Max-Age=0" in headers["Set-Cookie"]


async def test_a_cookie_changes_things_from_our_own_page_only(start: Start) -> None:
    """A foreign origin is refused, and so is none: browsers send one. A viewer's session stays a viewer's."""
    site = await start()
    cookie = {"Cookie": await site.log_in()}
    assert (await site.ask("POST", "/api/change", headers=cookie))[0] == 401
    assert (await site.ask("POST", "/api/change", headers={**cookie, "Origin": "https://evil.test"}))[0] == 403
    assert (await site.ask("POST", "/api/change", headers={**cookie, "Origin": site.origin}))[0] == 200
    viewer = {"Cookie": await site.log_in("wall-token"), "Origin": site.origin}
    assert (await site.ask("POST", "/api/change", headers=viewer))[0] == 403


async def test_the_socket_asks_for_the_same(start: Start) -> None:
    """A token, or a session and an origin of ours."""
    site = await start()
    cookie = {"Cookie": await site.log_in()}
    for headers, origin, status in (
        ({}, site.origin, 401),
        (cookie, None, 401),
        (cookie, "https://evil.test", 403),
        (cookie, site.origin, 101),
        (WALL, None, 101),
    ):
        if status == 101:
            async with site.session.ws_connect(site.origin + "/ws", headers=headers, origin=origin) as ws:
                assert (await ws.receive_json())["type"] == "initial"
            continue
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await site.session.ws_connect(site.origin + "/ws", headers=headers, origin=origin)
        assert refused.value.status == status


async def updated(ws: aiohttp.ClientWebSocketResponse) -> bool:
    """Whether the next thing a client hears, but for the report of a minute, is an update."""
    async with asyncio.timeout(30):
        while (message := await ws.receive_json())["type"] == "report":
            pass
    return bool(message["type"] == "metrics_update")


async def shown_out(ws: aiohttp.ClientWebSocketResponse) -> bool:
    """Whether the next thing a client hears, but for the report of a minute, is that its session is over."""
    async with asyncio.timeout(30):
        while (message := await ws.receive()).type is aiohttp.WSMsgType.TEXT:
            assert message.json()["type"] == "report"
    return (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, aiohttp.WSCloseCode.POLICY_VIOLATION)


async def test_logging_out_closes_the_sockets_of_that_session(start: Start) -> None:
    """All of that one at once, and its cookie opens nothing any more; another session of the same person goes on."""
    site = await start()
    left, other = {"Cookie": await site.log_in()}, {"Cookie": await site.log_in()}
    async with site.listen(left) as one, site.listen(left) as two, site.listen(other) as stays, site.listen(OPS) as api:
        await site.ask("POST", "/logout", headers={**left, "Origin": site.origin})
        assert (await shown_out(one), await shown_out(two)) == (True, True)
        assert (await site.ask("GET", "/api/metrics", headers=left))[0] == 401
        site.tick()
        assert (await updated(stays), await updated(api)) == (True, True)


async def test_logging_out_holds_for_who_shares_the_state_store(start: Start) -> None:
    """Here they have the same tokens and no file of them."""
    state = MemoryState(ManualClock())
    here, there = await start(state=state), await start(state=state)
    left = {"Cookie": await here.log_in()}
    async with there.listen(left) as ws:
        await here.ask("POST", "/logout", headers={**left, "Origin": here.origin})
        while (await there.ask("GET", "/api/metrics", headers=left))[0] == 200:  # noqa: ASYNC110 - over HTTP
            await asyncio.sleep(0.02)
        there.tick()
        assert await shown_out(ws)


async def test_a_store_that_is_away_logs_nobody_out(start: Start) -> None:
    """It is told once; who logs out does so where they are."""

    class Away(MemoryState):
        async def ended_sessions(self) -> dict[str, int]:
            raise StoreError("redis is away")

    with capture_logs() as told:
        site = await start(state=Away(ManualClock()))
        left, stays = {"Cookie": await site.log_in()}, {"Cookie": await site.log_in()}
        await site.ask("POST", "/logout", headers={**left, "Origin": site.origin})
        assert [(await site.ask("GET", "/api/metrics", headers=who))[0] for who in (left, stays)] == [401, 200]
    assert [line["reason"] for line in told if line["event"] == "dashboard_logouts_not_shared"] == ["redis is away"]


async def test_a_session_that_ends_closes_its_sockets(start: Start) -> None:
    """With the second in which it does, after twelve hours; a token goes on."""
    site = await start()
    async with site.listen({"Cookie": await site.log_in()}) as ws, site.listen(WALL) as api:
        site.tick(12 * 3_600 - 1)
        assert (await updated(ws), await updated(api)) == (True, True)
        site.tick()
        assert await shown_out(ws)
        assert await updated(api)


async def test_a_token_that_is_taken_back_closes_its_sockets(start: Start, tmp_path: Path) -> None:
    """And those of the sessions that began with it, within a second, without a restart; nobody else's."""
    path = tmp_path / "tokens"
    known, admin = token_file(path)
    wall = add_token(path, Role.VIEWER, "wall")
    known.refresh()
    site = await start(known=known)
    bearer = {"Authorization": f"Bearer {wall}"}
    session = {"Cookie": await site.log_in(wall)}
    async with (
        site.listen(bearer) as one,
        site.listen(session) as two,
        site.listen({"Authorization": f"Bearer {admin}"}) as stays,
    ):
        path.write_text("".join(line for line in path.read_text().splitlines(True) if "wall" not in line))
        site.tick()
        assert (await shown_out(one), await shown_out(two)) == (True, True)
        assert await updated(stays)
    for headers in (bearer, session):
        assert (await site.ask("GET", "/api/metrics", headers=headers))[0] == 401


async def test_guessing_is_slowed_down(start: Start) -> None:
    """Five wrong tokens a minute from one address, by form or by header; then not even the right one is looked at.
    Sessions that are open stay open."""
    site = await start()
    cookie = {"Cookie": await site.log_in()}
    for _ in range(3):
        status, _, body = await site.ask("POST", "/login", data={"token": "wrong"})
        assert (status, "That token is not known here." in body) == (401, True)
    for _ in range(2):
        assert (await site.ask("GET", "/api/metrics", headers={"Authorization": "Bearer wrong"}))[0] == 401
    site.clock.advance(30)
    status, headers, body = await site.ask("POST", "/login", data={"token": "ops-token"})
    assert (status, headers["Retry-After"], "try again in 31 s" in body) == (429, "31", True)
    status, headers, body = await site.ask("GET", "/api/metrics", headers=OPS)
    assert (status, body) == (429, '{"error":"too many wrong tokens; try again in 31 s"}')
    assert (await site.ask("GET", "/api/metrics", headers=cookie))[0] == 200
    site.clock.advance(31)
    assert (await site.ask("GET", "/api/metrics", headers=OPS))[0] == 200


@pytest.mark.parametrize("body", [b"", b"token=" + b"x" * 5_000, b"\xff\xfe", b"token", b"other=ops-token"])
async def test_a_login_that_is_none_is_refused(start: Start, body: bytes) -> None:
    """Whatever was sent."""
    site = await start()
    status, headers, _ = await site.ask("POST", "/login", data=body)
    assert status in (401, 413)
    assert "Set-Cookie" not in headers


async def test_on_loopback_nobody_needs_a_token_when_configured_so(start: Start) -> None:
    """Then everybody is who the configuration says; a wrong token is still wrong."""
    site = await start(everyone=LOCAL)
    assert (await site.ask("GET", "/"))[0] == 200
    assert (await site.ask("POST", "/api/change"))[2] == '{"by": "local"}'
    assert (await site.ask("POST", "/api/change", headers={"Origin": "https://evil.test"}))[0] == 403
    assert (await site.ask("GET", "/api/metrics", headers={"Authorization": "Bearer wrong"}))[0] == 401


@pytest.mark.parametrize(
    ("host", "count", "everyone", "line"),
    [
        ("127.0.0.1", 1, False, ""),
        ("::1", 0, True, ""),
        ("0.0.0.0", 1, False, ""),
        ("0.0.0.0", 0, False, "host '0.0.0.0' is reachable from outside, and there is no token; set"),
        ("10.0.0.5", 1, True, "requests without a token are allowed; allow them on 127.0.0.1 only"),
        ("127.0.0.1", 0, False, "there is no token to log in with"),
    ],
)
def test_where_it_may_listen(host: str, count: int, everyone: bool, line: str) -> None:
    """Outside only with a token; the refusal is one line that says what to do."""
    if not line:
        check_bind(host, tokens=count, everyone=everyone)
        return
    with pytest.raises(ConfigError, match=r"^dashboard: ") as caught:
        check_bind(host, tokens=count, everyone=everyone)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)
