"""Two daemons on one broker and one database: a change of the catalogue on one is soon seen on the other."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from msgspec.structs import replace

from rtb import messages
from rtb.domain import campaign as campaigns
from rtb.domain.campaign import Campaign, Status
from rtb.messages import CAMPAIGN_UPDATE, MessageType, PerformanceUpdate
from rtb.ports import ERROR, Binding, Broker, Message, QueueSpec, Topology
from rtb.services import topology
from tests.contract.brokers import Connect, Inbox
from tests.support.catalogue import CatalogueDaemon
from tests.unit.parts import campaign, world

Daemons = Callable[..., Awaitable[CatalogueDaemon]]
_ids = itertools.count()


@pytest_asyncio.fixture
async def daemons(connect: Connect, broker: Broker, prefix: str, tmp_path: Path) -> AsyncIterator[Daemons]:
    """Daemons, each on a connection of its own."""
    made: list[CatalogueDaemon] = []
    await broker.declare(topology.topology())
    await broker.purge(topology.CAMPAIGN_UPDATES)
    await broker.purge(topology.DEAD)

    async def make(*, writes: bool = True, follow_s: float = 3_600.0) -> CatalogueDaemon:
        part = world(str(tmp_path / "rtb.db"))
        await part.repository.start()
        daemon = CatalogueDaemon(f"{prefix}-{len(made)}", part, await connect(), tmp_path, follow_s=follow_s)
        made.append(daemon)
        await daemon.start(writes=writes)
        return daemon

    yield make
    for daemon in made:
        await daemon.stop()
        await daemon.world.profiles.close()
        await daemon.world.repository.close()


async def spy(broker: Broker, prefix: str) -> Inbox:
    """Sees whatever goes over the exchange of campaign updates."""
    queue = f"spy-{prefix}"
    await broker.declare(Topology({}, (QueueSpec(queue, exclusive=True),), (Binding(topology.CAMPAIGNS, queue),)))
    return await Inbox().open(broker, queue)


async def send(broker: Broker, data: Any, kind: MessageType = MessageType.CAMPAIGN_UPDATE, message_id: str = "") -> str:
    """Publish an update from outside; its message id."""
    message_id = message_id or f"outside-{next(_ids)}"
    body = messages.encode(kind, data, message_id=message_id, timestamp=1.5)
    await broker.publish(*topology.ROUTES[kind], Message(body=body, message_id=message_id))
    return message_id


async def stored(daemon: CatalogueDaemon, campaign_id: str) -> Campaign | None:
    return await daemon.world.repository.campaign(campaign_id)


async def test_an_operators_change_reaches_every_daemon(daemons: Daemons) -> None:
    """A campaign put, paused, resumed and bid up on one daemon bids so on the others."""
    here, there, elsewhere = await daemons(), await daemons(), await daemons()
    await here.catalogue.put([campaign("a", 1.0)])
    for daemon in (there, elsewhere):
        assert await daemon.at_version("a", 1) == campaign("a", 1.0)
    await there.catalogue.set_status("a", Status.PAUSED)
    for daemon in (here, elsewhere):
        assert (await daemon.at_version("a", 2)).status is Status.PAUSED
    await elsewhere.catalogue.set_status("a", Status.ACTIVE)
    await here.at_version("a", 3)
    await here.catalogue.set_bid("a", 5.0)
    expected = campaign("a", 5.0, version=4)
    for daemon in (here, there, elsewhere):
        assert await daemon.at_version("a", 4) == await stored(daemon, "a") == expected


async def test_many_at_once_are_looked_up(daemons: Daemons, broker: Broker, prefix: str) -> None:
    """An import is not repeated in messages: one tells the others to look."""
    here, there = await daemons(), await daemons()
    seen = await spy(broker, prefix)
    await here.catalogue.put([campaign(f"c{n}") for n in range(300)])
    await there.until(lambda: len(there.world.house.index) == 300)
    update = CAMPAIGN_UPDATE.decode(messages.decode((await seen.next()).message.body).data)
    assert (update.persisted, bytes(update.campaign)) == (True, b"")


async def test_a_campaign_too_long_for_a_message_is_looked_up(daemons: Daemons) -> None:
    """Its markup alone is longer than messages may be."""
    here, there = await daemons(), await daemons()
    long = campaign("a")
    long = replace(long, creatives=(replace(long.creatives[0], adm="x" * messages.MAX_BODY),))
    await here.catalogue.put([long])
    assert await there.at_version("a", 1) == long


@pytest.mark.parametrize("whole", [False, True])
async def test_an_update_from_outside_is_written_and_seen(daemons: Daemons, broker: Broker, whole: bool) -> None:
    """By one daemon into the repository, with the next version, and by all into their indexes."""
    here, there = await daemons(), await daemons()
    await here.catalogue.put([campaign("a", 1.0)])
    value = json.loads(campaigns.encode(campaign("a", 4.0)))
    await send(broker, {"campaign": value} if whole else {"campaign_id": "a", "bid": 4.0})
    for daemon in (here, there):
        assert await daemon.at_version("a", 2) == campaign("a", 4.0, version=2) == await stored(daemon, "a")


async def test_an_update_goes_round_once(daemons: Daemons, broker: Broker, prefix: str) -> None:
    """The update from outside, the announcement of what was written, and nothing more, however many daemons."""
    here, there = await daemons(), await daemons()
    await here.catalogue.put([campaign("a", 1.0)])
    await there.at_version("a", 1)
    await here.outbox.flush(20)
    seen = await spy(broker, prefix)
    outside = await send(broker, {"campaign_id": "a", "bid": 4.0})
    await here.at_version("a", 2)
    await there.at_version("a", 2)
    last = await send(broker, {"campaign_id": "a", "bid": 4.0})  # changes nothing
    bids = await send(broker, {"campaign_id": "a", "bid": 5.0})
    await here.at_version("a", 3)
    await there.at_version("a", 3)
    ids = [(await seen.next()).message.message_id for _ in range(5)]
    assert ids[0] == outside
    assert ids.index(last) < ids.index(bids)
    assert len(set(ids)) == 5  # three from outside, two announcements


async def test_the_same_message_twice_is_one_change(daemons: Daemons, broker: Broker) -> None:
    """Even when the campaign was changed in between: it does not undo that."""
    here = await daemons()
    await here.catalogue.put([campaign("a", 1.0)])
    await send(broker, {"campaign_id": "a", "bid": 4.0}, message_id="twice")
    await here.at_version("a", 2)
    await here.catalogue.set_bid("a", 6.0)
    await send(broker, {"campaign_id": "a", "bid": 4.0}, message_id="twice")
    await send(broker, {"campaign_id": "a", "status": "paused"})
    assert await here.at_version("a", 4) == campaign("a", 6.0, version=4, status=Status.PAUSED)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({"campaign_id": "x", "bid": 1.0}, "campaign 'x': unknown"),
        ({"campaign_id": "a", "bid": -1.0}, "campaign 'a': bid"),
        ({"campaign_id": "a", "colour": "red"}, "campaign 'a': Object contains unknown field"),
        ({"campaign_id": "a"}, "data: names no field"),
        ([], "data: expected `object`"),
    ],
)
async def test_what_cannot_be_done_is_dead_lettered(daemons: Daemons, broker: Broker, data: Any, reason: str) -> None:
    """Once, with the reason; the next update is done."""
    here, there = await daemons(), await daemons()
    await here.catalogue.put([campaign("a", 1.0)])
    dead = await Inbox().open(broker, topology.DEAD)
    bad = await send(broker, data)
    await send(broker, {"campaign_id": "a", "bid": 3.0})
    await there.at_version("a", 2)
    buried = (await dead.next()).message
    assert buried.message_id == bad
    assert str(buried.headers[ERROR]).startswith(reason)
    await here.writer.stop()
    await there.writer.stop()
    assert len(dead.taken) == 1


async def test_a_message_that_does_not_belong_there(daemons: Daemons, broker: Broker) -> None:
    """Neither an update nor about performance."""
    await daemons()
    dead = await Inbox().open(broker, topology.DEAD)
    body = messages.encode(MessageType.CLICK, {}, message_id="m", timestamp=0)
    await broker.publish(topology.CAMPAIGNS, "", Message(body=body))
    assert "click does not belong" in str((await dead.next()).message.headers[ERROR])


async def test_what_happened_is_heard_by_every_daemon(daemons: Daemons, broker: Broker) -> None:
    """Performance updates use the same exchange, and the writer lets them pass."""
    here, there = await daemons(), await daemons()
    update = PerformanceUpdate(campaign_id="a", impressions=3, spend=0.5)
    await send(broker, update, MessageType.PERFORMANCE_UPDATE)
    for daemon in (here, there):
        assert await asyncio.wait_for(daemon.heard.get(), 20) == update


async def test_two_daemons_change_one_campaign_at_once(daemons: Daemons) -> None:
    """The repository takes one, the other is made on top of it: no change is lost, and both see both."""
    here, there = await daemons(), await daemons()
    await here.catalogue.put([campaign("a", 1.0)])
    await there.at_version("a", 1)
    await asyncio.gather(here.catalogue.set_bid("a", 7.0), there.catalogue.set_status("a", Status.PAUSED))
    expected = campaign("a", 7.0, status=Status.PAUSED, version=3)
    for daemon in (here, there):
        assert await daemon.at_version("a", 3) == await stored(daemon, "a") == expected


async def test_a_whole_campaign_put_by_two_daemons_at_once(daemons: Daemons) -> None:
    """One after the other, each with its own version; the index of both shows what the repository has."""
    here, there = await daemons(), await daemons()
    await asyncio.gather(
        here.catalogue.put([campaign("a", 1.0), campaign("b", 1.0)]),
        there.catalogue.put([campaign("b", 2.0), campaign("a", 2.0)]),
    )
    for daemon in (here, there):
        for name in ("a", "b"):
            assert await daemon.at_version(name, 2) == await stored(daemon, name)


async def test_a_daemon_that_starts_later_has_it_all(daemons: Daemons) -> None:
    """From the repository."""
    here = await daemons()
    await here.catalogue.put([campaign("a", 1.0)])
    await here.catalogue.set_bid("a", 2.0)
    there = await daemons()
    assert there.known("a") == campaign("a", 2.0, version=2)


async def test_changes_made_while_a_daemon_did_not_hear(daemons: Daemons) -> None:
    """It catches up from the repository once it listens again; and every few seconds, should a message be lost."""
    here, there = await daemons(), await daemons()
    await here.catalogue.put([campaign("a", 1.0)])
    await there.at_version("a", 1)
    await there.listener.stop()
    await here.catalogue.set_bid("a", 2.0)
    await here.catalogue.put([campaign("b")])
    await there.listener.start()
    await there.at_version("a", 2)
    await there.at_version("b", 1)
    deaf = await daemons(follow_s=0.01)
    await deaf.listener.stop()
    await here.catalogue.set_bid("a", 3.0)
    await deaf.at_version("a", 3)


async def test_while_the_repository_is_away_updates_wait(daemons: Daemons, broker: Broker) -> None:
    """No attempt is counted and none is dead-lettered; once it is back each is written, in order."""
    here = await daemons()
    await here.catalogue.put([campaign("a", 1.0)])
    await here.world.repository.close()
    for bid in (2.0, 3.0, 4.0):
        await send(broker, {"campaign_id": "a", "bid": bid})
    await here.writer_waits()
    await here.world.repository.start()
    assert await here.at_version("a", 4) == campaign("a", 4.0, version=4)
    assert here.world.metrics.retried == here.world.metrics.dead_lettered == 0


async def test_an_update_that_nobody_finished_is_the_next_writers(daemons: Daemons, broker: Broker) -> None:
    """A daemon that stops while the repository is away leaves its updates in the queue."""
    here = await daemons()
    await here.catalogue.put([campaign("a", 1.0)])
    await here.world.repository.close()
    await send(broker, {"campaign_id": "a", "bid": 2.0})
    await here.writer_waits()
    await here.stop()
    await here.broker.close()
    there = await daemons()
    assert (await there.at_version("a", 2)).bid == 2.0
