"""Budget accounts when their Redis restarts, loses everything, brings back what is old, or becomes a replica."""

from __future__ import annotations

import asyncio
import time

import pytest

from rtb.adapters.clock import SystemClock
from rtb.adapters.memory_ledger import MemoryLedger
from rtb.adapters.redis_accounts import RedisAccounts
from rtb.domain.budget import SyncStatus, Timing, budget_day
from rtb.domain.campaign import Campaign
from rtb.errors import StoreError
from rtb.lab.servers.redis import Persistence, RedisServer
from rtb.ports import LedgerKind, LedgerRow
from rtb.services.audit import Audit
from rtb.services.billing import Billing, BillingEvent
from rtb.services.budgets import Budgets, Hold
from rtb.services.leases import Leases
from rtb.services.rebuild import Rebuild, Registration
from tests.support.redis import MakeRedis
from tests.unit.parts import campaign

TIMING = Timing(grace_ms=0)
MINE = campaign("c", 2.0, daily_budget=0.01)  # five impressions


class Daemon:
    """One process' parts, on a real Redis."""

    def __init__(self, server: RedisServer, ledger: MemoryLedger, name: str = "i") -> None:
        clock = SystemClock()
        self.clock = clock
        self.name = name
        self.ledger = ledger
        self.accounts = RedisAccounts(server.url, TIMING, timeout_s=20.0)
        rebuild = Rebuild(self.accounts, ledger, self.find, clock, timing=TIMING)
        self.budgets = Budgets(clock, instance=name, timing=TIMING, shared=True)
        self.leases = Leases(self.budgets, self.accounts, rebuild.restore, clock)
        self.billing = Billing(self.accounts, ledger, rebuild.restore, timing=TIMING)
        self.registration = Registration(ledger, clock, name)
        self.budgets.watch(MINE)
        self.count = 0

    async def find(self, campaign_id: str) -> Campaign | None:
        """The catalogue."""
        return MINE

    async def win(self) -> BillingEvent | None:
        """Win, leasing as often as it takes to know whether there is money."""
        for _ in range(4):
            hold = self.budgets.hold("c", 2_000_000)
            if hold is not None:
                return self.event(hold)
            await self.leases.sync_due()
        return None

    def event(self, hold: Hold) -> BillingEvent:
        """Its billing event, which comes at once."""
        self.count += 1
        row = LedgerRow(
            key=f"{self.name}-{self.count}",
            kind=LedgerKind.WIN,
            campaign_id="c",
            day=hold.day,
            auction_id="a",
            impid="1",
            instance=self.name,
            price_nanos=2_000_000,
            charged_nanos=0,
            expires_at=hold.expires_at,
            received_at=self.clock.time(),
        )
        return BillingEvent(row, 2_000_000)


@pytest.mark.parametrize("persistence", [Persistence.NONE, Persistence.RDB, Persistence.APPENDONLY])
async def test_a_restart_costs_nothing_and_gives_nothing(make_redis: MakeRedis, persistence: Persistence) -> None:
    """Restarted empty or with what it had: the book counts as missing, the ledger knows what was spent, open holds are
    announced, and the budget of five pays five."""
    server = make_redis(persistence=persistence)
    ledger = MemoryLedger()
    daemon = Daemon(server, ledger)
    await daemon.registration.beat()
    first, second = await daemon.win(), await daemon.win()
    assert first is not None
    assert second is not None
    await daemon.billing.bill([first])
    await asyncio.to_thread(server.stop)
    with pytest.raises(StoreError):
        await daemon.billing.bill([second])
    await asyncio.to_thread(server.start)
    [reply] = await daemon.accounts.sync([daemon.budgets.request(daemon.budgets.active["c"], time.monotonic_ns())])
    assert reply.status is SyncStatus.MISSING
    await daemon.billing.bill([second])
    await daemon.billing.bill([first])
    rest = [await daemon.win() for _ in range(4)]
    assert [event is not None for event in rest] == [True, True, True, False]
    await daemon.billing.bill([event for event in rest if event is not None])
    day = budget_day(daemon.clock.time(), MINE.zone)
    assert await ledger.spent() == {("c", day): 10_000_000}
    report = await Audit(daemon.accounts, ledger).run()
    assert (report.balanced, report.uncovered, report.rows) == (True, [], 5)
    await daemon.accounts.close()


async def test_emptied_while_it_runs(make_redis: MakeRedis) -> None:
    """FLUSHALL and a forgotten script cache: the same server, and yet nothing is minted."""
    server = make_redis()
    ledger = MemoryLedger()
    one, two = Daemon(server, ledger, "one"), Daemon(server, ledger, "two")
    for daemon in (one, two):
        await daemon.registration.beat()
    held = [await one.win(), await one.win()]
    server.command("FLUSHALL")
    server.command("SCRIPT", "FLUSH")
    others = [await two.win() for _ in range(6)]
    await one.leases.sync_due()
    events = [event for event in [*held, *others] if event is not None]
    for _ in range(6):
        await one.leases.sync_due()
        event = await one.win() or await two.win()
        if event is not None:
            events.append(event)
    await two.billing.bill(events)
    report = await Audit(one.accounts, ledger).run()
    assert (report.balanced, report.uncovered) == (True, [])
    assert sum((await ledger.spent()).values()) == 2_000_000 * len(events) <= 10_000_000
    for daemon in (one, two):
        await daemon.accounts.close()


async def test_a_replica_refuses(make_redis: MakeRedis) -> None:
    """READONLY is an error like any other, and over once it is a primary again."""
    server = make_redis()
    daemon = Daemon(server, MemoryLedger())
    assert await daemon.win() is not None
    server.command("REPLICAOF", "127.0.0.1", "1")
    with pytest.raises(StoreError):
        await daemon.leases.sync(list(daemon.budgets.active.values()))
    server.command("REPLICAOF", "NO", "ONE")
    await daemon.leases.sync(list(daemon.budgets.active.values()))
    assert await daemon.win() is not None
    await daemon.accounts.close()
