"""RabbitMQ as `ports.Broker`.

Two connections: one publishes, one does everything else, because a broker under an alarm stops reading from the one
that publishes while the other has to go on draining. Both come back by themselves, the publishing one last, and what
was declared and subscribed comes back with them. aio-pika connects; the aiormq beneath it keeps the heartbeat and makes
the rare calls; the frames that come once per message are packed and read in amqp_frames (see benchmarks/amqp.py).
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import structlog
from aiormq.channel import Channel
from pamqp.commands import Basic

from rtb.adapters.amqp_consumer import AmqpDelivery, DeliveryChannel
from rtb.adapters.amqp_control import Control, Inquiries
from rtb.adapters.amqp_link import FAILURES, RETRY_S, Link, failure
from rtb.adapters.amqp_publisher import ConfirmChannel, Publisher
from rtb.adapters.amqp_replies import Replies, dead_letter
from rtb.adapters.amqp_subscription import CONSUMER, AmqpSubscription, Getter
from rtb.adapters.confirmed import confirmed
from rtb.errors import BrokerError
from rtb.ports import DIRECT_REPLY_TO, Clock, Delivery, Message, QueueDepth, Subscription, Topology
from rtb.ports.broker import Answer
from rtb.services.waiting import ended, within

MAX_PENDING = 10_000
MAX_PENDING_BYTES = 64 << 20
FINISH_S = 2.0

OnError = Callable[[Delivery, BaseException], None]
_log = structlog.get_logger(__name__)


class RabbitBroker:
    """A pair of connections to RabbitMQ.

    While the broker is away or blocks publishers, a message waits, for at most `confirm_limit_s`, with at most
    `max_pending` messages of `max_pending_bytes` altogether; more are refused at once. What was sent and not confirmed
    when the connection is lost fails: whether it arrived is not known.
    """

    def __init__(
        self,
        url: str,
        clock: Clock,
        *,
        deferred: bool = False,
        name: str = "rtb",
        heartbeat_s: int = 5,
        connect_limit_s: float = 5.0,
        confirm_limit_s: float = 5.0,
        max_pending: int = MAX_PENDING,
        max_pending_bytes: int = MAX_PENDING_BYTES,
        on_error: OnError | None = None,
    ) -> None:
        """Describe it.

        Args:
            url: ``amqp://user:password@host:port/vhost``; ``amqps://`` for TLS, checked against the system's
                authorities or those of ``?cafile=FILE``; ``certfile`` and ``keyfile`` are shown to a broker that asks.
            clock: stamps deliveries.
            deferred: start without the broker if it is away; what is declared and consumed meanwhile is done when it
                comes.
            name: by which the broker's management knows the connections.
            heartbeat_s: a broker that is silent for 3 x (heartbeat + 1) seconds counts as lost.
            connect_limit_s: how long connecting, and any call, may take.
            confirm_limit_s: how long publishing may take.
            max_pending: messages waiting or unconfirmed.
            max_pending_bytes: of their bodies.
            on_error: hears of every consumer that raised (None: the loop's exception handler does); must not block.
        """
        self._clock = clock
        self._deferred = deferred
        self._limit_s = connect_limit_s
        self._on_error = on_error
        options: dict[str, Any] = {"heartbeat_s": heartbeat_s, "connect_limit_s": connect_limit_s}
        self._consuming = Link(url, f"{name} consuming", self._prepare_consuming, self._mend_soon, **options)
        self._publisher = Publisher(
            max_messages=max_pending,
            max_bytes=max_pending_bytes,
            limit_s=confirm_limit_s,
            on_reply=self._on_reply,
            on_lost=self._mend_soon,
        )
        self._publishing = Link(
            url,
            f"{name} publishing",
            self._open_publishing,
            self._mend_soon,
            after=self._consuming,
            on_blocked=self._publisher.on_blocked,
            **options,
        )
        self._control = Control(self._consuming, connect_limit_s)
        self._inquiries = Inquiries(self._control)
        self._subscriptions: list[AmqpSubscription] = []
        self._getters: dict[str, Getter] = {}
        self._replies: Replies | None = None
        self._channel: Channel | None = None
        self._mender: asyncio.Task[None] | None = None
        self._running = False

    async def start(self) -> None:
        """Connect; with `deferred`, try once and go on trying in the background.

        Raises:
            BrokerError: it cannot be reached.
        """
        self._running = True
        self._publisher.begin()
        self._consuming.begin()
        self._publishing.begin()
        for link in (self._consuming, self._publishing):
            await within(link.tried(), 2 * self._limit_s)  # if one is lost meanwhile, the other one waits for it
            if not link.up.is_set():
                if not self._deferred:
                    problem = self.problem
                    await self.close()
                    raise BrokerError(problem)
                return

    async def declare(self, topology: Topology) -> None:
        """Make what is missing, now and after every reconnect.

        Raises:
            BrokerError: something exists with other properties; the message names it.
        """
        if not self._is_put_off():
            await self._control.declare(topology)
        self._control.remember(topology)

    async def differences(self, topology: Topology) -> list[str]:
        """One line for each exchange or queue that is missing or exists with other properties."""
        return await self._control.differences(topology)

    def send(self, exchange: str, routing_key: str, message: Message, done: Answer, *, mandatory: bool = True) -> None:
        """Publish, and tell `done` what the broker answers, within `confirm_limit_s`.

        An answer to a direct reply-to is not mandatory: RabbitMQ returns it even when the requester is there.
        """
        if not self._running:
            done(BrokerError("the broker is not connected; call start() first"))
        elif message.reply_to == DIRECT_REPLY_TO and self._replies is None:
            done(BrokerError(f"reply_to {DIRECT_REPLY_TO}, and nobody here consumes it"))
        elif exchange and exchange not in self._control.exchanges:
            publish = partial(self._publisher.send, exchange, routing_key, message, done, mandatory)
            self._inquiries.hold(exchange, publish, done)
        else:
            if mandatory and not exchange and routing_key.startswith(DIRECT_REPLY_TO):
                mandatory = False
            self._publisher.send(exchange, routing_key, message, done, mandatory)

    async def publish(self, exchange: str, routing_key: str, message: Message, *, mandatory: bool = True) -> None:
        """Send, and wait for the confirm.

        Raises:
            Unroutable: mandatory, and no queue is bound for the key.
            BrokerError: no such exchange, refused by a full queue, not confirmed in time, or too much is pending.
        """
        await confirmed(lambda done: self.send(exchange, routing_key, message, done, mandatory=mandatory))

    async def consume(self, queue: str, handler: Callable[[Delivery], None], *, prefetch: int) -> Subscription:
        """Hand every message of the queue to the handler, over every reconnect.

        Raises:
            BrokerError: no such queue, or it is exclusive to another connection.
            ValueError: a prefetch below 1.
        """
        if prefetch < 1:
            raise ValueError(f"prefetch is {prefetch}, not at least 1")
        if queue == DIRECT_REPLY_TO:
            return await self._consume_replies(handler)
        subscription = AmqpSubscription(
            self._consuming,
            self._clock,
            queue,
            handler,
            prefetch,
            limit_s=self._limit_s,
            on_lost=self._mend_soon,
            on_cancel=self._subscriptions.remove,
            on_raise=self._bury,
        )
        if not self._is_put_off():
            await subscription.open()
        self._subscriptions.append(subscription)
        return subscription

    async def get(self, queue: str) -> Delivery | None:
        """The message at the head of the queue, to be acknowledged; None when there is none."""
        getter = self._getters.setdefault(queue, Getter(self._consuming, self._clock, queue))
        return await getter.get(self._limit_s)

    async def depth(self, queue: str) -> QueueDepth:
        """What stands in the queue now; `unacked` is of this connection alone."""
        await self._settle(queue)
        ready, consumers = await self._control.measure(queue)
        unacked = sum(channel.unacked for channel in self._delivery_channels() if channel.queue == queue)
        return QueueDepth(queue, ready, unacked, consumers)

    async def purge(self, queue: str) -> int:
        """Drop the ready messages; how many there were."""
        await self._settle(queue)
        return await self._control.purge(queue)

    @property
    def connected(self) -> bool:
        """Whether both connections stand."""
        return self._running and self._consuming.up.is_set() and self._publishing.up.is_set()

    @property
    def blocked(self) -> str | None:
        """Why the broker blocks publishers; None when it does not."""
        return self._publisher.blocked

    @property
    def problem(self) -> str:
        """Why it is not connected; empty when it is."""
        return self._consuming.problem or self._publishing.problem

    @property
    def pending(self) -> int:
        """Messages to publish that wait or are not confirmed."""
        return self._publisher.pending

    async def close(self) -> None:
        """Finish what is being published, acknowledge what is done, and disconnect; takes a few seconds at most."""
        if not self._running:
            return
        self._running = False
        await self._inquiries.close()
        self._publisher.fail_all(BrokerError("the connection was closed"))
        await self._publisher.finish(FINISH_S)
        if self._mender is not None:
            await ended(self._mender)
        for channel in self._delivery_channels():
            channel.flush()
        await asyncio.gather(self._publishing.close(), self._consuming.close())

    async def _settle(self, queue: str) -> None:
        """Calls go over another channel than single messages: let those be settled first."""
        if queue in self._getters:
            await self._getters[queue].settle(self._limit_s)

    def _is_put_off(self) -> bool:
        """Whether to leave a call to the next connection, as `deferred` allows."""
        return self._deferred and self._running and not self._consuming.up.is_set()

    def _delivery_channels(self) -> list[DeliveryChannel]:
        if not self._consuming.up.is_set():
            return []
        return [channel for channel in self._consuming.tap.channels.values() if isinstance(channel, DeliveryChannel)]

    async def _prepare_consuming(self) -> None:
        await self._control.declare_remembered()

    async def _open_publishing(self) -> None:
        """A channel in confirm mode, on it the consumer of direct replies, for they come over no other."""
        channel = await self._publishing.channel(self._limit_s, confirms=True)
        confirms = ConfirmChannel(self._publishing.tap, channel.number, self._publishing.frame_max, self._publisher)
        if self._replies is not None:
            await self._open_replies(channel)
        if confirms.dead:
            raise BrokerError("the publishing channel was lost while it was opened")
        self._channel = channel
        self._publisher.use(confirms)

    def _mend_soon(self) -> None:
        """Open again what is lost while its connection stands."""
        if self._running and (self._mender is None or self._mender.done()):
            self._mender = asyncio.get_running_loop().create_task(self._mend(), name="amqp mender")

    async def _mend(self) -> None:
        told = ""
        for wait_s in itertools.chain(RETRY_S, itertools.repeat(RETRY_S[-1])):
            try:
                if await self._restore():
                    return
            except BrokerError as error:
                if str(error) != told:
                    told = str(error)
                    _log.warning("broker_not_restored", reason=told)
            await asyncio.sleep(wait_s)

    async def _restore(self) -> bool:
        """Open what is not open; whether everything is, or the next connection will see to it."""
        broken = [subscription for subscription in self._subscriptions if not subscription.is_open]
        is_mute = self._publishing.up.is_set() and not self._publisher.has_channel
        if not self._consuming.up.is_set() or not (broken or is_mute):
            return True
        await self._control.declare_remembered()
        for subscription in broken:
            await subscription.open()
        if is_mute and not self._publisher.has_channel:
            await self._open_publishing()
        return False

    async def _consume_replies(self, handler: Callable[[Delivery], None]) -> Subscription:
        if self._replies is not None:
            raise BrokerError(f"{DIRECT_REPLY_TO} is consumed already")
        self._replies = Replies(handler, self._clock, self._stop_replies, self._bury)
        if self._channel is not None and self._publisher.has_channel:
            await self._open_replies(self._channel)
        return self._replies

    async def _open_replies(self, channel: Channel) -> None:
        consume = Basic.Consume(queue=DIRECT_REPLY_TO, consumer_tag=CONSUMER, no_ack=True)
        try:
            await channel.rpc(consume, timeout=self._limit_s)
        except FAILURES as error:
            raise failure("direct replies cannot be consumed", error) from None

    async def _stop_replies(self) -> None:
        self._replies = None
        if self._channel is not None and self._publisher.has_channel:
            try:
                await self._channel.basic_cancel(CONSUMER, timeout=self._limit_s)
            except FAILURES as error:
                failure("", error)  # gone already: so is the consumer

    def _on_reply(self, routing: bytes, properties: bytes, body: bytes) -> None:
        if self._replies is not None:
            self._replies.take(AmqpDelivery(self._replies, 0, routing, properties, body))

    def _bury(self, delivery: AmqpDelivery, error: Exception) -> None:
        """A consumer raised: dead-letter its message with the reason, which a nack has no place for."""
        self._report(delivery, error)
        spec = self._control.queues.get(delivery.queue)
        if delivery.is_settled or spec is None or spec.dead_letter_exchange is None:
            delivery.nack(requeue=False)
            return
        key = delivery.routing_key if spec.dead_letter_routing_key is None else spec.dead_letter_routing_key

        def buried(problem: BrokerError | None) -> None:
            if problem is None:
                delivery.ack()
            else:
                delivery.nack(requeue=False)  # the broker does it, without our reason

        self.send(spec.dead_letter_exchange, key, dead_letter(delivery, error), buried, mandatory=False)

    def _report(self, delivery: Delivery, error: BaseException) -> None:
        try:
            if self._on_error is not None:
                self._on_error(delivery, error)
                return
        except Exception as broken:
            error = broken
        text = f"a consumer of queue {delivery.queue} raised"
        asyncio.get_running_loop().call_exception_handler({"message": text, "exception": error})
