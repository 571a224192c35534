"""The ledger in a SQL database: SQLite or PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from datetime import datetime
from operator import attrgetter, itemgetter
from typing import Any, TypeVar

import msgspec
from msgspec.structs import asdict as to_dict
from msgspec.structs import astuple
from sqlalchemy import bindparam, delete, exists, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from rtb.adapters.sql_store import SqlStore
from rtb.adapters.sql_tables import BUDGET_EPOCHS, INSTANCES, IS_TOUCH, LEDGER, REFUSED_EVENTS
from rtb.domain.performance import NOTHING, Counters, Performed, counted
from rtb.errors import StaleEpoch
from rtb.ports import Instance, LedgerKind, LedgerRow, OpenWins, Refusal, Touch

WRITE_CHUNK = 10_000
READ_CHUNK = 10_000

_COLUMNS = tuple(column.name for column in LEDGER.columns)
assert LedgerRow.__struct_fields__ == _COLUMNS, "rows are written as tuples"
_NAMES = ", ".join(f'"{name}"' for name in _COLUMNS)
_ROWS = f"SELECT {_NAMES} FROM ledger"
_SQLITE_INSERT = f"INSERT INTO ledger ({_NAMES}) VALUES ({', '.join('?' * len(_COLUMNS))}) ON CONFLICT (key) DO NOTHING"
_SQLITE_KNOWN = (  # but for the last ones, which are new: rows are never deleted, so their numbers grow by one
    "SELECT key, event_id FROM ledger WHERE key IN (SELECT value FROM json_each(?))"
    " AND rowid <= (SELECT max(rowid) FROM ledger) - ?"
)
_TYPES = dict.fromkeys(("price_nanos", "charged_nanos", "value_nanos"), "bigint")
_TYPES |= dict.fromkeys(("expires_at", "received_at"), "float8")
_POSTGRES_INSERT = (
    "WITH given AS MATERIALIZED (SELECT * FROM json_to_recordset($1::text::json) AS given("
    + ", ".join(f'"{name}" {_TYPES.get(name, "text")}' for name in _COLUMNS)
    + f")), written AS (INSERT INTO ledger ({_NAMES}) SELECT * FROM given ON CONFLICT (key) DO NOTHING RETURNING key)"
    " SELECT key FROM given WHERE key NOT IN (SELECT key FROM written)"
)
_POSTGRES_KNOWN = "SELECT key, event_id FROM ledger WHERE key = ANY($1::text[])"
_SQLITE_UNKNOWN = "SELECT value FROM json_each(?) WHERE NOT EXISTS (SELECT 1 FROM ledger WHERE key = value)"
_POSTGRES_UNKNOWN = (
    "SELECT asked FROM json_array_elements_text($1::text::json) AS asked"
    " WHERE NOT EXISTS (SELECT FROM ledger WHERE key = asked)"
)
_AHEAD_S = 14 * 3_600
"""By how much the farthest time zone is ahead of UTC: its days begin so much earlier."""

_LAST_TOUCH = (
    select(LEDGER)
    .where(LEDGER.c.campaign_id == bindparam("campaign_id"), LEDGER.c.user == bindparam("user"), IS_TOUCH)
    .where(LEDGER.c.kind == bindparam("kind"))
    .where(LEDGER.c.received_at >= bindparam("since"), LEDGER.c.received_at <= bindparam("until"))
    .order_by(LEDGER.c.received_at.desc())
    .limit(1)
)

_SEEN = LEDGER.alias("seen")
_OPEN = (  # apart from the sums, for which SQLite would go through the index of all accounts
    select(LEDGER.c.campaign_id, LEDGER.c.day, LEDGER.c.instance, LEDGER.c.price_nanos, LEDGER.c.expires_at)
    .where(LEDGER.c.received_at >= bindparam("received_since"), LEDGER.c.expires_at >= bindparam("expires_since"))
    .where(LEDGER.c.kind == "win", LEDGER.c.day != "", LEDGER.c.charged_nanos == 0, LEDGER.c.reason == "")
    .where(~exists().where(_SEEN.c.key == LEDGER.c.auction_id + ":" + LEDGER.c.impid + ":impression"))
    .cte("open")
    .prefix_with("MATERIALIZED")
    .c
)
_OPEN_WINS = select(
    _OPEN.campaign_id, _OPEN.day, _OPEN.instance, func.sum(_OPEN.price_nanos), func.max(_OPEN.expires_at)
).group_by(_OPEN.campaign_id, _OPEN.day, _OPEN.instance)

_by_key, _by_campaign = attrgetter("key"), attrgetter("campaign_id")
_KINDS = {kind: kind.value for kind in LedgerKind}
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

    async def append(self, rows: Sequence[LedgerRow], *, epochs: Mapping[str, int]) -> Mapping[str, str]:
        """Commit the rows whose key is new, in one transaction; the other keys. Raises StaleEpoch."""
        if not rows:
            return {}
        first = {row.key: row for row in reversed(rows)}
        # In the order of their keys, two daemons with the same rows wait for each other, never in a circle. SQLite has
        # one writer, and two indexes that begin with the campaign: what stands there side by side is written together.
        ordered = sorted(first.values(), key=_by_campaign if self.database.is_sqlite else _by_key)
        known: dict[str, str] = {}
        async with self.database.write() as connection:
            if epochs:
                await self._hold(connection, epochs)
            for batch in _batches(ordered, WRITE_CHUNK):
                known.update(await self._insert(connection, batch))
        return known

    async def find(self, keys: Collection[str]) -> Mapping[str, LedgerRow]:
        """The row of each key that is known."""
        found: dict[str, LedgerRow] = {}
        for batch in _batches([*keys], READ_CHUNK):
            async with self.database.read() as connection:
                rows = await self._among(connection, _ROWS, "key", batch)
            found.update((row[0], _ledger_row(row)) for row in rows)
        return found

    async def unknown(self, keys: Collection[str]) -> set[str]:
        """Those of the keys that no row has; only they come back from the database."""
        found: set[str] = set()
        async with self.database.read() as connection:
            for batch in _batches([*keys], READ_CHUNK):
                query = _SQLITE_UNKNOWN if self.database.is_sqlite else _POSTGRES_UNKNOWN
                found.update(key for (key,) in await self._fetch(connection, query, _json(batch)))
        return found

    async def last_touches(self, touches: Sequence[Touch]) -> Sequence[LedgerRow | None]:
        """Of each, the last row that fits; one index look-up each, on one connection."""
        if not touches:
            return []
        found: list[LedgerRow | None] = []
        async with self.database.read() as connection:
            for touch in touches:
                row = (await connection.execute(_LAST_TOUCH, to_dict(touch))).first()
                found.append(None if row is None else _ledger_row(row))
        return found

    async def charged(self, keys: Collection[str]) -> Mapping[str, int]:
        """What was charged under each known key, in nanos."""
        found: dict[str, int] = {}
        for batch in _batches([*keys], READ_CHUNK):
            query = select(LEDGER.c.key, LEDGER.c.charged_nanos).where(self.database.among(LEDGER.c.key, batch))
            found.update((key, charged) for key, charged in await self._read(query))
        return found

    async def spent(
        self, campaign_ids: Collection[str] | None = None, *, since_day: str = "", without: Collection[str] = ()
    ) -> Mapping[tuple[str, str], int]:
        """The sum charged a (campaign id, day), in nanos."""
        query = select(LEDGER.c.campaign_id, LEDGER.c.day, func.sum(LEDGER.c.charged_nanos))
        query = query.where(LEDGER.c.day >= since_day).group_by(LEDGER.c.campaign_id, LEDGER.c.day)
        if campaign_ids is not None:
            query = query.where(self.database.among(LEDGER.c.campaign_id, campaign_ids))
        if without:
            query = query.where(~self.database.among(LEDGER.c.key, without))
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

    async def open_wins(self, *, received_since: float, expires_since: float) -> Sequence[OpenWins]:
        """The wins that are neither billed nor seen, by the index of receipts, and a look at a key each."""
        values = {"received_since": received_since, "expires_since": expires_since}
        async with self.database.read() as connection:
            rows = await connection.execute(_OPEN_WINS, values)
            return [OpenWins(name, day, instance, int(held), last) for name, day, instance, held, last in rows]

    async def performance(
        self, campaign_ids: Collection[str] | None = None, *, since: str = "", until: str = ""
    ) -> Sequence[Performed]:
        """What the ads did, a campaign, date and instance each."""
        groups = (LEDGER.c.campaign_id, LEDGER.c.date, LEDGER.c.instance)
        sums = (func.count(), func.sum(LEDGER.c.charged_nanos), func.sum(LEDGER.c.value_nanos))
        query = select(*groups, LEDGER.c.kind, *sums).group_by(*groups, LEDGER.c.kind).order_by(*groups)
        if campaign_ids is not None:
            query = query.where(self.database.among(LEDGER.c.campaign_id, campaign_ids))
        elif since:
            query = query.where(LEDGER.c.received_at >= datetime.fromisoformat(f"{since}T00Z").timestamp() - _AHEAD_S)
        if since:
            query = query.where(LEDGER.c.date >= since)
        if until:
            query = query.where(LEDGER.c.date <= until)
        found: dict[tuple[str, str, str], Counters] = {}
        for campaign_id, date, instance, kind, count, charged, value in await self._read(query):
            key = (campaign_id, date, instance)
            found[key] = found.get(key, NOTHING) + counted(kind, int(count), int(charged), int(value))
        return [Performed(*key, counters) for key, counters in found.items()]

    async def active(self, since: float) -> Sequence[str]:
        """The campaigns of which a row was received since then."""
        query = select(LEDGER.c.campaign_id).where(LEDGER.c.received_at >= since).distinct()
        return [campaign_id for (campaign_id,) in await self._read(query)]

    async def refuse(self, refusals: Sequence[Refusal]) -> None:
        """Keep those whose id is new."""
        if refusals:
            values = sorted(map(to_dict, refusals), key=itemgetter("id"))
            async with self.database.write() as connection:
                await connection.execute(self.database.insert(REFUSED_EVENTS).on_conflict_do_nothing(), values)

    async def refusals(self, campaign_id: str | None = None, *, since: float = 0.0, limit: int = 100) -> list[Refusal]:
        """The last refused events, the newest first."""
        refused = REFUSED_EVENTS.c
        query = select(REFUSED_EVENTS).where(refused.received_at >= since)
        if campaign_id is not None:
            query = query.where(refused.campaign_id == campaign_id)
        found = await self._read(query.order_by(refused.received_at.desc(), refused.id).limit(limit))
        return [Refusal(**{**row._mapping, "kind": LedgerKind(row.kind)}) for row in found]

    async def forget_refusals(self, *, before: float, keep: int, limit: int = 1_000) -> int:
        """Delete some of the refused events that are old or too many; how many."""
        refused = REFUSED_EVENTS.c
        newest = select(refused.received_at).order_by(refused.received_at.desc()).offset(keep).limit(1)
        async with self.database.write() as connection:
            beyond = (await connection.execute(newest)).scalar()
            is_old = refused.received_at < before
            if beyond is not None:
                is_old |= refused.received_at <= beyond
            slice_ = select(refused.id).where(is_old).order_by(refused.received_at).limit(limit)
            return (await connection.execute(delete(REFUSED_EVENTS).where(refused.id.in_(slice_)))).rowcount

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
        rows = await self._among(connection, "SELECT fence, epoch FROM budget_epochs", "fence", [*fences])
        return dict.fromkeys(fences, 0) | {fence: int(epoch) for fence, epoch in rows}

    async def _among(self, connection: AsyncConnection, query: str, column: str, values: list[str]) -> Sequence[Any]:
        """The rows of a query whose column is one of the values."""
        if self.database.is_sqlite:
            query = f"{query} WHERE {column} IN (SELECT value FROM json_each(?))"
            return await self._fetch(connection, query, _json(values))
        return await self._fetch(connection, f"{query} WHERE {column} = ANY($1::text[])", values)

    async def _fetch(self, connection: AsyncConnection, query: str, *values: object) -> Sequence[Any]:
        """The rows of a query in the driver's spelling, asked of the driver itself: for SQLAlchemy, to make a statement
        of it takes longer than to run it, and it would go to SQLite's thread four times, not once."""
        driver = await _driver(connection)
        found: Sequence[Any]
        if self.database.is_sqlite:
            found = await driver.execute_fetchall(query, values)
        else:
            found = await driver.fetch(query, *values)
        return found

    async def _insert(self, connection: AsyncConnection, rows: list[LedgerRow]) -> dict[str, str]:
        """As the drivers do it fastest: tuples of plain values in the driver's thread, for which SQLite's need no
        adapter, or one JSON text; asyncpg would look at each element of an array twice."""
        if self.database.is_sqlite:
            values = [(row[0], _KINDS[row[1]], *row[2:]) for row in map(astuple, rows)]
            async with (await _driver(connection)).executemany(_SQLITE_INSERT, values) as cursor:
                written = cursor.rowcount
            if written == len(values):
                return {}
            asked = _json([row.key for row in rows])
            return dict(map(tuple, await self._fetch(connection, _SQLITE_KNOWN, asked, written)))
        left_out = await self._fetch(connection, _POSTGRES_INSERT, _json(rows))
        if not left_out:
            return {}
        # A statement of its own: it sees what others committed while the insert waited for them.
        return dict(map(tuple, await self._fetch(connection, _POSTGRES_KNOWN, [row[0] for row in left_out])))


async def _driver(connection: AsyncConnection) -> Any:
    """aiosqlite's or asyncpg's own connection."""
    driver = (await connection.get_raw_connection()).driver_connection
    assert driver is not None
    return driver


def _json(values: object) -> str:
    return msgspec.json.encode(values).decode()


def _ledger_row(values: Sequence[Any]) -> LedgerRow:
    fields = dict(zip(_COLUMNS, values, strict=True))
    fields["kind"] = LedgerKind(fields["kind"])
    return LedgerRow(**fields)


def _batches(items: list[_T], size: int) -> Iterator[list[_T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
