"""Notices that were called at other instances, off this one's own queue: it sold, so it knows whom to tell."""

from __future__ import annotations

import structlog

from rtb import messages
from rtb.errors import Malformed
from rtb.messages import BIDDER_NOTICE, MessageType
from rtb.ports import Broker, Delivery, Subscription
from rtb.services import topology
from rtb.services.metrics import Metrics
from rtb.services.tracker import Tracker

PREFETCH = 256

_log = structlog.get_logger(__name__)


class BidderNotices:
    """Hands them to the tracker."""

    def __init__(self, broker: Broker, tracker: Tracker, metrics: Metrics, *, instance: str) -> None:
        """Those of the sales of `instance`, which is this process."""
        self._broker = broker
        self._tracker = tracker
        self._metrics = metrics
        self._instance = instance
        self._subscription: Subscription | None = None

    async def start(self) -> None:
        """Declare the queue and begin. Raises BrokerError."""
        await self._broker.declare(topology.notice_topology(self._instance))
        queue = topology.notice_queue(self._instance)
        self._subscription = await self._broker.consume(queue, self._hear, prefetch=PREFETCH)

    async def stop(self) -> None:
        """Hear no more."""
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            await subscription.cancel()

    def _hear(self, delivery: Delivery) -> None:
        self._metrics.consumed += 1
        try:
            envelope = messages.decode(delivery.message.body)
            if envelope.message_type is not MessageType.BIDDER_NOTICE:
                raise Malformed(f"message_type: {envelope.message_type.value} does not belong on {delivery.queue}")
            self._tracker.heard(BIDDER_NOTICE.decode(envelope.data))
        except Malformed as error:
            self._metrics.message_errors += 1
            _log.warning("notice_not_understood", reason=str(error))
        except Exception:
            self._metrics.message_errors += 1
            _log.exception("notice_failed", message_id=delivery.message.message_id)
        delivery.ack()
