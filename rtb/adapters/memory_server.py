"""The exchanges and queues of the in-process broker, and what they share with the connections to them.

With a journal, a persistent message in a durable queue (any but an exclusive one) outlives the process, as in RabbitMQ:
it is appended to its queues, and its publisher hears so, once it is on disk; what dies in a queue is in the journal
under its next queue before it leaves the first; what is acknowledged leaves it soon after.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import fields

from msgspec import Struct, structs

from rtb.adapters.memory_journal import Journal, Kept
from rtb.adapters.memory_queue import Death, Deaths, Entry, Queue
from rtb.adapters.topics import Bindings
from rtb.errors import BrokerError
from rtb.ports import (
    DEATH_COUNT,
    DEATH_EXCHANGE,
    DEATH_QUEUE,
    DEATH_REASON,
    DIRECT_REPLY_TO,
    ERROR,
    Binding,
    Delivery,
    ExchangeType,
    Message,
    QueueSpec,
)
from rtb.ports.broker import Answer
from rtb.ports.clock import TimerClock

NS_PER_S = 1_000_000_000
SLICE_NS = 1_000_000

OnError = Callable[[Delivery, BaseException], None]


class _Arrival(Struct, eq=False, gc=False):
    """A message on its way into the journal, and from there into its queues."""

    queues: Sequence[Queue]
    durable: Sequence[Queue]
    message: Message
    exchange: str
    routing_key: str
    done: Answer
    first_id: int = 0

    def written(self, error: BrokerError | None) -> None:
        """It is durable, or it is nowhere."""
        id_ = self.first_id
        for queue in self.durable:
            queue.expected -= 1
            if error is None:
                queue.push(self.message, self.exchange, self.routing_key, record=id_)
                id_ += 1
        if error is None and len(self.durable) < len(self.queues):
            for queue in self.queues:
                if queue not in self.durable:
                    queue.push(self.message, self.exchange, self.routing_key)
        self.done(error)


class MemoryServer:
    """Exchanges and queues, shared by the connections to it. Belongs to one event loop at a time."""

    def __init__(self, clock: TimerClock, *, on_error: OnError | None = None, journal: Journal | None = None) -> None:
        """Start empty; `on_error` hears of every consumer that raised (None: the loop's exception handler does)."""
        self.clock = clock
        self._journal = journal
        self._left: dict[str, list[tuple[int, Kept]]] = {}  # by queue, until it is declared
        self._connections = 0
        self.queues: dict[str, Queue] = {}
        self._exchanges: dict[str, Bindings[Queue]] = {}
        self._due: list[Queue] = []
        self._ticking = False
        self._requesters = 0
        self._on_error = on_error

    async def connect(self) -> None:
        """A connection begins; with the first one comes back what the journal has.

        Raises:
            BrokerError: the journal cannot be opened.
        """
        if self._journal is not None and not self._connections:
            for id_, kept in await self._journal.open():
                self._left.setdefault(kept.queue, []).append((id_, kept))
            for queue in self.queues.values():
                self._restore(queue)
        self._connections += 1

    async def disconnect(self, owner: object) -> None:
        """A connection ends: its exclusive queues go, what it left unacknowledged comes back.

        With the last one the journal is closed, and what is in it waits there for the next.
        """
        for queue in [queue for queue in self.queues.values() if queue.owner is owner]:
            self.delete(queue)
        for queue in list(self.queues.values()):
            queue.disconnect(owner)
        self._connections -= 1
        if self._journal is not None and not self._connections:
            await self._journal.close()
            self._left.clear()
            for queue in self.queues.values():
                queue.leave_to_journal()

    def publish(self, queues: Sequence[Queue], message: Message, exchange: str, routing_key: str, done: Answer) -> None:
        """Append to these queues, at once or when the journal has it, and tell `done`."""
        journal = self._journal
        durable = [queue for queue in queues if queue.owner is None] if journal and message.persistent else ()
        if journal is None or not durable:
            for queue in queues:
                queue.push(message, exchange, routing_key)
            done(None)
            return
        arrival = _Arrival(queues, durable, message, exchange, routing_key, done)
        try:
            kept = [self._kept(queue, message, exchange, routing_key) for queue in durable]
            arrival.first_id = journal.put(kept, arrival.written)
        except ValueError as error:
            done(BrokerError(f"the message was not kept: {error}"))
            return
        for queue in durable:
            queue.expected += 1

    def gone(self, entry: Entry) -> None:
        """The entry has left its queue for good."""
        if entry.record and self._journal is not None:
            self._journal.gone(entry.record)

    def route(self, exchange: str, routing_key: str) -> Sequence[Queue] | None:
        """The queues for a key, None when there is no such exchange."""
        if not exchange:
            queue = self.queues.get(routing_key)
            return () if queue is None else queue.alone
        bindings = self._exchanges.get(exchange)
        return None if bindings is None else bindings.route(routing_key)

    def declare_exchange(self, name: str, kind: ExchangeType) -> None:
        """Make it, or raise BrokerError when it exists with another type."""
        self._exchanges.setdefault(name, Bindings(kind))
        if difference := self.exchange_difference(name, kind):
            raise BrokerError(difference)

    def exchange_difference(self, name: str, kind: ExchangeType) -> str:
        """How it differs from what is wanted, in one line; empty when it does not."""
        bindings = self._exchanges.get(name)
        if bindings is None:
            return f"exchange {name} is missing"
        if bindings.kind is not kind:
            return f"exchange {name} exists with type {bindings.kind}, not {kind}; delete it or use another name"
        return ""

    def declare_queue(self, spec: QueueSpec, owner: object) -> None:
        """Make it, or raise BrokerError when it exists with other properties."""
        if spec.name not in self.queues:
            queue = self.queues[spec.name] = Queue(spec, self, owner if spec.exclusive else None)
            self._restore(queue)
        self.queue(spec.name, owner)
        if difference := self.queue_difference(spec):
            raise BrokerError(difference)

    def queue_difference(self, spec: QueueSpec) -> str:
        """How it differs from what is wanted, in one line; empty when it does not."""
        queue = self.queues.get(spec.name)
        if queue is None:
            return f"queue {spec.name} is missing"
        for name in (field.name for field in fields(spec)):
            was, wanted = getattr(queue.spec, name), getattr(spec, name)
            if was != wanted:
                return f"queue {spec.name} exists with {name} {was}, not {wanted}; delete it or use another name"
        return ""

    def open_replies(self, owner: object) -> Queue:
        """A queue of direct replies to one connection."""
        self._requesters += 1
        queue = Queue(QueueSpec(f"{DIRECT_REPLY_TO}.{self._requesters}", exclusive=True), self, owner)
        self.queues[queue.name] = queue
        return queue

    def delete(self, queue: Queue) -> None:
        """Remove it with its bindings and messages."""
        if self.queues.pop(queue.name, None) is not None:
            for bindings in self._exchanges.values():
                bindings.remove(queue)
            queue.end()

    def bind(self, binding: Binding, owner: object) -> None:
        """Bind, or raise BrokerError when the exchange or the queue does not exist."""
        bindings = self._exchanges.get(binding.exchange)
        if bindings is None:
            raise BrokerError(f"queue {binding.queue} cannot be bound: no exchange {binding.exchange!r}")
        bindings.add(binding.routing_key, self.queue(binding.queue, owner))

    def queue(self, name: str, owner: object) -> Queue:
        """The queue, or BrokerError when there is none or it is another connection's own."""
        queue = self.queues.get(name)
        if queue is None:
            raise BrokerError(f"no queue {name}; declare it first")
        if queue.owner is not None and queue.owner is not owner:
            raise BrokerError(f"queue {name} is exclusive to another connection")
        return queue

    def schedule(self, queue: Queue) -> None:
        """Have the queue deliver in the loop's next step."""
        if queue.scheduled:
            return
        queue.scheduled = True
        self._due.append(queue)
        if not self._ticking:
            self._ticking = True
            asyncio.get_running_loop().call_soon(self._tick)

    def resume(self) -> None:
        """Go on in the running loop, should the last one have been closed with work left."""
        self._ticking = bool(self._due)
        if self._due:
            asyncio.get_running_loop().call_soon(self._tick)

    def bury(self, queue: Queue, entry: Entry, reason: Death, error: str = "") -> None:
        """Send a dead message to its queue's dead-letter exchange, unless it goes round in a circle."""
        if queue.spec.dead_letter_exchange is not None:
            self._move(queue, entry, reason, error, queue.spec.dead_letter_exchange)
        self.gone(entry)  # the journal has it in its next queue by then

    def _move(self, queue: Queue, entry: Entry, reason: Death, error: str, exchange: str) -> None:
        spec = queue.spec
        key = entry.routing_key if spec.dead_letter_routing_key is None else spec.dead_letter_routing_key
        headers = dict(entry.message.headers)
        headers.setdefault(DEATH_REASON, reason.value)
        headers.setdefault(DEATH_QUEUE, queue.name)
        headers.setdefault(DEATH_EXCHANGE, entry.exchange)
        headers[DEATH_COUNT] = int(headers.get(DEATH_COUNT, 0)) + 1
        if error:
            headers[ERROR] = error
        message = structs.replace(entry.message, headers=headers, expiration_ms=None)
        death = (queue.name, reason)
        deaths = (death, *(former for former in entry.deaths if former != death))
        for target in self.route(exchange, key) or ():
            refused = target.rejecting and target.is_full() and not entry.record  # nothing that was kept is lost
            if not refused and not _circles(target.name, deaths):
                record = 0
                if self._journal is not None and message.persistent and target.owner is None:
                    record = self._journal.put([self._kept(target, message, exchange, key, deaths)])
                target.push(message, exchange, key, deaths, record)

    def report(self, delivery: Delivery, error: BaseException) -> None:
        """Tell that a consumer raised; whoever is told cannot stop the queue either."""
        loop = asyncio.get_running_loop()
        try:
            if self._on_error is not None:
                self._on_error(delivery, error)
                return
        except Exception as broken:
            error = broken
        loop.call_exception_handler({"message": f"a consumer of queue {delivery.queue} raised", "exception": error})

    def _restore(self, queue: Queue) -> None:
        """Put back what the journal has of a queue, as delivered before: perhaps it was."""
        now = self.clock.time()
        for id_, kept in self._left.pop(queue.name, ()):
            deaths = tuple((name, Death(reason)) for name, reason in kept.deaths)
            lives_ns = None if kept.expires_at is None else round(max(0.0, kept.expires_at - now) * NS_PER_S)
            queue.put_back(kept.message, kept.exchange, kept.routing_key, deaths, id_, lives_ns)

    def _kept(self, queue: Queue, message: Message, exchange: str, routing_key: str, deaths: Deaths = ()) -> Kept:
        lives_ms = queue.lives_ms(message)
        return Kept(
            queue.name,
            exchange,
            routing_key,
            message.body,
            message.message_id,
            message.correlation_id,
            message.reply_to,
            message.timestamp,
            message.expiration_ms,
            dict(message.headers) if message.headers else {},
            None if lives_ms is None else self.clock.time() + lives_ms / 1e3,
            [(name, reason.value) for name, reason in deaths] if deaths else [],
        )

    def _tick(self) -> None:
        due, self._due = self._due, []
        until_ns = self.clock.monotonic_ns() + SLICE_NS
        for queue in due:
            more = queue.deliver(until_ns)
            queue.scheduled = more
            if more:
                self._due.append(queue)
        self._ticking = bool(self._due)
        if self._due:
            asyncio.get_running_loop().call_soon(self._tick)


def _circles(target: str, deaths: Deaths) -> bool:
    """Whether a message comes back to a queue it died in without any consumer having rejected it since.

    Source: RabbitMQ, "Dead Letter Exchanges", automatic dead-lettering cycles.
    """
    for i, (queue, _) in enumerate(deaths):
        if queue == target:
            return all(reason is not Death.REJECTED for _, reason in deaths[: i + 1])
    return False
