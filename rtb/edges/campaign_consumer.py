"""Campaign updates off ``ad.campaigns``: every daemon hears what was written, one writes what comes from outside."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable

import structlog

from rtb import messages
from rtb.domain import campaign as campaigns_
from rtb.domain import campaign_change
from rtb.edges.failure import Failures, outlast
from rtb.errors import InvalidCampaign, Malformed
from rtb.messages import CAMPAIGN_UPDATE, PERFORMANCE_UPDATE, Envelope, MessageType, PerformanceUpdate
from rtb.ports import Broker, Clock, Delivery, Subscription
from rtb.services import topology
from rtb.services.campaigns import Campaigns
from rtb.services.metrics import Metrics
from rtb.services.waiting import ended

PREFETCH = 64
REMEMBERED = 10_000

_log = structlog.get_logger(__name__)


class CampaignListener:
    """Hears of every update on this daemon's own queue, and applies those that are in the repository.

    What comes from outside is left to the writer, which announces it once it is written.
    """

    def __init__(
        self,
        broker: Broker,
        catalogue: Campaigns,
        metrics: Metrics,
        *,
        instance: str,
        on_performance: Callable[[PerformanceUpdate, str], None] = lambda update, message_id: None,
    ) -> None:
        """Hear for `instance`; `on_performance` gets what tracking tells of every campaign, with its message id."""
        self._broker = broker
        self._catalogue = catalogue
        self._metrics = metrics
        self._instance = instance
        self._on_performance = on_performance
        self._subscription: Subscription | None = None

    async def start(self) -> None:
        """Declare the daemon's own queue and begin. Raises BrokerError."""
        await self._broker.declare(topology.instance_topology(self._instance))
        queue = topology.instance_queue(self._instance)
        self._subscription = await self._broker.consume(queue, self._hear, prefetch=PREFETCH)
        self._catalogue.look()

    async def stop(self) -> None:
        """Hear no more."""
        if self._subscription is not None:
            await self._subscription.cancel()
            self._subscription = None

    def _hear(self, delivery: Delivery) -> None:
        self._metrics.consumed += 1
        try:
            self._act(messages.decode(delivery.message.body))
        except (Malformed, InvalidCampaign) as error:
            _log.debug("update_not_understood", reason=str(error))  # the writer puts it with the dead letters
        except Exception:
            self._metrics.message_errors += 1
            _log.exception("update_not_applied", message_id=delivery.message.message_id)
            self._catalogue.look()
        delivery.ack()

    def _act(self, envelope: Envelope) -> None:
        if envelope.message_type is MessageType.PERFORMANCE_UPDATE:
            for performed, message_id in PERFORMANCE_UPDATE.decode(envelope.data).each(envelope.message_id):
                self._on_performance(performed, message_id)
            return
        if envelope.message_type is not MessageType.CAMPAIGN_UPDATE:
            return
        update = CAMPAIGN_UPDATE.decode(envelope.data)
        if not update.persisted or update.origin == self._instance:
            return
        if update.campaign:
            self._catalogue.apply(campaigns_.decode(bytes(update.campaign)))
        else:
            self._catalogue.look()


class CampaignWriter:
    """Writes the updates that come from outside, one after the other, off the queue ``campaign.updates``.

    An update is acknowledged once it is in the repository. While that is away the writer waits; what is unknown or
    makes no sense goes to the dead letters. An update that comes twice is written once: by its version when it has one,
    else by its message id as long as this process remembers it, and what changes nothing is never written.
    """

    def __init__(self, broker: Broker, catalogue: Campaigns, metrics: Metrics, clock: Clock) -> None:
        """Write to `catalogue`, which announces what was written."""
        self._broker = broker
        self._catalogue = catalogue
        self._metrics = metrics
        self._clock = clock
        self._failures = Failures(broker, metrics)
        self._waiting: asyncio.Queue[Delivery] = asyncio.Queue()
        self._written: OrderedDict[tuple[str, int], None] = OrderedDict()
        self._subscription: Subscription | None = None
        self._worker: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to take updates. Raises BrokerError."""
        self._worker = asyncio.create_task(self._work())
        self._subscription = await self._broker.consume(
            topology.CAMPAIGN_UPDATES, self._waiting.put_nowait, prefetch=PREFETCH
        )

    async def stop(self) -> None:
        """Take no more, and finish what was taken; cancelled, leave it to whoever consumes next."""
        if self._subscription is not None:
            await self._subscription.cancel()
            self._subscription = None
        if self._worker is None:
            return
        try:
            await self._waiting.join()
        finally:
            await ended(self._worker)
            self._worker = None

    async def _work(self) -> None:
        while True:
            delivery = await self._waiting.get()
            try:
                await self._handle(delivery)
            except Exception:
                _log.exception("campaign_update_failed", message_id=delivery.message.message_id)
                delivery.nack(requeue=True)
            finally:
                self._waiting.task_done()

    async def _handle(self, delivery: Delivery) -> None:
        self._metrics.consumed += 1
        try:
            await self._write(delivery)
        except Exception as error:
            await self._failures.settle(delivery, error)
        else:
            delivery.ack()
        self._metrics.message_time.record(self._clock.monotonic_ns() - delivery.arrived_ns)

    async def _write(self, delivery: Delivery) -> None:
        envelope = messages.decode(delivery.message.body)
        if envelope.message_type is MessageType.PERFORMANCE_UPDATE:
            return
        if envelope.message_type is not MessageType.CAMPAIGN_UPDATE:
            raise Malformed(f"message_type: {envelope.message_type.value} does not belong on {topology.CAMPAIGNS}")
        data = bytes(envelope.data)
        key = (envelope.message_id, hash(data))
        if CAMPAIGN_UPDATE.decode(data).persisted or key in self._written:
            return
        change = campaign_change.decode(data)
        new = await outlast(lambda: self._catalogue.update(change), "repository", reachable=self._catalogue.check)
        if new is not None:
            _log.info("campaign_updated", campaign_id=new.id, version=new.version, message_id=envelope.message_id)
        self._written[key] = None
        if len(self._written) > REMEMBERED:
            self._written.popitem(last=False)
