"""Bid requests by queue: a whole system without its HTTP edges, from the message in to the message out."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest_asyncio

from rtb import config, messages
from rtb.domain import campaign as campaigns
from rtb.messages import HOUSE_RESPONSE, HouseResponse, HouseStatus, MessageType
from rtb.openrtb import BidResponse
from rtb.ports import Delivery, Message, QueueSpec, Topology
from rtb.services import topology
from rtb.wiring import System, build
from tests.support.samples import bid_request, campaign

REPLIES = "replies"
HOUSE = {
    "request_id": "house-1",
    "user_id": "u1",
    "device_type": "mobile",
    "location": {"lat": 37.5665, "lng": 126.978},
    "interests": ["coffee"],
    "floor_price": 0.5,
}


class Client:
    """Somebody at the other end of the broker: sends requests, and takes what comes out of three queues."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.came: dict[str, asyncio.Queue[Message]] = {}

    async def listen(self, queue: str) -> None:
        came: asyncio.Queue[Message] = asyncio.Queue()
        self.came[queue] = came

        def take(delivery: Delivery) -> None:
            came.put_nowait(delivery.message)
            delivery.ack()

        await self.system.broker.consume(queue, take, prefetch=100)

    async def send(self, data: Any, *, age_s: float = 0.0, **envelope: Any) -> None:
        made = time.time() - age_s
        await self.publish(messages.encode(MessageType.BID_REQUEST, data, message_id="m-1", timestamp=made, **envelope))

    async def publish(self, body: bytes) -> None:
        message = Message(body=body, message_id="m-1")
        await self.system.broker.publish(topology.BIDDING, "bid.request", message)

    async def receive(self, queue: str) -> Message:
        return await asyncio.wait_for(self.came[queue].get(), 20)

    async def answer(self, queue: str) -> messages.Envelope:
        return messages.decode((await self.receive(queue)).body)


@pytest_asyncio.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    """Of a system with one campaign: "tea" at 3.00 CPM around Seoul, for coffee drinkers or any OpenRTB request."""
    settings = config.load(None, {}, [f"store.url=sqlite:///{tmp_path}/rtb.db", "auction.deadline_ms=30000"])
    system = build(settings, os.getpid())
    await system.outside.repository.start()
    tea = campaign(
        "tea",
        bid=3.0,
        targeting={"geo": [{"lat": 37.5, "lon": 127.0, "radius": 20}]},
        creatives=[{"id": "ad", "image_url": "https://cdn.test/tea.png", "landing_page": "https://tea.test/"}],
    )
    await system.catalogue.put([campaigns.convert(tea)])
    await system.broker.start()
    await system.broker.declare(topology.topology())
    await system.broker.declare(Topology({}, [QueueSpec(REPLIES)], []))
    client = Client(system)
    for queue in (REPLIES, topology.BID_RESPONSES, topology.DEAD):
        await client.listen(queue)
    await system.consumer.start()
    yield client
    await system.consumer.stop()
    await system.broker.close()
    await system.profiles.close()
    await system.outside.repository.close()


async def test_a_house_request_is_answered_where_it_says(client: Client) -> None:
    """In the house format, to reply_to, under its correlation id."""
    await client.send({**HOUSE, "timeout_ms": 0}, correlation_id="c-1", reply_to=REPLIES)
    message = await client.receive(REPLIES)
    envelope = messages.decode(message.body)
    assert (message.correlation_id, envelope.correlation_id) == ("c-1", "c-1")
    assert envelope.message_type is MessageType.BID_RESPONSE
    assert HOUSE_RESPONSE.decode(envelope.data) == HouseResponse(
        request_id="house-1",
        status=HouseStatus.SUCCESS,
        campaign_id="tea",
        ad_id="ad",
        bid_price=3.0,
        clearing_price=0.5,
        creative_url="https://cdn.test/tea.png",
        landing_page="https://tea.test/",
    )


async def test_an_openrtb_request_is_answered_in_openrtb(client: Client) -> None:
    """To ad.bidding / bid.response where no reply_to is given, under the request's id where no correlation id is."""
    await client.send(bid_request(tmax=0))
    envelope = await client.answer(topology.BID_RESPONSES)
    assert envelope.correlation_id == "request-1"
    response = msgspec.json.decode(envelope.data, type=BidResponse)
    [seat] = response.seatbid or ()
    assert (response.id, seat.seat, [bid.price for bid in seat.bid or ()]) == ("request-1", "tea-inc", [0.5])


async def test_nobody_wants_it(client: Client) -> None:
    """no_bid in the house format, nbr in OpenRTB."""
    await client.send({**HOUSE, "timeout_ms": 0, "floor_price": 3.01}, reply_to=REPLIES)
    assert HOUSE_RESPONSE.decode((await client.answer(REPLIES)).data).status is HouseStatus.NO_BID
    await client.send(bid_request(tmax=0, device={"geo": {"lat": 0, "lon": 0}}), reply_to=REPLIES)
    assert msgspec.json.decode((await client.answer(REPLIES)).data) == {"id": "request-1", "nbr": 500}


async def test_an_expired_request_is_answered_timeout_and_costs_nothing(client: Client) -> None:
    """Made 31 seconds ago, with a deadline of 30: too late to be auctioned."""
    await client.send(HOUSE, age_s=31.25, reply_to=REPLIES, correlation_id="late")
    envelope = await client.answer(REPLIES)
    assert envelope.correlation_id == "late"
    assert HOUSE_RESPONSE.decode(envelope.data) == HouseResponse(request_id="house-1", status=HouseStatus.TIMEOUT)
    assert (client.system.metrics.timeout, client.system.metrics.spend_nanos) == (1, 0)


async def test_what_cannot_be_understood_is_buried_with_its_reason_and_the_queue_goes_on(client: Client) -> None:
    """In ad.dead, in the order they came, each as it came; the good one behind them is answered."""
    no_imp = msgspec.json.encode({"id": "r", "imp": []}).decode()
    envelope = '{"message_id":"m","message_type":"%s","timestamp":"2026-01-01T00:00:00Z","data":%s}'
    wrong = {
        b"not JSON": "body: not JSON",
        b"{}": "message_id: required",
        (envelope % ("click", "{}")).encode(): "message_type: click does not belong on bid.requests",
        (envelope % ("nonsense", "{}")).encode(): "message_type: ",
        (envelope % ("bid_request", '{"request_id":"h"}')).encode(): "data.user_id: required",
        (envelope % ("bid_request", no_imp)).encode(): "imp: required",
        b" " * 300_000: "body: 300000 bytes, at most 262144",
    }
    for body in wrong:
        await client.publish(body)
    await client.send({**HOUSE, "timeout_ms": 0}, reply_to=REPLIES)
    assert HOUSE_RESPONSE.decode((await client.answer(REPLIES)).data).status is HouseStatus.SUCCESS
    dead = [await client.receive(topology.DEAD) for _ in wrong]
    assert sorted(message.body for message in dead) == sorted(wrong)
    for message in dead:
        assert str(message.headers["x-rtb-reason"]).startswith(wrong[message.body])
        assert message.headers["x-rtb-queue"] == topology.BID_REQUESTS
    depth = await client.system.broker.depth(topology.BID_REQUESTS)
    assert (depth.ready, depth.unacked) == (0, 0)
    assert client.system.metrics.dead_lettered == len(wrong)


async def test_many_at_once_are_each_answered_once(client: Client) -> None:
    """1,000 requests, more than are taken at a time: as many answers, one under each correlation id."""
    wanted = {f"c-{n}" for n in range(1_000)}
    for name in wanted:
        await client.send({**HOUSE, "timeout_ms": 0, "request_id": name}, correlation_id=name, reply_to=REPLIES)
    answers = [await client.answer(REPLIES) for _ in wanted]
    assert {envelope.correlation_id for envelope in answers} == wanted
    assert {HOUSE_RESPONSE.decode(envelope.data).request_id for envelope in answers} == wanted
    assert client.came[REPLIES].empty()
