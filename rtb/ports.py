"""What the services ask of the outside. Adapters implement these; tests/contract runs one suite over every adapter."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

if TYPE_CHECKING:
    from rtb.domain.auction import Bid, Lost, Terms
    from rtb.domain.campaign import Campaign
    from rtb.domain.profile import Profile
    from rtb.openrtb import BidRequest


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

NO_HEADERS: Mapping[str, str | int | float] = MappingProxyType({})


class Message(Struct, frozen=True, kw_only=True, gc=False):
    """A message to publish. `expiration_ms` is its own time to live (the shorter of it and the queue's counts);
    `timestamp` is Unix seconds; `headers` hold plain strings and numbers."""

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

    A consumer is a callable that gets each delivery synchronously, never from within `publish`, and arranges its own
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
        """Make what is missing.

        Raises:
            BrokerError: something exists with other properties; the message names it.
        """
        ...

    async def publish(self, exchange: str, routing_key: str, message: Message, *, mandatory: bool = True) -> None:
        """Publish and wait until the broker has confirmed it. Exchange "" is the default: the key names the queue.

        Raises:
            Unroutable: mandatory, and no queue is bound for the key.
            BrokerError: no such exchange, a full queue refused it (Overflow.REJECT_PUBLISH), or it was not confirmed.
        """
        ...

    async def consume(self, queue: str, handler: Callable[[Delivery], None], *, prefetch: int) -> Subscription:
        """Hand every message of the queue to the handler, several consumers taking turns.

        Raises:
            BrokerError: no such queue, or it is exclusive to another connection.
            ValueError: a prefetch below 1.
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

    def campaigns(self, chunk: int = 10_000) -> AsyncIterator[list[Campaign]]:
        """Every campaign, ordered by id, in lists of at most `chunk`: the catalogue never stands in memory twice.

        A change made meanwhile may or may not be seen; its version tells.
        """
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


class OpenAuction(Protocol):
    """An auction as a bidder sees it while it is open."""

    @property
    def id(self) -> str:
        """The exchange's own auction id, unique everywhere; the request's id is the SSP's."""
        ...

    @property
    def request(self) -> BidRequest:
        """What is for sale."""
        ...

    @property
    def terms(self) -> Sequence[Terms]:
        """The terms of each imp, in the request's order."""
        ...

    @property
    def user_id(self) -> str:
        """Whom profile and frequency caps are for; "" when the request names no one or privacy forbids it."""
        ...

    @property
    def profile(self) -> Profile | None:
        """What is known of the user."""
        ...

    @property
    def frequency(self) -> Mapping[str, int]:
        """The user's impressions a campaign id."""
        ...

    @property
    def deadline_ns(self) -> int:
        """When it closes, on the monotonic clock; a later report is too late."""
        ...

    def report(
        self, bidder: Bidder, bids: Sequence[Bid] = (), rejected: Sequence[Lost] = (), failure: str | None = None
    ) -> None:
        """A bidder's one report: its valid bids, those refused on intake, or why it failed."""
        ...


class Bidder(Protocol):
    """Someone who bids: the house, or a DSP."""

    @property
    def name(self) -> str:
        """Its name in configuration, metrics and explanations."""
        ...

    def bid(self, auction: OpenAuction) -> None:
        """Be handed an auction and report to it exactly once, at once or later. Never raises."""
        ...

    def claim(self, auction: OpenAuction, bid: Bid, cost_nanos: int) -> bool:
        """Take the cost of a winning bid, before the response is encoded; False withdraws the bid."""
        ...
