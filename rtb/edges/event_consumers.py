"""Events off the queues into the ledger: in batches, each acknowledged once its row is committed."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import msgspec
import structlog
from msgspec import Struct

from rtb import messages
from rtb.domain.budget import LIFE, budget_day
from rtb.edges.failure import MAX_ATTEMPTS, Failures, attempts, outlast
from rtb.errors import Malformed, RtbError, Transient
from rtb.messages import MAX_BODY, TRACKED_EVENT, WIN, Id, MessageType, Time, TrackedEvent, Win
from rtb.ports import Broker, Clock, Delivery, LedgerKind, Message, Subscription
from rtb.services import topology
from rtb.services.arrival import Arrival
from rtb.services.billing import Billing, BillingEvent
from rtb.services.metrics import Metrics
from rtb.services.rebuild import UTC_ZONE
from rtb.services.tracking import Tracking
from rtb.services.waiting import ended
from rtb.services.wins import event_id_of, message_of, win_row, wins_of

BATCH = 1_000
LINGER_S = 0.05
"""How long the first event of a batch waits for others."""
PROMISE_LINGER_S = 0.2
"""The same of a win that charges nobody: its row costs a tenth where it comes with others, and nobody waits for it."""
PREFETCH = 3 * BATCH
WIN_BATCH = 32
"""Messages of wins at once: each may tell 16, and auctions wait while so many rows are made."""

_T = TypeVar("_T")
_log = structlog.get_logger(__name__)


class Work(Protocol[_T]):
    """What is done with the events of a queue."""

    def decode(self, delivery: Delivery) -> _T:
        """The event in a delivery. Raises Malformed."""
        ...

    async def handle(self, events: Sequence[_T]) -> Sequence[RtbError | None]:
        """Take them; for each None, or why it ends or comes again (Transient). Repeatable. Raises StoreError."""
        ...

    def parts(self, event: _T) -> Sequence[Message]:
        """The messages that a message of several may be split into; none where there is only one."""
        ...

    async def check(self) -> None:
        """Raise StoreError while what it needs is away."""
        ...


class EventConsumer(Generic[_T]):
    """Hands the events of one queue to its work, many at once.

    While a store is away the batch in hand waits, at most `prefetch` events stay unacknowledged, and no attempt is
    counted. An event that makes no sense goes to the dead letters.
    """

    def __init__(
        self,
        broker: Broker,
        queue: str,
        work: Work[_T],
        metrics: Metrics,
        clock: Clock,
        *,
        prefetch: int = PREFETCH,
        batch: int = BATCH,
        linger_s: float = LINGER_S,
    ) -> None:
        """Take up to `batch` events of `queue` at once, or what comes within `linger_s`."""
        self.queue = queue
        self._broker = broker
        self._work = work
        self._metrics = metrics
        self._clock = clock
        self._prefetch = prefetch
        self._batch = batch
        self._linger_s = linger_s
        self._failures = Failures(broker, metrics)
        # No more than `prefetch` can be acknowledged: older ones are of a connection that ended, and come again.
        self._waiting: deque[Delivery] = deque(maxlen=prefetch)
        self._filled = asyncio.Event()
        self._arrived = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._subscription: Subscription | None = None
        self._worker: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Events that were taken and are not in the batch in hand."""
        return len(self._waiting)

    async def start(self) -> None:
        """Begin to take events. Raises BrokerError."""
        self._worker = asyncio.create_task(self._run())
        self._subscription = await self._broker.consume(self.queue, self._take, prefetch=self._prefetch)

    async def drain(self) -> None:
        """Return once nothing is waiting on the queue and all that was taken is handled. Raises BrokerError."""
        while (await self._broker.depth(self.queue)).ready or not self._idle.is_set():
            self._filled.set()
            await asyncio.sleep(0)  # give the broker, then the worker, their turn
            await self._idle.wait()

    async def stop(self) -> None:
        """Take no more, and finish what was taken; cancelled, leave it to whoever consumes next."""
        try:
            if self._subscription is not None:
                subscription, self._subscription = self._subscription, None
                await subscription.cancel()
            if self._worker is not None:
                self._filled.set()
                await self._idle.wait()
        finally:
            if self._worker is not None:
                await ended(self._worker)
                self._worker = None

    def _take(self, delivery: Delivery) -> None:
        self._waiting.append(delivery)
        self._idle.clear()
        self._arrived.set()
        if len(self._waiting) >= self._batch:
            self._filled.set()

    async def _run(self) -> None:
        while True:
            await self._arrived.wait()
            if self._subscription is not None and len(self._waiting) < self._batch:
                await self._linger()
            batch = [self._waiting.popleft() for _ in range(min(self._batch, len(self._waiting)))]
            try:
                await self._handle(batch)
            except Exception:
                _log.exception("events_failed", queue=self.queue, events=len(batch))
                for delivery in batch:
                    delivery.nack(requeue=True)
            if len(self._waiting) < self._batch:
                self._filled.clear()
            if not self._waiting:
                self._arrived.clear()
                self._idle.set()

    async def _linger(self) -> None:
        """Until the batch is full, or others have had their time."""
        try:
            async with asyncio.timeout(self._linger_s):  # wait_for of Python 3.11 may swallow a cancellation
                await self._filled.wait()
        except TimeoutError:
            pass

    async def _handle(self, deliveries: Sequence[Delivery]) -> None:
        self._metrics.consumed += len(deliveries)
        entries: list[tuple[Delivery, _T]] = []
        decode = self._work.decode
        for delivery in deliveries:
            try:
                entries.append((delivery, decode(delivery)))
            except Exception as error:
                await self._failures.settle(delivery, error)
        if entries:
            await self._finish(entries)
        now_ns = self._clock.monotonic_ns()
        self._metrics.message_time.record_all([now_ns - delivery.arrived_ns for delivery in deliveries])

    async def _finish(self, entries: Sequence[tuple[Delivery, _T]]) -> None:
        events = [event for _, event in entries]
        try:
            results = await outlast(lambda: self._work.handle(events), "ledger", reachable=self._work.check)
        except Transient as error:
            if len(entries) == 1:
                await self._refuse(*entries[0], error)
                return
            for entry in entries:  # one of them is refused: the others shall not suffer
                await self._finish([entry])
            return
        failed: list[Coroutine[Any, Any, None]] = []
        for (delivery, event), result in zip(entries, results, strict=True):
            if result is None:
                delivery.ack()
            else:
                failed.append(self._refuse(delivery, event, result))
        if failed:
            await asyncio.gather(*failed)

    async def _refuse(self, delivery: Delivery, event: _T, error: RtbError) -> None:
        """Let it come again or bury it; a message of several is split first, for only one of them may be at fault."""
        parts = self._work.parts(event)
        if not parts:
            await self._failures.settle(delivery, error)
            return
        for part in parts:
            await outlast(partial(self._broker.publish, "", self.queue, part), "broker")
        delivery.ack()


class TrackedWork:
    """Impressions, clicks and conversions, a queue each: checked, priced and billed by Tracking."""

    def __init__(self, tracking: Tracking, kind: LedgerKind) -> None:
        """Of one kind."""
        self._tracking = tracking
        self._kind = kind
        self._type = MessageType(kind.value)

    def decode(self, delivery: Delivery) -> Arrival:
        """The event, and whether it is here for the last time."""
        message = delivery.message
        message_type, message_id, event = _told(message.body)
        if message_type is not self._type:
            raise _misplaced(message_type, delivery.queue)
        return Arrival(message_id, self._kind, event, bool(message.headers) and attempts(message) >= MAX_ATTEMPTS)

    def parts(self, event: Arrival) -> Sequence[Message]:
        """None: a message tells one event."""
        return ()

    async def handle(self, events: Sequence[Arrival]) -> Sequence[RtbError | None]:
        """Into the ledger."""
        return await self._tracking.handle(events)

    async def check(self) -> None:
        """Whether ledger, accounts and state are there."""
        await self._tracking.check()


class WinWork:
    """Wins of house campaigns. Where impressions are tracked a win is a promise, which stands in the ledger and charges
    nobody; else the win is the billing event."""

    def __init__(self, billing: Billing, *, bills: bool, date: Callable[[str, float], str]) -> None:
        """`date` gives the day of a campaign (id, Unix seconds) that its wins without a budget day count for."""
        self._billing = billing
        self._bills = bills
        self._date = date

    def decode(self, delivery: Delivery) -> Sequence[Win]:
        """The wins of a message."""
        envelope = messages.decode(delivery.message.body)
        if envelope.message_type is not MessageType.WIN:
            raise _misplaced(envelope.message_type, delivery.queue)
        wins = wins_of(WIN.decode(envelope.data))
        for win in wins:
            names = win.auction_id + win.impid + win.campaign_id + win.day + win.instance + win.creative_id + win.user
            if "\0" in names:
                raise Malformed(NUL)
        return wins

    def parts(self, event: Sequence[Win]) -> Sequence[Message]:
        """A message for each win."""
        return [message_of([win]) for win in event] if len(event) > 1 else ()

    async def handle(self, events: Sequence[Sequence[Win]]) -> Sequence[RtbError | None]:
        """Record them, or bill them."""
        rows = [win_row(win, self._day(win), event_id_of(win)) for wins in events for win in wins]
        if not self._bills:
            await self._billing.record(rows)
            return [None] * len(events)
        results = iter(await self._billing.bill([BillingEvent(row, row.price_nanos) for row in rows]))
        return [_first_error([next(results) for _ in wins]) for wins in events]

    def _day(self, win: Win) -> str:
        return win.day if win.day and win.day != LIFE else self._date(win.campaign_id, win.received_at)

    async def check(self) -> None:
        """Whether ledger and accounts are there."""
        await self._billing.check()


class WinConsumer(EventConsumer[Sequence[Win]]):
    """Takes the wins on ``ad.wins``; with `bills` a win of a campaign that nobody knows goes to the dead letters."""

    def __init__(
        self,
        broker: Broker,
        billing: Billing,
        metrics: Metrics,
        clock: Clock,
        *,
        bill_wins: bool = True,
        date: Callable[[str, float], str] = lambda campaign_id, at: budget_day(at, UTC_ZONE),
        prefetch: int = PREFETCH // 4,
        batch: int = WIN_BATCH,
        linger_s: float | None = None,
    ) -> None:
        """With `bill_wins` the win is the billing event of a CPM campaign: where no impression is tracked. `prefetch`
        and `batch` are less than others': a message may tell 16 wins. By default those that charge nobody linger."""
        if linger_s is None:
            linger_s = LINGER_S if bill_wins else PROMISE_LINGER_S
        work = WinWork(billing, bills=bill_wins, date=date)
        limits = {"prefetch": prefetch, "batch": batch}
        super().__init__(broker, topology.WINS, work, metrics, clock, **limits, linger_s=linger_s)


def _first_error(results: Sequence[object]) -> RtbError | None:
    return next((result for result in results if isinstance(result, RtbError)), None)


TRACKED = {
    topology.IMPRESSIONS: LedgerKind.IMPRESSION,
    topology.CLICKS: LedgerKind.CLICK,
    topology.CONVERSIONS: LedgerKind.CONVERSION,
}


def tracked_consumers(
    broker: Broker,
    tracking: Tracking,
    metrics: Metrics,
    clock: Clock,
    *,
    prefetch: int = PREFETCH,
    batch: int = BATCH,
    linger_s: float = LINGER_S,
) -> list[EventConsumer[Arrival]]:
    """A consumer a queue of tracked events."""
    return [
        EventConsumer(
            broker,
            queue,
            TrackedWork(tracking, kind),
            metrics,
            clock,
            prefetch=prefetch,
            batch=batch,
            linger_s=linger_s,
        )
        for queue, kind in TRACKED.items()
    ]


NUL = "data: a field contains a NUL character"
_ESCAPED_NUL = b"\\u0000"


class _Told(Struct, frozen=True, gc=False):
    """An envelope with a tracked event, read in one go."""

    message_id: Id
    message_type: MessageType
    timestamp: Time
    data: TrackedEvent
    correlation_id: str | None = None
    reply_to: str | None = None


_told_decoder = msgspec.json.Decoder(_Told)


def _told(body: bytes) -> tuple[MessageType, str, TrackedEvent]:
    """Type, id and event of a message. Raises Malformed."""
    if len(body) <= MAX_BODY and _ESCAPED_NUL not in body:
        try:
            told = _told_decoder.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            pass  # step by step it will be told what is wrong
        else:
            return told.message_type, told.message_id, told.data
    envelope = messages.decode(body)
    if envelope.message_type not in _TRACKED_TYPES:
        return envelope.message_type, envelope.message_id, _NO_EVENT
    event = TRACKED_EVENT.decode(envelope.data)
    texts = (envelope.message_id, event.campaign_id, event.refused, event.source, event.ua, event.ip, event.order_id)
    if "\0" in "".join(texts):
        raise Malformed(NUL)
    return envelope.message_type, envelope.message_id, event


_TRACKED_TYPES = frozenset(MessageType(kind.value) for kind in TRACKED.values())
_NO_EVENT = TrackedEvent(received_at=1.0)


def _misplaced(message_type: MessageType, queue: str) -> Malformed:
    return Malformed(f"message_type: {message_type.value} does not belong on {queue}")
