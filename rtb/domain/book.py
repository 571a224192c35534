"""The account side of a campaign's budget: pure, and the meaning of the Lua scripts that do the same inside Redis."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from rtb.domain.account import Account
from rtb.domain.budget import (
    DAYS_KEPT,
    LIFE,
    NO_LIMIT,
    Bill,
    Billed,
    BillStatus,
    Limit,
    Opening,
    Reserve,
    Sync,
    Synced,
    SyncStatus,
    Timing,
    bucket,
)

_OK, _AGAIN = BillStatus.OK, BillStatus.AGAIN
FORGET_MS = 86_400_000
"""An instance that has not synced for a day is forgotten."""


@dataclass(slots=True)
class Keys:
    """The bill keys of one bucket: what each was charged, and which have no committed ledger row yet; when the last
    such row was committed."""

    charged: dict[str, int] = field(default_factory=dict)
    open: set[str] = field(default_factory=set)
    settled_ms: int = 0


class Book:
    """A campaign's accounts, its bill keys, and what is known of the instances."""

    def __init__(self, opening: Opening, now_ms: int, timing: Timing) -> None:
        """As rebuilt; open when there is nobody to wait for."""
        self.campaign_id = opening.campaign_id
        self.epoch = opening.epoch
        self.timing = timing
        self.floor = opening.floor
        self.accounts = {
            day: Account.open(limit, opening.version, opening.spent.get(day, 0))
            for day, limit in opening.limits.items()
        }
        self.waiting = set(opening.waiting)
        self.closed = True
        self.opens_ms = now_ms + opening.grace_ms
        self.asks_ms = 0 if opening.is_new else now_ms + timing.window_ms + timing.settle_ms
        self.seqs: dict[str, int] = {}
        self.renewed_ms: dict[str, int] = {}
        self.keys: dict[int, Keys] = {}
        self.open(now_ms)
        for instance, reserve in opening.reserved.items():
            self._reserve(instance, reserve, now_ms)

    @property
    def uncommitted(self) -> dict[str, int]:
        """What was charged under each key whose ledger row is not known to be committed."""
        return {key: keys.charged[key] for keys in self.keys.values() for key in keys.open}

    def begin_life(self, limit: Limit, version: int, spent: int, instance: str) -> None:
        """Open the lifetime account of a campaign that had none, of which `spent` was charged so far. What others than
        `instance` have, for wins of days that are billed on it from now on, they have of it, too; that one syncs."""
        life = Account.open(limit, version, spent)
        for account in self.accounts.values():
            for other, nanos in account.leased.items():
                if other != instance:
                    life.put(other, life.leased.get(other, 0) + nanos)
        life.put(instance, 0)
        self.accounts[LIFE] = life

    def sync(self, sync: Sync, now_ms: int) -> Synced:
        """Lease, renew and return, or announce."""
        instance = sync.instance
        if not self._is_next(sync):
            return Synced(SyncStatus.OLD, self.epoch, now_ms)
        self.expire(now_ms)
        if sync.epoch != self.epoch and (sync.announce or sync.epoch != 0):
            return Synced(SyncStatus.EPOCH, self.epoch, now_ms)
        if not self._set_limits(sync, now_ms):
            return Synced(SyncStatus.MISSING, self.epoch, now_ms)
        if sync.announce:
            self._announce(instance, sync.moves)
        elif sync.epoch == 0:
            self._join(instance)
        self.open(now_ms)
        if self.closed and not sync.announce:
            return Synced(SyncStatus.CLOSED, self.epoch, now_ms)
        self.renewed_ms[instance] = now_ms
        if not sync.announce:
            for day, nanos in sync.moves.items():
                if day in self.accounts:
                    self.accounts[day].move(instance, nanos)
        states = {
            day: self.accounts[day].state(instance, now_ms, self.timing.settle_ms)
            for day in sync.moves
            if day in self.accounts
        }
        return Synced(SyncStatus.OK, self.epoch, now_ms, states)

    def bill(self, bill: Bill, now_ms: int) -> Billed:
        """Charge the day and the lifetime account alike: what the price, and the room in both, allow."""
        number, key = bill.expires_ms // self.timing.key_bucket_ms, bill.key
        keys = self.keys.get(number)
        if keys is None:
            keys = self.keys[number] = Keys()
        before = keys.charged.get(key)
        if before is not None and (key in keys.open or not self._is_over(number, keys, now_ms)):
            return self._billed(_AGAIN, bill, before, now_ms)
        if self._must_ask(bill, now_ms):
            return Billed(BillStatus.ASK, 0, self.epoch, now_ms)
        accounts = self._accounts(bill.day)
        charged = bill.price_nanos if accounts else 0
        for account in accounts:
            room = (account.ceiling(now_ms) if account.older else account.limit) - account.spent
            if room < charged:
                charged = room if room > 0 else 0
        for account in accounts:
            account.charge(bill.instance, charged, bill.held_nanos)
        keys.charged[key] = charged
        keys.open.add(key)
        return self._billed(_OK, bill, charged, now_ms)

    def settle(self, bills: Iterable[Bill], now_ms: int) -> None:
        """The ledger rows of these bills are committed."""
        bucket_ms = self.timing.key_bucket_ms
        for bill in bills:
            keys = self.keys.get(bill.expires_ms // bucket_ms)
            if keys is None or bill.key not in keys.open:
                continue
            keys.open.discard(bill.key)
            keys.settled_ms = now_ms
            for account in self._accounts(bill.day):
                account.settle(bill.instance, bucket(bill.expires_ms), bill.held_nanos)
        self.forget_keys(now_ms)

    def expire(self, now_ms: int) -> None:
        """Take back the leases of instances that stopped syncing so long ago that nothing of theirs is still billed."""
        if self.closed:
            return
        for instance, renewed_ms in list(self.renewed_ms.items()):
            if now_ms > renewed_ms + self.timing.lease_ms:
                for account in self.accounts.values():
                    account.release(instance)
            if now_ms > renewed_ms + self.timing.lease_ms + FORGET_MS:
                del self.renewed_ms[instance]
                self.seqs.pop(instance, None)

    def open(self, now_ms: int) -> None:
        """Open when nobody is waited for, or the wait is over: then the lease cap is reserved for who is missing."""
        if not self.closed or (self.waiting and now_ms < self.opens_ms):
            return
        for instance in self.waiting:
            self.renewed_ms[instance] = now_ms
            for account in self.accounts.values():
                account.put(instance, account.cap)
        self.waiting.clear()
        self.closed = False

    def forget_keys(self, now_ms: int) -> None:
        """Forget the buckets whose events are over for good, and all of whose charges stand in the ledger."""
        over = [n for n, keys in self.keys.items() if not keys.open and self._is_over(n, keys, now_ms)]
        for number in over:
            del self.keys[number]

    def _reserve(self, instance: str, reserve: Reserve, now_ms: int) -> None:
        """Let an instance that is gone have what it holds, as a lease that ends with the last hold."""
        if now_ms > reserve.until_ms:
            return
        self.renewed_ms[instance] = reserve.until_ms - self.timing.lease_ms
        for day, account in self.accounts.items():
            if reserve.nanos.get(day):
                account.put(instance, reserve.nanos[day])

    def _is_next(self, sync: Sync) -> bool:
        """Whether nothing later of the same instance came first."""
        if sync.seq <= self.seqs.get(sync.instance, 0):
            return False
        self.seqs[sync.instance] = sync.seq
        return True

    def _set_limits(self, sync: Sync, now_ms: int) -> bool:
        """Take newer limits, and open the account of a new day. False when the lifetime account is missing: what was
        spent before only the ledger knows."""
        until_ms = now_ms + self.timing.lease_ms
        for day, limit in sync.limits.items():
            if day in self.accounts:
                self.accounts[day].set_limit(limit, sync.version, until_ms)
            elif day == LIFE:
                return False
            elif day > self.floor:
                self.accounts[day] = Account.open(limit, sync.version)
                self._prune()
        if LIFE in self.accounts and LIFE not in sync.limits:
            self.accounts[LIFE].set_limit(NO_LIMIT, sync.version, until_ms)
        return True

    def _prune(self) -> None:
        days = sorted(day for day in self.accounts if day != LIFE)
        for day in days[:-DAYS_KEPT]:
            del self.accounts[day]
            self.floor = max(self.floor, day)

    def _announce(self, instance: str, amounts: Mapping[str, int]) -> None:
        """What an instance has after a rebuild, less what was billed for it since, which it does not know of; nothing
        where its reserve has expired."""
        for day, account in self.accounts.items():
            if self.closed or instance in account.leased:
                account.put(instance, max(0, amounts.get(day, 0) - account.billed.get(instance, 0)))
        self.waiting.discard(instance)

    def _join(self, instance: str) -> None:
        """An instance that has heard nothing holds nothing: what it was given in a lost reply comes back."""
        for account in self.accounts.values():
            account.release(instance)
        self.waiting.discard(instance)

    def _is_over(self, number: int, keys: Keys, now_ms: int) -> bool:
        """Whether the ledger alone remembers the events of a bucket of keys. One that was billed late is known for a
        while, to whoever asked the ledger just before its row was committed there."""
        end_ms = (number + 1) * self.timing.key_bucket_ms + self.timing.key_life_ms
        return max(end_ms, keys.settled_ms + self.timing.settle_ms) < now_ms

    def _must_ask(self, bill: Bill, now_ms: int) -> bool:
        """Whether it may have been billed before, with a key that is gone: by age, or by a rebuild since its win."""
        is_old = now_ms > bill.expires_ms + self.timing.key_life_ms or bill.expires_ms <= self.asks_ms
        return is_old and bill.asked_epoch != self.epoch

    def _accounts(self, day: str) -> list[Account]:
        """Those that pay on a day: its own, and the lifetime's."""
        own, life = self.accounts.get(day), self.accounts.get(LIFE)
        if own is None or own is life:
            return [] if life is None else [life]
        return [own] if life is None else [own, life]

    def _billed(self, status: BillStatus, bill: Bill, charged: int, now_ms: int) -> Billed:
        day, spent, limits = bill.day, {}, {}
        own, life = self.accounts.get(day), self.accounts.get(LIFE)
        if own is not None:
            spent[day], limits[day] = own.spent, own.limit
        if life is not None:
            spent[LIFE], limits[LIFE] = life.spent, life.limit
        return Billed(status, charged, self.epoch, now_ms, spent, limits)
