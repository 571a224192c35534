"""The message broker: AMQP 0-9-1 as this system uses it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Protocol

from msgspec import Struct

from rtb.errors import BrokerError


class ExchangeType(StrEnum):
    """AMQP 0-9-1 exchange types."""

    DIRECT = "direct"
    TOPIC = "topic"
    FANOUT = "fanout"


class Overflow(StrEnum):
    """What a queue at its `max_length` does with one message more (``x-overflow``)."""

    DROP_HEAD = "drop-head"
    REJECT_PUBLISH = "reject-publish"


@dataclass(frozen=True, slots=True)
class QueueSpec:
    """A queue as it is to be declared.

    A message dies when it expires (`ttl_ms`, at the head of the queue), is rejected, is the oldest of more than
    `max_length` ready ones, or comes back more than `delivery_limit` times. It then goes to `dead_letter_exchange` with
    `dead_letter_routing_key` (None: the key it was published with) and the DEATH headers; without an exchange it is
    dropped. With Overflow.REJECT_PUBLISH a full queue refuses the publisher instead. An exclusive queue belongs to
    the broker connection that declared it and ends with it. On RabbitMQ a queue with a `delivery_limit` is a quorum
    queue, any other a classic one.
    """

    name: str
    ttl_ms: int | None = None
    max_length: int | None = None
    overflow: Overflow = Overflow.DROP_HEAD
    delivery_limit: int | None = None
    dead_letter_exchange: str | None = None
    dead_letter_routing_key: str | None = None
    exclusive: bool = False


@dataclass(frozen=True, slots=True)
class Binding:
    """Messages of `exchange` whose routing key fits `routing_key` (topic: ``*`` one word, ``#`` any) reach `queue`."""

    exchange: str
    queue: str
    routing_key: str = ""


@dataclass(frozen=True, slots=True)
class Topology:
    """Exchanges, queues and bindings to declare, idempotently."""

    exchanges: Mapping[str, ExchangeType]
    queues: Sequence[QueueSpec]
    bindings: Sequence[Binding]


DEATH_REASON = "x-first-death-reason"  # rejected, expired, maxlen or delivery_limit
DEATH_QUEUE = "x-first-death-queue"
DEATH_EXCHANGE = "x-first-death-exchange"
DEATH_COUNT = "x-death-count"  # how often it died in all, the sum of RabbitMQ's x-death counts
ERROR = "x-rtb-reason"  # one line: why its consumer gave it up

DIRECT_REPLY_TO = "amq.rabbitmq.reply-to"
"""Consume it and publish requests with it as `reply_to`: answers come back without a queue of one's own, and are lost,
silently, when the requester has gone."""

NO_HEADERS: Mapping[str, str | int | float] = MappingProxyType({})


class Message(Struct, frozen=True, kw_only=True, gc=False):
    """A message to publish. `expiration_ms` is its own time to live (the shorter of it and the queue's counts);
    `timestamp` is Unix seconds, of which whole ones arrive; `headers` hold plain strings and numbers."""

    body: bytes
    message_id: str = ""
    correlation_id: str = ""
    reply_to: str = ""
    timestamp: float | None = None
    expiration_ms: int | None = None
    persistent: bool = True
    headers: Mapping[str, str | int | float] = NO_HEADERS


class Delivery(Protocol):
    """A message on its way to a consumer, until it is acknowledged exactly once; later calls do nothing."""

    @property
    def message(self) -> Message:
        """What was published; the `headers` of a dead-lettered message include DEATH_REASON and its like."""
        ...

    @property
    def queue(self) -> str:
        """The queue it came from."""
        ...

    @property
    def routing_key(self) -> str:
        """The key it was published or dead-lettered with."""
        ...

    @property
    def redelivered(self) -> bool:
        """Whether it was delivered before."""
        ...

    @property
    def delivery_count(self) -> int:
        """How often it was delivered before this time and came back. A queue without a `delivery_limit` tells at least
        whether it was, as 1."""
        ...

    @property
    def arrived_ns(self) -> int:
        """When it reached this process, on the monotonic clock."""
        ...

    def ack(self) -> None:
        """Done: the effect is durable."""
        ...

    def nack(self, *, requeue: bool) -> None:
        """Not done: back to the head of its queue, or, without requeue, dead-lettered as rejected."""
        ...


Answer = Callable[[BrokerError | None], None]
"""What the broker said to a message: None when it has it, else why not. Called in the event loop; must not raise."""


class Subscription(Protocol):
    """A running consumer."""

    async def cancel(self) -> None:
        """Stop taking; deliveries already handed out can still be acknowledged."""
        ...


@dataclass(frozen=True, slots=True)
class QueueDepth:
    """Messages ready, messages delivered and unacknowledged, consumers.

    A passive declare does not tell `unacked`: with RabbitMQ it counts those of this connection. The totals since
    the queue was declared are None where the broker does not tell them cheaply.
    """

    name: str
    ready: int
    unacked: int
    consumers: int
    published: int | None = None
    delivered: int | None = None
    expired: int | None = None


class Broker(Protocol):
    """One connection to AMQP 0-9-1 as this system uses it; see docs/architecture.md.

    A consumer is a callable that gets each delivery synchronously, never from within `send`, and arranges its own
    work; at most `prefetch` deliveries of a subscription are unacknowledged at any time. A consumer that raises has its
    delivery dead-lettered with the ERROR header; the queue goes on.
    """

    async def start(self) -> None:
        """Connect.

        Raises:
            BrokerError: it cannot be reached.
        """
        ...

    async def declare(self, topology: Topology) -> None:
        """Make what is missing, now and whenever the connection had to be made anew.

        Raises:
            BrokerError: something exists with other properties; the message names it.
        """
        ...

    def send(self, exchange: str, routing_key: str, message: Message, done: Answer, *, mandatory: bool = True) -> None:
        """Publish, and call `done` exactly once, in bounded time, perhaps before this returns. Raises nothing.

        `done` gets None when the broker has confirmed the message, or the error that `publish` would raise. No task is
        made; what is sent within one step of the loop leaves in one write.
        """
        ...

    async def publish(self, exchange: str, routing_key: str, message: Message, *, mandatory: bool = True) -> None:
        """Publish and wait until the broker has confirmed it. Exchange "" is the default: the key names the queue.

        After a BrokerError the message may still have arrived, unless the error is Unroutable: publish it again with
        the same message_id, and let the consumer tell that it is the same.

        Raises:
            Unroutable: mandatory, and no queue is bound for the key.
            BrokerError: no such exchange, a full queue refused it (Overflow.REJECT_PUBLISH), or it was not confirmed.
        """
        ...

    async def consume(self, queue: str, handler: Callable[[Delivery], None], *, prefetch: int) -> Subscription:
        """Hand every message of the queue to the handler, several consumers taking turns; also after the connection had
        to be made anew.

        Deliveries of DIRECT_REPLY_TO need no acknowledgement.

        Raises:
            BrokerError: no such queue, or it is exclusive to another connection.
            ValueError: a prefetch below 1.
        """
        ...

    async def get(self, queue: str) -> Delivery | None:
        """Take the message at the head, None when there is none ready; raises BrokerError for an unknown queue."""
        ...

    async def differences(self, topology: Topology) -> Sequence[str]:
        """One line for each exchange or queue that is missing or exists with other properties; nothing is changed.

        Bindings are not looked at: AMQP has no way to ask for one.
        """
        ...

    async def depth(self, queue: str) -> QueueDepth:
        """Raises BrokerError for an unknown queue."""
        ...

    async def purge(self, queue: str) -> int:
        """Drop the ready messages; how many there were. Raises BrokerError for an unknown queue."""
        ...

    @property
    def connected(self) -> bool:
        """Whether it can be used now (readiness)."""
        ...

    async def close(self) -> None:
        """Finish and disconnect; unacknowledged deliveries go back to their queues, exclusive queues end."""
        ...
