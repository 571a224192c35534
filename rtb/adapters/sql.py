"""The repository in a SQL database: SQLite or PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from itertools import count, islice
from typing import Any, TypeVar

from sqlalchemy import select, update

from rtb.adapters.interning import Interner
from rtb.adapters.sql_store import SqlStore
from rtb.adapters.sql_tables import CAMPAIGN_CHANGES, CAMPAIGNS, PROFILES
from rtb.domain import campaign as campaigns_
from rtb.domain import profile as profiles_
from rtb.domain.campaign import Campaign
from rtb.domain.profile import Profile
from rtb.errors import InvalidCampaign, Malformed, StoreError

WRITE_CHUNK = 2_000
READ_CHUNK = 5_000

_T = TypeVar("_T")


class SqlRepository(SqlStore):
    """Campaigns and profiles as JSON bodies beside the columns that are searched. Every method raises StoreError."""

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

        Nobody else can write campaigns meanwhile (to SQLite nothing at all; some 40,000 campaigns a second): hand over
        large imports in parts.
        """
        newest: dict[str, Campaign] = {}
        for campaign in campaigns:
            if campaign.version >= newest.setdefault(campaign.id, campaign).version:
                newest[campaign.id] = campaign
        if not newest:
            return 0
        insert = self.database.insert(CAMPAIGNS)
        statement = insert.on_conflict_do_update(
            index_elements=["id"],
            set_={name: insert.excluded[name] for name in ("version", "status", "advertiser", "body", "changed")},
            where=CAMPAIGNS.c.version < insert.excluded.version,
        ).returning(CAMPAIGNS.c.id)
        # The row stays locked until the commit: numbers become visible in their order.
        take = update(CAMPAIGN_CHANGES).values(last=CAMPAIGN_CHANGES.c.last + len(newest))
        written = 0
        async with self.database.write() as connection:
            last = (await connection.execute(take.returning(CAMPAIGN_CHANGES.c.last))).scalar_one()
            numbers = count(last - len(newest) + 1)
            for batch in _chunks(newest.values(), WRITE_CHUNK):
                result = await connection.execute(statement, [_row(campaign, next(numbers)) for campaign in batch])
                written += len(result.all())
        return written

    async def changes(self, after: int, chunk: int = 10_000) -> AsyncIterator[list[tuple[int, Campaign]]]:
        """Campaigns that were written by changes above number `after`, ordered by the number of their last change."""
        share = Interner().share
        while True:
            query = select(CAMPAIGNS.c.changed, CAMPAIGNS.c.id, CAMPAIGNS.c.body).where(CAMPAIGNS.c.changed > after)
            rows = await self._read(query.order_by(CAMPAIGNS.c.changed).limit(chunk))
            if not rows:
                return
            after = rows[-1][0]
            yield [(changed, share(self._campaign(campaign_id, body))) for changed, campaign_id, body in rows]

    async def last_change(self) -> int:
        """The number of the last change."""
        rows = await self._read(select(CAMPAIGN_CHANGES.c.last))
        return int(rows[0][0])

    async def profiles(self, user_ids: Sequence[str]) -> list[Profile | None]:
        """The profile of each user, None when unknown."""
        found: dict[str, Profile] = {}
        # PostgreSQL knows no text with a NUL, and one user's id must not fail the others' lookup.
        known = [user_id for user_id in dict.fromkeys(user_ids) if "\0" not in user_id]
        for batch in _chunks(known, READ_CHUNK):
            query = select(PROFILES.c.user_id, PROFILES.c.body).where(self.database.among(PROFILES.c.user_id, batch))
            for user_id, body in await self._read(query):
                found[user_id] = self._decoded(profiles_.decode, body, f"user {user_id!r}")
        return [found.get(user_id) for user_id in user_ids]

    async def put_profiles(self, profiles: Sequence[Profile]) -> None:
        """Insert or replace; of two for one user the last counts."""
        newest = {profile.user_id: profile for profile in profiles}
        insert = self.database.insert(PROFILES)
        statement = insert.on_conflict_do_update(index_elements=["user_id"], set_={"body": insert.excluded.body})
        # In the order of their ids: two daemons that write the same users wait for each other, never in a circle.
        ordered = sorted(newest.values(), key=lambda profile: profile.user_id)
        async with self.database.write() as connection:
            for batch in _chunks(ordered, WRITE_CHUNK):
                rows = [{"user_id": p.user_id, "body": profiles_.encode(p).decode()} for p in batch]
                await connection.execute(statement, rows)

    async def _read(self, query: Any) -> Sequence[Any]:
        async with self.database.read() as connection:
            return (await connection.execute(query)).all()

    def _campaign(self, campaign_id: str, body: str) -> Campaign:
        return self._decoded(campaigns_.decode, body, f"campaign {campaign_id!r}")

    def _decoded(self, decode: Callable[[bytes], _T], body: str, what: str) -> _T:
        try:
            return decode(body.encode())
        except (InvalidCampaign, Malformed) as error:
            raise StoreError(f"{self.database.name} holds a broken {what}: {error}; write it again") from None


def _row(campaign: Campaign, number: int) -> dict[str, Any]:
    return {
        "id": campaign.id,
        "version": campaign.version,
        "status": campaign.status.value,
        "advertiser": campaign.advertiser,
        "body": campaigns_.encode(campaign).decode(),
        "changed": number,
    }


def _chunks(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
