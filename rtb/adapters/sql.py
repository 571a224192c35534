"""The repository in a SQL database, through SQLAlchemy Core: SQLite as the embedded default, PostgreSQL by its URL."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import BigInteger, Column, Index, MetaData, String, Table, Text, event, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import StaticPool

from rtb.adapters.interning import Interner
from rtb.domain import campaign as campaigns_
from rtb.domain import profile as profiles_
from rtb.domain.campaign import Campaign
from rtb.domain.profile import Profile
from rtb.errors import InvalidCampaign, Malformed, StoreError

BUSY_TIMEOUT_MS = 5_000
WRITE_CHUNK = 2_000
READ_CHUNK = 5_000
DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg", "postgres": "postgresql+asyncpg"}

METADATA = MetaData()

CAMPAIGNS = Table(
    "campaigns",
    METADATA,
    Column("id", String(200), primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("status", String(16), nullable=False),
    Column("advertiser", String(200), nullable=False),
    Column("body", Text, nullable=False),
    Index("campaigns_by_advertiser", "advertiser"),
)
PROFILES = Table(
    "profiles",
    METADATA,
    Column("user_id", Text, primary_key=True),
    Column("body", Text, nullable=False),
)

_T = TypeVar("_T")


class SqlRepository:
    """Campaigns and profiles as JSON bodies beside the columns that are searched. Every method raises StoreError."""

    def __init__(self, database: str, *, busy_timeout_ms: int = BUSY_TIMEOUT_MS) -> None:
        """Use `database`: the path of a SQLite file, ``:memory:``, or a URL such as ``postgresql://host/rtb``.

        SQLite waits `busy_timeout_ms` for another writer before it gives up.

        Raises:
            StoreError: a URL that is not one, or of an unknown kind of database.
        """
        self._url = _url(database)
        self._name = f"database {self._url.render_as_string(hide_password=True) if '://' in database else database}"
        self._busy_timeout_ms = busy_timeout_ms
        self._engine: AsyncEngine | None = None

    async def start(self) -> None:
        """Open it and make the tables that are missing."""
        with self._translated():
            self._engine = _engine(self._url, self._busy_timeout_ms)
        try:
            with self._translated():
                async with self._open.begin() as connection:
                    await connection.run_sync(METADATA.create_all)
        except StoreError:
            await self.close()
            raise

    async def campaigns(self, chunk: int = 10_000) -> AsyncIterator[list[Campaign]]:
        """Every campaign, ordered by id, in lists of at most `chunk`; equal values are shared between them."""
        share = Interner().share
        last = ""
        while True:
            query = select(CAMPAIGNS.c.id, CAMPAIGNS.c.body).where(CAMPAIGNS.c.id > last)
            rows = await self._read(query.order_by(CAMPAIGNS.c.id).limit(chunk))
            if not rows:
                return
            last = rows[-1][0]
            yield [share(self._campaign(campaign_id, body)) for campaign_id, body in rows]

    async def campaign(self, campaign_id: str) -> Campaign | None:
        """One campaign, None when unknown."""
        query = select(CAMPAIGNS.c.id, CAMPAIGNS.c.body).where(CAMPAIGNS.c.id == campaign_id)
        rows = await self._read(query)
        return self._campaign(*rows[0]) if rows else None

    async def put_campaigns(self, campaigns: Sequence[Campaign]) -> int:
        """Insert, or replace where the stored version is older; how many were written, all or none on an error.

        Nobody else can write to SQLite meanwhile (some 40,000 campaigns a second): hand over large imports in parts.
        """
        newest: dict[str, Campaign] = {}
        for campaign in campaigns:
            if campaign.version >= newest.setdefault(campaign.id, campaign).version:
                newest[campaign.id] = campaign
        insert = self._insert(CAMPAIGNS)
        statement = insert.on_conflict_do_update(
            index_elements=["id"],
            set_={name: insert.excluded[name] for name in ("version", "status", "advertiser", "body")},
            where=CAMPAIGNS.c.version < insert.excluded.version,
        ).returning(CAMPAIGNS.c.id)
        written = 0
        with self._translated():
            async with self._open.begin() as connection:
                for batch in _chunks(newest.values(), WRITE_CHUNK):
                    result = await connection.execute(statement, [_row(campaign) for campaign in batch])
                    written += len(result.all())
        return written

    async def profiles(self, user_ids: Sequence[str]) -> list[Profile | None]:
        """The profile of each user, None when unknown."""
        found: dict[str, Profile] = {}
        for batch in _chunks(dict.fromkeys(user_ids), READ_CHUNK):
            query = select(PROFILES.c.user_id, PROFILES.c.body).where(PROFILES.c.user_id.in_(batch))
            for user_id, body in await self._read(query):
                found[user_id] = self._decoded(profiles_.decode, body, f"user {user_id!r}")
        return [found.get(user_id) for user_id in user_ids]

    async def put_profiles(self, profiles: Sequence[Profile]) -> None:
        """Insert or replace; of two for one user the last counts."""
        newest = {profile.user_id: profile for profile in profiles}
        insert = self._insert(PROFILES)
        statement = insert.on_conflict_do_update(index_elements=["user_id"], set_={"body": insert.excluded.body})
        with self._translated():
            async with self._open.begin() as connection:
                for batch in _chunks(newest.values(), WRITE_CHUNK):
                    rows = [{"user_id": p.user_id, "body": profiles_.encode(p).decode()} for p in batch]
                    await connection.execute(statement, rows)

    async def close(self) -> None:
        """Finish what is under way and close."""
        engine, self._engine = self._engine, None
        if engine is not None:
            await engine.dispose()

    @property
    def _open(self) -> AsyncEngine:
        if self._engine is None:
            raise StoreError(f"{self._name} is not open; call start() first")
        return self._engine

    async def _read(self, query: Any) -> Sequence[Any]:
        with self._translated():
            async with self._open.connect() as connection:
                return (await connection.execute(query)).all()

    def _insert(self, table: Table) -> Any:
        """An insert that knows ON CONFLICT, the one statement without a portable spelling."""
        return (sqlite if self._open.dialect.name == "sqlite" else postgresql).insert(table)

    def _campaign(self, campaign_id: str, body: str) -> Campaign:
        return self._decoded(campaigns_.decode, body, f"campaign {campaign_id!r}")

    def _decoded(self, decode: Callable[[bytes], _T], body: str, what: str) -> _T:
        try:
            return decode(body.encode())
        except (InvalidCampaign, Malformed) as error:
            raise StoreError(f"{self._name} holds a broken {what}: {error}; write it again") from None

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (SQLAlchemyError, sqlite3.Error, OSError, ImportError, OverflowError) as error:
            raise StoreError(f"{self._name} {_reason(error)}") from error


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
    return url.set(drivername=DRIVERS[backend])


def _engine(url: URL, busy_timeout_ms: int) -> AsyncEngine:
    if url.get_backend_name() != "sqlite":
        return create_async_engine(url, pool_pre_ping=True)
    if url.database in (None, "", ":memory:"):  # a second connection would be a second, empty database
        return create_async_engine(url, poolclass=StaticPool)
    path = str(url.database)
    folder = Path(path.removeprefix("file:")).parent
    if not folder.is_dir():
        raise OSError(f"cannot be opened: directory {folder} does not exist; create it")
    if not path.startswith("file:"):
        sqlite3.connect(path).close()  # fails here and now; in aiosqlite it would leave a thread behind
    engine = create_async_engine(url)

    def set_up(connection: Any, _record: Any) -> None:
        """Readers beside a writer, a wait in place of "locked", and a commit that survives a power cut."""
        try:
            cursor = connection.cursor()
            cursor.execute(f"PRAGMA busy_timeout = {busy_timeout_ms}")
            cursor.execute("PRAGMA journal_mode = WAL")
            cursor.execute("PRAGMA synchronous = FULL")
            cursor.close()
        except Exception:
            connection.close()  # the pool does not: its thread would stay
            raise

    event.listen(engine.sync_engine, "connect", set_up)
    return engine


_SQLITE_REASONS = {
    "SQLITE_NOTADB": "is not a SQLite database; give another path",
    "SQLITE_CORRUPT": "is damaged; restore it from a backup",
    "SQLITE_CANTOPEN": "cannot be opened; check the path and its permissions",
    "SQLITE_READONLY": "is read-only; check the permissions of the file and its directory",
    "SQLITE_BUSY": "is locked: another writer did not finish in time; try again",
    "SQLITE_LOCKED": "is locked: another writer did not finish in time; try again",
    "SQLITE_FULL": "cannot grow; the disk is full",
}


def _reason(error: BaseException) -> str:
    """What broke and what to do, in one line."""
    cause: BaseException = error
    if isinstance(error, DBAPIError) and error.orig is not None:
        cause = error.orig
    for link in (cause, cause.__cause__):
        name = getattr(link, "sqlite_errorname", "")
        for known, reason in _SQLITE_REASONS.items():
            if name.startswith(known):  # extended codes, as in SQLITE_READONLY_DIRECTORY
                return reason
    if isinstance(error, ImportError):
        return f"needs the Python package {error.name}; install it"
    line = " ".join(str(cause).split())[:300]
    if isinstance(error, OSError) and line.startswith("cannot"):
        return line
    return f"failed: {line or type(cause).__name__}"


def _row(campaign: Campaign) -> dict[str, Any]:
    return {
        "id": campaign.id,
        "version": campaign.version,
        "status": campaign.status.value,
        "advertiser": campaign.advertiser,
        "body": campaigns_.encode(campaign).decode(),
    }


def _chunks(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
