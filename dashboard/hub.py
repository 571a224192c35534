"""Live snapshots for any number of browsers, none of which can hold up the others or fill the memory.

Each snapshot is encoded once, and so is each campaign, channel and instance that anybody has subscribed to. Clients
are served a few at a time, so that an auction never waits for more than those few. Each client has one slot a kind of
message, where a newer one replaces one not yet sent, a short queue of events and answers, and one task for its whole
life that sends from both under a time-out. A client that does not read, or does not answer pings, is cut off. Memory a
client: its slots, its queue, 64 KiB of write buffer and a small kernel buffer.
"""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import Callable
from typing import Any

import msgspec
import structlog
from aiohttp import WSCloseCode, WSMsgType, web

from dashboard.access import PASS
from dashboard.answers import CampaignLive
from dashboard.client import CLOSE_S, Client, Encoded
from dashboard.commands import Commands
from dashboard.feeds import QUEUES, Feeds
from dashboard.second import UPDATE, Second
from dashboard.tokens import Pass
from dashboard.trails import CampaignPoint
from rtb.domain.snapshot import HEAT_BOUNDS_MS, Point, Snapshot
from rtb.services.frame_source import KEPT_S, MetricsSource

_SEND_BUFFER_BYTES = 64 * 1024
_MAX_INCOMING_BYTES = 4 * 1024
_AT_ONCE = 8
"""Commands of a client under way."""
_HOLD_S = 0.5
"""How long one more may wait for one of these to end."""
_SLICE, _STEP_S, _SPREAD_S = 4, 0.005, 0.5
"""Clients served in one step of the loop, at least; the pause between two; how long it may take to serve them all. With
a thousand of them a step serves ten, which takes a quarter of a millisecond."""
PROTOCOL = 2
GREETED = 300
"""Seconds of history that a new client gets unasked; it may ask for more."""

_log = structlog.get_logger(__name__)
_encoder = msgspec.json.Encoder()


class Hub:
    """The clients of ``GET /ws``, which docs/dashboard-protocol.md describes.

    A client gets ``initial`` at once, then ``metrics_update`` for every snapshot that it keeps up with: a gap in `seq`
    is one it was too slow for. With `commands` it may speak; without, a message from it ends the connection.
    """

    def __init__(
        self,
        source: MetricsSource,
        feeds: Feeds,
        *,
        max_clients: int = 1000,
        send_timeout_s: float = 5.0,
        heartbeat_s: float = 15.0,
        commands: Commands | None = None,
        stands: Callable[[Pass], bool] = lambda given: True,
    ) -> None:
        """Serve the snapshots of `source`, and what `feeds` tell, between `start` and `close`; `stands` says whether
        who was let in may stay (`Access.stands`)."""
        self._source = source
        self._feeds = feeds
        self._max_clients = max_clients
        self._send_timeout_s = send_timeout_s
        self._heartbeat_s = heartbeat_s
        self._commands = commands
        self._stands = stands
        self._leaving: set[asyncio.Task[None]] = set()
        self._clients: set[Client] = set()
        self._hello = Encoded(b"")
        self._hello_seq = -1
        self._looked = 0.0
        self._reported = 0
        self._unsubscribe: Callable[[], None] | None = None
        self._waiting: list[Client] = []
        self._timer: asyncio.TimerHandle | None = None

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
        if self._timer is not None:
            self._timer.cancel()
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
            timeout=CLOSE_S,
            writer_limit=0,  # every send waits while the write buffer is above its mark
        )
        transport = request.transport
        client = Client(ws, transport, request.get(PASS))
        self._clients.add(client)  # before the first await, so that the cap holds in a rush
        try:
            await ws.prepare(request)
            if client.gone:
                return ws
            _shrink_kernel_buffer(ws)
            client.put(UPDATE, self._greeting())
            await self._serve(client, transport)
        finally:
            self._clients.discard(client)
            if transport is not None and ws.close_code in (None, WSCloseCode.ABNORMAL_CLOSURE):
                transport.abort()  # close() would wait for ever for what the client does not read
        return ws

    def tell(self, kind: str, data: Any, *, channel: str = "") -> None:
        """Send everybody an event; one of a channel those who have subscribed to it."""
        wanted = [c for c in self._clients if c.greeted and (not channel or channel in c.channels)]
        if wanted:
            self._tell_some(Encoded(_encoder.encode({"type": kind, "data": data})), wanted)

    def review(self) -> None:
        """Close the connections of those whose session has ended, or whose token was taken back."""
        for client in [client for client in self._clients if not self._may_stay(client)]:
            self._show_out(client)

    def _may_stay(self, client: Client) -> bool:
        return client.given is None or self._stands(client.given)

    def _show_out(self, client: Client) -> asyncio.Task[None]:
        """It gets nothing more from here on, and is not listened to."""
        self._clients.discard(client)
        client.forget()
        task = asyncio.create_task(client.close(WSCloseCode.POLICY_VIOLATION, b"the session is over; log in again"))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)
        return task

    def _tell_some(self, message: Encoded, wanted: list[Client]) -> None:
        """Tell so many now, and the others a little later: what happens is told in the middle of an auction."""
        for client in wanted[:_SLICE]:
            client.add(message)
        if len(wanted) > _SLICE:
            asyncio.get_running_loop().call_later(_STEP_S, self._tell_some, message, wanted[_SLICE:])

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
                if message.type is not WSMsgType.TEXT or self._commands is None or client.gone:
                    break
                if not self._may_stay(client):
                    await self._show_out(client)
                    break
                await self._obey(self._commands, client, message.data)
        finally:
            sender.cancel()
        if message.type in (WSMsgType.TEXT, WSMsgType.BINARY) and not client.gone:
            await client.close(WSCloseCode.POLICY_VIOLATION, b"this socket only sends")

    async def _obey(self, commands: Commands, client: Client, text: str) -> None:
        """Do what a client says beside listening to it, which answers its pings; a change is made to its end. A page
        that subscribes to many things at once is not listened to for that moment."""

        async def run() -> None:
            client.add(Encoded(await commands.run(client, text)))

        if len(client.tasks) >= _AT_ONCE:
            await asyncio.wait(client.tasks, timeout=_HOLD_S, return_when=asyncio.FIRST_COMPLETED)
        if len(client.tasks) >= _AT_ONCE:
            refusal = {"type": "error", "id": None, "error": "too much at once; wait for the answers"}
            client.add(Encoded(_encoder.encode(refusal)))
            return
        task = asyncio.create_task(run())
        client.tasks.add(task)
        task.add_done_callback(client.tasks.discard)

    def _publish(self, snapshot: Snapshot) -> None:
        reports = self._source.reports
        if reports and reports[-1].time != self._reported:
            self._reported = reports[-1].time
            self.tell("report", reports[-1])
        history = self._source.history
        looked = self._feeds.looked()
        point = history[-1] if history else None
        second = Second(
            self._source, self._feeds, self._live, snapshot, point, silent={QUEUES} if looked == self._looked else set()
        )
        self._looked = looked
        late = [client for client in self._waiting if client in self._clients]
        self._waiting = late + list(self._clients.difference(late))
        if self._timer is not None:
            self._timer.cancel()
        slice_ = max(_SLICE, math.ceil(len(self._waiting) * _STEP_S / _SPREAD_S))
        if len(self._waiting) <= slice_:
            self._hand_out(second, slice_)
        else:  # not in the step in which the second was made up
            self._timer = asyncio.get_running_loop().call_later(_STEP_S, self._hand_out, second, slice_)

    def _hand_out(self, second: Second, slice_: int) -> None:
        """Serve so many clients now, and the others a little later: auctions are run between them."""
        serving, self._waiting = self._waiting[:slice_], self._waiting[slice_:]
        for client in serving:
            if client not in self._clients:
                continue
            if not self._may_stay(client):
                self._show_out(client)
                continue
            # Whoever has not been sent the history yet still needs it.
            if not client.greeted:
                client.put(UPDATE, self._greeting())
                continue
            client.put(UPDATE, second.update(client.campaigns, client.instance))
            for channel in client.channels:
                if (message := second.channel(channel)) is not None:
                    client.put(channel, message)
        self._timer = None
        if self._waiting:
            self._timer = asyncio.get_running_loop().call_later(_STEP_S, self._hand_out, second, slice_)

    def _live(self, campaign_id: str) -> CampaignLive | None:
        return None if self._commands is None else self._commands.live(campaign_id)

    def _greeting(self) -> Encoded:
        """The first message, encoded once a snapshot however many clients come back at the same time."""
        snapshot = self._source.latest
        if snapshot.seq != self._hello_seq:
            own = self._source.own
            data = {
                "protocol": PROTOCOL,
                "instance": own.instance,
                "version": own.about.version,
                "snapshot": snapshot,
                "instances": self._source.instances(),
                "history": self._source.history[-GREETED:],
                "kept_s": KEPT_S,
                "point_fields": Point.__struct_fields__,
                "campaign_fields": CampaignLive.__struct_fields__,
                "campaign_point_fields": CampaignPoint.__struct_fields__,
                "heat_bounds_ms": HEAT_BOUNDS_MS,
            }
            self._hello = Encoded(_encoder.encode({"type": "initial", "seq": snapshot.seq, "data": data}))
            self._hello_seq = snapshot.seq
        return self._hello


def _shrink_kernel_buffer(ws: web.WebSocketResponse) -> None:
    """The kernel would take megabytes for a client that does not read, and hide for minutes that it does not."""
    sock = ws.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
