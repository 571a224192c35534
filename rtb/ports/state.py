"""Hot state shared by daemons."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol


class StateStore(Protocol):
    """Hot state shared by daemons: cached profiles and frequency counters."""

    async def get_profiles(self, user_ids: Sequence[str]) -> list[bytes | None]:
        """The cached profile of each user, None where none is cached. Raises StoreError."""
        ...

    async def put_profiles(self, profiles: Mapping[str, bytes], ttl_s: float) -> None:
        """Cache profiles for a time. Raises StoreError."""
        ...

    async def get_frequencies(self, user_ids: Sequence[str]) -> list[Mapping[str, int]]:
        """The impressions counted a campaign id for each user, windows that ended left out. Raises StoreError."""
        ...

    async def count_impressions(self, counts: Iterable[tuple[str, str, int]]) -> None:
        """Count one impression for each (user_id, campaign_id, window seconds); a window starts with its first count.
        Raises StoreError."""
        ...

    async def close(self) -> None:
        """Let go of what it holds."""
        ...
