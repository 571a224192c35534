"""An in-process broker with RabbitMQ's semantics: the embedded default, for one daemon without servers around it.

A `MemoryServer` holds exchanges and queues, a `MemoryBroker` is one connection to it. Everything lives in memory and in
one event loop; queues are bounded by their max_length. Publishing only appends: consumers run in the loop's next step,
in slices of SLICE_NS, so that neither a busy queue nor a consumer that publishes holds up the loop. With a journal,
what RabbitMQ would keep over a restart is kept over one of the process, however it ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from msgspec import structs

from rtb.adapters.confirmed import confirmed
from rtb.adapters.memory_journal import Journal
from rtb.adapters.memory_queue import Consumer, Queue
from rtb.adapters.memory_server import MemoryServer, OnError
from rtb.errors import BrokerError, Unroutable
from rtb.ports import DIRECT_REPLY_TO, Delivery, Message, QueueDepth, Subscription, Topology
from rtb.ports.broker import Answer
from rtb.ports.clock import TimerClock

PUBLISH_BURST = 64


class MemoryBroker:
    """A connection to an in-process server, as `ports.Broker`."""

    def __init__(
        self,
        clock: TimerClock,
        *,
        on_error: OnError | None = None,
        journal: Path | None = None,
        heir_from: int | None = None,
    ) -> None:
        """A connection to a new server, not started yet.

        Args:
            clock: for expiry and arrival; with a journal its wall time tells what has expired since.
            on_error: hears of every consumer that raised, and must not block.
            journal: the folder of what survives the process; None: nothing does. One process uses it at a time.
            heir_from: take over the journals of workers of that number and above, ``{journal}.{number}``, that nobody
                uses.
        """
        kept = None if journal is None else Journal(journal, heir_from=heir_from)
        self._server = MemoryServer(clock, on_error=on_error, journal=kept)
        self._connected = False
        self._replies: _Replies | None = None
        self._burst = 0

    def peer(self) -> MemoryBroker:
        """Another connection, not started yet, to the same server."""
        other = MemoryBroker(self._server.clock)
        other._server = self._server
        return other

    async def start(self) -> None:
        """Connect; with a journal, take its folder.

        Raises:
            BrokerError: another process uses it, or the disk refuses.
        """
        if not self._connected:
            await self._server.connect()
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
        self._server.publish(queues, message, exchange, routing_key, done)

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
            await self._server.disconnect(self)

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
