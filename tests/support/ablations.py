"""The protocol without one of its clauses, each as it would naively be written; used to show that the tests need it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from rtb.adapters.memory_ledger import MemoryLedger
from rtb.domain.account import Account
from rtb.domain.balance import Balance, Holding
from rtb.domain.book import Book
from rtb.domain.books import Books
from rtb.domain.budget import Bill, Billed, BillStatus
from tests.support.budget_world import KeptInMemory

Patch = pytest.MonkeyPatch


def return_free_only(patch: Patch) -> None:
    """A drain returns the whole lease, holds or not."""

    def debit(self: Balance, day: str, nanos: int) -> int:
        holding = self.holding(day)
        if nanos >= 0:
            return nanos
        leased, holding.leased = holding.leased, 0
        return -leased

    patch.setattr(Balance, "_debit", debit)


def settle(patch: Patch) -> None:
    """A hold lapses at its expiry, though its event may still be on its way through a queue."""
    patch.setattr(Holding, "has_lapsed", lambda self, bucket, time_ms, settle_ms: time_ms > bucket * 1_000)


def bill_result(patch: Patch) -> None:
    """A repeated bill says "duplicate", not what was charged."""
    billed = Book._billed

    def forgetful(self: Book, status: BillStatus, bill: Bill, charged: int, now_ms: int) -> Billed:
        return billed(self, status, bill, 0 if status is BillStatus.AGAIN else charged, now_ms)

    patch.setattr(Book, "_billed", forgetful)


def sql_fence(patch: Patch) -> None:
    """The ledger commits what was billed on a book that was lost."""
    append = MemoryLedger.append

    async def unfenced(self: MemoryLedger, rows: Any, *, epochs: Any) -> int:
        return await append(self, rows, epochs={})

    patch.setattr(MemoryLedger, "append", unfenced)


def rebuild_keys(patch: Patch) -> None:
    """A rebuilt book bills anew what was billed before."""
    patch.setattr(Book, "_must_ask", lambda self, bill, now_ms: False)


def reserve_missing(patch: Patch) -> None:
    """A rebuilt book opens without a reserve for who has not announced."""

    def open_(self: Book, now_ms: int) -> None:
        self.waiting.clear()
        self.closed = False

    patch.setattr(Book, "open", open_)


def limit_grandfather(patch: Patch) -> None:
    """A lowered limit caps at once what was won before."""
    patch.setattr(Account, "ceiling", lambda self, now_ms: self.limit)


def rebuild_install_once(patch: Patch) -> None:
    """Of two rebuilds the one that comes last stays, and it does not look whether another began meanwhile."""

    def install(self: Books, opening: Any) -> None:
        self._books[opening.campaign_id] = Book(opening, self.time_ms(), self.timing)

    patch.setattr(Books, "install_now", install)


def run_id(patch: Patch) -> None:
    """What a restarted server brings back is believed."""
    patch.setattr(KeptInMemory, "detects", False)


def owed(patch: Patch) -> None:
    """A lease that the account is in debt for is spent until the next sync returns it."""
    apply = Holding.apply

    def careless(self: Holding, *arguments: Any) -> None:
        apply(self, *arguments)
        self.owed = 0

    patch.setattr(Holding, "apply", careless)


ABLATIONS: dict[str, Callable[[Patch], None]] = {
    clause.__name__: clause
    for clause in (
        return_free_only,
        settle,
        bill_result,
        sql_fence,
        rebuild_keys,
        reserve_missing,
        limit_grandfather,
        rebuild_install_once,
        run_id,
        owed,
    )
}
