"""Alert rules: what is accepted, and how a rule goes from ok to firing and back."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from rtb.domain.alert import AlertRule, AlertState, Condition, Phase, rule_from, step
from rtb.errors import BadRequest

ABOVE = AlertRule(id="r", metric="latency_p99_ms", condition=Condition.GREATER_THAN, threshold=100.0, for_s=10)


def run(rule: AlertRule, *looks: tuple[float, float | None], state: AlertState | None = None) -> AlertState:
    """The state after looks at (time, value)."""
    state = state or AlertState(rule_id=rule.id)
    for now, value in looks:
        state = step(rule, state, value, now)
    return state


def test_it_fires_once_the_condition_held_long_enough() -> None:
    """Ten seconds of more than 100; exactly 100 is not more."""
    assert run(ABOVE, (0, 100.0)).phase is Phase.OK
    assert run(ABOVE, (0, 101.0), (9.9, 101.0)).phase is Phase.PENDING
    fired = run(ABOVE, (0, 101.0), (9.9, 101.0), (10, 102.0))
    assert (fired.phase, fired.since, fired.began, fired.value, fired.incident) == (Phase.FIRING, 10, 10, 102.0, 1)
    assert fired.transition == "1:firing"


def test_a_break_begins_the_wait_anew() -> None:
    """One look without the condition, or without a value, and the ten seconds count from the next."""
    for value in (100.0, None, math.nan):
        state = run(ABOVE, (0, 101.0), (5, value), (6, 101.0), (15, 101.0))
        assert (state.phase, state.since) == (Phase.PENDING, 6)
        assert run(ABOVE, (16, 101.0), state=state).phase is Phase.FIRING


def test_without_a_duration_it_fires_at_once() -> None:
    """The first look is enough."""
    assert run(replace(ABOVE, for_s=0.0), (3, 101.0)).phase is Phase.FIRING


def test_a_value_about_the_threshold_makes_one_alert() -> None:
    """It ends only after ten seconds at 95 or less, 5 % below the threshold, without a break."""
    fired = run(ABOVE, (0, 101.0), (10, 101.0))
    hovering = run(ABOVE, *[(20 + n, 99.0 if n % 2 else 101.0) for n in range(50)], state=fired)
    assert hovering == fired
    broken = run(ABOVE, (80, 95.0), (89, 95.0), (90, 95.1), (91, 95.0), (100, 94.0), state=fired)
    assert broken.phase is Phase.FIRING
    ended = run(ABOVE, (101, 90.0), state=broken)
    assert (ended.phase, ended.since, ended.began, ended.transition) == (Phase.OK, 101, 10, "1:resolved")
    again = run(ABOVE, (200, 101.0), (210, 101.0), state=ended)
    assert again.transition == "2:firing"


def test_an_unknown_value_does_not_end_an_alert() -> None:
    """Nor does it interrupt a recovery."""
    fired = run(ABOVE, (0, 101.0), (10, 101.0))
    assert run(ABOVE, (20, None), (1_000, None), state=fired) == fired
    assert run(ABOVE, (20, 90.0), (25, None), (30, 90.0), state=fired).phase is Phase.OK


@pytest.mark.parametrize(
    ("condition", "threshold", "recover_at", "wrong", "between", "good"),
    [
        (Condition.LESS_THAN, 10.0, None, 9.9, 10.4, 10.5),
        (Condition.GREATER_THAN, -10.0, None, -9.9, -10.4, -10.5),
        (Condition.LESS_THAN, 10.0, 20.0, 9.0, 19.9, 20.0),
        (Condition.GREATER_THAN, 0.0, None, 0.1, None, 0.0),
        (Condition.EQUALS, 0.3, None, 0.1 + 0.2, None, 0.31),
    ],
)
def test_where_it_begins_and_where_it_ends(
    condition: Condition, threshold: float, recover_at: float | None, wrong: float, between: float | None, good: float
) -> None:
    """5 % of the threshold on its good side, or where the rule says; `equals` ends with any other value."""
    rule = replace(ABOVE, condition=condition, threshold=threshold, recover_at=recover_at, for_s=0.0)
    fired = run(rule, (0, wrong))
    assert fired.phase is Phase.FIRING
    assert run(rule, (1, between), state=fired).phase is Phase.FIRING
    assert run(rule, (1, good), state=fired).phase is Phase.OK


def test_a_rule_that_is_switched_off_ends() -> None:
    """Firing or pending, at once; and it does not begin again."""
    off = replace(ABOVE, enabled=False)
    assert run(off, (11, 101.0), state=run(ABOVE, (0, 101.0), (10, 101.0))).transition == "1:resolved"
    waiting = run(off, (5, 101.0), state=run(ABOVE, (0, 101.0)))
    assert (waiting.phase, waiting.transition) == (Phase.OK, "")
    assert run(off, (50, 101.0), state=waiting) is waiting


def test_a_new_incident_needs_a_new_acknowledgement() -> None:
    """Who acknowledged the first has not seen the second; what was told of the first is remembered."""
    state = AlertState(
        rule_id="r", incident=1, acknowledged_by="mina", acknowledged_at=3.0, told="1:resolved", version=4
    )
    fired = run(replace(ABOVE, for_s=0.0), (9, 101.0), state=state)
    assert (fired.acknowledged_by, fired.acknowledged_at, fired.told, fired.version) == ("", None, "1:resolved", 4)


@given(
    condition=st.sampled_from(Condition),
    for_s=st.sampled_from([0.0, 1.0, 3.0]),
    values=st.lists(st.sampled_from([None, 0.0, 1.0, 1.9, 1.95, 2.0, 2.05, 2.1, 3.0]), max_size=40),
)
def test_incidents_match_a_plain_count(condition: Condition, for_s: float, values: list[float | None]) -> None:
    """One look a second against a model that looks back over all values: it fires after for_s + 1 wrong looks in a row,
    and ends after for_s + 1 good ones, unknown ones between them left out."""
    rule = replace(ABOVE, condition=condition, threshold=2.0, for_s=for_s)
    wrong = {
        Condition.GREATER_THAN: {2.05, 2.1, 3.0},
        Condition.LESS_THAN: {0.0, 1.0, 1.9, 1.95},
        Condition.EQUALS: {2.0},
    }[condition]
    good = {
        Condition.GREATER_THAN: {0.0, 1.0, 1.9},
        Condition.LESS_THAN: {2.1, 3.0},
        Condition.EQUALS: {0.0, 1.0, 1.9, 1.95, 2.05, 2.1, 3.0},
    }[condition]
    firing, incidents, streak_since = False, 0, None
    state = AlertState(rule_id="r")
    for now, value in enumerate(values):
        state = step(rule, state, value, now)
        counts = good if firing else wrong
        if value is None and firing:
            pass
        elif value not in counts:
            streak_since = None
        else:
            streak_since = now if streak_since is None else streak_since
        if streak_since is not None and now - streak_since >= for_s and not (value is None and firing):
            firing, streak_since = not firing, None
            incidents += firing
        assert ((state.phase is Phase.FIRING), state.incident) == (firing, incidents)


GOOD: dict[str, Any] = {"id": "r", "metric": "bid_rate", "condition": "less_than", "threshold": 0.5}


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"threshold": "high"}, "alert: threshold: expected `float`, got `str`"),
        ({"threshold": math.inf}, "alert: threshold: must be a finite number"),
        ({"condition": "above"}, "alert: condition: invalid enum value 'above'"),
        ({"severity": "bad"}, "alert: severity: invalid enum value 'bad'"),
        ({"for_s": -1}, "alert: for_s: expected `float` >= 0.0"),
        ({"metric": "ctr"}, "alert: metric: the system has no 'ctr'; choose one of auctions_per_s, "),
        (
            {"metric": "bid_rate", "campaign_id": "c"},
            "alert: metric: a campaign has no 'bid_rate'; choose one of wins, ",
        ),
        ({"recover_at": 0.4}, "alert: recover_at: must be a finite number, not below threshold"),
        ({"condition": "equals", "recover_at": 0.4}, "alert: recover_at: a rule of equals ends with any other value"),
        ({"id": ""}, "alert: id: expected `str` matching regex"),
        ({"id": "a b"}, "alert: id: expected `str` matching regex"),
        ({"colour": "red"}, "alert: colour: unknown field"),
        ({"channels": [1]}, "alert: channels[0]: expected `str`, got `int`"),
    ],
)
def test_what_is_wrong_with_a_rule_is_one_line(wrong: dict[str, Any], line: str) -> None:
    """It names the field."""
    with pytest.raises(BadRequest) as caught:
        rule_from(GOOD | wrong)
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


def test_a_missing_field_is_named() -> None:
    """Which one, not only that one is missing."""
    with pytest.raises(BadRequest, match=r"^alert: threshold: required$"):
        rule_from({name: value for name, value in GOOD.items() if name != "threshold"})
    with pytest.raises(BadRequest, match=r"^alert: expected `object`, got `array`$"):
        rule_from([])


def test_a_rule_is_json_and_back() -> None:
    """What is stored and sent is what is accepted."""
    rule = rule_from(GOOD | {"campaign_id": "", "channels": ["ops"], "recover_at": 0.6})
    assert rule_from(json.loads(msgspec.json.encode(rule))) == rule
    assert rule.describe() == "bid_rate less than 0.5"
