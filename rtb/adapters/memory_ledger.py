"""The ledger in plain dicts: for tests, and for a daemon whose ledger need not outlive it."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import AsyncIterator, Collection, Mapping, Sequence

from rtb.domain.performance import NOTHING, Counters, Performed, counted
from rtb.errors import StaleEpoch
from rtb.ports import Instance, LedgerKind, LedgerRow, OpenWins, Refusal, Touch


class MemoryLedger:
    """Implements ports.Ledger; every call is one loop step, so calls of one process need no further fence."""

    def __init__(self) -> None:
        """An empty ledger."""
        self._epochs: Counter[str] = Counter()
        self._rows: dict[str, LedgerRow] = {}
        self._order: list[tuple[float, str]] = []  # (received_at, key), sorted
        self._spent: Counter[tuple[str, str]] = Counter()
        self._instances: dict[str, Instance] = {}
        self._touches: dict[tuple[str, str, LedgerKind], list[LedgerRow]] = {}
        self._refusals: dict[str, Refusal] = {}

    async def epochs(self, fences: Collection[str]) -> Mapping[str, int]:
        """The epoch behind each fence, 0 where none has begun."""
        return {fence: self._epochs[fence] for fence in fences}

    async def raise_epochs(self, fences: Collection[str]) -> Mapping[str, int]:
        """Begin a new one behind each."""
        for fence in set(fences):
            self._epochs[fence] += 1
        return await self.epochs(fences)

    async def append(self, rows: Sequence[LedgerRow], *, epochs: Mapping[str, int]) -> Mapping[str, str]:
        """Write the rows whose key is new; the other keys. Raises StaleEpoch."""
        if not rows:
            return {}
        for fence, epoch in epochs.items():
            if epoch != self._epochs[fence]:
                raise StaleEpoch(f"the epoch of {fence!r} is {self._epochs[fence]}, no longer {epoch}; bill again")
        known = {row.key: self._rows[row.key].event_id for row in rows if row.key in self._rows}
        for row in rows:
            if row.key not in self._rows:
                self._rows[row.key] = row
                self._spent[row.campaign_id, row.day] += row.charged_nanos
                insort(self._order, (row.received_at, row.key))
                if row.user and row.kind is not LedgerKind.WIN:
                    self._touches.setdefault((row.campaign_id, row.user, row.kind), []).append(row)
        return known

    async def find(self, keys: Collection[str]) -> Mapping[str, LedgerRow]:
        """The row of each key that is known."""
        return {key: self._rows[key] for key in keys if key in self._rows}

    async def unknown(self, keys: Collection[str]) -> set[str]:
        """Those of the keys that no row has."""
        return {key for key in keys if key not in self._rows}

    async def last_touches(self, touches: Sequence[Touch]) -> Sequence[LedgerRow | None]:
        """Of each, the last row that fits."""
        return [self._last(touch) for touch in touches]

    async def charged(self, keys: Collection[str]) -> Mapping[str, int]:
        """What was charged under each known key, in nanos."""
        return {key: self._rows[key].charged_nanos for key in keys if key in self._rows}

    async def spent(
        self, campaign_ids: Collection[str] | None = None, *, since_day: str = "", without: Collection[str] = ()
    ) -> Mapping[tuple[str, str], int]:
        """The sum charged a (campaign id, day), in nanos."""
        wanted = None if campaign_ids is None else set(campaign_ids)
        apart = Counter[tuple[str, str]]()
        for row in (self._rows[key] for key in {*without} if key in self._rows):
            apart[row.campaign_id, row.day] += row.charged_nanos
        return {
            (campaign_id, day): nanos - apart[campaign_id, day]
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

    async def open_wins(self, *, received_since: float, expires_since: float) -> Sequence[OpenWins]:
        """The wins that are neither billed nor seen."""
        found: dict[tuple[str, str, str], OpenWins] = {}
        for _, key in self._order[bisect_left(self._order, (received_since, "")) :]:
            row = self._rows[key]
            if row.kind is not LedgerKind.WIN or not row.day or row.charged_nanos or row.reason:
                continue
            if row.expires_at < expires_since or f"{row.auction_id}:{row.impid}:impression" in self._rows:
                continue
            of = (row.campaign_id, row.day, row.instance)
            known = found.get(of, OpenWins(*of, 0, 0.0))
            held = known.held_nanos + row.price_nanos
            found[of] = OpenWins(*of, held, max(known.expires_at, row.expires_at))
        return list(found.values())

    async def performance(
        self, campaign_ids: Collection[str] | None = None, *, since: str = "", until: str = ""
    ) -> Sequence[Performed]:
        """What the ads did, a campaign, date and instance each."""
        found: dict[tuple[str, str, str], Counters] = {}
        for row in self._rows.values():
            is_wanted = campaign_ids is None or row.campaign_id in campaign_ids
            if is_wanted and row.date >= since and (not until or row.date <= until):
                key = (row.campaign_id, row.date, row.instance)
                found[key] = found.get(key, NOTHING) + counted(row.kind, 1, row.charged_nanos, row.value_nanos)
        return [Performed(*key, counters) for key, counters in sorted(found.items())]

    async def active(self, since: float) -> Sequence[str]:
        """The campaigns of which a row was received since then."""
        newest = self._order[bisect_left(self._order, (since, "")) :]
        return list({self._rows[key].campaign_id for _, key in newest})

    async def refuse(self, refusals: Sequence[Refusal]) -> None:
        """Keep those whose id is new."""
        for refusal in refusals:
            self._refusals.setdefault(refusal.id, refusal)

    async def refusals(self, campaign_id: str | None = None, *, since: float = 0.0, limit: int = 100) -> list[Refusal]:
        """The last refused events, the newest first."""
        newest = sorted(self._refusals.values(), key=lambda refusal: (-refusal.received_at, refusal.id))
        wanted = [one for one in newest if one.received_at >= since and campaign_id in (None, one.campaign_id)]
        return wanted[:limit]

    async def forget_refusals(self, *, before: float, keep: int, limit: int = 1_000) -> int:
        """Delete some of the refused events that are old or too many; how many."""
        newest = await self.refusals(limit=len(self._refusals))
        beyond = newest[keep].received_at if len(newest) > keep else -1.0
        old = [one for one in newest if one.received_at < before or one.received_at <= beyond][::-1][:limit]
        for refusal in old:
            del self._refusals[refusal.id]
        return len(old)

    async def register(self, instance: Instance) -> None:
        """Insert or refresh an instance."""
        self._instances[instance.id] = instance

    async def deregister(self, instance_id: str) -> None:
        """Forget an instance; an unknown one is no error."""
        self._instances.pop(instance_id, None)

    async def instances(self) -> Sequence[Instance]:
        """Every registered instance, ordered by id."""
        return [self._instances[id_] for id_ in sorted(self._instances)]

    def _last(self, touch: Touch) -> LedgerRow | None:
        rows = self._touches.get((touch.campaign_id, touch.user, touch.kind), ())
        fitting = [row for row in rows if touch.since <= row.received_at <= touch.until]
        return max(fitting, key=lambda row: row.received_at, default=None)
