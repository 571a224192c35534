"""What is kept of campaigns: an hour of those that were active last, and no more."""

from __future__ import annotations

import asyncio

from dashboard.trails import EVERY_S, KEPT, CampaignPoint, Trails
from rtb.adapters.clock import ManualClock
from rtb.services.frame_source import FrameSource
from rtb.services.metrics import Metrics


class Kept:
    """Trails of campaigns that a test plays, over a real source."""

    def __init__(self, most: int = 1_000) -> None:
        self.clock = ManualClock()
        self.source = FrameSource(Metrics("a", self.clock), self.clock)
        self.active: list[str] = []
        self.figures: dict[str, tuple[float, float | None, int]] = {}
        self.trails = Trails(lambda count: self.active[:count], self.figures.get, most=most)
        self.end = self.trails.start(self.source)

    def tick(self, seconds: float = 1.0) -> float:
        """So much later; when that is."""
        self.clock.advance(seconds)
        self.source.tick()
        return self.clock.time()


async def test_a_point_is_kept_every_ten_seconds_for_an_hour() -> None:
    """However often the source ticks; after an hour each new one takes the place of the oldest, in order."""
    kept = Kept()
    kept.active = ["a"]
    times = []
    for n in range(10 * KEPT + 35):
        kept.figures["a"] = (n / 2, None if n % 20 else float(n), n)
        now = kept.tick()
        if n % EVERY_S == 0:
            times.append((now, n))
    assert len(times) == KEPT + 4
    assert kept.trails.of("a", 0) == [
        CampaignPoint(now, n / 2, None if n % 20 else float(n), n) for now, n in times[-KEPT:]
    ]
    last, _ = times[-1]
    assert [point.time for point in kept.trails.of("a", last - 20, last)] == [last - 10]
    kept.end()
    kept.tick(10)
    assert kept.trails.of("a", last) == []


async def test_only_so_many_have_a_trail() -> None:
    """Those that were active last; one that is gone, or was not looked at for an hour, is forgotten."""
    kept = Kept(most=2)
    for name in ("a", "b", "c", "d"):
        kept.figures[name] = (1.0, None, 1)
    kept.active = ["a", "b", "c"]
    first = kept.tick()
    assert [[p.time for p in kept.trails.of(name, 0)] for name in "abc"] == [[first], [first], []]
    kept.active = ["c", "b", "a"]
    second = kept.tick(10)
    assert [[p.time for p in kept.trails.of(name, 0)] for name in "abc"] == [[], [first, second], [second]]
    del kept.figures["b"]
    kept.tick(10)
    assert kept.trails.of("b", 0) == []
    kept.active = ["d"]
    third = kept.tick(3_600)
    assert [[p.time for p in kept.trails.of(name, 0)] for name in "cd"] == [[second, second + 10], [third]]
    kept.tick(20)
    assert kept.trails.of("c", 0) == []


async def test_many_are_looked_at_a_few_at_a_time() -> None:
    """All of them have the moment of the same second."""
    kept = Kept()
    kept.active = [f"c{n}" for n in range(100)]
    looked = asyncio.Event()

    class Figures(dict[str, tuple[float, float | None, int]]):
        def get(self, name: str, default: object = None) -> tuple[float, float | None, int]:  # type: ignore[override]
            if name == "c99":
                looked.set()
            return 1.0, None, 1

    kept.trails = Trails(lambda count: kept.active, Figures().get)
    kept.trails.start(kept.source)
    now = kept.tick()
    assert kept.trails.of("c99", 0) == []
    await asyncio.wait_for(looked.wait(), 30)
    assert {point.time for name in kept.active for point in kept.trails.of(name, 0)} == {now}
    assert len(kept.trails.of("c99", 0)) == 1
