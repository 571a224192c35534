"""Declaring, checking, measuring and purging: calls on one channel, one at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from aiormq.channel import Channel
from aiormq.exceptions import ChannelLockedResource, ChannelNotFoundEntity, ChannelPreconditionFailed

from rtb.adapters.amqp_link import FAILURES, Link, failure
from rtb.errors import BrokerError
from rtb.ports import Binding, ExchangeType, Overflow, QueueSpec, Topology
from rtb.ports.broker import Answer
from rtb.services.waiting import ended

_T = TypeVar("_T")
_Call = Callable[[Channel], Awaitable[_T]]
MAX_HELD = 10_000
OTHERWISE = "delete it or use another name"


class Control:
    """What this process has declared, and the channel that it does it on.

    A call that the broker refuses ends the channel; the next call opens another.
    """

    def __init__(self, link: Link, limit_s: float) -> None:
        """Work over `link`; a call may take `limit_s`."""
        self._link = link
        self._limit_s = limit_s
        self._channel: Channel | None = None
        self._turn = asyncio.Lock()
        self._bindings: dict[Binding, None] = {}
        self.exchanges: dict[str, ExchangeType | None] = {}
        """Those known to exist; None: declared by somebody else."""
        self.queues: dict[str, QueueSpec] = {}

    def remember(self, topology: Topology) -> None:
        """Have it declared on every new connection."""
        self.exchanges.update(topology.exchanges)
        self.queues.update((spec.name, spec) for spec in topology.queues)
        self._bindings.update(dict.fromkeys(topology.bindings))

    async def declare_remembered(self) -> None:
        """Declare everything once more."""
        for name in [name for name, kind in self.exchanges.items() if kind is None]:
            del self.exchanges[name]
        exchanges = {name: kind for name, kind in self.exchanges.items() if kind is not None}
        await self.declare(Topology(exchanges, [*self.queues.values()], [*self._bindings]))

    async def declare(self, topology: Topology) -> None:
        """Make what is missing; raises BrokerError naming what exists with other properties."""
        for name, kind in topology.exchanges.items():
            await self._declare_exchange(name, kind)
        for spec in topology.queues:
            await self._declare_queue(spec)
        for binding in topology.bindings:
            await self._bind(binding)

    async def differences(self, topology: Topology) -> list[str]:
        """One line for each exchange and queue that is missing or exists with other properties."""
        found: list[str] = []
        for name, kind in topology.exchanges.items():
            if not await self._exists(lambda channel, name=name: channel.exchange_declare(name, passive=True)):  # type: ignore[misc]
                found.append(f"exchange {name} is missing")
                continue
            try:
                await self._declare_exchange(name, kind)
            except BrokerError as error:
                found.append(str(error))
        for spec in topology.queues:
            if not await self._exists(lambda channel, spec=spec: channel.queue_declare(spec.name, passive=True)):  # type: ignore[misc]
                found.append(f"queue {spec.name} is missing")
                continue
            try:
                await self._declare_queue(spec)
            except BrokerError as error:
                found.append(str(error))
        return found

    async def require_exchange(self, name: str) -> None:
        """Raise BrokerError when there is no such exchange: publishing to it would end the channel for everybody."""
        if not await self._exists(lambda channel: channel.exchange_declare(name, passive=True)):
            raise BrokerError(f"no exchange {name!r}; declare it first")
        self.exchanges.setdefault(name, None)

    async def measure(self, queue: str) -> tuple[int, int]:
        """Ready messages and consumers of a queue."""
        declared = await self._call(queue, lambda channel: channel.queue_declare(queue, passive=True))
        return declared.message_count or 0, declared.consumer_count or 0

    async def purge(self, queue: str) -> int:
        """Drop the ready messages; how many there were."""
        purged = await self._call(queue, lambda channel: channel.queue_purge(queue))
        return purged.message_count or 0

    async def _declare_exchange(self, name: str, kind: ExchangeType) -> None:
        try:
            await self._run(lambda channel: channel.exchange_declare(name, exchange_type=kind.value, durable=True))
        except ChannelPreconditionFailed as error:
            text = f"exchange {name} exists with other properties than type {kind}; {OTHERWISE} ({_text(error)})"
            raise BrokerError(text) from None
        except FAILURES as error:
            raise failure(f"exchange {name} cannot be declared", error) from None

    async def _declare_queue(self, spec: QueueSpec) -> None:
        try:
            await self._run(
                lambda channel: channel.queue_declare(
                    spec.name, durable=not spec.exclusive, exclusive=spec.exclusive, arguments=arguments_of(spec)
                )
            )
        except ChannelPreconditionFailed as error:
            text = f"queue {spec.name} exists with other properties; {OTHERWISE} ({_text(error)})"
            raise BrokerError(text) from None
        except ChannelLockedResource:
            raise BrokerError(f"queue {spec.name} is exclusive to another connection") from None
        except FAILURES as error:
            raise failure(f"queue {spec.name} cannot be declared", error) from None

    async def _bind(self, binding: Binding) -> None:
        try:
            await self._run(
                lambda channel: channel.queue_bind(binding.queue, binding.exchange, routing_key=binding.routing_key)
            )
        except FAILURES as error:
            what = f"queue {binding.queue} cannot be bound to exchange {binding.exchange!r}"
            raise failure(what, error) from None

    async def _exists(self, call: _Call[Any]) -> bool:
        try:
            await self._run(call)
        except ChannelNotFoundEntity:
            return False
        except ChannelLockedResource:
            return True
        except FAILURES as error:
            raise failure("the broker could not be asked", error) from None
        return True

    async def _call(self, queue: str, call: _Call[_T]) -> _T:
        try:
            return await self._run(call)
        except ChannelNotFoundEntity:
            raise BrokerError(f"no queue {queue}; declare it first") from None
        except ChannelLockedResource:
            raise BrokerError(f"queue {queue} is exclusive to another connection") from None
        except FAILURES as error:
            raise failure(f"queue {queue}: the broker could not be asked", error) from None

    async def _run(self, call: _Call[_T]) -> _T:
        """Make a call; a broker that does not answer costs the channel, not the caller's patience."""
        async with self._turn:
            if self._channel is None or self._channel.is_closed:
                self._channel = await self._link.channel(self._limit_s)
            channel = self._channel
            try:
                async with asyncio.timeout(self._limit_s):
                    return await call(channel)
            except BaseException:
                self._channel = None
                raise


class Inquiries:
    """Holds what is to be published to exchanges that nobody here has declared, until the broker was asked for them.

    Publishing to one that does not exist would end the channel for everybody.
    """

    def __init__(self, control: Control) -> None:
        """Ask through `control`."""
        self._control = control
        self._held: dict[str, list[tuple[Callable[[], None], Answer]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def hold(self, exchange: str, send: Callable[[], None], done: Answer) -> None:
        """Call `send` once the exchange is known to exist, else `done` with the error."""
        held = self._held.get(exchange)
        if held is None:
            held = self._held[exchange] = []
            task = asyncio.get_running_loop().create_task(self._ask(exchange))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        if len(held) < MAX_HELD:
            held.append((send, done))
        else:
            done(
                BrokerError(
                    f"{MAX_HELD} messages wait until the broker has told whether there is exchange {exchange!r}"
                )
            )

    async def close(self) -> None:
        """Send nothing more."""
        await ended(*self._tasks)

    async def _ask(self, exchange: str) -> None:
        error = BrokerError("the connection was closed")
        try:
            await self._control.require_exchange(exchange)
        except BrokerError as found:
            error = found
        finally:
            held = self._held.pop(exchange)
            for send, done in held:
                if exchange in self._control.exchanges:
                    send()
                else:
                    done(error)


def arguments_of(spec: QueueSpec) -> dict[str, Any] | None:
    """The ``x-arguments`` of a queue; None without any.

    A quorum queue that refuses publishers dead-letters at least once: what dies in it stays until the dead-letter queue
    has confirmed it. (Source: RabbitMQ, "Quorum Queues", at-least-once dead-lettering.)
    """
    is_quorum = spec.delivery_limit is not None
    arguments: dict[str, Any] = {
        "x-queue-type": "quorum" if is_quorum else None,
        "x-delivery-limit": spec.delivery_limit,
        "x-message-ttl": spec.ttl_ms,
        "x-max-length": spec.max_length,
        "x-overflow": spec.overflow.value if spec.overflow is not Overflow.DROP_HEAD else None,
        "x-dead-letter-exchange": spec.dead_letter_exchange,
        "x-dead-letter-routing-key": spec.dead_letter_routing_key,
    }
    if is_quorum and spec.overflow is Overflow.REJECT_PUBLISH and spec.dead_letter_exchange is not None:
        arguments["x-dead-letter-strategy"] = "at-least-once"
    return {name: value for name, value in arguments.items() if value is not None} or None


def _text(error: Exception) -> str:
    return " ".join(str(error).split())
