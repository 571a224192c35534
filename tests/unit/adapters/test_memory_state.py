"""rtb.adapters.memory_state: bounds and windows, on a clock that is advanced."""

from __future__ import annotations

from rtb.adapters.clock import ManualClock
from rtb.adapters.memory_state import MemoryState


async def cached(state: MemoryState, user_ids: list[str]) -> list[bytes | None]:
    """The profile of each user."""
    return [user.profile for user in await state.get_users(user_ids)]


async def seen(state: MemoryState, *user_ids: str) -> list[dict[str, int]]:
    """The counts of each user."""
    return [dict(user.frequency) for user in await state.get_users(user_ids)]


async def test_the_profile_used_longest_ago_is_forgotten_first() -> None:
    """Reading counts as use; the bound is exact."""
    state = MemoryState(ManualClock(), max_profiles=2)
    await state.put_profiles({"a": b"1", "b": b"2"}, 60)
    await cached(state, ["a"])
    await state.put_profiles({"c": b"3"}, 60)
    assert await cached(state, ["a", "b", "c"]) == [b"1", None, b"3"]


async def test_a_profile_lives_exactly_its_time() -> None:
    """There just before, gone at its end; writing it again starts anew."""
    clock = ManualClock()
    state = MemoryState(clock)
    await state.put_profiles({"a": b"1"}, 2.5)
    clock.advance(2.499)
    assert await cached(state, ["a"]) == [b"1"]
    await state.put_profiles({"b": b"2"}, 2.5)
    clock.advance(0.001)
    assert await cached(state, ["a", "b"]) == [None, b"2"]


async def test_a_window_starts_with_its_first_count() -> None:
    """Counts at 0 s and 9 s of a 10 s window end together at 10 s; the count at 10 s is the first of the next."""
    clock = ManualClock()
    state = MemoryState(clock)
    await state.count_impressions([("u", "c", 10)])
    clock.advance(9)
    await state.count_impressions([("u", "c", 10)])
    clock.advance(0.999)
    assert await seen(state, "u") == [{"c": 2}]
    clock.advance(0.001)
    assert await seen(state, "u") == [{}]
    await state.count_impressions([("u", "c", 10)])
    clock.advance(9.999)
    assert await seen(state, "u") == [{"c": 1}]


async def test_setting_the_wall_clock_changes_no_window() -> None:
    """An hour back or forth neither ends nor prolongs a window."""
    clock = ManualClock()
    state = MemoryState(clock)
    await state.count_impressions([("u", "c", 10)])
    clock.step(3_600)
    assert await seen(state, "u") == [{"c": 1}]
    clock.step(-7_200)
    clock.advance(10)
    assert await seen(state, "u") == [{}]


async def test_the_user_counted_longest_ago_is_forgotten_first() -> None:
    """Over max_users, counters go; counting is use, reading is not."""
    state = MemoryState(ManualClock(), max_users=2)
    await state.count_impressions([("a", "c", 60), ("b", "c", 60), ("a", "c", 60)])
    await seen(state, "b")
    await state.count_impressions([("d", "c", 60)])
    assert await seen(state, "a", "b", "d") == [{"c": 2}, {}, {"c": 1}]


async def test_users_whose_windows_ended_make_room() -> None:
    """Users who do not return are let go before the bound is reached: two of them for each new one."""
    clock = ManualClock()
    state = MemoryState(clock, max_users=1_000)
    await state.count_impressions([(f"old-{n}", "c", 10) for n in range(100)])
    clock.advance(10)
    await state.count_impressions([(f"new-{n}", "c", 10) for n in range(50)])
    assert len(state._users) == 50
    assert await seen(state, "new-0", "new-49") == [{"c": 1}, {"c": 1}]


async def test_counters_of_a_user_are_bounded() -> None:
    """Over max_counters the ended windows go, and where none has ended the one that ends first."""
    clock = ManualClock()
    state = MemoryState(clock, max_counters=3)
    await state.count_impressions([("u", "a", 100), ("u", "b", 50), ("u", "c", 200), ("u", "d", 300)])
    assert await seen(state, "u") == [{"a": 1, "c": 1, "d": 1}]
    clock.advance(200)
    await state.count_impressions([("u", "e", 10)])
    assert await seen(state, "u") == [{"d": 1, "e": 1}]
    assert len(state._users["u"]) == 2


async def test_closing_lets_go() -> None:
    """Nothing is left."""
    state = MemoryState(ManualClock())
    await state.put_profiles({"a": b"1"}, 60)
    await state.count_impressions([("u", "c", 60)])
    await state.close()
    assert await cached(state, ["a"]) == [None]
    assert await seen(state, "u") == [{}]


async def test_claims_are_bounded() -> None:
    """The oldest claim makes room, and can be claimed again."""
    state = MemoryState(ManualClock(), max_claims=2)
    assert await state.seen([("a", "x"), ("b", "x"), ("c", "x")], 60) == [False, False, False]
    assert await state.seen([("c", "y"), ("b", "y"), ("a", "y")], 60) == [True, True, False]


async def test_a_batch_is_remembered_for_a_minute() -> None:
    """The same counts under the same id count once within it, and again after it."""
    clock = ManualClock()
    state = MemoryState(clock)
    for _ in range(2):
        await state.count_impressions([("u", "c", 600)], "batch")
    assert await seen(state, "u") == [{"c": 1}]
    clock.advance(60)
    await state.count_impressions([("u", "c", 600)], "batch")
    assert await seen(state, "u") == [{"c": 2}]
