"""The WebSocket hub over real sockets: slow, silent and talkative clients; and who is let in."""

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Self

import aiohttp
import pytest
from aiohttp import WSCloseCode, WSMsgType, web

from dashboard.client import Encoded
from dashboard.guard import HEADERS, require_loopback
from dashboard.hub import Hub
from dashboard.server import HUB, create_app
from rtb.errors import ConfigError
from rtb.services.frame_source import FrameSource
from rtb.services.metrics import Metrics


class HandClock:
    """A clock that a tick moves by a second."""

    def __init__(self) -> None:
        self.ns = 0

    def monotonic_ns(self) -> int:
        return self.ns

    def time(self) -> float:
        return 1_700_000_000 + self.ns / 1e9


class Site:
    """A running dashboard, its source driven by hand."""

    def __init__(self, **options: Any) -> None:
        self.clock = HandClock()
        self.metrics = Metrics("a", self.clock)
        self.source = FrameSource(self.metrics, self.clock)
        self.app = create_app(self.source, **options)
        self.runner = web.AppRunner(self.app, shutdown_timeout=1)
        self.port = 0

    @property
    def hub(self) -> Hub:
        return self.app[HUB]

    async def start(self) -> Self:
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", 0)
        await site.start()
        self.port = self.runner.addresses[0][1]
        return self

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def tick(self) -> None:
        self.clock.ns += 10**9
        self.source.tick()


class RawClient:
    """A WebSocket client with small buffers that reads only when told to, and never answers a ping."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, port: int) -> Self:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        reader, writer = await asyncio.open_connection(sock=sock, limit=4096)
        writer.write(
            b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
        return cls(reader, writer)

    async def read(self) -> Any:
        """The next message. Source: RFC 6455 5.2; frames of a server are not masked."""
        _, length = await self.reader.readexactly(2)
        if length == 126:
            (length,) = struct.unpack("!H", await self.reader.readexactly(2))
        return json.loads(await self.reader.readexactly(length))

    async def read_to_end(self) -> None:
        """Until the server has cut the connection."""
        async with asyncio.timeout(60):
            try:
                while await self.reader.read(4096):
                    pass
            except ConnectionError:
                pass
        await self.close()

    async def close(self) -> None:
        """Leave."""
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except ConnectionError:
            pass


async def update(ws: aiohttp.ClientWebSocketResponse) -> Any:
    """The next update; a minute's report may come between."""
    while (message := await ws.receive_json())["type"] == "report":
        pass
    return message


Start = Callable[..., Awaitable[Site]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    sites: list[Site] = []

    async def start_site(**options: Any) -> Site:
        sites.append(Site(**options))
        return await sites[-1].start()

    yield start_site
    for site in sites:
        await site.runner.cleanup()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def test_initial_with_history_then_updates(start: Start, session: aiohttp.ClientSession) -> None:
    """A new client gets the present and the past at once, then every snapshot."""
    site = await start()
    site.metrics.won += 7
    site.tick()
    site.tick()
    async with session.ws_connect(site.url("/ws")) as ws:
        initial = await ws.receive_json()
        assert (initial["type"], initial["seq"]) == ("initial", 2)
        assert initial["data"]["snapshot"]["totals"]["won"] == 7
        assert [point[1] for point in initial["data"]["history"]] == [7.0, 0.0]
        site.tick()
        update = await ws.receive_json()
        assert (update["type"], update["seq"], list(update["data"])) == ("metrics_update", 3, ["snapshot", "point"])
        fields = initial["data"]["point_fields"]
        point = dict(zip(fields, update["data"]["point"], strict=True))
        assert (point["time"], point["auctions_per_s"], point["heat"]) == (update["data"]["snapshot"]["time"], 0.0, [])
        assert [row["instance"] for row in initial["data"]["instances"]] == [initial["data"]["instance"]] == ["a"]
        assert (initial["data"]["kept_s"], 100 in initial["data"]["heat_bounds_ms"]) == (3_600, True)


async def test_a_minute_that_is_over_is_reported_to_everybody(start: Start, session: aiohttp.ClientSession) -> None:
    """Once; the clock stands at 1,700,000,000 s, 20 s into its minute."""
    site = await start()
    async with session.ws_connect(site.url("/ws")) as ws:
        await ws.receive()
        site.metrics.won += 6
        heard = []
        for _ in range(100):
            site.tick()
            heard.append(await ws.receive_json())
        reports = [message["data"] for message in heard if message["type"] == "report"]
    assert [(report["time"], report["won"]) for report in reports] == [(1_699_999_980, 6)]


async def test_client_that_never_reads_is_cut_off_and_the_others_miss_nothing(
    start: Start, session: aiohttp.ClientSession
) -> None:
    """Its buffers fill, its send times out, its connection is reset; meanwhile another client gets every snapshot."""
    site = await start(send_timeout_s=0.2, heartbeat_s=1000)
    slow = await RawClient.connect(site.port)
    async with session.ws_connect(site.url("/ws")) as fast:
        await fast.receive()
        async with asyncio.timeout(60):
            while len(site.hub) == 2:
                site.tick()
                assert (await update(fast))["seq"] == site.source.latest.seq
        assert len(site.hub) == 1
    await slow.read_to_end()


async def test_slow_client_gets_the_latest_instead_of_a_backlog(start: Start, session: aiohttp.ClientSession) -> None:
    """After a pause it finds what the buffers held, then the newest: what lay between is skipped."""
    site = await start(send_timeout_s=250, heartbeat_s=1000)
    slow = await RawClient.connect(site.port)
    async with session.ws_connect(site.url("/ws")) as fast:
        await fast.receive()
        for _ in range(600):
            site.tick()
            await update(fast)
        seqs = []
        while not seqs or seqs[-1] < 600:
            message = await slow.read()
            if message["type"] != "report":
                seqs.append(message["seq"])
    assert seqs == sorted(set(seqs))
    assert len(seqs) < 500
    assert seqs[-1] - seqs[-2] > 100
    await slow.close()


async def test_client_that_does_not_answer_pings_is_cut_off(start: Start) -> None:
    """A half-open connection ends after one and a half heartbeats."""
    site = await start(heartbeat_s=0.1)
    silent = await RawClient.connect(site.port)
    await silent.read_to_end()


async def test_client_that_speaks_is_shown_the_door(start: Start, session: aiohttp.ClientSession) -> None:
    """The socket only sends; a message from a browser is a policy violation."""
    site = await start()
    async with session.ws_connect(site.url("/ws")) as ws:
        await ws.receive()
        await ws.send_str("hello")
        assert (await ws.receive()).type is WSMsgType.CLOSE
        assert ws.close_code == WSCloseCode.POLICY_VIOLATION


async def test_clients_are_told_when_the_server_goes_away(start: Start, session: aiohttp.ClientSession) -> None:
    """Shutdown closes with 1001 and takes no client along that does not read."""
    site = await start()
    stuck = await RawClient.connect(site.port)
    async with session.ws_connect(site.url("/ws")) as ws:
        await ws.receive()
        _, closing = await asyncio.gather(site.runner.cleanup(), ws.receive())
        assert (closing.type, closing.data) == (WSMsgType.CLOSE, WSCloseCode.GOING_AWAY)
    assert len(site.hub) == 0
    await stuck.close()


async def test_number_of_clients_is_bounded(start: Start, session: aiohttp.ClientSession) -> None:
    """One too many is asked to come back later, and may once there is room."""
    site = await start(max_clients=1)
    async with session.ws_connect(site.url("/ws")):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await session.ws_connect(site.url("/ws"))
        assert refused.value.status == 503


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://evil.example", 403),
        ("null", 403),
        ("http://127.0.0.1", 403),
        ("ftp://127.0.0.1:{port}", 403),
        ("http://127.0.0.1:{port}", 101),
        ("https://ops.example.com", 101),
    ],
)
async def test_only_own_and_configured_origins_may_connect(
    start: Start, session: aiohttp.ClientSession, origin: str, status: int
) -> None:
    """Another page in the same browser does not read along, not even one from another port."""
    site = await start(origins=["https://ops.example.com"])
    origin = origin.format(port=site.port)
    if status == 101:
        async with session.ws_connect(site.url("/ws"), origin=origin) as ws:
            assert (await ws.receive_json())["type"] == "initial"
        return
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await session.ws_connect(site.url("/ws"), origin=origin)
    assert refused.value.status == status


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8080", 200),
        ("[::1]:8080", 200),
        ("localhost", 200),
        ("ops.example.com", 200),
        ("evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("[", 421),
    ],
)
async def test_only_known_hosts_are_served(
    start: Start, session: aiohttp.ClientSession, host: str, status: int
) -> None:
    """A foreign name that was pointed at this machine (DNS rebinding) gets nothing."""
    site = await start(names=["ops.example.com"])
    async with session.get(site.url("/api/metrics"), headers={"Host": host}) as response:
        assert response.status == status


@pytest.mark.parametrize("path", ["/", "/web/app.js", "/api/metrics", "/nowhere"])
async def test_every_answer_carries_the_security_headers(
    start: Start, session: aiohttp.ClientSession, path: str
) -> None:
    """Errors included."""
    site = await start()
    async with session.get(site.url(path)) as response:
        assert HEADERS.items() <= dict(response.headers).items()
        assert response.headers["Content-Security-Policy"].startswith("default-src 'self'")


async def test_files_outside_the_web_folder_stay_there(start: Start, session: aiohttp.ClientSession) -> None:
    """Neither a dotted path nor an encoded one leaves it; modules are served as JavaScript."""
    site = await start()
    for path in ("/web/../server.py", "/web/%2e%2e/server.py", "/web/..%2fserver.py"):
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
        assert b" 404 " in answer.split(b"\r\n")[0] or b" 403 " in answer.split(b"\r\n")[0]
        writer.close()
        await writer.wait_closed()
    async with session.get(site.url("/web/app.js")) as response:
        assert response.content_type in ("text/javascript", "application/javascript")


async def test_latest_snapshot_as_json(start: Start, session: aiohttp.ClientSession) -> None:
    """The same numbers for scripts."""
    site = await start()
    site.metrics.won += 3
    site.tick()
    async with session.get(site.url("/api/metrics")) as response:
        body = await response.json()
    assert (body["seq"], body["totals"], body["rates"]["won"], body["bid_rate"]) == (1, {"won": 3}, 3.0, 1.0)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_addresses_pass(host: str) -> None:
    """Reachable from this machine alone."""
    require_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.5", "example.com", "", "localhost.evil.example"])
def test_other_addresses_are_a_config_error(host: str) -> None:
    """There is no login, and the message says what to do."""
    with pytest.raises(ConfigError, match=r"127\.0\.0\.1"):
        require_loopback(host)


async def test_many_clients_are_all_served_a_few_at_a_time(start: Start, session: aiohttp.ClientSession) -> None:
    """Each gets every update and every event, in order."""
    site = await start()
    clients = [await session.ws_connect(site.url("/ws")) for _ in range(40)]
    for client in clients:
        await client.receive()
    for _ in range(2):
        site.tick()
        for client in clients:
            assert (await client.receive_json())["seq"] == site.source.latest.seq
    site.hub.tell("alert", {"n": 1})
    for client in clients:
        assert (await client.receive_json())["data"] == {"n": 1}
        await client.close()


@pytest.mark.parametrize("length", [0, 125, 126, 65_535, 65_536])
def test_a_message_is_framed_as_the_protocol_says(length: int) -> None:
    """One final text frame, not masked. Source: RFC 6455 5.2."""
    encoded = Encoded(b"x" * length)
    short = {0: b"\x81\x00", 125: b"\x81\x7d", 126: b"\x81\x7e\x00\x7e", 65_535: b"\x81\x7e\xff\xff"}
    head = short.get(length, b"\x81\x7f\x00\x00\x00\x00\x00\x01\x00\x00")
    assert encoded.frame == head + b"x" * length
