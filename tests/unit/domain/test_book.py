"""The account side of a budget, clause by clause; amounts are nanos, times ms since an arbitrary start."""

from __future__ import annotations

from collections.abc import Mapping

from rtb.domain.book import Book
from rtb.domain.budget import (
    LIFE,
    AccountState,
    Bill,
    BillStatus,
    Limit,
    Opening,
    Sync,
    Synced,
    SyncStatus,
    Timing,
    bucket,
)

TIMING = Timing(
    ttl_ms=10_000, window_ms=60_000, settle_ms=300_000, key_life_ms=600_000, key_bucket_ms=60_000, grace_ms=3_000
)
DAY = "2026-11-22"
NEXT = "2026-11-23"
START = 1_000_000_000


class Desk:
    """A book with a limit of 100 and a cap of 40, on a clock that is set by hand."""

    def __init__(
        self,
        limit: int = 100,
        cap: int = 40,
        *,
        epoch: int = 1,
        spent: Mapping[str, int] | None = None,
        waiting: tuple[str, ...] = (),
        life: int | None = None,
        is_new: bool = True,
    ) -> None:
        self.now = START
        self.limits = {DAY: Limit(limit, cap)}
        if life is not None:
            self.limits[LIFE] = Limit(life, life)
        opening = Opening(
            campaign_id="c",
            epoch=epoch,
            version=1,
            floor="2026-11-20",
            limits=self.limits,
            spent=spent or {},
            waiting=waiting,
            grace_ms=3_000,
            is_new=is_new,
        )
        self.book = Book(opening, self.now, TIMING)
        self.seq = 0

    def sync(
        self,
        instance: str = "i",
        *,
        epoch: int = 1,
        seq: int | None = None,
        version: int = 1,
        limits: Mapping[str, Limit] | None = None,
        announce: bool = False,
        **moves: int,
    ) -> Synced:
        """A sync; ``day=5`` leases 5 on DAY, ``next=`` on NEXT, ``life=`` of the lifetime."""
        self.seq += 1
        names = {"day": DAY, "next": NEXT, "life": LIFE}
        reply = self.book.sync(
            Sync(
                campaign_id="c",
                instance=instance,
                seq=self.seq if seq is None else seq,
                epoch=epoch,
                version=version,
                limits=self.limits if limits is None else limits,
                moves={names[name]: nanos for name, nanos in moves.items()},
                announce=announce,
            ),
            self.now,
        )
        self.check()
        return reply

    def leased(self, instance: str = "i", **fields: object) -> int:
        """What it has on DAY after a sync."""
        return self.sync(instance, **fields).accounts[DAY].leased_nanos  # type: ignore[arg-type]

    def bill(self, key: str = "k", price: int = 5, *, instance: str = "i", day: str = DAY, asked: int = 0) -> Bill:
        """A bill whose event expires at the end of the window from now."""
        return Bill(
            key=key,
            campaign_id="c",
            day=day,
            instance=instance,
            price_nanos=price,
            held_nanos=price,
            expires_ms=self.now + TIMING.window_ms,
            asked_epoch=asked,
        )

    def charge(self, bill: Bill) -> tuple[BillStatus, int]:
        """Bill it."""
        billed = self.book.bill(bill, self.now)
        self.check()
        return billed.status, billed.charged_nanos

    def check(self) -> None:
        """The equation, for every account."""
        for account in self.book.accounts.values():
            assert account.limit == account.available + sum(account.leased.values()) + account.spent
            assert account.spent <= account.peak
            assert all(nanos >= 0 for nanos in account.leased.values())

    @property
    def available(self) -> int:
        """Of DAY."""
        return self.book.accounts[DAY].available


def test_leases_are_bounded_by_cap_and_by_what_is_there() -> None:
    """40 is the most one daemon has; the third gets what is left of 100."""
    desk = Desk()
    assert desk.leased("i", epoch=0, day=30) == 30
    assert desk.leased("i", day=30) == 40
    assert desk.leased("j", epoch=0, day=40) == 40
    assert desk.leased("k", epoch=0, day=40) == 20
    assert desk.available == 0
    assert desk.leased("j", day=-15) == 25
    assert desk.leased("j", day=-90) == 0
    assert desk.available == 40


def test_a_sync_that_was_overtaken_is_refused() -> None:
    """A delayed command of an earlier sequence number moves nothing."""
    desk = Desk()
    assert desk.leased(epoch=0, seq=5, day=10) == 10
    assert desk.sync(seq=4, day=10).status is SyncStatus.OLD
    assert desk.sync(seq=5, day=10).status is SyncStatus.OLD
    assert desk.leased(seq=6, day=0) == 10


def test_who_has_heard_nothing_holds_nothing() -> None:
    """The reply to a first lease was lost: asking again gives the same, not twice."""
    desk = Desk()
    desk.sync(epoch=0, day=30)
    assert desk.leased(epoch=0, day=30) == 30
    assert desk.available == 70


def test_a_bill_takes_from_the_lease_first() -> None:
    """Then from what is available, which may become a debt: nothing is leased before returns have repaid it."""
    desk = Desk()
    desk.sync("i", epoch=0, day=40)
    desk.sync("j", epoch=0, day=40)
    assert desk.charge(desk.bill("a", 15)) == (BillStatus.OK, 15)
    assert (desk.leased(day=0), desk.available) == (25, 20)
    assert desk.charge(desk.bill("b", 50)) == (BillStatus.OK, 50)
    assert (desk.leased(day=0), desk.available) == (0, -5)
    assert desk.leased("k", epoch=0, day=40) == 0
    assert (desk.leased("j", day=-10), desk.available) == (30, 5)


def test_a_bill_never_passes_the_limit() -> None:
    """The last one is charged what is left, the next nothing."""
    desk = Desk()
    assert desk.charge(desk.bill("a", 90)) == (BillStatus.OK, 90)
    assert desk.charge(desk.bill("b", 20)) == (BillStatus.OK, 10)
    assert desk.charge(desk.bill("c", 1)) == (BillStatus.OK, 0)


def test_a_repeated_bill_returns_what_was_charged() -> None:
    """Also when it was charged in part, and after its row was committed."""
    desk = Desk()
    desk.charge(desk.bill("a", 95))
    bill = desk.bill("b", 20)
    assert desk.charge(bill) == (BillStatus.OK, 5)
    assert desk.charge(bill) == (BillStatus.AGAIN, 5)
    desk.book.settle([bill], desk.now)
    assert desk.charge(bill) == (BillStatus.AGAIN, 5)
    assert desk.book.accounts[DAY].spent == 100


def test_a_key_is_kept_until_its_row_is_committed() -> None:
    """Then for its life, and the settling at least; after that the ledger is asked, and an unknown one is billed."""
    desk = Desk()
    bill = desk.bill()
    desk.charge(bill)
    desk.now += 10 * TIMING.key_life_ms
    desk.book.forget_keys(desk.now)
    assert desk.charge(bill)[0] is BillStatus.AGAIN
    desk.book.settle([bill], desk.now)
    desk.now += TIMING.settle_ms
    assert desk.charge(bill) == (BillStatus.AGAIN, 5)
    desk.now += 1
    assert desk.charge(bill) == (BillStatus.ASK, 0)
    other = desk.bill("never seen")
    desk.now += TIMING.window_ms + TIMING.key_life_ms + 1
    assert desk.charge(other) == (BillStatus.ASK, 0)
    asked = Bill(
        **{name: getattr(other, name) for name in other.__struct_fields__ if name != "asked_epoch"}, asked_epoch=1
    )
    assert desk.charge(asked) == (BillStatus.OK, 5)


def test_after_a_rebuild_the_ledger_is_asked_for_older_wins() -> None:
    """Whatever expires within a window and settling of the rebuild may have been billed before; later wins cannot."""
    desk = Desk(epoch=2, is_new=False)
    assert desk.charge(desk.bill("a")) == (BillStatus.ASK, 0)
    assert desk.charge(desk.bill("a", asked=1)) == (BillStatus.ASK, 0)
    assert desk.charge(desk.bill("a", asked=2)) == (BillStatus.OK, 5)
    desk.now += TIMING.settle_ms + 1
    assert desk.charge(desk.bill("b")) == (BillStatus.OK, 5)


def test_settled_holds_are_told_to_their_holder() -> None:
    """Once each, by the bucket they expire in, until they have lapsed anyway; before that they count as unsettled."""
    desk = Desk()
    desk.sync(epoch=0, day=40)
    bills = [desk.bill("a", 5), desk.bill("b", 6)]
    for bill in bills:
        desk.charge(bill)
    state = desk.sync(day=0).accounts[DAY]
    assert (state.unsettled_nanos, state.settled) == (11, {})
    desk.book.settle([bills[0]], desk.now)
    desk.book.settle(bills, desk.now)
    end = bucket(bills[0].expires_ms)
    assert desk.sync(day=0).accounts[DAY] == AccountState(100, 60, 11, 29, 0, {end: 11})
    desk.now = end * 1_000 + TIMING.settle_ms
    assert desk.sync(day=0).accounts[DAY].settled == {end: 11}
    desk.now += 1
    assert desk.sync(day=0).accounts[DAY].settled == {}


def test_the_lease_of_a_dead_instance_expires() -> None:
    """Once nothing of it can be billed in time any more, and not a millisecond earlier."""
    desk = Desk()
    desk.sync("dead", epoch=0, day=40)
    desk.now += TIMING.lease_ms
    desk.sync("i", epoch=0, day=40)
    assert desk.available == 20
    desk.now += 1
    desk.sync("i", day=0)
    assert desk.available == 60
    assert desk.leased("dead", day=0) == 0


def test_a_rebuilt_book_waits_for_announcements() -> None:
    """It is closed to leases, not to bills; once all have announced it opens, with what they said, less what was billed
    for them before they said it."""
    desk = Desk(epoch=2, spent={DAY: 10}, waiting=("i", "j"), is_new=False)
    assert desk.sync("i", epoch=1, day=5) == Synced(SyncStatus.EPOCH, 2, desk.now)
    assert desk.sync("new", epoch=0, day=5).status is SyncStatus.CLOSED
    assert desk.charge(desk.bill("a", asked=2)) == (BillStatus.OK, 5)
    assert desk.leased("i", epoch=2, announce=True, day=25) == 20
    assert desk.leased("i", epoch=2, announce=True, day=25) == 20
    assert desk.sync("i", epoch=2, day=5).status is SyncStatus.CLOSED
    assert desk.leased("j", epoch=2, announce=True, day=0) == 0
    assert desk.leased("new", epoch=0, day=5) == 5
    assert desk.available == 100 - 10 - 5 - 20 - 5


def test_the_cap_is_reserved_for_who_does_not_announce() -> None:
    """After the grace time; a late announcement replaces the reserve, and after its expiry there is nothing left."""
    desk = Desk(epoch=2, waiting=("late", "dead"), is_new=False)
    desk.now += TIMING.grace_ms
    assert desk.leased("i", epoch=0, day=40) == 20
    assert desk.leased("late", epoch=2, announce=True, day=30) == 30
    assert desk.available == 10
    desk.now += TIMING.lease_ms + 1
    assert desk.leased("i", epoch=2, day=0) == 0  # it had not synced either
    assert desk.available == 100
    assert desk.leased("dead", epoch=2, announce=True, day=30) == 0


def test_reserves_may_exceed_what_is_left() -> None:
    """The debt is repaid by a holder's free lease."""
    desk = Desk(epoch=2, spent={DAY: 70}, waiting=("dead",), is_new=False)
    desk.now += TIMING.grace_ms
    assert desk.leased("i", epoch=0, day=40) == 0
    assert desk.available == -10


def test_limits_change_by_version() -> None:
    """An older or repeated change is ignored; what was won under a higher limit is billed for a while."""
    desk = Desk()
    lower = {DAY: Limit(20, 10)}
    desk.sync(epoch=0, version=1, day=0)
    desk.sync(version=3, limits=lower, day=0)
    desk.sync(version=2, limits={DAY: Limit(500, 500)}, day=0)
    desk.sync(version=3, limits={DAY: Limit(500, 500)}, day=0)
    assert desk.available == 20
    assert desk.charge(desk.bill("a", 30)) == (BillStatus.OK, 30)
    assert desk.available == -10
    desk.now += TIMING.lease_ms + 1
    assert desk.charge(desk.bill("b", 30)) == (BillStatus.OK, 0)
    desk.sync(version=4, limits={DAY: Limit(50, 50)}, day=0)
    assert desk.available == 20


def test_a_new_day_opens_itself_and_an_old_one_stays() -> None:
    """Only a day that was never there: not one that is over."""
    desk = Desk()
    desk.sync(epoch=0, day=40)
    desk.limits = {NEXT: Limit(50, 50)}
    state = desk.sync(next=50, day=-40).accounts
    assert (state[NEXT].leased_nanos, state[DAY].leased_nanos) == (50, 0)
    assert desk.charge(desk.bill("late", 7)) == (BillStatus.OK, 7)
    assert desk.book.accounts[DAY].spent == 7
    over = "2026-11-20"
    assert over not in desk.sync(limits={over: Limit(5, 5)}, day=0).accounts
    assert set(desk.book.accounts) == {DAY, NEXT}


def test_only_the_newest_days_are_kept() -> None:
    """Eight of them; a day that was dropped never comes back."""
    desk = Desk()
    desk.sync(epoch=0, day=0)
    for n in range(1, 31):
        desk.sync(limits={f"2026-12-{n:02d}": Limit(5, 5)}, day=0)
    assert sorted(desk.book.accounts) == [f"2026-12-{n:02d}" for n in range(23, 31)]
    desk.sync(limits={"2026-12-22": Limit(5, 5)}, day=0)
    assert "2026-12-22" not in desk.book.accounts


def test_a_lifetime_budget_is_charged_beside_the_day() -> None:
    """The smaller room counts for both, and both pay the same."""
    desk = Desk(life=30)
    desk.sync(epoch=0, day=40, life=30)
    billed = desk.book.bill(desk.bill("a", 20), desk.now)
    assert (billed.spent, billed.limits) == ({DAY: 20, LIFE: 20}, {DAY: 100, LIFE: 30})
    assert desk.charge(desk.bill("b", 20)) == (BillStatus.OK, 10)
    assert [desk.book.accounts[day].spent for day in (DAY, LIFE)] == [30, 30]
    assert desk.charge(desk.bill("c", 5, day=LIFE)) == (BillStatus.OK, 0)


def test_a_lifetime_account_needs_the_ledger() -> None:
    """A campaign that gets one is rebuilt, because of what it spent before; one that loses it is free of it."""
    desk = Desk()
    desk.sync(epoch=0, day=0)
    with_life = {**desk.limits, LIFE: Limit(1_000, 1_000)}
    assert desk.sync(version=2, limits=with_life, day=0).status is SyncStatus.MISSING
    desk = Desk(life=10)
    desk.sync(epoch=0, version=2, limits={DAY: Limit(100, 40)}, day=0)
    assert desk.charge(desk.bill("a", 50)) == (BillStatus.OK, 50)
