"""What may not be lost while the broker is away: records on local disk, in order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

MAX_RECORD = 16 << 20
"""Bytes of the longest record."""


class Spool(Protocol):
    """A queue of records that survives the process and the machine's power. One process at a time, one caller at once.

    Every method raises StoreError when the disk refuses; what was there stays.
    """

    async def open(self) -> int:
        """Open it and find what an earlier process left; how many records wait. Raises StoreError when in use."""
        ...

    async def append(self, records: Sequence[bytes]) -> None:
        """Add records of 1 to MAX_RECORD bytes at the end; they are durable when it returns, and none is there when it
        raises."""
        ...

    async def read(self, limit: int) -> list[bytes]:
        """The oldest records, at most `limit`, at least one when any waits; they stay until they are discarded."""
        ...

    async def discard(self, count: int) -> None:
        """Forget the oldest `count` of the records last read; durable when it returns."""
        ...

    @property
    def waiting(self) -> int:
        """Records not discarded yet."""
        ...

    async def close(self) -> None:
        """Let another process have it."""
        ...
