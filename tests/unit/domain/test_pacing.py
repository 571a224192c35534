"""The curve of a day, the plan along it, and the controller that follows the plan."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtb.domain import pacing
from rtb.domain.pacing import BAND, BURST, BURST_S, Curve, Plan, Throttle

MIDNIGHT = datetime(2026, 1, 1, tzinfo=UTC).timestamp()  # a Thursday
HOUR_S = 3_600
DAY_S = 24 * HOUR_S
ZONE = ZoneInfo("UTC")
EVEN = pacing.curve(MIDNIGHT, ZONE)
UNIT = 1_000


def test_an_even_curve() -> None:
    """A quarter of the day is a quarter of the budget."""
    assert [EVEN.share(MIDNIGHT + hour * HOUR_S) for hour in (-1, 0, 6, 12, 24, 25)] == [0.0, 0.0, 0.25, 0.5, 1.0, 1.0]
    assert EVEN.ends == MIDNIGHT + DAY_S


def test_a_day_begins_and_ends_in_the_campaigns_zone() -> None:
    """Seoul is nine hours ahead: at noon UTC 21 of 24 hours are over."""
    seoul = pacing.curve(MIDNIGHT + 12 * HOUR_S, ZoneInfo("Asia/Seoul"))
    assert seoul.share(MIDNIGHT + 12 * HOUR_S) == pytest.approx(21 / 24)
    assert seoul.ends == MIDNIGHT + 15 * HOUR_S


@pytest.mark.parametrize(("date", "hours"), [((2026, 3, 29), 23), ((2026, 10, 25), 25), ((2026, 6, 1), 24)])
def test_a_day_has_as_many_hours_as_it_has(date: tuple[int, int, int], hours: int) -> None:
    """In Berlin clocks are put forward on 29 March 2026 and back on 25 October."""
    noon = datetime(*date, 12, tzinfo=ZoneInfo("Europe/Berlin")).timestamp()
    curve = pacing.curve(noon, ZoneInfo("Europe/Berlin"))
    assert curve.ends - curve.times[0] == hours * HOUR_S
    assert curve.share(curve.times[0] + HOUR_S) == pytest.approx(1 / hours)


def test_a_learned_curve_follows_the_traffic() -> None:
    """Three times the traffic in the second half of the day: a quarter of the budget by noon."""
    curve = pacing.curve(MIDNIGHT, ZONE, weights=[1.0] * 12 + [3.0] * 12)
    assert curve.share(MIDNIGHT + 12 * HOUR_S) == pytest.approx(12 / 48)
    assert curve.share(MIDNIGHT + 18 * HOUR_S) == pytest.approx(30 / 48)


def test_traffic_is_of_hours_in_utc() -> None:
    """The busy hour from 00:00 UTC is from 09:00 in Seoul."""
    curve = pacing.curve(MIDNIGHT, ZoneInfo("Asia/Seoul"), weights=[1.0] + [0.0] * 23)
    assert (curve.share(MIDNIGHT), curve.share(MIDNIGHT + HOUR_S)) == (0.0, 1.0)


def test_nothing_is_planned_for_hours_that_the_campaign_does_not_run_in() -> None:
    """Thursdays from 6 to 8 (72 + 6 of the week) and from 20 to 22: half of the budget each."""
    hours = [72 + 6, 72 + 7, 72 + 20, 72 + 21]
    curve = pacing.curve(MIDNIGHT, ZONE, hours=hours)
    shares = [curve.share(MIDNIGHT + hour * HOUR_S) for hour in (6, 7, 8, 20, 21, 22)]
    assert shares == pytest.approx([0.0, 0.25, 0.5, 0.5, 0.75, 1.0])


def test_a_flight_that_begins_or_ends_within_the_day() -> None:
    """From 06:10 to 18:10 the whole budget is spent, half of it by 12:10."""
    start, end = MIDNIGHT + 6 * HOUR_S + 600, MIDNIGHT + 18 * HOUR_S + 600
    curve = pacing.curve(MIDNIGHT, ZONE, start=start, end=end)
    assert curve.share(start - 600) == 0.0
    assert curve.share(start + 6 * HOUR_S) == pytest.approx(0.5)
    assert curve.share(end + 900) == pytest.approx(1.0)


def test_a_day_that_it_does_not_run_in_is_even() -> None:
    """Then nobody asks; a curve there must be."""
    assert pacing.curve(MIDNIGHT, ZONE, hours=[0]) == EVEN
    assert pacing.curve(MIDNIGHT, ZONE, weights=[0.0] * 24) == EVEN


def test_a_plan_spreads_what_is_left_over_what_is_left() -> None:
    """Anchored at 18:00 with 40 of 100 spent, it wants 70 by 21:00."""
    plan = Plan(EVEN, 100)
    assert plan.target_nanos(MIDNIGHT + 18 * HOUR_S) == pytest.approx(75)
    plan.anchor(MIDNIGHT + 18 * HOUR_S, 40)
    assert [plan.target_nanos(MIDNIGHT + hour * HOUR_S) for hour in (12, 18, 21, 24)] == pytest.approx(
        [40, 40, 70, 100]
    )


def test_an_anchor_beyond_the_budget_asks_for_nothing() -> None:
    """A budget was lowered below what is spent."""
    plan = Plan(EVEN, 100)
    plan.anchor(MIDNIGHT + 12 * HOUR_S, 130)
    assert plan.target_nanos(MIDNIGHT + 20 * HOUR_S) == 130


def test_an_anchor_on_the_plan_changes_nothing() -> None:
    """So a daemon that starts in the middle of the day follows the same line as the others."""
    curve = pacing.curve(MIDNIGHT, ZONE, weights=[1.0, 5.0, 2.0] * 8)
    known, late = Plan(curve, 1_000), Plan(curve, 1_000)
    at = MIDNIGHT + 10.3 * HOUR_S
    late.anchor(at, known.target_nanos(at))
    for hour in (11, 15.5, 22, 24):
        now = MIDNIGHT + hour * HOUR_S
        assert late.target_nanos(now) == pytest.approx(known.target_nanos(now))


curves = st.lists(st.floats(0, 10), min_size=24, max_size=24).map(
    lambda weights: pacing.curve(MIDNIGHT, ZONE, weights=weights)
)


@given(curve=curves, budget=st.integers(0, 10**15), anchor_at=st.floats(0, DAY_S), spent=st.floats(0, 1e15))
def test_a_target_never_falls_and_never_passes_the_budget(
    curve: Curve, budget: int, anchor_at: float, spent: float
) -> None:
    """Whatever the curve and the anchor; at the end of the day it is the budget."""
    plan = Plan(curve, budget)
    plan.anchor(MIDNIGHT + anchor_at, spent)
    targets = [plan.target_nanos(MIDNIGHT + hour * HOUR_S) for hour in range(25)]
    assert targets == sorted(targets)
    assert spent <= targets[0] * (1 + 1e-9)
    assert targets[-1] == pytest.approx(max(budget, spent))


def following(budget: int = 1_000 * UNIT, spent: float = 0.0, hour: float = 0.0) -> Throttle:
    """A controller that begins to follow the even curve at an hour."""
    throttle = Throttle(UNIT, UNIT)
    plan, now = Plan(EVEN, budget), MIDNIGHT + hour * HOUR_S
    plan.anchor(now, spent)
    throttle.follow(plan, now, spent)
    return throttle


def test_nothing_is_admitted_before_the_first_run() -> None:
    """The supply is unknown, and many daemons may start at once."""
    throttle = following()
    assert not any(throttle.admits() for _ in range(1_000))


def test_admissions_are_as_many_as_the_probability_says() -> None:
    """Spread evenly: of every hundred asks 25 or two more or less, whatever the phase."""
    for phase in (0.0, 0.3, 0.99):
        throttle = Throttle(UNIT, UNIT, phase=phase, probability=0.25, left_nanos=1.0)
        for _ in range(20):
            assert 23 <= sum(throttle.admits() for _ in range(100)) <= 27


def test_nothing_is_admitted_ahead_of_the_plan() -> None:
    """At noon, with more than half of the budget spent and by more than the horizon wants."""
    throttle = following()
    throttle.update(MIDNIGHT + 12 * HOUR_S, 520.0 * UNIT)
    assert throttle.probability == 0.0


def test_everything_is_admitted_when_supply_is_short() -> None:
    """One ask a minute is less than the plan wants."""
    throttle = following(budget=5_000 * UNIT)
    for minute in range(1, 60):
        throttle.admits()
        throttle.update(MIDNIGHT + minute * 60, 0.0)
    assert throttle.probability == 1.0


def test_a_drought_is_not_made_up_for_in_a_burst() -> None:
    """Nothing can be bought for six hours. Then the plan has moved: 0.5 % of the budget is the gap, and the rest is
    spread over the rest of the day."""
    budget = 100_000 * UNIT
    throttle = following(budget)
    for minute in range(1, 361):
        throttle.update(MIDNIGHT + minute * 60, 0.0)
    plan, now = throttle.plan, MIDNIGHT + 6 * HOUR_S
    assert plan is not None
    assert plan.target_nanos(now) == pytest.approx(BAND * budget)
    assert plan.target_nanos(MIDNIGHT + 15 * HOUR_S) == pytest.approx(BAND * budget + (1 - BAND) * budget / 2)


def test_a_daemon_does_not_spend_more_than_its_part_before_it_hears_again() -> None:
    """A supply that comes back a thousandfold finds the probability at 1; what is won then is bounded."""
    budget = 86_400 * UNIT  # the plan wants one impression a second
    throttle = following(budget)
    for second in range(1, 600):
        throttle.update(MIDNIGHT + second, float(second * UNIT))
    assert throttle.probability == 1.0
    won = 0
    while throttle.admits():
        throttle.won(UNIT)
        won += 1
    assert won <= BURST * BURST_S + 1


@given(
    budget=st.integers(0, 10**6),
    steps=st.lists(st.tuples(st.floats(0, 5_000), st.integers(0, 200), st.integers(0, 50)), max_size=40),
    unit=st.integers(1, 10_000),
)
def test_the_controller_stays_within_its_bounds(budget: int, steps: list[tuple[float, int, int]], unit: int) -> None:
    """Whatever it hears: a probability is one, and nothing is admitted once the budget is spent."""
    throttle = Throttle(unit, unit)
    throttle.follow(Plan(EVEN, budget * unit), MIDNIGHT, 0.0)
    now, spent = MIDNIGHT, 0
    for seconds, asks, bought in steps:
        admitted = sum(throttle.admits() for _ in range(asks))
        assert admitted == 0 or throttle.probability > 0
        now, spent = now + seconds, spent + bought * unit
        throttle.update(now, float(spent))
        assert 0.0 <= throttle.probability <= 1.0
        if spent >= budget * unit:
            assert not throttle.admits()


def test_what_was_learned_outlives_the_day() -> None:
    """A new day's plan begins with the supply of the evening before."""
    throttle = following()
    for second in range(1, 100):
        for _ in range(20):
            throttle.admits()
        throttle.update(MIDNIGHT + second, 0.0)
    before = throttle.asks_a_second
    assert before == pytest.approx(20, rel=0.1)
    tomorrow = pacing.curve(MIDNIGHT + DAY_S, ZONE)
    throttle.follow(Plan(tomorrow, 1_000 * UNIT), MIDNIGHT + 100, 0.0)
    assert throttle.asks_a_second == pytest.approx(before, rel=0.1)


@pytest.mark.parametrize(
    ("billed", "expected", "believed"),
    [
        (0, 0, 0.0),
        (0, 1_000, 500.0),  # ten clicks' worth: billing counts as much as expectation
        (1_000, 1_000, 1_000.0),
        (2_000, 1_000, 1_500.0),  # twice as many clicks as expected
        (0, 100, 90.909),  # 1/11 of the trust
    ],
)
def test_clicks_are_believed_when_there_are_many(billed: int, expected: int, believed: float) -> None:
    """At 100 a click, TRUST (10) clicks are 1,000."""
    assert pacing.believed_nanos(billed, expected, 100) == pytest.approx(believed, rel=1e-3)
