"""Queue consumers: deliveries in, services, answers out, then the acknowledgement."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import Coroutine
from functools import partial

import structlog
from msgspec import MsgspecError, Raw, Struct
from msgspec.json import Decoder

from rtb import messages, openrtb
from rtb.domain.money import Rates
from rtb.edges.failure import Failures
from rtb.edges.house_format import to_openrtb
from rtb.edges.together import Together, auctioning
from rtb.errors import BadRequest, BrokerError, Malformed, Unroutable
from rtb.messages import HOUSE_REQUEST, Envelope, HouseResponse, MessageType
from rtb.openrtb import BidRequest
from rtb.ports import Broker, Clock, Delivery, Message, Subscription
from rtb.services import topology
from rtb.services.answers import encoded, house_response
from rtb.services.exchange import Auction, Exchange
from rtb.services.links import Links
from rtb.services.metrics import Metrics

MAX_AGE_NS = 120_000_000_000

_REQUEST, _RESPONSE = MessageType.BID_REQUEST, MessageType.BID_RESPONSE  # a look-up in an enum costs ten times as much
_RESPONSES = topology.ROUTES[_RESPONSE]

_log = structlog.get_logger(__name__)


class _Shape(Struct):
    imp: Raw = Raw()


_shape_decoder = Decoder(_Shape)


class _Asked:
    """A request on its way to an answer; `body` is what it was decoded from, b"" in the house format."""

    __slots__ = ("answer", "auction", "body", "delivery", "envelope", "message", "request")

    message: Message
    envelope: Envelope
    request: BidRequest
    body: bytes
    auction: Auction
    answer: HouseResponse | Raw

    def __init__(self, delivery: Delivery) -> None:
        self.delivery = delivery


class BidRequestConsumer:
    """Auctions what arrives on ``bid.requests``: an envelope around the house format or an OpenRTB bid request.

    The answer goes to `reply_to` when there is one, else to ``ad.bidding`` / ``bid.response``, with the request's
    correlation id; only then is the request acknowledged. A malformed one, or one that uncovers a mistake of ours, goes
    to ``ad.dlx`` with its reason.
    """

    def __init__(
        self,
        broker: Broker,
        exchange: Exchange,
        metrics: Metrics,
        clock: Clock,
        rates: Rates,
        *,
        prefetch: int,
        links: Links | None = None,
    ) -> None:
        """Work on up to `prefetch` requests at once; `links` put tracking into the answers."""
        self._broker = broker
        self._failures = Failures(broker, metrics)
        self._exchange = exchange
        self._metrics = metrics
        self._clock = clock
        self._rates = rates
        self._links = links
        self._prefetch = prefetch
        self._subscription: Subscription | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        stages = (self._read, self._admit, *auctioning(exchange, self._concluded), self._answer, self._send)
        self._together = Together(stages, self._failed, lambda: exchange.room, clock)
        self._under_way = 0
        self._idle: asyncio.Event | None = None
        self._id_prefix = secrets.token_hex(6)
        self._ids = itertools.count(1)
        self.unheard = 0
        """Answers whose requester had gone."""

    async def start(self) -> None:
        """Begin to take requests."""
        self._subscription = await self._broker.consume(topology.BID_REQUESTS, self._take, prefetch=self._prefetch)

    async def stop(self) -> None:
        """Take no more, and finish what was taken."""
        if self._subscription is not None:
            await self._subscription.cancel()
            self._subscription = None
        if self._under_way:
            self._idle = asyncio.Event()
            await self._idle.wait()

    def _take(self, delivery: Delivery) -> None:
        self._metrics.consumed += 1
        self._under_way += 1
        self._together.add(_Asked(delivery))

    def _read(self, asked: _Asked) -> bool:
        asked.message = message = asked.delivery.message
        asked.envelope = envelope = messages.decode(message.body)
        asked.request, asked.body = _request(envelope, self._rates.currency)
        return True

    def _admit(self, asked: _Asked) -> bool:
        delivery, envelope = asked.delivery, asked.envelope
        received_ns = self._made_ns(envelope, delivery) if envelope.timestamp.microsecond else delivery.arrived_ns
        asked.auction = self._exchange.admit(asked.request, received_ns, body=asked.body)
        return True

    def _concluded(self, asked: _Asked, auction: Auction, failed: Exception | None) -> None:
        if failed is not None:
            self._failed(asked, failed)
        else:
            self._together.go_on(asked, (self._answer, self._send))

    def _answer(self, asked: _Asked) -> bool:
        request, outcome = asked.request, asked.auction.outcome
        assert outcome is not None
        if asked.body:
            asked.answer = Raw(encoded(request, outcome, self._rates, self._links))
        else:
            asked.answer = house_response(request.id or "", outcome, self._rates)
        return True

    def _send(self, asked: _Asked) -> bool:
        message, envelope = asked.message, asked.envelope
        reply_to = envelope.reply_to or message.reply_to
        correlation_id = envelope.correlation_id or message.correlation_id or asked.request.id or ""
        message_id = f"{self._id_prefix}{next(self._ids):x}"
        now = self._clock.time()
        body = messages.encode(
            _RESPONSE, asked.answer, message_id=message_id, timestamp=now, correlation_id=correlation_id
        )
        answer = Message(
            body=body, message_id=message_id, correlation_id=correlation_id, timestamp=now, persistent=False
        )
        exchange, routing_key = ("", reply_to) if reply_to else _RESPONSES
        self._broker.send(exchange, routing_key, answer, partial(self._answered, asked.delivery))
        return True

    def _answered(self, delivery: Delivery, error: BrokerError | None) -> None:
        """The broker has the answer, or not; a requester that has gone is nobody's mistake."""
        if error is None:
            self._metrics.published += 1
        elif isinstance(error, Unroutable):
            self.unheard += 1
            _log.debug("requester_gone", reason=str(error), message_id=delivery.message.message_id)
            error = None
        self._end(delivery, error)

    def _failed(self, asked: _Asked, error: Exception) -> None:
        """It cannot be answered: bury it."""
        delivery = asked.delivery
        if isinstance(error, Malformed | BadRequest):
            self._metrics.invalid += 1
            self._start(self._bury(delivery, str(error)))
        else:
            _log.error("bid_request_failed", message_id=delivery.message.message_id, exc_info=error)
            self._metrics.message_errors += 1
            self._start(self._bury(delivery, f"{type(error).__name__}: {error}"))

    async def _bury(self, delivery: Delivery, reason: str) -> None:
        try:
            await self._failures.bury(delivery, reason)
        except BrokerError as error:
            self._end(delivery, error)
        else:
            self._end(delivery, None)

    def _end(self, delivery: Delivery, error: BrokerError | None) -> None:
        """Acknowledge it, or have it come once more: a second time it is worthless, and no message may circle."""
        if error is None:
            delivery.ack()
            self._metrics.message_time.record(self._clock.monotonic_ns() - delivery.arrived_ns)
        else:
            _log.warning("bid_request_not_answered", reason=str(error), message_id=delivery.message.message_id)
            delivery.nack(requeue=not delivery.redelivered)
        self._under_way -= 1
        if self._idle is not None and not self._under_way:
            self._idle.set()

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _made_ns(self, envelope: Envelope, delivery: Delivery) -> int:
        """When a message was made whose timestamp tells that to the fraction: its deadline starts then, not on arrival.

        A whole second says too little for a deadline of 100 ms, and an age outside 0..120 s is a wrong clock.
        """
        age_ns = int((self._clock.time() - envelope.time) * 1e9)
        waited_ns = self._clock.monotonic_ns() - delivery.arrived_ns
        if waited_ns <= age_ns <= MAX_AGE_NS:
            return self._clock.monotonic_ns() - age_ns
        return delivery.arrived_ns


def _request(envelope: Envelope, currency: str) -> tuple[BidRequest, bytes]:
    """The request in an envelope, and its bytes; none where it came in the house format, which has no ``imp``.

    Raises:
        Malformed: not a bid_request, or not the house format.
        BadRequest: an OpenRTB request that breaks OpenRTB.
    """
    if envelope.message_type is not _REQUEST:
        raise Malformed(f"message_type: {envelope.message_type.value} does not belong on {topology.BID_REQUESTS}")
    data = bytes(envelope.data)
    if b'"imp"' in data:
        try:
            return openrtb.decode_request(data), data
        except BadRequest:
            if _has_imp(data):
                raise
    return to_openrtb(HOUSE_REQUEST.decode(data), currency), b""


def _has_imp(data: bytes) -> bool:
    """Whether an object has ``imp`` itself, not only somewhere in its ``user_context``."""
    try:
        return bool(_shape_decoder.decode(data).imp)
    except (MsgspecError, RecursionError):
        return True  # OpenRTB's decoder says what is wrong with it
