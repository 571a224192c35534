"""Trouble that lasts: a consumer slower than its producer for a minute, a broker frozen for twenty seconds."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import psutil
import pytest

from rtb import messages
from rtb.adapters.amqp import RabbitBroker
from rtb.adapters.clock import SystemClock
from rtb.errors import BrokerError
from rtb.messages import MessageType
from rtb.ports import Message
from rtb.services import topology
from tests.chaos.test_daemon import requester
from tests.support.daemon import LIMIT_S, Daemon
from tests.support.http import get
from tests.support.production import Production
from tests.support.rabbitmq import MakeRabbit
from tests.support.samples import bid_request, campaign

BURST = 100
BURST_EVERY_S = 0.1
WARM_S = 15.0
TROUBLE_S = float(os.environ.get("RTB_TROUBLE_S", "60"))
"""How long a consumer is slower than its producer; ``RTB_TROUBLE_S=600 scripts/test -s -k memory_stays_flat``
takes ten minutes and prints the figures."""
FULL = 50_000
"""Requests that wait in a run so long that the oldest of them expire."""
MIB = 1 << 20


async def publish_for(broker: RabbitBroker, seconds: float) -> int:
    """Bid requests at about BURST / BURST_EVERY_S a second; how many were confirmed."""
    sent = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        now = time.time()
        bodies = [
            (
                name,
                messages.encode(
                    MessageType.BID_REQUEST, bid_request(id=name, tmax=600_000), message_id=name, timestamp=now
                ),
            )
            for name in (f"slow-{sent + n}" for n in range(BURST))
        ]
        await asyncio.gather(
            *(
                broker.publish(topology.BIDDING, "bid.request", Message(body=body, message_id=name, persistent=False))
                for name, body in bodies
            )
        )
        sent += BURST
        await asyncio.sleep(BURST_EVERY_S)
    return sent


@pytest.mark.timeout(TROUBLE_S + 240)
async def test_memory_stays_flat_behind_a_fast_producer(tmp_path: Path, production: Production) -> None:
    """For a minute requests come several times faster than auctions can be run, of 10 ms of processor each, and none is
    too old: what waits waits at the broker, the daemon does not grow, and still answers over HTTP."""
    burden = ("lab.bidder=true", "lab.bidder_ms=1", "lab.bidder_cpu_us=10000", "http.shed_after_ms=0")
    broker = RabbitBroker(production.broker, SystemClock())
    await broker.start()
    try:
        settings = (*production.settings(), *burden, "auction.deadline_ms=600000")
        with await asyncio.to_thread(Daemon, tmp_path, *settings) as daemon:
            daemon.put_campaigns(campaign("tea", bid=3.0))
            process = psutil.Process(daemon.process.pid)
            sent = await publish_for(broker, WARM_S)
            warm = process.memory_info().rss
            sent += await publish_for(broker, TROUBLE_S - WARM_S)
            grown = process.memory_info().rss - warm
            waiting = (await broker.depth(topology.BID_REQUESTS)).ready
            print(f"\nresident {warm / MIB:.1f} MiB after {WARM_S:g} s, {(warm + grown) / MIB:.1f} MiB after", end=" ")
            print(f"{TROUBLE_S:g} s; {sent} requests sent, {waiting} wait")
            answer = await asyncio.to_thread(get, daemon.url, "/healthz")
            await broker.purge(topology.BID_REQUESTS)
        assert answer.status == 200
        assert waiting > min(sent // 4, FULL), f"{waiting} of {sent} waited: the producer was not faster"
        assert grown < 16 * MIB, f"grew by {grown / MIB:.1f} MiB"
    finally:
        await broker.close()


@pytest.mark.parametrize("seconds", [20.0])
async def test_a_broker_frozen_for_long(
    tmp_path: Path, production: Production, make_rabbit: MakeRabbit, seconds: float
) -> None:
    """The broker stands still longer than any heartbeat: auctions over HTTP go on, the connection is given up, and once
    it moves again every request on the queue is answered."""
    server = make_rabbit()
    await asyncio.to_thread(server.start)
    settings = [f"broker.url={server.url}", f"state.url={production.state}", f"store.url={production.store}"]
    async with requester(server.url) as asks:
        with await asyncio.to_thread(Daemon, tmp_path, *settings, "auction.deadline_ms=60000") as daemon:
            daemon.put_campaigns(campaign("tea", bid=3.0))
            await asks.ask(range(200))
            await asks.answered(200)
            server.pause()
            try:
                end = time.monotonic() + seconds
                while time.monotonic() < end:
                    assert (await asyncio.to_thread(daemon.auction, bid_request())).status == 200
                    await asyncio.sleep(0.5)
            finally:
                server.resume()
            async with asyncio.timeout(LIMIT_S):
                while True:
                    try:
                        await asks.ask(range(200, 400))
                    except BrokerError:  # the test's own connection is not back yet
                        await asyncio.sleep(0.2)
                    else:
                        break
            await asks.answered(400)
            assert (await asyncio.to_thread(get, daemon.url, "/readyz")).status == 200
