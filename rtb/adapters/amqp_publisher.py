"""Publishing with confirms: many in flight, bounded in number, bytes and time."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable

from rtb.adapters import amqp_frames
from rtb.adapters.amqp_channel import FrameTap, TappedChannel
from rtb.errors import BrokerError, Unroutable
from rtb.ports import Message
from rtb.ports.broker import Answer

SWEEP_S = 0.25
KEPT_NAMES = 4_096
UNCONFIRMED = "the message may have arrived: publish it again with the same message_id"


class Pending:
    """A message that the broker has not confirmed yet."""

    __slots__ = ("done", "due_s", "exchange", "mandatory", "message", "returned", "routing_key", "size")

    def __init__(
        self, done: Answer, exchange: str, routing_key: str, message: Message, mandatory: bool, due_s: float
    ) -> None:
        self.done: Answer | None = done  # None: answered
        self.exchange = exchange
        self.routing_key = routing_key
        self.message = message
        self.mandatory = mandatory
        self.due_s = due_s
        self.size = len(message.body)
        self.returned = False

    def answer(self, error: BrokerError | None) -> None:
        """Tell the publisher, once; its own failure is not the connection's."""
        done, self.done = self.done, None
        if done is None:
            return
        try:
            done(error)
        except Exception as raised:
            context = {"message": "what was to hear of a confirm raised", "exception": raised}
            asyncio.get_running_loop().call_exception_handler(context)


class ConfirmChannel(TappedChannel):
    """A channel in confirm mode: numbers what is published and resolves it when the broker answers.

    Source: RabbitMQ, "Consumer Acknowledgements and Publisher Confirms".
    """

    def __init__(self, tap: FrameTap, number: int, frame_max: int, owner: Publisher) -> None:
        super().__init__(tap, number)
        self.in_flight: dict[int, Pending] = {}
        self._owner = owner
        self._frame_max = frame_max
        self._tag = 0
        self._lowest = 1
        self._prefixes: dict[tuple[str, str, bool], bytes] = {}

    def send(self, pending: Pending) -> None:
        """Publish it; raises BrokerError when it does not fit into AMQP."""
        route = (pending.exchange, pending.routing_key, pending.mandatory)
        prefix = self._prefixes.get(route)
        if prefix is None:
            prefix = amqp_frames.publish(self.number, route[0], route[1], mandatory=route[2])
            if len(self._prefixes) >= KEPT_NAMES:
                self._prefixes.clear()
            self._prefixes[route] = prefix
        content = amqp_frames.content(self.number, pending.message, self._frame_max)
        self._tag += 1
        self.in_flight[self._tag] = pending
        self.write(prefix, content)

    def on_settled(self, tag: int, multiple: bool, acked: bool) -> None:
        """Resolve one, or all up to it."""
        if not multiple:
            self._settle(tag, acked)
            return
        for each in range(self._lowest, tag + 1):
            self._settle(each, acked)
        self._lowest = tag + 1

    def on_returned(self, code: int, exchange: str, routing_key: str, body: bytes) -> None:
        """Mark the oldest message that this can be; its confirm follows. Equal messages are routed equally."""
        for pending in self.in_flight.values():
            if (
                pending.mandatory
                and not pending.returned
                and pending.routing_key == routing_key
                and pending.exchange == exchange
                and pending.message.body == body
            ):
                pending.returned = True
                return

    def on_delivery(self, tag: int, redelivered: bool, routing: bytes, properties: bytes, body: bytes) -> None:
        """A direct reply."""
        self._owner.on_reply(routing, properties, body)

    def on_end(self, reason: str) -> None:
        """Nobody will confirm any more."""
        lost, self.in_flight = self.in_flight, {}
        self._owner.on_channel_end(self, reason)
        for pending in lost.values():
            self._owner.release(pending)
            pending.answer(BrokerError(f"not confirmed, {reason}; {UNCONFIRMED}"))

    def _settle(self, tag: int, acked: bool) -> None:
        pending = self.in_flight.pop(tag, None)
        if pending is None:
            return
        self._owner.release(pending)
        if acked and not pending.returned:
            pending.answer(None)
        elif acked:
            where = f"exchange {pending.exchange!r} for {pending.routing_key!r}"
            pending.answer(Unroutable(f"no queue is bound to {where}"))
        else:
            where = f"exchange {pending.exchange!r}, key {pending.routing_key!r}"
            pending.answer(BrokerError(f"a full queue refused a message for {where}"))


class Publisher:
    """What is in flight, what waits, and for how long."""

    def __init__(
        self,
        *,
        max_messages: int,
        max_bytes: int,
        limit_s: float,
        on_reply: Callable[[bytes, bytes, bytes], None],
        on_lost: Callable[[], None],
    ) -> None:
        """Hold at most `max_messages` of `max_bytes` altogether, each for at most `limit_s`.

        `on_reply` gets routing, properties and body of direct replies; `on_lost` hears that a channel is needed while
        the connection may still be there.
        """
        self.on_reply = on_reply
        self.blocked: str | None = None
        """Why the broker blocks publishers; None when it does not."""
        self.problem = "not connected yet"
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._limit_s = limit_s
        self._on_lost = on_lost
        self._channel: ConfirmChannel | None = None
        self._waiting: deque[Pending] = deque()
        self._count = 0
        self._bytes = 0
        self._sweeper: asyncio.TimerHandle | None = None
        self._finished: asyncio.Future[None] | None = None
        self._loop: asyncio.AbstractEventLoop

    @property
    def pending(self) -> int:
        """Messages waiting or in flight."""
        return self._count

    @property
    def has_channel(self) -> bool:
        """Whether there is a channel to publish over."""
        return self._channel is not None

    def begin(self) -> None:
        """Belong to the running loop: to ask for it is a system call (getpid), too much for every message."""
        self._loop = asyncio.get_running_loop()

    async def finish(self, limit_s: float) -> None:
        """Wait for the confirms of what was sent, at most so long."""
        if self._channel is not None and self._channel.in_flight:
            self._finished = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._finished], timeout=limit_s)

    def send(self, exchange: str, routing_key: str, message: Message, done: Answer, mandatory: bool) -> None:
        """Send it now or when that is possible again, and tell `done` what the broker answers."""
        if self._count >= self._max_messages or self._bytes >= self._max_bytes:
            done(BrokerError(self._crowded()))
            return
        loop = self._loop
        pending = Pending(done, exchange, routing_key, message, mandatory, loop.time() + self._limit_s)
        channel = self._channel
        if channel is None or self.blocked is not None:
            self._waiting.append(pending)
        else:
            try:
                channel.send(pending)
            except BrokerError as error:
                done(error)
                return
        self._count += 1
        self._bytes += pending.size
        if self._sweeper is None:
            self._sweeper = loop.call_later(SWEEP_S, self._sweep)

    def release(self, pending: Pending) -> None:
        """It is no longer held."""
        self._count -= 1
        self._bytes -= pending.size
        if self._finished is not None and not self._count and not self._finished.done():
            self._finished.set_result(None)

    def on_channel_end(self, channel: ConfirmChannel, reason: str) -> None:
        """What waits goes on waiting, for a channel."""
        if channel is self._channel:
            self._channel = None
            self.problem = reason
            self._on_lost()

    def use(self, channel: ConfirmChannel) -> None:
        """Publish over this channel from now on, what waits first. A new connection is blocked when it is told so."""
        self._channel = channel
        self.blocked = None
        self.problem = ""
        self._send_waiting()

    def on_blocked(self, reason: str | None) -> None:
        """The broker blocks publishers, or, with None, lets them go on."""
        self.blocked = reason
        if reason is None:
            self._send_waiting()

    def fail_all(self, error: BrokerError) -> None:
        """Nothing will be sent any more."""
        waiting, self._waiting = self._waiting, deque()
        for pending in waiting:
            self.release(pending)
            pending.answer(error)
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None

    def _crowded(self) -> str:
        why = f"the broker blocks publishers: {self.blocked}" if self.blocked else self.problem or "it is slow"
        return f"{self._count} messages of {self._bytes} bytes wait for the broker, no more fit ({why})"

    def _send_waiting(self) -> None:
        waiting = self._waiting
        while waiting and self._channel is not None and self.blocked is None:
            pending = waiting.popleft()
            try:
                self._channel.send(pending)
            except BrokerError as error:
                self.release(pending)
                pending.answer(error)

    def _sweep(self) -> None:
        """Give up what took too long. What was sent stays counted until the broker answers or is gone."""
        self._sweeper = None
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        waiting = self._waiting
        why = f"it blocks publishers: {self.blocked}" if self.blocked else self.problem or "it does not answer"
        while waiting and waiting[0].due_s <= now_s:
            pending = waiting.popleft()
            self.release(pending)
            pending.answer(BrokerError(f"not sent to the broker within {self._limit_s:g} s, {why}"))
        if self._channel is not None:
            late = itertools.takewhile(lambda pending: pending.due_s <= now_s, self._channel.in_flight.values())
            for pending in [*late]:
                pending.answer(BrokerError(f"not confirmed within {self._limit_s:g} s, {why}; {UNCONFIRMED}"))
        if self._count:
            self._sweeper = loop.call_later(SWEEP_S, self._sweep)
