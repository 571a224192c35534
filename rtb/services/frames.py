"""Frames between instances: each publishes its own once a second, and hears those of all others.

A frame is worthless after a few seconds: it is not persistent, not mandatory, and expires. Counters in it only grow, so
one that is lost loses nothing but its second's durations. An instance that ends says so in its last one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog
from msgspec import Raw

from rtb import messages
from rtb.domain import metrics
from rtb.domain.metrics import Frame
from rtb.errors import BrokerError, Malformed
from rtb.messages import MessageType
from rtb.ports import Broker, Delivery, Message, Subscription
from rtb.services import topology
from rtb.services.frame_source import FrameSource

PREFETCH = 256
UNANSWERED = 3
"""Frames that the broker has not confirmed; while there are so many, no other is sent."""

_log = structlog.get_logger(__name__)


class FrameExchange:
    """Joins a source to those of the other instances on the broker."""

    def __init__(self, source: FrameSource, broker: Broker, *, instance: str) -> None:
        """Speak for `instance`, whose counters `source` has."""
        self._source = source
        self._broker = broker
        self._instance = instance
        self._subscription: Subscription | None = None
        self._unanswered = 0
        self._silence: Callable[[], None] = lambda: None
        self.lost = 0
        """Frames of this instance that were not sent, or not taken."""

    async def start(self) -> None:
        """Begin to hear and to be heard. Raises BrokerError."""
        await self._broker.declare(topology.frames_topology(self._instance))
        self._subscription = await self._broker.consume(
            topology.frames_queue(self._instance), self._hear, prefetch=PREFETCH
        )
        self._silence = self._source.on_frame(self._tell)

    async def stop(self) -> None:
        """Tell the others that this instance ends, and hear no more."""
        if self._subscription is None:
            return
        self._silence()
        told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._send(self._source.farewell(), told)
        await told
        await self._subscription.cancel()
        self._subscription = None

    def _tell(self, frame: Frame) -> None:
        if self._unanswered >= UNANSWERED:
            self.lost += 1  # the broker is away; what is said then is old when it returns
            return
        self._send(frame)

    def _send(self, frame: Frame, told: asyncio.Future[None] | None = None) -> None:
        def done(error: BrokerError | None) -> None:
            self._unanswered -= 1
            self.lost += error is not None
            if told is not None and not told.done():
                told.set_result(None)

        self._unanswered += 1
        message_id = f"{frame.instance}-frame-{frame.seq}"
        body = messages.encode(
            MessageType.METRICS_FRAME, Raw(metrics.encode(frame)), message_id=message_id, timestamp=frame.time
        )
        message = Message(
            body=body,
            message_id=message_id,
            timestamp=frame.time,
            expiration_ms=topology.FRAME_TTL_MS,
            persistent=False,
        )
        self._broker.send(topology.METRICS, topology.FRAME, message, done, mandatory=False)

    def _hear(self, delivery: Delivery) -> None:
        delivery.ack()
        try:
            envelope = messages.decode(delivery.message.body)
            if envelope.message_type is not MessageType.METRICS_FRAME:
                return
            frame = metrics.decode(bytes(envelope.data))
        except Malformed as error:
            _log.debug("frame_not_understood", reason=str(error))
            return
        if frame.instance != self._instance:
            self._source.receive(frame)
