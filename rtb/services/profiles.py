"""User profiles for the auction: kept in the process, looked up together, never waited for long."""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict

import structlog
from msgspec import Struct

from rtb.domain import profile as profiles
from rtb.domain.profile import Profile
from rtb.errors import Malformed, StoreError
from rtb.ports import Clock, Repository, StateStore
from rtb.services.metrics import Metrics

_log = structlog.get_logger(__name__)


class User(Struct, gc=False):
    """What is known of a user: the profile, None when there is none, and impressions counted a campaign id."""

    profile: Profile | None = None
    frequency: dict[str, int] = {}
    stale_ns: int = 0


UNKNOWN = User()


class Profiles:
    """Lookup order: this process, the state store, the repository. A found profile is written back to the state store.

    A user is believed for `fresh_s`, absent ones too, so a new profile or another daemon's impressions show within
    that time. What is asked during a lookup travels together in the next, and one user asked for twice is one lookup.
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
    ) -> None:
        """Keep up to `cached` users; see config/default.toml, section profiles."""
        self._state = state
        self._repository = repository
        self._clock = clock
        self._metrics = metrics
        self._wait_s = wait_s
        self._gather_s = gather_s
        self._cached = cached
        self._fresh_ns = int(fresh_s * 1e9)
        self._ttl_s = ttl_s
        self._users: OrderedDict[str, User] = OrderedDict()
        self._wanted: dict[str, asyncio.Future[User]] = {}
        self._batch: list[str] = []
        self._counts: list[tuple[str, str, int]] = []
        self._working: asyncio.Task[None] | None = None

    def peek(self, user_id: str, now_ns: int) -> User | None:
        """The user when known here and fresh, without waiting."""
        user = self._users.get(user_id)
        if user is None or user.stale_ns < now_ns:
            return None
        self._metrics.profile_hits += 1
        return user

    async def get(self, user_id: str, within_s: float = math.inf) -> User:
        """The user, after a bounded wait (`within_s` at most); UNKNOWN when it is over or a store failed. No errors."""
        future = self._wanted.get(user_id)
        if future is None:
            self._metrics.profile_misses += 1
            loop = asyncio.get_running_loop()
            future = self._wanted[user_id] = loop.create_future()
            loop.call_later(self._wait_s, self._give_up, future)
            self._batch.append(user_id)
            self._begin()
        waiting = asyncio.shield(future)  # one waiter that is cancelled must not take the others along
        if within_s >= self._wait_s:
            return await waiting
        try:
            return await asyncio.wait_for(waiting, within_s)
        except TimeoutError:
            self._metrics.profile_timeouts += 1
            return UNKNOWN

    def count(self, user_id: str, campaign_id: str, window_s: int) -> None:
        """Count an impression of a capped campaign, here at once and in the state store soon."""
        user = self._users.get(user_id)
        if user is not None:
            user.frequency[campaign_id] = user.frequency.get(campaign_id, 0) + 1
        self._counts.append((user_id, campaign_id, window_s))
        self._begin()

    async def close(self) -> None:
        """Wait for what is under way."""
        if self._working is not None:
            await self._working

    def _begin(self) -> None:
        """One round trip at a time, after a moment to gather: a lookup of many costs little more than one of one."""
        if self._working is None:
            self._working = asyncio.get_running_loop().create_task(self._work())

    async def _work(self) -> None:
        try:
            while self._batch or self._counts:
                await asyncio.sleep(self._gather_s)
                batch, self._batch = self._batch, []
                counts, self._counts = self._counts, []
                await self._round_trip(batch, counts)
        finally:
            self._working = None

    def _give_up(self, future: asyncio.Future[User]) -> None:
        if not future.done():
            self._metrics.profile_timeouts += 1
            future.set_result(UNKNOWN)

    async def _round_trip(self, batch: list[str], counts: list[tuple[str, str, int]]) -> None:
        found: list[User]
        try:
            if counts:
                await self._state.count_impressions(counts)
            found = await self._lookup(batch) if batch else []
        except Exception as error:  # whatever it is, the auctions go on without profiles
            if not isinstance(error, StoreError):
                _log.exception("profile_lookup_failed")
            found = [UNKNOWN] * len(batch)
        for user_id, user in zip(batch, found, strict=True):
            future = self._wanted.pop(user_id)
            if user is UNKNOWN:
                self._give_up(future)
                continue
            self._keep(user_id, user)
            if not future.done():
                future.set_result(user)
        fresh = dict(zip(batch, found, strict=True)) if self._counts else {}
        for user_id, campaign_id, _ in self._counts:  # counted since the read, so not in what was read
            user = fresh.get(user_id, UNKNOWN)
            if user is not UNKNOWN:
                user.frequency[campaign_id] = user.frequency.get(campaign_id, 0) + 1

    async def _lookup(self, batch: list[str]) -> list[User]:
        cached = await self._state.get_profiles(batch)
        frequencies = await self._state.get_frequencies(batch)
        stale_ns = self._clock.monotonic_ns() + self._fresh_ns
        users = [
            User(None if data is None else _decode(data), dict(frequency), stale_ns)
            for data, frequency in zip(cached, frequencies, strict=True)
        ]
        absent = [i for i, user in enumerate(users) if user.profile is None]
        if absent:
            stored = await self._repository.profiles([batch[i] for i in absent])
            write_back = {}
            for i, profile in zip(absent, stored, strict=True):
                users[i].profile = profile
                if profile is not None:
                    write_back[batch[i]] = profiles.encode(profile)
            if write_back:
                await self._state.put_profiles(write_back, self._ttl_s)
        return users

    def _keep(self, user_id: str, user: User) -> None:
        users = self._users
        users[user_id] = user
        users.move_to_end(user_id)
        if len(users) > self._cached:
            users.popitem(last=False)


def _decode(data: bytes) -> Profile | None:
    """A cached profile; what cannot be read counts as absent, and is looked up and written anew."""
    try:
        return profiles.decode(data)
    except Malformed:
        return None
