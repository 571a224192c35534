"""Live snapshots for any number of browsers, none of which can hold up the others or fill the memory.

Each snapshot is encoded once, and so is each campaign that anybody has subscribed to. Each client has one slot, where a
newer message replaces one not yet sent, a short queue of events and answers, of which the oldest give way, and one task
for its whole life that sends from both under a time-out. A client that does not read, or does not answer pings, is cut
off. Memory a client: its slot, its queue, 64 KiB of write buffer and a small kernel buffer.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec
import structlog
from aiohttp import WSCloseCode, WSMsgType, web

from dashboard.access import IDENTITY
from dashboard.answers import CampaignLive
from dashboard.commands import Commands
from dashboard.tokens import Identity
from rtb.domain.metrics import Snapshot
from rtb.services.metrics import MetricsSource

_SEND_BUFFER_BYTES = 64 * 1024
_MAX_INCOMING_BYTES = 4 * 1024
_CLOSE_S = 2.0
_EVENTS = 64
_AT_ONCE = 8
"""Commands of a client under way."""
PROTOCOL = 1
GREETED = 300
"""Seconds of history that a new client gets unasked; it may ask for more."""

_log = structlog.get_logger(__name__)
_encoder = msgspec.json.Encoder()


class Client:
    """One browser: its connection, its slot, its events, and what it has subscribed to."""

    __slots__ = ("_events", "_pending", "_wake", "auctions", "campaigns", "greeted", "identity", "tasks", "ws")

    def __init__(self, ws: web.WebSocketResponse, identity: Identity | None = None) -> None:
        """Start with an empty slot. Without an `identity` anybody may do anything."""
        self.ws = ws
        self.identity = identity
        self.campaigns: set[str] = set()
        self.auctions = False
        self.greeted = False
        self.tasks: set[asyncio.Task[None]] = set()
        self._events: deque[bytes] = deque(maxlen=_EVENTS)
        self._pending = b""
        self._wake = asyncio.Event()

    def put(self, message: bytes) -> None:
        """Send this next, instead of what was to be sent next."""
        self._pending = message
        self._wake.set()

    def add(self, event: bytes) -> None:
        """Send this, too, in its turn."""
        self._events.append(event)
        self._wake.set()

    async def send_forever(self, timeout_s: float) -> None:
        """Send what is put, one message at a time.

        Raises:
            TimeoutError: the client did not take a message in `timeout_s`.
            ConnectionError: it is gone.
        """
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._pending:
                message, self._pending = self._pending, b""
                self.greeted = True
                await self._send(message, timeout_s)
            while self._events:
                await self._send(self._events.popleft(), timeout_s)

    async def _send(self, message: bytes, timeout_s: float) -> None:
        async with asyncio.timeout(timeout_s):
            await self.ws.send_frame(message, WSMsgType.TEXT)

    async def close(self, code: WSCloseCode, reason: bytes) -> None:
        """Close in order where the client plays along, else by cutting the connection."""
        with contextlib.suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(_CLOSE_S):
                await self.ws.close(code=code, message=reason)


class Hub:
    """The clients of ``GET /ws``.

    A client gets ``{"type": "initial", "seq", "data": {"snapshot", "history"}}`` at once, then ``{"type":
    "metrics_update", "seq", "data": {"snapshot"}}`` for every snapshot that it keeps up with: a gap in `seq` is one it
    was too slow for. With `commands` it may speak (docs/dashboard-protocol.md); without, a message from it ends the
    connection.
    """

    def __init__(
        self,
        source: MetricsSource,
        *,
        max_clients: int = 1000,
        send_timeout_s: float = 5.0,
        heartbeat_s: float = 15.0,
        commands: Commands | None = None,
    ) -> None:
        """Serve the snapshots of `source` between `start` and `close`."""
        self._source = source
        self._max_clients = max_clients
        self._send_timeout_s = send_timeout_s
        self._heartbeat_s = heartbeat_s
        self._commands = commands
        self._clients: set[Client] = set()
        self._hello = b""
        self._hello_seq = -1
        self._unsubscribe: Callable[[], None] | None = None

    def __len__(self) -> int:
        """How many clients are connected."""
        return len(self._clients)

    def start(self) -> None:
        """Begin to listen to the source."""
        self._unsubscribe = self._source.subscribe(self._publish)

    async def close(self) -> None:
        """Tell every client that the server goes away; it takes as long as the slowest, 2 seconds at most."""
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None
        await asyncio.gather(
            *(client.close(WSCloseCode.GOING_AWAY, b"the server is stopping") for client in self._clients)
        )

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serve one client until it leaves, fails to keep up, or speaks."""
        if len(self._clients) >= self._max_clients:
            raise web.HTTPServiceUnavailable(text="too many dashboards are open\n", headers={"Retry-After": "10"})
        ws = web.WebSocketResponse(
            compress=False,
            heartbeat=self._heartbeat_s,
            max_msg_size=_MAX_INCOMING_BYTES,
            timeout=_CLOSE_S,
            writer_limit=0,  # every send waits while the write buffer is above its mark
        )
        client = Client(ws, request.get(IDENTITY))
        self._clients.add(client)  # before the first await, so that the cap holds in a rush
        transport = request.transport
        try:
            await ws.prepare(request)
            _shrink_kernel_buffer(ws)
            client.put(self._greeting())
            await self._serve(client, transport)
        finally:
            self._clients.discard(client)
            if transport is not None and ws.close_code in (None, WSCloseCode.ABNORMAL_CLOSURE):
                transport.abort()  # close() would wait for ever for what the client does not read
        return ws

    async def _serve(self, client: Client, transport: asyncio.Transport | None) -> None:
        """Send in one task and listen in this one, until either ends."""

        def cut_off(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and isinstance(task.exception(), TimeoutError) and transport is not None:
                _log.info("dashboard_client_too_slow", peer=transport.get_extra_info("peername"))
                transport.abort()

        sender = asyncio.create_task(client.send_forever(self._send_timeout_s))
        sender.add_done_callback(cut_off)
        try:
            while True:
                message = await client.ws.receive()  # answers pings; returns at the end, or at a message
                if message.type is not WSMsgType.TEXT or self._commands is None:
                    break
                self._obey(self._commands, client, message.data)
        finally:
            sender.cancel()
        if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
            await client.close(WSCloseCode.POLICY_VIOLATION, b"this socket only sends")

    def tell(self, kind: str, data: Any, *, tape: bool = False) -> None:
        """Send everybody an event; one of the `tape` of auctions those who have subscribed to it."""
        wanted = [client for client in self._clients if client.greeted and (client.auctions or not tape)]
        if wanted:
            message = _encoder.encode({"type": kind, "data": data})
            for client in wanted:
                client.add(message)

    def _obey(self, commands: Commands, client: Client, text: str) -> None:
        """Do what a client says beside listening to it, which answers its pings; a change is made to its end."""

        async def run() -> None:
            client.add(await commands.run(client, text))

        if len(client.tasks) >= _AT_ONCE:
            client.add(
                _encoder.encode({"type": "error", "id": None, "error": "too much at once; wait for the answers"})
            )
            return
        task = asyncio.create_task(run())
        client.tasks.add(task)
        task.add_done_callback(client.tasks.discard)

    def _publish(self, snapshot: Snapshot) -> None:
        message = _message("metrics_update", snapshot.seq, {"snapshot": snapshot})
        rows: dict[str, bytes] = {}
        for client in self._clients:
            # Whoever has not been sent the history yet still needs it.
            if not client.greeted:
                client.put(self._greeting())
            elif client.campaigns:
                parts = b",".join([self._campaign(name, rows) for name in sorted(client.campaigns)])
                client.put(b'%b,"campaigns":{%b}}}' % (message[:-2], parts))
            else:
                client.put(message)

    def _campaign(self, name: str, rows: dict[str, bytes]) -> bytes:
        """A campaign's part of an update, encoded once however many clients want it."""
        found = rows.get(name)
        if found is None:
            row = None if self._commands is None else self._commands.live(name)
            found = rows[name] = _encoder.encode(name) + b":" + _encoder.encode(row)
        return found

    def _greeting(self) -> bytes:
        """The first message, encoded once a snapshot however many clients come back at the same time."""
        snapshot = self._source.latest
        if snapshot.seq != self._hello_seq:
            history = self._source.history[-GREETED:]
            fields = CampaignLive.__struct_fields__
            data = {"protocol": PROTOCOL, "snapshot": snapshot, "history": history, "campaign_fields": fields}
            self._hello, self._hello_seq = _message("initial", snapshot.seq, data), snapshot.seq
        return self._hello


def _message(kind: str, seq: int, data: dict[str, Any]) -> bytes:
    return _encoder.encode({"type": kind, "seq": seq, "data": data})


def _shrink_kernel_buffer(ws: web.WebSocketResponse) -> None:
    """The kernel would take megabytes for a client that does not read, and hide for minutes that it does not."""
    sock = ws.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
