"""What repository and ledger share: a database that is opened with the newest schema, and closed."""

from __future__ import annotations

from rtb.adapters.sql_database import BUSY_TIMEOUT_MS, SqlDatabase
from rtb.adapters.sql_schema import ensure
from rtb.errors import StoreError


class SqlStore:
    """Tables of a database that others may use, too."""

    def __init__(
        self, database: str | SqlDatabase, *, busy_timeout_ms: int = BUSY_TIMEOUT_MS, upgrade: bool | None = None
    ) -> None:
        """Use `database`: what SqlDatabase takes, or one that others use, too.

        With `upgrade`, `start` makes the tables and brings old ones to the newest schema; None: on SQLite only.

        Raises:
            StoreError: a URL that is not one, or of an unknown kind of database.
        """
        if isinstance(database, str):
            database = SqlDatabase(database, busy_timeout_ms=busy_timeout_ms)
        self.database = database
        self._upgrade = database.is_sqlite if upgrade is None else upgrade

    async def start(self) -> None:
        """Open it and see that it has the newest schema."""
        await self.database.start()
        try:
            await ensure(self.database, upgrade=self._upgrade)
        except StoreError:
            await self.close()
            raise

    async def close(self) -> None:
        """Finish what is under way and close."""
        await self.database.close()
