"""A daemon's side of a budget: what it may hold, what it says, and what it believes."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from rtb.domain.balance import Balance
from rtb.domain.budget import AccountState, Sync, Synced, SyncStatus, Timing

TIMING = Timing(ttl_ms=10_000, window_ms=60_000, settle_ms=300_000)
DAY = "2026-11-22"
TTL_NS = 10_000_000_000
END = 1_000_010
"""The end of a bucket, in Unix seconds."""


def reply(
    leased: int, *, epoch: int = 1, time_ms: int = 1_000_000_000, settled: Mapping[int, int] | None = None
) -> Synced:
    """An account of 100 of which it has leased so much."""
    state = AccountState(100, 100 - leased, 0, leased, 0, settled or {})
    return Synced(SyncStatus.OK, epoch, time_ms, {DAY: state})


def synced(balance: Balance, answer: Synced, *, sent_ns: int = 0, nanos: int = 0) -> Sync:
    """One sync with its reply."""
    sync = balance.sync(balance.seq + 1, 1, {}, {DAY: nanos})
    balance.apply(sync, answer, sent_ns)
    return sync


def funded(leased: int = 50) -> Balance:
    """A balance with a lease that was asked for at 0 ns."""
    balance = Balance("c", "i", TIMING)
    synced(balance, reply(leased), nanos=leased)
    return balance


def test_nothing_is_held_without_a_lease() -> None:
    """Nor more than it, nor on one day of two."""
    assert not Balance("c", "i", TIMING).hold((DAY,), 1, END, 0)
    balance = funded()
    assert balance.hold((DAY,), 30, END, 0)
    assert not balance.hold((DAY,), 21, END, 0)
    assert not balance.hold((DAY, "life"), 1, END, 0)
    assert balance.hold((DAY,), 20, END, 0)
    assert balance.spendable(DAY, 0) == 0


def test_spending_stops_before_the_lease_is_too_old() -> None:
    """Its age counts from when the sync was sent."""
    balance = Balance("c", "i", TIMING)
    synced(balance, reply(50), sent_ns=5)
    assert balance.hold((DAY,), 1, END, TTL_NS + 4)
    assert not balance.hold((DAY,), 1, END, TTL_NS + 5)
    assert balance.spendable(DAY, TTL_NS + 5) == 0


def test_a_return_is_debited_before_it_is_sent_and_only_what_is_free() -> None:
    """30 of 50 are held: 20 can go back, whatever was asked."""
    balance = funded()
    balance.hold((DAY,), 30, END, 0)
    sync = balance.sync(2, 1, {}, {DAY: -45})
    assert (sync.moves, balance.spendable(DAY, 0)) == ({DAY: -20}, 0)
    assert not balance.hold((DAY,), 1, END, 0)


def test_the_reply_replaces_what_was_believed() -> None:
    """Also a lost one: the next tells the whole truth. A reply to an overtaken sync is not believed."""
    balance = funded(20)
    lost = balance.sync(2, 1, {}, {DAY: 30})
    synced(balance, reply(50))
    assert balance.spendable(DAY, 0) == 50
    assert not balance.apply(lost, reply(20), 0)
    assert balance.spendable(DAY, 0) == 50


def test_a_hold_lapses_by_the_time_of_a_reply_only() -> None:
    """After its bucket's end and the settling time; however late it is here."""
    balance = funded()
    balance.hold((DAY,), 30, END, 0)
    at = END * 1_000 + TIMING.settle_ms
    synced(balance, reply(50, time_ms=at))
    assert balance.holding(DAY).held == 30
    synced(balance, reply(50, time_ms=at + 1))
    assert balance.holding(DAY).held == 0


def test_holds_lapse_in_the_order_of_their_ends() -> None:
    """Windows differ, so that a later win may end before an earlier one."""
    balance = funded()
    for nanos, end in ((10, END + 10), (7, END + 30), (5, END), (3, END + 20)):
        balance.hold((DAY,), nanos, end, 0)
    for end, held in ((END, 20), (END + 20, 7), (END + 30, 0)):
        synced(balance, reply(50, time_ms=end * 1_000 + TIMING.settle_ms + 1))
        assert balance.holding(DAY).held == held


def test_a_settled_hold_is_over() -> None:
    """Each told sum counts once; another epoch counts from nothing again."""
    balance = funded()
    balance.hold((DAY,), 30, END, 0)
    for told, held in ((10, 20), (10, 20), (25, 5)):
        synced(balance, reply(50, settled={END: told}))
        assert balance.holding(DAY).held == held
    synced(balance, Synced(SyncStatus.EPOCH, 2, 0))
    synced(balance, reply(50, epoch=2, settled={END: 3}))
    assert balance.holding(DAY).held == 2
    synced(balance, reply(50, epoch=2, settled={END: 99, END + 10: 7}))
    assert balance.holding(DAY).held == 0


@pytest.mark.parametrize(("leased", "held", "announced"), [(50, 30, 50), (10, 30, 30)])
def test_after_a_rebuild_it_announces_the_larger_of_lease_and_holds(leased: int, held: int, announced: int) -> None:
    """A bill may have taken from the lease what is still held."""
    balance = funded()
    balance.hold((DAY,), held, END, 0)
    synced(balance, reply(leased))
    synced(balance, Synced(SyncStatus.EPOCH, 7, 0))
    sync = synced(balance, reply(announced, epoch=7), nanos=5)
    assert (sync.announce, sync.epoch, sync.moves) == (True, 7, {DAY: announced})
    sync = synced(balance, reply(announced, epoch=7), nanos=5)
    assert (sync.announce, sync.epoch, sync.moves) == (False, 7, {DAY: 5})


@pytest.mark.parametrize("status", [SyncStatus.MISSING, SyncStatus.CLOSED, SyncStatus.OLD, SyncStatus.EPOCH])
def test_a_refused_sync_changes_nothing_and_renews_nothing(status: SyncStatus) -> None:
    """What it has it goes on spending, until it is too old."""
    balance = funded()
    synced(balance, Synced(status, 1, 0), sent_ns=TTL_NS)
    assert (balance.spendable(DAY, TTL_NS - 1), balance.spendable(DAY, TTL_NS)) == (50, 0)


def test_an_account_that_is_not_there_has_no_lease() -> None:
    """A rebuilt book without that day: the lease is gone, the holds lapse in time."""
    balance = funded()
    balance.hold((DAY,), 30, END, 0)
    synced(balance, Synced(SyncStatus.OK, 1, 0, {}))
    assert (balance.spendable(DAY, 0), balance.holding(DAY).held) == (-30, 30)


def test_what_is_committed_counts_a_billed_hold_once() -> None:
    """20 spent by all, of which 10 are holds of ours that are billed and not settled; 30 held."""
    balance = funded()
    balance.hold((DAY,), 30, END, 0)
    synced(balance, Synced(SyncStatus.OK, 1, 0, {DAY: AccountState(100, 40, 20, 40, 10, {})}))
    assert balance.holding(DAY).committed == 40
