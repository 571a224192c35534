"""rtb.adapters.clock: the clock that is advanced, and the system's."""

from __future__ import annotations

import asyncio

from rtb.adapters.clock import NS, ManualClock, SystemClock


def test_a_manual_clock_stands_still() -> None:
    """Both of its clocks move by what they are told to, and only then."""
    clock = ManualClock(time=1_000.0, monotonic_ns=5)
    assert (clock.monotonic_ns(), clock.time()) == (5, 1_000.0)
    clock.advance(1.5)
    assert (clock.monotonic_ns(), clock.time()) == (5 + 1_500_000_000, 1_001.5)


def test_stepping_moves_the_wall_clock_alone() -> None:
    """Setting the clock back an hour leaves deadlines where they are."""
    clock = ManualClock(time=10_000.0)
    before = clock.monotonic_ns()
    clock.step(-3_600)
    assert (clock.monotonic_ns(), clock.time()) == (before, 6_400.0)


def test_timers_fire_in_order_at_their_own_time() -> None:
    """Those due within an advance are called by time, equal ones as they were set; the others wait."""
    clock = ManualClock(monotonic_ns=0)
    calls: list[tuple[str, int]] = []
    for name, when_s in (("late", 3), ("b", 2), ("a", 1), ("b2", 2), ("never", 9)):
        clock.call_at(when_s * NS, lambda name=name: calls.append((name, clock.monotonic_ns() // NS)))  # type: ignore[misc]
    clock.advance(2)
    assert calls == [("a", 1), ("b", 2), ("b2", 2)]
    clock.advance(1)
    assert calls[3:] == [("late", 3)]


def test_a_timer_may_set_another() -> None:
    """A timer set by a timer within the same advance fires there too."""
    clock = ManualClock(monotonic_ns=0)
    calls: list[int] = []

    def again() -> None:
        calls.append(clock.monotonic_ns() // NS)
        clock.call_at(clock.monotonic_ns() + NS, again)

    clock.call_at(NS, again)
    clock.advance(3)
    assert calls == [1, 2, 3]


def test_a_cancelled_timer_does_not_fire() -> None:
    """Nor does cancelling one that has fired do harm."""
    clock = ManualClock(monotonic_ns=0)
    calls: list[str] = []
    clock.call_at(NS, lambda: calls.append("cancelled")).cancel()
    fired = clock.call_at(NS, lambda: calls.append("fired"))
    clock.advance(1)
    fired.cancel()
    assert calls == ["fired"]


async def test_the_system_clock_calls_back_on_the_loop() -> None:
    """What is due, or overdue, is called in the running loop, after this step of it."""
    clock = SystemClock()
    fired = asyncio.Event()
    clock.call_at(clock.monotonic_ns() - NS, fired.set)
    assert not fired.is_set()
    await fired.wait()
    assert clock.time() > 1_700_000_000
