"""Requests of one step of the loop, worked on together: order, failures, how many at a time."""

from __future__ import annotations

import asyncio

from rtb.adapters.clock import ManualClock
from rtb.edges.together import LONGEST_NS, MOST, Together


class Bench:
    """Two stages that write down what they are given. "stop" ends with the first, "bad" fails in it; a number is the
    milliseconds that it takes there."""

    def __init__(self, room: int = 1_000) -> None:
        self.clock = ManualClock()
        self.done: list[str] = []
        self.failed: list[tuple[str, str]] = []
        self.together = Together(
            (self.first, self.second),
            lambda item, error: self.failed.append((item, str(error))),
            lambda: room,
            self.clock,
        )

    def first(self, item: str) -> bool:
        self.done.append(f"first {item}")
        if item == "bad":
            raise ValueError("why")
        if item.isdigit():
            self.clock.advance(int(item) / 1_000)
        return item != "stop"

    def second(self, item: str) -> bool:
        self.done.append(f"second {item}")
        return True

    def fail(self, item: str, error: Exception) -> None:
        self.failed.append((item, str(error)))

    async def work(self, *items: str) -> str:
        """What was done with them: "f" and "s" for each item in each stage."""
        self.done.clear()
        for item in items:
            self.together.add(item)
        assert self.done == []
        await asyncio.sleep(0)
        return "".join(line[0] for line in self.done)


async def test_how_many_go_together_grows_while_they_are_quick() -> None:
    """One, two, four ... up to 64; those beyond follow in the same step."""
    bench = Bench()
    assert await bench.work(*"abcdefg") == "fs" + "ffss" + "ffffssss"
    assert bench.done[2:6] == ["first b", "first c", "second b", "second c"]
    for _ in range(4):
        await bench.work(*("x" * MOST))
    assert await bench.work(*("x" * (MOST + 1))) == "f" * MOST + "s" * MOST + "fs"


async def test_fewer_go_together_when_they_take_long() -> None:
    """Half as many after a group that took more than 10 ms, one by one in the end; a pause is soon forgotten."""
    bench = Bench()
    await bench.work(*"abcdefg")
    slow = str(LONGEST_NS // 1_000_000 + 1)
    assert await bench.work(slow, *"abcdefg", slow, *"abc") == "f" * 8 + "s" * 8 + "ffffssss"
    assert await bench.work(slow, "b", slow, slow, "c", "d") == "ffss" + "fs" * 4


async def test_who_fails_or_is_done_leaves_the_others() -> None:
    """What fails is told with its reason; neither has a second stage."""
    bench = Bench()
    await bench.work(*"abc")
    assert await bench.work("bad", "a", "stop", "b") == "ffff" + "ss"
    assert bench.failed == [("bad", "why")]


async def test_no_more_go_together_than_there_is_room_for() -> None:
    """One always does: it is told that there is none."""
    assert await Bench(room=2).work(*"abcdef") == "fs" + "ffss" * 2 + "fs"
    assert await Bench(room=-1).work(*"abc") == "fs" * 3


async def test_who_waited_goes_on_through_the_stages_that_are_left() -> None:
    """Until one of them ends it."""
    bench = Bench()
    bench.together.go_on("late", (bench.second,))
    bench.together.go_on("stop", (bench.first, bench.second))
    assert bench.done == ["second late", "first stop"]
