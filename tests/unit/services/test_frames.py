"""Frames between instances on one broker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from rtb import messages
from rtb.adapters.clock import ManualClock
from rtb.adapters.memory_broker import MemoryBroker
from rtb.domain.histogram import Histogram
from rtb.messages import MessageType
from rtb.ports import Broker, Message
from rtb.services import topology
from rtb.services.frame_source import FrameSource
from rtb.services.frames import UNANSWERED, FrameExchange
from rtb.services.metrics import Metrics


class Daemon:
    """What a daemon has of it."""

    def __init__(self, name: str, broker: Broker, clock: ManualClock) -> None:
        self.broker = broker
        self.metrics = Metrics(name, clock)
        self.source = FrameSource(self.metrics, clock)
        self.frames = FrameExchange(self.source, broker, instance=name)

    async def start(self) -> None:
        """Connect and join."""
        await self.broker.start()
        await self.broker.declare(topology.topology())
        await self.frames.start()


class Cluster:
    """Three daemons whose seconds pass together."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        broker = MemoryBroker(self.clock)
        self.daemons = [Daemon("a", broker, self.clock), *(Daemon(n, broker.peer(), self.clock) for n in "bc")]

    async def second(self, *ticking: Daemon) -> None:
        """All of them tick, or these, and hear of each other; then all look."""
        await asyncio.sleep(0)
        self.clock.advance(1)
        for daemon in ticking or self.daemons:
            daemon.source.tick()
        await asyncio.sleep(0)  # deliveries are handed out in the loop's next step
        await asyncio.sleep(0)


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    made = Cluster()
    for daemon in made.daemons:
        await daemon.start()
    yield made
    for daemon in made.daemons:
        await daemon.frames.stop()
        await daemon.broker.close()


async def test_every_instance_sees_all_merged(cluster: Cluster) -> None:
    """Counters and histograms add up: 99 auctions of 1 ms here and 99 of 80 ms there have a p99 of 80 ms."""
    a, b, _ = cluster.daemons
    a.metrics.won, b.metrics.won = 99, 99
    for _ in range(99):
        a.metrics.latency.record(1_000_000)
        b.metrics.latency.record(80_000_000)
    await cluster.second()
    await cluster.second()
    for daemon in cluster.daemons:
        assert (daemon.source.latest.totals.won, daemon.source.latest.live) == (198, 3)
        assert [row.instance for row in daemon.source.instances()] == ["a", "b", "c"]
        heard = Histogram()
        for point in daemon.source.history:
            heard.sum_ns += sum(point.heat[1:])
        assert heard.sum_ns == 198
        slow = [point.p99_ms for point in daemon.source.history if point.p99_ms is not None]
        assert 80 <= max(slow) <= 82.5


async def test_an_instance_that_stops_is_seen_to_stop_and_a_dead_one_to_be_silent(cluster: Cluster) -> None:
    """The one says so, the other is stale after three seconds, with its age."""
    a, b, c = cluster.daemons
    await cluster.second()
    await b.frames.stop()
    for _ in range(4):
        await cluster.second(a)
    rows = {row.instance: (row.state, row.age_s) for row in a.source.instances()}
    assert rows == {"a": ("live", 0.0), "b": ("stopped", 4.0), "c": ("stale", 4.0)}
    assert (a.source.latest.live, a.source.latest.stale) == (1, 1)
    await cluster.second(a, c)
    await cluster.second(a, c)
    assert {row.instance: row.state for row in a.source.instances()} == {"a": "live", "b": "stopped", "c": "live"}


async def test_what_is_no_frame_harms_nobody(cluster: Cluster) -> None:
    """A body that makes no sense, a frame that does not, a message of another kind."""
    a = cluster.daemons[0]
    update = messages.encode(MessageType.CAMPAIGN_UPDATE, {}, message_id="1", timestamp=0.0)
    damaged = messages.encode(MessageType.METRICS_FRAME, {"instance": ""}, message_id="2", timestamp=0.0)
    for body in (b"{", update, damaged):
        await a.broker.publish(topology.METRICS, "", Message(body=body))
    await cluster.second()
    await cluster.second()
    assert a.source.latest.live == 3


async def test_frames_do_not_pile_up_where_nobody_hears(cluster: Cluster) -> None:
    """They expire with their queue's time to live."""
    a, b, _ = cluster.daemons
    assert b.frames._subscription is not None
    await b.frames._subscription.cancel()
    for _ in range(10):
        await cluster.second(a)
    assert (await b.broker.depth(topology.frames_queue("b"))).ready <= topology.FRAME_TTL_MS // 1_000


async def test_while_the_broker_does_not_answer_only_so_many_frames_are_under_way(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Later ones are counted as lost, and once it answers frames go out again."""
    a = cluster.daemons[0]
    await cluster.second()
    waiting = []
    send = a.broker.send
    monkeypatch.setattr(a.broker, "send", lambda *given, **options: waiting.append((given, options)))
    for _ in range(5):
        await cluster.second(a)
    assert (len(waiting), a.frames.lost) == (UNANSWERED, 5 - UNANSWERED)
    monkeypatch.setattr(a.broker, "send", send)
    for given, options in waiting:
        send(*given, **options)
    await cluster.second(a)
    assert a.frames.lost == 5 - UNANSWERED
    assert cluster.daemons[1].source._members._members["a"].frame.seq == 7
