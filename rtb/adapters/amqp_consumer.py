"""Consuming: deliveries as they come, and acknowledgements in batches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from rtb.adapters import amqp_frames
from rtb.adapters.amqp_channel import FrameTap, TappedChannel
from rtb.adapters.amqp_frames import message_of, short
from rtb.ports import Clock, Message

GAP_S = 0.005
"""How long an acknowledgement waits for earlier ones, to go with them as one frame."""

ACK_S = 0.02
"""How long acknowledgements are collected while there are few: a loop iteration and a write for each cost more than
what they say. Nobody waits for them; what is not acknowledged when a process dies comes again."""

ACK_SHARE = 8
"""Acknowledgements go at once when this part (1/8) of what may be unacknowledged is."""


class Source(Protocol):
    """Where a delivery came from."""

    queue: str
    clock: Clock

    def ack(self, tag: int) -> None:
        """The delivery is done."""
        ...

    def nack(self, tag: int, *, requeue: bool) -> None:
        """The delivery is refused."""
        ...


class AmqpDelivery:
    """A message on its way to a consumer; decoded when it is asked for.

    Late calls do nothing: an acknowledgement of a channel that is gone must not reach another one.
    """

    __slots__ = (
        "_body",
        "_channel",
        "_deliveries",
        "_message",
        "_properties",
        "_routing",
        "_tag",
        "arrived_ns",
        "redelivered",
    )

    def __init__(
        self, channel: Source, tag: int, routing: bytes, properties: bytes, body: bytes, redelivered: bool = False
    ) -> None:
        self._channel = channel
        self._tag = tag  # 0: settled
        self._routing = routing
        self._properties = properties
        self._body = body
        self._message: Message | None = None
        self._deliveries = int(redelivered)
        self.arrived_ns = channel.clock.monotonic_ns()
        self.redelivered = redelivered

    @property
    def message(self) -> Message:
        """What was published."""
        message = self._message
        if message is None:
            message, count = message_of(self._properties, self._body)
            self._message = message
            self._deliveries = count or self._deliveries
        return message

    @property
    def queue(self) -> str:
        """The queue it came from."""
        return self._channel.queue

    @property
    def routing_key(self) -> str:
        """The key it was published or dead-lettered with."""
        return short(self._routing, 1 + self._routing[0])[0]

    @property
    def exchange(self) -> str:
        """The exchange it was published or dead-lettered to."""
        return short(self._routing, 0)[0]

    @property
    def delivery_count(self) -> int:
        """How often it came back; a classic queue tells only whether it did."""
        _ = self.message
        return self._deliveries

    @property
    def is_settled(self) -> bool:
        """Whether it was acknowledged or refused."""
        return self._tag == 0

    def ack(self) -> None:
        """Done."""
        tag, self._tag = self._tag, 0
        if tag:
            self._channel.ack(tag)

    def nack(self, *, requeue: bool) -> None:
        """Not done."""
        tag, self._tag = self._tag, 0
        if tag:
            self._channel.nack(tag, requeue=requeue)


class DeliveryChannel(TappedChannel):
    """A channel that one queue's messages come over.

    The broker numbers deliveries 1, 2, 3, ... per channel. What is acknowledged is collected, for ACK_S or until there
    is much of it; then one frame acknowledges all up to the first that is still open, and what was finished out of turn
    follows within GAP_S, each by itself. The last number of a multiple acknowledgement must be one that is open at the
    broker.
    """

    def __init__(
        self,
        tap: FrameTap,
        number: int,
        queue: str,
        clock: Clock,
        take: Callable[[AmqpDelivery], None],
        on_lost: Callable[[DeliveryChannel, str], None],
        on_empty: Callable[[], None] = lambda: None,
        *,
        prefetch: int = 1,
    ) -> None:
        """Hand deliveries to `take`, at most `prefetch` unacknowledged ones; `on_lost` hears why nothing more will
        come, `on_empty` that a get found none."""
        super().__init__(tap, number)
        self.queue = queue
        self.clock = clock
        self.unacked = 0
        self.on_idle: Callable[[], None] | None = None
        """Called once when everything delivered is settled."""
        self._loop = asyncio.get_running_loop()
        self._take = take
        self._on_lost = on_lost
        self._on_empty = on_empty
        self._lowest = 1
        self._done: set[int] = set()
        self._gone: set[int] = set()
        self._many = max(1, prefetch // ACK_SHARE)
        self._settled_count = 0
        self._timer: asyncio.TimerHandle | None = None
        self._gap: asyncio.TimerHandle | None = None

    def on_delivery(self, tag: int, redelivered: bool, routing: bytes, properties: bytes, body: bytes) -> None:
        """Hand it on."""
        self.unacked += 1
        self._take(AmqpDelivery(self, tag, routing, properties, body, redelivered))

    def ack(self, tag: int) -> None:
        """A delivery is done."""
        if self.dead:
            return
        self._done.add(tag)
        self._settled()

    def nack(self, tag: int, *, requeue: bool) -> None:
        """A delivery is refused, at once."""
        if self.dead:
            return
        self.write(amqp_frames.nack(self.number, tag, requeue=requeue))
        self._gone.add(tag)
        self._settled()

    def flush(self) -> None:
        """Send all acknowledgements now."""
        self._acknowledge()
        self._fill_gaps()
        self.send_now()

    def on_empty(self) -> None:
        """The queue was empty."""
        self._on_empty()

    def on_cancelled(self) -> None:
        """The queue is gone."""
        self._on_lost(self, f"queue {self.queue} is gone")

    def on_end(self, reason: str) -> None:
        """What is unacknowledged comes again, over another channel."""
        self.unacked = 0
        for timer in (self._timer, self._gap):
            if timer is not None:
                timer.cancel()
        self._on_lost(self, reason)

    def _settled(self) -> None:
        self.unacked -= 1
        self._settled_count += 1
        if self._settled_count == self._many:
            self._loop.call_soon(self._acknowledge)
        elif self._timer is None and self._settled_count < self._many:
            self._timer = self._loop.call_later(ACK_S, self._acknowledge)

    def _acknowledge(self) -> None:
        self._settled_count = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.dead:
            return
        done, gone = self._done, self._gone
        last, tag = 0, self._lowest
        while True:
            if tag in done:
                done.remove(tag)
                last = tag
            elif tag in gone:
                gone.remove(tag)
            else:
                break
            tag += 1
        self._lowest = tag
        if last:
            self.write(amqp_frames.ack(self.number, last, multiple=True))
        if done and self._gap is None:
            self._gap = self._loop.call_later(GAP_S, self._fill_gaps)
        if self.on_idle is not None and not self.unacked:
            on_idle, self.on_idle = self.on_idle, None
            on_idle()

    def _fill_gaps(self) -> None:
        if self._gap is not None:
            self._gap.cancel()
            self._gap = None
        if self.dead or not self._done:
            return
        self.write(*(amqp_frames.ack(self.number, tag, multiple=False) for tag in sorted(self._done)))
        self._gone |= self._done
        self._done.clear()
