"""Deadlines of calls, kept by one timer."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from rtb.adapters.clock import ManualClock
from rtb.adapters.http_call import Call
from rtb.adapters.http_wheel import DeadlineWheel
from rtb.ports.clock import Timer

MS = 1_000_000
SLOT_NS = 1 << 20


def ignore(call: Call) -> None:
    """Nobody waits."""


def make(deadline_ns: int) -> Call:
    """A call with a deadline."""
    return Call(b"", ignore, deadline_ns, None)


@given(st.lists(st.tuples(st.integers(0, 300 * MS), st.integers(0, 20 * MS)), max_size=40))
def test_each_call_expires_within_a_slot_of_its_deadline(calls: list[tuple[int, int]]) -> None:
    """Never before it, in whatever order they come, however the clock moves between them."""
    clock = ManualClock()
    expired: dict[Call, int] = {}
    wheel = DeadlineWheel(clock, lambda call: expired.setdefault(call, clock.monotonic_ns()) and None)
    made = []
    for after_ns, pause_ns in calls:
        call = make(clock.monotonic_ns() + after_ns)
        wheel.add(call)
        made.append(call)
        clock.advance(pause_ns / 1e9)
    clock.advance(1)
    assert len(expired) == len(made)
    for call in made:
        assert 0 <= expired[call] - call.deadline_ns <= SLOT_NS


def test_a_call_that_is_done_does_not_expire() -> None:
    """Nor does one after `stop`."""
    clock = ManualClock()
    expired: list[Call] = []
    wheel = DeadlineWheel(clock, expired.append)
    done, late = make(clock.monotonic_ns() + 10 * MS), make(clock.monotonic_ns() + 10 * MS)
    wheel.add(done)
    wheel.add(late)
    done.settle(clock.monotonic_ns(), 200, b"")
    clock.advance(0.1)
    assert expired == [late]
    wheel.add(make(clock.monotonic_ns() + 10 * MS))
    wheel.stop()
    clock.advance(0.1)
    assert expired == [late]


def test_a_call_may_be_added_while_another_expires() -> None:
    """As when a failed call is followed by the next."""
    clock = ManualClock()
    expired: list[Call] = []

    def follow(call: Call) -> None:
        expired.append(call)
        if len(expired) < 3:
            wheel.add(make(clock.monotonic_ns() + 5 * MS))

    wheel = DeadlineWheel(clock, follow)
    wheel.add(make(clock.monotonic_ns() + 5 * MS))
    clock.advance(0.1)
    assert len(expired) == 3


def test_slots_whose_calls_are_done_have_no_timer() -> None:
    """One timer for the first of them, and then one for the call that is left."""
    timers: list[int] = []

    class Counting(ManualClock):
        def call_at(self, when_ns: int, callback: Callable[[], None]) -> Timer:
            timers.append(when_ns)
            return super().call_at(when_ns, callback)

    clock = Counting()
    expired: list[Call] = []
    wheel = DeadlineWheel(clock, expired.append)
    begin_ns = clock.monotonic_ns()
    for slot in range(1, 100):
        done = make(begin_ns + slot * SLOT_NS)
        wheel.add(done)
        done.settle(begin_ns, 200, b"")
    late = make(begin_ns + 100 * SLOT_NS)
    wheel.add(late)
    clock.advance(1)
    assert expired == [late]
    assert len(timers) == 2


def test_a_call_joins_the_slot_of_one_that_is_done() -> None:
    """Even if that slot was passed over meanwhile."""
    clock = ManualClock()
    expired: list[Call] = []
    wheel = DeadlineWheel(clock, expired.append)
    first, done, late = (make(clock.monotonic_ns() + ms * MS) for ms in (5, 50, 50))
    wheel.add(first)
    wheel.add(done)
    done.settle(clock.monotonic_ns(), 200, b"")
    clock.advance(0.01)
    wheel.add(late)
    clock.advance(0.1)
    assert expired == [first, late]
