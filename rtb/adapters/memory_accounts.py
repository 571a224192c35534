"""Budget accounts in this process: the embedded default. They begin empty at every start, and are rebuilt from the
ledger."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Collection, Sequence

from msgspec import structs

from rtb.domain.book import Book
from rtb.domain.books import Books
from rtb.domain.budget import Bill, Billed, Opening, Sync, Synced, Timing
from rtb.errors import StoreError
from rtb.ports import AccountView, BookView, Clock

FENCE = "*"
"""All of them are rebuilt together, at a start: one fence guards them."""
KEY_LIFE_MS = 600_000
KEY_BUCKET_MS = 60_000
"""A process has no memory for the bill keys of a day: ten minutes after its expiry a repeated event is looked up in the
ledger."""


class MemoryAccounts(Books):
    """Implements ports.Accounts and ports.NearAccounts. Its time is that of the start plus the monotonic clock's."""

    def __init__(self, clock: Clock, timing: Timing | None = None) -> None:
        """Without books."""
        offset_ms = int(clock.time() * 1_000) - clock.monotonic_ns() // 1_000_000
        given = timing or Timing()
        short = structs.replace(
            given,
            key_life_ms=min(given.key_life_ms, KEY_LIFE_MS),
            key_bucket_ms=min(given.key_bucket_ms, KEY_BUCKET_MS),
        )
        super().__init__(short, lambda: offset_ms + clock.monotonic_ns() // 1_000_000)
        self._identity = secrets.token_hex(8)

    def fence(self, campaign_id: str) -> str:
        """One for all."""
        return FENCE

    async def identity(self, campaign_ids: Sequence[str]) -> list[str]:
        """This object, until it loses everything."""
        return [self._identity] * len(campaign_ids)

    async def sync(self, syncs: Sequence[Sync]) -> list[Synced]:
        """Lease, renew, return or announce."""
        return [self.sync_now(sync) for sync in syncs]

    async def bill(self, bills: Sequence[Bill]) -> list[Billed]:
        """Charge each, once per key."""
        return self.bill_now(bills)

    async def settle(self, bills: Sequence[Bill]) -> None:
        """Their ledger rows are committed."""
        self.settle_now(bills)

    async def install(self, openings: Sequence[Opening], identities: Sequence[str]) -> None:
        """Put rebuilt books in place of older ones. Raises StoreError."""
        if set(identities) - {self._identity}:
            raise StoreError("the budget accounts were lost meanwhile; rebuild them again")
        for opening in openings:
            self.install_now(opening)

    async def books(self, campaign_ids: Collection[str] | None = None) -> AsyncIterator[BookView]:
        """The books as they stand."""
        for book in self:
            if campaign_ids is None or book.campaign_id in campaign_ids:
                yield _view(book)

    def lose(self) -> None:
        """Lose everything, as a server does that restarts empty."""
        self.clear()
        self._identity = secrets.token_hex(8)

    async def close(self) -> None:
        """Nothing to do."""


def _view(book: Book) -> BookView:
    accounts = {
        day: AccountView(account.limit, account.peak, account.available, account.spent, dict(account.leased))
        for day, account in book.accounts.items()
    }
    committed: dict[str, int] = {}
    open_: dict[str, int] = {}
    for keys in book.keys.values():
        for key, charged in keys.charged.items():
            (open_ if key in keys.open else committed)[key] = charged
    return BookView(book.campaign_id, book.epoch, book.closed, accounts, committed, open_)
