"""Frames between daemons over every broker: who counts what is seen by all, merged."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest_asyncio

from rtb.adapters.clock import SystemClock
from rtb.domain.snapshot import Snapshot
from rtb.ports import Broker
from rtb.services.frame_source import FrameSource
from rtb.services.frames import FrameExchange
from rtb.services.metrics import Metrics
from tests.contract.brokers import PATIENCE_S, Connect


class Peer:
    """A daemon as far as its frames go."""

    def __init__(self, name: str, broker: Broker) -> None:
        clock = SystemClock()
        self.name = name
        self.metrics = Metrics(name, clock)
        self.source = FrameSource(self.metrics, clock, interval_s=0.02, stale_s=PATIENCE_S)
        self.frames = FrameExchange(self.source, broker, instance=name)

    async def start(self) -> None:
        """Join, and tick."""
        await self.frames.start()
        self.source.start()

    async def stop(self) -> None:
        """As a daemon does when it ends."""
        await self.frames.stop()
        self.source.stop()

    async def sees(self, expected: Callable[[Snapshot], bool]) -> None:
        """Wait until a snapshot is as expected."""
        seen = asyncio.Event()
        end = self.source.subscribe(lambda snapshot: seen.set() if expected(snapshot) else None)
        await asyncio.wait_for(seen.wait(), PATIENCE_S)
        end()

    def states(self) -> dict[str, str]:
        """Who is what."""
        return {row.instance: row.state for row in self.source.instances()}


Peers = Callable[[str], Awaitable[Peer]]


@pytest_asyncio.fixture
async def peers(connect: Connect, prefix: str) -> AsyncIterator[Peers]:
    """Daemons, each on a connection of its own."""
    made: list[Peer] = []

    async def make(name: str) -> Peer:
        peer = Peer(f"{prefix}-{name}", await connect())
        made.append(peer)
        await peer.start()
        return peer

    yield make
    for peer in made:
        await peer.stop()


async def test_every_daemon_sees_the_sum(peers: Peers, prefix: str) -> None:
    """Whichever of them a browser reaches; one that joins later does so, too."""
    one, two = await peers("one"), await peers("two")
    one.metrics.won, two.metrics.won = 30, 12
    for peer in (one, two):
        await peer.sees(lambda snapshot: snapshot.totals.won == 42)
    three = await peers("three")
    await three.sees(lambda snapshot: (snapshot.totals.won, snapshot.live) == (42, 3))
    assert three.states() == {f"{prefix}-{name}": "live" for name in ("one", "two", "three")}


async def test_a_daemon_that_ends_says_so(peers: Peers) -> None:
    """What it had counted stays in the sum."""
    one, two = await peers("one"), await peers("two")
    two.metrics.won = 12
    await one.sees(lambda snapshot: snapshot.live == 2)
    await two.stop()
    await one.sees(lambda snapshot: (snapshot.live, snapshot.stale, snapshot.totals.won) == (1, 0, 12))
    assert one.states()[two.name] == "stopped"
