"""Daily budgets: exact to the nano, dry, and live again on the new day of the campaign's zone."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from rtb.adapters.clock import ManualClock
from rtb.domain.campaign import Campaign
from rtb.services.budgets import Budgets
from tests.unit.parts import campaign

NEW_YEAR = 1_767_225_600.0  # 2026-01-01 00:00 UTC
HOUR = 3_600


class World:
    """Budgets on a clock that is set by hand, and what they told."""

    def __init__(self, now: float = NEW_YEAR) -> None:
        self.clock = ManualClock(now)
        self.told: list[tuple[str, bool]] = []
        self.budgets = Budgets(self.clock, lambda campaign_id, funded: self.told.append((campaign_id, funded)))

    def spent(self, campaign_id: str) -> int | None:
        account = self.budgets.account(campaign_id)
        return None if account is None else account.spent_nanos


def limited(daily_budget: float | None, bid: float = 2.0, **fields: object) -> Campaign:
    """At 2.00 CPM an impression costs 2,000,000 nanos: a budget of 0.01 pays five."""
    return campaign("c", bid, daily_budget=daily_budget, **fields)


def test_a_campaign_without_limit_always_pays() -> None:
    """It has no account."""
    world = World()
    assert world.budgets.watch(limited(None))
    assert world.budgets.debit("c", 10**18)
    assert (world.budgets.account("c"), world.budgets.funded("c"), world.told) == (None, True, [])


def test_the_last_nano_is_spent_and_not_one_more() -> None:
    """0.01 is five times 2,000,000 nanos: the fifth debit is the last, and says so once."""
    world = World()
    assert world.budgets.watch(limited(0.01))
    for n in range(5):
        assert world.told == []
        assert world.budgets.debit("c", 2_000_000), n
    assert (world.told, world.budgets.funded("c")) == ([("c", False)], False)
    assert not world.budgets.debit("c", 1)
    assert (world.spent("c"), world.told) == (10_000_000, [("c", False)])


def test_what_does_not_fit_is_refused_whole() -> None:
    """A cost above what is left spends nothing; a smaller one still fits, though the bid no longer does."""
    world = World()
    world.budgets.watch(limited(0.01))
    assert world.budgets.debit("c", 9_000_000)
    assert world.told == [("c", False)]
    assert not world.budgets.debit("c", 1_000_001)
    assert world.budgets.debit("c", 1_000_000)
    assert world.spent("c") == 10_000_000


@given(limit=st.integers(0, 10**7), costs=st.lists(st.integers(0, 10**6), max_size=60))
def test_spent_is_the_sum_of_what_was_granted(limit: int, costs: list[int]) -> None:
    """Against a model: a debit is granted exactly when it fits, and spent never passes the limit."""
    world = World()
    world.budgets.watch(limited(limit / 1e9, bid=0.5))
    spent = 0
    for cost in costs:
        assert world.budgets.debit("c", cost) is (spent + cost <= limit)
        spent += cost if spent + cost <= limit else 0
        assert world.spent("c") == spent
    assert world.budgets.funded("c") is (spent + 500_000 <= limit)


def test_a_budget_below_one_impression_is_not_funded() -> None:
    """watch says so, and a new day does not change it."""
    world = World()
    assert not world.budgets.watch(limited(0.001))
    world.clock.advance(24 * HOUR)
    world.budgets.refresh()
    assert (world.budgets.funded("c"), world.told) == (False, [])


@pytest.mark.parametrize(
    ("zone", "now", "midnight"),
    [
        ("UTC", "2026-01-01T00:00", "2026-01-02T00:00"),
        ("Asia/Seoul", "2026-01-01T23:59", "2026-01-02T00:00"),
        ("America/New_York", "2026-03-08T00:30", "2026-03-09T00:00"),  # 23 hours long
        ("Europe/Berlin", "2026-10-25T00:30", "2026-10-26T00:00"),  # 25 hours long
    ],
)
def test_a_dry_campaign_lives_again_at_its_own_midnight(zone: str, now: str, midnight: str) -> None:
    """Not a second before; then it has the whole budget."""
    here = ZoneInfo(zone)
    start, end = (datetime.fromisoformat(text).replace(tzinfo=here).timestamp() for text in (now, midnight))
    world = World(start)
    world.budgets.watch(limited(0.01, timezone=zone))
    assert world.budgets.debit("c", 10_000_000)
    world.clock.advance(end - start - 1)
    world.budgets.refresh()
    assert world.told == [("c", False)]
    world.clock.advance(1)
    world.budgets.refresh()
    assert (world.told, world.spent("c")) == ([("c", False), ("c", True)], 0)
    assert world.budgets.debit("c", 10_000_000)


def test_a_new_day_begins_with_the_first_debit_too() -> None:
    """A campaign that is not dry needs no refresh."""
    world = World()
    world.budgets.watch(limited(0.01))
    assert world.budgets.debit("c", 7_000_000)
    world.clock.advance(24 * HOUR)
    assert world.budgets.debit("c", 7_000_000)
    assert world.spent("c") == 7_000_000


def test_what_was_spent_today_is_nothing_after_midnight() -> None:
    """Whoever looks at the account sees the new day, though nothing was spent on it yet."""
    world = World()
    world.budgets.watch(limited(0.01))
    world.budgets.debit("c", 7_000_000)
    world.clock.advance(24 * HOUR)
    assert world.spent("c") == 0


@pytest.mark.parametrize("who", ["debit", "look"])
def test_a_dry_campaign_is_told_live_whoever_begins_its_day(who: str) -> None:
    """An auction that was in flight at midnight debits, or somebody looks, before the refresh comes."""
    world = World()
    world.budgets.watch(limited(0.01))
    world.budgets.debit("c", 10_000_000)
    world.clock.advance(24 * HOUR)
    if who == "debit":
        assert world.budgets.debit("c", 2_000_000)
    else:
        world.spent("c")
    world.budgets.refresh()
    assert world.told == [("c", False), ("c", True)]
    world.budgets.refresh()
    assert (len(world.told), world.budgets.funded("c")) == (2, True)


def test_a_new_limit_keeps_what_was_spent_today() -> None:
    """Raised, the campaign can pay again; lowered below what was spent, it cannot, and nothing is given back."""
    world = World()
    world.budgets.watch(limited(0.01))
    world.budgets.debit("c", 10_000_000)
    assert world.budgets.watch(limited(0.02, version=2))
    assert world.spent("c") == 10_000_000
    assert world.budgets.debit("c", 10_000_000)
    assert not world.budgets.debit("c", 1)
    assert not world.budgets.watch(limited(0.005, version=3))
    assert (world.spent("c"), world.budgets.debit("c", 1)) == (20_000_000, False)


def test_a_new_limit_does_not_keep_what_was_spent_yesterday() -> None:
    """A change early on the new day, before any debit, starts from nothing."""
    world = World()
    world.budgets.watch(limited(0.01))
    world.budgets.debit("c", 9_000_000)
    world.clock.advance(24 * HOUR)
    assert world.budgets.watch(limited(0.01))
    assert world.spent("c") == 0


def test_a_campaign_is_dry_by_its_bid() -> None:
    """With 1,000,000 nanos left a bid of 2.00 is too much and one of 1.00 is not."""
    world = World()
    world.budgets.watch(limited(0.01))
    world.budgets.debit("c", 9_000_000)
    assert not world.budgets.funded("c")
    assert world.budgets.watch(replace(limited(0.01), bid=1.0))
    assert world.budgets.funded("c")


def test_a_dropped_campaign_is_forgotten() -> None:
    """Its account is gone, its new day wakes nobody."""
    world = World()
    world.budgets.watch(limited(0.01))
    world.budgets.debit("c", 10_000_000)
    world.budgets.drop("c")
    world.clock.advance(24 * HOUR)
    world.budgets.refresh()
    assert (world.spent("c"), world.told) == (None, [("c", False)])


def test_a_clock_that_is_set_back_gives_no_second_day() -> None:
    """An hour before midnight again, what was spent after it stays spent."""
    world = World(NEW_YEAR + 23 * HOUR + 3_599)
    world.budgets.watch(limited(0.01))
    world.clock.advance(1)
    world.budgets.debit("c", 10_000_000)
    world.clock.step(-HOUR)
    world.budgets.refresh()
    assert (world.spent("c"), world.budgets.funded("c")) == (10_000_000, False)


def test_a_budget_that_goes_and_comes_back_remembers_what_is_held() -> None:
    """All five impressions of 0.01 are held; the budget is taken away and set again: none of it is there twice."""
    world = World()
    assert world.budgets.watch(limited(0.01))
    for n in range(5):
        assert world.budgets.debit("c", 2_000_000), n
    assert world.budgets.watch(replace(limited(None), version=2))
    assert world.budgets.debit("c", 2_000_000)  # nothing limits it
    world.budgets.watch(replace(limited(0.01), version=3))
    assert not world.budgets.debit("c", 2_000_000)
    assert world.spent("c") == 10_000_000


def test_a_daily_budget_that_becomes_one_for_life_spends_nothing_it_cannot_count() -> None:
    """Only the ledger knows what was spent of a life, and it is read at the start: until then the campaign waits."""
    world = World()
    assert world.budgets.watch(limited(0.01))
    assert world.budgets.debit("c", 2_000_000)
    life = replace(limited(None), lifetime_budget=0.01, version=2)
    assert not world.budgets.watch(life)
    assert not world.budgets.debit("c", 2_000_000)
    world.clock.advance(24 * HOUR)
    world.budgets.refresh()
    assert not world.budgets.debit("c", 2_000_000)
    assert world.budgets.watch(replace(limited(0.01), version=3))
    assert world.budgets.debit("c", 2_000_000)


def test_a_campaign_pauses_at_a_share_of_its_budget() -> None:
    """Four of five impressions are 80 %. The account keeps the whole limit, and the new day begins anew."""
    world = World()
    world.budgets.watch(limited(0.01, pause_at=0.8))
    for n in range(4):
        assert world.budgets.debit("c", 2_000_000), n
    assert world.told == [("c", False)]
    assert not world.budgets.debit("c", 2_000_000)
    standing = world.budgets.account("c")
    assert standing is not None
    assert (standing.spent_nanos, standing.limit_nanos) == (8_000_000, 10_000_000)
    world.clock.advance(24 * HOUR)
    world.budgets.refresh()
    assert world.told[-1] == ("c", True)
    assert world.budgets.debit("c", 2_000_000)


def test_a_campaign_goes_on_when_it_is_to_pause_later() -> None:
    """Paused at 40 %, it is told to pause at 60 % of the same budget."""
    world = World()
    world.budgets.watch(limited(0.01, pause_at=0.4))
    assert [world.budgets.debit("c", 2_000_000) for _ in range(3)] == [True, True, False]
    assert world.budgets.watch(limited(0.01, pause_at=0.6, version=2))
    assert [world.budgets.debit("c", 2_000_000) for _ in range(2)] == [True, False]


def test_a_share_too_small_for_one_impression_never_pays() -> None:
    """A tenth of 0.01 is half an impression."""
    world = World()
    assert not world.budgets.watch(limited(0.01, pause_at=0.1))
    assert not world.budgets.debit("c", 2_000_000)


@given(share=st.floats(0.01, 1), costs=st.lists(st.integers(1, 2_000_000), max_size=30))
def test_what_is_held_never_passes_the_share(share: float, costs: list[int]) -> None:
    """Whatever the impressions cost; and nothing that fits is refused while a whole impression is left."""
    world = World()
    paused = limited(0.01, pause_at=share)
    world.budgets.watch(paused)
    held = 0
    for cost in costs:
        funded = world.budgets.funded("c")
        if world.budgets.debit("c", cost):
            held += cost
        else:
            assert held + cost > int(10_000_000 * share)
            assert not funded or held + 2_000_000 > int(10_000_000 * share)
    assert held <= int(10_000_000 * share)


def test_what_pacing_hears_of_a_budget() -> None:
    """What may be spent before the pause, and what was spent or is held; nothing of a campaign without a budget."""
    world = World()
    world.budgets.watch(limited(0.01, pause_at=0.8))
    before = world.budgets.spending("c")
    world.budgets.debit("c", 2_000_000)
    after = world.budgets.spending("c")
    assert before is not None
    assert after is not None
    assert (before.day, before.most_nanos, before.committed_nanos) == ("2026-01-01", 8_000_000, 0)
    assert (after.billed_nanos, after.committed_nanos) == (0, 2_000_000)
    world.budgets.watch(limited(None, version=2))
    assert world.budgets.spending("c") is None


def test_a_shared_budget_is_asked_for_before_pacing_hears_of_it() -> None:
    """What other daemons spent is not known before the first reply."""
    budgets = Budgets(ManualClock(NEW_YEAR), shared=True)
    budgets.watch(limited(0.01))
    assert budgets.spending("c") is None
    assert "c" in budgets.urgent
