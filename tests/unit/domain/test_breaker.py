"""The circuit breaker, on a clock set by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtb.domain.breaker import Breaker, BreakerPolicy, State

S = 1_000_000_000
MS = 1_000_000
POLICY = BreakerPolicy(
    window_s=10, calls=20, throttle_at=0.2, open_at=0.5, open_s=2, open_most_s=5, probe_share=0.01, probe_every_s=1
)


def run(breaker: Breaker, start_ns: int, calls: int, bad: int) -> int:
    """So many admitted calls in one second, the first of them bad; returns how many were let through."""
    admitted = 0
    for n in range(calls):
        now_ns = start_ns + n * S // calls
        if breaker.admits(now_ns):
            breaker.record(now_ns, bad=admitted < bad)
            admitted += 1
    return admitted


def test_a_healthy_bidder_gets_everything() -> None:
    """Up to the share at which throttling begins, exactly that included."""
    breaker = Breaker(POLICY)
    assert run(breaker, 0, 1_000, bad=0) == 1_000
    for n in range(250):
        breaker.record(S, bad=True)  # 250 of 1,250
        assert breaker.admits(S), n
    assert (breaker.state, breaker.share(S)) == (State.CLOSED, 1.0)


def test_few_calls_decide_nothing() -> None:
    """Nineteen failures out of nineteen leave it closed, the twentieth opens it."""
    breaker = Breaker(POLICY)
    assert run(breaker, 0, 19, bad=19) == 19
    assert breaker.state is State.CLOSED
    breaker.record(S, bad=True)
    assert breaker.state is State.OPEN


@pytest.mark.parametrize(("bad", "share"), [(20, 1.0), (35, 0.55), (49, 1 - 0.9 * 29 / 30)])
def test_traffic_shrinks_as_the_share_of_bad_calls_grows(bad: int, share: float) -> None:
    """From all of it at 20 % to the half-open tenth at 50 %, in proportion: at 35 % half of the way."""
    breaker = Breaker(POLICY)
    for n in range(100):
        breaker.record(0, bad=n >= 100 - bad)
    assert breaker.share(0) == pytest.approx(share)
    admitted = sum(breaker.admits(n * MS) for n in range(900))
    assert admitted == pytest.approx(900 * share, abs=2)


def test_open_it_still_sends_a_trickle() -> None:
    """One in a hundred, and at least one a second of whoever has little traffic."""
    breaker = Breaker(POLICY)
    run(breaker, 0, 100, bad=100)
    begin_ns = S
    assert sum(breaker.admits(begin_ns + n) for n in range(1_000)) == pytest.approx(10, abs=1)
    slow = Breaker(BreakerPolicy(calls=1, open_s=60))
    slow.record(0, bad=True)
    assert [slow.admits(n * S // 2) for n in range(1, 9)] == [False, True] * 4


def test_it_closes_when_probes_succeed() -> None:
    """After its time it lets a tenth through; ten good calls, and everything flows again, the past forgotten."""
    breaker = Breaker(POLICY)
    run(breaker, 0, 100, bad=100)
    assert breaker.state is State.OPEN
    opened_ns = 19 * S // 100  # the twentieth call
    assert not breaker.admits(opened_ns + 1)
    admitted = 0
    now_ns = opened_ns + 2 * S
    while breaker.state is not State.CLOSED:
        now_ns += MS
        if breaker.admits(now_ns):
            admitted += 1
            breaker.record(now_ns, bad=False)
    assert admitted == 10
    assert run(breaker, now_ns, 100, bad=0) == 100


def test_it_opens_for_longer_each_time_it_fails_again() -> None:
    """2 s, 4 s, then at most 5 s; once it has been closed, 2 s again."""
    breaker = Breaker(POLICY)
    breaker_opened_ns = 0
    for n in range(20):
        breaker.record(n, bad=True)
    for pause_s in (2, 4, 5, 5):
        due_ns = breaker_opened_ns + pause_s * S
        breaker.admits(due_ns - 1 * MS)
        assert breaker.state is State.OPEN
        breaker.admits(due_ns + MS)
        assert breaker.state is State.HALF_OPEN
        for n in range(10):
            breaker.record(due_ns + n, bad=True)
        assert breaker.state is State.OPEN
        breaker_opened_ns = due_ns + 9
    breaker.admits(breaker_opened_ns + 6 * S)
    for n in range(10):
        breaker.record(breaker_opened_ns + 6 * S + n, bad=n < 4)
    assert breaker.state is State.CLOSED


def test_what_left_the_window_is_forgotten() -> None:
    """Ten seconds after its bad second a bidder has a clean sheet."""
    breaker = Breaker(POLICY)
    for n in range(100):
        breaker.record(0, bad=n >= 60)
    assert breaker.share(9 * S + S // 2) < 1
    assert breaker.share(10 * S) == 1


@given(st.lists(st.tuples(st.integers(0, 3 * S), st.booleans()), max_size=200))
def test_it_is_never_blind(steps: list[tuple[int, bool]]) -> None:
    """Whatever happened, within one probe interval somebody is let through."""
    breaker = Breaker(POLICY)
    now_ns = 0
    for pause_ns, bad in steps:
        now_ns += pause_ns
        if breaker.admits(now_ns):
            breaker.record(now_ns, bad=bad)
        assert 0 < breaker.share(now_ns) <= 1
    assert breaker.admits(now_ns + S)
