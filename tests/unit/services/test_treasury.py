"""The life of a daemon's budgets: what it says of itself in the ledger, whatever happens there."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping

import pytest
from msgspec.structs import replace

from rtb.adapters.clock import ManualClock
from rtb.adapters.memory_accounts import MemoryAccounts
from rtb.adapters.memory_ledger import MemoryLedger
from rtb.domain.campaign import Campaign
from rtb.errors import StoreError
from rtb.ports import Instance
from rtb.services.budgets import Budgets
from rtb.services.rebuild import LocalRebuild, Registration
from rtb.services.treasury import Treasury
from tests.unit.parts import campaign


class FailingLedger(MemoryLedger):
    """A ledger that raises at the second and third registration, and tells when the fourth has come."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.count = 0
        self.fourth = asyncio.Event()
        self._error = error

    async def register(self, instance: Instance) -> None:
        """Register, or raise."""
        self.count += 1
        if self.count in (2, 3):
            raise self._error
        await super().register(instance)
        if self.count == 4:
            self.fourth.set()


@pytest.mark.parametrize("error", [StoreError("away"), RuntimeError("the driver's mistake")])
async def test_the_heartbeat_outlives_any_error(error: Exception) -> None:
    """Two beats fail; the next is heard. When it stops and holds nothing, the instance leaves."""
    clock = ManualClock()
    ledger = FailingLedger(error)
    treasury = Treasury(Budgets(clock), Registration(ledger, clock, "one"), interval_s=0.0)
    await treasury.start([])
    async with asyncio.timeout(60.0):
        await ledger.fourth.wait()
    assert [instance.id for instance in await ledger.instances()] == ["one"]
    await treasury.stop()
    assert await ledger.instances() == []


class AwayOnce(MemoryLedger):
    """A ledger that is away when it is first asked for sums after the start."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.was_away = asyncio.Event()

    async def spent(
        self, campaign_ids: Collection[str] | None = None, *, since_day: str = "", without: Collection[str] = ()
    ) -> Mapping[tuple[str, str], int]:
        """The sums, or StoreError."""
        self.asked += 1
        if self.asked == 2:
            self.was_away.set()
            raise StoreError("away")
        return await super().spent(campaign_ids, since_day=since_day, without=without)


async def test_a_lifetime_budget_is_counted_while_it_runs() -> None:
    """A campaign that is given one waits for the ledger, asks again when that was away, and then goes on."""
    clock = ManualClock()
    ledger = AwayOnce()
    mine = campaign("c", 2.0, daily_budget=0.02)
    accounts = MemoryAccounts(clock)

    async def find(_: str) -> Campaign | None:
        return mine

    local = LocalRebuild(accounts, ledger, find, clock, instance="one", timing=accounts.timing)
    funded = asyncio.Event()
    budgets = Budgets(clock, lambda _, can_pay: funded.set() if can_pay else None, near=accounts, opening=local.opening)
    treasury = Treasury(budgets, Registration(ledger, clock, "one"), local=local)
    await treasury.start([])
    assert budgets.watch(mine)
    assert budgets.debit("c", 2_000_000)
    mine = replace(mine, lifetime_budget=0.004, version=2)
    assert not budgets.watch(mine)
    async with asyncio.timeout(20.0):
        await ledger.was_away.wait()
        while not funded.is_set():
            clock.advance(1)
            budgets.refresh()
            await asyncio.sleep(0.01)
    assert [budgets.debit("c", 2_000_000) for _ in range(2)] == [True, False]
    await treasury.stop()
