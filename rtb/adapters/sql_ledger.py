"""The ledger in a SQL database: SQLite or PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any, TypeVar

from msgspec.structs import astuple
from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from rtb.adapters.sql_store import SqlStore
from rtb.adapters.sql_tables import BUDGET_EPOCHS, INSTANCES, LEDGER
from rtb.errors import StaleEpoch
from rtb.ports import Instance, LedgerKind, LedgerRow

WRITE_CHUNK = 10_000
READ_CHUNK = 10_000

_COLUMNS = tuple(column.name for column in LEDGER.columns)
assert LedgerRow.__struct_fields__ == _COLUMNS, "rows are written as tuples"
_NAMES = ", ".join(_COLUMNS)
_SQLITE_INSERT = f"INSERT INTO ledger ({_NAMES}) VALUES ({', '.join('?' * len(_COLUMNS))}) ON CONFLICT (key) DO NOTHING"
_ARRAYS = {"price_nanos": "bigint[]", "charged_nanos": "bigint[]", "expires_at": "float8[]", "received_at": "float8[]"}
_POSTGRES_INSERT = (
    f"INSERT INTO ledger ({_NAMES}) SELECT * FROM unnest("
    + ", ".join(f"${n}::{_ARRAYS.get(name, 'text[]')}" for n, name in enumerate(_COLUMNS, 1))
    + ") ON CONFLICT (key) DO NOTHING"
)

_T = TypeVar("_T")


class SqlLedger(SqlStore):
    """Implements ports.Ledger. Who appends reads the epochs in the same transaction, and holds them: on SQLite there is
    one writer, on PostgreSQL appends share a lock of the table, and `raise_epochs` takes it alone. So that waits for
    commits under way, in a queue, and a commit after it finds the new epochs. (Locks of rows would not do: behind a new
    fence there is no row yet, and who shares a row may keep who wants it alone waiting for ever.)"""

    async def epochs(self, fences: Collection[str]) -> Mapping[str, int]:
        """The epoch behind each fence, 0 where none has begun."""
        async with self.database.read() as connection:
            return await self._epochs(connection, fences)

    async def raise_epochs(self, fences: Collection[str]) -> Mapping[str, int]:
        """Begin a new epoch behind each fence, after the commits that are under way."""
        if not fences:
            return {}
        insert = self.database.insert(BUDGET_EPOCHS)
        raised = {"epoch": BUDGET_EPOCHS.c.epoch + 1}
        async with self.database.write() as connection:
            if not self.database.is_sqlite:
                await connection.exec_driver_sql("LOCK TABLE budget_epochs IN EXCLUSIVE MODE")
            await connection.execute(
                insert.on_conflict_do_update(index_elements=["fence"], set_=raised),
                [{"fence": fence, "epoch": 1} for fence in set(fences)],
            )
            return await self._epochs(connection, fences)

    async def append(self, rows: Sequence[LedgerRow], *, epochs: Mapping[str, int]) -> int:
        """Commit the rows whose key is new, in one transaction; how many. Raises StaleEpoch."""
        if not rows:
            return 0
        # In the order of their keys: two daemons with the same rows wait for each other, never in a circle. The sort is
        # stable, so of two rows with one key the first is written.
        values = sorted(map(astuple, rows), key=itemgetter(0))
        async with self.database.write() as connection:
            if epochs:
                await self._hold(connection, epochs)
            return sum([await self._insert(connection, batch) for batch in _batches(values, WRITE_CHUNK)])

    async def charged(self, keys: Collection[str]) -> Mapping[str, int]:
        """What was charged under each known key, in nanos."""
        found: dict[str, int] = {}
        for batch in _batches([*keys], READ_CHUNK):
            query = select(LEDGER.c.key, LEDGER.c.charged_nanos).where(self.database.among(LEDGER.c.key, batch))
            found.update((key, charged) for key, charged in await self._read(query))
        return found

    async def spent(
        self, campaign_ids: Collection[str] | None = None, *, since_day: str = ""
    ) -> Mapping[tuple[str, str], int]:
        """The sum charged a (campaign id, day), in nanos."""
        query = select(LEDGER.c.campaign_id, LEDGER.c.day, func.sum(LEDGER.c.charged_nanos))
        query = query.where(LEDGER.c.day >= since_day).group_by(LEDGER.c.campaign_id, LEDGER.c.day)
        if campaign_ids is not None:
            query = query.where(self.database.among(LEDGER.c.campaign_id, campaign_ids))
        return {(campaign_id, day): int(total) for campaign_id, day, total in await self._read(query)}

    async def rows(self, *, since: float = 0.0, chunk: int = 10_000) -> AsyncIterator[list[LedgerRow]]:
        """Rows received at or after `since`, ordered by that time and key."""
        received_at, key = LEDGER.c.received_at, LEDGER.c.key
        at, last = since, ""
        while True:
            later = (received_at >= at) & ((received_at > at) | (key > last))
            found = await self._read(select(LEDGER).where(later).order_by(received_at, key).limit(chunk))
            if not found:
                return
            yield [_ledger_row(row) for row in found]
            at, last = found[-1].received_at, found[-1][0]

    async def register(self, instance: Instance) -> None:
        """Insert or refresh an instance."""
        insert = self.database.insert(INSTANCES).values(id=instance.id, seen_at=instance.seen_at)
        async with self.database.write() as connection:
            await connection.execute(
                insert.on_conflict_do_update(index_elements=["id"], set_={"seen_at": insert.excluded.seen_at})
            )

    async def deregister(self, instance_id: str) -> None:
        """Forget an instance; an unknown one is no error."""
        async with self.database.write() as connection:
            await connection.execute(delete(INSTANCES).where(INSTANCES.c.id == instance_id))

    async def instances(self) -> Sequence[Instance]:
        """Every registered instance, ordered by id."""
        return [Instance(id_, seen_at) for id_, seen_at in await self._read(select(INSTANCES).order_by(INSTANCES.c.id))]

    async def _read(self, query: Any) -> Sequence[Any]:
        async with self.database.read() as connection:
            return (await connection.execute(query)).all()

    async def _hold(self, connection: AsyncConnection, epochs: Mapping[str, int]) -> None:
        """See that these are the epochs and remain so until the commit. Raises StaleEpoch."""
        if not self.database.is_sqlite:  # there the transaction is the only writer
            await connection.exec_driver_sql("LOCK TABLE budget_epochs IN ROW SHARE MODE")
        for fence, now in (await self._epochs(connection, epochs)).items():
            if now != epochs[fence]:
                raise StaleEpoch(f"the epoch of {fence!r} is {now}, no longer {epochs[fence]}; bill again")

    async def _epochs(self, connection: AsyncConnection, fences: Collection[str]) -> dict[str, int]:
        known = self.database.among(BUDGET_EPOCHS.c.fence, fences)
        rows = await connection.execute(select(BUDGET_EPOCHS.c.fence, BUDGET_EPOCHS.c.epoch).where(known))
        return dict.fromkeys(fences, 0) | {fence: int(epoch) for fence, epoch in rows}

    async def _insert(self, connection: AsyncConnection, values: list[tuple[Any, ...]]) -> int:
        """As the drivers do it fastest: tuples in the driver's thread, or an array a column."""
        if self.database.is_sqlite:
            return (await connection.exec_driver_sql(_SQLITE_INSERT, values)).rowcount
        driver = (await connection.get_raw_connection()).driver_connection
        assert driver is not None
        status = await driver.execute(_POSTGRES_INSERT, *zip(*values, strict=True))
        return int(status.rpartition(" ")[2])  # "INSERT 0 3"


def _ledger_row(values: Sequence[Any]) -> LedgerRow:
    fields = dict(zip(_COLUMNS, values, strict=True))
    return LedgerRow(**{**fields, "kind": LedgerKind(fields["kind"])})


def _batches(items: list[_T], size: int) -> Iterator[list[_T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
