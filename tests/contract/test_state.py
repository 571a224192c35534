"""Contract of ports.StateStore."""

from __future__ import annotations

from rtb.ports import StateStore
from tests.contract.support import StateUnderTest


async def test_profiles_come_in_the_order_asked(state: StateStore, prefix: str) -> None:
    """A cached profile comes back byte for byte, None where there is none, twice for a user asked twice."""
    a, b = f"{prefix}.a", f"{prefix}.b"
    await state.put_profiles({a: b"\x00one", b: b"two"}, 3_600)
    assert await state.get_profiles([b, f"{prefix}.c", a, b]) == [b"two", None, b"\x00one", b"two"]
    assert await state.get_profiles([]) == []


async def test_a_profile_is_replaced(state: StateStore, prefix: str) -> None:
    """The last one written counts."""
    await state.put_profiles({prefix: b"old"}, 3_600)
    await state.put_profiles({prefix: b"new"}, 3_600)
    assert await state.get_profiles([prefix]) == [b"new"]


async def test_a_profile_expires(state_under_test: StateUnderTest, prefix: str) -> None:
    """After its time to live a profile is not cached any more; one with more time still is."""
    state = state_under_test.store
    await state.put_profiles({f"{prefix}.short": b"1"}, 1)
    await state.put_profiles({f"{prefix}.long": b"2"}, 3_600)
    await state_under_test.pass_time(1.1)
    assert await state.get_profiles([f"{prefix}.short", f"{prefix}.long"]) == [None, b"2"]


async def test_impressions_are_counted_a_user_and_campaign(state: StateStore, prefix: str) -> None:
    """Counts add up within a call and over calls, and do not leak to other users."""
    a, b = f"{prefix}.a", f"{prefix}.b"
    await state.count_impressions([(a, "x", 3_600), (a, "y", 3_600), (b, "x", 3_600), (a, "x", 3_600)])
    await state.count_impressions([(a, "x", 3_600)])
    counts = await state.get_frequencies([b, a, f"{prefix}.c"])
    assert [dict(count) for count in counts] == [{"x": 1}, {"x": 3, "y": 1}, {}]


async def test_a_window_ends_after_its_first_count(state_under_test: StateUnderTest, prefix: str) -> None:
    """The window starts with its first count, later ones do not prolong it; the next count starts a new one."""
    state, pass_time = state_under_test.store, state_under_test.pass_time
    await state.count_impressions([(prefix, "short", 2), (prefix, "long", 3_600)])
    await pass_time(1)
    await state.count_impressions([(prefix, "short", 2)])
    await pass_time(1.1)
    assert dict((await state.get_frequencies([prefix]))[0]) == {"long": 1}
    await state.count_impressions([(prefix, "short", 3_600)])
    assert dict((await state.get_frequencies([prefix]))[0]) == {"short": 1, "long": 1}


async def test_what_was_read_is_a_snapshot(state: StateStore, prefix: str) -> None:
    """Later counts do not change what a reader holds."""
    await state.count_impressions([(prefix, "x", 3_600)])
    (before,) = await state.get_frequencies([prefix])
    await state.count_impressions([(prefix, "x", 3_600)])
    assert dict(before) == {"x": 1}
