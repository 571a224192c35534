"""Tracked events at random, what should come of them, and daemons that consume them and can be killed."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct

from rtb import messages
from rtb.adapters.clock import SystemClock
from rtb.adapters.memory_accounts import MemoryAccounts
from rtb.domain.budget import Timing, budget_day
from rtb.domain.campaign import Campaign, Pricing
from rtb.domain.money import Rates
from rtb.domain.performance import NOTHING, Counters, counted
from rtb.domain.tracking import Keys, Signer, Ticket, event_id
from rtb.edges.event_consumers import EventConsumer, WinConsumer, tracked_consumers
from rtb.errors import BrokerError
from rtb.messages import MessageType, TrackedEvent
from rtb.ports import Accounts, Broker, Ledger, LedgerKind, Message, StateStore
from rtb.services import topology
from rtb.services.audit import Audit
from rtb.services.billing import Billing
from rtb.services.metrics import Metrics
from rtb.services.performance import Performance
from rtb.services.rebuild import UTC_ZONE, Days, LocalRebuild, Rebuild
from rtb.services.restoring import Restoring
from rtb.services.tracking import Tracking
from rtb.services.wins import win_of
from tests.unit.parts import campaign

SIGNER = Signer(Keys({1: b"a secret of the test"}, 1), b"the secret of its digests")
TIMING = Timing(grace_ms=0)
IMPRESSION, CLICK, CONVERSION = LedgerKind.IMPRESSION, LedgerKind.CLICK, LedgerKind.CONVERSION
CRAWLER = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
UA = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36"
CAMPAIGNS = {
    one.id: one
    for one in (
        campaign("cpm", 2.0, daily_budget=1_000.0),
        campaign("cpc", 0.5, pricing=Pricing.CPC, daily_budget=5_000.0),
        campaign("cpa", 3.0, pricing=Pricing.CPA, daily_budget=5_000.0, lifetime_budget=8_000.0),
        campaign("free", 2.0),
    )
}
PRICES = {Pricing.CPM: 0, Pricing.CPC: 500_000_000, Pricing.CPA: 3_000_000_000}
BILLED = {Pricing.CPM: IMPRESSION, Pricing.CPC: CLICK, Pricing.CPA: CONVERSION}
REPEATED = 0.05
"""Of the messages, so many are published twice, under one id."""
TOLD_AGAIN = 0.02
"""Of the events, so many come a second time as another message."""
FORGED, LATE, BOTS = 0.03, 0.03, 0.02
PATIENCE_S = 40.0


class Post(Struct, frozen=True):
    """A message for a queue."""

    queue: str
    message: Message


class Simulator:
    """Makes events and counts, by itself, what should stand in the books of each campaign and among the refused."""

    def __init__(self, seed: int) -> None:
        self._dice = random.Random(seed)
        self.expected: dict[str, Counters] = {}
        self.refused: Counter[str] = Counter()
        self.rows = 0
        self._number = 0

    def wins(self, count: int) -> tuple[list[Ticket], list[Post]]:
        """Wins of now, and their messages."""
        tickets = [self._ticket() for _ in range(count)]
        posts: list[Post] = []
        for ticket in tickets:
            self._count(ticket.campaign_id, LedgerKind.WIN, 0, 0)
            name = event_id(ticket, "win")
            body = messages.encode(MessageType.WIN, win_of(ticket), message_id=name, timestamp=ticket.won_at)
            posts.append(Post(topology.WINS, Message(body=body, message_id=name)))
        return tickets, self._doubled(posts)

    def events(self, kind: LedgerKind, tickets: Sequence[Ticket]) -> list[Post]:
        """An event of each ticket, and what is up to no good besides; in any order."""
        posts: list[Post] = []
        for ticket in tickets:
            value = round(self._dice.uniform(1, 50), 2) if kind is CONVERSION else 0.0
            cost = ticket.price_nanos if BILLED[ticket.pricing] is kind else 0
            self._count(ticket.campaign_id, kind, cost, round(value * 1e9))
            posts.append(self._post(kind, ticket, event_id(ticket, kind.value), value=value))
            if self._dice.random() < TOLD_AGAIN:
                self.refused["seen before"] += 1
                posts.append(self._post(kind, ticket, self._name(), value=value))
        for ticket in tickets:
            if self._dice.random() < FORGED:
                token = SIGNER.token(ticket)
                self.refused["forged token"] += 1
                posts.append(
                    self._post(kind, ticket, self._name(), token=f"{token[:60]}{token[60:64][::-1]}{token[64:]}")
                )
            if self._dice.random() < LATE:
                self.refused["received after its window"] += 1
                posts.append(self._post(kind, ticket, self._name(), received_at=ticket.won_at + 90 * 86_400))
            if self._dice.random() < BOTS:
                self.refused["user agent of a crawler"] += 1
                posts.append(self._post(kind, ticket, self._name(), ua=CRAWLER))
        posts = self._doubled(posts)
        self._dice.shuffle(posts)
        return posts

    def some(self, tickets: Sequence[Ticket], share: float) -> list[Ticket]:
        """A share of them."""
        return [ticket for ticket in tickets if self._dice.random() < share]

    def _ticket(self) -> Ticket:
        self._number += 1
        now = time.time()
        of = CAMPAIGNS[self._dice.choice(list(CAMPAIGNS))]
        held = self._dice.randrange(100_000, 2_000_000)
        return Ticket(
            auction_id=f"{self._dice.getrandbits(64):016x}",
            impid="1",
            campaign_id=of.id,
            creative_id=f"{of.id}-ad",
            day="" if of.id == "free" else budget_day(now, UTC_ZONE),
            instance=f"daemon-{self._dice.randrange(3)}",
            pricing=of.pricing,
            price_nanos=PRICES[of.pricing] or held,
            held_nanos=held,
            won_at=now,
            expires_at=now + 300.0,
            user=f"user-{self._number}",
        )

    def _post(self, kind: LedgerKind, ticket: Ticket, name: str, **fields: Any) -> Post:
        values = {"received_at": ticket.won_at + 1.0, "token": SIGNER.token(ticket), "ua": UA, **fields}
        event = TrackedEvent(**values)
        body = messages.encode(MessageType(kind.value), event, message_id=name, timestamp=ticket.won_at)
        return Post(_QUEUES[kind], Message(body=body, message_id=name))

    def _name(self) -> str:
        return f"another-{self._dice.getrandbits(64):016x}"

    def _count(self, campaign_id: str, kind: LedgerKind, cost: int, value: int) -> None:
        self.rows += 1
        self.expected[campaign_id] = self.expected.get(campaign_id, NOTHING) + counted(kind.value, 1, cost, value)

    def _doubled(self, posts: list[Post]) -> list[Post]:
        return posts + [post for post in posts if self._dice.random() < REPEATED]


_QUEUES = {IMPRESSION: topology.IMPRESSIONS, CLICK: topology.CLICKS, CONVERSION: topology.CONVERSIONS}


class Stores(Struct, frozen=True):
    """What daemons stand on; each has its own connections."""

    broker: Callable[[], Broker]
    accounts: Callable[[], Accounts]
    state: Callable[[], StateStore]
    ledger: Ledger
    near: bool = False
    """Whether the accounts are in this process, and so begin empty."""


class Daemon:
    """Consumes every queue; can be stopped, and killed with what it has in hand."""

    def __init__(self, stores: Stores, name: str) -> None:
        clock = SystemClock()
        self.broker, self.accounts, self.state, self.ledger = (
            stores.broker(),
            stores.accounts(),
            stores.state(),
            stores.ledger,
        )
        self._local: LocalRebuild | None = None
        if stores.near:
            assert isinstance(self.accounts, MemoryAccounts)
            self._local = LocalRebuild(self.accounts, self.ledger, _find, clock, instance=name, timing=TIMING)
            restore = self._local.restore
        else:
            rebuild = Rebuild(self.accounts, self.ledger, _find, clock, timing=TIMING)
            restore = Restoring(rebuild.restore, self.accounts, self.ledger, _find).restore
        days = Days(self.accounts, _find, instance=name)
        billing = Billing(self.accounts, self.ledger, restore, timing=TIMING, days=days)
        self.performance = Performance(self.ledger, clock, instance=name)
        billing.on_written = self.performance.note
        self.metrics = Metrics(name, clock)
        tracking = Tracking(
            SIGNER.read, SIGNER.user_digest, billing, self.ledger, self.state, campaign=CAMPAIGNS.get, rates=Rates()
        )
        wins = WinConsumer(self.broker, billing, self.metrics, clock, bill_wins=False, date=tracking.date, batch=200)
        self._consumers: list[EventConsumer[Any]] = [
            wins,
            *tracked_consumers(self.broker, tracking, self.metrics, clock, batch=200, prefetch=600, linger_s=0.01),
        ]

    async def start(self) -> Daemon:
        """Connect and consume."""
        if self._local is not None:
            await self._local.start(list(CAMPAIGNS.values()))
        await self.broker.start()
        await self.broker.declare(topology.topology())
        for consumer in self._consumers:
            await consumer.start()
        return self

    async def kill(self) -> None:
        """End without finishing anything: what it has in hand goes back to the queues."""
        for consumer in self._consumers:
            stopping = asyncio.ensure_future(consumer.stop())
            await asyncio.sleep(0)
            stopping.cancel()
            await asyncio.wait({stopping})
        await self._close()

    async def stop(self) -> None:
        """Finish and end."""
        for consumer in self._consumers:
            await consumer.stop()
        await self._close()

    async def _close(self) -> None:
        await self.broker.close()
        await self.accounts.close()
        await self.state.close()


async def _find(campaign_id: str) -> Campaign | None:
    return CAMPAIGNS.get(campaign_id)


async def publish(broker: Broker, posts: Sequence[Post], at_once: int = 100) -> None:
    """Publish them all, each until it is confirmed."""

    async def one(post: Post) -> None:
        while True:
            try:
                await broker.publish("", post.queue, post.message)
            except BrokerError:
                await asyncio.sleep(0.05)  # as an outbox waits before it tries again
            else:
                return

    for first in range(0, len(posts), at_once):
        await asyncio.gather(*map(one, posts[first : first + at_once]))


async def settled(ledger: Ledger, simulator: Simulator) -> None:
    """Wait until the ledger has every row and every refusal."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            rows = sum([one.counters.wins + _events(one.counters) for one in await ledger.performance()])
            refused = len(await ledger.refusals(limit=100_000))
            if rows >= simulator.rows and refused >= simulator.refused.total():
                return
            await asyncio.sleep(0.05)  # nobody tells


def _events(counters: Counters) -> int:
    return counters.impressions + counters.clicks + counters.conversions


async def check(daemon: Daemon, simulator: Simulator) -> None:
    """Assert that ledger, accounts, performance and refusals are what the simulator counted, to the nano."""
    found: dict[str, Counters] = {}
    for one in await daemon.ledger.performance():
        found[one.campaign_id] = found.get(one.campaign_id, NOTHING) + one.counters
    assert found == simulator.expected
    spent: Counter[str] = Counter()
    for (campaign_id, _), nanos in (await daemon.ledger.spent()).items():
        spent[campaign_id] += nanos
    assert spent == {name: counters.cost_nanos for name, counters in simulator.expected.items()}
    await daemon.performance.refresh(list(CAMPAIGNS))
    assert {name: daemon.performance.current(name) for name in simulator.expected} == simulator.expected
    assert Counter(one.reason for one in await daemon.ledger.refusals(limit=100_000)) == simulator.refused
    report = await Audit(daemon.accounts, daemon.ledger).run()
    assert (report.findings, report.uncovered) == ([], [])
    booked = {book.campaign_id: book async for book in daemon.accounts.books()}
    for name, book in booked.items():
        dated = sum(account.spent_nanos for day, account in book.accounts.items() if day != "life")
        assert dated == simulator.expected[name].cost_nanos
