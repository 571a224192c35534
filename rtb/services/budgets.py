"""Budgets of the house campaigns: a local, synchronous hold at the win, and a signal when a campaign runs dry.

A campaign is leased money when it first wins. With accounts in this process that takes no time. With shared accounts
it is asked for when it first bids (`warm`), and comes some milliseconds later, for which the auction can wait; until
then its claims fail, and its bids are withdrawn. What was not used for a while goes back, and is asked for again. So a
catalogue of any size costs nothing; only campaigns that bid are synced.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from itertools import count

from msgspec import Struct

from rtb.domain.balance import Balance
from rtb.domain.books import Books
from rtb.domain.budget import BUCKET_MS, Opening, Sync, Synced, SyncStatus, Timing, bucket
from rtb.domain.campaign import Campaign
from rtb.messages import AlertKind
from rtb.ports import Clock, NearAccounts
from rtb.services.alerting import Alert
from rtb.services.purse import NS, Purse

LONGEST_BACKOFF_S = 64.0
UNBILLED = Timing(window_ms=10**14)
"""Where nothing is billed a hold is as good as spent: it never lapses."""


class Hold(Struct, frozen=True, gc=False):
    """What was set aside for a win: the budget day it is billed on ("" when nothing limits the campaign), and until
    when the billing event is in time (Unix seconds by the accounts' clock, to the millisecond)."""

    day: str
    expires_at: float


class Standing(Struct, frozen=True, gc=False):
    """A budget as it stands, in nanos: what was spent or is held, and what of that was billed."""

    limit_nanos: int
    spent_nanos: int
    billed_nanos: int = 0


class Spending(Struct, frozen=True, gc=False):
    """What pacing asks of the budget of a day, in nanos: what may be spent before the campaign pauses, what all daemons
    were billed as far as it is known here, and that with what this one holds."""

    day: str
    most_nanos: int
    billed_nanos: int
    committed_nanos: int


class Budgets:
    """A purse a campaign with a budget.

    `on_change(campaign_id, funded)` is called when a campaign can no longer, or again, pay one impression at its bid;
    `on_exhausted` when that is so because of what was spent: it pauses until the next budget day.
    """

    def __init__(
        self,
        clock: Clock,
        on_change: Callable[[str, bool], None] = lambda campaign_id, funded: None,
        *,
        instance: str = "local",
        timing: Timing | None = None,
        share: float = 1.0,
        floor_nanos: int = NS,
        near: NearAccounts | None = None,
        opening: Callable[[Campaign], Opening] | None = None,
        shared: bool = False,
    ) -> None:
        """Start without purses.

        Args:
            clock: time.
            on_change: may be set later.
            instance: new at every start of a process.
            timing: of the protocol, the same in every daemon.
            share: of a limit, the most that one daemon leases, but at least `floor_nanos` of it.
            near: accounts in this process; by default some of its own, which nobody bills: what is held stays spent.
            opening: how `near` opens the book of a campaign; by default as a new one.
            shared: the accounts are elsewhere: Leases syncs what `near` would have.
        """
        self.on_change = on_change
        self.on_exhausted: Alert = _nobody
        self.on_leased: Callable[[], None] | None = None
        """Called after every reply of shared accounts."""
        self.is_shared = shared
        """Whether a lease takes time."""
        self.is_away = False
        """Whether shared accounts do not answer, so that nobody should wait for a lease."""
        self.instance = instance
        self.timing = timing or (Timing() if shared or near is not None else UNBILLED)
        self._unbilled, self._longest_ms = self.timing is UNBILLED, self.timing.window_ms
        self.wake = asyncio.Event()
        self.urgent: dict[str, Purse] = {}
        self.active: dict[str, Purse] = {}
        self._clock = clock
        self._time, self._monotonic_ns = clock.time, clock.monotonic_ns
        self._share = share
        self._floor_nanos = floor_nanos
        self._limited: dict[str, Campaign] = {}
        self._purses: dict[str, Purse] = {}  # of those that won or were looked at: a catalogue has a million
        self._dry: dict[str, Purse] = {}
        self._seqs = count(1)
        self._offset_ms = int(clock.time() * 1_000) - clock.monotonic_ns() // 1_000_000
        self._near: NearAccounts | None = None
        if not shared:
            self._near = near or Books(self.timing, lambda: self._offset_ms + clock.monotonic_ns() // 1_000_000)
        self._opening = opening or self._new_opening

    def watch(self, campaign: Campaign) -> bool:
        """Open the purse of a campaign, or give it its new limits, keeping what was spent.

        Returns:
            Whether it can pay one impression; one that is not leased yet can, as far as is known.
        """
        if campaign.daily_budget is None and campaign.lifetime_budget is None:
            self.drop(campaign.id)
            return True
        self._limited[campaign.id] = campaign
        purse = self._purses.get(campaign.id)
        if purse is None:
            if _pays(campaign):
                return True
            purse = self.purse(campaign.id)
            assert purse is not None
        else:
            now = self._clock.time()
            is_today = now < purse.day_ends and campaign.timezone == purse.campaign.timezone
            purse.begin(campaign, purse.day_ends - 1 if is_today else now, *self._terms)  # a day never comes back
        self._dry.pop(campaign.id, None)
        purse.dry = False
        if not purse.can_ever_pay:
            self._set_dry(purse, silent=True)
        elif purse.balance is not None:
            if self._near is not None:
                self._sync_near(purse)
                if purse.free(self._clock.monotonic_ns()) < purse.bid_nanos:
                    self._set_dry(purse, silent=True)
            else:
                self._hurry(purse)
        return not purse.dry

    def drop(self, campaign_id: str) -> None:
        """Forget a campaign; what it holds is still billed, and known until then, should a budget come back."""
        for known in (self._limited, self._purses, self._dry, self.urgent):
            known.pop(campaign_id, None)
        purse = self.active.get(campaign_id)
        if purse is not None:
            purse.dry, purse.asks, purse.rests_until_ns = True, False, 0  # what is free goes back with the next sync
            self.forget_idle(purse)

    def purse(self, campaign_id: str) -> Purse | None:
        """The purse of a campaign, None for one without a budget."""
        purse = self._purses.get(campaign_id)
        campaign = self._limited.get(campaign_id)
        if purse is None and campaign is not None:
            purse = self._purses[campaign_id] = Purse(campaign, near=self._near is not None)
            purse.begin(campaign, self._clock.time(), *self._terms)
            dropped = self.active.get(campaign_id)
            if dropped is not None:  # a new balance would give away what this one still holds
                purse.use(dropped.balance)
                purse.synced_ns = dropped.synced_ns
                self.active[campaign_id] = purse
        return purse

    def account(self, campaign_id: str) -> Standing | None:
        """The budget of today, else of its life; None for a campaign without one. Shared accounts: as last heard."""
        purse = self.purse(campaign_id)
        if purse is None:
            return None
        self.roll(purse, self._clock.time())
        billed, committed = self._spent(purse)
        return Standing(purse.limits[purse.day].nanos, committed, billed)

    def spending(self, campaign_id: str) -> Spending | None:
        """The budget of today for pacing; None for a campaign without one, and while shared accounts have not been
        heard of: then they are asked."""
        purse = self.purse(campaign_id)
        if purse is None:
            return None
        self.roll(purse, self._clock.time())
        if self._near is None and not purse.heard:
            self._lease(purse)
            return None
        billed, committed = self._spent(purse)
        return Spending(purse.day, purse.most(purse.day), billed, committed)

    def _spent(self, purse: Purse) -> tuple[int, int]:
        """What was billed of today's budget, and with it what is held, in nanos: here, or in accounts of this process
        for what earlier ones won."""
        balance, spent, reserved = purse.balance, purse.spent_nanos, 0
        if self._near is not None:
            if balance is not None:
                self._sync_near(purse, lease=False)
            spent, leased = self._stands(purse)
            reserved = leased - (0 if balance is None else balance.holding(purse.day).leased)
        if balance is None or not balance.epoch:  # a new balance has heard nothing yet
            return spent, spent + reserved
        holding = balance.holding(purse.day)
        return holding.spent, holding.committed + reserved

    def _stands(self, purse: Purse) -> tuple[int, int]:
        """What near accounts have spent of today's budget, and what is leased or reserved of it."""
        assert self._near is not None
        known = self._near.standing_now(purse.campaign.id)
        if known is not None:
            return known.get(purse.day, (0, 0))
        opening = self._opening(purse.campaign)
        reserved = sum(reserve.nanos.get(purse.day, 0) for reserve in opening.reserved.values())
        return opening.spent.get(purse.day, 0), reserved

    def funded(self, campaign_id: str) -> bool:
        """Whether it can pay one impression at its bid."""
        return campaign_id not in self._dry

    def hold(self, campaign_id: str, nanos: int, window_ms: int | None = None) -> Hold | None:
        """Set the cost of a win aside until its billing event, or refuse: never a nano above the lease.

        Args:
            campaign_id: of the winner.
            nanos: its cost.
            window_ms: how long its billing event may take: the longest window of the accounts at most, which is also
                the default, and holds where nothing is billed.
        """
        now_ns = self._monotonic_ns()
        longest = self._longest_ms
        window = longest if window_ms is None or window_ms > longest or self._unbilled else window_ms
        expires_ms = now_ns // 1_000_000 + self._offset_ms + window
        purse = self._purses.get(campaign_id) or self.purse(campaign_id)
        if purse is None:
            return Hold("", expires_ms / 1_000)
        now = self._time()
        if now >= purse.day_ends:
            self.roll(purse, now)
        purse.used_ns = now_ns
        only, balance = purse.only, purse.balance
        if only is not None and only.leased - only.held - only.owed >= nanos and now_ns < balance.deadline_ns:  # type: ignore[union-attr]
            end = -(-expires_ms // BUCKET_MS) * (BUCKET_MS // 1_000)  # bucket() and only.hold(), without the calls
            only.held += nanos
            only.holds[end] = only.holds.get(end, 0) + nanos
            free = only.leased - only.held - only.owed
        else:
            if not self._hold_slowly(purse, nanos, bucket(expires_ms), now_ns):
                self._check(purse, now_ns)
                return None
            free = purse.free(now_ns)
        purse.used_nanos += nanos
        if free < purse.low_nanos:
            self._lease(purse)
            self._check(purse, now_ns)
        return Hold(purse.day, expires_ms / 1_000)

    def is_ready(self, campaign_id: str) -> bool:
        """Whether one impression at the bid could be held now, without another lease."""
        purse = self._purses.get(campaign_id)
        if purse is None:
            return campaign_id not in self._limited
        now_ns, only, balance = self._monotonic_ns(), purse.only, purse.balance
        if only is None or balance is None:
            return purse.free(now_ns) >= purse.bid_nanos
        return only.leased - only.held - only.owed >= purse.bid_nanos and now_ns < balance.deadline_ns

    def is_coming(self, campaign_id: str) -> bool:
        """Whether a lease was asked for and the answer is not in yet."""
        purse = self._purses.get(campaign_id)
        return purse is not None and (purse.asks or purse.flying)

    def warm(self, campaign_id: str) -> None:
        """Lease ahead of the first win, unless that is under way."""
        purse = self.purse(campaign_id)
        if purse is not None and not purse.asks and not purse.flying and not self.is_ready(campaign_id):
            purse.used_ns = self._monotonic_ns()  # or it would count as idle
            self._lease(purse)

    def debit(self, campaign_id: str, nanos: int) -> bool:
        """Whether the cost could be held."""
        return self.hold(campaign_id, nanos) is not None

    def refresh(self) -> None:
        """Once a second: begin new days, and see whether campaigns that ran dry can pay again."""
        now, now_ns = self._clock.time(), self._clock.monotonic_ns()
        for purse in list(self._dry.values()):
            self.roll(purse, now)
            if now_ns >= purse.check_ns and purse.can_ever_pay:
                self._look_again(purse, now_ns)

    def _look_again(self, purse: Purse, now_ns: int) -> None:
        if purse.exhausted:
            return
        purse.check_ns = now_ns + int(purse.backoff_s * NS)
        purse.backoff_s = min(purse.backoff_s * 2, LONGEST_BACKOFF_S)
        self._lease(purse)
        if self._near is not None:
            self._check(purse, now_ns)

    def restored(self, campaign_ids: Collection[str]) -> None:
        """Accounts in this process have what these campaigns found missing there."""
        now_ns = self._clock.monotonic_ns()
        for campaign_id in campaign_ids:
            purse = self._purses.get(campaign_id)
            if purse is not None:
                self._lease(purse)
                self._check(purse, now_ns)

    def request(self, purse: Purse, now_ns: int, *, lease: bool = True) -> Sync:
        """The next sync of a purse, to be sent now; without `lease` all that is free goes back."""
        balance = purse.balance
        assert balance is not None
        moves = purse.moves(now_ns)
        if not lease:
            moves = {day: -max(0, holding.free) for day, holding in balance.holdings.items()}
        return balance.sync(next(self._seqs), purse.campaign.version, purse.limits, moves)

    def apply(self, purse: Purse, sync: Sync, reply: Synced, sent_ns: int) -> None:
        """Take a reply, and say so when the campaign can pay again, or no longer."""
        balance = purse.balance
        if balance is None:
            return
        now_ns = self._clock.monotonic_ns()
        if balance.apply(sync, reply, sent_ns):
            self._offset_ms = reply.time_ms - now_ns // 1_000_000
            purse.believe()
            purse.forget_old_days()
        if self._purses.get(purse.campaign.id) is purse:
            self._check(purse, now_ns)
        if self.on_leased is not None:
            self.on_leased()

    def forget_idle(self, purse: Purse) -> None:
        """Drop the balance of a campaign that has nothing leased or held."""
        if purse.is_empty and not purse.flying and not purse.asks:
            purse.use(None)
            self.active.pop(purse.campaign.id, None)

    def look(self) -> None:
        """Hear from accounts in this process which holds are over."""
        for purse in self.active.values() if self._near is not None else ():
            self._sync_near(purse, lease=False)

    @property
    def held(self) -> bool:
        """Whether any hold is open."""
        return any(h.held for p in self.active.values() if p.balance for h in p.balance.holdings.values())

    @property
    def _terms(self) -> tuple[float, int]:
        return self._share, self._floor_nanos

    def roll(self, purse: Purse, now: float) -> None:
        """Begin a new budget day when the old one is over."""
        if now >= purse.day_ends:
            purse.begin(purse.campaign, now, *self._terms)

    def _lease(self, purse: Purse) -> None:
        """Get money: at once from near accounts, else soon."""
        if purse.balance is None:
            purse.use(Balance(purse.campaign.id, self.instance, self.timing))
            self.active[purse.campaign.id] = purse
        if self._near is None:
            self._hurry(purse)
        else:
            self._sync_near(purse)

    def _hold_slowly(self, purse: Purse, nanos: int, end: int, now_ns: int) -> bool:
        """On two accounts, or after leasing more."""
        if purse.hold(nanos, end, now_ns):
            return True
        self._lease(purse)
        return self._near is not None and purse.hold(nanos, end, now_ns)

    def _hurry(self, purse: Purse) -> None:
        purse.asks = True
        self.urgent[purse.campaign.id] = purse
        self.wake.set()

    def _sync_near(self, purse: Purse, *, lease: bool = True) -> None:
        """Lease all there is, in process."""
        near, balance = self._near, purse.balance
        assert near is not None
        assert balance is not None
        for _ in range(3):  # a missing book is opened, then announced to
            sent_ns = self._clock.monotonic_ns()
            for day in purse.days:
                balance.holding(day)
            moves = {
                day: (limit.cap_nanos if lease and (limit := purse.limits.get(day)) else 0) for day in balance.holdings
            }
            sync = balance.sync(next(self._seqs), purse.campaign.version, purse.limits, moves)
            reply = near.sync_now(sync)
            if balance.apply(sync, reply, sent_ns):
                self._offset_ms = reply.time_ms - sent_ns // 1_000_000
                purse.believe()
                purse.forget_old_days()
                if not sync.announce:
                    return
            elif reply.status is SyncStatus.MISSING and near.standing_now(purse.campaign.id) is None:
                near.install_now(self._opening(purse.campaign))
            elif reply.status is SyncStatus.MISSING:  # a lifetime budget that is new: only the ledger can tell
                self.urgent[purse.campaign.id] = purse
                self.wake.set()
                return
            elif reply.status is not SyncStatus.EPOCH:
                return

    def _check(self, purse: Purse, now_ns: int) -> None:
        """Say so when it can pay again, or no longer. Whose lease went back unused is leased for when it bids."""
        funded = purse.free(now_ns) >= purse.bid_nanos
        if funded and purse.dry:
            purse.dry = False
            purse.backoff_s, purse.check_ns = 1.0, 0
            del self._dry[purse.campaign.id]
            self.on_change(purse.campaign.id, True)
        elif not funded and not purse.dry and (purse.exhausted or not purse.is_idle(now_ns)):
            self._set_dry(purse)
        if purse.dry and purse.exhausted:
            limit_nanos = purse.limits[purse.day].nanos
            kind = AlertKind.PAUSE
            self.on_exhausted(
                purse.campaign.id, purse.day, kind, spent_nanos=purse.spent_nanos, limit_nanos=limit_nanos
            )

    def _new_opening(self, campaign: Campaign) -> Opening:
        """The book of a campaign that never had one."""
        return Opening(
            campaign_id=campaign.id,
            epoch=1,
            version=campaign.version,
            floor="",
            limits=self._purses[campaign.id].limits,
            spent={},
            is_new=True,
        )

    def _set_dry(self, purse: Purse, *, silent: bool = False) -> None:
        purse.dry, purse.rests_until_ns = True, 0
        self._dry[purse.campaign.id] = purse
        if not silent:
            self.on_change(purse.campaign.id, False)


def _pays(campaign: Campaign) -> bool:
    """Whether its budgets allow one impression at its bid."""
    limits = (campaign.pause_nanos, campaign.lifetime_budget_nanos)
    return all(nanos is None or nanos >= campaign.most_micros for nanos in limits)


def _nobody(campaign_id: str, day: str, kind: AlertKind, *, spent_nanos: int, limit_nanos: int) -> None:
    """Nobody wants to know."""
