"""Where the last figures that sources told are kept, so that a restart does not forget them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from rtb.domain.source_metrics import Told


class ToldFigures(Protocol):
    """Shared by every daemon; of the same campaign, source and days the figures told last are kept.

    Every method raises StoreError when the database is away or refuses.
    """

    async def start(self) -> None:
        """Open it."""
        ...

    async def put(self, told: Sequence[Told]) -> None:
        """Keep them; none must be named twice. What was told later than one of them stays."""
        ...

    async def recent(self, since: float, limit: int) -> Sequence[Told]:
        """Those told since a moment (Unix seconds), the latest first, so many at most."""
        ...

    async def forget(self, before: float) -> int:
        """Forget those told before a moment; how many there were."""
        ...

    async def close(self) -> None:
        """Finish what is under way and close."""
        ...
