"""User profiles for the auction: kept in the process, looked up together, never waited for long."""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import cast

from msgspec import Struct

from rtb.domain import profile as profiles
from rtb.domain.frequency import OnUnknown, Unknown
from rtb.domain.profile import Profile
from rtb.errors import Malformed, StoreError
from rtb.ports import Clock, Repository, StateStore
from rtb.services.impressions import Impressions
from rtb.services.lookups import Lookups
from rtb.services.metrics import Metrics

ABSENT = b""
"""Cached for a user whom the repository does not know, so that not every daemon asks it."""


class User(Struct, gc=False):
    """What is known of a user: the profile, None when there is none, and impressions, a counter each
    (rtb.domain.frequency)."""

    profile: Profile | None = None
    frequency: Mapping[str, int] = {}
    stale_ns: int = 0


UNKNOWN = User()
"""Nobody: a request that names no user, and so has nothing to count by."""


Told = Callable[[User], None]


class _Wait:
    """Who waits for a user, until `until_s` in loop time; `told` is None once it was called."""

    __slots__ = ("told", "until_s", "user_id")

    def __init__(self, user_id: str, until_s: float, told: Told) -> None:
        self.user_id = user_id
        self.until_s = until_s
        self.told: Told | None = told


class Profiles:
    """Lookup order: this process, the state store, the repository. A found profile is written back to the state store.

    A user is believed for `fresh_s`, absent ones too, so a new profile or another daemon's impressions show within
    that time. What is asked during a lookup travels together in the next, and one user asked for twice is one lookup.

    A store that does not answer costs an auction its profile and little time: the first ones wait for `wait_s`, those
    after them do not wait, and while a store is late its answers are for the next time the user comes. What is known of
    the user by then is told: counters without a profile, or neither (`unknown`); then `on_unknown` decides what
    frequency caps are worth.
    """

    def __init__(
        self,
        state: StateStore,
        repository: Repository,
        clock: Clock,
        metrics: Metrics,
        *,
        wait_s: float,
        cached: int,
        fresh_s: float,
        ttl_s: float,
        gather_s: float = 0.0,
        on_unknown: OnUnknown = OnUnknown.BID,
    ) -> None:
        """Keep up to `cached` users; see config/default.toml, section profiles."""
        self._uncounted = Unknown(on_unknown)
        self.unknown = User(frequency=self._uncounted)
        """A user of whom nothing is known in time."""
        self._state = state
        self._repository = repository
        self._clock = clock
        self._metrics = metrics
        self._wait_s = wait_s
        self._cached = cached
        self._fresh_s = fresh_s
        self._fresh_ns = int(fresh_s * 1e9)
        self._ttl_s = ttl_s
        self._users: OrderedDict[str, User] = OrderedDict()
        self._wanted: dict[str, list[_Wait]] = {}
        self._waiting: deque[_Wait] = deque()  # by the end of their wait
        self._timer: asyncio.TimerHandle | None = None
        self._frequencies: dict[str, dict[str, int]] = {}  # of those who are looked up in the repository
        self._counters = asyncio.Lock()  # what is counted during a read of the counters is sent after it
        self._impressions = Impressions(state, self._counters, gather_s=gather_s)
        self._cache = Lookups(self._look_into_cache, self._fail, clock, patience_s=wait_s, gather_s=gather_s)
        self._truth = Lookups(self._look_into_repository, self._fail, clock, patience_s=wait_s, gather_s=0.0)

    def peek(self, user_id: str, now_ns: int) -> User | None:
        """The user when there is no reason to wait: known here and fresh, or not in time as a store is late or away."""
        user = self._users.get(user_id)
        if user is not None and user.stale_ns >= now_ns:
            self._users.move_to_end(user_id)
            self._metrics.profile_hits += 1
            return user
        cache = self._cache
        if not cache.late and not (self._truth.late and user_id in self._frequencies):
            return None
        if now_ns >= cache.away_until_ns and user_id not in self._wanted and not cache.full:
            self._metrics.profile_misses += 1
            self._wanted[user_id] = []
            cache.ask([user_id])
        self._metrics.profile_timeouts += 1
        return self._in_time(user_id)

    def look_up(self, user_id: str, within_s: float, told: Told) -> None:
        """Tell the user, after a bounded wait (`within_s` at most), or what is known of one by then. That is not before
        this returns; those whose users are found together are told in one step of the loop."""
        loop = asyncio.get_running_loop()
        wait = _Wait(user_id, loop.time() + self._wait_s, told)
        waits = self._wanted.get(user_id)
        if waits is None:
            self._metrics.profile_misses += 1
            self._wanted[user_id] = [wait]
            self._cache.ask([user_id])
        else:
            waits.append(wait)
        self._waiting.append(wait)
        if self._timer is None:
            self._timer = loop.call_later(self._wait_s, self._end_waits)
        if within_s < self._wait_s:
            loop.call_later(within_s, self._give_up, wait)

    async def get(self, user_id: str, within_s: float = math.inf) -> User:
        """The same, to be awaited. No errors."""
        found: asyncio.Future[User] = asyncio.get_running_loop().create_future()
        self.look_up(user_id, within_s, partial(_resolve, found))
        return await found

    def count(self, user_id: str, counter: str, window_s: int) -> None:
        """Count an impression of a capped campaign, here at once and in the state store soon."""
        user = self._users.get(user_id)
        frequency = self._frequencies.get(user_id) if user is None else cast("dict[str, int]", user.frequency)
        if frequency is not None:
            frequency[counter] = frequency.get(counter, 0) + 1
        self._impressions.count(user_id, counter, window_s)

    @property
    def caps_unknown(self) -> int:
        """How often a campaign with a frequency cap was decided on without the user's counters, since the start."""
        return self._uncounted.asked

    @property
    def uncounted(self) -> bool:
        """Whether the state store has yet to confirm an impression."""
        return bool(self._impressions)

    async def close(self) -> None:
        """Wait for what is under way."""
        await self._impressions.close()
        await self._cache.close()
        await self._truth.close()

    def _end_waits(self) -> None:
        """One timer for all: everybody waits equally long, so they end in the order they came."""
        loop = asyncio.get_running_loop()
        now_s, waiting = loop.time(), self._waiting
        while waiting and (waiting[0].told is None or waiting[0].until_s <= now_s):
            wait = waiting.popleft()
            if wait.told is not None:
                self._give_up(wait)
                self._cache.blame()
                self._truth.blame()
        self._timer = loop.call_at(waiting[0].until_s, self._end_waits) if waiting else None

    def _give_up(self, wait: _Wait) -> None:
        if wait.told is not None:
            self._metrics.profile_timeouts += 1
            _tell(wait, self._in_time(wait.user_id))

    def _in_time(self, user_id: str) -> User:
        """What is known of a user whose lookup is not at its end: the counters, when only the repository is late."""
        frequency = self._frequencies.get(user_id)
        return self.unknown if frequency is None else User(None, frequency)

    def _fail(self, user_ids: Sequence[str]) -> None:
        for user_id in user_ids:
            for wait in self._wanted.pop(user_id):
                self._give_up(wait)
            self._frequencies.pop(user_id, None)

    async def _look_into_cache(self, user_ids: Sequence[str]) -> None:
        async with self._counters:
            found = await self._state.get_users(user_ids)
        stale_ns = self._clock.monotonic_ns() + self._fresh_ns
        absent: list[str] = []
        for user_id, cached in zip(user_ids, found, strict=True):
            frequency = {**cached.frequency}
            if self._impressions:
                self._impressions.add(user_id, frequency)
            profile = _decode(cached.profile) if cached.profile else None
            if profile is None and cached.profile != ABSENT:
                self._frequencies[user_id] = frequency
                absent.append(user_id)
            else:
                self._know(user_id, User(profile, frequency, stale_ns))
        if absent:
            self._look_further(absent)

    def _look_further(self, user_ids: list[str]) -> None:
        truth = self._truth
        if truth.full or self._clock.monotonic_ns() < truth.away_until_ns:
            self._fail(user_ids)
            return
        if truth.late:
            for user_id in user_ids:
                for wait in self._wanted[user_id]:
                    self._give_up(wait)
        truth.ask(user_ids)

    async def _look_into_repository(self, user_ids: Sequence[str]) -> None:
        found = await self._repository.profiles(user_ids)
        stale_ns = self._clock.monotonic_ns() + self._fresh_ns
        known: dict[str, bytes] = {}
        absent: dict[str, bytes] = {}
        for user_id, profile in zip(user_ids, found, strict=True):
            self._know(user_id, User(profile, self._frequencies.pop(user_id), stale_ns))
            if profile is None:
                absent[user_id] = ABSENT
            else:
                known[user_id] = profiles.encode(profile)
        try:
            if known:
                await self._state.put_profiles(known, self._ttl_s)
            if absent:
                await self._state.put_profiles(absent, self._fresh_s)
        except StoreError:
            pass  # whoever asks next finds them in the repository again

    def _know(self, user_id: str, user: User) -> None:
        users = self._users
        users[user_id] = user
        users.move_to_end(user_id)
        if len(users) > self._cached:
            users.popitem(last=False)
        for wait in self._wanted.pop(user_id):
            _tell(wait, user)


def _tell(wait: _Wait, user: User) -> None:
    """Once, and in the next step of the loop."""
    told, wait.told = wait.told, None
    if told is not None:
        asyncio.get_running_loop().call_soon(told, user)


def _resolve(found: asyncio.Future[User], user: User) -> None:
    if not found.done():
        found.set_result(user)


def _decode(data: bytes) -> Profile | None:
    """A cached profile; what cannot be read counts as absent, and is looked up and written anew."""
    try:
        return profiles.decode(data)
    except Malformed:
        return None
