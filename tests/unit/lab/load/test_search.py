"""Finding the highest rate that passes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtb.lab.load.search import find_max


@given(st.floats(2, 900_000), st.floats(1, 900_000))
def test_finds_a_sharp_limit(capacity: float, start: float) -> None:
    """Whatever the start, the answer passes and lies within 5 % of the highest rate that passes."""
    best = find_max(lambda rate: rate <= capacity, start)
    assert best <= capacity
    assert best >= capacity / 1.05


def test_climbs_by_doubling_then_halves_the_gap() -> None:
    """From 1,000 against a limit of 3,000: 2,000 passes, 4,000 fails twice, then 3,000, and bisection above it."""
    tried: list[float] = []

    def measure(rate: float) -> bool:
        tried.append(rate)
        return rate <= 3000

    assert find_max(measure, 1000, resolution=0.2) == 3000
    assert tried == [1000, 2000, 4000, 4000, 3000, 3500, 3500]


def test_one_hiccup_does_not_end_the_climb() -> None:
    """A rate that fails once and passes when repeated counts as passed."""
    failed_once: set[float] = set()

    def measure(rate: float) -> bool:
        if rate not in failed_once:
            failed_once.add(rate)
            return False
        return rate <= 5000

    assert find_max(measure, 1000) == pytest.approx(5000, rel=0.05)


def test_nothing_passes() -> None:
    """0 when even one a second is too much."""
    assert find_max(lambda _: False, 1000) == 0.0


def test_everything_passes() -> None:
    """The limit is the answer when nothing fails below it, and nothing above it is tried."""
    tried: list[float] = []

    def measure(rate: float) -> bool:
        tried.append(rate)
        return True

    assert find_max(measure, 1000, limit=5000) == 5000
    assert tried == [1000, 2000, 4000, 5000]
