"""The truth: campaigns, profiles, and the ledger."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from enum import StrEnum
from typing import Protocol

from msgspec import Struct

from rtb.domain.campaign import Campaign
from rtb.domain.performance import Performed
from rtb.domain.profile import Profile


class Repository(Protocol):
    """The truth: campaigns and user profiles. Every method raises StoreError when the database is away or refuses."""

    async def start(self) -> None:
        """Open it and make the schema when it is empty."""
        ...

    def campaigns(self, chunk: int = 10_000) -> AsyncIterator[list[Campaign]]:
        """Every campaign, ordered by id, in lists of at most `chunk`: the catalogue never stands in memory twice.

        A change made meanwhile may or may not be seen; its version tells.
        """
        ...

    async def campaign(self, campaign_id: str) -> Campaign | None:
        """One campaign, None when unknown."""
        ...

    async def put_campaigns(self, campaigns: Sequence[Campaign]) -> int:
        """Insert, or replace where the stored version is older; how many were written, all or none on an error."""
        ...

    def changes(self, after: int, chunk: int = 10_000) -> AsyncIterator[list[tuple[int, Campaign]]]:
        """The campaigns that were written by changes above number `after`, each with the number of its last change and
        ordered by it, in lists of at most `chunk`.

        Numbers grow in the order in which changes become visible, so who has seen number n asks for what is after n
        and misses nothing; gaps mean nothing. A campaign that is written meanwhile may come again, with its new number.
        """
        ...

    async def last_change(self) -> int:
        """A number that no change seen so far exceeds and every later one does, 0 in a new database: read it before
        loading `campaigns`, and go on with `changes` after it."""
        ...

    async def profiles(self, user_ids: Sequence[str]) -> list[Profile | None]:
        """The profile of each user, None when unknown."""
        ...

    async def put_profiles(self, profiles: Sequence[Profile]) -> None:
        """Insert or replace."""
        ...

    async def close(self) -> None:
        """Finish what is under way and close."""
        ...


class LedgerKind(StrEnum):
    """What happened."""

    __hash__ = str.__hash__  # Enum's own is a Python function, too slow for every event

    WIN = "win"
    IMPRESSION = "impression"
    CLICK = "click"
    CONVERSION = "conversion"


class LedgerRow(Struct, frozen=True, kw_only=True, gc=False):
    """One event that concerns money, written once and never changed.

    `key` is unique: auction, imp and kind. `day` is the campaign's budget day (``2026-11-22`` in its time zone), "life"
    when it has a lifetime budget only, "" when no budget paid. `date` is the day that it counts for in reports: the
    budget day where there is one, else that of its receipt in the campaign's time zone.
    `price_nanos` is what the event costs, `charged_nanos` what of it the budget paid; where that is less, `reason` says
    why. A win is a promise: it has the price of its impression, and where impressions are billed it is charged 0.
    `expires_at`, until when it could come in time, and `received_at`, when the edge took it, are Unix seconds.
    `event_id` is that of the message that brought it, `user` the digest that its URLs carry. Of a conversion,
    `value_nanos` is what it was worth to the advertiser and `attributed` the kind of touch that it is owed to.
    """

    key: str
    kind: LedgerKind
    campaign_id: str
    day: str
    auction_id: str
    impid: str
    instance: str
    price_nanos: int
    charged_nanos: int
    expires_at: float
    received_at: float
    reason: str = ""
    date: str = ""
    event_id: str = ""
    creative_id: str = ""
    user: str = ""
    value_nanos: int = 0
    attributed: str = ""


class Refusal(Struct, frozen=True, kw_only=True, gc=False):
    """An event that was charged to nobody, and why. `id` is that of its message, `campaign_id` "" where it cannot be
    told; `detail` is what may help to understand it."""

    id: str
    kind: LedgerKind
    reason: str
    received_at: float
    campaign_id: str = ""
    detail: str = ""


class Touch(Struct, frozen=True, gc=False):
    """Whose touches of a campaign are looked for: those received from `since` (Unix seconds) to `until`."""

    campaign_id: str
    user: str
    kind: LedgerKind
    since: float
    until: float


class OpenWins(Struct, frozen=True, gc=False):
    """Wins of an instance for a campaign on a budget day that are neither billed nor seen: what is held for all of
    them, in nanos, and when the last one expires (Unix seconds)."""

    campaign_id: str
    day: str
    instance: str
    held_nanos: int
    expires_at: float


class Instance(Struct, frozen=True, gc=False):
    """A daemon that may hold leases: its id, new at every start, and when it was last known to live (Unix seconds)."""

    id: str
    seen_at: float


class Ledger(Protocol):
    """The ledger, the epochs that fence it, and the instances that may hold leases.

    Every method raises StoreError when the database is away or refuses. See docs/architecture.md, budgets.
    """

    async def epochs(self, fences: Collection[str]) -> Mapping[str, int]:
        """The epoch behind each fence, 0 where none has begun. A fence guards what is rebuilt as one: the budget of a
        campaign, by its id, or all that stands in one process's memory."""
        ...

    async def raise_epochs(self, fences: Collection[str]) -> Mapping[str, int]:
        """Begin a new epoch behind each fence, before a rebuild reads the ledger; 1 is the first ever. Commits under an
        older one fail from now on: once this has returned, no row billed under an older epoch appears any more."""
        ...

    async def append(self, rows: Sequence[LedgerRow], *, epochs: Mapping[str, int]) -> Mapping[str, str]:
        """Commit the rows in one transaction; those whose key is known are left out.

        `epochs` are those under which the rows were billed, a fence each; rows that no fence guards may be among them.

        Returns:
            The keys that stood there before, each with the `event_id` of its row.

        Raises:
            StaleEpoch: an epoch has changed since the rows were billed; nothing was written, bill them again.
        """
        ...

    async def find(self, keys: Collection[str]) -> Mapping[str, LedgerRow]:
        """The row of each key that is known."""
        ...

    async def unknown(self, keys: Collection[str]) -> set[str]:
        """Those of the keys that no row has."""
        ...

    async def last_touches(self, touches: Sequence[Touch]) -> Sequence[LedgerRow | None]:
        """Of each, the last row that fits, None when there is none."""
        ...

    async def charged(self, keys: Collection[str]) -> Mapping[str, int]:
        """What was charged under each key that is known, in nanos."""
        ...

    async def spent(
        self, campaign_ids: Collection[str] | None = None, *, since_day: str = "", without: Collection[str] = ()
    ) -> Mapping[tuple[str, str], int]:
        """The sum charged a (campaign id, day), of these campaigns (None: of all), for days at or after `since_day`,
        but for the rows of the keys in `without`."""
        ...

    async def open_wins(self, *, received_since: float, expires_since: float) -> Sequence[OpenWins]:
        """The wins that were received and that expire at or after these times (Unix seconds), that a budget pays, that
        were not billed themselves and that have no impression."""
        ...

    async def performance(
        self, campaign_ids: Collection[str] | None = None, *, since: str = "", until: str = ""
    ) -> Sequence[Performed]:
        """What the ads of these campaigns (None: of all) did on dates from `since` to `until`, both included and ""
        without a bound: one element a campaign, date and instance, ordered by these. A row is never received before its
        date has begun in some time zone."""
        ...

    async def active(self, since: float) -> Sequence[str]:
        """The campaigns of which a row was received at or after a time (Unix seconds)."""
        ...

    def rows(self, *, since: float = 0.0, chunk: int = 10_000) -> AsyncIterator[list[LedgerRow]]:
        """Rows received at or after `since` (Unix seconds), in lists of at most `chunk`."""
        ...

    async def refuse(self, refusals: Sequence[Refusal]) -> None:
        """Keep the refused events, each of an id of its own; those whose id is known are left out."""
        ...

    async def refusals(self, campaign_id: str | None = None, *, since: float = 0.0, limit: int = 100) -> list[Refusal]:
        """The last refused events received at or after `since`, the newest first, of one campaign or of all."""
        ...

    async def forget_refusals(self, *, before: float, keep: int, limit: int = 1_000) -> int:
        """Delete up to `limit` of the refused events that were received before a time, or are not among the newest
        `keep`, the oldest first; how many. Call it again while it deletes `limit`."""
        ...

    async def register(self, instance: Instance) -> None:
        """Insert or refresh an instance: from now on it may hold leases."""
        ...

    async def deregister(self, instance_id: str) -> None:
        """It holds no lease any more and never will."""
        ...

    async def instances(self) -> Sequence[Instance]:
        """Every instance that is registered."""
        ...
