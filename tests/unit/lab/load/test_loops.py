"""Open and closed loops on a clock of the test's own."""

from __future__ import annotations

from collections import deque
from itertools import islice, pairwise

import pytest

from rtb.lab.load.loops import ClosedLoop, Loop, OpenLoop, constant, poisson
from rtb.lab.load.tally import Outcome

MS = 1_000_000
FOREVER_NS = 1 << 62


class Connections:
    """A target with room for some requests; the test answers them, oldest first."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.sent: deque[int] = deque()
        self.now_ns = 0
        self.loop: Loop

    def clock_ns(self) -> int:
        return self.now_ns

    def send(self, intended_ns: int, now_ns: int) -> bool:
        if len(self.sent) >= self.room:
            return False
        self.sent.append(intended_ns)
        return True

    def sweep(self, now_ns: int) -> None:
        """This target never gives up."""

    def answer(self, at_ns: int, outcome: Outcome = Outcome.WON, reason: str = "") -> None:
        self.now_ns = at_ns
        self.loop.over(self.sent.popleft(), outcome, reason, at_ns)


def open_loop(
    target: Connections, rate: float, end_ns: int, *, measure_from_ns: int = 0, give_up_ns: int = FOREVER_NS
) -> OpenLoop:
    """An open loop at a constant rate from 0."""
    loop = OpenLoop(target, target.clock_ns, measure_from_ns, constant(rate, 0, end_ns), give_up_ns)
    target.loop = loop
    return loop


def tick_at(loop: OpenLoop, target: Connections, at_ns: int) -> int | None:
    """Tick at a time."""
    target.now_ns = at_ns
    return loop.tick()


def test_constant_times_are_evenly_spaced() -> None:
    """Four a second from 10 ns on are at quarters of a second, up to but without the end."""
    assert list(constant(4, 10, 1_000_000_010)) == [10, 250_000_010, 500_000_010, 750_000_010]


def test_constant_times_do_not_drift() -> None:
    """Three a second come out as 3,000 in 1,000 s, the last one where arithmetic puts it."""
    times = list(constant(3, 0, 1000 * 10**9))
    assert len(times) == 3000
    assert times[-1] == int(2999 / 3 * 1e9)


def test_poisson_times_have_the_rate_and_exponential_gaps() -> None:
    """The mean gap is 1 / rate, and 1 / e = 36.8 % of the gaps are longer than the mean."""
    times = list(islice(poisson(1000, 0, FOREVER_NS, seed=5), 20_000))
    gaps = [b - a for a, b in pairwise(times)]
    assert sum(gaps) / len(gaps) == pytest.approx(1 * MS, rel=0.03)
    assert sum(gap > MS for gap in gaps) / len(gaps) == pytest.approx(0.368, abs=0.02)
    assert times == list(islice(poisson(1000, 0, FOREVER_NS, seed=5), 20_000))


def test_a_stall_shows_in_every_latency_it_delays() -> None:
    """Requests due at 0, 100, 200, 300 ms meet a server that stalls until 350 ms and then answers each in 1 ms, on one
    connection. Counting from the intended times they took 350, 251, 152 and 53 ms; counting from the actual sending,
    three of the four would look like 1 ms."""
    target = Connections(room=1)
    loop = open_loop(target, 10, 400 * MS)
    for at_ms in (0, 100, 200, 300):
        tick_at(loop, target, at_ms * MS)
    assert loop.waiting == 3
    for at_ms in (350, 351, 352, 353):
        target.answer(at_ms * MS)
    assert loop.finished
    assert loop.tally.balances
    assert loop.tally.latencies_us == {350_000: 1, 251_000: 1, 152_000: 1, 53_000: 1}


def test_the_tools_own_lateness_is_latency_and_lag() -> None:
    """A tick 30 ms late sends late; the answer's latency includes it, and the lag tells whose fault it was."""
    target = Connections(room=1)
    loop = open_loop(target, 10, 100 * MS)
    assert tick_at(loop, target, 30 * MS) is None
    target.answer(31 * MS)
    assert loop.tally.balances
    assert loop.tally.latencies_us == {31_000: 1}
    assert loop.tally.lags_us == {30_000: 1}


def test_waiting_for_a_connection_is_not_the_tools_lag() -> None:
    """What was noticed in time and found no free connection has no lag, however long it waits."""
    target = Connections(room=1)
    loop = open_loop(target, 10, 200 * MS)
    tick_at(loop, target, 0)
    tick_at(loop, target, 100 * MS)
    target.answer(900 * MS)
    target.answer(901 * MS)
    assert loop.tally.lags_us == {0: 2}


def test_tick_says_when_the_next_request_is_due() -> None:
    """It is called again at the next intended time, and not after the last."""
    target = Connections(room=9)
    loop = open_loop(target, 10, 300 * MS)
    assert tick_at(loop, target, 0) == 100 * MS
    assert tick_at(loop, target, 100 * MS) == 200 * MS
    assert tick_at(loop, target, 200 * MS) is None
    assert not loop.finished


def test_warm_up_is_not_counted() -> None:
    """Requests due before the measured part are sent and answered, but stand in no figure, even when answered in it."""
    target = Connections(room=9)
    loop = open_loop(target, 10, 400 * MS, measure_from_ns=200 * MS)
    tick_at(loop, target, 300 * MS)
    for _ in range(4):
        target.answer(350 * MS)
    assert loop.answers == 4
    assert loop.tally.sent == 2
    assert loop.tally.balances
    assert loop.tally.latencies_us == {150_000: 1, 50_000: 1}


def test_a_line_that_waits_too_long_is_lost() -> None:
    """With one connection that never answers, the others are given up after a second, each from its own time."""
    target = Connections(room=1)
    loop = open_loop(target, 2, 1500 * MS, give_up_ns=1000 * MS)
    for at_ms in (0, 500, 1000):
        tick_at(loop, target, at_ms * MS)
    target.now_ns = 1600 * MS
    loop.sweep()
    assert loop.tally.reasons == {"never sent": 1}
    target.now_ns = 2100 * MS
    loop.sweep()
    assert loop.tally.counts[Outcome.LOST] == 2
    target.answer(2200 * MS)
    assert loop.finished
    assert loop.tally.balances
    assert loop.tally.sent == 3


def test_the_line_keeps_its_order() -> None:
    """What came first is sent first, also when a connection becomes free as another request is due."""
    target = Connections(room=1)
    loop = open_loop(target, 10, 300 * MS)
    for at_ms in (0, 100):
        tick_at(loop, target, at_ms * MS)
    target.room = 2
    tick_at(loop, target, 200 * MS)
    loop.sweep()
    assert list(target.sent) == [0, 100 * MS]


def test_a_closed_loop_keeps_every_connection_busy_until_the_end() -> None:
    """Each answer is followed by a request; after the end answers are still awaited, and none is sent."""
    target = Connections(room=2)
    loop = ClosedLoop(target, target.clock_ns, 0, 100 * MS)
    target.loop = loop
    loop.sweep()
    assert len(target.sent) == 2
    target.answer(50 * MS)
    assert list(target.sent) == [0, 50 * MS]
    target.answer(120 * MS)
    assert not loop.finished
    target.answer(130 * MS, Outcome.LOST, "unanswered")
    assert loop.finished
    assert loop.tally.sent == 3
    assert loop.tally.balances
    assert loop.tally.latencies_us == {50_000: 1, 120_000: 1}
