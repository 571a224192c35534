"""Pacing on the real thing: leases of a shared account, holds, bills, and what each daemon hears of them."""

from __future__ import annotations

from random import Random

from rtb.adapters.clock import ManualClock
from rtb.adapters.memory_accounts import MemoryAccounts
from rtb.adapters.memory_ledger import MemoryLedger
from rtb.domain.budget import Timing
from rtb.domain.campaign import Campaign, Pacing, Pricing
from rtb.domain.tracking import Ticket
from rtb.ports import LedgerKind, LedgerRow
from rtb.services.billing import Billing, BillingEvent
from rtb.services.budgets import Budgets
from rtb.services.leases import Leases
from rtb.services.pacing import Pacer
from rtb.services.rebuild import Rebuild, Registration
from tests.unit.parts import campaign

NEW_YEAR = 1_767_225_600.0  # 2026-01-01 00:00 UTC
STEP_S = 10
TIMING = Timing(ttl_ms=60_000, window_ms=60_000, settle_ms=60_000)
PRICE = 2_000_000


class Daemon:
    """Its budgets, leases and pacer."""

    def __init__(self, name: str, accounts: MemoryAccounts, rebuild: Rebuild, clock: ManualClock) -> None:
        self.budgets = Budgets(clock, instance=name, timing=TIMING, shared=True)
        self.leases = Leases(self.budgets, accounts, rebuild.restore, clock)
        self.pacer = Pacer(clock, self.budgets.spending, instance=name)


async def test_daemons_with_leases_follow_the_curve() -> None:
    """Three daemons for eight hours, 720 impressions a day: every hour within 2 % of the budget of the even curve;
    three of four wins are shown and billed, what the others held comes back."""
    clock = ManualClock(NEW_YEAR)
    accounts, ledger = MemoryAccounts(clock, TIMING), MemoryLedger()
    paced = campaign("c", 2.0, daily_budget=720 * PRICE / 1e9, pacing=Pacing.EVEN)

    async def find(campaign_id: str) -> Campaign | None:
        return paced

    rebuild = Rebuild(accounts, ledger, find, clock, timing=TIMING)
    billing = Billing(accounts, ledger, rebuild.restore, timing=TIMING)
    fleet = [Daemon(name, accounts, rebuild, clock) for name in "abc"]
    random, billed = Random(1), 0
    for daemon in fleet:
        await Registration(ledger, clock, daemon.budgets.instance).beat()
        daemon.budgets.watch(paced)
        daemon.pacer.watch(paced)
    for step in range(8 * 3_600 // STEP_S):
        for i, daemon in enumerate(fleet):
            for n in range(2 + 4 * i):  # auctions; unequally shared
                if not daemon.pacer.admits("c"):
                    continue
                hold = daemon.budgets.hold("c", PRICE)
                if hold is None:
                    continue
                daemon.pacer.won(Ticket("a", "1", "c", "x", hold.day, "i", Pricing.CPM, PRICE, PRICE, 0.0, 0.0))
                if random.random() < 0.75:
                    billed += PRICE
                    row = LedgerRow(
                        key=f"{step}/{i}/{n}",
                        kind=LedgerKind.IMPRESSION,
                        campaign_id="c",
                        day=hold.day,
                        auction_id="a",
                        impid="1",
                        instance=daemon.budgets.instance,
                        price_nanos=PRICE,
                        charged_nanos=0,
                        expires_at=hold.expires_at,
                        received_at=clock.time(),
                    )
                    await billing.bill([BillingEvent(row, PRICE)])
            await daemon.leases.sync_due()
            daemon.budgets.refresh()
        clock.advance(STEP_S)
        if (step + 1) % (3_600 // STEP_S) == 0:
            hours = (step + 1) * STEP_S / 3_600
            assert abs(billed - 30 * hours * PRICE) < 0.02 * 720 * PRICE, f"after {hours} hours"
