"""Events off the queues into the ledger: in batches, each acknowledged once its row is committed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from rtb import messages
from rtb.edges.failure import Failures, outlast
from rtb.errors import Malformed, RtbError, Transient
from rtb.messages import WIN, MessageType, Win
from rtb.ports import Broker, Clock, Delivery, LedgerKind, LedgerRow, Subscription
from rtb.services import topology
from rtb.services.billing import Billing, BillingEvent
from rtb.services.metrics import Metrics

BATCH = 1_000
LINGER_S = 0.05
"""How long the first event of a batch waits for others."""
PREFETCH = 3 * BATCH

_log = structlog.get_logger(__name__)
_Entry = tuple[Delivery, BillingEvent]


class WinConsumer:
    """Bills the wins on ``ad.wins``: a win is the billing event of a CPM campaign.

    While the ledger or the accounts are away the batch in hand waits, at most `prefetch` wins stay unacknowledged, and
    no attempt is counted. A win that makes no sense, or of a campaign that nobody knows, goes to the dead letters.
    """

    def __init__(
        self,
        broker: Broker,
        billing: Billing,
        metrics: Metrics,
        clock: Clock,
        *,
        prefetch: int = PREFETCH,
        batch: int = BATCH,
        linger_s: float = LINGER_S,
    ) -> None:
        """Bill up to `batch` wins at once, or what comes within `linger_s`."""
        self._broker = broker
        self._billing = billing
        self._metrics = metrics
        self._clock = clock
        self._prefetch = prefetch
        self._batch = batch
        self._linger_s = linger_s
        self._failures = Failures(broker, metrics)
        self._waiting: list[Delivery] = []
        self._filled = asyncio.Event()
        self._arrived = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._subscription: Subscription | None = None
        self._worker: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to take wins. Raises BrokerError."""
        self._worker = asyncio.create_task(self._work())
        self._subscription = await self._broker.consume(topology.WINS, self._take, prefetch=self._prefetch)

    async def drain(self) -> None:
        """Return once nothing is waiting on the queue and all that was taken is billed. Raises BrokerError."""
        while (await self._broker.depth(topology.WINS)).ready or not self._idle.is_set():
            self._filled.set()
            await asyncio.sleep(0)  # give the broker, then the worker, their turn
            await self._idle.wait()

    async def stop(self) -> None:
        """Take no more, and finish what was taken; cancelled, leave it to whoever consumes next."""
        if self._subscription is not None:
            await self._subscription.cancel()
            self._subscription = None
        if self._worker is None:
            return
        try:
            self._filled.set()
            await self._idle.wait()
        finally:
            self._worker.cancel()
            await asyncio.wait({self._worker})
            self._worker = None

    def _take(self, delivery: Delivery) -> None:
        self._waiting.append(delivery)
        self._idle.clear()
        self._arrived.set()
        if len(self._waiting) >= self._batch:
            self._filled.set()

    async def _work(self) -> None:
        while True:
            await self._arrived.wait()
            if self._subscription is not None and len(self._waiting) < self._batch:
                try:
                    await asyncio.wait_for(self._filled.wait(), self._linger_s)
                except TimeoutError:
                    pass
            batch, self._waiting = self._waiting[: self._batch], self._waiting[self._batch :]
            try:
                await self._handle(batch)
            except Exception:
                _log.exception("wins_failed", wins=len(batch))
                for delivery in batch:
                    delivery.nack(requeue=True)
            if len(self._waiting) < self._batch:
                self._filled.clear()
            if not self._waiting:
                self._arrived.clear()
                self._idle.set()

    async def _handle(self, deliveries: Sequence[Delivery]) -> None:
        self._metrics.consumed += len(deliveries)
        entries: list[_Entry] = []
        for delivery in deliveries:
            try:
                entries.append((delivery, _event(delivery)))
            except Exception as error:
                await self._failures.settle(delivery, error)
        if entries:
            await self._bill(entries)
        now_ns = self._clock.monotonic_ns()
        for delivery in deliveries:
            self._metrics.message_time.record(now_ns - delivery.arrived_ns)

    async def _bill(self, entries: Sequence[_Entry]) -> None:
        events = [event for _, event in entries]
        try:
            results = await outlast(lambda: self._billing.bill(events), "ledger", reachable=self._billing.check)
        except Transient as error:
            if len(entries) == 1:
                await self._failures.settle(entries[0][0], error)
                return
            for entry in entries:  # one of them is refused: the others shall not suffer
                await self._bill([entry])
            return
        for (delivery, _), result in zip(entries, results, strict=True):
            if isinstance(result, RtbError):
                await self._failures.settle(delivery, result)
            else:
                delivery.ack()


def _event(delivery: Delivery) -> BillingEvent:
    """The billing event in a delivery. Raises Malformed."""
    envelope = messages.decode(delivery.message.body)
    if envelope.message_type is not MessageType.WIN:
        raise Malformed(f"message_type: {envelope.message_type.value} does not belong on {topology.WINS}")
    win = WIN.decode(envelope.data)
    if "\0" in win.auction_id + win.impid + win.campaign_id + win.day + win.instance:
        raise Malformed("data: a field contains a NUL character")
    return BillingEvent(win_row(win), win.price_nanos)


def win_row(win: Win) -> LedgerRow:
    """The ledger row of a win, not charged yet."""
    return LedgerRow(
        key=f"{win.auction_id}:{win.impid}:win",
        kind=LedgerKind.WIN,
        campaign_id=win.campaign_id,
        day=win.day,
        auction_id=win.auction_id,
        impid=win.impid,
        instance=win.instance,
        price_nanos=win.price_nanos,
        charged_nanos=0,
        expires_at=win.expires_at,
        received_at=win.received_at,
    )
