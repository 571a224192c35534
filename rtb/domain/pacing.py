"""Pacing: a daily budget spread over the day, by a chance to take part in each auction.

A `Plan` says what should be spent by when: it follows a `Curve` of the day from an anchor, a moment and what was spent
by then, to the whole budget at the end of the day. A `Throttle` is the feedback controller of one campaign in one
daemon. Once a second it compares what all daemons have spent with the plan and sets the probability to take part:

    wanted       the plan's rate, and a correction that closes the gap to the plan within HORIZON_S
    possible     auctions a second that ask for the campaign here, times what all daemons spend for each admitted here
    probability  wanted / possible, 0 to 1

What all daemons spend is divided by what *this* one admits, so every daemon scales its own share by the same factor:
together they spend what is wanted, without talking, whatever share of the traffic each has. Auctions a second follow
the supply at once; what one is worth hardly changes over the day and is remembered for many impressions.

Bounds that hold whatever the estimates are: a daemon spends at most BURST times the wanted rate; a gap wider than BAND
of the budget (supply dried up) is not chased: the plan is anchored anew, and the rest spread over the rest of the day.
A daemon that starts late, or hears of a new budget, anchors there: on the same line as the others when they are on it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from datetime import datetime
from zoneinfo import ZoneInfo

from msgspec import Struct

from rtb.domain.budget import day_end

HORIZON_S = 300.0
"""A gap to the plan is closed within this time, at the end of the day within a third of what is left of it."""
BAND = 0.005
"""Of the budget: a wider gap moves the plan."""
BURST = 3.0
"""One daemon spends at most so many times the wanted rate,"""
BURST_S = 5.0
"""saved up for so long, or for one impression."""
ENOUGH_ASKS = 10
"""Auctions over which their number a second is averaged,"""
LEAST_RATE_S, LONGEST_RATE_S = 30.0, 3_600.0
"""within these times."""
MEMORY = 20
"""Impressions, or clicks, or conversions, for which it is remembered what an auction is worth,"""
LEAST_MEMORY_S, LONGEST_MEMORY_S = 300.0, 43_200.0
"""within these times."""
LOOK_AHEAD_S = 60.0
"""The plan's rate is its mean over so long."""
SHORTEST_HORIZON_S = 3.0
SLOT_S = 900.0
"""A curve changes at quarters of an hour: offsets of time zones are multiples of it."""
TRUST = 10
"""Clicks or conversions after which what was billed counts as much as what was expected."""
GOLDEN = 0.6180339887498949
"""Multiples of it, without their integer part, fill 0 to 1 evenly, however few or many there are."""


class Curve(Struct, frozen=True, gc=False):
    """The share of a day's budget that should be spent by when: linear between `times` (Unix seconds), 0 to 1."""

    times: tuple[float, ...]
    shares: tuple[float, ...]

    @property
    def ends(self) -> float:
        """The end of the day."""
        return self.times[-1]

    def share(self, now: float) -> float:
        """The share at a moment: 0 before the day and 1 after it."""
        times, shares = self.times, self.shares
        if now <= times[0]:
            return 0.0
        if now >= times[-1]:
            return 1.0
        i = bisect_right(times, now)
        before, after = times[i - 1], times[i]
        return shares[i - 1] + (shares[i] - shares[i - 1]) * (now - before) / (after - before)


def curve(
    now: float,
    zone: ZoneInfo,
    *,
    weights: Sequence[float] = (),
    hours: Sequence[int] = (),
    start: float | None = None,
    end: float | None = None,
) -> Curve:
    """The curve of the budget day that `now` is in.

    Args:
        now: Unix seconds.
        zone: of the campaign.
        weights: traffic of the 24 hours of a day in UTC, in any unit; even when empty.
        hours: hours of the week that the campaign runs in, 0 = Monday 00:00 in its zone; all when empty.
        start: when its flight begins, Unix seconds.
        end: when its flight ends.
    """
    today = datetime.fromtimestamp(now, zone).date()
    midnight = datetime.combine(today, datetime.min.time(), zone).timestamp()
    last = day_end(now, zone)
    runs = frozenset(hours)
    slots = [midnight + i * SLOT_S for i in range(round((last - midnight) / SLOT_S))]
    busy = [_weight(at, zone, weights, runs, start, end) for at in slots]
    if sum(busy) <= 0:  # it does not run today at all, or no traffic is known where it does
        busy = [1.0] * len(slots)
    times, shares, total, so_far = [midnight], [0.0], sum(busy), 0.0
    for i, weight in enumerate(busy):
        so_far += weight
        if i + 1 == len(busy) or busy[i + 1] != weight:
            times.append(slots[i] + SLOT_S)
            shares.append(so_far / total)
    times[-1], shares[-1] = last, 1.0
    return Curve(tuple(times), tuple(shares))


def _weight(
    at: float, zone: ZoneInfo, weights: Sequence[float], runs: frozenset[int], start: float | None, end: float | None
) -> float:
    """Of one slot: its traffic, as far as the campaign runs in it."""
    first, last = max(at, start or at), min(at + SLOT_S, end or at + SLOT_S)
    if last <= first:
        return 0.0
    if runs:
        local = datetime.fromtimestamp(at, zone)
        if local.weekday() * 24 + local.hour not in runs:
            return 0.0
    traffic = weights[int(at // 3_600) % 24] if weights else 1.0
    return traffic * (last - first) / SLOT_S


class Plan(Struct, gc=False):
    """What should be spent by when: from an anchor along the curve to `budget_nanos` at its end."""

    curve: Curve
    budget_nanos: int
    anchor_nanos: float = 0.0
    reached: float = 0.0

    def anchor(self, now: float, spent_nanos: float) -> None:
        """Go on from here: spread what is left of the budget over what is left of the day."""
        self.anchor_nanos, self.reached = spent_nanos, self.curve.share(now)

    def target_nanos(self, now: float) -> float:
        """What should be spent by now: it never falls with time; once the anchor is at the budget it stays there."""
        rest = self.budget_nanos - self.anchor_nanos
        if rest <= 0:
            return self.anchor_nanos
        left = 1.0 - self.reached
        part = (self.curve.share(now) - self.reached) / left if left > 1e-9 else 1.0
        return self.anchor_nanos + rest * max(part, 0.0)


class Pace(Struct, frozen=True, gc=False):
    """How a paced campaign stands: its chance to take part in an auction; what was spent and should be, in nanos."""

    probability: float
    spent_nanos: int
    target_nanos: int


class Throttle(Struct, gc=False):
    """The controller of one campaign in one daemon.

    `unit_nanos` is what an impression costs at most, `lump_nanos` what is billed at once: an impression, a click, a
    conversion. `phase` (0 to 1) differs from daemon to daemon. `left_nanos` may be spent here before the next update.
    """

    unit_nanos: int
    lump_nanos: int
    phase: float = 0.0
    plan: Plan | None = None
    at: float = 0.0
    probability: float = 0.0
    left_nanos: float = 0.0
    spent_nanos: float = 0.0
    asks: int = 0
    admitted: int = 0
    asked: float = 0.0
    asked_s: float = 0.0
    earned_nanos: float = 0.0
    tried: float = 0.0

    def admits(self) -> bool:
        """Whether the campaign takes part in one more auction: low-discrepancy, not random."""
        self.asks += 1
        phase = self.phase + GOLDEN
        if phase >= 1.0:
            phase -= 1.0
        self.phase = phase
        if phase >= self.probability or self.left_nanos <= 0.0:
            return False
        self.admitted += 1
        return True

    def won(self, nanos: int) -> None:
        """An impression was won here."""
        self.left_nanos -= nanos

    def follow(self, plan: Plan, now: float, spent_nanos: float) -> None:
        """Begin to follow a plan: of a new day, or a new budget. What was learned of the supply stays; `spent_nanos` is
        what of the plan's day was spent before."""
        if self.plan is None:
            self.left_nanos = float(self.unit_nanos)
        else:
            self._learn(max(now - self.at, 0.0), self.spent_nanos)
        self.plan, self.at, self.spent_nanos = plan, now, spent_nanos

    def update(self, now: float, spent_nanos: float) -> None:
        """Set the probability anew, for a plan that it follows.

        Args:
            now: Unix seconds.
            spent_nanos: by all daemons today, as far as it is known, with what this one has set aside.
        """
        plan, seconds = self.plan, max(now - self.at, 0.0)
        assert plan is not None
        self._learn(seconds, spent_nanos)
        self.at, self.spent_nanos = now, spent_nanos
        target = plan.target_nanos(now)
        gap, band = target - spent_nanos, max(BAND * plan.budget_nanos, 1.5 * self.lump_nanos)
        if gap > band:
            gap, target = band, spent_nanos + band
            plan.anchor(now, target)
        left_s = max(plan.curve.ends - now, 1.0)
        ahead_s = min(LOOK_AHEAD_S, left_s)
        planned = (plan.target_nanos(now + ahead_s) - target) / ahead_s
        wanted = planned + gap / max(min(HORIZON_S, left_s / 3), SHORTEST_HORIZON_S)
        if wanted <= 0 or spent_nanos >= plan.budget_nanos:
            self.probability, self.left_nanos = 0.0, min(self.left_nanos, 0.0)
            return
        saved = max(BURST * wanted * BURST_S, float(self.unit_nanos))
        self.left_nanos = min(self.left_nanos + BURST * wanted * seconds, saved)
        possible = self.asks_a_second * self.worth_nanos
        self.probability = 1.0 if possible <= wanted else wanted / possible

    @property
    def asks_a_second(self) -> float:
        """Auctions that ask for the campaign here; one is assumed beyond those that were seen."""
        return (self.asked + 1.0) / max(self.asked_s, 1e-3)

    @property
    def worth_nanos(self) -> float:
        """What all daemons spend for each auction that is admitted here; before anything is known, one impression."""
        return (self.earned_nanos + self.unit_nanos) / (self.tried + 1.0)

    def _learn(self, seconds: float, spent_nanos: float) -> None:
        """From what happened since the last update; what is old is forgotten."""
        assert self.plan is not None
        if not seconds:
            return
        memory_s = min(max(ENOUGH_ASKS / self.asks_a_second, LEAST_RATE_S), LONGEST_RATE_S)
        kept = max(1.0 - seconds / memory_s, 0.0)
        self.asked, self.asked_s = self.asked * kept + self.asks, self.asked_s * kept + seconds
        mean_rate = self.plan.budget_nanos / 86_400 or 1e-9
        memory_s = min(max(MEMORY * self.lump_nanos / mean_rate, LEAST_MEMORY_S), LONGEST_MEMORY_S)
        kept = max(1.0 - seconds / memory_s, 0.0)
        self.earned_nanos = max(self.earned_nanos * kept + spent_nanos - self.spent_nanos, 0.0)
        self.tried = self.tried * kept + self.admitted
        self.asks = self.admitted = 0


def believed_nanos(billed_nanos: int, expected_nanos: int, lump_nanos: int) -> float:
    """What a campaign that pays by click or conversion has spent, when billing comes late and in lumps: at first what
    its impressions are expected to be worth, and the more of that there is, the more what was billed."""
    trust = expected_nanos / (expected_nanos + TRUST * lump_nanos) if lump_nanos else 1.0
    return trust * billed_nanos + (1.0 - trust) * expected_nanos
