"""Daemons that pace a campaign together without talking; what a daemon asks and says of pacing."""

from __future__ import annotations

from itertools import pairwise

import pytest

from benchmarks.pacing import MIDNIGHT, Day, campaign, day_and_night, even, gaps, hourly_supply, learned
from rtb.adapters.clock import ManualClock
from rtb.domain.campaign import Pacing, Pricing, Targeting
from rtb.domain.tracking import Ticket
from rtb.services.budgets import Budgets, Spending
from rtb.services.pacing import Pacer, Traffic

NOON_S = 43_200
IMPRESSIONS = 20_000
BUDGET = IMPRESSIONS * 2_000_000


def test_ten_daemons_follow_an_even_curve() -> None:
    """Traffic is 5:1 from noon to night and unequally shared: within 2 % of the budget at every hour, 0.5 % at last."""
    worst, last = gaps(Day(campaign(IMPRESSIONS), step_s=5, asks_a_second=2.5).run(), even(BUDGET), BUDGET)
    assert worst < 2.0
    assert last < 0.5


def test_ten_daemons_follow_a_learned_curve() -> None:
    """The same where the budget follows the traffic of the day."""
    weights = hourly_supply()
    day = Day(campaign(IMPRESSIONS, pacing=Pacing.LEARNED), weights=weights, step_s=5, asks_a_second=2.5)
    worst, last = gaps(day.run(), learned(BUDGET, weights), BUDGET)
    assert worst < 2.0
    assert last < 0.5


def test_a_budget_that_doubles_at_noon_while_a_daemon_dies() -> None:
    """From noon on the rest of the new budget is spread over the rest of the day, by those who are left."""

    def noon(day: Day) -> None:
        day.fleet[9].alive = False
        day.change(campaign(IMPRESSIONS))

    day = Day(campaign(IMPRESSIONS // 2), at={NOON_S: noon}, step_s=10, asks_a_second=3.0)
    spent = day.run()
    target = even(BUDGET // 2)[:12] + [spent[11] + (BUDGET - spent[11]) * (hour + 1) / 12 for hour in range(12)]
    worst, last = gaps(spent, target, BUDGET)
    assert worst < 2.0
    assert last < 0.5


def test_a_daemon_that_joins_at_noon_spends_from_the_same_line() -> None:
    """It starts with nothing but what the account tells, and as much traffic again."""
    day = Day(campaign(2_000), at={NOON_S: lambda day: day.join("late", 1.0)}, step_s=10, asks_a_second=1.0)
    worst, last = gaps(day.run(), even(2_000 * 2_000_000), 2_000 * 2_000_000)
    assert worst < 2.0
    assert last < 0.5


def test_a_campaign_that_starts_at_noon_spends_its_budget_over_the_afternoon() -> None:
    """Nobody knew it before: half of the budget is spent by 18:00."""
    spent = Day(campaign(2_000), first_s=NOON_S, step_s=10, asks_a_second=1.0).run()
    budget = 2_000 * 2_000_000
    worst, last = gaps(spent, [budget * (hour + 1) / 12 for hour in range(12)], budget)
    assert worst < 2.0
    assert last < 0.5


def test_supply_that_dries_up_is_made_up_for_smoothly() -> None:
    """No traffic from 06:00 to 12:00: the quarter that was not spent is spread over the second half of the day, and
    no hour takes much more than the twelfth of the rest that is its part."""
    budget = IMPRESSIONS * 2_000_000
    dry = Day(
        campaign(IMPRESSIONS),
        supply=lambda second: 0.0 if 21_600 <= second < NOON_S else day_and_night(second),
        step_s=10,
        asks_a_second=3.0,
    )
    spent = dry.run()
    assert spent[11] - spent[5] < 0.001 * budget
    rest = budget - spent[11]
    for before, after in pairwise(spent[11:]):
        assert (after - before) / rest == pytest.approx(1 / 12, abs=0.02)
    assert spent[-1] == pytest.approx(budget, rel=0.005)


def test_a_budget_of_a_few_impressions() -> None:
    """Ten daemons, eight impressions: one after the other, each within two of what the plan wants by then."""
    spent = Day(campaign(8), step_s=10, asks_a_second=0.5).run()
    hourly = [after - before for before, after in pairwise([0, *spent])]
    assert all(nanos <= 2 * 2_000_000 for nanos in hourly)
    assert 6 * 2_000_000 <= spent[-1] <= 8 * 2_000_000
    assert max(abs(s - t) for s, t in zip(spent, even(8 * 2_000_000), strict=True)) <= 2 * 2_000_000


def test_a_campaign_that_pays_by_click() -> None:
    """500 clicks a day at 0.40; twice as many impressions are clicked as it expects. What was spent keeps within a few
    dozen clicks of the plan, though no impression costs anything by itself."""
    clicks, budget = 500, 500 * 400_000_000
    pays = campaign(1, bid=0.4, pricing=Pricing.CPC, pctr=0.005, daily_budget=clicks * 0.4)
    day = Day(pays, clicks=0.01, step_s=20, asks_a_second=4.0)
    worst, _ = gaps(day.run(), even(budget), budget)
    assert worst < 5.0


class Shared:
    """One account that a test spends from by hand."""

    def __init__(self, budget: int = BUDGET) -> None:
        self.clock = ManualClock(MIDNIGHT)
        self.heard: Spending | None = Spending("2026-01-01", budget, 0, 0)
        self.pacer = Pacer(self.clock, lambda _: self.heard)

    def admitted(self, asks: int = 100) -> int:
        """Of so many asks in one second."""
        self.clock.advance(1)
        return sum(self.pacer.admits("c") for _ in range(asks))


def test_a_campaign_that_does_not_pace_is_always_admitted() -> None:
    """As soon as possible, and unknown ones."""
    shared = Shared()
    shared.pacer.watch(campaign(10, pacing=Pacing.ASAP))
    assert shared.admitted() == 100
    assert (shared.pacer.pace("c"), shared.pacer.objection("c")) == (None, "")


def test_a_campaign_stops_to_pace_when_it_says_so() -> None:
    """From one auction to the next."""
    shared = Shared()
    shared.pacer.watch(campaign(10))
    assert shared.admitted() < 100
    shared.pacer.watch(campaign(10, pacing=Pacing.ASAP))
    assert shared.admitted() == 100


def test_nothing_is_admitted_before_the_account_was_heard() -> None:
    """It may be spent already. Once it answers, pacing begins within a moment."""
    shared = Shared()
    heard, shared.heard = shared.heard, None
    shared.pacer.watch(campaign(1))
    assert shared.admitted() == 0
    assert "not known" in shared.pacer.objection("c")
    shared.heard = heard
    for _ in range(200):
        shared.admitted(1)
    pace = shared.pacer.pace("c")
    assert pace is not None
    assert pace.probability > 0


def test_it_says_why_a_campaign_is_kept_out() -> None:
    """The chance, what was spent, and what should be, in units of currency."""
    shared = Shared(10_000_000_000)
    shared.pacer.watch(campaign(5_000))
    shared.admitted()
    shared.clock.advance(6 * 3_600)
    shared.heard = Spending("2026-01-01", 10_000_000_000, 3_000_000_000, 3_000_000_000)
    said = shared.pacer.objection("c")
    assert said.startswith("takes part in 0 % of the auctions now: 3 spent, target 2.5")
    assert [name for name, _ in shared.pacer.paces()] == ["c"]


def test_a_new_day_begins_at_its_beginning() -> None:
    """What was spent yesterday does not count, and nothing is owed from it."""
    shared = Shared(86_400 * 2_000_000)
    shared.pacer.watch(campaign(86_400))
    shared.admitted()
    shared.clock.advance(86_400)
    shared.heard = Spending("2026-01-02", 86_400 * 2_000_000, 0, 0)
    shared.admitted()
    pace = shared.pacer.pace("c")
    assert pace is not None
    assert pace.target_nanos == pytest.approx(2 * 2_000_000, abs=2_000_000)


def test_a_change_of_its_name_moves_no_plan_but_one_of_its_hours_does() -> None:
    """At noon, behind the plan by less than the band: a new plan begins at what is spent."""
    shared = Shared()
    shared.pacer.watch(campaign(IMPRESSIONS))
    shared.admitted()
    shared.clock.advance(NOON_S - 1)
    shared.heard = Spending("2026-01-01", BUDGET, BUDGET // 2 - 10**8, BUDGET // 2 - 10**8)

    def target() -> int:
        pace = shared.pacer.pace("c")
        assert pace is not None
        return pace.target_nanos

    shared.pacer.watch(campaign(IMPRESSIONS, name="new", version=2))
    assert target() == pytest.approx(BUDGET / 2, rel=1e-4)
    shared.pacer.watch(campaign(IMPRESSIONS, version=3, targeting=Targeting(hours=tuple(range(168)))))
    assert target() == BUDGET // 2 - 10**8


def test_a_real_budget_is_followed() -> None:
    """Pacer and budgets of one daemon for a day: every hour within two impressions of a 24th of the budget."""
    clock = ManualClock(MIDNIGHT)
    budgets = Budgets(clock)
    pacer = Pacer(clock, budgets.spending)
    paced = campaign(240)
    budgets.watch(paced)
    pacer.watch(paced)
    spent = 0
    for hour in range(24):
        for _ in range(360):
            clock.advance(10)
            budgets.refresh()
            if pacer.admits("c") and budgets.hold("c", 2_000_000) is not None:
                pacer.won(Ticket("a", "1", "c", "x", "d", "i", Pricing.CPM, 2_000_000, 2_000_000, 0.0, 0.0))
                spent += 1
        assert spent == pytest.approx(10 * (hour + 1), abs=2)


class Counted:
    """Auctions that a test counts by hand."""

    def __init__(self) -> None:
        self.clock = ManualClock(MIDNIGHT)
        self.total = 0
        self.traffic = Traffic(self.clock, lambda: self.total)

    def hours(self, *auctions: int) -> None:
        """So many in each of the next hours."""
        for number in auctions:
            self.total += number
            self.traffic.refresh()
            self.clock.advance(3_600)


def test_traffic_is_learned_in_a_day() -> None:
    """The first hour is not whole and the running one not over; without 20 hours of the day there is no curve."""
    counted = Counted()
    counted.hours(7, *range(100, 119))
    assert counted.traffic.weights() == ()
    counted.hours(119)
    known = list(range(100, 120))
    mean = sum(known) / 20
    assert counted.traffic.weights() == [mean, *known, mean, mean, mean]


def test_traffic_is_the_mean_of_the_last_days() -> None:
    """A week and no more; what is known from before the start counts as well."""
    counted = Counted()
    first = int(MIDNIGHT // 3_600)
    counted.traffic.seed({first - hour: 30.0 for hour in range(1, 49)})
    assert counted.traffic.weights() == [30.0] * 24
    counted.hours(*[60] * 24)
    assert counted.traffic.weights() == [30.0] + [40.0] * 23
    counted.hours(*[60] * 24 * 9)
    assert counted.traffic.weights() == [60.0] * 24
