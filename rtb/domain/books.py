"""The books of all campaigns in one process: what accounts in memory are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from rtb.domain.book import Book
from rtb.domain.budget import LIFE, Bill, Billed, BillStatus, Limit, Opening, Sync, Synced, SyncStatus, Timing


class Books:
    """The books of all campaigns in one process; `time_ms` is their clock. Every call is one step, without I/O."""

    def __init__(self, timing: Timing, time_ms: Callable[[], int]) -> None:
        """With no book: only `install_now` makes one."""
        self.timing = timing
        self.time_ms = time_ms
        self._books: dict[str, Book] = {}
        self._counting: set[str] = set()

    def __iter__(self) -> Iterator[Book]:
        """Every book."""
        return iter(list(self._books.values()))

    def get(self, campaign_id: str) -> Book | None:
        """A campaign's book."""
        return self._books.get(campaign_id)

    def standing_now(self, campaign_id: str) -> Mapping[str, tuple[int, int]] | None:
        """What was spent and what is leased, a day each; None without a book."""
        book = self._books.get(campaign_id)
        if book is None:
            return None
        return {day: (account.spent, sum(account.leased.values())) for day, account in book.accounts.items()}

    def install_now(self, opening: Opening) -> None:
        """Put a rebuilt book in place of one of an older epoch."""
        known = self._books.get(opening.campaign_id)
        if known is None or known.epoch < opening.epoch:
            self._books[opening.campaign_id] = Book(opening, self.time_ms(), self.timing)

    def sync_now(self, sync: Sync) -> Synced:
        """Lease, renew and return, or announce."""
        book = self._books.get(sync.campaign_id)
        return Synced(SyncStatus.MISSING) if book is None else book.sync(sync, self.time_ms())

    def bill_now(self, bills: Sequence[Bill]) -> list[Billed]:
        """Charge each, in order."""
        now_ms = self.time_ms()
        missing = Billed(BillStatus.MISSING)
        return [
            missing if (book := self._billed_on(bill.campaign_id)) is None else book.bill(bill, now_ms)
            for bill in bills
        ]

    def lacks_life_now(self, campaign_id: str) -> bool:
        """Whether there is a book, and no lifetime account in it."""
        book = self._books.get(campaign_id)
        return book is not None and LIFE not in book.accounts

    @contextmanager
    def life_counted(self, campaign_id: str) -> Iterator[dict[str, int]]:
        """While what was spent of a life is counted nothing more is charged: bills are told that the book is missing.
        Gives what was charged under the keys whose ledger rows may be committed or not."""
        self._counting.add(campaign_id)
        try:
            yield self._books[campaign_id].uncommitted
        finally:
            self._counting.discard(campaign_id)

    def begin_life_now(self, campaign_id: str, limit: Limit, version: int, spent: int, instance: str) -> None:
        """Open the lifetime account that a book lacks; see Book.begin_life."""
        self._books[campaign_id].begin_life(limit, version, spent, instance)

    def _billed_on(self, campaign_id: str) -> Book | None:
        return None if campaign_id in self._counting else self._books.get(campaign_id)

    def settle_now(self, bills: Sequence[Bill]) -> None:
        """The ledger rows of these bills are committed."""
        now_ms = self.time_ms()
        by_campaign: dict[str, list[Bill]] = {}
        for bill in bills:
            by_campaign.setdefault(bill.campaign_id, []).append(bill)
        for campaign_id, group in by_campaign.items():
            book = self._books.get(campaign_id)
            if book is not None:
                book.settle(group, now_ms)

    def clear(self) -> None:
        """Lose everything, as a restart does."""
        self._books.clear()
