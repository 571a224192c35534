"""Budgets of an embedded daemon over its lives: each takes up what the earlier ones won, no more and no less."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from msgspec.structs import replace

from rtb.adapters.clock import ManualClock
from rtb.adapters.memory_accounts import MemoryAccounts
from rtb.adapters.memory_ledger import MemoryLedger
from rtb.domain.budget import Timing
from rtb.domain.campaign import Campaign
from rtb.ports import Instance, LedgerKind, LedgerRow
from rtb.services.audit import Audit
from rtb.services.billing import Billing, BillingEvent
from rtb.services.budgets import Budgets
from rtb.services.rebuild import Days, LocalRebuild, Share
from tests.unit.parts import campaign

NOW = 1_795_305_600.0  # 2026-11-22 00:00 UTC
DAY = "2026-11-22"
TIMING = Timing(ttl_ms=15_000, window_ms=1_800_000, settle_ms=300_000)
PRICE = 2_000_000  # nanos of an impression at 2.00
SHARE = Share(0.1)


@dataclass
class Win:
    """What a life won."""

    auction_id: str
    instance: str
    day: str
    won_at: float
    expires_at: float

    def row(self, kind: LedgerKind, at: float) -> LedgerRow:
        """Of the win or of its impression."""
        return LedgerRow(
            key=f"{self.auction_id}:1:{kind.value}",
            kind=kind,
            campaign_id="c",
            day=self.day,
            auction_id=self.auction_id,
            impid="1",
            instance=self.instance,
            price_nanos=PRICE,
            charged_nanos=0,
            expires_at=self.expires_at,
            received_at=at,
        )


class Lives:
    """One ledger and one campaign; `begin` ends a life as kill -9 does and starts the next."""

    def __init__(self, mine: Campaign) -> None:
        self.clock = ManualClock(NOW)
        self.ledger = MemoryLedger()
        self.campaign = mine
        self.wins: list[Win] = []
        self.lives = 0

    async def begin(self) -> None:
        """A new process."""
        self.lives += 1
        self.name = f"life {self.lives}"
        await self.ledger.register(Instance(self.name, self.clock.time()))
        self.accounts = MemoryAccounts(self.clock, TIMING)
        self.local = local = LocalRebuild(
            self.accounts, self.ledger, self.find, self.clock, instance=self.name, timing=TIMING, share=SHARE
        )
        await local.start([self.campaign] if self.campaign.lifetime_budget is not None else [])
        self.budgets = Budgets(
            self.clock,
            instance=self.name,
            timing=TIMING,
            share=SHARE.share,
            near=self.accounts,
            opening=local.opening,
        )
        self.budgets.watch(self.campaign)
        days = Days(self.accounts, self.find, instance=self.name, share=SHARE)
        self.billing = Billing(self.accounts, self.ledger, local.restore, timing=TIMING, days=days)

    async def find(self, campaign_id: str) -> Campaign | None:
        """The catalogue."""
        return self.campaign

    async def restore(self) -> None:
        """What the treasury does."""
        await self.local.restore(list(self.budgets.urgent))
        self.budgets.restored(self.budgets.urgent)

    async def win(self, most: int, window_s: float = 60.0) -> list[Win]:
        """Win so many times, or until the budget pays no more; the promises stand in the ledger."""
        won: list[Win] = []
        while len(won) < most:
            hold = self.budgets.hold("c", PRICE, int(window_s * 1_000))
            if hold is None:
                break
            name = f"a{len(self.wins) + len(won)}"
            won.append(Win(name, self.name, hold.day, self.clock.time(), hold.expires_at))
        self.wins += won
        await self.billing.record([win.row(LedgerKind.WIN, win.won_at) for win in won])
        return won

    async def see(self, wins: Sequence[Win]) -> int:
        """Their impressions come; how many were charged in full."""
        now = self.clock.time()
        events = [BillingEvent(win.row(LedgerKind.IMPRESSION, now), PRICE) for win in wins]
        rows = await self.billing.bill(events)
        return sum(isinstance(row, LedgerRow) and row.charged_nanos == PRICE for row in rows)

    async def balanced(self) -> bool:
        """By the audit."""
        return (await Audit(self.accounts, self.ledger).run()).balanced


def budget(impressions: int, **fields: float) -> Campaign:
    """A campaign that can pay so many a day."""
    return campaign("c", 2.0, daily_budget=impressions * 0.002, **fields)


async def test_ten_restarts_cost_nothing() -> None:
    """A budget of twenty impressions: one is won in each of ten lives, ten in the eleventh, and never a twenty-first;
    all that is seen is charged in full."""
    lives = Lives(budget(20))
    for _ in range(10):
        await lives.begin()
        assert len(await lives.win(1)) == 1
    await lives.begin()
    standing = lives.budgets.account("c")
    assert standing is not None
    assert (standing.billed_nanos, standing.spent_nanos) == (0, 10 * PRICE)
    assert len(await lives.win(100)) == 10
    assert await lives.see(lives.wins) == 20
    assert await lives.ledger.spent() == {("c", DAY): 20 * PRICE}
    assert await lives.balanced()


async def test_what_is_never_seen_comes_back() -> None:
    """Three of five were won before; 60 s and the settling after the last of them they are won again, not before."""
    lives = Lives(budget(5))
    await lives.begin()
    await lives.win(3)
    lives.clock.advance(10)
    await lives.begin()
    assert len(await lives.win(9)) == 2
    lives.clock.advance(50 + 300)
    lives.budgets.refresh()
    assert await lives.win(9) == []
    lives.clock.advance(20)  # campaigns that ran dry are looked at again, now and then
    for _ in range(70):
        lives.clock.advance(1)
        lives.budgets.refresh()
    assert len(await lives.win(9)) == 5
    assert await lives.balanced()


async def test_a_life_budget_is_reserved_beside_the_day() -> None:
    """Of four in its life two were won yesterday and may still be seen: today two are left, though the day is new."""
    lives = Lives(budget(3, lifetime_budget=0.008))
    lives.clock.advance(86_400 - 30)
    await lives.begin()
    first = await lives.win(2)
    lives.clock.advance(40)
    await lives.begin()
    assert [win.day for win in await lives.win(9)] == ["2026-11-23"] * 2
    assert await lives.see(first) == 2
    assert await lives.see(lives.wins[2:]) == 2
    assert await lives.ledger.spent() == {("c", DAY): 2 * PRICE, ("c", "2026-11-23"): 2 * PRICE}
    assert await lives.balanced()


class SlowLedger(MemoryLedger):
    """A commit waits at `gate`, when that is closed, before it is done or after."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.gate.set()
        self.waits = asyncio.Event()
        self.late = False

    async def append(self, rows: Sequence[LedgerRow], *, epochs: Mapping[str, int]) -> Mapping[str, str]:
        """As it is told."""
        if self.late:
            known = await super().append(rows, epochs=epochs)
        self.waits.set()
        await self.gate.wait()
        return known if self.late else await super().append(rows, epochs=epochs)


@pytest.mark.parametrize("late", [True, False])
async def test_a_life_budget_for_a_campaign_that_runs(late: bool) -> None:
    """Of a life of eight impressions two are charged, one is on its way into the ledger, or there without anybody
    knowing, and one is won when it begins. Meanwhile the campaign waits; then four are left, and all eight are charged
    in full. The next process finds the same."""
    lives = Lives(budget(20))
    lives.ledger = ledger = SlowLedger()
    await lives.begin()
    wins = await lives.win(4)
    assert await lives.see(wins[:2]) == 2
    ledger.gate.clear()
    ledger.waits.clear()
    ledger.late = late
    seeing = asyncio.create_task(lives.see(wins[2:3]))
    await ledger.waits.wait()
    lives.campaign = replace(lives.campaign, lifetime_budget=8 * 0.002, version=2)
    assert not lives.budgets.watch(lives.campaign)
    assert lives.budgets.hold("c", PRICE) is None
    await lives.restore()
    ledger.gate.set()
    assert await seeing == 1
    assert lives.budgets.funded("c")
    more = await lives.win(99)
    assert len(more) == 4
    assert await lives.see(wins[3:] + more) == 5
    assert sum((await ledger.spent()).values()) == 8 * PRICE
    assert await lives.balanced()
    lives.clock.advance(86_400)
    await lives.begin()
    assert await lives.win(1) == []


async def test_a_life_budget_counts_what_earlier_processes_hold() -> None:
    """A win of a process that is gone may still be seen: it is reserved of the life, too."""
    lives = Lives(budget(20))
    await lives.begin()
    first = await lives.win(2)
    await lives.begin()
    second = await lives.win(1)
    lives.campaign = replace(lives.campaign, lifetime_budget=5 * 0.002, version=2)
    assert not lives.budgets.watch(lives.campaign)
    await lives.restore()
    third = await lives.win(99)
    assert len(third) == 2
    assert await lives.see(first + second + third) == 5
    assert await lives.balanced()


async def test_a_life_budget_for_a_campaign_of_which_only_the_ledger_knows() -> None:
    """It has won nothing since the start; what it spent before counts, and its first bill finds the account."""
    lives = Lives(budget(20))
    await lives.begin()
    [first, second] = await lives.win(2)
    assert await lives.see([first]) == 1
    await lives.begin()
    lives.campaign = replace(lives.campaign, lifetime_budget=5 * 0.002, version=2)
    assert await lives.see([second]) == 1
    lives.budgets.watch(lives.campaign)
    await lives.win(1)
    await lives.restore()
    assert len(await lives.win(99)) + len(lives.wins) - 2 == 5
    assert await lives.see(lives.wins[2:]) == 3


async def test_what_is_not_reserved() -> None:
    """A win that was billed itself, one that no budget pays, and a click campaign's that was seen: its impression cost
    nothing and its click may never come, so that the hold only smoothed the spending."""
    lives = Lives(budget(5))
    await lives.begin()
    [win, seen, billed, free] = await lives.win(4)
    impression = replace(seen.row(LedgerKind.IMPRESSION, NOW), price_nanos=0)
    await lives.billing.record([impression])
    others = MemoryLedger()
    rows = [row async for part in lives.ledger.rows() for row in part]
    changed: dict[str, dict[str, Any]] = {billed.auction_id: {"charged_nanos": PRICE}, free.auction_id: {"day": ""}}
    await others.append([replace(row, **changed.get(row.auction_id, {})) for row in rows], epochs={})
    lives.ledger = others
    await lives.begin()
    standing = lives.budgets.account("c")
    assert standing is not None
    assert (standing.billed_nanos, standing.spent_nanos) == (PRICE, 2 * PRICE)
    assert await lives.see([win]) == 1
    assert len(await lives.win(9)) == 3


@pytest.mark.parametrize("seed", range(30))
async def test_each_life_has_what_is_left(seed: int) -> None:
    """Lives, wins with windows of every length, impressions and pauses at random: a new life counts just what was
    charged or is held for a win that may still be seen, and what is seen in time is charged in full."""
    dice = random.Random(seed)
    lives = Lives(budget(30))
    unseen: list[Win] = []
    charged = 0
    for _ in range(12):
        await lives.begin()
        now = lives.clock.time()
        unseen = [win for win in unseen if now <= win.expires_at + TIMING.settle_ms / 1_000]
        standing = lives.budgets.account("c")
        assert standing is not None
        assert (standing.billed_nanos, standing.spent_nanos) == (charged * PRICE, (charged + len(unseen)) * PRICE)
        left = 30 - charged - len(unseen)
        unseen += await lives.win(min(left, dice.randrange(5)), dice.choice([1.0, 60.0, 600.0, 1_800.0]))
        lives.clock.advance(dice.choice([0.0, 1.0, 50.0]))
        in_time = [win for win in unseen if lives.clock.time() <= win.expires_at]
        seen = dice.sample(in_time, dice.randint(0, len(in_time)))
        assert await lives.see(seen) == len(seen)
        unseen = [win for win in unseen if win not in seen]
        charged += len(seen)
        lives.clock.advance(dice.choice([0.0, 30.0, 400.0, 1_000.0]))
    await lives.begin()
    now = lives.clock.time()
    held = sum(now <= win.expires_at + TIMING.settle_ms / 1_000 for win in unseen)
    assert len(await lives.win(99)) == 30 - charged - held
    assert await lives.balanced()
