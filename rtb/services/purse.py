"""What one campaign may spend, as this daemon knows it: its limits of today, its balance, and how fast it spends."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from rtb.domain.balance import Balance, Holding
from rtb.domain.budget import LIFE, Limit, budget_day, day_end, limit
from rtb.domain.campaign import Campaign

NS = 1_000_000_000
IDLE_NS = 10 * NS
"""A campaign that won nothing for so long gives its lease back."""
AHEAD_S = 3.0
"""A lease is for the spending of so many seconds,"""
AHEAD_IMPS = 20
"""and for so many impressions at the campaign's bid at least;"""
SHARE = 4
"""but not for more than this part of what is still available: the end of a budget is shared."""


class Purse(Struct, gc=False, eq=False):
    """A campaign with a limit. `days` are the accounts that pay now, `day` the one that its wins are billed on.

    With less than `low_nanos` free it is time to lease more; `asks` that a lease is wanted though it is dry; `flying`
    that a sync is under way. Before `rests_until_ns` nothing is due unless something changes. `exhausted`: what was
    spent leaves less than one impression, so that nothing changes before a new day or limit. `spent_nanos` is what all
    daemons spent of `day`, as last heard; `heard` that an account has told it. `only` is the holding where one account
    pays alone. `reserve_nanos` of the day's limit are not spent: the campaign pauses before; what was won earlier is
    still billed from them. Where the accounts are `near`, in this process, what others have leased is what earlier
    processes still hold: it is as good as spent.
    """

    campaign: Campaign
    near: bool = False
    limits: Mapping[str, Limit] = {}
    days: tuple[str, ...] = ()
    day: str = ""
    day_ends: float = 0.0
    bid_nanos: int = 0
    balance: Balance | None = None
    dry: bool = False
    used_nanos: int = 0
    used_ns: int = 0
    synced_ns: int = 0
    rate: float = 0.0
    check_ns: int = 0
    backoff_s: float = 1.0
    low_nanos: int = 0
    asks: bool = False
    flying: bool = False
    rests_until_ns: int = 0
    exhausted: bool = False
    spent_nanos: int = 0
    heard: bool = False
    reserve_nanos: int = 0
    only: Holding | None = None

    def begin(self, campaign: Campaign, now: float, share: float, floor_nanos: int) -> None:
        """Take the limits of a campaign (a new version, or a new day)."""
        self.campaign = campaign
        self.bid_nanos = campaign.most_micros
        day, life = campaign.daily_budget_nanos, campaign.lifetime_budget_nanos
        limits = {}
        if day is not None:
            limits[budget_day(now, campaign.zone)] = limit(day, share=share, floor_nanos=floor_nanos)
        if life is not None:
            limits[LIFE] = limit(life, share=share, floor_nanos=floor_nanos)
        self.limits = limits
        self.days = tuple(limits)
        self.reserve_nanos = 0 if day is None else day - (campaign.pause_nanos or 0)
        if self.day != self.days[0]:
            self.day, self.spent_nanos = self.days[0], 0
        self.exhausted = False
        self.day_ends = day_end(now, campaign.zone)
        self.check_ns, self.backoff_s = 0, 1.0
        self.low_nanos = max(self.low_nanos, self.bid_nanos)
        self.use(self.balance)

    def use(self, balance: Balance | None) -> None:
        """Spend from this balance."""
        self.balance = balance
        self.rests_until_ns = 0
        alone = balance is not None and len(self.days) == 1 and not self.reserve_nanos
        self.only = balance.holding(self.day) if balance is not None and alone else None

    @property
    def can_ever_pay(self) -> bool:
        """Whether the limits allow one impression at the bid at all."""
        return all(self.most(day) >= self.bid_nanos for day in self.limits)

    def most(self, day: str) -> int:
        """What may be spent on an account before the campaign pauses."""
        limit = self.limits[day].nanos
        return limit - self.reserve_nanos if self.reserve_nanos and day != LIFE else limit

    def free(self, now_ns: int) -> int:
        """What can be held now."""
        balance = self.balance
        if balance is None:
            return 0
        free = min(balance.spendable(day, now_ns) for day in self.days)
        if self.reserve_nanos:
            holding = balance.holding(self.day)
            taken = holding.committed + (holding.elsewhere if self.near else 0)
            free = min(free, self.most(self.day) - taken)
        return free

    def hold(self, nanos: int, bucket: int, now_ns: int) -> bool:
        """Set aside on every account; whether it could be."""
        if self.balance is None or (self.reserve_nanos and self.free(now_ns) < nanos):
            return False
        return self.balance.hold(self.days, nanos, bucket, now_ns)

    def believe(self) -> None:
        """Keep what a reply told of the spending."""
        balance = self.balance
        if balance is not None:
            self.spent_nanos, self.heard = balance.holding(self.day).spent, True
            self.exhausted = any(balance.holding(day).spent + self.bid_nanos > self.most(day) for day in self.limits)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is leased or held."""
        return self.balance is None or not any(h.leased or h.held for h in self.balance.holdings.values())

    def is_idle(self, now_ns: int) -> bool:
        """Whether it has won nothing for so long that its lease goes back."""
        return now_ns - self.used_ns > IDLE_NS

    def is_due(self, now_ns: int, ttl_ns: int) -> bool:
        """Whether it should be synced though nothing is urgent: to lease ahead, to renew, or to give back."""
        balance = self.balance
        if balance is None or self.flying:
            return False
        if now_ns - self.synced_ns > ttl_ns // 3 or any(holding.owed for holding in balance.holdings.values()):
            return True
        if self.dry or self.is_idle(now_ns):
            return any(holding.free > 0 for holding in balance.holdings.values())
        return any(balance.holding(day).free < self.low_nanos for day in self.days)

    def rest(self, now: float, now_ns: int, ttl_ns: int) -> None:
        """Nothing is due now (Unix seconds, and on the monotonic clock): see until when that is so."""
        if not self.flying:
            ends = [self.synced_ns + ttl_ns // 3, now_ns + int((self.day_ends - now) * NS)]
            self.rests_until_ns = min(ends if self.is_idle(now_ns) else [*ends, self.used_ns + IDLE_NS])

    def moves(self, now_ns: int) -> dict[str, int]:
        """What to lease and to return now, an account each."""
        balance = self.balance
        assert balance is not None
        if self.synced_ns:
            seconds = max(now_ns - self.synced_ns, 1) / NS
            self.rate += (self.used_nanos / seconds - self.rate) * min(1.0, seconds / 2)
        self.used_nanos, self.synced_ns, self.rests_until_ns = 0, now_ns, 0
        for day in self.days:
            balance.holding(day)
        self.low_nanos = self._target() // 2
        gives_back = not self.asks if self.dry else self.is_idle(now_ns)
        self.asks = False
        return {
            day: -max(0, holding.free) if gives_back or day not in self.days else self._move(day, holding)
            for day, holding in balance.holdings.items()
        }

    def forget_old_days(self) -> None:
        """Drop the holdings of days that are over and settled."""
        holdings = self.balance.holdings if self.balance is not None else {}
        for day in [day for day, h in holdings.items() if day not in self.days and not h.held and not h.leased]:
            del holdings[day]

    def _move(self, day: str, holding: Holding) -> int:
        free, target = holding.free, self._target()
        available = holding.available - (self.reserve_nanos if day != LIFE else 0)
        if holding.available < 0:
            return 0  # what it owes goes back by itself
        if 2 * free < target:
            need = self.bid_nanos - free
            known = self.balance is not None and self.balance.epoch
            return max(need, min(target - free, available // SHARE)) if known else target - free
        return 2 * target - free if free > 4 * target else 0

    def _target(self) -> int:
        return max(int(self.rate * AHEAD_S), self.bid_nanos * AHEAD_IMPS)
