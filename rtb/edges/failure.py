"""What becomes of a message that cannot be handled, by the class of its failure.

* `Malformed`, `BadRequest`, `InvalidCampaign`, `NotFound`: dead-lettered at once, with the reason in the ERROR header;
* `Transient`: again after RETRY_DELAYS_MS, at most three times, then dead-lettered;
* `StoreError`, `BrokerError`: the consumer waits until the store or the broker is back; no attempt is counted;
* anything else is a mistake of ours: dead-lettered with the error, and the queue goes on.

A message is acknowledged only once its copy is confirmed elsewhere, so it is never lost and perhaps doubled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog
from msgspec import structs

from rtb.errors import BadRequest, BrokerError, InvalidCampaign, Malformed, NotFound, StoreError, Transient
from rtb.ports import ERROR, Broker, Delivery, Message
from rtb.services import topology
from rtb.services.metrics import Metrics

QUEUE = "x-rtb-queue"
"""Header of a dead-lettered message: the queue whose consumer gave it up."""
ATTEMPT = "x-rtb-attempt"
"""Header of a message that is tried again: how often it was, 1 to 3."""
MAX_REASON = 500
"""Characters of the header that says why a message was given up."""
MAX_ATTEMPTS = len(topology.RETRY_DELAYS_MS)

FIRST_WAIT_S = 0.05
LONGEST_WAIT_S = 2.0

HOPELESS = (Malformed, BadRequest, InvalidCampaign, NotFound)
"""Errors that no repetition heals: what the message says is wrong."""

_T = TypeVar("_T")
_log = structlog.get_logger(__name__)


class Failures:
    """Ends deliveries that cannot be handled; every method raises BrokerError when the broker does not take the copy.

    The delivery itself is left to the caller, except by `settle`.
    """

    def __init__(self, broker: Broker, metrics: Metrics) -> None:
        """Publish through `broker`, count in `metrics`."""
        self._broker = broker
        self._metrics = metrics

    async def bury(self, delivery: Delivery, reason: str) -> None:
        """Put its message on the dead-letter exchange, with its reason."""
        reason = " ".join(reason.split())[:MAX_REASON]
        dead = _copy(delivery.message, {ERROR: reason, QUEUE: delivery.queue})
        await self._broker.publish(topology.DEAD_LETTERS, delivery.queue, dead)
        self._metrics.dead_lettered += 1
        _log.info("message_buried", queue=delivery.queue, reason=reason, message_id=delivery.message.message_id)

    async def retry(self, delivery: Delivery, reason: str) -> bool:
        """Have its message come back to its queue later; after the third time, bury it. Whether it will come back."""
        attempt = attempts(delivery.message) + 1
        if attempt > MAX_ATTEMPTS:
            await self.bury(delivery, f"{reason} (given up after {MAX_ATTEMPTS} retries)")
            return False
        again = _copy(delivery.message, {ERROR: " ".join(reason.split())[:MAX_REASON], ATTEMPT: attempt})
        await self._broker.publish(topology.retry_exchange(attempt), delivery.queue, again)
        self._metrics.retried += 1
        return True

    async def settle(self, delivery: Delivery, error: Exception) -> None:
        """End a delivery whose handling raised `error`, as the class of it says, and acknowledge it.

        Waits while the broker is away. Hand StoreError and BrokerError to `outlast` instead: here they count as
        mistakes.
        """
        if isinstance(error, Transient):
            await outlast(lambda: self.retry(delivery, str(error)), "broker")
        elif isinstance(error, HOPELESS):
            await outlast(lambda: self.bury(delivery, str(error)), "broker")
        else:
            self._metrics.message_errors += 1
            _log.error("message_failed", queue=delivery.queue, exc_info=error)
            await outlast(lambda: self.bury(delivery, f"{type(error).__name__}: {error}"), "broker")
        delivery.ack()


def attempts(message: Message) -> int:
    """How often a message was tried again so far; a header that makes no sense counts as every attempt there is."""
    value = message.headers.get(ATTEMPT, 0)
    return value if isinstance(value, int) and 0 <= value <= MAX_ATTEMPTS else MAX_ATTEMPTS


async def outlast(
    work: Callable[[], Awaitable[_T]], what: str, *, reachable: Callable[[], Awaitable[object]] | None = None
) -> _T:
    """The result of `work`, called again, at growing intervals, for as long as the store or the broker is away.

    Args:
        work: repeatable, whatever of it has happened already.
        what: for the log, which tells the begin and the end of the wait once.
        reachable: raises while the store is away. Where it does not, twice in a row, `work` itself was refused.

    Raises:
        Transient: the store is there and refuses this work.
        Exception: whatever else `work` raises.
    """
    wait_s, refused, waited = FIRST_WAIT_S, 0, False
    while True:
        try:
            result = await work()
        except (StoreError, BrokerError) as error:
            if isinstance(error, StoreError) and reachable is not None:
                refused = refused + 1 if await _answers(reachable) else 0
                if refused > 1:
                    raise Transient(str(error)) from error
            if not waited:
                waited = True
                _log.warning("consumer_paused", what=what, reason=str(error))
        else:
            if waited:
                _log.info("consumer_resumed", what=what)
            return result
        await asyncio.sleep(wait_s)
        wait_s = min(2 * wait_s, LONGEST_WAIT_S)


async def _answers(reachable: Callable[[], Awaitable[object]]) -> bool:
    try:
        await reachable()
    except (StoreError, BrokerError):
        return False
    return True


def _copy(message: Message, headers: dict[str, str | int | float]) -> Message:
    return structs.replace(message, headers={**message.headers, **headers}, expiration_ms=None, persistent=True)
