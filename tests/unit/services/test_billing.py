"""Billing: charged once, in the ledger once, whatever comes between; and the audit that shows it."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from rtb.adapters.clock import ManualClock
from rtb.adapters.memory_accounts import MemoryAccounts
from rtb.adapters.memory_ledger import MemoryLedger
from rtb.domain.budget import Bill, Timing
from rtb.domain.campaign import Campaign
from rtb.errors import NotFound, StoreError
from rtb.messages import AlertKind
from rtb.ports import AccountView, BookView, Instance, LedgerKind, LedgerRow
from rtb.services.audit import Audit, check
from rtb.services.billing import AT_THE_LIMIT, PROCESSED_LATE, REMEMBERED, TOO_LATE, Billing, BillingEvent
from rtb.services.budgets import Budgets
from rtb.services.leases import Leases
from rtb.services.rebuild import LocalRebuild, Rebuild, Registration, Share
from tests.unit.parts import campaign

NOW = 1_795_305_600.0  # 2026-11-22 00:00 UTC
DAY = "2026-11-22"
TIMING = Timing(ttl_ms=10_000, window_ms=60_000, settle_ms=300_000, grace_ms=3_000)


class World:
    """Accounts, a ledger, one campaign of 10,000,000 nanos a day (five impressions), and what was told."""

    def __init__(self, **fields: Any) -> None:
        self.clock = ManualClock(NOW)
        self.accounts = MemoryAccounts(self.clock, TIMING)
        self.ledger = MemoryLedger()
        self.campaigns: dict[str, Campaign] = {"c": campaign("c", 2.0, **{"daily_budget": 0.01, **fields})}
        self.told: list[tuple[str, str, AlertKind, int, int]] = []
        self.rebuild = Rebuild(self.accounts, self.ledger, self.find, self.clock, timing=TIMING)
        self.billing = Billing(
            self.accounts, self.ledger, self.rebuild.restore, timing=TIMING, alert=self.alert, alert_at=0.9
        )

    async def find(self, campaign_id: str) -> Campaign | None:
        """The catalogue."""
        return self.campaigns.get(campaign_id)

    def alert(self, campaign_id: str, day: str, kind: AlertKind, *, spent_nanos: int, limit_nanos: int) -> None:
        """Remember."""
        self.told.append((campaign_id, day, kind, spent_nanos, limit_nanos))

    def event(self, key: str, price: int = 2_000_000, **fields: Any) -> BillingEvent:
        """An event of now."""
        now = self.clock.time()
        row = LedgerRow(
            key=key,
            kind=LedgerKind.WIN,
            campaign_id="c",
            day=DAY,
            auction_id=key,
            impid="1",
            instance="i",
            price_nanos=price,
            charged_nanos=0,
            expires_at=now + 60.0,
            received_at=now,
        )
        return BillingEvent(replace(row, **fields), price)

    async def bill(self, *events: BillingEvent) -> list[tuple[int, str]]:
        """Charge and reason of each."""
        rows = await self.billing.bill(events)
        assert all(isinstance(row, LedgerRow) for row in rows), rows
        return [(row.charged_nanos, row.reason) for row in rows if isinstance(row, LedgerRow)]

    async def balanced(self) -> bool:
        """By the audit."""
        return (await Audit(self.accounts, self.ledger).run()).balanced


async def test_an_event_is_charged_and_recorded_once() -> None:
    """However often it comes, in one batch or in several; the book is made when first needed."""
    world = World()
    first, second = world.event("a"), world.event("b", 1)
    assert await world.bill(first, first, second) == [(2_000_000, ""), (2_000_000, ""), (1, "")]
    assert await world.bill(second, first) == [(1, ""), (2_000_000, "")]
    assert await world.ledger.spent() == {("c", DAY): 2_000_001}
    assert await world.balanced()
    assert await world.bill() == []


async def test_what_is_not_covered_has_its_reason() -> None:
    """At the limit; processed after the hold lapsed; received too late, which is charged nothing."""
    world = World()
    assert await world.bill(world.event("a", 9_000_000)) == [(9_000_000, "")]
    old = world.event("b", 2_000_000)
    late = world.event("c", 5, received_at=NOW + 60.5)
    assert await world.bill(world.event("d", 1_500_000)) == [(1_000_000, AT_THE_LIMIT)]
    world.clock.advance(360.001)
    assert await world.bill(old, late) == [(0, PROCESSED_LATE), (0, TOO_LATE)]
    assert world.billing.uncovered == 2
    report = await Audit(world.accounts, world.ledger).run()
    assert (report.balanced, sorted(row.key for row in report.uncovered)) == (True, ["b", "c", "d"])


async def test_a_campaign_without_a_budget_is_recorded_only() -> None:
    """At its price, on no budget day; no book is made."""
    world = World()
    assert await world.bill(world.event("a", 7, day="")) == [(7, "")]
    assert await world.ledger.spent() == {("c", ""): 7}
    assert [book async for book in world.accounts.books()] == []


async def test_an_unknown_campaign_fails_alone() -> None:
    """The others of the batch are billed."""
    world = World()
    results = await world.billing.bill([world.event("a"), world.event("b", campaign_id="nobody"), world.event("c")])
    assert [type(result) for result in results] == [LedgerRow, NotFound, LedgerRow]
    assert await world.ledger.spent() == {("c", DAY): 4_000_000}


async def test_alerts_at_ninety_percent_and_at_the_limit() -> None:
    """With the amounts; below it nothing."""
    world = World()
    await world.bill(world.event("a", 8_999_999))
    assert world.told == []
    await world.bill(world.event("b", 1))
    await world.bill(world.event("c", 1_000_000))
    assert world.told == [
        ("c", DAY, AlertKind.ALERT, 9_000_000, 10_000_000),
        ("c", DAY, AlertKind.ALERT, 10_000_000, 10_000_000),
        ("c", DAY, AlertKind.PAUSE, 10_000_000, 10_000_000),
    ]


async def test_a_campaign_has_shares_of_its_own() -> None:
    """Alert at half, pause at 80 %; the account itself goes on to its limit, for what was won before."""
    world = World()
    world.billing.shares = lambda campaign_id: (0.5, 0.8)
    await world.bill(world.event("a", 4_999_999))
    assert world.told == []
    await world.bill(world.event("b", 1))
    assert await world.bill(world.event("c", 3_000_000)) == [(3_000_000, "")]
    assert await world.bill(world.event("d", 2_000_000)) == [(2_000_000, "")]
    assert [(kind, spent) for _, _, kind, spent, _ in world.told] == [
        (AlertKind.ALERT, 5_000_000),
        (AlertKind.ALERT, 8_000_000),
        (AlertKind.PAUSE, 8_000_000),
        (AlertKind.ALERT, 10_000_000),
        (AlertKind.PAUSE, 10_000_000),
    ]


class Interrupted(MemoryAccounts):
    """Fails once, after the work is done, in the call it is told to."""

    fails = ""

    async def bill(self, bills: Sequence[Bill]) -> Any:
        """Charge, and perhaps fail."""
        return self._through("bill", await super().bill(bills))

    async def settle(self, bills: Sequence[Bill]) -> None:
        """Settle, and perhaps fail."""
        self._through("settle", await super().settle(bills))  # type: ignore[func-returns-value]

    def _through(self, name: str, result: Any) -> Any:
        if self.fails == name:
            self.fails = ""
            raise StoreError("no reply")
        return result


@pytest.mark.parametrize("call", ["bill", "settle"])
async def test_a_lost_reply_is_repeated(call: str) -> None:
    """The whole call again: the same charge, one row, and it balances."""
    world = World()
    world.accounts = accounts = Interrupted(world.clock, TIMING)
    world.rebuild = Rebuild(accounts, world.ledger, world.find, world.clock, timing=TIMING)
    world.billing = Billing(accounts, world.ledger, world.rebuild.restore, timing=TIMING)
    await world.bill(world.event("first"))
    accounts.fails = call
    with pytest.raises(StoreError, match="no reply"):
        await world.bill(world.event("a", 5))
    assert await world.bill(world.event("a", 5)) == [(5, "")]
    assert await world.ledger.spent() == {("c", DAY): 2_000_005}
    assert await world.balanced()


class Crossing(MemoryLedger):
    """Two ask before either is answered, and the second hears nothing before the first is done."""

    def __init__(self) -> None:
        super().__init__()
        self._asked = 0
        self._both, self.first_is_done = asyncio.Event(), asyncio.Event()

    async def find(self, keys: Collection[str]) -> Mapping[str, LedgerRow]:
        """As it was when it was asked."""
        found = await super().find(keys)
        self._asked += 1
        if self._asked == 1:
            await self._both.wait()
        else:
            self._both.set()
            await self.first_is_done.wait()
        return found


async def test_two_copies_of_a_late_event_on_two_daemons_are_charged_once() -> None:
    """Long after its key's life; both daemons found it in no ledger."""
    world = World()
    ledger = Crossing()
    rebuild = Rebuild(world.accounts, ledger, world.find, world.clock, timing=TIMING)
    await rebuild.restore(["c"])
    daemons = [Billing(world.accounts, ledger, rebuild.restore, timing=TIMING) for _ in range(2)]
    event = world.event("late")
    world.clock.advance(7_200)
    first = asyncio.ensure_future(daemons[0].bill([event]))
    await asyncio.sleep(0)
    second = asyncio.ensure_future(daemons[1].bill([event]))
    [row] = await first
    ledger.first_is_done.set()
    assert await second == [row]
    assert await ledger.spent() == {("c", DAY): 2_000_000}
    assert (await Audit(world.accounts, ledger).run()).balanced


async def test_lost_accounts_are_rebuilt_from_the_ledger() -> None:
    """What was billed before is known from the ledger and not charged again; what is new is charged."""
    world = World()
    before = world.event("before", 6_000_000)
    await world.bill(before)
    world.accounts.lose()
    assert await world.bill(before, world.event("new", 3_000_000)) == [(6_000_000, ""), (3_000_000, "")]
    assert (await world.ledger.epochs(["*"]), world.rebuild.rebuilt) == ({"*": 2}, 1)
    assert await world.balanced()
    [book] = [book async for book in world.accounts.books()]
    assert book.accounts[DAY].spent_nanos == 9_000_000
    assert sorted(book.accounts) == ["2026-11-21", DAY, "2026-11-23"]


async def test_a_lifetime_budget_is_rebuilt_from_all_days() -> None:
    """The days of long ago count, too; what no budget paid does not."""
    world = World(lifetime_budget=0.02)
    rows = [world.event("old", 4_000_000, day="2026-01-01"), world.event("free", 1_000_000, day="")]
    charged = [replace(event.row, charged_nanos=event.row.price_nanos) for event in rows]
    await world.ledger.append(charged, epochs={})
    await world.bill(world.event("a", 9_000_000))
    [book] = [book async for book in world.accounts.books()]
    assert {day: book.accounts[day].spent_nanos for day in (DAY, "life")} == {DAY: 9_000_000, "life": 13_000_000}
    assert await world.balanced()


async def test_a_raised_epoch_that_nobody_installed_is_overcome() -> None:
    """A daemon died between raising the epoch and installing: the next commit is refused, and the book rebuilt."""
    world = World()
    await world.bill(world.event("a", 5))
    await world.ledger.raise_epochs(["*"])
    assert await world.bill(world.event("b", 7)) == [(7, "")]
    assert await world.ledger.epochs(["*"]) == {"*": 3}
    assert await world.balanced()


async def test_leases_come_with_the_first_claim() -> None:
    """With shared accounts it is refused, and says so; a moment later the campaign is funded, and pays."""
    world = World()
    told: list[tuple[str, bool]] = []
    budgets = Budgets(world.clock, lambda name, funded: told.append((name, funded)), timing=TIMING, shared=True)
    leases = Leases(budgets, world.accounts, world.rebuild.restore, world.clock)
    await Registration(world.ledger, world.clock, "local").beat()
    assert budgets.watch(world.campaigns["c"])
    assert budgets.hold("c", 2_000_000) is None
    assert (told, budgets.wake.is_set()) == ([("c", False)], True)
    await leases.sync_due(periodic=False)  # no book yet: it is made
    await leases.sync_due(periodic=False)
    assert told == [("c", False), ("c", True)]
    hold = budgets.hold("c", 2_000_000)
    assert hold is not None
    assert (hold.day, hold.expires_at) == (DAY, NOW + 60.0)
    assert await leases.stop() is False  # a hold is open
    await world.bill(world.event("a", instance="local"))
    assert await leases.stop() is True
    [book] = [book async for book in world.accounts.books()]
    assert book.accounts[DAY].leased == {"local": 0}


async def test_daemons_that_share_a_budget_pause_at_its_share() -> None:
    """Two daemons, 80 % of five impressions: together they win four, what each holds is billed, and neither goes on."""
    world = World(pause_at=0.8)
    await Registration(world.ledger, world.clock, "local").beat()
    fleet = [Budgets(world.clock, instance=name, timing=TIMING, shared=True) for name in ("local", "other")]
    leases = [Leases(budgets, world.accounts, world.rebuild.restore, world.clock) for budgets in fleet]
    for budgets in fleet:
        budgets.watch(world.campaigns["c"])
    won = 0
    for _ in range(20):
        for budgets, lease in zip(fleet, leases, strict=True):
            if budgets.hold("c", 2_000_000) is not None:
                won += 1
                await world.bill(world.event(f"e{won}", instance=budgets.instance))
            await lease.sync_due()
            budgets.refresh()
        world.clock.advance(1)
    assert won == 4
    standing = fleet[0].account("c")
    assert standing is not None
    assert (standing.spent_nanos, standing.limit_nanos) == (8_000_000, 10_000_000)


async def test_idle_leases_go_back_and_are_forgotten() -> None:
    """Ten seconds without a win: another daemon can have the money, and nothing is synced any more."""
    world = World()
    budgets = Budgets(world.clock, timing=TIMING, shared=True)
    leases = Leases(budgets, world.accounts, world.rebuild.restore, world.clock)
    budgets.watch(world.campaigns["c"])
    budgets.hold("c", 1)
    for _ in range(2):
        await leases.sync_due()
    assert budgets.active["c"].free(world.clock.monotonic_ns()) > 0
    for _ in range(3):
        world.clock.advance(10.1)
        await leases.sync_due()
    [book] = [book async for book in world.accounts.books()]
    assert (book.accounts[DAY].available_nanos, budgets.active) == (10_000_000, {})


async def test_a_campaign_whose_lease_went_back_can_win_again() -> None:
    """To have won nothing for a while is not to have run dry: it goes on bidding, and is leased for when it does."""
    world = World()
    told: list[tuple[str, bool]] = []
    budgets = Budgets(world.clock, lambda name, funded: told.append((name, funded)), timing=TIMING, shared=True)
    leases = Leases(budgets, world.accounts, world.rebuild.restore, world.clock)
    budgets.watch(world.campaigns["c"])
    for _ in range(2):
        budgets.warm("c")
        for _ in range(3):
            await leases.sync_due()
            budgets.refresh()
        assert budgets.hold("c", 1) is not None
        told.clear()
        for _ in range(20):
            world.clock.advance(10.1)
            await leases.sync_due()
            budgets.refresh()
        assert told == []
        assert not budgets.is_ready("c")


async def test_a_campaign_that_ran_dry_is_funded_again_however_long_it_took() -> None:
    """Another daemon holds all there is; when that has come back, long after its win, this one can bid again."""
    world = World()
    fleet = [Budgets(world.clock, instance=name, timing=TIMING, shared=True) for name in ("local", "other")]
    leases = [Leases(budgets, world.accounts, world.rebuild.restore, world.clock) for budgets in fleet]
    for budgets in fleet:
        budgets.watch(world.campaigns["c"])
    first, second = fleet
    assert first.hold("c", 10_000_000) is None
    for _ in range(2):
        await leases[0].sync_due()
    assert first.hold("c", 10_000_000) is not None
    second.warm("c")
    for _ in range(500):
        for budgets, lease in zip(fleet, leases, strict=True):
            await lease.sync_due()
            budgets.refresh()
        world.clock.advance(1)
        if world.clock.time() < NOW + 360:  # until then the win may still be billed
            assert not second.funded("c")
    assert second.funded("c")


async def test_a_campaign_that_goes_gives_its_lease_back_at_once() -> None:
    """Nothing was due for seconds; but what a dropped campaign has free goes back with the next look."""
    world = World(daily_budget=1.0)
    budgets = Budgets(world.clock, timing=TIMING, shared=True)
    leases = Leases(budgets, world.accounts, world.rebuild.restore, world.clock)
    budgets.watch(world.campaigns["c"])
    budgets.hold("c", 1)
    for _ in range(3):
        await leases.sync_due()
    synced = leases.synced
    world.clock.advance(1)
    await leases.sync_due()
    assert leases.synced == synced
    budgets.drop("c")
    await leases.sync_due()
    [book] = [book async for book in world.accounts.books()]
    assert book.accounts[DAY].available_nanos == 1_000_000_000


async def test_a_fresh_process_reads_the_ledger_once() -> None:
    """Embedded: the first claim after a restart already knows what was spent, and keeps what an earlier process holds
    for wins that may still be seen; its lease is no more."""
    world = World()
    await world.bill(world.event("a", 2_000_000))
    await world.ledger.append([world.event("b").row], epochs={})
    await world.ledger.register(Instance("dead", NOW - 20))
    await world.ledger.register(Instance("long dead", NOW - 2_000))
    accounts = MemoryAccounts(world.clock, TIMING)
    origin = LocalRebuild(
        accounts, world.ledger, world.find, world.clock, instance="me", timing=TIMING, share=Share(0.3, 0)
    )
    await origin.start()
    assert [instance.id for instance in await world.ledger.instances()] == ["dead"]
    near = {"near": accounts, "opening": origin.opening}
    budgets = Budgets(world.clock, instance="me", timing=TIMING, share=0.3, floor_nanos=0, **near)  # type: ignore[arg-type]
    budgets.watch(world.campaigns["c"])
    standing = budgets.account("c")
    assert standing is not None
    assert (standing.billed_nanos, standing.spent_nanos) == (2_000_000, 4_000_000)
    assert budgets.hold("c", 2_000_000) is not None
    [book] = [book async for book in accounts.books()]
    assert book.accounts[DAY].leased == {"i": 2_000_000, "me": 3_000_000}
    billing = Billing(accounts, world.ledger, origin.restore, timing=TIMING)
    [row] = await billing.bill([world.event("a", 2_000_000)])
    assert isinstance(row, LedgerRow)
    assert (row.charged_nanos, await world.ledger.spent()) == (2_000_000, {("c", DAY): 2_000_000})


def book(**fields: Any) -> BookView:
    """A book that adds up: 100 = 60 + 10 + 30, of which 30 are in the ledger under one key."""
    values: dict[str, Any] = {
        "campaign_id": "c",
        "epoch": 1,
        "closed": False,
        "accounts": {DAY: AccountView(100, 100, 60, 30, {"i": 10})},
        "committed": {"k": 30},
        "open": {},
    }
    return BookView(**{**values, **fields})


def test_the_audit_finds_nothing_wrong_with_what_is_right() -> None:
    """Also while a charge is on its way to the ledger, or is there and not settled."""
    assert list(check(book(), {DAY: 30}, {"k": 30})) == []
    assert list(check(book(open={"o": 5}), {DAY: 25}, {"k": 30})) == []
    assert list(check(book(open={"o": 5}), {DAY: 30}, {"k": 30, "o": 5})) == []


@pytest.mark.parametrize(
    ("wrong", "spent", "charged", "says"),
    [
        ({"accounts": {DAY: AccountView(100, 100, 61, 30, {"i": 10})}}, 30, 30, "limit 100 != available"),
        ({"accounts": {DAY: AccountView(20, 20, -20, 30, {"i": 10})}}, 30, 30, "spent 30 > limit 20"),
        ({"accounts": {DAY: AccountView(100, 100, 80, 30, {"i": -10})}}, 30, 30, "a lease is negative"),
        ({}, 31, 30, "the ledger has 1 nanos more"),
        ({}, 29, 30, "1 nanos are charged and not in the ledger, 0 are on their way"),
        ({}, 30, 29, "k was charged 30, in the ledger 29"),
        ({}, 30, None, "k counts as committed, and the ledger does not know it"),
    ],
)
def test_the_audit_names_what_is_wrong(wrong: dict[str, Any], spent: int, charged: int | None, says: str) -> None:
    """Each way in which an account, a key and the ledger can disagree."""
    found = [finding.what for finding in check(book(**wrong), {DAY: spent}, {} if charged is None else {"k": charged})]
    assert any(says in what for what in found), found


async def test_accounts_that_are_away_from_the_start_are_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even while no campaign needs a lease; once, and again when they answer."""
    world = World()
    asked: asyncio.Queue[bool] = asyncio.Queue()
    answers = iter([False, False, True])

    async def identity(campaign_ids: Sequence[str]) -> list[str]:
        answer = next(answers)
        asked.put_nowait(answer)
        if not answer:
            raise StoreError("gone")
        return [""]

    monkeypatch.setattr(world.accounts, "identity", identity)
    leases = Leases(
        Budgets(world.clock, timing=TIMING, shared=True), world.accounts, world.rebuild.restore, world.clock
    )
    with capture_logs() as lines:
        await leases.start()
        assert [await asked.get() for _ in range(3)] == [False, False, True]
        await leases.stop()
    assert [line["event"] for line in lines] == ["leases_not_synced", "leases_resumed"]


class Asked(MemoryLedger):
    """Remembers what it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    async def unknown(self, keys: Collection[str]) -> set[str]:
        """As every ledger."""
        self.asked += keys
        return await super().unknown(keys)


async def test_the_ledger_is_not_asked_for_what_was_recorded_just_now() -> None:
    """Of three keys one was recorded here, one by another daemon and one by nobody: the last is unrecorded, and the
    ledger was asked for the last two. Of more than are remembered it is asked for the first again."""
    world = World()
    world.ledger = ledger = Asked()
    billing = Billing(world.accounts, ledger, world.rebuild.restore, timing=TIMING)
    await billing.record([world.event("ours").row])
    await ledger.append([world.event("theirs").row], epochs={})
    assert await billing.unrecorded(["ours", "theirs", "nobody's"]) == {"nobody's"}
    assert ledger.asked == ["theirs", "nobody's"]
    await billing.record([world.event(f"later-{n}").row for n in range(REMEMBERED)])
    assert await billing.unrecorded(["ours", "later-0"]) == set()
    assert ledger.asked == ["theirs", "nobody's", "ours"]
