"""The account side of a campaign's budget: pure, and the meaning of the Lua scripts that do the same inside Redis."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from rtb.domain.budget import (
    DAYS_KEPT,
    LIFE,
    NO_LIMIT,
    AccountState,
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
class Account:
    """One budget day, or the lifetime; ``limit = available + sum(leased) + spent``, in nanos.

    `peak` is the highest limit there ever was; `older` are limits that were replaced, each with the time until which
    wins made under it are still billed (ms). An instance in `leased` is known here, even with 0. `billed` is the sum of
    an instance's holds that were billed on this book, since it was made or the instance joined.
    """

    limit: int
    cap: int
    available: int
    spent: int = 0
    version: int = 0
    peak: int = 0
    older: list[tuple[int, int]] = field(default_factory=list)
    leased: dict[str, int] = field(default_factory=dict)
    billed: dict[str, int] = field(default_factory=dict)
    unsettled: dict[str, int] = field(default_factory=dict)
    settled: dict[str, dict[int, int]] = field(default_factory=dict)

    @classmethod
    def open(cls, limit: Limit, version: int, spent: int = 0) -> Account:
        """An account that nobody leases from yet; one that is spent beyond its limit begins with a debt."""
        return cls(limit.nanos, limit.cap_nanos, limit.nanos - spent, spent, version, max(limit.nanos, spent))

    def set_limit(self, limit: Limit, version: int, until_ms: int) -> None:
        """Take the limit of a newer version; the old one counts for bills until `until_ms`."""
        if version <= self.version:
            return
        self.version = version
        if limit.nanos != self.limit:
            self.older.append((self.limit, until_ms))
        self.available += limit.nanos - self.limit
        self.limit, self.cap = limit.nanos, limit.cap_nanos
        self.peak = max(self.peak, self.limit)

    def ceiling(self, now_ms: int) -> int:
        """What a bill may bring `spent` to: the highest limit in force while its win can have been made."""
        if not self.older:
            return self.limit
        self.older = [(nanos, until_ms) for nanos, until_ms in self.older if until_ms >= now_ms]
        return max([self.limit, *(nanos for nanos, _ in self.older)])

    def move(self, instance: str, nanos: int) -> None:
        """Lease up to so much, or take a return; what cannot be is not moved."""
        have = self.leased.get(instance, 0)
        moved = max(0, min(nanos, self.available, self.cap - have)) if nanos > 0 else -min(-nanos, have)
        self.leased[instance] = have + moved
        self.available -= moved

    def put(self, instance: str, nanos: int) -> None:
        """Let it have exactly so much; `available` may become a debt."""
        self.available -= nanos - self.leased.get(instance, 0)
        self.leased[instance] = nanos

    def release(self, instance: str) -> None:
        """Take back what an instance has, and forget it."""
        self.available += self.leased.pop(instance, 0)
        self.billed.pop(instance, None)
        self.unsettled.pop(instance, None)
        self.settled.pop(instance, None)

    def charge(self, instance: str, nanos: int, held: int) -> None:
        """Spend, from the instance's lease first, then from what is available, which may become a debt."""
        self.billed[instance] = self.billed.get(instance, 0) + held
        if instance in self.leased:
            leased = min(nanos, self.leased[instance])
            self.leased[instance] -= leased
            self.available -= nanos - leased
            self.unsettled[instance] = self.unsettled.get(instance, 0) + held
        else:
            self.available -= nanos
        self.spent += nanos

    def settle(self, instance: str, bucket: int, held: int) -> None:
        """A charge stands in the ledger: tell its holder."""
        if instance in self.leased:
            settled = self.settled.setdefault(instance, {})
            settled[bucket] = settled.get(bucket, 0) + held
            self.unsettled[instance] = max(0, self.unsettled.get(instance, 0) - held)

    def state(self, instance: str, now_ms: int, settle_ms: int) -> AccountState:
        """As the instance is told; settled holds that have lapsed by now are forgotten."""
        settled = self.settled.get(instance, {})
        for old in [end for end in settled if end * 1_000 + settle_ms < now_ms]:
            del settled[old]
        return AccountState(
            self.limit,
            self.available,
            self.spent,
            self.leased.get(instance, 0),
            self.unsettled.get(instance, 0),
            dict(settled),
        )


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
