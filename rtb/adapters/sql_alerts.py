"""Alert rules and their states in a SQL database: SQLite or PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Table, delete, select, update

from rtb.adapters.sql_store import SqlStore
from rtb.adapters.sql_tables import ALERT_RULES, ALERT_STATES
from rtb.domain.alert import AlertRule, AlertState
from rtb.errors import StoreError

_T = TypeVar("_T")


class SqlAlerts(SqlStore):
    """Implements ports.alerts.Alerts."""

    async def rules(self) -> Sequence[AlertRule]:
        """Every rule, ordered by id."""
        return await self._read(ALERT_RULES, AlertRule)

    async def put_rule(self, rule: AlertRule) -> bool:
        """Insert or replace, on top of the version before."""
        async with self.database.write() as connection:
            return await self._put(connection, ALERT_RULES, rule.id, rule.version, rule)

    async def delete_rule(self, rule_id: str) -> bool:
        """Remove a rule and its state."""
        async with self.database.write() as connection:
            found = await connection.execute(delete(ALERT_RULES).where(ALERT_RULES.c.id == rule_id))
            await connection.execute(delete(ALERT_STATES).where(ALERT_STATES.c.id == rule_id))
            return found.rowcount == 1

    async def states(self) -> Mapping[str, AlertState]:
        """The state of every rule that has one."""
        return {state.rule_id: state for state in await self._read(ALERT_STATES, AlertState)}

    async def put_state(self, state: AlertState) -> bool:
        """Write a state on top of the version before."""
        async with self.database.write() as connection:
            rule = select(ALERT_RULES.c.id).where(ALERT_RULES.c.id == state.rule_id)
            if not self.database.is_sqlite:  # SQLite has one writer; here the rule must not be deleted meanwhile
                rule = rule.with_for_update(key_share=True, read=True)
            if (await connection.execute(rule)).first() is None:
                return False
            return await self._put(connection, ALERT_STATES, state.rule_id, state.version, state)

    async def _put(self, connection: Any, table: Table, key: str, version: int, value: Any) -> bool:
        row = {"version": version, "body": msgspec.json.encode(value).decode()}
        if version == 1:
            insert = self.database.insert(table).values(id=key, **row)
            done = await connection.execute(insert.on_conflict_do_nothing(index_elements=["id"]))
        else:
            done = await connection.execute(
                update(table).where((table.c.id == key) & (table.c.version == version - 1)).values(**row)
            )
        return bool(done.rowcount == 1)

    async def _read(self, table: Table, kind: type[_T]) -> list[_T]:
        async with self.database.read() as connection:
            rows = (await connection.execute(select(table.c.id, table.c.body).order_by(table.c.id))).all()
        try:
            return [msgspec.json.decode(body, type=kind) for _, body in rows]
        except msgspec.MsgspecError as error:
            raise StoreError(f"{self.database.name} holds a broken row in {table.name}: {error}") from None
