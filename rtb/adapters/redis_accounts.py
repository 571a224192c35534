"""Budget accounts in Redis 7, shared by daemons: one server, or a cluster. Each call is one Lua script a campaign, and
all of a batch travel together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Any

from rtb.adapters.redis_accounts_scripts import Scripts
from rtb.adapters.redis_link import ClusterLink, ServerLink
from rtb.domain.book import FORGET_MS
from rtb.domain.budget import (
    DAYS_KEPT,
    AccountState,
    Bill,
    Billed,
    BillStatus,
    Opening,
    Sync,
    Synced,
    SyncStatus,
    Timing,
    bucket,
)
from rtb.errors import StoreError
from rtb.ports import AccountView, BookView

UNUSED_MS = DAYS_KEPT * 86_400_000
"""A book that nobody syncs is forgotten; the ledger knows it."""
SCAN = 1_000
_SYNC_STATUS = {status.value.encode(): status for status in SyncStatus}
_BILL_STATUS = {status.value.encode(): status for status in BillStatus}


class RedisAccounts:
    """Implements ports.Accounts. Every method raises StoreError; nothing is retried."""

    def __init__(
        self,
        url: str,
        timing: Timing | None = None,
        *,
        cluster: bool = False,
        prefix: str = "budget:",
        connections: int = 4,
        timeout_s: float = 1.0,
        scripts: Scripts | None = None,
    ) -> None:
        """Connects when first used; arguments as for RedisState. Other `scripts` may tell another time."""
        self.timing = timing or Timing()
        self._link: ServerLink | ClusterLink = (ClusterLink if cluster else ServerLink)(url, connections, timeout_s)
        self._prefix = prefix
        self._scripts = scripts or Scripts()

    @property
    def connected(self) -> bool:
        """Whether the last call succeeded."""
        return self._link.connected

    def fence(self, campaign_id: str) -> str:
        """Each campaign its own."""
        return campaign_id

    async def identity(self, campaign_ids: Sequence[str]) -> list[str]:
        """The run id of the server that has each."""
        replies = await self._link.run(
            self._scripts.identity, [([self._key(campaign_id)], []) for campaign_id in campaign_ids]
        )
        return [reply.decode() for reply in replies]

    async def sync(self, syncs: Sequence[Sync]) -> list[Synced]:
        """Lease, renew, return or announce."""
        timing = self.timing
        terms = (timing.lease_ms, timing.settle_ms, timing.key_bucket_ms, timing.key_life_ms)
        lasts = (*terms, FORGET_MS, UNUSED_MS, DAYS_KEPT)
        replies = await self._link.run(
            self._scripts.sync, [([self._key(s.campaign_id)], [*lasts, *_sync(s)]) for s in syncs]
        )
        return [_synced(reply) for reply in replies]

    async def bill(self, bills: Sequence[Bill]) -> list[Billed]:
        """Charge each, once per key."""
        groups = _by_campaign(bills)
        terms = (self.timing.key_bucket_ms, self.timing.key_life_ms, self.timing.settle_ms)
        calls = [
            ([self._key(campaign_id)], [*terms, *(word for n in numbers for word in _bill(bills[n]))])
            for campaign_id, numbers in groups.items()
        ]
        billed: list[Billed] = [Billed(BillStatus.MISSING)] * len(bills)
        for numbers, reply in zip(groups.values(), await self._link.run(self._scripts.bill, calls), strict=True):
            if reply:
                for n, result in zip(numbers, _billed(reply), strict=True):
                    billed[n] = result
        return billed

    async def settle(self, bills: Sequence[Bill]) -> None:
        """Their ledger rows are committed."""
        timing = self.timing
        terms = (timing.lease_ms, timing.key_bucket_ms, timing.key_life_ms, timing.settle_ms)
        calls = [
            ([self._key(campaign_id)], [*terms, *(word for n in numbers for word in _settle(bills[n]))])
            for campaign_id, numbers in _by_campaign(bills).items()
        ]
        await self._link.run(self._scripts.settle, calls)

    async def install(self, openings: Sequence[Opening], identities: Sequence[str]) -> None:
        """Put rebuilt books in place of older ones."""
        asks_ms = self.timing.window_ms + self.timing.settle_ms
        calls = [
            ([self._key(opening.campaign_id)], [identity, *_opening(opening, asks_ms)])
            for opening, identity in zip(openings, identities, strict=True)
        ]
        if -1 in await self._link.run(self._scripts.install, calls):
            raise StoreError("Redis was restarted, or another server took over, during a rebuild; rebuild again")

    async def books(self, campaign_ids: Collection[str] | None = None) -> AsyncIterator[BookView]:
        """The books as they stand."""
        names = list(campaign_ids) if campaign_ids is not None else await self._all()
        for first in range(0, len(names), SCAN):
            part = names[first : first + SCAN]
            replies = await self._link.run(self._scripts.view, [([self._key(name)], []) for name in part])
            for name, reply in zip(part, replies, strict=True):
                if reply:
                    yield _view(name, _fields(reply[0]), _fields(reply[1]))

    async def close(self) -> None:
        """Disconnect."""
        await self._link.close()

    def _key(self, campaign_id: str) -> str:
        return f"{self._prefix}{{{campaign_id}}}"

    async def _all(self) -> list[str]:
        begin = f"{self._prefix}{{"
        return sorted([key.removeprefix(begin)[:-1] for key in await self._link.keys(f"{begin}*}}")])


def _by_campaign(bills: Sequence[Bill]) -> dict[str, list[int]]:
    groups: dict[str, list[int]] = {}
    for n, bill in enumerate(bills):
        groups.setdefault(bill.campaign_id, []).append(n)
    return groups


def _sync(sync: Sync) -> list[Any]:
    words: list[Any] = [sync.instance, sync.seq, sync.epoch, sync.version, int(sync.announce), len(sync.limits)]
    for day, limit in sync.limits.items():
        words += (day, limit.nanos, limit.cap_nanos)
    words.append(len(sync.moves))
    for move in sync.moves.items():
        words += move
    return words


def _bill(bill: Bill) -> tuple[Any, ...]:
    price, held = bill.price_nanos, bill.held_nanos
    return bill.key, bill.day, bill.instance, price, held, bill.expires_ms, bill.asked_epoch


def _settle(bill: Bill) -> tuple[Any, ...]:
    return bill.key, bill.day, bill.instance, bill.held_nanos, bill.expires_ms, bucket(bill.expires_ms)


def _opening(opening: Opening, asks_ms: int) -> list[Any]:
    asks = 0 if opening.is_new else asks_ms
    words: list[Any] = [opening.epoch, opening.version, opening.floor, opening.grace_ms, asks, len(opening.limits)]
    for day, limit in opening.limits.items():
        words += (day, limit.nanos, limit.cap_nanos, opening.spent.get(day, 0))
    return [*words, *opening.waiting]


def _synced(reply: list[Any]) -> Synced:
    accounts: dict[str, AccountState] = {}
    at = 3
    while at < len(reply):
        day, limit, available, spent, leased, unsettled, count = reply[at : at + 7]
        at += 7
        settled = {reply[n]: reply[n + 1] for n in range(at, at + 2 * count, 2)}
        at += 2 * count
        accounts[day.decode()] = AccountState(limit, available, spent, leased, unsettled, settled)
    return Synced(_SYNC_STATUS[reply[0]], reply[1], reply[2], accounts)


def _billed(reply: list[Any]) -> list[Billed]:
    epoch, time_ms = reply[:2]
    found = []
    at = 2
    while at < len(reply):
        status, charged, count = reply[at : at + 3]
        at += 3
        days = [reply[n].decode() for n in range(at, at + 3 * count, 3)]
        spent = dict(zip(days, reply[at + 1 : at + 3 * count : 3], strict=True))
        limits = dict(zip(days, reply[at + 2 : at + 3 * count : 3], strict=True))
        at += 3 * count
        known = _BILL_STATUS[status]
        found.append(
            Billed(known, charged, epoch, time_ms)
            if known is BillStatus.ASK
            else Billed(known, charged, epoch, time_ms, spent, limits)
        )
    return found


def _fields(raw: list[bytes]) -> dict[str, str]:
    return {raw[n].decode(): raw[n + 1].decode() for n in range(0, len(raw), 2)}


def _view(campaign_id: str, book: Mapping[str, str], keys: Mapping[str, str]) -> BookView:
    accounts = {}
    for day in filter(None, book.get("D", "").split(",")):
        leased = {
            field.removeprefix(f"L|{day}|"): int(nanos)
            for field, nanos in book.items()
            if field.startswith(f"L|{day}|")
        }
        limit, peak, available, spent = (int(book[f"{letter}|{day}"]) for letter in "lhas")
        accounts[day] = AccountView(limit, peak, available, spent, leased)
    charged = {key: (value[0], int(value[1:])) for key, value in keys.items() if key not in ("#", "@")}
    committed = {key: nanos for key, (state, nanos) in charged.items() if state == "c"}
    open_ = {key: nanos for key, (state, nanos) in charged.items() if state == "o"}
    return BookView(campaign_id, int(book["e"]), book["c"] == "1", accounts, committed, open_)
