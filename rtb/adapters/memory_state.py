"""The state store in process memory: the embedded default. Bounded: what was used longest ago is forgotten first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

from rtb.adapters.clock import NS
from rtb.ports import CachedUser, Clock

MAX_PROFILES = 100_000
MAX_USERS = 200_000
MAX_COUNTERS = 256
MAX_CLAIMS = 200_000
BATCH_S = 60
"""How long a batch of counts is remembered."""

_Windows = dict[str, tuple[int, int]]  # campaign id -> (impressions, end of the window on the monotonic clock)


class MemoryState:
    """Profiles, counters and claims of one daemon; listeners are called at once. Never raises StoreError.

    Forgetting a counter lets a user see a campaign more often than its cap says, so `max_users` should be above the
    number of users seen within the longest window; a user costs some 600 bytes and 150 more a campaign.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        max_profiles: int = MAX_PROFILES,
        max_users: int = MAX_USERS,
        max_counters: int = MAX_COUNTERS,
        max_claims: int = MAX_CLAIMS,
    ) -> None:
        """Keep at most `max_profiles` profiles, `max_counters` campaigns for each of `max_users` users, and
        `max_claims` claims."""
        self._clock = clock
        self._max_profiles = max_profiles
        self._max_users = max_users
        self._max_counters = max_counters
        self._max_claims = max_claims
        self._profiles: OrderedDict[str, tuple[int, bytes]] = OrderedDict()
        self._users: OrderedDict[str, _Windows] = OrderedDict()
        self._claims: OrderedDict[str, tuple[str, int]] = OrderedDict()  # by whom, and until when
        self._batches: OrderedDict[str, int] = OrderedDict()
        self._ended: dict[str, int] = {}
        self._listeners: list[Callable[[str, bytes], None]] = []

    dropped = 0
    connected = True

    async def get_users(self, user_ids: Sequence[str]) -> list[CachedUser]:
        """Profile and counters of each user, in the order asked."""
        now_ns = self._clock.monotonic_ns()
        return [CachedUser(self._profile(user_id, now_ns), self._frequency(user_id, now_ns)) for user_id in user_ids]

    async def put_profiles(self, profiles: Mapping[str, bytes], ttl_s: float) -> None:
        """Cache profiles for `ttl_s` seconds."""
        expires_ns = self._clock.monotonic_ns() + round(ttl_s * NS)
        for user_id, profile in profiles.items():
            self._profiles[user_id] = (expires_ns, profile)
            self._profiles.move_to_end(user_id)
        while len(self._profiles) > self._max_profiles:
            self._profiles.popitem(last=False)

    async def count_impressions(self, counts: Sequence[tuple[str, str, int]], batch_id: str = "") -> None:
        """Count one impression for each (user_id, campaign_id, window seconds), once a `batch_id`."""
        now_ns = self._clock.monotonic_ns()
        if batch_id and self._is_repeated(batch_id, now_ns):
            return
        for user_id, campaign_id, window_s in counts:
            windows = self._users.get(user_id)
            if windows is None:
                windows = self._users[user_id] = {}
                self._forget_users(now_ns)
            else:
                self._users.move_to_end(user_id)
            seen, end_ns = windows.get(campaign_id, (0, 0))
            if end_ns <= now_ns:
                seen, end_ns = 0, now_ns + window_s * NS
            windows[campaign_id] = (seen + 1, end_ns)
            if len(windows) > self._max_counters:
                self._forget_counters(windows, now_ns)

    async def seen(self, claims: Sequence[tuple[str, str]], ttl_s: float) -> list[bool]:
        """Whether each key was claimed by another in the last `ttl_s` seconds; claim it when not."""
        now_ns = self._clock.monotonic_ns()
        return [self._claim(key, by, now_ns, round(ttl_s * NS)) != by for key, by in claims]

    async def end_session(self, session: str, expires: int, now: float) -> None:
        """Keep that it is over; forget those that are by themselves."""
        self._ended = {one: end for one, end in self._ended.items() if end > now} | {session: expires}

    async def ended_sessions(self) -> dict[str, int]:
        """Those that were logged out of, and when they would have ended."""
        return dict(self._ended)

    def announce(self, request_id: str, body: bytes) -> None:
        """Hand an auction's result to who listens in this process; in memory there is nobody else."""
        for listener in self._listeners:
            listener(request_id, body)

    def listen(self, listener: Callable[[str, bytes], None]) -> None:
        """Call it with every announcement; it must not block."""
        self._listeners.append(listener)

    async def close(self) -> None:
        """Forget everything."""
        for kept in (self._profiles, self._users, self._claims, self._batches, self._ended):
            kept.clear()

    def _profile(self, user_id: str, now_ns: int) -> bytes | None:
        cached = self._profiles.get(user_id)
        if cached is None:
            return None
        expires_ns, profile = cached
        if expires_ns <= now_ns:
            del self._profiles[user_id]
            return None
        self._profiles.move_to_end(user_id)
        return profile

    def _frequency(self, user_id: str, now_ns: int) -> dict[str, int]:
        windows = self._users.get(user_id)
        if not windows:
            return {}
        return {campaign_id: seen for campaign_id, (seen, end_ns) in windows.items() if end_ns > now_ns}

    def _claim(self, key: str, by: str, now_ns: int, ttl_ns: int) -> str:
        """Who has it now."""
        owner, end_ns = self._claims.get(key, (by, 0))
        if end_ns > now_ns:
            return owner
        self._claims[key] = (by, now_ns + ttl_ns)
        self._claims.move_to_end(key)
        if len(self._claims) > self._max_claims:
            self._claims.popitem(last=False)
        return by

    def _is_repeated(self, batch_id: str, now_ns: int) -> bool:
        while self._batches and next(iter(self._batches.values())) <= now_ns:
            self._batches.popitem(last=False)
        if batch_id in self._batches:
            return True
        self._batches[batch_id] = now_ns + BATCH_S * NS
        return False

    def _forget_users(self, now_ns: int) -> None:
        """Make room for one user: over the bound, and for those counted longest ago whose windows all ended.

        Two of the old go for each one that comes, so users who never return do not stay until the bound is reached.
        """
        for _ in range(2):
            user_id = next(iter(self._users))
            ended = all(end_ns <= now_ns for _, end_ns in self._users[user_id].values())
            if len(self._users) <= self._max_users and (not ended or len(self._users) == 1):
                return
            del self._users[user_id]

    def _forget_counters(self, windows: _Windows, now_ns: int) -> None:
        ended = [campaign_id for campaign_id, (_, end_ns) in windows.items() if end_ns <= now_ns]
        for campaign_id in ended or [min(windows, key=lambda campaign_id: windows[campaign_id][1])]:
            del windows[campaign_id]
