"""The history of campaigns in a SQL database: SQLite or PostgreSQL."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import msgspec
from sqlalchemy import select

from rtb.adapters.sql_store import SqlStore
from rtb.adapters.sql_tables import CAMPAIGN_HISTORY
from rtb.ports.history import Action, HistoryEvent

WRITE_CHUNK = 1_000


class SqlHistory(SqlStore):
    """Implements ports.History."""

    async def append(self, events: Sequence[HistoryEvent]) -> int:
        """Record those whose id is new, in one transaction."""
        # In the order of their ids: two daemons with the same events wait for each other, never in a circle.
        rows = [_row(event) for event in sorted(events, key=lambda event: event.id)]
        if not rows:
            return 0
        insert = self.database.insert(CAMPAIGN_HISTORY).on_conflict_do_nothing(index_elements=["id"])
        written = 0
        async with self.database.write() as connection:
            for first in range(0, len(rows), WRITE_CHUNK):
                chunk = rows[first : first + WRITE_CHUNK]
                written += (await connection.execute(insert.values(chunk))).rowcount
        return written

    async def of(self, campaign_id: str, limit: int = 50) -> Sequence[HistoryEvent]:
        """The last events of a campaign, the newest first."""
        columns = CAMPAIGN_HISTORY.c
        query = select(CAMPAIGN_HISTORY).where(columns.campaign_id == campaign_id)
        return await self._read(query.order_by(columns.at.desc(), columns.id.desc()).limit(limit))

    async def since(self, at: float, actions: Collection[Action]) -> Sequence[HistoryEvent]:
        """Events of these kinds from a moment on, the oldest first."""
        columns = CAMPAIGN_HISTORY.c
        wanted = [action.value for action in actions]
        query = select(CAMPAIGN_HISTORY).where((columns.at >= at) & columns.action.in_(wanted))
        return await self._read(query.order_by(columns.at, columns.id))

    async def _read(self, query: Any) -> list[HistoryEvent]:
        async with self.database.read() as connection:
            return [_event(row) for row in (await connection.execute(query)).all()]


def _row(event: HistoryEvent) -> dict[str, Any]:
    return {
        "id": event.id,
        "campaign_id": event.campaign_id,
        "at": event.at,
        "actor": event.actor,
        "action": event.action.value,
        "cause": event.cause,
        "details": msgspec.json.encode(event.details).decode(),
    }


def _event(row: Any) -> HistoryEvent:
    fields = dict(row._mapping)
    details = msgspec.json.decode(fields.pop("details"))
    return HistoryEvent(**{**fields, "action": Action(fields["action"])}, details=details)
