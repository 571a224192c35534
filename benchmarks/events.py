"""Tracked events from their queue into the ledger, per CPU-second of this process: checked, billed, committed,
acknowledged.

    python -m benchmarks.events [events a round] [rounds] [embedded|production] ...

Embedded is the in-process broker and accounts and a SQLite file; production a RabbitMQ, a Redis and a PostgreSQL of its
own on this machine, whose CPU does not count. Of a hundred events 97 are impressions of CPM campaigns, two are clicks
and one is a conversion; one in twenty comes twice. Publishing is not counted, and the rounds take turns. Each event is
told to the dashboards, too (rtb.services.performance).

An embedded daemon has read the tokens of its events at its own edge (rtb.services.tickets; benchmarks.tracker counts
that), and has recorded their wins itself. In production neither is known here: both are the work of other daemons.
"""

from __future__ import annotations

import asyncio
import gc
import random
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import uvloop

from benchmarks.ledger import probe_ns
from benchmarks.production import servers
from rtb import messages
from rtb.adapters.amqp import RabbitBroker
from rtb.adapters.clock import SystemClock
from rtb.adapters.memory_accounts import MemoryAccounts
from rtb.adapters.memory_broker import MemoryBroker
from rtb.adapters.memory_state import MemoryState
from rtb.adapters.redis_accounts import RedisAccounts
from rtb.adapters.redis_state import RedisState
from rtb.adapters.sql_ledger import SqlLedger
from rtb.domain.budget import budget_day
from rtb.domain.campaign import Campaign, Creative, Pricing
from rtb.domain.money import Rates
from rtb.domain.tracking import Keys, Signer, Ticket, event_id
from rtb.edges.event_consumers import TRACKED, tracked_consumers
from rtb.messages import MessageType, TrackedEvent
from rtb.ports import Broker, LedgerKind, LedgerRow, Message, StateStore
from rtb.services import topology
from rtb.services.billing import Billing
from rtb.services.metrics import Metrics
from rtb.services.performance import Performance
from rtb.services.rebuild import UTC_ZONE, Days, LocalRebuild, Rebuild
from rtb.services.tickets import Tickets
from rtb.services.tracking import Tracking
from rtb.services.wins import win_of, win_row

CAMPAIGNS = 200
INSTANCES = ("5be0a1c22f01", "0c9d44e871aa", "f3187b60d25e", "92ab05c7e413")
"""Four daemons: an auction's id begins with what its daemon drew at its start, and goes on with a count, as the
exchange makes them."""
THRESHOLDS = (50_000, 20, 100)
"""Of the garbage collector, as in the daemon."""
UA = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{}.0.0.0 Safari/537.36"
SIGNER = Signer(Keys({1: b"a secret of benchmarks"}, 1), b"the secret of its digests")
QUEUES = {kind: queue for queue, kind in TRACKED.items()}


def catalogue() -> dict[str, Campaign]:
    """With budgets that last."""
    creatives = (Creative(id="ad"),)
    names = [f"campaign-{n:04d}" for n in range(CAMPAIGNS)]
    return {n: Campaign(id=n, advertiser=n, creatives=creatives, bid=2.0, daily_budget=100_000.0) for n in names}


class Events:
    """Makes them, each win's impression before its click and its click before its conversion."""

    def __init__(self, clock: SystemClock, read: Callable[[str], object] | None = None) -> None:
        """Each token is `read` by an edge first, if there is one."""
        self._clock = clock
        self._read = read
        self._dice = random.Random(7)
        self._wins = 0
        self.unique = 0
        self.won: list[LedgerRow] = []
        """The wins of the last round."""

    def round(self, count: int) -> list[list[tuple[LedgerKind, Message]]]:
        """About so many: the impressions, the clicks, the conversions."""
        parts: list[list[tuple[LedgerKind, Message]]] = [[], [], []]
        self.won = []
        for n in range(count * 97 // 100):
            ticket = self._ticket()
            self.won.append(win_row(win_of(ticket), ticket.day, event_id(ticket, "win")))
            self.unique += 1
            for part, share in enumerate((1.0, 0.02, 0.5)):
                if part and self._dice.random() > share:
                    break
                kind = (LedgerKind.IMPRESSION, LedgerKind.CLICK, LedgerKind.CONVERSION)[part]
                message = self._message(kind, ticket)
                parts[part] += [(kind, message)] * (2 if n % 20 == 0 else 1)
                self.unique += 1
        return parts

    def _ticket(self) -> Ticket:
        self._wins += 1
        now = self._clock.time()
        return Ticket(
            auction_id=f"{INSTANCES[self._wins % len(INSTANCES)]}{self._wins:x}",
            impid="1",
            campaign_id=f"campaign-{self._dice.randrange(CAMPAIGNS):04d}",
            creative_id="ad",
            day=budget_day(now, UTC_ZONE),
            instance=f"daemon-{self._wins % len(INSTANCES)}",
            pricing=Pricing.CPM,
            price_nanos=self._dice.randrange(100_000, 2_000_000),
            held_nanos=2_000_000,
            won_at=now,
            expires_at=now + 600.0,
            user=f"{self._dice.getrandbits(64):016x}",
        )

    def _message(self, kind: LedgerKind, ticket: Ticket) -> Message:
        now = self._clock.time()
        ua = UA.format(self._dice.randrange(80, 140))
        token = SIGNER.token(ticket)
        if self._read is not None:
            self._read(token)
        event = TrackedEvent(received_at=now, token=token, ua=ua, ip="192.0.2.1")
        name = event_id(ticket, kind.value)
        body = messages.encode(MessageType(kind.value), event, message_id=name, timestamp=now)
        return Message(body=body, message_id=name, timestamp=now)


class House:
    """The consumers and what stands behind them."""

    def __init__(
        self, broker: Broker, accounts: MemoryAccounts | RedisAccounts, state: StateStore, ledger: SqlLedger
    ) -> None:
        clock = SystemClock()
        self.broker, self.ledger, self._accounts, self._state = broker, ledger, accounts, state
        known = catalogue()

        async def find(campaign_id: str) -> Campaign | None:
            return known.get(campaign_id)

        timing = accounts.timing
        self._local: LocalRebuild | None = None
        if isinstance(accounts, MemoryAccounts):
            self._local = LocalRebuild(accounts, ledger, find, clock, instance="bench", timing=timing)
            restore = self._local.restore
        else:
            restore = Rebuild(accounts, ledger, find, clock, timing=timing).restore
        days = Days(accounts, find, instance="bench")
        billing = Billing(accounts, ledger, restore, timing=timing, days=days)
        self.performance = Performance(ledger, clock, instance="bench", post=lambda *what: None)
        billing.on_written = self.performance.note
        read = SIGNER.read
        if self._local is not None:
            tickets = Tickets(SIGNER)
            read = tickets.again
            self._record: Callable[[list[LedgerRow]], Awaitable[object]] = billing.record
            self.events = Events(clock, tickets.read)
        else:
            self._record = partial(ledger.append, epochs={})
            self.events = Events(clock)
        tracking = Tracking(read, SIGNER.user_digest, billing, ledger, state, campaign=known.get, rates=Rates())
        self._consumers = tracked_consumers(broker, tracking, Metrics("bench", clock), clock)

    async def start(self) -> None:
        """Open everything but the consumers."""
        await self.broker.start()
        await self.broker.declare(topology.topology())
        await self.ledger.start()
        if self._local is not None:
            await self._local.start()

    async def stop(self) -> None:
        """Close it."""
        await self.broker.close()
        await self._accounts.close()
        await self._state.close()
        await self.ledger.close()

    async def run(self, count: int) -> float:
        """CPU seconds of about so many events."""
        spent = 0.0
        parts = self.events.round(count)
        await self._record(self.events.won)
        for part in parts:
            for first in range(0, len(part), 500):
                await asyncio.gather(
                    *(self.broker.publish("", QUEUES[kind], message) for kind, message in part[first : first + 500])
                )
            gc.collect()
            before = time.process_time()
            for consumer in self._consumers:
                await consumer.start()
            for consumer in self._consumers:
                await consumer.drain()
                await consumer.stop()
            spent += time.process_time() - before
        return spent

    async def check(self) -> None:
        """Raise unless each event stands in the ledger once."""
        rows = sum([len(part) async for part in self.ledger.rows()])
        assert rows == self.events.unique, f"{rows} rows, {self.events.unique} events"


def embedded(folder: Path) -> House:
    """All in this process."""
    clock = SystemClock()
    return House(MemoryBroker(clock), MemoryAccounts(clock), MemoryState(clock), SqlLedger(str(folder / "rtb.db")))


def production(urls: Mapping[str, str]) -> House:
    """On real servers."""
    state, broker = urls["state.url"], RabbitBroker(urls["broker.url"], SystemClock())
    return House(broker, RedisAccounts(state), RedisState(state), SqlLedger(urls["store.url"]))


async def measure(count: int, rounds: int, houses: Mapping[str, House]) -> None:
    """Print events per CPU-second of each: the median of the rounds, the worst and the best."""
    results: dict[str, list[float]] = {name: [] for name in houses}
    for house in houses.values():
        await house.start()
    for n in range(rounds + 1):
        for name, house in houses.items():
            before = house.events.unique
            spent = await house.run(count)
            if n:
                results[name].append((house.events.unique - before - len(house.events.won)) / spent)
    for name, house in houses.items():
        await house.check()
        usual, best, worst = median(results[name]), max(results[name]), min(results[name])
        print(f"{name:12}  {usual:9,.0f} events per CPU-second (rounds: {worst:,.0f} to {best:,.0f})", flush=True)
        await house.stop()


def main() -> None:
    """Print a line a way."""
    numbers = [int(word) for word in sys.argv[1:] if word.isdigit()]
    ways = [word for word in sys.argv[1:] if not word.isdigit()] or ["embedded", "production"]
    count, rounds = (*numbers, *(10_000, 4)[len(numbers) :])[:2]
    print(f"{rounds} rounds of {count:,} events, one in twenty twice; probe {probe_ns():.0f} ns")
    gc.set_threshold(*THRESHOLDS)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="rtb-bench-", ignore_cleanup_errors=True)))
        folder.chmod(0o755)  # PostgreSQL runs as another user when we are root
        houses: dict[str, House] = {}
        if "embedded" in ways:
            houses["embedded"] = embedded(folder)
        if "production" in ways:
            houses["production"] = production(stack.enter_context(servers(folder)))
        uvloop.run(measure(count, rounds, houses))


if __name__ == "__main__":
    main()
