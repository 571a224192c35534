"""Budgets: a hold on the hot path, and events billed into accounts and ledger.

python -m benchmarks.budgets [--redis redis://127.0.0.1:6379/0] [--ledger postgresql://...]
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import tempfile
import time
from pathlib import Path

from rtb.adapters.clock import SystemClock
from rtb.adapters.memory_accounts import MemoryAccounts
from rtb.adapters.redis_accounts import RedisAccounts
from rtb.adapters.sql_ledger import SqlLedger
from rtb.domain.budget import Timing, budget_day
from rtb.domain.campaign import Campaign, Creative
from rtb.ports import Accounts, LedgerKind, LedgerRow
from rtb.services.billing import Billing, BillingEvent
from rtb.services.budgets import Budgets
from rtb.services.rebuild import Rebuild

CAMPAIGNS = 1_000
BATCH = 1_000
EVENTS = 50_000
HOLDS = 300_000


def campaigns() -> list[Campaign]:
    """With budgets that nothing here exhausts."""
    creative = Creative(id="ad", w=300, h=250, adm="<b>ad</b>")
    return [
        Campaign(id=f"c-{n}", advertiser="a", creatives=(creative,), bid=2.0, daily_budget=1_000_000.0)
        for n in range(CAMPAIGNS)
    ]


def holds() -> float:
    """Microseconds a hold takes, over a thousand campaigns, accounts in this process."""
    budgets = Budgets(SystemClock())
    names = [campaign.id for campaign in campaigns() if budgets.watch(campaign)]
    for name in names:
        budgets.hold(name, 2_000_000)
    gc.collect()
    began = time.process_time()
    for n in range(HOLDS):
        budgets.hold(names[n % CAMPAIGNS], 2_000_000)
    return (time.process_time() - began) / HOLDS * 1e6


async def billed(accounts: Accounts, ledger: SqlLedger, events: int) -> tuple[float, float]:
    """Events a second of the clock and of this process' CPU, in batches of a thousand."""
    clock = SystemClock()
    known = {campaign.id: campaign for campaign in campaigns()}

    async def find(campaign_id: str) -> Campaign | None:
        return known.get(campaign_id)

    rebuild = Rebuild(accounts, ledger, find, clock, timing=Timing())
    billing = Billing(accounts, ledger, rebuild.restore, timing=Timing())
    await rebuild.restore(list(known))
    now = clock.time()
    day = budget_day(now, next(iter(known.values())).zone)
    run = f"{now:.3f}"
    rows = [
        LedgerRow(
            key=f"{run}-{n}",
            kind=LedgerKind.WIN,
            campaign_id=f"c-{n % CAMPAIGNS}",
            day=day,
            auction_id=f"{run}-{n}",
            impid="1",
            instance="i",
            price_nanos=2_000_000,
            charged_nanos=0,
            expires_at=now + 60,
            received_at=now,
        )
        for n in range(events)
    ]
    work = [BillingEvent(row, row.price_nanos) for row in rows]
    gc.collect()
    began, cpu = time.perf_counter(), time.process_time()
    for first in range(0, events, BATCH):
        await billing.bill(work[first : first + BATCH])
    return events / (time.perf_counter() - began), events / (time.process_time() - cpu)


async def bill(redis: str, database: str) -> None:
    """Print the figures of billing."""
    with tempfile.TemporaryDirectory() as folder:
        ledger = SqlLedger(database or str(Path(folder) / "ledger.db"), upgrade=True)
        await ledger.start()
        accounts: Accounts = RedisAccounts(redis, timeout_s=10.0) if redis else MemoryAccounts(SystemClock())
        rate, cpu_rate = await billed(accounts, ledger, EVENTS)
        where = f"{'redis' if redis else 'memory'} + {'postgresql' if database else 'sqlite'}"
        print(f"bill, {where}: {rate:,.0f} events/s, {cpu_rate:,.0f} per CPU-second of this process")
        await accounts.close()
        await ledger.close()


def main() -> None:
    """Print each figure on a line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--redis", default="")
    parser.add_argument("--ledger", default="")
    arguments = parser.parse_args()
    print(f"hold: {min(holds() for _ in range(3)):.2f} us")
    asyncio.run(bill(arguments.redis, arguments.ledger))


if __name__ == "__main__":
    main()
