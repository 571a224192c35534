"""The last figures of sources in a SQL database: SQLite or PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import msgspec
from sqlalchemy import delete, select

from rtb.adapters.sql_store import SqlStore
from rtb.adapters.sql_tables import SOURCE_FIGURES as TABLE
from rtb.domain.source_metrics import CampaignMetrics, Days, Told
from rtb.errors import StoreError

_KEY = ("campaign_id", "source", "first_day", "last_day")
_CHUNK = 500
"""Rows of one statement: databases take so many parameters."""


class SqlToldFigures(SqlStore):
    """Implements ports.told_figures.ToldFigures."""

    async def put(self, told: Sequence[Told]) -> None:
        """Keep them, but for what is older than what is there."""
        async with self.database.write() as connection:
            for first in range(0, len(told), _CHUNK):
                insert = self.database.insert(TABLE).values([_row(one) for one in told[first : first + _CHUNK]])
                new = insert.excluded
                await connection.execute(
                    insert.on_conflict_do_update(
                        index_elements=list(_KEY),
                        set_={"told_at": new.told_at, "body": new.body},
                        where=TABLE.c.told_at <= new.told_at,
                    )
                )

    async def recent(self, since: float, limit: int) -> Sequence[Told]:
        """The latest first."""
        query = select(TABLE).where(TABLE.c.told_at >= since).order_by(TABLE.c.told_at.desc()).limit(limit)
        async with self.database.read() as connection:
            rows = (await connection.execute(query)).mappings().all()
        try:
            return [
                Told(
                    row["campaign_id"],
                    row["source"],
                    Days(date.fromisoformat(row["first_day"]), date.fromisoformat(row["last_day"])),
                    msgspec.json.decode(row["body"], type=CampaignMetrics),
                    row["told_at"],
                )
                for row in rows
            ]
        except (msgspec.MsgspecError, ValueError) as error:
            raise StoreError(f"{self.database.name} holds a broken row in {TABLE.name}: {error}") from None

    async def forget(self, before: float) -> int:
        """Those told before a moment."""
        async with self.database.write() as connection:
            found = await connection.execute(delete(TABLE).where(TABLE.c.told_at < before))
            return int(found.rowcount)


def _row(told: Told) -> dict[str, object]:
    return {
        "campaign_id": told.campaign_id,
        "source": told.source,
        "first_day": told.days.first.isoformat(),
        "last_day": told.days.last.isoformat(),
        "told_at": told.told_at,
        "body": msgspec.json.encode(told.metrics).decode(),
    }
