"""The audit: does every account add up, and do the accounts and the ledger tell the same story?"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Mapping

from msgspec import Struct

from rtb.domain.budget import LIFE
from rtb.ports import Accounts, BookView, Ledger, LedgerRow

CHUNK = 5_000
ATTEMPTS = 5
"""Accounts and ledger are not read at the same moment: what does not fit is looked at again."""
WAIT_S = 0.1


class Finding(Struct, frozen=True):
    """One thing that is wrong; `day` is "" when it is of the whole campaign."""

    campaign_id: str
    day: str
    what: str


class Report(Struct, frozen=True):
    """What the audit found. `uncovered` are rows whose event was charged less than its price, each with its reason."""

    books: int
    accounts: int
    keys: int
    rows: int
    findings: list[Finding]
    uncovered: list[LedgerRow]

    @property
    def balanced(self) -> bool:
        """Whether nothing is wrong; uncovered rows are permitted, and are there to be read."""
        return not self.findings


def check(book: BookView, spent: Mapping[str, int], charged: Mapping[str, int]) -> Iterator[Finding]:
    """What is wrong with a book.

    Args:
        book: as the accounts have it.
        spent: the ledger's sums a day, for the lifetime as well where the book has that account.
        charged: of the book's keys, those that the ledger has, with their charges.
    """
    residues: dict[str, int] = {}
    for day, account in book.accounts.items():
        total = account.available_nanos + sum(account.leased.values()) + account.spent_nanos
        if total != account.limit_nanos:
            yield Finding(book.campaign_id, day, f"limit {account.limit_nanos} != available + leased + spent {total}")
        if account.spent_nanos > account.peak_nanos:
            yield Finding(book.campaign_id, day, f"spent {account.spent_nanos} > limit {account.peak_nanos}")
        if any(nanos < 0 for nanos in account.leased.values()):
            yield Finding(book.campaign_id, day, "a lease is negative")
        residues[day] = account.spent_nanos - spent.get(day, 0)
        if residues[day] < 0:
            yield Finding(book.campaign_id, day, f"the ledger has {-residues[day]} nanos more than the account")
    for key, nanos in {**book.committed, **book.open}.items():
        if key in charged and charged[key] != nanos:
            yield Finding(book.campaign_id, "", f"{key} was charged {nanos}, in the ledger {charged[key]}")
    for key in book.committed:
        if key not in charged:
            yield Finding(book.campaign_id, "", f"{key} counts as committed, and the ledger does not know it")
    flying = sum(nanos for key, nanos in book.open.items() if key not in charged)
    dated = sum(nanos for day, nanos in residues.items() if day != LIFE)
    if max(dated, residues.get(LIFE, 0)) != flying:
        most = max(dated, residues.get(LIFE, 0))
        yield Finding(
            book.campaign_id, "", f"{most} nanos are charged and not in the ledger, {flying} are on their way"
        )


class Audit:
    """Gathers books and ledger, and checks them."""

    def __init__(self, accounts: Accounts, ledger: Ledger) -> None:
        """Of these accounts, by this ledger."""
        self._accounts = accounts
        self._ledger = ledger

    async def run(self, campaign_ids: Collection[str] | None = None, *, since: float = 0.0) -> Report:
        """Audit these campaigns (None: every one that has a book), and list what is uncovered since a time (Unix
        seconds). Raises StoreError."""
        books, accounts, keys = 0, 0, 0
        wrong: dict[str, list[Finding]] = {}
        async for book in self._accounts.books(campaign_ids):
            books += 1
            accounts += len(book.accounts)
            keys += len(book.committed) + len(book.open)
            if found := await self._check(book):
                wrong[book.campaign_id] = found
        for _ in range(ATTEMPTS):
            if not wrong:
                break
            await asyncio.sleep(WAIT_S)
            again, wrong = wrong, {}
            async for book in self._accounts.books(list(again)):
                if found := await self._check(book):
                    wrong[book.campaign_id] = found
        rows = 0
        uncovered: list[LedgerRow] = []
        async for part in self._ledger.rows(since=since):
            rows += len(part)
            uncovered += [row for row in part if row.day and row.charged_nanos < row.price_nanos]
        return Report(
            books, accounts, keys, rows, [finding for found in wrong.values() for finding in found], uncovered
        )

    async def _check(self, book: BookView) -> list[Finding]:
        days = [day for day in book.accounts if day != LIFE]
        has_life = LIFE in book.accounts
        since = "" if has_life or not days else min(days)
        spent: dict[str, int] = {}
        for (_, day), nanos in (await self._ledger.spent([book.campaign_id], since_day=since)).items():
            if day:
                if day != LIFE:
                    spent[day] = nanos
                spent[LIFE] = spent.get(LIFE, 0) + nanos
        names = [*book.committed, *book.open]
        charged: dict[str, int] = {}
        for first in range(0, len(names), CHUNK):
            charged.update(await self._ledger.charged(names[first : first + CHUNK]))
        return list(check(book, spent, charged))
