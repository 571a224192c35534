"""Which schema a database has, and how it gets the newest one: behind ``rtb migrate`` and every start."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, inspect, text

from rtb.adapters.sql_database import SqlDatabase
from rtb.errors import StoreError

if TYPE_CHECKING:
    from alembic.config import Config

HEAD = "0006"  # the newest of migrations/versions: a start that finds it there does not load alembic
MIGRATION_LIMIT_S = 3_600.0
LOCK = 0x7274_622D_6D69_67  # of pg_advisory_xact_lock: "rtb-mig", one migration at a time


async def migrate(database: str, revision: str = "head") -> list[str]:
    """Bring a database to a revision, in one transaction and after whoever else is at it; the revisions that were run.

    Tables of a version of rtb that knew no migrations are taken over with what they hold.

    Raises:
        StoreError: it cannot be reached, refuses, or has a schema that this version of rtb does not know.
    """
    opened = SqlDatabase(database, answer_limit_s=MIGRATION_LIMIT_S)
    await opened.start()
    try:
        return await _upgrade(opened, revision)
    finally:
        await opened.close()


async def current(database: str) -> str | None:
    """The revision of its schema, None when it has none. Raises StoreError."""
    opened = SqlDatabase(database)
    await opened.start()
    try:
        return await _revision(opened)
    finally:
        await opened.close()


async def pending(database: str) -> list[str]:
    """The revisions that `migrate` would run, the first one first. Raises StoreError."""
    revision = await current(database)
    return [known for known in _known() if revision is None or known > _checked(revision, f"database {database}")]


async def script(database: str, revision: str = "head") -> str:
    """The SQL that `migrate` would run, for an administrator to read and to run. Raises StoreError."""
    from alembic import command

    at = await current(database)
    config = _config(dialect="sqlite" if SqlDatabase(database).is_sqlite else "postgresql")
    config.output_buffer = io.StringIO()
    command.upgrade(config, f"{at}:{revision}" if at else revision, sql=True)
    return config.output_buffer.getvalue()


async def ensure(database: SqlDatabase, *, upgrade: bool) -> None:
    """See that an open database has the newest schema; with `upgrade` bring it there.

    Raises:
        StoreError: it has not, and may not be changed; the line says what to do.
    """
    revision = await _revision(database)
    if revision == HEAD:
        return
    if upgrade:
        await _upgrade(database, "head")
    elif revision is None:
        raise StoreError(f"{database.name} was never migrated; run `rtb migrate`")
    else:
        _checked(revision, database.name)
        raise StoreError(f"{database.name} has old tables (revision {revision}, not {HEAD}); run `rtb migrate`")


async def _revision(database: SqlDatabase) -> str | None:
    def read(connection: Connection) -> str | None:
        if not inspect(connection).has_table("alembic_version"):
            return None
        return connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()

    async with database.read() as connection:
        return await connection.run_sync(read)


async def _upgrade(database: SqlDatabase, revision: str) -> list[str]:
    from alembic import command

    def run(connection: Connection) -> list[str]:
        if not database.is_sqlite:
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
        before = _stamped(connection)
        if before is not None:
            _checked(before, database.name)
        command.upgrade(_config(connection=connection), revision)
        after = _stamped(connection) or ""
        return [known for known in _known() if (before or "") < known <= after]

    async with database.write() as connection:
        return await connection.run_sync(run)


def _stamped(connection: Connection) -> str | None:
    from alembic.migration import MigrationContext

    return MigrationContext.configure(connection).get_current_revision()


def _known() -> list[str]:
    """Every revision, the first one first."""
    from alembic.script import ScriptDirectory

    return [script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()][::-1]


def _checked(revision: str, name: str) -> str:
    if revision > HEAD:
        raise StoreError(f"{name} has tables of a newer rtb (revision {revision}, this one knows {HEAD}); upgrade rtb")
    return revision


def _config(**attributes: Any) -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes.update(attributes)
    return config
