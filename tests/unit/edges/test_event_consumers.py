"""Wins off the queue into the ledger: in batches, once each, and never lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio

from rtb import messages
from rtb.adapters.clock import SystemClock
from rtb.adapters.memory_accounts import MemoryAccounts
from rtb.adapters.memory_broker import MemoryBroker
from rtb.adapters.memory_ledger import MemoryLedger
from rtb.domain.budget import Timing
from rtb.domain.campaign import Campaign, Pricing
from rtb.domain.tracking import Ticket, impid_in_ledger
from rtb.edges.event_consumers import WinConsumer
from rtb.errors import StoreError
from rtb.messages import WIN, MessageType
from rtb.ports import ERROR, Delivery, LedgerRow, Message, Subscription
from rtb.services import topology
from rtb.services.billing import Billing
from rtb.services.metrics import Metrics
from rtb.services.rebuild import Rebuild
from rtb.services.wins import Wins, wins_of
from tests.contract.support import PATIENCE_S
from tests.unit.parts import campaign


class Flaky(MemoryLedger):
    """A ledger that is away, or refuses a key, counts its commits, and tells of every attempt."""

    away = False
    refuses = ""
    commits = 0

    def __init__(self) -> None:
        super().__init__()
        self.tried = asyncio.Event()

    async def epochs(self, fences: Any) -> Any:
        """Unless it is away."""
        self._reach()
        return await super().epochs(fences)

    async def append(self, rows: Sequence[LedgerRow], *, epochs: Any) -> int:
        """Unless it is away, or refuses."""
        self._reach()
        self.tried.set()
        if any(row.key == self.refuses for row in rows):
            raise StoreError("refused")
        self.commits += 1
        return await super().append(rows, epochs=epochs)

    def _reach(self) -> None:
        if self.away:
            self.tried.set()
            raise StoreError("away")


class Unsteady:
    """A connection that is made anew with its consumers, as RabbitBroker does it."""

    def __init__(self, server: MemoryBroker) -> None:
        self.delivered: asyncio.Queue[Delivery] = asyncio.Queue()
        self._server = server
        self._peer: MemoryBroker | None = None
        self._subscription: Subscription
        self._wanted: tuple[str, Callable[[Delivery], None], int]

    async def consume(self, queue: str, handler: Callable[[Delivery], None], *, prefetch: int) -> Unsteady:
        """Of the one connection there is; it is its own subscription."""

        def take(delivery: Delivery) -> None:
            handler(delivery)
            self.delivered.put_nowait(delivery)

        self._wanted = (queue, take, prefetch)
        await self.reconnect()
        return self

    async def reconnect(self) -> None:
        """What is not acknowledged goes back to its queue and comes again."""
        if self._peer is not None:
            await self._peer.close()
        self._peer = self._server.peer()
        await self._peer.start()
        queue, handler, prefetch = self._wanted
        self._subscription = await self._peer.consume(queue, handler, prefetch=prefetch)

    async def cancel(self) -> None:
        """Take no more."""
        await self._subscription.cancel()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._server, name)


class World:
    """A broker, a ledger, one campaign of 1.00 a day, and what posts wins."""

    def __init__(self, **options: Any) -> None:
        clock = SystemClock()
        self.clock = clock
        self.broker = MemoryBroker(clock)
        self.connection = Unsteady(self.broker)
        self.metrics = Metrics("test", clock)
        self.ledger = Flaky()
        self.accounts = accounts = MemoryAccounts(clock, Timing())
        known = campaign("c", 2.0, daily_budget=1.0)

        async def find(campaign_id: str) -> Campaign | None:
            return known if campaign_id == "c" else None

        rebuild = Rebuild(accounts, self.ledger, find, clock, timing=Timing())
        billing = Billing(accounts, self.ledger, rebuild.restore, timing=Timing())
        self.consumer = WinConsumer(self.connection, billing, self.metrics, clock, linger_s=0.005, **options)
        self.posted: list[asyncio.Task[None]] = []
        self.wins = Wins(self.post)

    def post(self, exchange: str, routing_key: str, message: Message) -> None:
        """Publish."""
        self.posted.append(asyncio.ensure_future(self.broker.publish(exchange, routing_key, message)))

    async def win(
        self, count: int, payer: Callable[[int], str] = lambda _: "c", impid: str = "1", *, apart: bool = False
    ) -> None:
        """That many, each paid by the campaign that `payer` names, published; `apart`, each in a message of its own."""
        day = messages.datetime.now(messages.UTC).date().isoformat()
        for n in range(count):
            now = self.clock.time()
            self.wins(
                Ticket(
                    f"a{n}",
                    impid_in_ledger(impid),
                    payer(n),
                    "ad",
                    day,
                    "i",
                    Pricing.CPM,
                    1_000,
                    1_000,
                    now,
                    now + 60.0,
                )
            )
            if apart:
                self.wins.flush()
        await asyncio.sleep(0)
        await asyncio.gather(*self.posted)

    async def until(self, rows: int) -> list[str]:
        """The keys in the ledger once there are so many."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                keys = [row.key async for part in self.ledger.rows() for row in part]
                if len(keys) >= rows:
                    return keys
                self.ledger.tried.clear()
                await self.ledger.tried.wait()

    async def dead(self) -> Message:
        """The next dead letter."""
        taken: asyncio.Queue[Message] = asyncio.Queue()
        subscription = await self.broker.consume(topology.DEAD, lambda d: taken.put_nowait(d.message), prefetch=1)
        message = await asyncio.wait_for(taken.get(), PATIENCE_S)
        await subscription.cancel()
        return message


@asynccontextmanager
async def running(world: World) -> AsyncIterator[World]:
    """Until the end of the block."""
    await world.broker.start()
    await world.broker.declare(topology.topology())
    await world.consumer.start()
    yield world
    await world.consumer.stop()
    await world.broker.close()


@pytest_asyncio.fixture
async def world() -> AsyncIterator[World]:
    """Running."""
    async with running(World()) as world:
        yield world


async def test_wins_reach_the_ledger_in_batches(world: World) -> None:
    """A hundred wins of one moment are one commit, each acknowledged; a repeated message changes nothing."""
    await world.win(100)
    assert len(await world.until(100)) == 100
    assert world.ledger.commits == 1
    await world.win(100)
    await world.consumer.stop()
    depth = await world.broker.depth(topology.WINS)
    assert (depth.ready, depth.unacked) == (0, 0)
    assert sum((await world.ledger.spent()).values()) == 100_000


async def test_the_ledger_is_away_for_a_while(world: World) -> None:
    """The wins wait, nothing is retried or dead-lettered, and all are there in the end."""
    world.ledger.away = True
    await world.win(5)
    await asyncio.wait_for(world.ledger.tried.wait(), PATIENCE_S)
    world.ledger.away = False
    assert len(await world.until(5)) == 5
    assert (world.metrics.retried, world.metrics.dead_lettered) == (0, 0)


async def test_who_cannot_be_billed_does_not_hold_up_the_others(world: World) -> None:
    """A win of a campaign that nobody knows goes to the dead letters with that reason, alone, though it came in one
    message with others."""
    await world.win(3, lambda n: "nobody" if n == 1 else "c")
    assert await world.until(2) == ["a0:1:win", "a2:1:win"]
    dead = await world.dead()
    assert "'nobody' is unknown" in str(dead.headers[ERROR])
    assert [win.auction_id for win in wins_of(WIN.decode(messages.decode(dead.body).data))] == ["a1"]


async def test_a_row_that_the_ledger_refuses_is_tried_again_alone(world: World) -> None:
    """The rest of its batch is committed; it comes back later."""
    world.ledger.refuses = "a1:1:win"
    await world.win(3)
    assert sorted(await world.until(2)) == ["a0:1:win", "a2:1:win"]
    world.ledger.refuses = ""
    assert len(await world.until(3)) == 3
    assert world.metrics.dead_lettered == 0


@pytest.mark.parametrize(
    ("message_type", "data", "says"),
    [
        (MessageType.LOSS, {}, "loss does not belong on ad.wins"),
        (MessageType.WIN, {"auction_id": "a"}, "data.impid: required"),
        (MessageType.WIN, "x", "data: expected `object`"),
    ],
)
async def test_what_is_not_a_win_is_buried(world: World, message_type: MessageType, data: Any, says: str) -> None:
    """With the field that is wrong."""
    body = messages.encode(message_type, data, message_id="m", timestamp=1.0)
    await world.broker.publish("", topology.WINS, Message(body=body, message_id="m"))
    assert says in str((await world.dead()).headers[ERROR])


async def test_an_impid_that_no_database_takes(world: World) -> None:
    """A NUL from an SSP is replaced when the win is posted."""
    await world.win(1, impid="x\0y")
    assert await world.until(1) == ["a0:x\ufffdy:win"]


async def test_a_win_that_is_a_promise_charges_nobody() -> None:
    """Where impressions are tracked it stands in the ledger with its price, its creative and its user, and no account
    is opened for it."""
    async with running(World(bill_wins=False)) as world:
        await world.win(3)
        await world.until(3)
    rows = [row async for part in world.ledger.rows() for row in part]
    assert [(row.price_nanos, row.charged_nanos, row.reason, row.event_id) for row in rows] == [
        (1_000, 0, "", f"a{n}:1:win") for n in range(3)
    ]
    assert [book async for book in world.accounts.books()] == []


async def test_what_a_lost_connection_left_is_forgotten() -> None:
    """While the ledger is away and the broker's connection is lost again and again, the same wins come anew each time:
    no more of them are kept than can be acknowledged."""
    async with running(World(prefetch=4, batch=2)) as world:
        world.ledger.away = True
        await world.win(4, apart=True)
        for _ in range(6):
            for _ in range(4):
                await asyncio.wait_for(world.connection.delivered.get(), PATIENCE_S)
            await world.connection.reconnect()
        assert world.consumer.waiting <= 4
        world.ledger.away = False
        assert len(await world.until(4)) == 4


async def test_a_stop_that_is_given_up_ends_all_the_same(world: World) -> None:
    """Whatever the worker waits for: the ledger, or more wins."""
    world.ledger.away = True
    await world.win(1)
    await asyncio.wait_for(world.ledger.tried.wait(), PATIENCE_S)
    for turns in range(4):
        stopping = asyncio.ensure_future(world.consumer.stop())
        for _ in range(turns):
            await asyncio.sleep(0)
        stopping.cancel()
        await asyncio.wait_for(asyncio.wait({stopping}), PATIENCE_S)
        await world.consumer.start()
    world.ledger.away = False
    assert len(await world.until(1)) == 1
