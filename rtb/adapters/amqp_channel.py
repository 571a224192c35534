"""Where the hot frames leave aiormq's way: a transport that hands them to their channel at once.

`FrameTap` is aiormq's transport factory. Frames of a tapped channel that carry messages or settle them go straight to
its `TappedChannel`, synchronously; all others go to aiormq, which does handshake, heartbeats, channels and calls. What
is written here are whole frames, so nothing can come between them and aiormq's own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from aiormq.connection import TransportFactory
from yarl import URL

from rtb.adapters import tls
from rtb.adapters.amqp_frames import (
    BODY,
    FRAME_HEAD,
    HEADER,
    HEARTBEAT,
    HEARTBEAT_FRAME,
    METHOD,
    METHOD_ID,
    OVERHEAD,
    TAG_AND_BITS,
    short,
)

BASIC, CHANNEL, CONNECTION = 60, 20, 10
"""Class ids."""

CANCEL, RETURN, DELIVER, GET_OK, GET_EMPTY, ACK, NACK = 30, 50, 60, 71, 72, 80, 120
CHANNEL_CLOSE, BLOCKED, UNBLOCKED = 40, 60, 61
READ_LIMIT = 1 << 20
AUTHORITIES = "broker.url ?cafile=FILE"
BEAT_S = 1.0


class TappedChannel:
    """A channel whose hot frames come here. Subclasses say what a delivery, a return and a settlement mean.

    Output is collected, and written once per loop iteration. `dead` is set as soon as the broker's channel.close is
    seen: a frame more on this number would cost the whole connection.
    """

    def __init__(self, tap: FrameTap, number: int) -> None:
        """Take over channel `number` of the tap's connection."""
        self.number = number
        self.dead = False
        self._tap = tap
        self._out: list[bytes] = []
        self._method = 0
        self._arguments = b""
        self._properties = b""
        self._missing = 0
        self._parts: list[bytes] = []
        tap.channels[number] = self

    def write(self, *frames: bytes) -> None:
        """Send frames with all others of this loop iteration."""
        if not self._out:
            self._tap.loop.call_soon(self.send_now)
        self._out += frames

    def send_now(self) -> None:
        """Send what was written, now."""
        if self._out:
            self._tap.write(b"".join(self._out))
            self._out.clear()

    def end(self, reason: str) -> None:
        """The channel or its connection is gone."""
        if not self.dead:
            self.dead = True
            self._out.clear()
            if self._tap.channels.get(self.number) is self:
                del self._tap.channels[self.number]
            self.on_end(reason)

    def frame(self, kind: int, data: bytes, at: int, end: int) -> bool:
        """Take the payload ``data[at:end]`` of a frame; False when it is aiormq's."""
        if kind == BODY:
            if not self._parts and end - at == self._missing:
                self._content(data[at:end])
            else:
                self._parts.append(data[at:end])
                self._missing -= end - at
                if not self._missing:
                    body = b"".join(self._parts)
                    self._parts.clear()
                    self._content(body)
            return True
        if kind == HEADER:
            self._missing = int.from_bytes(data[at + 4 : at + 12], "big")
            self._properties = data[at + 12 : end]
            if not self._missing:
                self._content(b"")
            return True
        return kind == METHOD and self._method_frame(data, at, end)

    def on_delivery(self, tag: int, redelivered: bool, routing: bytes, properties: bytes, body: bytes) -> None:
        """A message came; `routing` holds exchange and routing key as short strings."""

    def on_settled(self, tag: int, multiple: bool, acked: bool) -> None:
        """The broker has taken, or refused, what was published."""

    def on_returned(self, code: int, exchange: str, routing_key: str, body: bytes) -> None:
        """The broker gives back what was published."""

    def on_empty(self) -> None:
        """There was nothing to get."""

    def on_cancelled(self) -> None:
        """The broker has ended the consumer: its queue is gone."""

    def on_end(self, reason: str) -> None:
        """The channel is gone; nothing comes or goes any more."""

    def _method_frame(self, data: bytes, at: int, end: int) -> bool:
        class_id, method = METHOD_ID.unpack_from(data, at)
        if class_id != BASIC:
            if class_id == CHANNEL and method == CHANNEL_CLOSE:
                self.end(short(data, at + 6)[0])
            return False
        if method in (DELIVER, GET_OK, RETURN):
            self._method = method
            self._arguments = data[at + 4 : end]
        elif method in (ACK, NACK):
            tag, bits = TAG_AND_BITS.unpack_from(data, at + 4)
            self.on_settled(tag, bool(bits & 1), method == ACK)
        elif method == GET_EMPTY:
            self.on_empty()
        else:
            if method == CANCEL:
                self.on_cancelled()
            return False
        return True

    def _content(self, body: bytes) -> None:
        arguments = self._arguments
        if self._method == RETURN:
            _, at = short(arguments, 2)
            exchange, at = short(arguments, at)
            key, _ = short(arguments, at)
            self.on_returned(arguments[0] << 8 | arguments[1], exchange, key, body)
            return
        at = 1 + arguments[0] if self._method == DELIVER else 0
        tag, bits = TAG_AND_BITS.unpack_from(arguments, at)
        self.on_delivery(tag, bool(bits & 1), arguments[at + 9 :], self._properties, body)


class FrameTap(TransportFactory):
    """Opens the transport of one connection and shares it with aiormq."""

    def __init__(self, on_blocked: Callable[[str | None], None] | None = None) -> None:
        """`on_blocked` hears the reason when the broker blocks publishers, and None when it lets them go on."""
        self.loop = asyncio.get_running_loop()
        self.channels: dict[int, TappedChannel] = {}
        self.lost = asyncio.Event()
        """Set when the connection is gone."""
        self._on_blocked = on_blocked
        self._transport: asyncio.Transport | None = None

    async def create(self, url: URL, **options: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect, with TLS for amqps; raises OSError."""
        context = None
        if url.scheme == "amqps":
            ours = {"certificate": url.query.get("certfile"), "key": url.query.get("keyfile")}
            context = tls.context(url.query.get("cafile"), AUTHORITIES, **ours)
        reader = asyncio.StreamReader(limit=READ_LIMIT, loop=self.loop)
        protocol = _Frames(self, reader)
        transport, _ = await self.loop.create_connection(
            lambda: protocol, url.host or "localhost", url.port or 5672, ssl=context
        )
        self._transport = transport
        return reader, asyncio.StreamWriter(transport, protocol, reader, self.loop)

    def write(self, data: bytes) -> None:
        """Send whole frames, if there is still somebody there."""
        transport = self._transport
        if transport is not None and not transport.is_closing():
            transport.write(data)

    def abort(self) -> None:
        """Drop the connection, whatever is still to be sent."""
        if self._transport is not None:
            self._transport.abort()

    def end(self, reason: str) -> None:
        """The connection is gone, and so are its channels."""
        for channel in list(self.channels.values()):
            channel.end(reason)
        self.lost.set()

    def connection_frame(self, data: bytes, at: int) -> None:
        """Look at a method of channel 0."""
        class_id, method = METHOD_ID.unpack_from(data, at)
        if class_id == CONNECTION and self._on_blocked is not None:
            if method == BLOCKED:
                self._on_blocked(short(data, at + 4)[0] or "no reason given")
            elif method == UNBLOCKED:
                self._on_blocked(None)


class _Frames(asyncio.StreamReaderProtocol):
    """Cuts what arrives into frames; aiormq's reader gets those that no channel takes.

    aiormq takes a connection for dead on which it sees no frame, so it is given a heartbeat when there was traffic.
    """

    def __init__(self, tap: FrameTap, reader: asyncio.StreamReader) -> None:
        super().__init__(reader, loop=tap.loop)
        self._tap = tap
        self._rest = b""
        self._beat_s = 0.0

    def data_received(self, data: bytes) -> None:
        """Take bytes from the broker."""
        if self._rest:
            data = self._rest + data
        channels = self._tap.channels
        at, end, taken = 0, len(data), False
        while end - at >= OVERHEAD:
            kind, number, size = FRAME_HEAD.unpack_from(data, at)
            if kind > HEARTBEAT:  # not AMQP 0-9-1; aiormq says so
                super().data_received(data[at:])
                at = end
                break
            stop = at + OVERHEAD + size
            if stop > end:
                break
            channel = channels.get(number)
            if channel is not None and channel.frame(kind, data, at + 7, stop - 1):
                taken = True
            else:
                if number == 0 and kind == METHOD:
                    self._tap.connection_frame(data, at + 7)
                super().data_received(data[at:stop])
            at = stop
        self._rest = data[at:] if at < end else b""
        if taken and self._tap.loop.time() >= self._beat_s:
            self._beat_s = self._tap.loop.time() + BEAT_S
            super().data_received(HEARTBEAT_FRAME)

    def connection_lost(self, error: Exception | None) -> None:
        """Tell the channels at once; aiormq finds out by itself."""
        super().connection_lost(error)
        self._tap.end(f"the connection was lost{f': {error}' if error else ''}")
