"""Contract of ports.StateStore."""

from __future__ import annotations

from rtb.ports import StateStore
from tests.contract.support import StateUnderTest


async def profiles(state: StateStore, *user_ids: str) -> list[bytes | None]:
    """The cached profile of each."""
    return [user.profile for user in await state.get_users(user_ids)]


async def frequencies(state: StateStore, *user_ids: str) -> list[dict[str, int]]:
    """The impressions counted for each."""
    return [dict(user.frequency) for user in await state.get_users(user_ids)]


async def test_profiles_come_in_the_order_asked(state: StateStore, prefix: str) -> None:
    """A cached profile comes back byte for byte, None where there is none, twice for a user asked twice."""
    a, b = f"{prefix}.a", f"{prefix}.b"
    await state.put_profiles({a: b"\x00one", b: b"two"}, 3_600)
    assert await profiles(state, b, f"{prefix}.c", a, b) == [b"two", None, b"\x00one", b"two"]
    assert await state.get_users([]) == []


async def test_a_profile_is_replaced(state: StateStore, prefix: str) -> None:
    """The last one written counts."""
    await state.put_profiles({prefix: b"old"}, 3_600)
    await state.put_profiles({prefix: b"new"}, 3_600)
    assert await profiles(state, prefix) == [b"new"]


async def test_a_profile_expires(state_under_test: StateUnderTest, prefix: str) -> None:
    """After its time to live a profile is not cached any more; one with more time still is."""
    state = state_under_test.store
    await state.put_profiles({f"{prefix}.short": b"1"}, 1_000)
    await state.put_profiles({f"{prefix}.long": b"2"}, 3_600)
    await state_under_test.pass_time(1_000)
    assert await profiles(state, f"{prefix}.short", f"{prefix}.long") == [None, b"2"]


async def test_impressions_are_counted_a_user_and_campaign(state: StateStore, prefix: str) -> None:
    """Counts add up within a call and over calls, and do not leak to other users."""
    a, b = f"{prefix}.a", f"{prefix}.b"
    await state.count_impressions([(a, "x", 3_600), (a, "y", 3_600), (b, "x", 3_600), (a, "x", 3_600)])
    await state.count_impressions([(a, "x", 3_600)])
    assert await frequencies(state, b, a, f"{prefix}.c") == [{"x": 1}, {"x": 3, "y": 1}, {}]


async def test_a_window_ends_after_its_first_count(state_under_test: StateUnderTest, prefix: str) -> None:
    """The window starts with its first count, later ones do not prolong it; the next count starts a new one."""
    state, pass_time = state_under_test.store, state_under_test.pass_time
    await state.count_impressions([(prefix, "short", 2_000), (prefix, "long", 3_600)])
    await pass_time(1_000)
    await state.count_impressions([(prefix, "short", 2_000)])
    await pass_time(1_000)
    assert await frequencies(state, prefix) == [{"long": 1}]
    await state.count_impressions([(prefix, "short", 3_600)])
    assert await frequencies(state, prefix) == [{"short": 1, "long": 1}]


async def test_the_windows_of_one_campaign_run_beside_each_other(state_under_test: StateUnderTest, prefix: str) -> None:
    """One impression counts in all of them; the short one ends, the others go on, a lifetime of 400 days as well."""
    state = state_under_test.store
    windows = [(prefix, f"c/{seconds}", seconds) for seconds in (1_000, 3_600, 400 * 86_400)]
    await state.count_impressions(windows)
    await state.count_impressions(windows)
    assert await frequencies(state, prefix) == [{"c/1000": 2, "c/3600": 2, "c/34560000": 2}]
    await state_under_test.pass_time(1_000)
    assert await frequencies(state, prefix) == [{"c/3600": 2, "c/34560000": 2}]


async def test_what_was_read_is_a_snapshot(state: StateStore, prefix: str) -> None:
    """Later counts do not change what a reader holds."""
    await state.count_impressions([(prefix, "x", 3_600)])
    (before,) = await state.get_users([prefix])
    await state.count_impressions([(prefix, "x", 3_600)])
    assert dict(before.frequency) == {"x": 1}


async def test_profile_and_counters_come_together(state: StateStore, prefix: str) -> None:
    """Whatever the names look like: both are of the user who was asked for."""
    users = [f"{prefix} {name}" for name in ("plain", "{tag}", "a{", "}b", "ü\u20ac", "x\r\ny", "{}")]
    await state.put_profiles({user: user.encode() for user in users}, 3_600)
    await state.count_impressions([(user, f'c"{n}\\/é', 3_600) for n, user in enumerate(users)])
    assert await profiles(state, *users) == [user.encode() for user in users]
    assert await frequencies(state, *users) == [{f'c"{n}\\/é': 1} for n in range(len(users))]


async def test_a_batch_of_counts_counts_once(state: StateStore, prefix: str) -> None:
    """Repeated under its own id, as after a lost reply, it changes nothing; the next batch and one without an id do."""
    counts = [(f"{prefix}.{user}", "x", 3_600) for user in "abca"]
    for batch in ("1", "1", "2", "1"):
        await state.count_impressions(counts, f"{prefix}.{batch}")
    await state.count_impressions(counts)
    await state.count_impressions([], f"{prefix}.3")
    assert await frequencies(state, *(f"{prefix}.{user}" for user in "abc")) == [{"x": 6}, {"x": 3}, {"x": 3}]


async def test_a_user_keeps_many_counters(state: StateStore, prefix: str) -> None:
    """At least 256 campaigns; of more, those whose windows end first are forgotten."""
    await state.count_impressions([(prefix, f"c{n}", 3_600 + n) for n in range(300)])
    (counted,) = await frequencies(state, prefix)
    assert counted == {f"c{n}": 1 for n in range(44, 300)}


async def test_a_key_is_seen_by_the_others(state: StateStore, prefix: str) -> None:
    """The first claim is new, its owner's repetition still is, another's is not; each key is its own."""
    a, b = f"{prefix}.a", f"{prefix}.b"
    assert await state.seen([(a, "e1"), (b, "e1"), (a, "e2"), (a, "e1")], 3_600) == [False, False, True, False]
    assert await state.seen([(b, "e1"), (a, "e3")], 3_600) == [False, True]
    assert await state.seen([], 3_600) == []


async def test_a_claim_ends_with_its_time(state_under_test: StateUnderTest, prefix: str) -> None:
    """Its own time, not prolonged by who asks again; then the key is free."""
    state = state_under_test.store
    assert await state.seen([(prefix, "e1")], 2_000) == [False]
    await state_under_test.pass_time(1_000)
    assert await state.seen([(prefix, "e1"), (prefix, "e2")], 2_000) == [False, True]
    await state_under_test.pass_time(1_000)
    assert await state.seen([(prefix, "e2")], 2_000) == [False]


async def test_sessions_that_ended_are_known_to_all(state: StateStore, prefix: str) -> None:
    """Until they would have ended by themselves, which is looked at when the next one does; a repetition changes
    nothing."""
    short, long, last = (f"{prefix}.{name}" for name in ("short", "long", "last"))

    async def ended() -> dict[str, int]:
        return {session: end for session, end in (await state.ended_sessions()).items() if session.startswith(prefix)}

    assert await ended() == {}
    for session, expires in ((short, 100), (long, 4_000_000_000), (short, 100)):
        await state.end_session(session, expires, 99.5)
    assert await ended() == {short: 100, long: 4_000_000_000}
    await state.end_session(last, 200, 100.0)
    assert await ended() == {long: 4_000_000_000, last: 200}


async def test_announcements_reach_who_listens(state_under_test: StateUnderTest, prefix: str) -> None:
    """Every one, with the request it is about; what was announced before close is published."""
    wanted = [(f"{prefix}.{n % 3}", f"\x00result {n}".encode()) for n in range(1_200)]
    async with state_under_test.listen(prefix) as heard:
        for request_id, body in wanted:
            state_under_test.store.announce(request_id, body)
        assert sorted([await heard.get() for _ in wanted]) == sorted(wanted)
        state_under_test.store.announce(f"{prefix}.last", b"1")
        await state_under_test.store.close()
        assert await heard.get() == (f"{prefix}.last", b"1")
    assert state_under_test.store.dropped == 0
    assert state_under_test.store.connected
