"""A lifetime budget that is given to a campaign while daemons run: what was spent before counts, what is held, too."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from msgspec.structs import replace

from rtb.adapters.clock import ManualClock
from rtb.adapters.memory_ledger import MemoryLedger
from rtb.domain.budget import LIFE
from rtb.domain.campaign import Campaign
from rtb.ports import Instance, LedgerKind, LedgerRow
from rtb.services.audit import Audit
from rtb.services.billing import Billing, BillingEvent
from rtb.services.budgets import Budgets
from rtb.services.leases import Leases
from rtb.services.rebuild import Days, Rebuild, Share
from rtb.services.restoring import Restoring
from tests.contract.accounts import DESKS, START_MS, TIMING, Desk
from tests.unit.parts import campaign

DAY = "2026-01-01"
PRICE = 2_000_000  # nanos of an impression at 2.00


class Shop:
    """A daemon and its campaign on shared accounts."""

    def __init__(self, desk: Desk, mine: Campaign) -> None:
        self.campaign = mine
        self.accounts = desk.accounts
        self.ledger = MemoryLedger()
        self.clock = ManualClock(START_MS / 1_000)
        share = Share()
        rebuild = Rebuild(self.accounts, self.ledger, self.find, self.clock, timing=TIMING, share=share)
        restore = Restoring(rebuild.restore, self.accounts, self.ledger, self.find).restore
        self.budgets = Budgets(self.clock, instance="i", timing=TIMING, shared=True)
        self.leases = Leases(self.budgets, self.accounts, restore, self.clock)
        days = Days(self.accounts, self.find, instance="i", share=share)
        self.billing = Billing(self.accounts, self.ledger, restore, timing=TIMING, days=days)
        self.won = 0

    async def open(self) -> Shop:
        """Register, and lease."""
        await self.ledger.register(Instance("i", self.clock.time()))
        self.budgets.watch(self.campaign)
        self.budgets.warm(self.campaign.id)
        await self.sync()
        return self

    async def find(self, campaign_id: str) -> Campaign | None:
        """The catalogue."""
        return self.campaign if campaign_id == self.campaign.id else None

    async def sync(self) -> None:
        """Until nothing has to be tried again."""
        for _ in range(10):
            if not await self.leases.sync_due():
                return
        raise AssertionError("the campaign asks again and again")

    async def win(self, most: int) -> list[BillingEvent]:
        """Win so many times, or until the budget pays no more."""
        events: list[BillingEvent] = []
        while len(events) < most:
            hold = self.budgets.hold(self.campaign.id, PRICE)
            if hold is None:
                await self.sync()
                hold = self.budgets.hold(self.campaign.id, PRICE)
            if hold is None:
                break
            self.won += 1
            row = LedgerRow(
                key=f"a{self.won}:1:impression",
                kind=LedgerKind.IMPRESSION,
                campaign_id=self.campaign.id,
                day=hold.day,
                auction_id=f"a{self.won}",
                impid="1",
                instance="i",
                price_nanos=PRICE,
                charged_nanos=0,
                expires_at=hold.expires_at,
                received_at=self.clock.time(),
            )
            events.append(BillingEvent(row, PRICE))
        wins = [replace(e.row, key=e.row.key.replace("impression", "win"), kind=LedgerKind.WIN) for e in events]
        await self.billing.record(wins)
        return events

    async def see(self, events: list[BillingEvent]) -> int:
        """Their impressions come; how many were charged in full."""
        rows = await self.billing.bill(events)
        return sum(isinstance(row, LedgerRow) and row.charged_nanos == PRICE for row in rows)


@pytest_asyncio.fixture(params=DESKS)
async def desk(request: pytest.FixtureRequest) -> AsyncIterator[Desk]:
    """Accounts without any book."""
    async with DESKS[request.param](request) as desk:
        yield desk


@pytest.mark.parametrize("daily", [True, False])
async def test_what_was_spent_and_is_held_counts(desk: Desk, daily: bool) -> None:
    """Of a life of eight impressions two were seen and three are won when it begins: three are left, and all eight are
    charged in full."""
    shop = await Shop(desk, campaign(desk.campaign_id, 2.0, daily_budget=20 * 0.002)).open()
    wins = await shop.win(5)
    assert await shop.see(wins[:2]) == 2
    await shop.leases.sync([*shop.budgets.active.values()])
    shop.campaign = replace(
        shop.campaign, lifetime_budget=8 * 0.002, daily_budget=20 * 0.002 if daily else None, version=2
    )
    shop.budgets.watch(shop.campaign)
    await shop.sync()
    later = await shop.win(99)
    assert len(later) == 3
    assert await shop.see(wins[2:] + later) == 6
    assert await shop.win(1) == []
    assert sum((await shop.ledger.spent()).values()) == 8 * PRICE
    [book] = [book async for book in shop.accounts.books([desk.campaign_id])]
    assert (book.accounts[LIFE].spent_nanos, book.accounts[LIFE].limit_nanos) == (8 * PRICE, 8 * PRICE)
    assert (await Audit(shop.accounts, shop.ledger).run([desk.campaign_id])).balanced


async def test_a_bill_may_be_the_first_to_miss_it(desk: Desk) -> None:
    """A click on a later day finds neither that day's account nor the life's: both are there when it is charged."""
    shop = await Shop(desk, campaign(desk.campaign_id, 2.0, daily_budget=20 * 0.002)).open()
    [win] = await shop.win(1)
    assert await shop.see([win]) == 1
    shop.campaign = replace(shop.campaign, lifetime_budget=8 * 0.002, version=2)
    click = replace(win.row, key="a1:1:click:1", kind=LedgerKind.CLICK, day="2026-01-02")
    assert await shop.see([BillingEvent(click, 0)]) == 1
    [book] = [book async for book in shop.accounts.books([desk.campaign_id])]
    assert {day: account.spent_nanos for day, account in book.accounts.items() if account.spent_nanos} == {
        DAY: PRICE,
        "2026-01-02": PRICE,
        LIFE: 2 * PRICE,
    }
