"""Whole daemons on real servers: killed, told to stop under load, left without a broker or a database."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from rtb import messages
from rtb.adapters.amqp import RabbitBroker
from rtb.adapters.clock import SystemClock
from rtb.adapters.sql_schema import migrate
from rtb.lab.servers.postgres import PostgresServer
from rtb.messages import MessageType
from rtb.ports import Delivery, Message, QueueSpec, Topology
from rtb.services import topology
from tests.support.daemon import LIMIT_S, Daemon
from tests.support.http import get
from tests.support.production import Production
from tests.support.rabbitmq import MakeRabbit
from tests.support.samples import bid_request, campaign

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

REQUESTS = 2_000
SLOW = ("lab.bidder=true", "lab.bidder_ms=30")
"""A bidder that keeps auctions open for a while, so that a signal finds some in flight."""


class Requester:
    """Publishes numbered bid requests and notes which were answered, and how often."""

    def __init__(self, broker: RabbitBroker) -> None:
        self.answers: dict[str, int] = {}
        self._broker = broker
        self._more = asyncio.Event()

    async def ask(self, numbers: Sequence[int]) -> None:
        """Publish; returns when the broker has confirmed all of them."""
        await asyncio.gather(*(self._ask(str(number)) for number in numbers))

    async def answered(self, count: int) -> None:
        """Wait until so many different requests are answered."""
        async with asyncio.timeout(LIMIT_S):
            while len(self.answers) < count:
                self._more.clear()
                await self._more.wait()

    async def _ask(self, name: str) -> None:
        body = messages.encode(
            MessageType.BID_REQUEST,
            bid_request(id=name, tmax=5_000),
            message_id=name,
            timestamp=time.time(),
            correlation_id=name,
            reply_to="replies",
        )
        await self._broker.publish(topology.BIDDING, "bid.request", Message(body=body, message_id=name))

    def take(self, delivery: Delivery) -> None:
        name = delivery.message.correlation_id
        self.answers[name] = self.answers.get(name, 0) + 1
        self._more.set()
        delivery.ack()


@asynccontextmanager
async def requester(url: str) -> AsyncIterator[Requester]:
    """Somebody at the other end of the broker."""
    broker = RabbitBroker(url, SystemClock())
    await broker.start()
    try:
        await broker.declare(topology.topology())
        await broker.declare(Topology({}, (QueueSpec("replies"),), ()))
        asks = Requester(broker)
        await broker.consume("replies", asks.take, prefetch=1_000)
        yield asks
    finally:
        await broker.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_no_request_is_lost_with_its_daemon(
    tmp_path: Path, production: Production, number: signal.Signals
) -> None:
    """A daemon is ended in the middle of its auctions; what it had not answered the next one answers. Told to stop, it
    answers all that it has taken, so none is answered twice."""
    settings = [*production.settings(), *SLOW, "auction.deadline_ms=5000"]
    async with requester(production.broker) as asks:
        with await asyncio.to_thread(Daemon, tmp_path, *settings) as daemon:
            daemon.put_campaigns(campaign("tea", bid=3.0))
            publishing = asyncio.create_task(asks.ask(range(REQUESTS // 2)))
            await asks.answered(REQUESTS // 10)
            daemon.signal(number)
            await asyncio.to_thread(daemon.wait)
        await publishing
        await asks.ask(range(REQUESTS // 2, REQUESTS))
        with await asyncio.to_thread(Daemon, tmp_path, *settings):
            await asks.answered(REQUESTS)
    if number is signal.SIGTERM:
        assert set(asks.answers.values()) == {1}


async def test_a_daemon_starts_without_its_broker(
    tmp_path: Path, production: Production, make_rabbit: MakeRabbit
) -> None:
    """Auctions over HTTP run at once and readiness says no; when the broker comes, requests by queue are answered."""
    server = make_rabbit()
    settings = [f"broker.url={server.url}", f"state.url={production.state}", f"store.url={production.store}"]
    with Daemon(tmp_path, *settings, "auction.deadline_ms=5000") as daemon:
        daemon.put_campaigns(campaign("tea", bid=3.0))
        assert daemon.auction(bid_request()).status == 200
        assert get(daemon.url, "/readyz").status == 503
        await asyncio.to_thread(server.start)
        async with requester(server.url) as asks:
            await asks.ask([1])
            await asks.answered(1)
        assert get(daemon.url, "/readyz").status == 200


async def test_a_daemon_stops_without_its_broker(
    tmp_path: Path, production: Production, make_rabbit: MakeRabbit
) -> None:
    """The broker dies first; SIGTERM still ends the daemon in bounded time, with exit code 0."""
    server = make_rabbit()
    await asyncio.to_thread(server.start)
    settings = [f"broker.url={server.url}", f"state.url={production.state}", f"store.url={production.store}"]
    with Daemon(tmp_path, *settings, "drain.limit_s=2") as daemon:
        server.kill()
        await asyncio.to_thread(daemon.err.wait_for, lambda line: "broker_lost" in line, LIMIT_S)
        assert daemon.stop() == 0


async def test_a_daemon_outlives_its_database(
    tmp_path: Path, production: Production, own_postgres: PostgresServer
) -> None:
    """While PostgreSQL is away auctions go on and a change is refused in one line; afterwards it is taken."""
    await migrate(own_postgres.url)
    settings = [f"broker.url={production.broker}", f"state.url={production.state}", f"store.url={own_postgres.url}"]
    with Daemon(tmp_path, *settings) as daemon:
        daemon.put_campaigns(campaign("tea", bid=3.0))
        own_postgres.kill()
        assert daemon.auction(bid_request()).status == 200
        refused = daemon.admin("campaigns.set-bid", id="tea", bid=4.0)
        assert "\n" not in refused["error"]
        own_postgres.start()
        assert daemon.admin("campaigns.set-bid", id="tea", bid=4.0)["result"]["bid"] == 4.0
        assert msgspec.json.decode(get(daemon.url, "/readyz").body)["ready"]
