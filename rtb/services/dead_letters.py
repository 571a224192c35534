"""What was given up: look at it, send it back to where it died, or drop it.

A dead letter stands in ``ad.dead`` with the queue it died in as its routing key. Looking takes messages and gives them
back to their places; meanwhile, for that short time, a second reader does not see them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager

from msgspec import Struct, structs

from rtb.errors import BrokerError, NotFound, Unroutable
from rtb.ports import DEATH_COUNT, DEATH_EXCHANGE, DEATH_QUEUE, DEATH_REASON, ERROR, Broker, Delivery, Message
from rtb.services.topology import DEAD

SCAN_LIMIT = 10_000
"""Messages that one command looks at, from the oldest on: what it holds in memory."""

LIST_LIMIT = 100
OURS = "x-rtb-"
"""Our own headers begin so."""


class DeadLetter(Struct, frozen=True):
    """One message that was given up.

    `reason` is rejected, expired, maxlen or delivery_limit, `error` what its consumer said, `deaths` how often it died.
    Both texts are empty where nobody said so.
    """

    message_id: str
    queue: str
    reason: str
    error: str
    deaths: int
    timestamp: float | None
    body: bytes


class Requeued(Struct, frozen=True):
    """How many went back to their queues, and one line for each that could not and stays."""

    count: int
    kept: tuple[str, ...]


class DeadLetters:
    """Commands on ``ad.dead``. Each raises BrokerError when the broker is away; nothing is lost then."""

    def __init__(self, broker: Broker) -> None:
        """Work over this connection."""
        self._broker = broker

    async def oldest(self, limit: int = LIST_LIMIT) -> list[DeadLetter]:
        """The oldest ones, oldest first."""
        async with self._held(limit) as held:
            return [_letter(delivery) for delivery in held]

    async def show(self, message_id: str) -> DeadLetter:
        """The oldest one with this id; raises NotFound."""
        async with self._held(SCAN_LIMIT) as held:
            for delivery in held:
                if delivery.message.message_id == message_id:
                    return _letter(delivery)
        raise NotFound(f"no dead letter {message_id} among the oldest {SCAN_LIMIT}; `rtb dead-letters list` names them")

    async def requeue(self, message_ids: Collection[str] | None = None) -> Requeued:
        """Send those with these ids, or all, back to the queues they died in, as if they had never been there.

        Each is taken out of ``ad.dead`` only when its queue has confirmed it: a crash in between leaves it twice, and
        consumers know it by its message_id. At most SCAN_LIMIT at once.

        Raises:
            NotFound: none of these ids.
        """
        chosen = _chosen(message_ids)
        count, kept = 0, list[str]()
        async with self._held(SCAN_LIMIT) as held:
            deliveries = [delivery for delivery in held if chosen(delivery)]
            for delivery in deliveries:
                try:
                    await self._broker.publish("", delivery.routing_key, _fresh(delivery.message))
                except Unroutable:
                    kept.append(f"{delivery.message.message_id}: there is no queue {delivery.routing_key} any more")
                except BrokerError as error:
                    kept.append(f"{delivery.message.message_id}: {error}")
                else:
                    delivery.ack()
                    count += 1
        _require(message_ids, deliveries)
        return Requeued(count, tuple(kept))

    async def purge(self, message_ids: Collection[str] | None = None) -> int:
        """Drop those with these ids, or all; how many. Raises NotFound when there are none of these ids."""
        if message_ids is None:
            return await self._broker.purge(DEAD)
        chosen = _chosen(message_ids)
        async with self._held(SCAN_LIMIT) as held:
            deliveries = [delivery for delivery in held if chosen(delivery)]
            for delivery in deliveries:
                delivery.ack()
        _require(message_ids, deliveries)
        return len(deliveries)

    @asynccontextmanager
    async def _held(self, limit: int) -> AsyncIterator[list[Delivery]]:
        """The oldest messages; those not acknowledged go back to their places."""
        held: list[Delivery] = []
        try:
            while len(held) < limit and (delivery := await self._broker.get(DEAD)) is not None:
                held.append(delivery)
            yield held
        finally:
            for delivery in reversed(held):
                delivery.nack(requeue=True)  # does nothing to what was acknowledged


def _letter(delivery: Delivery) -> DeadLetter:
    message, headers = delivery.message, delivery.message.headers
    return DeadLetter(
        message_id=message.message_id,
        queue=delivery.routing_key,
        reason=str(headers.get(DEATH_REASON, "")),
        error=str(headers.get(ERROR, "")),
        deaths=int(headers.get(DEATH_COUNT, 0)),
        timestamp=message.timestamp,
        body=message.body,
    )


def _fresh(message: Message) -> Message:
    """The message as it was before anything happened to it."""
    dead = {DEATH_REASON, DEATH_QUEUE, DEATH_EXCHANGE, DEATH_COUNT, ERROR}
    headers = {n: value for n, value in message.headers.items() if n not in dead and not n.startswith(OURS)}
    return structs.replace(message, headers=headers, expiration_ms=None, persistent=True)


def _chosen(message_ids: Collection[str] | None) -> Callable[[Delivery], bool]:
    if message_ids is None:
        return lambda delivery: True
    wanted = frozenset(message_ids)
    return lambda delivery: delivery.message.message_id in wanted


def _require(message_ids: Collection[str] | None, found: Collection[Delivery]) -> None:
    if message_ids is not None and not found:
        raise NotFound(
            f"no dead letter {', '.join(message_ids)} among the oldest {SCAN_LIMIT}; `rtb dead-letters list` names them"
        )
