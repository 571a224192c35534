"""A campaign that pauses at a share of its budget, after a restart: what was won before is still billed."""

from __future__ import annotations

import pytest

from rtb.adapters.clock import ManualClock
from rtb.adapters.memory_accounts import MemoryAccounts
from rtb.domain.budget import Bill, BillStatus, Reserve, Timing
from rtb.services.budgets import Budgets
from rtb.services.rebuild import Share, opening
from tests.unit.parts import campaign

NEW_YEAR = 1_767_225_600.0
DAY = "2026-01-01"
PRICE = 2_000_000


@pytest.mark.parametrize(("pause_at", "reserved", "wins"), [(0.8, 2, 2), (0.8, 0, 4), (0.8, 4, 0), (1.0, 2, 3)])
async def test_what_an_earlier_process_holds_is_not_spent_twice(pause_at: float, reserved: int, wins: int) -> None:
    """A budget of five impressions, paused at 80 %: four, less those that the earlier process may still be billed."""
    clock, timing = ManualClock(NEW_YEAR), Timing()
    accounts = MemoryAccounts(clock, timing)
    until_ms = round((NEW_YEAR + 600) * 1_000)
    gone = {"gone": Reserve(until_ms, {DAY: reserved * PRICE})} if reserved else {}
    budgets = Budgets(
        clock,
        instance="now",
        timing=timing,
        near=accounts,
        opening=lambda one: opening(one, 1, {}, clock.time(), share=Share(), reserved=gone),
    )
    budgets.watch(campaign("c", 2.0, daily_budget=0.01, pause_at=pause_at))
    won = [budgets.hold("c", PRICE) is not None for _ in range(5)]
    assert won == [True] * wins + [False] * (5 - wins)
    bills = [
        Bill(
            key=f"{instance}{number}",
            campaign_id="c",
            day=DAY,
            instance=instance,
            price_nanos=PRICE,
            held_nanos=PRICE,
            expires_ms=until_ms,
        )
        for instance, count in (("gone", reserved), ("now", wins))
        for number in range(count)
    ]
    billed = await accounts.bill(bills)
    assert [(one.status, one.charged_nanos) for one in billed] == [(BillStatus.OK, PRICE)] * len(bills)
    assert billed[-1].spent[DAY] == (wins + reserved) * PRICE
