"""What takes messages from one queue: a subscription that outlives connections, and a getter of single messages."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiormq.channel import Channel
from aiormq.exceptions import ChannelLockedResource, ChannelNotFoundEntity
from pamqp.commands import Basic

from rtb.adapters import amqp_frames
from rtb.adapters.amqp_consumer import AmqpDelivery, DeliveryChannel
from rtb.adapters.amqp_link import FAILURES, Link, failure
from rtb.errors import BrokerError
from rtb.ports import Clock, Delivery

MAX_PREFETCH = 0xFFFF
CONSUMER = "rtb"


class AmqpSubscription:
    """A running consumer, with a channel of its own."""

    def __init__(
        self,
        link: Link,
        clock: Clock,
        queue: str,
        handler: Callable[[Delivery], None],
        prefetch: int,
        *,
        limit_s: float,
        on_lost: Callable[[], None],
        on_cancel: Callable[[AmqpSubscription], None],
        on_raise: Callable[[AmqpDelivery, Exception], None],
    ) -> None:
        """Describe it; `open` begins. A call may take `limit_s`; `on_lost` hears that it should be opened again."""
        self.queue = queue
        self._link = link
        self._clock = clock
        self._handler = handler
        self._prefetch = min(prefetch, MAX_PREFETCH)
        self._limit_s = limit_s
        self._on_lost = on_lost
        self._on_cancel = on_cancel
        self._on_raise = on_raise
        self._channel: Channel | None = None
        self._deliveries: DeliveryChannel | None = None
        self._is_open = False
        self._is_cancelled = False
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def is_open(self) -> bool:
        """Whether messages can come."""
        return self._is_open

    async def open(self) -> None:
        """Begin to take, over a new channel; raises BrokerError."""
        limit_s = self._limit_s
        channel = await self._link.channel(limit_s)
        deliveries = DeliveryChannel(
            self._link.tap, channel.number, self.queue, self._clock, self._take, self._lost, prefetch=self._prefetch
        )
        self._channel, self._deliveries = channel, deliveries
        try:
            await channel.basic_qos(prefetch_count=self._prefetch, timeout=limit_s)
            await channel.rpc(Basic.Consume(queue=self.queue, consumer_tag=CONSUMER), timeout=limit_s)
        except ChannelNotFoundEntity:
            raise BrokerError(f"no queue {self.queue}; declare it first") from None
        except ChannelLockedResource:
            raise BrokerError(f"queue {self.queue} is exclusive to another connection") from None
        except FAILURES as error:
            deliveries.end("it could not be opened")
            raise failure(f"queue {self.queue} cannot be consumed", error) from None
        if self._deliveries is not deliveries:
            raise BrokerError(f"queue {self.queue} was lost while it was opened")
        self._is_open = True

    async def cancel(self) -> None:
        """Stop taking; deliveries already handed out can still be acknowledged."""
        if self._is_cancelled:
            return
        self._is_cancelled = True
        self._on_cancel(self)
        channel, deliveries = self._channel, self._deliveries
        if channel is None or deliveries is None:
            return
        try:
            await channel.basic_cancel(CONSUMER, timeout=self._limit_s)
        except FAILURES as error:
            failure("", error)  # gone already: so is the consumer
            return
        deliveries.flush()
        if deliveries.unacked:
            deliveries.on_idle = self._close_channel
        else:
            self._close_channel()

    def _close_channel(self) -> None:
        """The channel is of no use any more, and the broker should not keep it."""
        channel, deliveries = self._channel, self._deliveries
        self._channel, self._deliveries = None, None
        if channel is not None and deliveries is not None and not deliveries.dead:
            deliveries.flush()
            deliveries.end("its consumer was ended")
            task = asyncio.get_running_loop().create_task(_close(channel))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    def _take(self, delivery: AmqpDelivery) -> None:
        if self._is_cancelled:
            delivery.nack(requeue=True)
            return
        try:
            self._handler(delivery)
        except Exception as error:
            self._on_raise(delivery, error)

    def _lost(self, deliveries: DeliveryChannel, reason: str) -> None:
        if deliveries is not self._deliveries:
            return
        was_open, self._is_open = self._is_open, False
        self._close_channel()
        if was_open and not self._is_cancelled:
            self._on_lost()


class Getter:
    """Takes single messages of one queue, over a channel of its own."""

    def __init__(self, link: Link, clock: Clock, queue: str) -> None:
        """For `queue`; the channel is opened when it is needed."""
        self._link = link
        self._clock = clock
        self._queue = queue
        self._turn = asyncio.Lock()
        self._channel: Channel | None = None
        self._deliveries: DeliveryChannel | None = None
        self._waiter: asyncio.Future[AmqpDelivery | None] | None = None
        self._closing: asyncio.Task[None] | None = None

    async def get(self, limit_s: float) -> AmqpDelivery | None:
        """The message at the head, None when the queue is empty; raises BrokerError."""
        async with self._turn:
            if self._deliveries is None:
                self._channel = await self._link.channel(limit_s)
                self._deliveries = DeliveryChannel(
                    self._link.tap,
                    self._channel.number,
                    self._queue,
                    self._clock,
                    self._resolve,
                    self._lost,
                    self._resolve_empty,
                )
            self._waiter = asyncio.get_running_loop().create_future()
            self._deliveries.write(amqp_frames.get(self._deliveries.number, self._queue))
            try:
                return await asyncio.wait_for(self._waiter, limit_s)
            except (TimeoutError, asyncio.CancelledError) as error:
                self._give_up()
                if isinstance(error, asyncio.CancelledError):
                    raise
                raise BrokerError(f"queue {self._queue}: the broker did not answer within {limit_s:g} s") from None

    async def settle(self, limit_s: float) -> None:
        """Return when the broker has seen every acknowledgement made so far."""
        channel, deliveries = self._channel, self._deliveries
        if channel is None or deliveries is None:
            return
        deliveries.flush()
        try:
            await channel.basic_qos(prefetch_count=0, timeout=limit_s)  # answered after all that was sent before it
        except FAILURES as error:
            raise failure(f"queue {self._queue}", error) from None

    def _give_up(self) -> None:
        """A message may still come over this channel: give it back with the channel."""
        channel, deliveries = self._channel, self._deliveries
        if channel is not None and deliveries is not None:
            deliveries.flush()
            deliveries.end("it was given up")
            self._closing = asyncio.get_running_loop().create_task(_close(channel))

    def _resolve(self, delivery: AmqpDelivery) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(delivery)
        else:
            delivery.nack(requeue=True)

    def _resolve_empty(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _lost(self, deliveries: DeliveryChannel, reason: str) -> None:
        self._deliveries = None
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(BrokerError(f"queue {self._queue}: {reason}"))


async def _close(channel: Channel) -> None:
    try:
        await channel.close()
    except FAILURES as error:
        failure("", error)
