"""The audit: does every account add up, do the accounts and the ledger tell the same story, and does every row of the
ledger follow from the win that it belongs to?"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from typing import Generic, TypeVar

from msgspec import Struct

from rtb.domain.budget import LIFE
from rtb.ports import Accounts, BookView, Ledger, LedgerKind, LedgerRow

_T = TypeVar("_T")

CHUNK = 5_000
ATTEMPTS = 5
"""Accounts and ledger are not read at the same moment: what does not fit is looked at again."""
WAIT_S = 0.1
MOST = 1_000
"""Findings and uncovered rows that are listed; all are counted."""


class Finding(Struct, frozen=True):
    """One thing that is wrong; `day` is "" when it is of the whole campaign, `key` that of the row where it is one."""

    campaign_id: str
    day: str
    what: str
    key: str = ""


class Report(Struct, frozen=True):
    """What the audit found. `uncovered` are rows whose event was charged less than its price, each with its reason.

    `kinds` are how many rows of each kind were followed to their win, `unlisted` how many findings and uncovered rows
    there are beyond those that are listed.
    """

    books: int
    accounts: int
    keys: int
    rows: int
    findings: list[Finding]
    uncovered: list[LedgerRow]
    kinds: dict[str, int] = {}
    unlisted: int = 0

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
            yield Finding(book.campaign_id, "", f"{key} was charged {nanos}, in the ledger {charged[key]}", key)
    for key in book.committed:
        if key not in charged:
            yield Finding(book.campaign_id, "", f"{key} counts as committed, and the ledger does not know it", key)
    flying = sum(nanos for key, nanos in book.open.items() if key not in charged)
    dated = sum(nanos for day, nanos in residues.items() if day != LIFE)
    if max(dated, residues.get(LIFE, 0)) != flying:
        most = max(dated, residues.get(LIFE, 0))
        yield Finding(
            book.campaign_id, "", f"{most} nanos are charged and not in the ledger, {flying} are on their way"
        )


def check_row(row: LedgerRow, known: Mapping[str, LedgerRow]) -> Iterator[str]:
    """What is wrong with a row: `known` has the rows of the same win (`relatives`) that there are.

    It is charged its price or has a reason; what follows a win is of the same campaign and instance and is paid for
    once; an impression that is paid for costs what the win was sold at; a click has its impression, and a conversion
    the touch that it is owed to.
    """
    if not 0 <= row.charged_nanos <= row.price_nanos:
        yield f"was charged {row.charged_nanos} of {row.price_nanos} nanos"
    if row.kind is LedgerKind.WIN:
        if 0 < row.charged_nanos < row.price_nanos and not row.reason:
            yield f"was charged {row.charged_nanos} of {row.price_nanos} nanos without a reason"
        return
    if row.charged_nanos < row.price_nanos and not row.reason:
        yield f"was charged {row.charged_nanos} of {row.price_nanos} nanos without a reason"
    win, impression, click = (known.get(key) for key in relatives(row))
    if win is None:
        yield "has no win"
    elif win.campaign_id != row.campaign_id:
        yield f"is of campaign {row.campaign_id}, its win of {win.campaign_id}"
    elif row.kind is LedgerKind.IMPRESSION and row.price_nanos not in (0, win.price_nanos):
        yield f"costs {row.price_nanos} nanos, its win was sold at {win.price_nanos}"
    if row.kind is LedgerKind.CLICK and impression is None:
        yield "has no impression"
    if row.kind is LedgerKind.CONVERSION and (click if row.attributed == "click" else impression) is None:
        yield f"has no {row.attributed or 'touch'} that it is owed to"
    for one in (win, impression, click):
        if row.charged_nanos and one is not None and one.charged_nanos and _ORDER[one.kind] < _ORDER[row.kind]:
            yield f"was charged though its {one.kind.value} had been"


_ORDER = {kind: number for number, kind in enumerate(LedgerKind)}


def relatives(row: LedgerRow) -> tuple[str, str, str]:
    """The keys of the win, the impression and the click that a row belongs to."""
    of = f"{row.auction_id}:{row.impid}"
    return f"{of}:win", f"{of}:impression", f"{of}:click"


class Audit:
    """Gathers books and ledger, and checks them; of both only a part is in memory at a time."""

    def __init__(self, accounts: Accounts, ledger: Ledger, *, most: int = MOST) -> None:
        """Of these accounts, by this ledger; list up to `most` findings."""
        self._accounts = accounts
        self._ledger = ledger
        self._most = most

    async def run(self, campaign_ids: Collection[str] | None = None, *, since: float = 0.0) -> Report:
        """Audit these campaigns (None: all): every account, and the rows received since a time (Unix seconds).

        Raises:
            StoreError: accounts or ledger are away.
        """
        books = accounts = keys = 0
        found = _List[Finding](self._most)
        wrong: set[str] = set()
        async for book in self._accounts.books(campaign_ids):
            books += 1
            accounts += len(book.accounts)
            keys += len(book.committed) + len(book.open)
            if await self._check(book):
                wrong.add(book.campaign_id)
        async for finding in self._still_wrong(wrong):
            found.add(finding)
        rows = 0
        kinds: dict[str, int] = {}
        uncovered = _List[LedgerRow](self._most)
        async for part in self._ledger.rows(since=since, chunk=CHUNK):
            mine = part if campaign_ids is None else [row for row in part if row.campaign_id in campaign_ids]
            rows += len(mine)
            for row in mine:
                kinds[row.kind.value] = kinds.get(row.kind.value, 0) + 1
                if row.day and row.charged_nanos < row.price_nanos and row.reason:
                    uncovered.add(row)
            for finding in await self._follow(mine):
                found.add(finding)
        unlisted = found.unlisted + uncovered.unlisted
        return Report(books, accounts, keys, rows, found.listed, uncovered.listed, kinds, unlisted)

    async def _still_wrong(self, campaign_ids: Collection[str]) -> AsyncIterator[Finding]:
        """What is wrong with these books, and remains so."""
        wrong = set(campaign_ids)
        for attempt in range(ATTEMPTS):
            if not wrong:
                return
            await asyncio.sleep(WAIT_S)
            again, wrong = wrong, set()
            async for book in self._accounts.books(list(again)):
                if findings := await self._check(book):
                    wrong.add(book.campaign_id)
                    if attempt == ATTEMPTS - 1:
                        for finding in findings:
                            yield finding

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

    async def _follow(self, rows: Sequence[LedgerRow]) -> list[Finding]:
        """What is wrong with these rows, and remains so: an event may overtake its win on another queue."""
        for attempt in range(ATTEMPTS):
            if attempt:
                await asyncio.sleep(WAIT_S)
            later = [row for row in rows if row.kind is not LedgerKind.WIN]
            known = await self._ledger.find({key for row in later for key in relatives(row)})
            wrong = {row.key: list(check_row(row, known)) for row in rows}
            rows = [row for row in rows if wrong[row.key]]
            if not rows:
                return []
        return [
            Finding(row.campaign_id, row.day, f"{row.key} {what}", row.key) for row in rows for what in wrong[row.key]
        ]


class _List(Generic[_T]):
    """The first of many, and how many more there were."""

    def __init__(self, most: int) -> None:
        self.listed: list[_T] = []
        self.unlisted = 0
        self._most = most

    def add(self, one: _T) -> None:
        """List it, or count it."""
        if len(self.listed) < self._most:
            self.listed.append(one)
        else:
            self.unlisted += 1
