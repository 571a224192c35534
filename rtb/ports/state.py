"""Hot state shared by daemons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from msgspec import Struct


class CachedUser(Struct, frozen=True, gc=False):
    """What the state store knows of a user: the cached profile, None when none is cached, and the impressions counted
    under each counter, windows that ended left out."""

    profile: bytes | None
    frequency: Mapping[str, int]


class StateStore(Protocol):
    """Hot state shared by daemons: cached profiles, frequency counters, claims, sessions that ended, announced results.

    Everything here is a cache or can be lost: what must not be lost stands in the repository. A call that raises
    StoreError may still have taken effect; each method says what repeating it does.
    """

    async def get_users(self, user_ids: Sequence[str]) -> list[CachedUser]:
        """Profile and counters of each user, in the order asked, in one round trip. Raises StoreError."""
        ...

    async def put_profiles(self, profiles: Mapping[str, bytes], ttl_s: float) -> None:
        """Cache profiles for a time; a repetition writes them again. Raises StoreError."""
        ...

    async def count_impressions(self, counts: Sequence[tuple[str, str, int]], batch_id: str = "") -> None:
        """Count one impression for each (user_id, counter, window seconds); a window starts with its first count.

        A counter is a name: rtb.domain.frequency says which a campaign has. At least 256 of a user are kept.
        With a `batch_id` that is unique everywhere, the same call repeated within a minute counts once; without one,
        a repetition counts again. Raises StoreError.
        """
        ...

    async def seen(self, claims: Sequence[tuple[str, str]], ttl_s: float) -> list[bool]:
        """Whether each key was claimed by another in the last `ttl_s` seconds; claim it when not.

        A claim is (key, by whom), as in ("click:u1:ad1", event id): whoever has claimed a key and asks again, after a
        lost reply or a redelivery, has not been seen. The first claim's time counts; it is not prolonged. Within one
        call the first of a key wins. Raises StoreError.
        """
        ...

    async def end_session(self, session: str, expires: int, now: float) -> None:
        """Let all daemons know that somebody has logged out of a session of the dashboard, until it would have ended
        by itself; those that have by now are forgotten. In Unix seconds; a repetition changes nothing. Raises
        StoreError."""
        ...

    async def ended_sessions(self) -> dict[str, int]:
        """The sessions that were logged out of, and when they would have ended. Raises StoreError."""
        ...

    def announce(self, request_id: str, body: bytes) -> None:
        """Publish an auction's result for who listens now, soon and at most once, without waiting and without errors.

        What cannot be published is dropped and counted.
        """
        ...

    @property
    def dropped(self) -> int:
        """Announcements that were not published since the start."""
        ...

    @property
    def connected(self) -> bool:
        """Whether the last call succeeded."""
        ...

    async def close(self) -> None:
        """Publish what is announced, and let go of what it holds."""
        ...
