"""Contract of ports.Accounts. The clauses one by one are in tests/unit/domain/test_book.py; here every adapter is held
to the same: by examples, and by comparing it with the book itself under whatever comes."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from msgspec.structs import replace

from rtb.domain.book import Book
from rtb.domain.budget import LIFE, BillStatus, Limit, Opening, Sync, SyncStatus, bucket
from rtb.errors import StoreError
from rtb.ports import AccountView
from tests.contract.accounts import DAY, DESKS, START_MS, TIMING, Desk

MOST = 9 * 10**15
OK, AGAIN, ASK = BillStatus.OK, BillStatus.AGAIN, BillStatus.ASK


@pytest_asyncio.fixture(params=DESKS)
async def desk(request: pytest.FixtureRequest) -> AsyncIterator[Desk]:
    """Accounts without any book."""
    async with DESKS[request.param](request) as desk:
        yield desk


async def test_without_a_book_everything_is_missing(desk: Desk) -> None:
    """Nothing makes one by the way."""
    assert (await desk.sync(epoch=0, moves={DAY: 5})).status is SyncStatus.MISSING
    assert await desk.bill(desk.a_bill()) == [(BillStatus.MISSING, 0)]
    await desk.accounts.settle([desk.a_bill()])
    assert [view async for view in desk.accounts.books([desk.campaign_id])] == []


async def test_lease_hold_bill_settle(desk: Desk) -> None:
    """The usual life: the daemon learns of the charge when it is settled, and the rest can go back."""
    await desk.install(is_new=True)
    reply = await desk.sync(epoch=0, moves={DAY: 30})
    state = reply.accounts[DAY]
    assert (reply.status, reply.epoch, reply.time_ms) == (SyncStatus.OK, 1, START_MS)
    assert (state.limit_nanos, state.available_nanos, state.spent_nanos, state.leased_nanos) == (100, 70, 0, 30)
    bills = [desk.a_bill("a", 12), desk.a_bill("b", 3), desk.a_bill("a", 12)]
    assert await desk.bill(*bills) == [(OK, 12), (OK, 3), (AGAIN, 12)]
    assert (await desk.sync()).accounts[DAY].unsettled_nanos == 15
    assert (await desk.view()).open == {"a": 12, "b": 3}
    await desk.accounts.settle(bills)
    await desk.accounts.settle(bills)
    view = await desk.view()
    assert (view.open, view.committed) == ({}, {"a": 12, "b": 3})
    state = (await desk.sync(moves={DAY: -10})).accounts[DAY]
    assert (state.leased_nanos, state.unsettled_nanos) == (5, 0)
    assert state.settled == {bucket(START_MS + TIMING.window_ms): 15}
    assert view.accounts[DAY] == AccountView(100, 100, 70, 15, {"i": 15})


async def test_batches_span_campaigns(desk: Desk) -> None:
    """Replies come in the order of the calls, also when one has no book."""
    await desk.install(is_new=True)
    stranger = replace(desk.a_bill("x"), campaign_id=f"{desk.campaign_id}-none")
    bills = [stranger, desk.a_bill("a", 1), stranger, desk.a_bill("b", 2)]
    assert [charged for _, charged in await desk.bill(*bills)] == [0, 1, 0, 2]
    assert await desk.bill() == []
    assert await desk.accounts.sync([]) == []


async def test_the_largest_amounts_stay_exact(desk: Desk) -> None:
    """9 * 10**15 nanos, leased and billed to the last one."""
    desk.limits = {DAY: Limit(MOST, MOST)}
    await desk.install(is_new=True)
    assert (await desk.sync(epoch=0, moves={DAY: MOST})).accounts[DAY].leased_nanos == MOST
    assert await desk.bill(desk.a_bill("a", MOST - 1), desk.a_bill("b", 3)) == [(OK, MOST - 1), (OK, 1)]
    assert (await desk.view()).accounts[DAY] == AccountView(MOST, MOST, 0, MOST, {"i": 0})


async def test_a_rebuilt_book_replaces_an_older_one_only(desk: Desk) -> None:
    """Of two rebuilds the later epoch stays, whoever comes last; its bill keys start anew."""
    await desk.install(2, is_new=True)
    await desk.bill(desk.a_bill("a", 7))
    await desk.install(1, is_new=True)
    await desk.install(2, is_new=True)
    assert await desk.bill(desk.a_bill("a", 7)) == [(AGAIN, 7)]
    await desk.install(3, spent={DAY: 60})
    assert await desk.bill(desk.a_bill("a", 7)) == [(ASK, 0)]
    assert await desk.bill(desk.a_bill("a", 7, asked_epoch=3)) == [(OK, 7)]
    assert (await desk.view()).accounts[DAY].spent_nanos == 67


async def test_a_rebuild_for_another_server_is_refused(desk: Desk) -> None:
    """What was read before the accounts were lost says nothing about the new ones."""
    with pytest.raises(StoreError, match="again"):
        await desk.install(identity="someone else")
    assert (await desk.sync(epoch=0)).status is SyncStatus.MISSING


async def test_settled_keys_are_forgotten_in_time(desk: Desk) -> None:
    """And open ones never; both are answered by what the key, or only the ledger, knows."""
    await desk.install(is_new=True)
    settled, open_ = desk.a_bill("settled"), desk.a_bill("open", expires_ms=START_MS + 2 * TIMING.key_bucket_ms)
    await desk.bill(settled, open_)
    await desk.accounts.settle([settled])
    desk.advance(TIMING.key_life_ms + 5 * TIMING.key_bucket_ms)
    assert await desk.bill(open_) == [(AGAIN, 5)]
    assert (await desk.bill(replace(settled, key="another")))[0][0] is ASK


async def test_a_late_event_is_known_to_who_asked_before_it_stood_in_the_ledger(desk: Desk) -> None:
    """Long after its key's life two daemons have it, and both asked the ledger before either was billed: the one that
    is billed after the other has committed and settled is told the same charge."""
    await desk.install(is_new=True)
    late = desk.a_bill("late")
    desk.advance(TIMING.window_ms + TIMING.key_life_ms + 3 * TIMING.key_bucket_ms)
    assert await desk.bill(late, late) == [(ASK, 0), (ASK, 0)]
    asked = replace(late, asked_epoch=1)
    assert await desk.bill(asked) == [(OK, 5)]
    await desk.accounts.settle([asked])
    desk.advance(TIMING.settle_ms)
    assert await desk.bill(asked) == [(AGAIN, 5)]
    view = await desk.view()
    assert (view.accounts[DAY].spent_nanos, view.committed) == (5, {"late": 5})
    desk.advance(1)
    assert await desk.bill(late) == [(ASK, 0)]


@pytest.mark.parametrize("seed", range(20))
async def test_it_does_what_the_book_does(desk: Desk, seed: int) -> None:
    """Three daemons do whatever daemons do, and worse: each reply, and the book afterwards, are those of the model."""
    chance = random.Random(seed)
    walk = Walk(desk, chance)
    await walk.install()
    for _ in range(60):
        await chance.choices([walk.sync, walk.bill, walk.settle, walk.pass_time, walk.install], [8, 8, 4, 3, 0.5])[0]()
    await walk.compare()


class Walk:
    """The same calls on the accounts and on a book."""

    def __init__(self, desk: Desk, chance: random.Random) -> None:
        self.desk = desk
        self.chance = chance
        self.epoch = 0
        self.book: Book
        self.seqs = dict.fromkeys("ijk", 0)
        self.known = dict.fromkeys("ijk", 0)
        self.bills = [desk.a_bill("first")]

    def days(self) -> list[str]:
        """Some accounts."""
        return self.chance.sample([DAY, "2026-11-23", "2026-11-19", "2026-12-01", LIFE], self.chance.randint(1, 3))

    def limits(self) -> dict[str, Limit]:
        """Limits of some accounts, seldom small ones."""
        return {day: Limit(n := self.chance.choice([20, 100, 100, 300]), n // 2) for day in self.days()}

    async def install(self) -> None:
        """Rebuild."""
        self.epoch += 1
        fields = {
            "limits": self.limits() | {DAY: Limit(100, 40)},
            "spent": {DAY: self.chance.choice([0, 30, 120])},
            "waiting": tuple(self.chance.sample("ijk", self.chance.randint(0, 2))),
            "grace_ms": self.chance.choice([0, TIMING.grace_ms]),
            "is_new": self.chance.random() < 0.5,
            "version": self.chance.randint(1, 3),
        }
        await self.desk.install(self.epoch, **fields)  # type: ignore[arg-type]
        opening = Opening(
            campaign_id=self.desk.campaign_id,
            epoch=self.epoch,
            floor="2026-11-20",
            **fields,  # type: ignore[arg-type]
        )
        self.book = Book(opening, self.desk.now, TIMING)

    async def sync(self) -> None:
        """Of any daemon, in or out of order, with the right or a wrong epoch."""
        who = self.chance.choice("ijk")
        self.seqs[who] += self.chance.choice([1, 1, 1, 1, 0])
        announce = self.known[who] != self.epoch and self.chance.random() < 0.6
        sync = Sync(
            campaign_id=self.desk.campaign_id,
            instance=who,
            seq=self.seqs[who],
            epoch=self.epoch if announce else self.known[who],
            version=self.chance.randint(1, 4),
            limits=self.limits() | ({DAY: Limit(100, 40)} if self.chance.random() < 0.8 else {}),
            moves={day: self.chance.randint(0 if announce else -30, 40) for day in self.days()},
            announce=announce,
        )
        [reply] = await self.desk.accounts.sync([sync])
        assert reply == self.book.sync(sync, self.desk.now)
        if reply.status is SyncStatus.OK:
            self.known[who] = self.epoch

    async def bill(self) -> None:
        """Some new events and some old ones."""
        new = [
            self.desk.a_bill(
                f"k{len(self.bills) + n}",
                self.chance.choice([1, 5, 30]),
                day=self.chance.choice([DAY, DAY, LIFE, "2026-11-23", "2026-11-10"]),
                instance=self.chance.choice("ijkx"),
            )
            for n in range(self.chance.randint(0, 2))
        ]
        self.bills += new
        bills = [
            replace(bill, asked_epoch=self.chance.choice([0, self.epoch - 1, self.epoch]))
            for bill in new + self.chance.choices(self.bills, k=2)
        ]
        assert await self.desk.accounts.bill(bills) == [self.book.bill(bill, self.desk.now) for bill in bills]

    async def settle(self) -> None:
        """Some of what may or may not have been billed."""
        bills = self.chance.choices(self.bills, k=3)
        await self.desk.accounts.settle(bills)
        self.book.settle(bills, self.desk.now)

    async def pass_time(self) -> None:
        """A moment, or so long that leases and holds are over."""
        self.desk.advance(self.chance.choice([1, 5_000, 60_000, TIMING.settle_ms, TIMING.lease_ms + 1]))

    async def compare(self) -> None:
        """The books, account by account."""
        view = await self.desk.view()
        assert (view.epoch, view.closed) == (self.book.epoch, self.book.closed)
        assert view.accounts == {
            day: AccountView(account.limit, account.peak, account.available, account.spent, account.leased)
            for day, account in self.book.accounts.items()
        }
        assert view.open == {key: keys.charged[key] for keys in self.book.keys.values() for key in keys.open}
