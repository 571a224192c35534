"""Profile lookups: batches, coalescing, freshness, the bounded wait, failures, frequency counts."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio

from rtb.adapters.clock import ManualClock
from rtb.adapters.memory_state import MemoryState
from rtb.adapters.sql import SqlRepository
from rtb.domain import frequency
from rtb.domain import profile as profiles_
from rtb.domain.campaign import FrequencyCap, Per
from rtb.domain.frequency import OnUnknown
from rtb.domain.profile import Profile
from rtb.errors import StoreError
from rtb.ports import CachedUser
from rtb.services.metrics import Metrics
from rtb.services.profiles import UNKNOWN, Profiles, User
from tests.unit.parts import campaign

DAY_S = 86_400


class Gate(MemoryState):
    """The in-process store behind a gate: it notes what it is asked, and answers when the gate is open."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock)
        self.open = asyncio.Event()
        self.open.set()
        self.asked: list[list[str]] = []
        self.reached = asyncio.Event()
        self.error: Exception | None = None
        self.full = False

    async def get_users(self, user_ids: Sequence[str]) -> list[CachedUser]:
        """What is there when it is asked, told once it may."""
        self.asked.append(list(user_ids))
        found = await super().get_users(user_ids)
        self.reached.set()
        await self.open.wait()
        if self.error is not None:
            raise self.error
        return found

    async def count_impressions(self, counts: Sequence[tuple[str, str, int]], batch_id: str = "") -> None:
        """As the store, unless it cannot write."""
        if self.full:
            raise StoreError("out of memory")
        await super().count_impressions(counts, batch_id)

    async def put_profiles(self, profiles: Mapping[str, bytes], ttl_s: float) -> None:
        """As the store, unless it cannot write."""
        if self.full:
            raise StoreError("out of memory")
        await super().put_profiles(profiles, ttl_s)

    async def cached(self, user_id: str) -> bytes | None:
        """The profile as it is cached."""
        (user,) = await super().get_users([user_id])
        return user.profile

    async def counted(self, user_id: str) -> dict[str, int]:
        """The impressions as they are counted."""
        (user,) = await super().get_users([user_id])
        return dict(user.frequency)


class World:
    """A lookup service over a gate and a database."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = ManualClock()
        self.metrics = Metrics("test", self.clock)
        self.state = Gate(self.clock)
        self.repository = SqlRepository(str(path))
        self.profiles = self.service()

    def service(
        self,
        *,
        wait_s: float = 60.0,
        cached: int = 100,
        ttl_s: float = 3_600.0,
        on_unknown: OnUnknown = OnUnknown.BID,
    ) -> Profiles:
        """Profiles that are believed for 60 s."""
        self.profiles = Profiles(
            self.state,
            self.repository,
            self.clock,
            self.metrics,
            wait_s=wait_s,
            cached=cached,
            fresh_s=60.0,
            ttl_s=ttl_s,
            on_unknown=on_unknown,
        )
        return self.profiles

    def peek(self, user_id: str) -> User | None:
        return self.profiles.peek(user_id, self.clock.monotonic_ns())

    async def store(self, *user_ids: str) -> None:
        await self.repository.put_profiles([Profile(user_id, (f"{user_id}-likes",)) for user_id in user_ids])


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path / "rtb.db")
    await made.repository.start()
    yield made
    made.state.open.set()
    await made.profiles.close()
    await made.repository.close()


def likes(user: User) -> tuple[str, ...] | None:
    return None if user.profile is None else user.profile.interests


async def test_a_stored_profile_is_found_and_then_known(world: World) -> None:
    """The first time takes a lookup, after that it is there without waiting; hits and misses are counted."""
    await world.store("u")
    assert world.peek("u") is None
    assert likes(await world.profiles.get("u")) == ("u-likes",)
    known = world.peek("u")
    assert known is not None
    assert likes(known) == ("u-likes",)
    assert (world.metrics.profile_misses, world.metrics.profile_hits, world.metrics.profile_timeouts) == (1, 1, 0)


async def test_a_found_profile_is_written_back_to_the_state_store(world: World) -> None:
    """The next daemon that asks need not go to the database; for ttl_s."""
    await world.store("u")
    world.service(ttl_s=10.0)
    await world.profiles.get("u")
    assert await world.state.cached("u") == profiles_.encode(Profile("u", ("u-likes",)))
    world.clock.advance(10)
    assert await world.state.cached("u") is None


async def test_the_state_store_comes_before_the_database(world: World) -> None:
    """What is cached there is believed, without a look into the database."""
    await world.store("u")
    await world.state.put_profiles({"u": profiles_.encode(Profile("u", ("cached",)))}, 60)
    assert likes(await world.profiles.get("u")) == ("cached",)


async def test_a_cached_profile_that_cannot_be_read_is_looked_up_anew(world: World) -> None:
    """Garbage in the state store counts as absent, and is replaced."""
    await world.store("u")
    await world.state.put_profiles({"u": b"\xff garbage"}, 60)
    assert likes(await world.profiles.get("u")) == ("u-likes",)
    assert await world.state.cached("u") == profiles_.encode(Profile("u", ("u-likes",)))


async def test_an_absent_user_is_remembered_as_absent(world: World) -> None:
    """One lookup, then none until the memory of it is stale; then the profile that came meanwhile shows."""
    assert (await world.profiles.get("u")).profile is None
    await world.store("u")
    world.clock.advance(60)
    known = world.peek("u")
    assert known is not None
    assert known.profile is None
    world.clock.advance(0.001)
    assert world.peek("u") is None
    assert likes(await world.profiles.get("u")) == ("u-likes",)
    assert world.state.asked == [["u"], ["u"]]


async def test_one_user_asked_for_twice_is_one_lookup(world: World) -> None:
    """Both get the same answer."""
    await world.store("u")
    one, other = await asyncio.gather(world.profiles.get("u"), world.profiles.get("u"))
    assert one is other
    assert (world.state.asked, world.metrics.profile_misses) == ([["u"]], 1)


async def test_what_is_asked_during_a_lookup_travels_together(world: World) -> None:
    """One round trip at a time: those of one loop step are the first batch, all that come meanwhile the second."""
    await world.store(*"abcde")
    world.state.open.clear()
    first = [asyncio.ensure_future(world.profiles.get(user_id)) for user_id in "ab"]
    await world.state.reached.wait()
    later = []
    for user_id in "cdec":
        later.append(asyncio.ensure_future(world.profiles.get(user_id)))
        await asyncio.sleep(0)
    assert world.state.asked == [["a", "b"]]
    world.state.open.set()
    assert [likes(user) for user in await asyncio.gather(*first, *later)] == [(f"{name}-likes",) for name in "abcdec"]
    assert world.state.asked == [["a", "b"], ["c", "d", "e"]]


async def test_users_that_are_found_together_are_told_together(world: World) -> None:
    """In one step of the loop, and never before they have asked: auctions that wait for them can go on together."""
    await world.store(*"ab")
    told: list[str] = []
    loop, all_told = asyncio.get_running_loop(), asyncio.Event()

    def tell(name: str, user: User) -> None:
        told.append(f"{name} {likes(user)}")
        loop.call_soon(told.append, "a step later")
        if name == "c":
            all_told.set()

    for name in "abac":
        world.profiles.look_up(name, math.inf, partial(tell, name))
    assert told == []
    await all_told.wait()
    assert told[:4] == ["a ('a-likes',)", "a ('a-likes',)", "b ('b-likes',)", "c None"]


async def test_the_wait_is_bounded_and_the_late_answer_kept(world: World) -> None:
    """The auction goes on without the user; others do not wait during the lookup, but are looked up next."""
    await world.store("u", "v")
    profiles = world.service(wait_s=0.001)
    world.state.open.clear()
    assert await profiles.get("u") is profiles.unknown
    assert [world.peek(user_id) for user_id in "uvwv"] == [profiles.unknown] * 4
    assert (world.metrics.profile_timeouts, world.metrics.profile_misses, world.state.asked) == (5, 3, [["u"]])
    world.state.open.set()
    await profiles.close()
    assert world.state.asked == [["u"], ["v", "w"]]
    assert [likes(user) for user_id in "uvw" if (user := world.peek(user_id))] == [("u-likes",), ("v-likes",), None]


async def test_a_shorter_wait_can_be_asked_for(world: World) -> None:
    """An auction with less time left than the usual wait leaves early, and does not take the others along."""
    await world.store("u")
    world.state.open.clear()
    patient = asyncio.ensure_future(world.profiles.get("u"))
    assert await world.profiles.get("u", 0.0) == UNKNOWN
    assert await world.profiles.get("u", 0.001) == UNKNOWN
    world.state.open.set()
    assert likes(await patient) == ("u-likes",)
    assert world.metrics.profile_timeouts == 2


async def test_a_cancelled_waiter_does_not_harm_the_others(world: World) -> None:
    """The lookup goes on, for them and for later."""
    await world.store("u")
    world.state.open.clear()
    gone, stays = (asyncio.ensure_future(world.profiles.get("u")) for _ in range(2))
    await world.state.reached.wait()
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    world.state.open.set()
    assert likes(await stays) == ("u-likes",)
    assert world.peek("u") is not None


@pytest.mark.parametrize("error", [StoreError("the state store is away"), ZeroDivisionError("a bug")])
async def test_a_failing_store_is_an_unknown_user(world: World, error: Exception) -> None:
    """Whatever fails, the auction goes on without profile; a failure is not remembered: the next one asks again."""
    await world.store("u", "v")
    world.state.error = error
    assert [*await asyncio.gather(world.profiles.get("u"), world.profiles.get("v"))] == [UNKNOWN, UNKNOWN]
    assert world.metrics.profile_timeouts == 2
    world.state.error = None
    assert likes(await world.profiles.get("u")) == ("u-likes",)


async def test_a_store_that_failed_is_left_alone_for_a_while(world: World) -> None:
    """100 ms at first, twice as long each time, up to 1 s: nobody waits and nothing is asked. Then one lookup shows
    how it does, while the auctions go on; once it answers they wait for it again."""
    await world.store("u")
    world.state.error = StoreError("away")
    await world.profiles.get("u")
    for away_s in (0.1, 0.2, 0.4, 0.8, 1.0, 1.0):
        asked = len(world.state.asked)
        world.clock.advance(away_s - 0.001)
        assert [world.peek("u"), world.peek("v")] == [UNKNOWN, UNKNOWN]
        await world.profiles.close()
        assert len(world.state.asked) == asked
        world.clock.advance(0.001)
        assert [world.peek("u"), world.peek("u")] == [UNKNOWN, UNKNOWN]
        await world.profiles.close()
        assert len(world.state.asked) == asked + 1
    assert world.metrics.profile_timeouts == 1 + 6 * 4
    world.clock.advance(1.0)
    world.state.error = None
    assert world.peek("u") == UNKNOWN
    await world.profiles.close()
    known = world.peek("u")
    assert known is not None
    assert likes(known) == ("u-likes",)
    assert world.peek("v") is None


async def test_a_slow_database_does_not_hold_up_who_is_cached(world: World) -> None:
    """The lookup of an absent user hangs in the database; users of the state store are found meanwhile, and those who
    are not found there are not waited for."""

    class Slow(SqlRepository):
        opened, reached = asyncio.Event(), asyncio.Event()

        async def profiles(self, user_ids: Sequence[str]) -> list[Profile | None]:
            """As the database, once it may."""
            self.reached.set()
            await self.opened.wait()
            return await super().profiles(user_ids)

    await world.store("u", "v")
    await world.state.put_profiles({"c": profiles_.encode(Profile("c", ("c-likes",)))}, 60)
    await world.repository.close()
    slow = world.repository = Slow(str(world.path))
    await slow.start()
    profiles = world.service(wait_s=0.01)
    assert await profiles.get("u") == UNKNOWN
    assert await profiles.get("v") == UNKNOWN
    assert likes(await profiles.get("c")) == ("c-likes",)
    assert world.peek("u") == UNKNOWN
    slow.opened.set()
    await profiles.close()
    assert [likes(user) for user_id in "uv" if (user := world.peek(user_id))] == [("u-likes",), ("v-likes",)]


async def test_counters_hold_while_the_database_is_away(world: World) -> None:
    """They are in the state store: the auction goes on without the profile, but with the user's caps."""
    await world.state.count_impressions([("u", "c", DAY_S)])
    await world.repository.close()
    user = await world.profiles.get("u")
    assert (user.profile, dict(user.frequency)) == (None, {"c": 1})
    assert world.profiles.caps_unknown == 0


@pytest.mark.parametrize("policy", [OnUnknown.BID, OnUnknown.SKIP])
async def test_caps_without_counters_are_decided_by_a_policy(world: World, policy: OnUnknown) -> None:
    """A state store that is away: bid anyway, or skip whoever has a cap; every such decision is counted."""
    world.state.error = StoreError("away")
    profiles = world.service(on_unknown=policy)
    capped = campaign("c", frequency_caps=(FrequencyCap(2, per=Per.HOUR),))
    free = campaign("f")
    for user in (await profiles.get("u"), world.peek("u")):
        assert user is not None
        assert (frequency.capped(capped, user.frequency) is not None) is (policy is OnUnknown.SKIP)
        assert frequency.capped(free, user.frequency) is None
    assert profiles.caps_unknown == 2


async def test_other_daemons_learn_that_a_user_is_absent(world: World) -> None:
    """The state store remembers it as long as the process does, so the database is asked once."""
    await world.profiles.get("u")
    await world.profiles.close()
    await world.store("u")
    world.service()
    assert (await world.profiles.get("u")).profile is None
    world.clock.advance(60.001)
    assert likes(await world.profiles.get("u")) == ("u-likes",)


async def test_a_closed_database_is_an_unknown_user(world: World) -> None:
    """The repository's StoreError counts the same."""
    await world.repository.close()
    assert await world.profiles.get("u") == UNKNOWN
    assert world.metrics.profile_timeouts == 1


async def test_a_failure_after_the_wait_is_counted_once(world: World) -> None:
    """The auction that went on without the profile was one, not two."""
    profiles = world.service(wait_s=0.001)
    world.state.open.clear()
    assert await profiles.get("u") == UNKNOWN
    world.state.error = StoreError("away")
    world.state.open.set()
    await profiles.close()
    assert world.metrics.profile_timeouts == 1


async def test_the_number_of_kept_users_is_bounded(world: World) -> None:
    """Those looked up longest ago make room."""
    profiles = world.service(cached=3)
    for user_id in "abcd":
        await profiles.get(user_id)
    assert [user_id for user_id in "abcd" if world.peek(user_id) is not None] == ["b", "c", "d"]


async def test_a_count_shows_at_once_and_reaches_the_state_store(world: World) -> None:
    """The next auction of the user sees it here; another daemon's after its next lookup."""
    await world.profiles.get("u")
    world.profiles.count("u", "c", DAY_S)
    world.profiles.count("u", "c", DAY_S)
    known = world.peek("u")
    assert known is not None
    assert dict(known.frequency) == {"c": 2}
    await world.profiles.close()
    assert await world.state.counted("u") == {"c": 2}


async def test_a_count_of_a_user_who_is_not_kept_is_not_lost(world: World) -> None:
    """The state store has it, and the lookup after it finds it there."""
    world.profiles.count("u", "c", DAY_S)
    assert dict((await world.profiles.get("u")).frequency) == {"c": 1}


async def test_a_count_during_the_user_s_own_lookup_is_not_lost(world: World) -> None:
    """The frequencies that the lookup brings were read before: what was counted since is added."""
    world.state.open.clear()
    looked_up = asyncio.ensure_future(world.profiles.get("u"))
    await world.state.reached.wait()
    world.profiles.count("u", "c", DAY_S)
    world.state.open.set()
    assert (await looked_up).frequency == {"c": 1}
    await world.profiles.close()
    assert await world.state.counted("u") == {"c": 1}


async def test_a_store_that_cannot_write_is_read_all_the_same(world: World) -> None:
    """A full store: the profile is found, an impression shows here, and is in the store when that can write again."""
    await world.store("u")
    world.state.full = True
    world.profiles.count("u", "c", DAY_S)
    user = await world.profiles.get("u")
    assert (likes(user), user.frequency) == (("u-likes",), {"c": 1})
    world.state.full = False
    await world.profiles.close()
    assert await world.state.counted("u") == {"c": 1}
    assert user.frequency == {"c": 1}


async def test_closing_waits_for_what_is_under_way(world: World) -> None:
    """What was counted last is in the store when close returns; closing an idle one is nothing."""
    await world.profiles.close()
    world.profiles.count("u", "c", DAY_S)
    await world.profiles.close()
    assert await world.state.counted("u") == {"c": 1}


async def test_closing_does_not_wait_for_a_store_that_is_away(world: World) -> None:
    """What it cannot take is tried once more and dropped, however much there is."""
    world.state.full = True
    for n in range(5_000):
        world.profiles.count(f"u{n}", "c", DAY_S)
    await world.profiles.close()
    assert not world.profiles.uncounted
    assert await world.state.counted("u0") == {}
