"""What the services ask of the outside. Adapters implement these; tests/contract runs one suite over every adapter."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rtb.domain.campaign import Campaign
    from rtb.domain.profile import Profile


class Clock(Protocol):
    """Time. The monotonic clock is the event loop's, so that deadlines and timers agree."""

    def monotonic_ns(self) -> int:
        """Nanoseconds on the monotonic clock."""
        ...

    def time(self) -> float:
        """Unix seconds."""
        ...


class ExchangeType(StrEnum):
    """AMQP 0-9-1 exchange types."""

    DIRECT = "direct"
    TOPIC = "topic"
    FANOUT = "fanout"


@dataclass(frozen=True, slots=True)
class QueueSpec:
    """A queue as it is to be declared.

    A message that expires (`ttl_ms`), is rejected, overflows (`max_length`, oldest first) or is delivered more than
    `delivery_limit` times goes to `dead_letter_exchange` with the queue's name as routing key and an ``x-death``-like
    reason header; without one it is dropped. An exclusive queue ends with the broker connection that declared it.
    """

    name: str
    ttl_ms: int | None = None
    max_length: int | None = None
    delivery_limit: int | None = None
    dead_letter_exchange: str | None = None
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A message to publish. `expiration_ms` is its own time to live; `headers` hold plain strings and numbers."""

    body: bytes
    message_id: str = ""
    correlation_id: str = ""
    reply_to: str = ""
    timestamp: float | None = None
    expiration_ms: int | None = None
    persistent: bool = True
    headers: Mapping[str, str | int | float] = field(default_factory=dict)


class Delivery(Protocol):
    """A message on its way to a consumer, until it is acknowledged exactly once; later calls do nothing."""

    @property
    def message(self) -> Message:
        """What was published; `headers` include the death reason of a dead-lettered message."""
        ...

    @property
    def queue(self) -> str:
        """The queue it came from."""
        ...

    @property
    def routing_key(self) -> str:
        """The key it was published with."""
        ...

    @property
    def redelivered(self) -> bool:
        """Whether it was delivered before."""
        ...

    @property
    def delivery_count(self) -> int:
        """How often it was delivered before this time and came back."""
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


class Subscription(Protocol):
    """A running consumer."""

    async def cancel(self) -> None:
        """Stop taking; deliveries already handed out can still be acknowledged."""
        ...


@dataclass(frozen=True, slots=True)
class QueueDepth:
    """What a passive declare tells: messages ready, delivered and unacknowledged, and consumers."""

    name: str
    ready: int
    unacked: int
    consumers: int


class Broker(Protocol):
    """AMQP 0-9-1 as this system uses it; see docs/architecture.md. A callable consumer gets each delivery synchronously
    and arranges its own work; at most `prefetch` deliveries of a subscription are unacknowledged at any time."""

    async def start(self) -> None:
        """Connect.

        Raises:
            BrokerError: it cannot be reached.
        """
        ...

    async def declare(self, topology: Topology) -> None:
        """Make what is missing.

        Raises:
            BrokerError: something exists with other properties; the message names it.
        """
        ...

    async def publish(self, exchange: str, routing_key: str, message: Message, *, mandatory: bool = True) -> None:
        """Publish and wait until the broker has confirmed it. Exchange "" is the default: the key names the queue.

        Raises:
            Unroutable: mandatory, and no queue is bound for the key.
            BrokerError: no such exchange, or not confirmed.
        """
        ...

    async def consume(self, queue: str, handler: Callable[[Delivery], None], *, prefetch: int) -> Subscription:
        """Hand every message of the queue to the handler, several consumers taking turns.

        Raises:
            BrokerError: no such queue.
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
        """Finish and disconnect; unacknowledged deliveries go back to their queues."""
        ...


class StateStore(Protocol):
    """Hot state shared by daemons: cached profiles and frequency counters."""

    async def get_profiles(self, user_ids: Sequence[str]) -> list[bytes | None]:
        """The cached profile of each user, None where none is cached. Raises StoreError."""
        ...

    async def put_profiles(self, profiles: Mapping[str, bytes], ttl_s: float) -> None:
        """Cache profiles for a time. Raises StoreError."""
        ...

    async def get_frequencies(self, user_ids: Sequence[str]) -> list[Mapping[str, int]]:
        """The impressions counted a campaign id for each user, windows that ended left out. Raises StoreError."""
        ...

    async def count_impressions(self, counts: Iterable[tuple[str, str, int]]) -> None:
        """Count one impression for each (user_id, campaign_id, window seconds); a window starts with its first count.
        Raises StoreError."""
        ...

    async def close(self) -> None:
        """Let go of what it holds."""
        ...


class Repository(Protocol):
    """The truth: campaigns and user profiles. Every method raises StoreError when the database is away or refuses."""

    async def start(self) -> None:
        """Open it and make the schema when it is empty."""
        ...

    async def campaigns(self) -> list[Campaign]:
        """Every campaign, by id."""
        ...

    async def campaign(self, campaign_id: str) -> Campaign | None:
        """One campaign, None when unknown."""
        ...

    async def put_campaigns(self, campaigns: Sequence[Campaign]) -> int:
        """Insert, or replace where the stored version is older; how many were written, all or none on an error."""
        ...

    async def profiles(self, user_ids: Sequence[str]) -> list[Profile | None]:
        """The profile of each user, None when unknown."""
        ...

    async def put_profiles(self, profiles: Sequence[Profile]) -> None:
        """Insert or replace."""
        ...

    async def close(self) -> None:
        """Finish what is under way and close."""
        ...


Handler = Callable[[Delivery], Awaitable[None]]
