"""A daemon's side of a campaign's budget: what it has leased, what it holds, and the syncs that tell the account."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rtb.domain.budget import LIFE, AccountState, Limit, Sync, Synced, SyncStatus, Timing

NEVER_NS = -(1 << 62)
NO_ACCOUNT = AccountState(0, 0, 0, 0, 0, {})


@dataclass(slots=True)
class Holding:
    """What a daemon has of one account, in nanos.

    `holds` are the open holds, a sum for each 10 s they expire in (end, Unix seconds), `held` their sum; `settled` is
    what the account has told of them so far. What all daemons spent, and what others have leased (`elsewhere`), is as
    of the last reply, once one was `heard`. `owed` is leased and free, but the account is in debt: it goes back with
    the next sync, and must not be spent before.
    """

    leased: int = 0
    held: int = 0
    holds: dict[int, int] = field(default_factory=dict)
    settled: dict[int, int] = field(default_factory=dict)
    owed: int = 0
    spent: int = 0
    unsettled: int = 0
    available: int = 0
    elsewhere: int = 0
    heard: bool = False

    @property
    def free(self) -> int:
        """Leased, not held and not owed: what can be spent or returned."""
        return self.leased - self.held - self.owed

    @property
    def committed(self) -> int:
        """Spent by all daemons or held by this one; what is billed and not settled counts once."""
        return max(self.spent, self.spent + self.held - self.unsettled)

    def hold(self, nanos: int, bucket: int) -> None:
        """Set aside; the caller has seen that it is free."""
        self.held += nanos
        self.holds[bucket] = self.holds.get(bucket, 0) + nanos

    def apply(self, state: AccountState, time_ms: int, settle_ms: int) -> None:
        """Believe the account: its lease replaces ours, settled holds are over, and old ones lapse by its time."""
        self.heard = True
        self.leased = state.leased_nanos
        self.spent = state.spent_nanos
        self.available = state.available_nanos
        self.unsettled = state.unsettled_nanos
        self.elsewhere = max(0, state.limit_nanos - self.available - self.spent - self.leased)
        for bucket, nanos in state.settled.items():
            self._end(bucket, nanos - self.settled.get(bucket, 0))
        self.settled = dict(state.settled)
        while self.holds and self.has_lapsed(first := min(self.holds), time_ms, settle_ms):
            self.held -= self.holds.pop(first)
        self.owed = 0
        self.owed = max(0, min(self.free, -self.available))

    def has_lapsed(self, bucket: int, time_ms: int, settle_ms: int) -> bool:
        """Whether what expired then can no longer be billed in time."""
        return time_ms > bucket * 1_000 + settle_ms

    def _end(self, bucket: int, nanos: int) -> None:
        ended = max(0, min(nanos, self.holds.get(bucket, 0)))
        if ended:
            self.holds[bucket] -= ended
            self.held -= ended


class Balance:
    """The holdings of one campaign, a day each. Every change of a lease goes through `sync` and `apply`.

    `epoch` is that of the last reply, 0 before any; `announces` the epoch to announce under, when the budget was
    rebuilt. Nothing may be held at or after `deadline_ns` on the monotonic clock.
    """

    __slots__ = ("announces", "campaign_id", "deadline_ns", "epoch", "holdings", "instance", "seq", "timing")

    def __init__(self, campaign_id: str, instance: str, timing: Timing) -> None:
        """With nothing."""
        self.campaign_id = campaign_id
        self.instance = instance
        self.timing = timing
        self.epoch = 0
        self.announces = 0
        self.seq = 0
        self.deadline_ns = NEVER_NS
        self.holdings: dict[str, Holding] = {}

    def holding(self, day: str) -> Holding:
        """What it has of a day."""
        known = self.holdings.get(day)
        if known is None:
            known = self.holdings[day] = Holding()
            if day == LIFE:
                self._hold_for_life(known)
        return known

    def spendable(self, day: str, now_ns: int) -> int:
        """What can be held on a day now; 0 once the lease is too old."""
        return self.holding(day).free if now_ns < self.deadline_ns else 0

    def hold(self, days: tuple[str, ...], nanos: int, bucket: int, now_ns: int) -> bool:
        """Set `nanos` aside on every one of the days, or on none; whether it was."""
        if now_ns >= self.deadline_ns:
            return False
        holdings = [self.holding(day) for day in days]
        for holding in holdings:
            if holding.free < nanos:
                return False
        for holding in holdings:
            holding.hold(nanos, bucket)
        return True

    def sync(self, seq: int, version: int, limits: Mapping[str, Limit], moves: Mapping[str, int]) -> Sync:
        """The next sync, to be sent now. A return is debited here first, and only what is free is returned."""
        self.seq = seq
        announce = self.announces not in (0, self.epoch)
        if announce:
            moves = {day: max(holding.leased, holding.held) for day, holding in self.holdings.items()}
        else:
            moves = {day: self._debit(day, nanos) for day, nanos in moves.items()}
        return Sync(
            campaign_id=self.campaign_id,
            instance=self.instance,
            seq=seq,
            epoch=self.announces if announce else self.epoch,
            version=version,
            limits=limits,
            moves=moves,
            announce=announce,
        )

    def apply(self, sync: Sync, reply: Synced, sent_ns: int) -> bool:
        """Take the reply to the last sync, which was sent at `sent_ns`; whether it was one to believe."""
        if sync.seq != self.seq:
            return False
        if reply.status is SyncStatus.EPOCH:
            self.announces = reply.epoch
        if reply.status is not SyncStatus.OK:
            return False
        if reply.epoch != self.epoch:
            for holding in self.holdings.values():
                holding.settled = {}
            self.epoch = self.announces = reply.epoch
        for day in sorted(sync.moves):  # the life comes last
            state, holding = reply.accounts.get(day, NO_ACCOUNT), self.holding(day)
            if day == LIFE and not holding.heard:  # what was settled meanwhile the days have just let go
                self._hold_for_life(holding)
                holding.settled = dict(state.settled)
            holding.apply(state, reply.time_ms, self.timing.settle_ms)
        self.deadline_ns = sent_ns + self.timing.ttl_ms * 1_000_000
        return True

    def _hold_for_life(self, life: Holding) -> None:
        """What is held for wins of any day is the life's, too, from when that has a budget."""
        life.held, life.holds = 0, {}
        for holding in self.holdings.values():
            if holding is not life:
                for bucket, nanos in holding.holds.items():
                    life.hold(nanos, bucket)

    def _debit(self, day: str, nanos: int) -> int:
        """What may be moved: a return is limited to what is free, and gone at once; what is owed goes with it."""
        holding = self.holding(day)
        if nanos >= 0 and not holding.owed:
            return nanos
        returned = holding.owed + min(max(0, -nanos), max(0, holding.free))
        holding.leased -= returned
        holding.owed = 0
        return -returned
