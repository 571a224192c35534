"""Bid requests from the queue: answered, then acknowledged; malformed, undeliverable, old."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from rtb import messages
from rtb.adapters.memory_broker import MemoryBroker
from rtb.edges.consumers import BidRequestConsumer
from rtb.errors import BrokerError
from rtb.messages import HOUSE_RESPONSE, HouseResponse, HouseStatus, MessageType
from rtb.openrtb import BidResponse
from rtb.ports import ERROR, Delivery, Message, QueueSpec, Topology
from rtb.ports.broker import Answer
from rtb.services import topology
from tests.unit.parts import Build, Prompt, Silent, World, campaign, offer

NOW = 1_767_225_600.25  # a fraction: the age of a message can be told
HOUSE = {
    "request_id": "r",
    "user_id": "",
    "device_type": "mobile",
    "location": None,
    "interests": ["sports"],
    "floor_price": 0.5,
}
OPENRTB = {"id": "r", "imp": [{"id": "7", "banner": {"w": 300, "h": 250}}]}


class Refusing(MemoryBroker):
    """The in-process broker, which refuses to publish to some exchanges, so many times, or holds its confirms back."""

    refusals: dict[str, int] = {}
    held: list[Answer] | None = None

    def send(self, exchange: str, routing_key: str, message: Message, done: Answer, *, mandatory: bool = True) -> None:
        """Refuse, or publish."""
        if self.refusals.get(exchange, 0) > 0:
            self.refusals[exchange] -= 1
            done(BrokerError("not confirmed"))
        elif self.held is not None:
            self.held.append(done)
        else:
            super().send(exchange, routing_key, message, done, mandatory=mandatory)


class Bench:
    """A consumer at work, a requester that sends, and a collector of what comes out."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.broker = Refusing(world.clock)
        self.broker.refusals, self.broker.held = {}, None
        self.consumer = self.make(world)
        self.out: dict[str, asyncio.Queue[Delivery]] = {}

    def make(self, world: World, prefetch: int = 256) -> BidRequestConsumer:
        return BidRequestConsumer(
            self.broker, world.exchange, world.metrics, world.clock, world.rates, prefetch=prefetch
        )

    async def collect(self, queue: str) -> None:
        came: asyncio.Queue[Delivery] = asyncio.Queue()
        self.out[queue] = came
        await self.broker.consume(queue, came.put_nowait, prefetch=1_000)

    async def send(
        self,
        data: object = HOUSE,
        *,
        kind: str = "bid_request",
        age_s: float = 0.0,
        body: bytes | None = None,
        envelope: dict[str, Any] | None = None,
        **properties: Any,
    ) -> None:
        """Publish a request made `age_s` ago."""
        body = body or messages.encode(
            MessageType(kind), data, message_id="m", timestamp=self.world.clock.time() - age_s, **(envelope or {})
        )
        await self.broker.publish(topology.BIDDING, "bid.request", Message(body=body, message_id="m", **properties))

    async def answer(self, queue: str = topology.BID_RESPONSES) -> tuple[Message, messages.Envelope]:
        message = (await self.out[queue].get()).message
        return message, messages.decode(message.body)

    async def turn(self) -> None:
        """Two steps of the loop: the broker's deliveries, and the auctions of all that came."""
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    async def unacked(self) -> tuple[int, int]:
        """Requests waiting, and requests in work."""
        depth = await self.broker.depth(topology.BID_REQUESTS)
        return depth.ready, depth.unacked


Start = Callable[..., Any]


@pytest_asyncio.fixture
async def start(build: Build) -> AsyncIterator[Start]:
    """A running bench: ``await start(*bidders, **options)``."""
    benches: list[Bench] = []

    async def make(*bidders: Any, **options: Any) -> Bench:
        world = build(*bidders, **{"campaigns": [campaign("a", 3.0), campaign("b", 2.0)], "time": NOW, **options})
        bench = Bench(world)
        benches.append(bench)
        await bench.broker.start()
        await bench.broker.declare(topology.topology())
        await bench.consumer.start()
        await bench.collect(topology.BID_RESPONSES)
        await bench.collect(topology.DEAD)
        return bench

    yield make
    for bench in benches:
        await bench.consumer.stop()
        await bench.broker.close()


async def test_a_house_request_gets_a_house_answer(start: Start) -> None:
    """To ad.bidding / bid.response, where the message names nobody to reply to; then it is acknowledged."""
    bench = await start()
    await bench.send()
    message, envelope = await bench.answer()
    assert envelope.message_type is MessageType.BID_RESPONSE
    assert HOUSE_RESPONSE.decode(envelope.data) == HouseResponse(
        request_id="r",
        status=HouseStatus.SUCCESS,
        campaign_id="a",
        ad_id="a-ad",
        bid_price=3.0,
        clearing_price=2.01,
        creative_url="https://cdn.test/a.png",
        landing_page="https://a.test/",
    )
    assert (message.message_id, message.correlation_id) == (envelope.message_id, envelope.correlation_id)
    assert not message.persistent
    assert await bench.unacked() == (0, 0)
    counts = bench.world.metrics.counts()
    assert (counts.consumed, counts.published, counts.won) == (1, 1, 1)


async def test_an_openrtb_request_gets_a_bid_response(start: Start) -> None:
    """The body is accepted as it is."""
    bench = await start()
    await bench.send(OPENRTB)
    _, envelope = await bench.answer()
    answer = msgspec.json.decode(envelope.data, type=BidResponse)
    assert (answer.id, [bid.impid for seat in answer.seatbid or () for bid in seat.bid or ()]) == ("r", ["7"])


@pytest.mark.parametrize("context", [{"imp": 3}, {"deep": {"imp": []}}, {"words": ["imp"]}])
async def test_a_house_request_may_speak_of_imps(start: Start, context: dict[str, object]) -> None:
    """The word in its user_context does not make it OpenRTB."""
    bench = await start()
    await bench.send({**HOUSE, "user_context": context})
    _, envelope = await bench.answer()
    assert HOUSE_RESPONSE.decode(envelope.data).status is HouseStatus.SUCCESS


@pytest.mark.parametrize(
    ("envelope", "properties", "correlation_id"),
    [
        ({"reply_to": "mine", "correlation_id": "c"}, {}, "c"),
        ({}, {"reply_to": "mine", "correlation_id": "p"}, "p"),
        ({"reply_to": "mine", "correlation_id": "c"}, {"reply_to": "other", "correlation_id": "p"}, "c"),
        ({"reply_to": "mine"}, {}, "r"),
    ],
)
async def test_the_answer_goes_to_reply_to(
    start: Start, envelope: dict[str, str], properties: dict[str, str], correlation_id: str
) -> None:
    """Of the envelope, else of the properties, with its correlation id, or the request's id for want of one."""
    bench = await start()
    await bench.broker.declare(Topology({}, (QueueSpec("mine", exclusive=True),), ()))
    await bench.collect("mine")
    await bench.send(envelope=envelope, **properties)
    message, answer = await bench.answer("mine")
    assert (message.correlation_id, answer.correlation_id) == (correlation_id, correlation_id)
    assert bench.out[topology.BID_RESPONSES].empty()


async def test_a_requester_that_has_gone_is_counted(start: Start) -> None:
    """Its request is done with: no error, no requeue."""
    bench = await start()
    await bench.send(envelope={"reply_to": "gone"})
    await bench.send()
    await bench.answer()
    assert await bench.unacked() == (0, 0)
    counts = bench.world.metrics.counts()
    assert (bench.consumer.unheard, counts.won, counts.published, counts.dead_lettered) == (1, 2, 1, 0)


async def test_no_ack_before_the_answer_is_out(start: Start) -> None:
    """While the auction waits for a bidder the message stays in work; it is acknowledged once answered."""
    dsp = Silent("dsp")
    bench = await start(dsp, deadline_ms=3_600_000)
    await bench.send({**HOUSE, "timeout_ms": 0})
    await dsp.asked()
    assert await bench.unacked() == (0, 1)
    dsp.seen[0].report(dsp, [offer("dsp", 9.0)])
    _, envelope = await bench.answer()
    assert HOUSE_RESPONSE.decode(envelope.data).bid_price == 9.0
    assert await bench.unacked() == (0, 0)


async def test_no_ack_before_the_answer_is_confirmed(start: Start) -> None:
    """The broker has it, and says so only later: until then the request stays in work, and stopping waits for it."""
    bench = await start()
    await bench.send()
    bench.broker.held = []
    await bench.turn()
    assert (len(bench.broker.held), await bench.unacked()) == (1, (0, 1))
    stopping = asyncio.ensure_future(bench.consumer.stop())
    await bench.turn()
    assert not stopping.done()
    bench.broker.held[0](None)
    await stopping
    assert await bench.unacked() == (0, 0)
    assert bench.world.metrics.published == 1


async def test_an_auction_that_waits_for_nobody_needs_no_task(start: Start) -> None:
    """It is begun, settled and answered in the very call that works on what was delivered."""
    bench = await start()
    made: list[object] = []
    loop = asyncio.get_running_loop()

    def factory(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
        made.append(work)
        return asyncio.Task(work, loop=loop, **options)

    for _ in range(3):
        await bench.send()
    loop.set_task_factory(factory)
    await bench.turn()
    loop.set_task_factory(None)
    assert (made, bench.world.metrics.published) == ([], 3)


async def test_requests_that_come_together_are_answered_each_by_itself(start: Start) -> None:
    """They go through the stages together; those that are malformed hold up no other."""
    bench = await start()
    for name in ("1", "2", "3"):
        await bench.send({**HOUSE, "request_id": name})
        await bench.send({**HOUSE, "request_id": name, "floor_price": -1})
    for name in ("1", "2", "3"):
        _, envelope = await bench.answer()
        answer = HOUSE_RESPONSE.decode(envelope.data)
        assert (answer.request_id, answer.campaign_id, answer.clearing_price) == (name, "a", 2.01)
        await bench.answer(topology.DEAD)
    assert await bench.unacked() == (0, 0)
    counts = bench.world.metrics.counts()
    assert (counts.consumed, counts.won, counts.published, counts.invalid) == (6, 3, 3, 3)


async def test_requests_that_come_together_do_not_overload_the_exchange(start: Start) -> None:
    """Auctions that wait for nobody are over before there would be more of them than may be under way."""
    bench = await start(max_in_flight=2)
    for _ in range(5):
        await bench.send()
    for _ in range(5):
        _, envelope = await bench.answer()
        assert HOUSE_RESPONSE.decode(envelope.data).status is HouseStatus.SUCCESS
    assert bench.world.metrics.counts().shed == 0


async def test_stopping_finishes_what_was_taken(start: Start) -> None:
    """It takes no more; what is in work is answered and acknowledged first."""
    dsp = Silent("dsp")
    bench = await start(dsp, deadline_ms=3_600_000)
    await bench.send({**HOUSE, "timeout_ms": 0})
    await dsp.asked()
    stopping = asyncio.ensure_future(bench.consumer.stop())
    await asyncio.sleep(0)
    await bench.send()
    await asyncio.sleep(0)
    assert not stopping.done()
    dsp.seen[0].report(dsp)
    await stopping
    assert await bench.unacked() == (1, 0)
    assert (bench.world.metrics.published, len(dsp.seen)) == (1, 1)


async def test_no_more_than_prefetch_at_once(start: Start) -> None:
    """The rest waits in the queue until an answer is out."""
    dsp = Silent("dsp")
    bench = await start(dsp, deadline_ms=3_600_000)
    await bench.consumer.stop()
    bench.consumer = bench.make(bench.world, prefetch=2)
    await bench.consumer.start()
    for _ in range(3):
        await bench.send({**HOUSE, "timeout_ms": 0})
    await dsp.asked(2)
    assert await bench.unacked() == (1, 2)
    dsp.seen[0].report(dsp)
    await dsp.asked(3)
    for auction in dsp.seen[1:]:
        auction.report(dsp)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ({"body": b"not json"}, "body: not JSON"),
        ({"body": b"\xff\xfe"}, "body: "),
        ({"body": b'{"message_id":"m"}'}, "message_type: required"),
        ({"body": b'{"x":' * 100_000}, "body: "),
        ({"kind": "click"}, "message_type: click does not belong on bid.requests"),
        ({"data": {**HOUSE, "floor_price": -1}}, "data.floor_price: "),
        ({"data": {"request_id": "r"}}, "data.user_id: required"),
        ({"data": ["imp"]}, "the body: expected `object`, got `array`"),
        ({"data": {"id": "r", "imp": []}}, "imp: required"),
        ({"data": {**OPENRTB, "at": 777}}, "at: 777 "),
    ],
)
async def test_what_cannot_be_understood_is_dead_lettered(start: Start, message: dict[str, Any], reason: str) -> None:
    """On ad.dlx with its reason on one line and the queue it came from; then it is acknowledged, and others go on."""
    bench = await start()
    await bench.send(**message)
    await bench.send()
    await bench.answer()
    dead = (await bench.out[topology.DEAD].get()).message
    assert str(dead.headers[ERROR]).startswith(reason)
    assert "\n" not in str(dead.headers[ERROR])
    assert (dead.headers["x-rtb-queue"], dead.message_id) == (topology.BID_REQUESTS, "m")
    assert await bench.unacked() == (0, 0)
    counts = bench.world.metrics.counts()
    assert (counts.invalid, counts.dead_lettered, counts.consumed, counts.won) == (1, 1, 2, 1)
    assert bench.world.metrics.in_flight == 0


async def test_a_mistake_of_ours_does_not_stop_the_queue(start: Start) -> None:
    """A request that uncovers one is dead-lettered with the error; the next is answered."""
    bench = await start()
    mistakes = [ZeroDivisionError("a mistake")]

    def trip(auction: object, outcome: object) -> None:
        while mistakes:
            raise mistakes.pop()

    bench.world.exchange.listen(trip)
    await bench.send()
    await bench.send()
    await bench.answer()
    dead = (await bench.out[topology.DEAD].get()).message
    assert dead.headers[ERROR] == "ZeroDivisionError: a mistake"
    assert await bench.unacked() == (0, 0)
    counts = bench.world.metrics.counts()
    assert (counts.dead_lettered, counts.invalid, counts.published) == (1, 0, 1)


@pytest.mark.parametrize(("exchange", "data"), [(topology.BIDDING, HOUSE), (topology.DEAD_LETTERS, {})])
async def test_what_could_not_be_published_is_tried_once_more(start: Start, exchange: str, data: object) -> None:
    """The request goes back to its queue, an answer as well as a burial; the second time it works."""
    bench = await start()
    await bench.send(data)
    bench.broker.refusals[exchange] = 1
    queue = topology.DEAD if exchange == topology.DEAD_LETTERS else topology.BID_RESPONSES
    await bench.out[queue].get()
    assert await bench.unacked() == (0, 0)
    assert bench.world.metrics.consumed == 2
    assert bench.world.metrics.published + bench.world.metrics.dead_lettered == 1


async def test_what_can_never_be_published_does_not_circle(start: Start) -> None:
    """A requester whose own queue refuses everything must not keep the daemon busy: the second failure is the last."""
    bench = await start()
    await bench.consumer.stop()
    bench.consumer = bench.make(bench.world, prefetch=1)
    await bench.send()
    await bench.send({**HOUSE, "request_id": "next"})
    bench.broker.refusals[topology.BIDDING] = 2
    await bench.consumer.start()
    _, envelope = await bench.answer()
    assert HOUSE_RESPONSE.decode(envelope.data).request_id == "next"
    assert (bench.world.metrics.consumed, await bench.unacked()) == (3, (0, 0))


@pytest.mark.parametrize(
    ("age_s", "status"),
    [
        (0.0, HouseStatus.SUCCESS),
        (0.09, HouseStatus.SUCCESS),
        (0.2, HouseStatus.TIMEOUT),  # the timestamp says how old it is
        (119.0, HouseStatus.TIMEOUT),
        (121.0, HouseStatus.SUCCESS),  # no message lives so long: that clock is wrong
        (-5.0, HouseStatus.SUCCESS),  # nor is one made in the future
        (0.25, HouseStatus.SUCCESS),  # made on a whole second: not to be told from a clock without fractions
    ],
)
async def test_the_age_of_a_message(start: Start, age_s: float, status: HouseStatus) -> None:
    """A fractional timestamp counts when plausible, else the message is as old as its arrival."""
    bench = await start()
    await bench.send(age_s=age_s)
    _, envelope = await bench.answer()
    assert HOUSE_RESPONSE.decode(envelope.data).status is status


@pytest.mark.parametrize(("age_s", "left_ms"), [(0.09, 10), (0.0, 100), (-5.0, 100), (121.0, 100), (0.25, 100)])
async def test_how_much_time_a_message_has_left(start: Start, age_s: float, left_ms: int) -> None:
    """No timestamp, however wrong, gives it more than the deadline from its arrival."""
    dsp = Prompt("dsp")
    bench = await start(dsp)
    await bench.send({**HOUSE, "timeout_ms": 0}, age_s=age_s)
    await bench.answer()
    left_ns = dsp.seen[0].deadline_ns - bench.world.clock.monotonic_ns()
    assert left_ns == pytest.approx(left_ms * 1_000_000, abs=1_000)  # times in messages are whole microseconds


async def test_a_message_that_waited_in_its_queue_has_expired(start: Start) -> None:
    """It was fresh when it was sent, and 200 ms pass before the consumer takes it."""
    bench = await start()
    await bench.consumer.stop()
    await bench.send()
    bench.world.clock.advance(0.2)
    bench.consumer = bench.make(bench.world)
    await bench.consumer.start()
    _, envelope = await bench.answer()
    assert HOUSE_RESPONSE.decode(envelope.data).status is HouseStatus.TIMEOUT
    assert bench.world.metrics.timeout == 1
