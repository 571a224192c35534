"""The ledger in plain dicts: for tests, and for a daemon whose ledger need not outlive it."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import AsyncIterator, Collection, Mapping, Sequence

from rtb.errors import StaleEpoch
from rtb.ports import Instance, LedgerRow


class MemoryLedger:
    """Implements ports.Ledger; every call is one loop step, so calls of one process need no further fence."""

    def __init__(self) -> None:
        """An empty ledger."""
        self._epochs: Counter[str] = Counter()
        self._rows: dict[str, LedgerRow] = {}
        self._order: list[tuple[float, str]] = []  # (received_at, key), sorted
        self._spent: Counter[tuple[str, str]] = Counter()
        self._instances: dict[str, Instance] = {}

    async def epochs(self, fences: Collection[str]) -> Mapping[str, int]:
        """The epoch behind each fence, 0 where none has begun."""
        return {fence: self._epochs[fence] for fence in fences}

    async def raise_epochs(self, fences: Collection[str]) -> Mapping[str, int]:
        """Begin a new one behind each."""
        for fence in set(fences):
            self._epochs[fence] += 1
        return await self.epochs(fences)

    async def append(self, rows: Sequence[LedgerRow], *, epochs: Mapping[str, int]) -> int:
        """Write the rows whose key is new; how many. Raises StaleEpoch."""
        if not rows:
            return 0
        for fence, epoch in epochs.items():
            if epoch != self._epochs[fence]:
                raise StaleEpoch(f"the epoch of {fence!r} is {self._epochs[fence]}, no longer {epoch}; bill again")
        before = len(self._rows)
        for row in rows:
            if row.key not in self._rows:
                self._rows[row.key] = row
                self._spent[row.campaign_id, row.day] += row.charged_nanos
                insort(self._order, (row.received_at, row.key))
        return len(self._rows) - before

    async def charged(self, keys: Collection[str]) -> Mapping[str, int]:
        """What was charged under each known key, in nanos."""
        return {key: self._rows[key].charged_nanos for key in keys if key in self._rows}

    async def spent(
        self, campaign_ids: Collection[str] | None = None, *, since_day: str = ""
    ) -> Mapping[tuple[str, str], int]:
        """The sum charged a (campaign id, day), in nanos."""
        wanted = None if campaign_ids is None else set(campaign_ids)
        return {
            (campaign_id, day): nanos
            for (campaign_id, day), nanos in self._spent.items()
            if day >= since_day and (wanted is None or campaign_id in wanted)
        }

    async def rows(self, *, since: float = 0.0, chunk: int = 10_000) -> AsyncIterator[list[LedgerRow]]:
        """Rows received at or after `since`, ordered by that time and key."""
        at = (since, "")
        while found := self._order[(start := bisect_left(self._order, at)) : start + chunk]:
            yield [self._rows[key] for _, key in found]
            received_at, key = found[-1]
            at = (received_at, f"{key}\0")  # the very next

    async def register(self, instance: Instance) -> None:
        """Insert or refresh an instance."""
        self._instances[instance.id] = instance

    async def deregister(self, instance_id: str) -> None:
        """Forget an instance; an unknown one is no error."""
        self._instances.pop(instance_id, None)

    async def instances(self) -> Sequence[Instance]:
        """Every registered instance, ordered by id."""
        return [self._instances[id_] for id_ in sorted(self._instances)]
