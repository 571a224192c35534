"""The state store in process memory: the embedded default. Bounded: what was used longest ago is forgotten first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence

from rtb.adapters.clock import NS
from rtb.ports import Clock

MAX_PROFILES = 100_000
MAX_USERS = 200_000
MAX_COUNTERS = 256

_Windows = dict[str, tuple[int, int]]  # campaign id -> (impressions, end of the window on the monotonic clock)


class MemoryState:
    """Cached profiles and frequency counters of one daemon. Never raises StoreError.

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
    ) -> None:
        """Keep at most `max_profiles` profiles, and `max_counters` campaigns for each of `max_users` users."""
        self._clock = clock
        self._max_profiles = max_profiles
        self._max_users = max_users
        self._max_counters = max_counters
        self._profiles: OrderedDict[str, tuple[int, bytes]] = OrderedDict()
        self._users: OrderedDict[str, _Windows] = OrderedDict()

    async def get_profiles(self, user_ids: Sequence[str]) -> list[bytes | None]:
        """The cached profile of each user, None where none is cached."""
        now_ns = self._clock.monotonic_ns()
        return [self._profile(user_id, now_ns) for user_id in user_ids]

    async def put_profiles(self, profiles: Mapping[str, bytes], ttl_s: float) -> None:
        """Cache profiles for `ttl_s` seconds."""
        expires_ns = self._clock.monotonic_ns() + round(ttl_s * NS)
        for user_id, profile in profiles.items():
            self._profiles[user_id] = (expires_ns, profile)
            self._profiles.move_to_end(user_id)
        while len(self._profiles) > self._max_profiles:
            self._profiles.popitem(last=False)

    async def get_frequencies(self, user_ids: Sequence[str]) -> list[Mapping[str, int]]:
        """The impressions counted a campaign id for each user, windows that ended left out."""
        now_ns = self._clock.monotonic_ns()
        return [
            {campaign_id: seen for campaign_id, (seen, end_ns) in windows.items() if end_ns > now_ns}
            for windows in (self._users.get(user_id, {}) for user_id in user_ids)
        ]

    async def count_impressions(self, counts: Iterable[tuple[str, str, int]]) -> None:
        """Count one impression for each (user_id, campaign_id, window seconds)."""
        now_ns = self._clock.monotonic_ns()
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

    async def close(self) -> None:
        """Forget everything."""
        self._profiles.clear()
        self._users.clear()

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
