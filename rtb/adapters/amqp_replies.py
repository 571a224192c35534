"""What comes without acknowledgement, and what goes to the dead letters: direct replies, and messages whose consumer
raised."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from msgspec import structs

from rtb.adapters.amqp_consumer import AmqpDelivery
from rtb.ports import (
    DEATH_COUNT,
    DEATH_EXCHANGE,
    DEATH_QUEUE,
    DEATH_REASON,
    DIRECT_REPLY_TO,
    ERROR,
    Clock,
    Delivery,
    Message,
)

MAX_REASON = 500


class Replies:
    """The consumer of direct replies: nothing to acknowledge."""

    def __init__(
        self,
        handler: Callable[[Delivery], None],
        clock: Clock,
        on_cancel: Callable[[], Awaitable[None]],
        on_raise: Callable[[AmqpDelivery, Exception], None],
    ) -> None:
        self.queue = DIRECT_REPLY_TO
        self.clock = clock
        self._handler = handler
        self._on_cancel = on_cancel
        self._on_raise = on_raise

    def take(self, delivery: AmqpDelivery) -> None:
        """Hand it on."""
        try:
            self._handler(delivery)
        except Exception as error:
            self._on_raise(delivery, error)

    async def cancel(self) -> None:
        """Stop taking."""
        await self._on_cancel()

    def ack(self, tag: int) -> None:
        """Nothing to do."""

    def nack(self, tag: int, *, requeue: bool) -> None:
        """Nothing to do."""


def dead_letter(delivery: AmqpDelivery, error: Exception) -> Message:
    """The message as the broker would dead-letter a rejected one, and why its consumer raised."""
    message = delivery.message
    first = {DEATH_REASON: "rejected", DEATH_QUEUE: delivery.queue, DEATH_EXCHANGE: delivery.exchange}
    headers = {
        **first,
        **message.headers,
        DEATH_COUNT: int(message.headers.get(DEATH_COUNT, 0)) + 1,
        ERROR: " ".join(f"{type(error).__name__}: {error}".split())[:MAX_REASON],
    }
    return structs.replace(message, headers=headers, expiration_ms=None)
