"""How closely daemons that do not talk follow a pacing curve over a simulated day, and what a decision costs.

    python -m benchmarks.pacing

The daemons run the product's Pacer on one clock that is advanced. Traffic is 5:1 from noon to night, shared unequally
between them; an auction is won with a chance of 0.6, at a price between half the bid and the bid; a win is billed 10 s
later, and each daemon hears of what was billed every 5 s.
"""

from __future__ import annotations

import time
import timeit
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import cos, pi
from random import Random

from rtb.adapters.clock import ManualClock, SystemClock
from rtb.domain.campaign import Campaign, Creative, Pacing, Pricing
from rtb.domain.tracking import Ticket
from rtb.services.budgets import Spending
from rtb.services.pacing import Pacer

MIDNIGHT = 1_767_225_600.0
DAY_S = 86_400
BILLED_AFTER_S = 10
HEARD_EVERY_S = 5
WINS = 0.6
UNIT_NANOS = 2_000_000
"""Of an impression at 2.00 CPM."""


def day_and_night(second: float) -> float:
    """Traffic relative to the mean: a third of it at midnight, five thirds at noon."""
    return 1.0 - 2.0 / 3.0 * cos(2.0 * pi * second / DAY_S)


def campaign(impressions: int, **fields: object) -> Campaign:
    """One whose daily budget pays so many impressions at its bid."""
    values = {"bid": 2.0, "daily_budget": impressions * UNIT_NANOS / 1e9, "pacing": Pacing.EVEN} | fields
    return Campaign(id="c", advertiser="a", creatives=(Creative(id="x"),), **values)  # type: ignore[arg-type]


@dataclass
class Daemon:
    """One of those that share the budget: its share of the traffic, what it holds, and what it has heard."""

    pacer: Pacer
    share: float
    held: int = 0
    heard: int = 0
    waiting: float = 0.0
    alive: bool = True


@dataclass
class Day:
    """A simulated day of one campaign; `at` are things that happen, by the second of the day."""

    campaign: Campaign
    daemons: int = 10
    asks_a_second: float = 10.0
    supply: Callable[[float], float] = day_and_night
    weights: Sequence[float] = ()
    at: dict[int, Callable[[Day], None]] = field(default_factory=dict)
    step_s: int = 1
    first_s: int = 0
    seed: int = 1
    clicks: float = 0.0
    spent: int = 0
    billed: int = 0
    hours: list[int] = field(default_factory=list)

    def run(self) -> list[int]:
        """What was spent by the end of each hour, in nanos."""
        self.clock = ManualClock(MIDNIGHT + self.first_s)
        self.random = Random(self.seed)
        self.bills: deque[tuple[int, Daemon, int, int]] = deque()
        self.fleet: list[Daemon] = []
        for i in range(self.daemons):
            self.join(f"d{i}", 2 * (i + 1) / self.daemons / (self.daemons + 1))
        for second in range(self.first_s, DAY_S, self.step_s):
            if second in self.at:
                self.at[second](self)
            self.step(second)
            self.clock.advance(self.step_s)
            if (second + self.step_s) % 3_600 == 0:
                self.hours.append(self.spent)
        return self.hours

    def join(self, name: str, share: float) -> None:
        """One more daemon, with a share of the traffic."""
        daemon = Daemon(
            Pacer(self.clock, lambda _: self.spending(daemon), instance=name, traffic=lambda: self.weights), share
        )
        daemon.pacer.watch(self.campaign)
        daemon.heard = self.billed
        self.fleet.append(daemon)

    def change(self, campaign: Campaign) -> None:
        """Every daemon hears of a new version of the campaign."""
        self.campaign = campaign
        for daemon in self.fleet:
            daemon.pacer.watch(campaign)

    def spending(self, daemon: Daemon) -> Spending:
        """The budget as a daemon knows it."""
        return Spending("today", self.campaign.pause_nanos or 0, daemon.heard, daemon.heard + daemon.held)

    def step(self, second: int) -> None:
        """Bills that are due, then the auctions of this step."""
        while self.bills and self.bills[0][0] <= second:
            _, daemon, held, price = self.bills.popleft()
            self.billed += price
            daemon.held -= held
        asks = self.asks_a_second * self.supply(second) * self.step_s
        for i, daemon in enumerate(self.fleet):
            if not daemon.alive:
                continue
            if (second // self.step_s + i) % max(HEARD_EVERY_S // self.step_s, 1) == 0:
                daemon.heard = self.billed
            daemon.waiting += asks * daemon.share
            while daemon.waiting >= 1.0:
                daemon.waiting -= 1.0
                if daemon.pacer.admits("c") and self.random.random() < WINS:
                    self.win(second, daemon)

    def win(self, second: int, daemon: Daemon) -> None:
        """An impression: held by the daemon, billed later; by the click where clicks are paid for."""
        held = price = self.random.randint(UNIT_NANOS // 2, UNIT_NANOS)
        if self.spent + held > (self.campaign.daily_budget_nanos or 0):
            return
        if self.campaign.pricing is Pricing.CPC:
            is_clicked = self.random.random() < self.clicks
            price = round(self.campaign.bid * 1e9) if is_clicked else 0
        self.spent += price
        daemon.held += held
        daemon.pacer.won(_ticket(self.campaign, held))
        for other in self.fleet if self.campaign.pricing is Pricing.CPC else ():
            other.pacer.performed("c", "today", 1)
        self.bills.append((second + BILLED_AFTER_S, daemon, held, price))


def _ticket(campaign: Campaign, held: int) -> Ticket:
    return Ticket("a", "1", campaign.id, "x", "today", "d", campaign.pricing, held, held, 0.0, 0.0)


def even(budget: int) -> list[float]:
    """What an even curve asks for by the end of each hour."""
    return [budget * (hour + 1) / 24 for hour in range(24)]


def learned(budget: int, weights: Sequence[float]) -> list[float]:
    """What a learned curve asks for by the end of each hour."""
    return [budget * sum(weights[: hour + 1]) / sum(weights) for hour in range(24)]


def hourly_supply() -> list[float]:
    """The traffic of each hour of the day."""
    return [sum(day_and_night(hour * 3_600 + minute * 60) for minute in range(60)) / 60 for hour in range(24)]


def gaps(spent: Sequence[int], target: Sequence[float], budget: int) -> tuple[float, float]:
    """The widest gap at the end of an hour, and that at the end of the day, in percent of the budget."""
    found = [100 * abs(s - t) / budget for s, t in zip(spent, target, strict=True)]
    return max(found), found[-1]


def _report(name: str, day: Day, target: Callable[[Day], Sequence[float]]) -> None:
    spent = day.run()
    worst, last = gaps(spent, target(day), day.campaign.daily_budget_nanos or 0)
    print(f"{name:42} widest gap at an hour {worst:5.2f} %, at the end {last:5.2f} % of the daily budget")


def _double_at_noon(impressions: int) -> Day:
    return Day(campaign(impressions), at={43_200: lambda day: day.change(campaign(2 * impressions))})


def _from_noon(day: Day) -> list[float]:
    """Even to half of the first budget at noon, then even to twice the budget."""
    budget, noon = (day.campaign.daily_budget_nanos or 0), day.hours[11]
    return [budget / 2 * (hour + 1) / 24 for hour in range(12)] + [
        noon + (budget - noon) * (hour + 1) / 12 for hour in range(12)
    ]


def _kill(index: int) -> Callable[[Day], None]:
    def kill(day: Day) -> None:
        day.fleet[index].alive = False

    return kill


def _decision_us() -> tuple[float, float, float]:
    """Microseconds of CPU time: a paced campaign's decision, an unpaced one's, and one that runs the controller."""
    pacer = Pacer(SystemClock(), lambda _: Spending("today", 10**10, 10**6, 10**6))
    pacer.watch(campaign(1_000))

    def timed(name: str) -> float:
        return min(timeit.repeat(lambda: pacer.admits(name), number=100_000, repeat=5, timer=time.process_time)) * 10

    paced, unpaced = timed("c"), timed("another")
    running = Pacer(SystemClock(), lambda _: Spending("today", 10**10, 10**6, 10**6), interval_s=0)
    running.watch(campaign(1_000))
    once = min(timeit.repeat(lambda: running.admits("c"), number=10_000, repeat=5, timer=time.process_time)) * 100
    return paced, unpaced, once


def main() -> None:
    """Print each figure on a line."""
    paced, unpaced, once = _decision_us()
    print(f"a decision: paced {paced:.2f} us, not paced {unpaced:.2f} us, with a run of the controller {once:.1f} us")
    budget = campaign(20_000).daily_budget_nanos or 0
    weights = hourly_supply()
    _report("10 daemons, even curve", Day(campaign(20_000)), lambda day: even(budget))
    learns = campaign(20_000, pacing=Pacing.LEARNED)
    _report("10 daemons, learned curve", Day(learns, weights=weights), lambda day: learned(budget, weights))
    _report("10 daemons, budget doubled at noon", _double_at_noon(10_000), _from_noon)
    _report(
        "10 daemons, the largest dies at noon", Day(campaign(20_000), at={43_200: _kill(9)}), lambda _: even(budget)
    )
    _report("1 daemon", Day(campaign(20_000), daemons=1), lambda day: even(budget))
    few = campaign(200).daily_budget_nanos or 0
    _report("10 daemons, 200 impressions a day", Day(campaign(200)), lambda day: even(few))


if __name__ == "__main__":
    main()
