"""Bid requests over the message queue: published to ``ad.bidding`` / ``bid.request``, answered to a private queue."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Iterator, Sequence
from itertools import cycle

import msgspec

from rtb import messages
from rtb.errors import BrokerError, Malformed
from rtb.lab.load.http_target import Report
from rtb.lab.load.payload import Payload, request_ids
from rtb.lab.load.plan import Plan, Result
from rtb.lab.load.run import Progress, bodies, measure
from rtb.lab.load.tally import Outcome
from rtb.messages import MessageType
from rtb.openrtb import NoBid
from rtb.ports import Broker, Delivery, Message, QueueSpec, Subscription, Topology
from rtb.services import topology

PREFETCH = 1000
EXPIRATION_MS = 10_000

_BY_STATUS = {"success": Outcome.WON, "no_bid": Outcome.NO_BID, "timeout": Outcome.TIMEOUT}
_BY_NBR: dict[int, Outcome] = {NoBid.SHED: Outcome.SHED, NoBid.ALL_LATE: Outcome.TIMEOUT}


class QueueTarget:
    """Publishes bid requests and matches the answers by correlation id; at most `limit` are under way at any time."""

    def __init__(
        self,
        broker: Broker,
        prepared: Sequence[Payload],
        request_ids: Iterator[bytes],
        *,
        limit: int = 1000,
        give_up_ns: int = 2_000_000_000,
    ) -> None:
        """Use a broker that is started and has the topology; `open` makes the private queue."""
        self._broker = broker
        self._bodies = cycle(prepared)
        self._request_ids = request_ids
        self._limit = limit
        self._give_up_ns = give_up_ns
        self._reply_to = f"lab.load.{secrets.token_hex(8)}"
        self._under_way: dict[str, tuple[int, int]] = {}  # correlation id: intended, sent
        self._publishing: set[asyncio.Task[None]] = set()
        self._subscription: Subscription | None = None
        self._closing = False
        self._report: Report

    async def open(self, report: Report) -> None:
        """Declare the private queue and listen on it.

        Raises:
            BrokerError: the broker is away.
        """
        self._report = report
        queue = QueueSpec(self._reply_to, max_length=100_000, exclusive=True)
        await self._broker.declare(Topology(exchanges={}, queues=(queue,), bindings=()))
        self._subscription = await self._broker.consume(self._reply_to, self._take, prefetch=PREFETCH)

    def send(self, intended_ns: int, now_ns: int) -> bool:
        """Start to publish the next request; the confirm is awaited on the side."""
        if self._closing or len(self._under_way) >= self._limit:
            return False
        request_id = next(self._request_ids)
        correlation_id = request_id.decode()
        self._under_way[correlation_id] = (intended_ns, now_ns)
        task = asyncio.get_running_loop().create_task(
            self._publish(correlation_id, next(self._bodies).body(request_id))
        )
        self._publishing.add(task)
        task.add_done_callback(self._publishing.discard)
        return True

    def sweep(self, now_ns: int) -> None:
        """Give up on what was sent too long ago; an answer that still comes is dropped."""
        for correlation_id, (_, sent_ns) in list(self._under_way.items()):
            if sent_ns + self._give_up_ns >= now_ns:
                break
            self._over(correlation_id, Outcome.LOST, "unanswered", now_ns)

    async def close(self) -> None:
        """Stop listening; what is under way is lost."""
        self._closing = True
        if self._subscription is not None:
            await self._subscription.cancel()
        if self._publishing:
            await asyncio.wait(self._publishing, timeout=self._give_up_ns / 1e9)
        now_ns = time.monotonic_ns()
        for correlation_id in list(self._under_way):
            self._over(correlation_id, Outcome.LOST, "unanswered", now_ns)

    async def _publish(self, correlation_id: str, body: bytes) -> None:
        exchange, routing_key = topology.ROUTES[MessageType.BID_REQUEST]
        now = time.time()
        message = Message(
            body=messages.encode(
                MessageType.BID_REQUEST,
                msgspec.Raw(body),
                message_id=correlation_id,
                timestamp=now,
                correlation_id=correlation_id,
                reply_to=self._reply_to,
            ),
            message_id=correlation_id,
            correlation_id=correlation_id,
            reply_to=self._reply_to,
            timestamp=now,
            expiration_ms=EXPIRATION_MS,
            persistent=False,
        )
        try:
            await self._broker.publish(exchange, routing_key, message)
        except BrokerError as error:
            self._over(correlation_id, Outcome.LOST, f"not published: {type(error).__name__}", time.monotonic_ns())

    def _take(self, delivery: Delivery) -> None:
        now_ns = time.monotonic_ns()
        delivery.ack()
        outcome, reason = classify(delivery.message.body)
        self._over(delivery.message.correlation_id, outcome, reason, now_ns)

    def _over(self, correlation_id: str, outcome: Outcome, reason: str, now_ns: int) -> None:
        found = self._under_way.pop(correlation_id, None)
        if found is not None:
            self._report(found[0], outcome, reason, now_ns)


class _Answer(msgspec.Struct):
    """The fields of both formats that tell the outcome."""

    status: str | None = None
    seatbid: list[msgspec.Raw] | None = None
    nbr: int | None = None


_answers = messages.Payload(_Answer)


def classify(body: bytes) -> tuple[Outcome, str]:
    """The outcome in an answer's envelope, house format or OpenRTB, and the reason when it is an error."""
    try:
        envelope = messages.decode(body)
        answer = _answers.decode(envelope.data)
    except Malformed as error:
        return Outcome.ERROR, f"broken: {error}"
    if envelope.message_type is not MessageType.BID_RESPONSE:
        return Outcome.ERROR, f"broken: a {envelope.message_type} message"
    if answer.status is not None:
        outcome = _BY_STATUS.get(answer.status)
        return (outcome, "") if outcome is not None else (Outcome.ERROR, f"status {answer.status}")
    if answer.seatbid:
        return Outcome.WON, ""
    return _BY_NBR.get(answer.nbr or 0, Outcome.NO_BID), ""


async def run_queue(broker: Broker, plan: Plan, progress: Progress) -> Result:
    """Measure over the queue, from the same process or another one.

    The plan's `connections` x `pipeline` bound what is under way at once; its `body` may be ``house``.

    Raises:
        BrokerError: the broker is away, or nothing is bound for bid requests.
        ConfigError: the plan's body cannot be read.
    """
    prepared = bodies(plan)
    target = QueueTarget(
        broker,
        prepared,
        request_ids(time.time_ns()),
        limit=plan.connections * plan.pipeline,
        give_up_ns=plan.give_up_ns,
    )
    return await measure(msgspec.structs.replace(plan, target="queue"), target, prepared, progress)
