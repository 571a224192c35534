"""One account of a campaign's budget: the money of a day or of its lifetime, and who has leased how much of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from rtb.domain.budget import AccountState, Limit


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
