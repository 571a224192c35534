"""The budget accounts that daemons share; see rtb.domain.budget for the protocol."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from msgspec import Struct

from rtb.domain.budget import Bill, Billed, Limit, Opening, Sync, Synced


class AccountView(Struct, frozen=True):
    """One account as it stands, in nanos; `peak` is the highest limit it ever had."""

    limit_nanos: int
    peak_nanos: int
    available_nanos: int
    spent_nanos: int
    leased: Mapping[str, int]


class BookView(Struct, frozen=True):
    """A campaign's accounts as they stand, a day each, and its bill keys with what each was charged: those whose ledger
    rows are committed, and the open ones."""

    campaign_id: str
    epoch: int
    closed: bool
    accounts: Mapping[str, AccountView]
    committed: Mapping[str, int]
    open: Mapping[str, int]


class Accounts(Protocol):
    """Every campaign's book. A call that raises StoreError may have taken effect, in part; repeating it is safe: a sync
    is refused when it was overtaken, a bill has its key."""

    def fence(self, campaign_id: str) -> str:
        """The ledger's fence that guards what is billed here."""
        ...

    async def identity(self, campaign_ids: Sequence[str]) -> list[str]:
        """Who keeps the book of each campaign: another answer than before means that it may be gone."""
        ...

    async def sync(self, syncs: Sequence[Sync]) -> list[Synced]:
        """Lease, renew, return or announce: one reply each."""
        ...

    async def bill(self, bills: Sequence[Bill]) -> list[Billed]:
        """Charge each, once per key: one reply each."""
        ...

    async def settle(self, bills: Sequence[Bill]) -> None:
        """Their ledger rows are committed: the holds are over, and the keys may be forgotten in time."""
        ...

    async def install(self, openings: Sequence[Opening], identities: Sequence[str]) -> None:
        """Put rebuilt books in place of those of an older epoch, or of none.

        Raises:
            StoreError: also when one is no longer kept by whom `identities` names: rebuild again.
        """
        ...

    def books(self, campaign_ids: Collection[str] | None = None) -> AsyncIterator[BookView]:
        """The books of these campaigns (None: all), each as of one moment; missing ones are left out."""
        ...

    async def close(self) -> None:
        """Let go of what it holds."""
        ...


class NearAccounts(Protocol):
    """Accounts in this process: they answer without I/O."""

    def sync_now(self, sync: Sync) -> Synced:
        """As Accounts.sync."""
        ...

    def install_now(self, opening: Opening) -> None:
        """As Accounts.install."""
        ...

    def standing_now(self, campaign_id: str) -> Mapping[str, tuple[int, int]] | None:
        """What was spent and what is leased, in nanos, a day each; None without a book."""
        ...


class LocalAccounts(Accounts, NearAccounts, Protocol):
    """Accounts in this process whose books are rebuilt here."""

    def lacks_life_now(self, campaign_id: str) -> bool:
        """Whether there is a book, and no lifetime account in it."""
        ...

    def life_counted(self, campaign_id: str) -> AbstractContextManager[Mapping[str, int]]:
        """Charges nothing to a book in the meantime, as if it were missing. Gives what was charged, in nanos, under the
        keys whose ledger rows may be committed or not."""
        ...

    def begin_life_now(self, campaign_id: str, limit: Limit, version: int, spent: int, instance: str) -> None:
        """Open the lifetime account that a book lacks. `spent` was charged before; `instance` is this process's, and
        holds what its next sync says."""
        ...
