"""The queue side against the in-process broker and a consumer that answers as scripted."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec
import pytest

from rtb import messages
from rtb.adapters.clock import SystemClock
from rtb.adapters.memory_broker import MemoryBroker
from rtb.lab.load.payload import payloads, request_ids
from rtb.lab.load.plan import Plan, Result
from rtb.lab.load.queue_target import QueueTarget, classify, run_queue
from rtb.lab.load.tally import Outcome
from rtb.messages import HOUSE_REQUEST, HouseResponse, HouseStatus, MessageType
from rtb.openrtb import Bid, BidResponse, NoBid, SeatBid, decode_request
from rtb.ports import Delivery, Message
from rtb.services import topology

WON = BidResponse(id="1", seatbid=[SeatBid(bid=[Bid(id="1", impid="1", price=1.0)])])


def envelope(data: object, message_type: MessageType = MessageType.BID_RESPONSE) -> bytes:
    """An answer on the queue."""
    return messages.encode(message_type, data, message_id="1", timestamp=0.0)


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        (envelope(HouseResponse("1", HouseStatus.SUCCESS, "c", "a", 1.0, 0.5)), Outcome.WON),
        (envelope(HouseResponse("1", HouseStatus.NO_BID)), Outcome.NO_BID),
        (envelope(HouseResponse("1", HouseStatus.TIMEOUT)), Outcome.TIMEOUT),
        (envelope(WON), Outcome.WON),
        (envelope(BidResponse(id="1", nbr=NoBid.ALL_BELOW_FLOOR)), Outcome.NO_BID),
        (envelope(BidResponse(id="1", nbr=NoBid.ALL_LATE)), Outcome.TIMEOUT),
        (envelope(BidResponse(id="1", nbr=NoBid.SHED)), Outcome.SHED),
        (envelope({"request_id": "1", "status": "maybe"}), Outcome.ERROR),
        (envelope(WON, MessageType.WIN), Outcome.ERROR),
        (b"not JSON", Outcome.ERROR),
    ],
)
def test_outcome_of_an_answer(body: bytes, outcome: Outcome) -> None:
    """The house format tells by its status, OpenRTB by seatbid and nbr; anything else is an error."""
    assert classify(body)[0] is outcome


ANSWERS = [
    HouseResponse("1", HouseStatus.SUCCESS),
    HouseResponse("1", HouseStatus.NO_BID),
    HouseResponse("1", HouseStatus.TIMEOUT),
]


class Consumer:
    """Answers bid requests as the script says for their number."""

    def __init__(self, broker: MemoryBroker, script: Callable[[int], object]) -> None:
        self.broker = broker
        self.script = script
        self.taken: list[messages.Envelope] = []
        self.tasks: set[asyncio.Task[None]] = set()

    def take(self, delivery: Delivery) -> None:
        request = messages.decode(delivery.message.body)
        data = self.script(len(self.taken))
        self.taken.append(request)
        delivery.ack()
        if data is not None:
            assert request.reply_to
            assert request.correlation_id
            answer = Message(body=envelope(data), correlation_id=request.correlation_id)
            task = asyncio.create_task(self.broker.publish("", request.reply_to, answer))
            self.tasks.add(task)


@asynccontextmanager
async def consuming(script: Callable[[int], object]) -> AsyncIterator[tuple[MemoryBroker, Consumer]]:
    """A broker for the tool, and a consumer on another connection to it."""
    broker = MemoryBroker(SystemClock())
    peer = broker.peer()
    await broker.start()
    await peer.start()
    await peer.declare(topology.topology())
    consumer = Consumer(peer, script)
    await peer.consume(topology.BID_REQUESTS, consumer.take, prefetch=100)
    try:
        yield broker, consumer
        if consumer.tasks:
            await asyncio.gather(*consumer.tasks, return_exceptions=True)
    finally:
        await broker.close()
        await peer.close()


async def load(broker: MemoryBroker, **settings: object) -> Result:
    """A short run without warm-up. It waits for answers as long as a busy machine may need."""
    plan = {"rate": 400, "duration_s": 0.3, "warmup_s": 0, "unique": 5, "give_up_ms": 20_000, **settings}
    return await run_queue(broker, msgspec.convert(plan, Plan), lambda _: None)


async def test_house_requests_are_matched_and_accounted_for() -> None:
    """Every house request gets the outcome of its own answer."""
    async with consuming(lambda number: ANSWERS[number % 3]) as (broker, consumer):
        result = await load(broker, body="house")
    assert result.plan.target == "queue"
    assert result.balances
    assert result.sent == 120
    assert (result.won, result.no_bid, result.timeout, result.lost) == (40, 40, 40, 0)
    assert result.reasons == {}
    for envelope in consumer.taken:
        assert envelope.message_type is MessageType.BID_REQUEST
        assert HOUSE_REQUEST.decode(envelope.data).request_id == envelope.correlation_id


async def test_what_nobody_answers_is_lost() -> None:
    """After the patience of the plan, each from when it was sent; with room for all of them none waits in a line."""
    async with consuming(lambda _: None) as (broker, _):
        result = await load(broker, body="house", connections=120, give_up_ms=100)
    assert result.balances
    assert result.lost == result.sent == 120
    assert result.reasons == {"unanswered": 120}


async def test_who_is_not_answered_is_given_up_among_others_who_are() -> None:
    """Of four requests sent at 0 the second gets no answer: it is lost as soon as 5 ns have passed, no sooner."""
    over: dict[int, tuple[Outcome, str]] = {}
    answered = asyncio.Event()

    def report(intended_ns: int, outcome: Outcome, reason: str, now_ns: int) -> None:
        over[intended_ns] = (outcome, reason)
        if len(over) == 3:
            answered.set()

    script = [ANSWERS[0], None, ANSWERS[1], ANSWERS[2]]
    async with consuming(lambda number: script[number]) as (broker, _):
        target = QueueTarget(broker, payloads("house", 5, 1, 10), request_ids(1), give_up_ns=5)
        await target.open(report)
        for intended_ns in (1, 2, 3, 4):
            assert target.send(intended_ns, 0)
        await answered.wait()
        answers = {1: (Outcome.WON, ""), 3: (Outcome.NO_BID, ""), 4: (Outcome.TIMEOUT, "")}
        target.sweep(5)
        assert over == answers
        target.sweep(6)
        assert over == {**answers, 2: (Outcome.LOST, "unanswered")}
        await target.close()


async def test_openrtb_requests_go_over_the_queue_too() -> None:
    """An OpenRTB body is enveloped whole, and answered in OpenRTB."""
    async with consuming(lambda number: WON if number % 2 else BidResponse(id="1", nbr=500)) as (broker, consumer):
        result = await load(broker)
    assert result.balances
    assert Counter(won=result.won, no_bid=result.no_bid) == Counter(won=60, no_bid=60)
    for envelope in consumer.taken:
        assert decode_request(bytes(envelope.data)).id == envelope.correlation_id


async def test_without_the_topology_everything_is_lost_with_a_reason() -> None:
    """What the broker refuses is lost, not silently forgotten."""
    broker = MemoryBroker(SystemClock())
    await broker.start()
    result = await load(broker)
    await broker.close()
    assert result.balances
    assert result.lost == result.sent
    assert result.reasons == {"not published: BrokerError": 120}
