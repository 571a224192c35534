"""The writer of campaign updates, where one message cannot be written although the repository is there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
import pytest_asyncio

from rtb import messages
from rtb.adapters.clock import ManualClock
from rtb.adapters.memory_broker import MemoryBroker
from rtb.domain.campaign import Campaign
from rtb.edges import failure
from rtb.errors import StoreError
from rtb.messages import MessageType
from rtb.ports import ERROR, Message
from rtb.services import topology
from tests.contract.brokers import Inbox
from tests.support.catalogue import CatalogueDaemon
from tests.unit.parts import campaign, world

CLOCK = ManualClock()


@pytest_asyncio.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[CatalogueDaemon]:
    """One daemon, on a clock that is set by hand."""
    part = world(str(tmp_path / "rtb.db"), clock=CLOCK)
    await part.repository.start()
    broker = MemoryBroker(CLOCK)
    await broker.start()
    await broker.declare(topology.topology())
    made = CatalogueDaemon("one", part, broker, tmp_path)
    await made.start()
    yield made
    await made.stop()
    await part.profiles.close()
    await part.repository.close()
    await broker.close()


async def send(daemon: CatalogueDaemon, data: object, message_id: str) -> None:
    body = messages.encode(MessageType.CAMPAIGN_UPDATE, data, message_id=message_id, timestamp=0.0)
    await daemon.broker.publish(topology.CAMPAIGNS, "", Message(body=body, message_id=message_id))


async def test_what_the_repository_refuses_stops_nobody(
    daemon: CatalogueDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried again three times, with growing delay, while others are written; then it is dead-lettered."""
    monkeypatch.setattr(failure, "FIRST_WAIT_S", 0.0)
    dead = await Inbox().open(daemon.broker, topology.DEAD)
    put = daemon.world.repository.put_campaigns

    async def refuse(campaigns: Sequence[Campaign]) -> int:
        if campaigns[0].id == "poison":
            raise StoreError("the value is out of range")
        return await put(campaigns)

    monkeypatch.setattr(daemon.world.repository, "put_campaigns", refuse)
    await send(daemon, campaign("poison"), "bad")
    for n, delay_ms in enumerate(topology.RETRY_DELAYS_MS):
        await send(daemon, campaign(f"c{n}"), f"good {n}")
        await daemon.at_version(f"c{n}", 1)
        assert daemon.world.metrics.retried == n + 1
        CLOCK.advance(delay_ms / 1e3)
    buried = (await dead.next()).message
    assert buried.message_id == "bad"
    assert buried.headers[ERROR] == "the value is out of range (given up after 3 retries)"
    assert daemon.world.metrics.dead_lettered == 1


async def test_the_listener_survives_nonsense(daemon: CatalogueDaemon) -> None:
    """What it cannot understand, or a mistake in whoever listens to performance, ends nothing."""
    dead = await Inbox().open(daemon.broker, topology.DEAD)
    await daemon.broker.publish(topology.CAMPAIGNS, "", Message(body=b"not json"))
    await dead.next()
    await send(daemon, {"campaign": {"id": "x"}, "persisted": True, "origin": "two"}, "broken")
    await send(daemon, campaign("a"), "good")
    await daemon.at_version("a", 1)
    depth = await daemon.broker.depth(topology.instance_queue("one"))
    assert (depth.unacked, len(dead.taken)) == (0, 1)
