"""An in-process broker with RabbitMQ's semantics: the embedded default, for one daemon without servers around it.

A `MemoryServer` holds exchanges and queues, a `MemoryBroker` is one connection to it. Everything lives in memory and in
one event loop; queues are bounded by their max_length. Publishing only appends: consumers run in the loop's next step,
in slices of SLICE_NS, so that neither a busy queue nor a consumer that publishes holds up the loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import fields

from msgspec import structs

from rtb.adapters.clock import TimerClock
from rtb.adapters.confirmed import confirmed
from rtb.adapters.memory_queue import Consumer, Death, Deaths, Entry, Queue
from rtb.adapters.topics import Bindings
from rtb.errors import BrokerError, Unroutable
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
    QueueDepth,
    QueueSpec,
    Subscription,
    Topology,
)
from rtb.ports.broker import Answer

SLICE_NS = 1_000_000
PUBLISH_BURST = 64

OnError = Callable[[Delivery, BaseException], None]


class MemoryServer:
    """Exchanges and queues, shared by the connections to it. Belongs to one event loop at a time."""

    def __init__(self, clock: TimerClock, *, on_error: OnError | None = None) -> None:
        """Start empty; `on_error` hears of every consumer that raised (None: the loop's exception handler does)."""
        self.clock = clock
        self.queues: dict[str, Queue] = {}
        self._exchanges: dict[str, Bindings[Queue]] = {}
        self._due: list[Queue] = []
        self._ticking = False
        self._requesters = 0
        self._on_error = on_error

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
            self.queues[spec.name] = Queue(spec, self, owner if spec.exclusive else None)
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

    def disconnect(self, owner: object) -> None:
        """A connection ends: its exclusive queues go, what it left unacknowledged comes back."""
        for queue in [queue for queue in self.queues.values() if queue.owner is owner]:
            self.delete(queue)
        for queue in list(self.queues.values()):
            queue.disconnect(owner)

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
        spec = queue.spec
        if spec.dead_letter_exchange is None:
            return
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
        for target in self.route(spec.dead_letter_exchange, key) or ():
            if not _circles(target.name, deaths) and not (target.rejecting and target.is_full()):
                target.push(message, spec.dead_letter_exchange, key, deaths)

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


class MemoryBroker:
    """A connection to an in-process server, as `ports.Broker`."""

    def __init__(self, clock: TimerClock, *, on_error: OnError | None = None) -> None:
        """A connection to a new server; `on_error` hears of every consumer that raised, and must not block."""
        self._server = MemoryServer(clock, on_error=on_error)
        self._connected = False
        self._replies: _Replies | None = None
        self._burst = 0

    def peer(self) -> MemoryBroker:
        """Another connection, not started yet, to the same server."""
        other = MemoryBroker(self._server.clock)
        other._server = self._server
        return other

    async def start(self) -> None:
        """Connect."""
        self._connected = True
        self._server.resume()

    async def declare(self, topology: Topology) -> None:
        """Make what is missing; raises BrokerError naming what exists with other properties."""
        self._check()
        for name, kind in topology.exchanges.items():
            self._server.declare_exchange(name, kind)
        for spec in topology.queues:
            self._server.declare_queue(spec, self)
        for binding in topology.bindings:
            self._server.bind(binding, self)

    def send(self, exchange: str, routing_key: str, message: Message, done: Answer, *, mandatory: bool = True) -> None:
        """Append to every queue bound for the key, or to none when one of them refuses it; then tell `done`."""
        try:
            queues = self._targets(exchange, routing_key, message, mandatory)
            if message.reply_to == DIRECT_REPLY_TO:
                message = self._with_reply_queue(message)
        except BrokerError as error:
            done(error)
            return
        for queue in queues:
            queue.push(message, exchange, routing_key)
        done(None)

    async def publish(self, exchange: str, routing_key: str, message: Message, *, mandatory: bool = True) -> None:
        """Send, and wait for the answer.

        Gives way to the consumers once in PUBLISH_BURST messages, as waiting for a confirm would.

        Raises:
            Unroutable: mandatory, and no queue is bound for the key.
            BrokerError: not connected, no such exchange, or a full queue refused it.
        """
        await confirmed(lambda done: self.send(exchange, routing_key, message, done, mandatory=mandatory))
        self._burst += 1
        if self._burst >= PUBLISH_BURST:
            self._burst = 0
            await asyncio.sleep(0)

    async def consume(self, queue: str, handler: Callable[[Delivery], None], *, prefetch: int) -> Subscription:
        """Hand the queue's messages to the handler, from the loop's next step on."""
        self._check()
        if prefetch < 1:
            raise ValueError(f"prefetch is {prefetch}, not at least 1")
        if queue == DIRECT_REPLY_TO:
            if self._replies is not None:
                raise BrokerError(f"{DIRECT_REPLY_TO} is consumed already")
            self._replies = _Replies(self._server, self, handler, prefetch)
            return self._replies
        source = self._server.queue(queue, self)
        consumer = Consumer(source, handler, prefetch, self)
        source.subscribe(consumer)
        return consumer

    async def get(self, queue: str) -> Delivery | None:
        """The message at the head, None when there is none; raises BrokerError for an unknown queue."""
        self._check()
        return self._server.queue(queue, self).get(self)

    async def differences(self, topology: Topology) -> Sequence[str]:
        """One line for each exchange or queue that is missing or exists with other properties."""
        self._check()
        exchanges = (self._server.exchange_difference(name, kind) for name, kind in topology.exchanges.items())
        queues = (self._server.queue_difference(spec) for spec in topology.queues)
        return [difference for difference in (*exchanges, *queues) if difference]

    async def depth(self, queue: str) -> QueueDepth:
        """What stands in the queue now; raises BrokerError for an unknown one."""
        self._check()
        return self._server.queue(queue, self).depth()

    async def purge(self, queue: str) -> int:
        """Drop the ready messages; how many there were."""
        self._check()
        return self._server.queue(queue, self).purge()

    @property
    def connected(self) -> bool:
        """Whether it is started and not closed."""
        return self._connected

    async def close(self) -> None:
        """Disconnect; unacknowledged deliveries go back, exclusive queues end, the server keeps the rest."""
        if self._connected:
            self._connected = False
            self._replies = None
            self._server.disconnect(self)

    def end_replies(self) -> None:
        """No direct replies any more."""
        self._replies = None

    def _targets(self, exchange: str, routing_key: str, message: Message, mandatory: bool) -> Sequence[Queue]:
        """The queues that take the message; raises BrokerError."""
        self._check()
        queues = self._server.route(exchange, routing_key)
        if not queues:
            if queues is None:
                raise BrokerError(f"no exchange {exchange!r}; declare it first")
            if mandatory and not routing_key.startswith(DIRECT_REPLY_TO):
                raise Unroutable(f"no queue is bound to exchange {exchange!r} for {routing_key!r}")
        for queue in queues:
            if queue.rejecting and queue.is_full():
                raise BrokerError(f"queue {queue.name} is full at {queue.spec.max_length} messages")
        return queues

    def _with_reply_queue(self, message: Message) -> Message:
        if self._replies is None:
            raise BrokerError(f"reply_to {DIRECT_REPLY_TO}, and nobody here consumes it")
        return structs.replace(message, reply_to=self._replies.queue.name)

    def _check(self) -> None:
        if not self._connected:
            raise BrokerError("the in-process broker is not connected; call start() first")


class _Replies:
    """The consumer of direct replies: each is acknowledged before it is handed on."""

    def __init__(
        self, server: MemoryServer, owner: MemoryBroker, handler: Callable[[Delivery], None], prefetch: int
    ) -> None:
        self.queue = server.open_replies(owner)
        self._server = server
        self._owner = owner
        self._handler = handler
        self.queue.subscribe(Consumer(self.queue, self._take, prefetch, owner))

    def _take(self, delivery: Delivery) -> None:
        delivery.ack()
        self._handler(delivery)

    async def cancel(self) -> None:
        """Stop taking; later replies are lost."""
        self._server.delete(self.queue)
        self._owner.end_replies()


def _circles(target: str, deaths: Deaths) -> bool:
    """Whether a message comes back to a queue it died in without any consumer having rejected it since.

    Source: RabbitMQ, "Dead Letter Exchanges", automatic dead-lettering cycles.
    """
    for i, (queue, _) in enumerate(deaths):
        if queue == target:
            return all(reason is not Death.REJECTED for _, reason in deaths[: i + 1])
    return False
