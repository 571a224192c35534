"""The gate of a source: places, spacing, and leaving the source alone when it asks for it."""

from __future__ import annotations

import asyncio

import pytest

from rtb.adapters.clock import ManualClock
from rtb.ports.metric_source import SourceError
from rtb.services.request_gate import Gate


class Bench:
    """A gate whose waiting moves the clock."""

    def __init__(self, *, places: int = 100, **more: float) -> None:
        self.clock = ManualClock()
        self.began_s = self.now_s
        self.overall = asyncio.Semaphore(places)
        self.gate = self.make(**more)
        self.passed: list[float] = []

    @property
    def now_s(self) -> float:
        return self.clock.monotonic_ns() / 1e9

    def make(self, *, in_flight: int = 100, per_second: float = 1e9, patience_s: float = 5.0) -> Gate:
        return Gate(
            self.clock,
            self.overall,
            in_flight=in_flight,
            per_second=per_second,
            patience_s=patience_s,
            sleep=self.sleep,
        )

    async def sleep(self, seconds: float) -> None:
        self.clock.advance(seconds)

    async def request(self) -> None:
        """Pass, and be over at once."""
        async with self.gate.passage():
            self.passed.append(round(self.now_s - self.began_s, 6))


async def test_requests_are_spaced() -> None:
    """Four a second: a quarter of a second apart."""
    bench = Bench(per_second=4)
    for _ in range(4):
        await bench.request()
    assert bench.passed == [0.0, 0.25, 0.5, 0.75]


async def test_a_pause_is_not_saved_up() -> None:
    """After ten seconds without requests they are as far apart as ever."""
    bench = Bench(per_second=4)
    await bench.request()
    bench.clock.advance(10)
    await bench.request()
    await bench.request()
    assert bench.passed == [0.0, 10.0, 10.25]


async def test_who_would_wait_too_long_is_sent_away() -> None:
    """One a second and two seconds of patience: the fourth of those who come at once is told when to come."""
    bench = Bench(per_second=1, patience_s=2.0)
    waiting: list[asyncio.Future[None]] = []

    async def stand(seconds: float) -> None:
        waiting.append(asyncio.get_running_loop().create_future())
        await waiting[-1]

    bench.sleep = stand  # type: ignore[method-assign]
    bench.gate = bench.make(per_second=1, patience_s=2.0)
    tasks = [asyncio.create_task(bench.request()) for _ in range(4)]
    with pytest.raises(SourceError, match="more requests than the rate limit allows; the next turn is in 3 s"):
        await tasks[3]
    for turn in waiting:
        turn.set_result(None)
    await asyncio.gather(*tasks[:3])
    assert len(bench.passed) == 3


async def test_places_are_kept_until_the_end() -> None:
    """At most two of this source and three of all at once; each that ends lets the next one in."""
    bench = Bench(places=3, in_flight=2)
    other = bench.make(in_flight=2)
    inside: list[str] = []
    most = {"one": 0, "other": 0, "all": 0}
    end = asyncio.Semaphore(0)

    async def request(name: str, gate: Gate) -> None:
        async with gate.passage():
            inside.append(name)
            most[name] = max(most[name], inside.count(name))
            most["all"] = max(most["all"], len(inside))
            await end.acquire()
            inside.remove(name)

    async with asyncio.TaskGroup() as group:
        for _ in range(5):
            group.create_task(request("one", bench.gate))
            group.create_task(request("other", other))
        for _ in range(10):
            for _ in range(5):
                await asyncio.sleep(0)
            end.release()
    assert most == {"one": 2, "other": 2, "all": 3}


async def test_a_short_hold_is_waited_out() -> None:
    """Within the patience."""
    bench = Bench()
    bench.gate.hold_off(3, "HTTP 503")
    await bench.request()
    assert bench.passed == [3.0]


async def test_a_long_hold_is_refused_at_once() -> None:
    """With the reason and the time left; a shorter hold does not end it."""
    bench = Bench()
    bench.gate.hold_off(60, "Limit reached (code 17)")
    bench.gate.hold_off(1, "another")
    bench.clock.advance(10)
    with pytest.raises(SourceError, match=r"^Limit reached \(code 17\); nothing is asked for another 50 s$"):
        await bench.request()
    bench.clock.advance(50)
    await bench.request()
    assert bench.passed == [60.0]


async def test_a_hold_counts_for_those_who_wait_already() -> None:
    """Whoever stood in line when the source asked for quiet does not ask either, and gives back the place."""
    bench = Bench(in_flight=1)
    async with bench.gate.passage():
        waiting = asyncio.create_task(bench.request())
        await asyncio.sleep(0)
        bench.gate.hold_off(60, "quiet")
    with pytest.raises(SourceError, match=r"^quiet"):
        await waiting
    bench.clock.advance(60)
    await bench.request()
    assert bench.passed == [60.0]


async def test_a_hold_counts_for_those_who_wait_for_a_shared_place() -> None:
    """Also for whoever had his turn and waits only until another source leaves."""
    bench = Bench(places=1)
    async with bench.make().passage():
        waiting = asyncio.create_task(bench.request())
        for _ in range(5):
            await asyncio.sleep(0)
        bench.gate.hold_off(60, "quiet")
    with pytest.raises(SourceError, match=r"^quiet"):
        await waiting
    assert bench.passed == []


async def test_no_hold_is_for_ever() -> None:
    """A source that asks for a year is asked again after a day."""
    bench = Bench()
    bench.gate.hold_off(1e9, "go away")
    assert bench.gate.held_s == 86_400
