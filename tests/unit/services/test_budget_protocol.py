"""The budget protocol under whatever can go wrong: spent never exceeds the limit, no in-time event is left uncovered,
and accounts and ledger agree in the end. See tests/support/budget_world.py."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from tests.support.ablations import ABLATIONS
from tests.support.budget_world import OPS, Trace, World, find, replay, walk

WALKS = 3_000
ENOUGH = 2_500
"""Walks within which a missing clause is found; most take less than a hundred."""


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Thousands of rebuilds are not worth a line each."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.configure(**before)


def test_random_walks_end_well() -> None:
    """Crashes, partitions, lost, delayed and late messages, repeated and late events, accounts lost, saved and brought
    back, limits changed, across midnight."""
    assert find(World, WALKS, seed=20261122) is None


class Machine(RuleBasedStateMachine):
    """The same steps, chosen by hypothesis."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    @invariant()
    def adds_up(self) -> None:
        """The equation, and spent within the limit."""
        self.world.check()

    def teardown(self) -> None:
        """Both properties after healing, and the audit."""
        self.world.final()


def _add(name: str) -> None:
    _, possible, choices = OPS[name]

    def step(self: Machine, **arguments: Any) -> None:
        getattr(self.world, name)(**arguments)

    step.__name__ = name
    arguments = {key: st.sampled_from(values) for key, values in choices.items()}
    setattr(Machine, f"do_{name}", precondition(lambda self: bool(possible(self.world)))(rule(**arguments)(step)))


for _name in OPS:
    _add(_name)


def test_a_state_machine_finds_nothing() -> None:
    """hypothesis searches the same steps in its own way."""
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=60,
            stateful_step_count=40,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


def sync(n: int) -> Trace:
    """A daemon leases."""
    return [("sync", {"n": n, "mode": "ok"})]


def win(n: int, price: int = 4) -> Trace:
    """It wins, and the event comes."""
    return [("win", {"n": n, "price": price}), ("happen", {"k": -1})]


def consume(n: int, *, gates: int = 2) -> Trace:
    """It takes an event, charges it, and passes so many gates: the commit, the settling."""
    return [("consume", {"q": 0, "n": n, "mode": "ok"}), *[("go_on", {"k": 0})] * gates]


def tick(ticks: int) -> Trace:
    """Time passes."""
    return [("tick", {"ticks": ticks})]


LOSE: Trace = [("lose", {})]
GO_ON: Trace = [("go_on", {"k": -1})]
STORIES: dict[str, Trace] = {
    "return_free_only": [
        *(sync(0) + win(0, 2)),
        ("give_back", {"n": 0, "mode": "ok"}),
        ("start", {}),
        *(sync(1) + win(1) + sync(2) + win(2, 2)),
    ],
    "settle": sync(0) + win(0) + tick(5) + sync(0) + tick(2) + sync(0) + win(0) + consume(0) + consume(0),
    "owed": [
        *(sync(0) + win(0) + consume(0, gates=0) + LOSE + tick(4) + GO_ON + GO_ON + tick(3) + tick(3)),
        *(sync(1) + GO_ON + sync(1) + sync(0) + sync(0) + win(0)),
    ],
    "limit_grandfather": [
        *(sync(0) + win(0)),
        ("limit", {"nanos": 1}),
        ("hear", {"n": 0}),
        *(sync(0) + consume(0)),
    ],
    "run_id": [
        *(sync(0) + win(0)),
        ("snapshot", {}),
        *(consume(0) + sync(1) + win(1, 2) + consume(1)),
        ("restore", {}),
        *(sync(0) + sync(1) + win(1)),
    ],
}
"""What goes wrong without a clause, told by hand; a limit of 6, of which a daemon leases 4 at most."""


@pytest.mark.parametrize("clause", STORIES)
def test_a_story_that_needs_a_clause(clause: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends well with the clause, and badly without."""
    assert replay(STORIES[clause], World) is None
    ABLATIONS[clause](monkeypatch)
    assert replay(STORIES[clause], World) is not None


@pytest.mark.parametrize(
    "clause", ["bill_result", "sql_fence", "rebuild_keys", "reserve_missing", "rebuild_install_once"]
)
def test_the_walks_miss_a_clause(clause: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it they soon find money lost or spent twice."""
    ABLATIONS[clause](monkeypatch)
    assert find(World, ENOUGH, seed=0, shorten_it=False) is not None


def test_a_walk_does_not_depend_on_chance() -> None:
    """The same seed takes the same steps: what fails can be repeated."""
    assert walk(World, random.Random(3)) == walk(World, random.Random(3))
