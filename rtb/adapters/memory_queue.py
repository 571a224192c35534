"""One queue of the in-process broker: ready messages in order, consumers taking turns, and the ways a message dies."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from rtb.ports import Delivery, Message, Overflow, QueueDepth, QueueSpec

if TYPE_CHECKING:
    from rtb.ports.clock import Timer, TimerClock

FOREVER = 1 << 62
NS_PER_MS = 1_000_000
MAX_BATCH = 1_024


class Death(StrEnum):
    """Why a message left its queue unconsumed; the words are RabbitMQ's."""

    REJECTED = "rejected"
    EXPIRED = "expired"
    MAXLEN = "maxlen"
    DELIVERY_LIMIT = "delivery_limit"


Deaths = tuple[tuple[str, Death], ...]
"""The (queue, reason) pairs that a message died of, each once, the latest first."""


class Server(Protocol):
    """What a queue asks of its broker."""

    clock: TimerClock

    def schedule(self, queue: Queue) -> None:
        """Call `queue.deliver` in the loop's next step."""
        ...

    def bury(self, queue: Queue, entry: Entry, reason: Death, error: str = "") -> None:
        """Dead-letter the entry, which is no longer in the queue."""
        ...

    def gone(self, entry: Entry) -> None:
        """The entry has left its queue, and nothing needs to remember it."""
        ...

    def report(self, delivery: Delivery, error: BaseException) -> None:
        """A consumer raised."""
        ...


class Entry(Struct, eq=False, gc=False):
    """A message in a queue, and the Delivery that its consumer gets.

    A requeued message becomes a new entry, so that a late ack of an old delivery does nothing. `position` orders the
    queue, `holder` is the consumer that has yet to settle it, `record` its id in the journal (0: in none).
    """

    message: Message
    queue: str
    exchange: str
    routing_key: str
    position: int
    expires_ns: int
    deaths: Deaths = ()
    record: int = 0
    delivery_count: int = 0
    arrived_ns: int = 0
    holder: Consumer | None = None

    @property
    def redelivered(self) -> bool:
        """Whether it was delivered before."""
        return self.delivery_count > 0

    def ack(self) -> None:
        """Done."""
        holder = self.holder
        if holder is not None:
            holder.release(self)
            if self.record:
                holder.queue.server.gone(self)

    def nack(self, *, requeue: bool) -> None:
        """Not done: back to its place in the queue, or dead-lettered as rejected."""
        self.give_up(requeue=requeue)

    def give_up(self, *, requeue: bool, error: str = "") -> None:
        """Nack, with the reason for whoever reads the dead letters."""
        holder = self.holder
        if holder is None:
            return
        holder.release(self)
        if requeue:
            holder.queue.requeue(self)
        else:
            holder.queue.server.bury(holder.queue, self, Death.REJECTED, error)


class Consumer:
    """A subscription. It is in its queue's `takers` exactly while it runs and has room for one delivery more."""

    __slots__ = ("cancelled", "handler", "owner", "prefetch", "queue", "taking", "unacked")

    def __init__(self, queue: Queue, handler: Callable[[Delivery], None], prefetch: int, owner: object) -> None:
        self.queue = queue
        self.handler = handler
        self.prefetch = prefetch
        self.owner = owner
        self.unacked: set[Entry] = set()
        self.taking = True
        self.cancelled = False

    async def cancel(self) -> None:
        """Stop taking; deliveries already handed out can still be acknowledged."""
        self.stop()

    def stop(self) -> None:
        """Cancel."""
        if not self.cancelled:
            self.cancelled = True
            self.queue.leave(self)

    def release(self, entry: Entry) -> None:
        """The entry is settled: there is room for another."""
        entry.holder = None
        self.unacked.discard(entry)
        if not self.taking:
            self.queue.welcome(self)


class Queue:
    """The messages and consumers of one queue. Every method is synchronous; handlers run in `deliver` alone."""

    def __init__(self, spec: QueueSpec, server: Server, owner: object | None) -> None:
        self.spec = spec
        self.name = spec.name
        self.server = server
        self.owner = owner
        self.alone = (self,)
        self.ready: deque[Entry] = deque()
        self.takers: deque[Consumer] = deque()
        self.consumers: set[Consumer] = set()
        self.scheduled = False
        self.rejecting = spec.overflow is Overflow.REJECT_PUBLISH and spec.max_length is not None
        self.expected = 0  # messages on their way into the journal, and then into the queue
        self._max_length = sys.maxsize if spec.max_length is None or self.rejecting else spec.max_length
        self._published = self._delivered = self._expired = 0
        self._timer: Timer | None = None
        self._timer_ns = FOREVER

    def push(self, message: Message, exchange: str, routing_key: str, deaths: Deaths = (), record: int = 0) -> None:
        """Append a message; over max_length the oldest dies."""
        self._published = position = self._published + 1
        expires_ns = FOREVER
        if message.expiration_ms is not None or self.spec.ttl_ms is not None:
            expires_ns = self._expiry_ns(message)
        ready = self.ready
        ready.append(Entry(message, self.name, exchange, routing_key, position, expires_ns, deaths, record))
        if len(ready) > self._max_length:
            self._trim()
        if self.takers and not self.scheduled:
            self.server.schedule(self)

    def put_back(
        self, message: Message, exchange: str, routing_key: str, deaths: Deaths, record: int, lives_ns: int | None
    ) -> None:
        """Append what an earlier process kept, as redelivered; whatever max_length is."""
        self._published = position = self._published + 1
        expires_ns = FOREVER if lives_ns is None else self.server.clock.monotonic_ns() + lives_ns
        self.ready.append(Entry(message, self.name, exchange, routing_key, position, expires_ns, deaths, record, 1))
        self._watch_head()
        if self.takers:
            self.server.schedule(self)

    def is_full(self) -> bool:
        """Whether a rejecting queue has no place; what consumers are about to take does not count."""
        length = self.spec.max_length
        return length is not None and len(self.ready) + self.expected >= length + self._room()

    def subscribe(self, consumer: Consumer) -> None:
        """Add a consumer."""
        self.consumers.add(consumer)
        self.takers.append(consumer)
        self.server.schedule(self)

    def leave(self, consumer: Consumer) -> None:
        """A consumer was cancelled; it stays known until its deliveries are settled."""
        if consumer.taking:
            consumer.taking = False
            self.takers.remove(consumer)
        if not consumer.unacked:
            self.consumers.discard(consumer)
        self._trim()

    def welcome(self, consumer: Consumer) -> None:
        """A consumer that was not taking has settled a delivery."""
        if not consumer.cancelled:
            consumer.taking = True
            self.takers.append(consumer)
            if self.ready:
                self.server.schedule(self)
        elif not consumer.unacked:
            self.consumers.discard(consumer)

    def deliver(self, until_ns: int) -> bool:
        """Hand out messages until none, no taker or no time is left; whether there is more to do."""
        ready, takers = self.ready, self.takers
        monotonic_ns = self.server.clock.monotonic_ns
        for _ in range(MAX_BATCH):
            if not ready or not takers:
                break
            now_ns = monotonic_ns()
            entry = ready.popleft()
            if entry.expires_ns <= now_ns:
                self._expire(entry)
                continue
            consumer = takers[0]
            consumer.unacked.add(entry)
            if len(consumer.unacked) >= consumer.prefetch:
                takers.popleft()
                consumer.taking = False
            elif len(takers) > 1:
                takers.rotate(-1)
            entry.holder = consumer
            entry.arrived_ns = now_ns
            self._delivered += 1
            self._hand_out(consumer, entry)
            if now_ns >= until_ns:
                break
        self._watch_head()
        return bool(ready and takers)

    def requeue(self, entry: Entry) -> None:
        """Back to the place it had, unless it came back too often."""
        again = Entry(
            entry.message,
            self.name,
            entry.exchange,
            entry.routing_key,
            entry.position,
            entry.expires_ns,
            entry.deaths,
            entry.record,
            entry.delivery_count + 1,
        )
        limit = self.spec.delivery_limit
        if limit is not None and again.delivery_count > limit:
            self.server.bury(self, again, Death.DELIVERY_LIMIT)
            return
        ready = self.ready
        if not ready or again.position < ready[0].position:
            ready.appendleft(again)
        else:  # only what was requeued before can stand in front of it
            place = next((i for i, other in enumerate(ready) if other.position > again.position), len(ready))
            ready.insert(place, again)
        self._trim()
        self._watch_head()
        if self.takers:
            self.server.schedule(self)

    def expire(self) -> None:
        """Bury the expired messages at the head."""
        now_ns = self.server.clock.monotonic_ns()
        while self.ready and self.ready[0].expires_ns <= now_ns:
            self._expire(self.ready.popleft())
        self._watch_head()

    def purge(self) -> int:
        """Drop the ready messages; how many."""
        self.expire()
        dropped = [*self.ready]
        self.ready.clear()
        for entry in dropped:
            if entry.record:
                self.server.gone(entry)
        return len(dropped)

    def leave_to_journal(self) -> None:
        """Forget the ready messages that the journal has: whoever opens it next gets them from there."""
        kept = [entry for entry in self.ready if not entry.record]
        self.ready.clear()
        self.ready.extend(kept)

    def get(self, owner: object) -> Entry | None:
        """Take the head without a subscription; None when there is none."""
        self.expire()
        if not self.ready:
            return None
        entry = self.ready.popleft()
        holder = Consumer(self, _no_handler, 1, owner)
        holder.taking, holder.cancelled = False, True
        holder.unacked.add(entry)
        self.consumers.add(holder)
        entry.holder = holder
        entry.arrived_ns = self.server.clock.monotonic_ns()
        self._delivered += 1
        self._watch_head()
        return entry

    def depth(self) -> QueueDepth:
        """What stands in it now."""
        self.expire()
        return QueueDepth(
            name=self.name,
            ready=len(self.ready),
            unacked=sum(len(consumer.unacked) for consumer in self.consumers),
            consumers=sum(not consumer.cancelled for consumer in self.consumers),
            published=self._published,
            delivered=self._delivered,
            expired=self._expired,
        )

    def disconnect(self, owner: object) -> None:
        """End the consumers of a connection; their unsettled deliveries go back in order."""
        lost = self._dismiss([consumer for consumer in self.consumers if consumer.owner is owner])
        for entry in sorted(lost, key=lambda entry: entry.position, reverse=True):
            self.requeue(entry)

    def end(self) -> None:
        """The queue is deleted: its messages and consumers go with it."""
        self._dismiss(list(self.consumers))
        self.ready.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _dismiss(self, consumers: list[Consumer]) -> list[Entry]:
        lost: list[Entry] = []
        for consumer in consumers:
            consumer.stop()
            self.consumers.discard(consumer)
            lost += consumer.unacked
            consumer.unacked.clear()
        for entry in lost:
            entry.holder = None
        return lost

    def _hand_out(self, consumer: Consumer, entry: Entry) -> None:
        try:
            consumer.handler(entry)
        except BaseException as error:
            entry.give_up(requeue=False, error=_one_line(error))
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            self.server.report(entry, error)

    def _expire(self, entry: Entry) -> None:
        self._expired += 1
        self.server.bury(self, entry, Death.EXPIRED)

    def _trim(self) -> None:
        excess = len(self.ready) - self._max_length
        if excess <= 0 or excess <= self._room():
            return
        self.expire()
        while len(self.ready) > self._max_length + self._room():
            self.server.bury(self, self.ready.popleft(), Death.MAXLEN)

    def _room(self) -> int:
        """How many deliveries the next step will hand out at once: these messages are as good as gone."""
        return sum(taker.prefetch - len(taker.unacked) for taker in self.takers)

    def lives_ms(self, message: Message) -> int | None:
        """How long a message may wait here; None: for ever."""
        own_ms, ttl_ms = message.expiration_ms, self.spec.ttl_ms
        if own_ms is None or (ttl_ms is not None and ttl_ms < own_ms):
            return ttl_ms
        return own_ms

    def _expiry_ns(self, message: Message) -> int:
        lives_ms = self.lives_ms(message)
        assert lives_ms is not None
        expires_ns = self.server.clock.monotonic_ns() + lives_ms * NS_PER_MS
        if expires_ns < self._timer_ns:
            self._wake_at(expires_ns)
        return expires_ns

    def _watch_head(self) -> None:
        """Have a timer for the head's expiry: nothing else may ever happen in this queue."""
        if self.ready and self.ready[0].expires_ns < self._timer_ns:
            self._wake_at(self.ready[0].expires_ns)

    def _wake_at(self, when_ns: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_ns = when_ns
        self._timer = self.server.clock.call_at(when_ns, self._wake)

    def _wake(self) -> None:
        self._timer, self._timer_ns = None, FOREVER
        self.expire()


def _no_handler(delivery: Delivery) -> None:
    raise AssertionError("a message was delivered to what is no subscription")


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
