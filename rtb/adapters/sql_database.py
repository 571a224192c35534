"""A SQL database through SQLAlchemy: SQLite as the embedded default, PostgreSQL by its URL."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import ssl
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import aiosqlite
import asyncpg  # type: ignore[import-untyped]
from sqlalchemy import ARRAY, ColumnElement, Table, Text, any_, event, func, literal, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from rtb.adapters import tls
from rtb.adapters.sql_errors import reason
from rtb.errors import StoreError

BUSY_TIMEOUT_MS = 5_000
TRY_AGAIN_S = 0.01
CACHE_KIB = 16_384
"""Of SQLite's pages a connection keeps: the upper parts of the ledger's five indexes, and where they grow."""
WAL_PAGES = 4_000
"""SQLite's journal is written back after so many pages: one that many commits have changed, once (16 MB)."""
ANSWER_LIMIT_S = 15.0
CONNECTIONS = 5
DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg", "postgres": "postgresql+asyncpg"}
PLACE_OPTIONS = {"host", "port", "ssl"}  # what of a PostgreSQL URL's query the driver takes; sslmode is its ssl
AUTHORITIES = "sslrootcert"
SQLITE_WRITES = {"rtb_writes": True}
POSTGRES_WRITES = {"isolation_level": "READ COMMITTED"}
"""How a connection is told that what follows is one transaction."""
UNCHECKED = ("disable", "allow", "prefer")


class SqlDatabase:
    """Connections and transactions; a repository and a ledger may share one.

    On PostgreSQL a connection that broke is replaced when it is next used, so a restarted server needs no attention.
    """

    def __init__(
        self, database: str, *, busy_timeout_ms: int = BUSY_TIMEOUT_MS, answer_limit_s: float = ANSWER_LIMIT_S
    ) -> None:
        """Use `database`: the path of a SQLite file, ``:memory:``, or a URL such as ``postgresql://host/rtb``.

        SQLite waits `busy_timeout_ms` for another writer before it gives up; PostgreSQL has `answer_limit_s` for a
        connection and for every statement.

        Raises:
            StoreError: a URL that is not one, or of an unknown kind of database.
        """
        self._url = _url(database)
        shown = self._url.set(drivername=self._url.get_backend_name()) if "://" in database else database
        self.name = f"database {shown}"  # a URL prints without its password
        self._busy_timeout_ms = busy_timeout_ms
        self._answer_limit_s = answer_limit_s
        self._turn = asyncio.Lock()
        self._engine: AsyncEngine | None = None
        self._users = 0
        self._unused = asyncio.Event()
        self._unused.set()

    @property
    def is_sqlite(self) -> bool:
        """Whether it is SQLite, not PostgreSQL."""
        return self._url.get_backend_name() == "sqlite"

    async def start(self) -> None:
        """Open it; doing so again changes nothing. Raises StoreError."""
        if self._engine is None:
            with self.translated():
                if self.is_sqlite:
                    self._engine = _sqlite_engine(self._url, self._busy_timeout_ms)
                else:
                    self._engine = _postgres_engine(self._url, self._answer_limit_s)

    async def close(self) -> None:
        """Finish what is under way and close; doing so again changes nothing."""
        engine, self._engine = self._engine, None
        if engine is not None:
            await self._unused.wait()  # disposing closes only what nobody uses
            await engine.dispose()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection to read with; every statement sees the database as it is then."""
        with self.translated(), self._in_use() as engine:
            async with engine.connect() as connection:
                yield connection

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A transaction, committed in the end and undone on an error. SQLite has one writer at a time, from the start
        of its transaction: what it reads there stays true until it commits."""
        # In line here, because SQLite's own waiting is polling that may starve one of them.
        async with self._turn if self.is_sqlite else nullcontext():
            with self.translated(), self._in_use() as engine:
                async with engine.connect() as connection:
                    await connection.execution_options(**SQLITE_WRITES if self.is_sqlite else POSTGRES_WRITES)
                    async with connection.begin():
                        yield connection

    def insert(self, table: Table) -> Any:
        """An insert that knows ON CONFLICT, the one statement without a portable spelling."""
        return (sqlite if self.is_sqlite else postgresql).insert(table)

    def among(self, column: ColumnElement[str], values: Collection[str]) -> ColumnElement[bool]:
        """Whether a text column is one of many values: one parameter, so the statement is prepared once."""
        if self.is_sqlite:
            return column.in_(select(func.json_each(json.dumps([*values])).table_valued("value").c.value))
        return column == any_(literal([*values], ARRAY(Text)))

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Turns what drivers raise into StoreErrors."""
        try:
            yield
        except (SQLAlchemyError, sqlite3.Error, OSError, ImportError, OverflowError) as error:
            raise StoreError(f"{self.name} {reason(error)}") from error
        except (asyncpg.PostgresError, asyncpg.InterfaceError, UnicodeError) as error:
            raise StoreError(f"{self.name} {reason(error)}") from error

    @contextmanager
    def _in_use(self) -> Iterator[AsyncEngine]:
        """The engine, which is not disposed of meanwhile. Raises StoreError when it is not open."""
        engine = self._engine
        if engine is None:
            raise StoreError(f"{self.name} is not open; call start() first")
        self._users += 1
        self._unused.clear()
        try:
            yield engine
        finally:
            self._users -= 1
            if not self._users:
                self._unused.set()


def _url(database: str) -> URL:
    if "://" not in database:
        return URL.create(DRIVERS["sqlite"], database=database)
    try:
        url = make_url(database)
    except ArgumentError:
        raise StoreError("the database is not a URL like postgresql://user@host/name, nor a file path") from None
    backend = url.get_backend_name()
    if backend not in DRIVERS:
        raise StoreError(f"database of kind {backend!r} is not supported; use sqlite or postgresql")
    url = url.set(drivername=DRIVERS[backend])
    if backend == "sqlite":
        return url
    query = {"ssl" if name == "sslmode" else name: value for name, value in url.query.items()}
    if unknown := query.keys() - PLACE_OPTIONS - {AUTHORITIES}:
        known = "host, port, sslmode and sslrootcert"
        raise StoreError(f"the database URL has an unknown option {min(unknown)!r}; known are {known}")
    return url.set(query=query)


def _postgres_engine(url: URL, answer_limit_s: float) -> AsyncEngine:
    return create_async_engine(
        url.difference_update_query([AUTHORITIES]),
        isolation_level="AUTOCOMMIT",  # else a look whether a connection lives, and each read, is a transaction
        pool_pre_ping=True,
        pool_size=CONNECTIONS,
        max_overflow=CONNECTIONS,
        pool_timeout=min(answer_limit_s, ANSWER_LIMIT_S),
        connect_args={
            "timeout": min(answer_limit_s, ANSWER_LIMIT_S),
            "command_timeout": answer_limit_s,
            **_secure(url),
            # A daemon that is frozen within a transaction holds its locks no longer than this.
            "server_settings": {
                "application_name": "rtb",
                "idle_in_transaction_session_timeout": f"{answer_limit_s * 1_000:.0f}",
            },
        },
    )


def _secure(url: URL) -> dict[str, ssl.SSLContext]:
    """With ``sslrootcert`` the server's certificate is checked against that file, and its name, too, unless `sslmode`
    asks for less, with libpq's meaning. Raises OSError."""
    authorities, mode = url.query.get(AUTHORITIES), url.query.get("ssl", "verify-full")
    if authorities is None or mode in UNCHECKED:
        return {}
    context = tls.context(str(authorities), f"store.url ?{AUTHORITIES}=FILE")
    if mode == "verify-full":
        return {"ssl": context}
    named_by_anyone = ssl.create_default_context(cafile=str(authorities))
    named_by_anyone.check_hostname = False
    return {"ssl": named_by_anyone}


class _SqliteConnection(sqlite3.Connection):
    """Its transaction ends with it. SQLite itself keeps one that was cut off, and its lock, until the last statement is
    gone, which the traceback of a cancelled call may hold for long."""

    def close(self) -> None:
        """Undo what is not committed, and close; doing so again changes nothing, as aiosqlite does when a task is
        cancelled that waits for it."""
        try:
            if self.in_transaction:
                self.rollback()
        except sqlite3.ProgrammingError:
            pass  # it is closed
        super().close()


async def _keep_a_write_ahead_log(connection: aiosqlite.Connection, patience_s: float) -> None:
    """Once for a file. Of several connections that begin it, SQLite tells all but one "locked" at once, whatever its
    busy timeout is, for they would wait for each other (https://sqlite.org/c3ref/busy_handler.html). Each tries again.
    """
    now = asyncio.get_running_loop().time
    until = now() + patience_s
    while True:
        try:
            async with connection.execute("PRAGMA journal_mode = WAL"):
                return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or now() > until:
                raise
        await asyncio.sleep(TRY_AGAIN_S)


def _sqlite_engine(url: URL, busy_timeout_ms: int) -> AsyncEngine:
    made = {"factory": _SqliteConnection}
    if url.database in (None, "", ":memory:"):  # a second connection would be a second, empty database
        engine = create_async_engine(
            url, poolclass=AsyncAdaptedQueuePool, pool_size=1, max_overflow=0, connect_args=made
        )
    else:
        path = str(url.database)
        folder = Path(path.removeprefix("file:")).parent
        if not folder.is_dir():
            raise OSError(f"cannot be opened: directory {folder} does not exist; create it")
        if not path.startswith("file:"):
            sqlite3.connect(path).close()  # fails here and now; in aiosqlite it would leave a thread behind
        engine = create_async_engine(url, connect_args=made)

    def set_up(connection: Any, _record: Any) -> None:
        """Readers beside a writer, a wait in place of "locked", and a commit that survives a power cut."""
        try:
            connection.isolation_level = None  # the driver would begin transactions at places of its own choice
            cursor = connection.cursor()
            cursor.execute(f"PRAGMA busy_timeout = {busy_timeout_ms}")
            connection.run_async(partial(_keep_a_write_ahead_log, patience_s=busy_timeout_ms / 1_000))
            cursor.execute("PRAGMA synchronous = FULL")
            cursor.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
            cursor.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")
            cursor.close()
        except Exception:
            connection.close()  # the pool does not: its thread would stay
            raise

    def begin(connection: Any) -> None:
        if connection.get_execution_options().get("rtb_writes"):
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    event.listen(engine.sync_engine, "connect", set_up)
    event.listen(engine.sync_engine, "begin", begin)
    return engine
