"""The catalogue through outages: whatever was away, all daemons end up with what the repository has."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest_asyncio
from msgspec.structs import replace

from rtb import messages
from rtb.adapters.amqp import RabbitBroker
from rtb.adapters.clock import SystemClock
from rtb.domain.campaign import Status
from rtb.lab.servers.rabbitmq import RabbitServer
from rtb.messages import MessageType
from rtb.ports import Message
from rtb.services import topology
from tests.support.catalogue import CatalogueDaemon
from tests.support.rabbitmq import MakeRabbit
from tests.unit.parts import campaign, world

SETTLED_S = 1.5
"""RabbitMQ writes the name of a new quorum queue to disk after 500 ms (ra_directory, auto_save); killed before, it
forgets the queue. A daemon's queues are older than that."""

Daemons = Callable[[RabbitServer], Awaitable[CatalogueDaemon]]


@pytest_asyncio.fixture
async def daemons(tmp_path: Path) -> AsyncIterator[Daemons]:
    """Daemons on one database, which never look into it but when they are told to."""
    made: list[CatalogueDaemon] = []

    async def make(server: RabbitServer) -> CatalogueDaemon:
        part = world(str(tmp_path / "rtb.db"))
        await part.repository.start()
        broker = RabbitBroker(server.url, SystemClock(), heartbeat_s=1)
        daemon = CatalogueDaemon(f"d{len(made)}", part, broker, tmp_path, follow_s=1.0)
        made.append(daemon)
        await broker.start()
        await broker.declare(topology.topology())
        await daemon.start()
        return daemon

    yield make
    for daemon in made:
        await daemon.stop()
        await daemon.broker.close()
        await daemon.world.profiles.close()
        await daemon.world.repository.close()


async def converged(here: CatalogueDaemon, there: CatalogueDaemon, versions: dict[str, int]) -> None:
    """Both have every campaign at its version, as the repository has it."""
    for daemon in (here, there):
        for name, version in versions.items():
            assert await daemon.at_version(name, version) == await here.world.repository.campaign(name)


async def test_changes_made_while_the_broker_is_dead(make_rabbit: MakeRabbit, daemons: Daemons) -> None:
    """Killed, and up again: operators' changes work meanwhile, everyone has them at once or soon, and none of the
    messages about them is lost: afterwards updates from outside and announcements flow as before."""
    server = make_rabbit()
    await asyncio.to_thread(server.start)
    here, there = await daemons(server), await daemons(server)
    await here.catalogue.put([campaign("a", 1.0), campaign("b", 1.0)])
    await converged(here, there, {"a": 1, "b": 1})
    await here.outbox.flush(20)
    await asyncio.sleep(SETTLED_S)
    await asyncio.to_thread(server.kill)
    await here.catalogue.set_bid("a", 2.0)
    await there.catalogue.set_status("b", Status.PAUSED)
    await asyncio.gather(here.catalogue.set_bid("b", 3.0), there.catalogue.put([campaign("c")]))
    await converged(here, there, {"a": 2, "b": 3, "c": 1})
    for daemon in (here, there):
        await daemon.outbox.flush(0.1)
        assert daemon.outbox.lost == daemon.outbox.dropped == 0
    assert here.outbox.waiting + there.outbox.waiting == 4  # on disk
    await asyncio.to_thread(server.start)
    update = {"campaign_id": "a", "daily_budget": 5.0}
    body = messages.encode(MessageType.CAMPAIGN_UPDATE, update, message_id="m", timestamp=0.0)
    await there.outbox.deliver(topology.CAMPAIGNS, "", Message(body=body, message_id="m"))
    await converged(here, there, {"a": 3, "b": 3, "c": 1})
    async with asyncio.timeout(30):
        while here.outbox.waiting or there.outbox.waiting:  # noqa: ASYNC110 - nothing tells that a spool is empty
            await asyncio.sleep(0.05)
    assert here.known("a") == replace(campaign("a", 2.0), daily_budget=5.0, version=3)
    assert (await there.broker.depth(topology.DEAD)).ready == 0
