"""Budgets: the values of the protocol by which daemons spend one campaign's money without asking each other.

    lease   a daemon takes money of the account for itself, ahead of time
    hold    at a win it sets the price aside, in its own memory
    bill    at the billing event the account is charged, once
    settle  the charge stands in the ledger: the hold is over; a hold that nothing is billed for lapses

`rtb.domain.book` is the account side, `rtb.domain.balance` a daemon's side. For every account
``limit = available + sum(leased) + spent``, in integer nanos; a negative `available` is a debt: nothing is leased until
returned leases have repaid it. Times of the protocol are ``_ms``, Unix milliseconds by the accounts' own clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

from msgspec import Struct

from rtb.domain.money import MAX_NANOS

LIFE = "life"
"""The "day" of a lifetime budget; it sorts after every date."""
BUCKET_MS = 10_000
"""Holds that expire within the same 10 s are one sum."""
DAYS_KEPT = 8
"""Accounts of the newest days stay, so that an event that waited in a queue is still billed on its own day."""


class Timing(Struct, frozen=True, kw_only=True):
    """How long things hold. `window_ms` is the longest time between a win and its billing event.

    A daemon that cannot sync stops spending `ttl_ms` after its last sync was sent; what it held until then is over
    `window_ms` later, and is billed within `settle_ms` more. A bill key is kept `key_life_ms` past the expiry of its
    event, and `settle_ms` after its row was committed, and forgotten by buckets of `key_bucket_ms`; a later repetition
    is looked up in the ledger. A rebuilt budget waits `grace_ms` for daemons to announce what they hold.
    """

    ttl_ms: int = 15_000
    window_ms: int = 60_000
    settle_ms: int = 300_000
    key_life_ms: int = 86_400_000
    key_bucket_ms: int = 3_600_000
    grace_ms: int = 3_000

    @property
    def lease_ms(self) -> int:
        """How long after its last sync a daemon that died may still be billed for."""
        return self.ttl_ms + self.window_ms + self.settle_ms

    def key_bucket(self, expires_ms: int) -> int:
        """The number of the bucket that the key of an event that expires then is kept in."""
        return expires_ms // self.key_bucket_ms


class Limit(Struct, frozen=True, gc=False):
    """What may be spent on one account, and the most of it that one daemon may lease, in nanos."""

    nanos: int
    cap_nanos: int


def limit(nanos: int, *, share: float = 1.0, floor_nanos: int = 0) -> Limit:
    """A limit whose cap is a share of it, but at least `floor_nanos` of it: small budgets are leased whole.

    Raises:
        ValueError: below 0 or above 9 * 10**15, the largest amount that every store's numbers hold exactly.
    """
    if not 0 <= nanos <= MAX_NANOS:
        raise ValueError(f"a limit of {nanos} nanos is not between 0 and {MAX_NANOS}")
    return Limit(nanos, min(nanos, max(int(nanos * share), floor_nanos)))


NO_LIMIT = Limit(MAX_NANOS, MAX_NANOS)
"""Of an account whose campaign has no limit any more."""


class SyncStatus(StrEnum):
    """What became of a sync."""

    OK = "ok"
    MISSING = "missing"  # the budget, or an account that only a rebuild can make, is not there: rebuild it
    EPOCH = "epoch"  # it was rebuilt: announce what you hold under the epoch of the reply
    CLOSED = "closed"  # it waits for announcements
    OLD = "old"  # overtaken by a later sync of the same daemon


class Sync(Struct, frozen=True, kw_only=True, gc=False):
    """A daemon's one request: renew its leases, and lease (> 0) or return (< 0) `moves[day]` nanos.

    With `announce` the moves are what it has, and replace what was reserved for it. An `epoch` of 0 is that of a daemon
    that has heard nothing yet and so holds nothing. `limits` are those of the campaign's `version`.
    """

    campaign_id: str
    instance: str
    seq: int
    epoch: int
    version: int
    limits: Mapping[str, Limit]
    moves: Mapping[str, int]
    announce: bool = False


class AccountState(Struct, frozen=True, gc=False):
    """One account as a sync reply tells it, absolute: what the daemon has leased now, and what all have spent.

    `settled` is the sum of its settled holds a bucket (end of the 10 s, Unix seconds); `unsettled_nanos` are holds that
    are billed and not yet settled.
    """

    limit_nanos: int
    available_nanos: int
    spent_nanos: int
    leased_nanos: int
    unsettled_nanos: int
    settled: Mapping[int, int]


class Synced(Struct, frozen=True, gc=False):
    """The reply to a sync; `accounts` has the days it asked about."""

    status: SyncStatus
    epoch: int = 0
    time_ms: int = 0
    accounts: Mapping[str, AccountState] = {}


class BillStatus(StrEnum):
    """What became of a bill."""

    OK = "ok"
    AGAIN = "again"  # it was billed before: the same charge
    ASK = "ask"  # too old for the keys: only the ledger knows whether it was billed
    MISSING = "missing"  # the budget is not there: rebuild it


class Bill(Struct, frozen=True, kw_only=True, gc=False):
    """A billing event: charge `price_nanos` to the account of `day`, once per `key`, for the daemon that held it.

    `held_nanos` is what was set aside for it. `asked_epoch` is the epoch under which the ledger was asked and did not
    know the key; 0 before.
    """

    key: str
    campaign_id: str
    day: str
    instance: str
    price_nanos: int
    held_nanos: int
    expires_ms: int
    asked_epoch: int = 0


class Billed(Struct, frozen=True, gc=False):
    """What a bill was charged, under which epoch; `spent` and `limits` are of each account after it, in nanos."""

    status: BillStatus
    charged_nanos: int = 0
    epoch: int = 0
    time_ms: int = 0
    spent: Mapping[str, int] = {}
    limits: Mapping[str, int] = {}


class Reserve(Struct, frozen=True, gc=False):
    """What an instance that is gone still holds, in nanos a day, and until when any of it may be billed."""

    until_ms: int
    nanos: Mapping[str, int]


class Opening(Struct, frozen=True, kw_only=True):
    """A budget as it is rebuilt: the limits and what the ledger says was spent, a day each.

    Days up to `floor` are over and get no account any more. It opens once every instance in `waiting` has announced, or
    after `grace_ms`, with the lease cap reserved for those that have not. Of accounts in one process nobody is waited
    for: what each instance that is gone has `reserved` is known. `is_new` says that it never existed before, so that
    nothing can have been billed on it.
    """

    campaign_id: str
    epoch: int
    version: int
    floor: str
    limits: Mapping[str, Limit]
    spent: Mapping[str, int]
    waiting: tuple[str, ...] = ()
    grace_ms: int = 0
    is_new: bool = False
    reserved: Mapping[str, Reserve] = {}


def bucket(expires_ms: int) -> int:
    """The end of the 10 s that a hold expires in, in Unix seconds."""
    return -(-expires_ms // BUCKET_MS) * (BUCKET_MS // 1_000)


def budget_day(now: float, zone: ZoneInfo) -> str:
    """The date in the zone, as in ``2026-11-22``; `now` is Unix seconds."""
    return datetime.fromtimestamp(now, zone).date().isoformat()


def day_before(day: str, days: int = 1) -> str:
    """The date so many days earlier."""
    return (datetime.fromisoformat(day).date() - timedelta(days=days)).isoformat()


def day_end(now: float, zone: ZoneInfo) -> float:
    """Unix seconds of the next midnight in the zone; days of 23 and 25 hours come out right."""
    today = datetime.fromtimestamp(now, zone).date()
    return datetime.combine(today + timedelta(days=1), datetime.min.time(), zone).timestamp()
