"""Daemons that share one campaign's budget, driven step by step through whatever can go wrong, on the product's code.

Everything but the wires is real: Budgets, Leases, Billing and Rebuild of each daemon, the accounts, the ledger. The
wires lose, delay and repeat. A step runs a coroutine until it ends or comes to a gate: before a commit, a settling, an
install.
One unit of money is one nano, one tick ten seconds.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Generator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Protocol

from msgspec.structs import replace

from rtb.adapters.clock import ManualClock
from rtb.adapters.memory_accounts import MemoryAccounts
from rtb.adapters.memory_ledger import MemoryLedger
from rtb.domain.budget import Bill, Billed, Opening, Sync, Synced, Timing
from rtb.domain.campaign import Campaign, Creative
from rtb.errors import RtbError, StoreError
from rtb.ports import Accounts, BookView, LedgerKind, LedgerRow
from rtb.services.audit import Audit
from rtb.services.billing import TOO_LATE, Billing, BillingEvent
from rtb.services.budgets import Budgets
from rtb.services.leases import Leases
from rtb.services.purse import Purse
from rtb.services.rebuild import Rebuild, Registration, Share

TICK_S = 10
TIMING = Timing(
    ttl_ms=60_000, window_ms=60_000, settle_ms=20_000, key_life_ms=120_000, key_bucket_ms=10_000, grace_ms=0
)
LIMIT, CAP = 6, 4
SHARE = Share(share=0.0, floor_nanos=CAP)
MIDNIGHT = 1_795_305_600.0  # 2026-11-22 00:00 UTC

Step = Coroutine[Any, Any, Any]


class Gate:
    """Where a step may be left to wait."""

    def __await__(self) -> Generator[Gate, None, None]:
        yield self


class Kept(Protocol):
    """Accounts of a test: how to lose them, to keep a copy, and to come back with that copy on another server."""

    accounts: Accounts

    def advance(self, ms: int) -> None:
        """Let time pass."""

    def lose(self) -> None:
        """Restart empty."""

    def snapshot(self) -> None:
        """Keep a copy."""

    def restore(self) -> None:
        """Restart with the copy."""


class KeptInMemory:
    """In process; with `detects` another server process is noticed, as the run id does it in Redis."""

    detects = True

    def __init__(self, clock: ManualClock) -> None:
        self.accounts = MemoryAccounts(clock, TIMING)
        self._copy: dict[str, Any] = {}

    def advance(self, ms: int) -> None:
        """Its clock is the world's."""

    def lose(self) -> None:
        """Restart empty."""
        self.accounts.lose()

    def snapshot(self) -> None:
        """Keep a copy."""
        self._copy = {book.campaign_id: deepcopy_book(book) for book in self.accounts}

    def restore(self) -> None:
        """A stale copy counts as missing."""
        self.accounts.lose()
        if not self.detects:
            for campaign_id, book in self._copy.items():
                self.accounts._books[campaign_id] = deepcopy_book(book)


def deepcopy_book(book: Any) -> Any:
    """A copy that shares nothing."""
    return deepcopy(book)


class Wire:
    """The accounts as one daemon reaches them. `mode` is of its next sync or bill: ok, lost, noreply, delay, slow."""

    def __init__(self, world: World, accounts: Accounts) -> None:
        self.world = world
        self.accounts = accounts
        self.mode = "ok"
        self.cut = False
        self.slow: list[tuple[Sequence[Sync], list[Synced], int]] = []

    def fence(self, campaign_id: str) -> str:
        """As it is."""
        return self.accounts.fence(campaign_id)

    def reach(self) -> str:
        """How the next call goes; raises while the wire is cut."""
        mode, self.mode = self.mode, "ok"
        if self.cut or mode == "lost":
            raise StoreError("lost")
        return mode

    async def identity(self, campaign_ids: Sequence[str]) -> list[str]:
        """Unless it is cut."""
        self.reach()
        return await self.accounts.identity(campaign_ids)

    async def sync(self, syncs: Sequence[Sync]) -> list[Synced]:
        """As the mode says."""
        mode = self.reach()
        if mode == "delay":
            self.world.delayed.append(list(syncs))
            raise StoreError("delayed")
        sent_ns = self.world.clock.monotonic_ns()
        replies = await self.accounts.sync(syncs)
        if mode == "slow":
            self.slow.append((syncs, replies, sent_ns))
        if mode in ("slow", "noreply"):
            raise StoreError("no reply")
        return replies

    async def bill(self, bills: Sequence[Bill]) -> list[Billed]:
        """As the mode says."""
        mode = self.reach()
        billed = await self.accounts.bill(bills)
        if mode == "noreply":
            raise StoreError("no reply")
        return billed

    async def settle(self, bills: Sequence[Bill]) -> None:
        """At a gate."""
        await Gate()
        self.reach()
        await self.accounts.settle(bills)

    async def install(self, openings: Sequence[Opening], identities: Sequence[str]) -> None:
        """At a gate."""
        await Gate()
        self.reach()
        await self.accounts.install(openings, identities)

    async def books(self, campaign_ids: Collection[str] | None = None) -> AsyncIterator[BookView]:
        """As they are."""
        async for view in self.accounts.books(campaign_ids):
            yield view

    async def close(self) -> None:
        """Nothing."""


class Books:
    """The ledger as a daemon reaches it: its commits wait at a gate."""

    def __init__(self, ledger: MemoryLedger) -> None:
        self._ledger = ledger

    async def append(self, rows: Sequence[LedgerRow], *, epochs: Mapping[str, int]) -> int:
        """At a gate."""
        await Gate()
        return await self._ledger.append(rows, epochs=epochs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)


@dataclass(slots=True)
class Win:
    """A win and what became of it."""

    event: BillingEvent
    in_time: bool = False


@dataclass(slots=True)
class Flow:
    """A coroutine on its way, and the event it bills, if any."""

    step: Step
    event: BillingEvent | None = None


@dataclass(slots=True, eq=False)
class Daemon:
    """One process."""

    name: str
    wire: Wire
    budgets: Budgets
    leases: Leases
    billing: Billing
    rebuild: Rebuild
    flows: list[Flow] = field(default_factory=list)
    syncing: Flow | None = None


def purse_of(daemon: Daemon) -> Purse:
    """Of the campaign."""
    purse = daemon.budgets.purse("c")
    assert purse is not None
    return purse


class World:
    """Up to three daemons, one campaign, two days."""

    def __init__(self, keep: Callable[[ManualClock], Kept] = KeptInMemory, before_midnight_s: float = 300.0) -> None:
        self.clock = ManualClock(MIDNIGHT - before_midnight_s)
        self.kept = keep(self.clock)
        self.ledger = MemoryLedger()
        creative = Creative(id="ad", w=1, h=1)
        self.campaign = Campaign(
            id="c", advertiser="a", creatives=(creative,), bid=CAP * 1e-6, daily_budget=LIMIT / 1e9, timezone="UTC"
        )
        self.daemons: list[Daemon] = []
        self.names = count(1)
        self.wins: dict[str, Win] = {}
        self.queue: list[BillingEvent] = []
        self.delayed: list[Sequence[Sync]] = []
        self.highest = LIMIT
        self.lowered = self.lost = self.slow = self.has_snapshot = False
        self.rows: list[LedgerRow] = []
        self.start()
        self.start()
        self.run(self.daemons[0].rebuild.restore(["c"]))

    # -- what happens ---------------------------------------------------------------------------------------------

    def start(self) -> None:
        """A daemon starts."""
        name = f"i{next(self.names)}"
        wire = Wire(self, self.kept.accounts)
        budgets = Budgets(
            self.clock, instance=name, timing=TIMING, share=SHARE.share, floor_nanos=SHARE.floor_nanos, shared=True
        )
        budgets.watch(self.campaign)
        ledger: Any = Books(self.ledger)
        rebuild = Rebuild(wire, ledger, self.find, self.clock, timing=TIMING, share=SHARE)
        leases = Leases(budgets, wire, rebuild.restore, self.clock)
        billing = Billing(wire, ledger, rebuild.restore, timing=TIMING)
        self.daemons.append(Daemon(name, wire, budgets, leases, billing, rebuild))
        self.run(Registration(self.ledger, self.clock, name).beat())

    async def find(self, campaign_id: str) -> Campaign | None:
        """The catalogue."""
        return self.campaign

    def sync(self, n: int, mode: str) -> None:
        """A daemon syncs what it has, or asks for its first lease."""
        daemon = self.pick(n)
        daemon.wire.mode = mode
        if daemon.syncing is not None:
            self.advance(daemon, daemon.syncing)
            return
        purse = purse_of(daemon)
        daemon.budgets.roll(purse, self.clock.time())
        if purse.balance is None or purse.dry:
            daemon.budgets._lease(purse)
        purse.used_ns = self.clock.monotonic_ns()
        self.begin_sync(daemon, daemon.leases.sync([purse]))

    def give_back(self, n: int, mode: str) -> None:
        """It returns what is free."""
        daemon = self.pick(n)
        daemon.wire.mode = mode
        if daemon.syncing is None:
            self.begin_sync(daemon, daemon.leases.sync(list(daemon.budgets.active.values()), lease=False))

    def drain(self, n: int) -> None:
        """It stops in order."""
        daemon = self.pick(n)
        if daemon.syncing is None and not daemon.wire.cut and self.run(daemon.leases.stop()):
            self.run(Registration(self.ledger, self.clock, daemon.name).leave())
        self.end(daemon)

    def kill(self, n: int) -> None:
        """It is gone, and what it was billing comes back to the queue."""
        self.end(self.pick(n))

    def cut(self, n: int) -> None:
        """It loses, or finds again, its way to the accounts."""
        wire = self.pick(n).wire
        wire.cut = not wire.cut

    def deliver(self, k: int) -> None:
        """A delayed sync arrives after all."""
        self.run(self.kept.accounts.sync(self.delayed.pop(k % len(self.delayed))))

    def reply_late(self, n: int) -> None:
        """A reply arrives that nobody waited for any more."""
        daemon = self.pick(n)
        if daemon.wire.slow:
            syncs, replies, sent_ns = daemon.wire.slow.pop()
            for sync, reply in zip(syncs, replies, strict=True):
                if (purse := purse_of(daemon)).balance is not None:
                    daemon.budgets.apply(purse, sync, reply, sent_ns)

    def win(self, n: int, price: int) -> None:
        """A daemon wins, if its budget pays."""
        daemon = self.pick(n)
        hold = daemon.budgets.hold("c", price)
        if hold is not None:
            self.won(daemon, price, hold.day, hold.expires_at)

    def won(self, daemon: Daemon, price: int, day: str, expires_at: float) -> None:
        """Keep it."""
        key = f"a{len(self.wins)}:1:win"
        row = LedgerRow(
            key=key,
            kind=LedgerKind.WIN,
            campaign_id="c",
            day=day,
            auction_id=key,
            impid="1",
            instance=daemon.name,
            price_nanos=price,
            charged_nanos=0,
            expires_at=expires_at,
            received_at=0.0,
        )
        self.wins[key] = Win(BillingEvent(row, price))

    def happen(self, k: int) -> None:
        """The billing event of a win arrives in time; it may do so again."""
        now = self.now_s
        fresh = [win for win in self.wins.values() if now <= win.event.row.expires_at]
        if fresh:
            win = fresh[k % len(fresh)]
            win.in_time = True
            self.queue.append(replace(win.event, row=replace(win.event.row, received_at=now)))

    def consume(self, q: int, n: int, mode: str) -> None:
        """A daemon takes an event and bills it, until it would commit."""
        daemon = self.pick(n)
        if daemon.wire.cut:
            return
        event = self.queue.pop(q % len(self.queue))
        daemon.wire.mode = mode
        self.begin(daemon, Flow(daemon.billing.bill([event]), event))

    def go_on(self, k: int) -> None:
        """A step that waits at a gate goes on: a commit, a settling, an install."""
        flows = self.flows
        if flows:
            daemon, flow = flows[k % len(flows)]
            self.advance(daemon, flow)

    def tick(self, ticks: int) -> None:
        """Time passes."""
        self.clock.advance(ticks * TICK_S)
        self.kept.advance(ticks * TICK_S * 1_000)
        for daemon in self.daemons:
            daemon.budgets.refresh()

    def lose(self) -> None:
        """The accounts are lost."""
        self.kept.lose()
        self.lost = True

    def snapshot(self) -> None:
        """The accounts are saved."""
        self.kept.snapshot()
        self.has_snapshot = True

    def restore(self) -> None:
        """They come back as they were saved."""
        self.kept.restore()
        self.lost = True

    def limit(self, nanos: int) -> None:
        """The owner changes the limit; each daemon hears of it in its own time."""
        self.lowered |= nanos < round(self.campaign.daily_budget * 1e9)  # type: ignore[operator]
        self.highest = max(self.highest, nanos)
        self.campaign = replace(self.campaign, daily_budget=nanos / 1e9, version=self.campaign.version + 1)

    def hear(self, n: int) -> None:
        """A daemon hears of the newest limit."""
        self.pick(n).budgets.watch(self.campaign)

    # -- how it happens -------------------------------------------------------------------------------------------

    @property
    def now_s(self) -> float:
        """The accounts' time, as an edge stamps it."""
        return self.clock.time()

    @property
    def flows(self) -> list[tuple[Daemon, Flow]]:
        """Every step that waits."""
        return [(d, flow) for d in self.daemons for flow in [*d.flows, *([d.syncing] if d.syncing else [])]]

    def pick(self, n: int) -> Daemon:
        """One of those that run."""
        return self.daemons[n % len(self.daemons)]

    def begin(self, daemon: Daemon, flow: Flow) -> None:
        """Start a step."""
        daemon.flows.append(flow)
        self.advance(daemon, flow)

    def begin_sync(self, daemon: Daemon, step: Step) -> None:
        """Start a sync: a daemon has one at a time."""
        daemon.syncing = Flow(step)
        self.advance(daemon, daemon.syncing)

    def advance(self, daemon: Daemon, flow: Flow) -> None:
        """Run it to its next gate, or its end; what fails is tried again later."""
        try:
            flow.step.send(None)
            return
        except StopIteration as end:
            if flow.event is not None:
                self.billed(flow.event, end.value)
        except StoreError:
            if flow.event is not None:
                self.queue.append(flow.event)
        if flow is daemon.syncing:
            daemon.syncing = None
        elif flow in daemon.flows:
            daemon.flows.remove(flow)

    def billed(self, event: BillingEvent, results: list[LedgerRow | RtbError]) -> None:
        """The event is acknowledged."""
        [row] = results
        assert isinstance(row, LedgerRow), row
        if self.now_s > event.row.expires_at + TIMING.settle_ms / 1_000:
            self.slow = True

    def run(self, step: Step) -> Any:
        """Run a step through all its gates."""
        try:
            while True:
                step.send(None)
        except StopIteration as end:
            return end.value

    def end(self, daemon: Daemon) -> None:
        """The process is gone."""
        for flow in daemon.flows:
            flow.step.close()
            if flow.event is not None:
                self.queue.append(flow.event)
        if daemon.syncing is not None:
            daemon.syncing.step.close()
        self.daemons.remove(daemon)

    # -- what must be true ----------------------------------------------------------------------------------------

    async def view(self) -> BookView | None:
        """The book."""
        async for view in self.kept.accounts.books(["c"]):
            return view
        return None

    def check(self) -> None:
        """At every moment: the equation, and spent within the highest limit there was, here and in the ledger."""
        view = self.run(self.view())
        for account in view.accounts.values() if view else ():
            total = account.available_nanos + sum(account.leased.values()) + account.spent_nanos
            assert account.limit_nanos == total, f"EQUATION {account}"
            assert all(nanos >= 0 for nanos in account.leased.values()), f"NEGATIVE {account}"
            assert account.spent_nanos <= self.highest, f"OVERSPENT {account}"
        for day, nanos in self.run(self.ledger.spent(["c"])).items():
            assert nanos <= self.highest, f"OVERSPENT ledger {day} {nanos}"

    def heal(self) -> None:
        """Wires mend, steps end, the queue drains, and time passes until nothing is leased any more."""
        if not self.daemons:
            self.start()
        for daemon in self.daemons:
            daemon.wire.cut, daemon.wire.mode = False, "ok"
            daemon.budgets.watch(self.campaign)
        for _ in range(8):
            for daemon, flow in self.flows:
                while flow in daemon.flows or flow is daemon.syncing:
                    self.advance(daemon, flow)
            queue, self.queue = self.queue, []
            for event in queue:
                daemon = self.daemons[0]
                flow = Flow(daemon.billing.bill([event]), event)
                self.begin(daemon, flow)
                while flow in daemon.flows:
                    self.advance(daemon, flow)
        for _ in range(6):
            self.tick(TIMING.lease_ms // 10_000 + 1)
            for daemon in self.daemons:
                for _ in range(4):
                    purse = purse_of(daemon)
                    daemon.budgets.roll(purse, self.clock.time())
                    if purse.balance is None:
                        daemon.budgets._lease(purse)
                    self.run(daemon.leases.sync([purse], lease=True))
                self.run(daemon.leases.sync(list(daemon.budgets.active.values()), lease=False))

    def final(self) -> None:
        """After healing: both properties, and an audit that balances."""
        self.heal()
        self.check()
        assert not self.queue, "EVENTS STUCK"
        assert not self.flows, "STEPS STUCK"
        view = self.run(self.view())
        if view is not None:
            for day, account in view.accounts.items():
                assert sum(account.leased.values()) == 0, f"STUCK MONEY {day} {account}"
            findings = self.run(Audit(self.kept.accounts, self.ledger)._check(view))
            assert not findings, f"AUDIT {findings}"
        rows = {row.key: row for row in self.run(self.everything())}
        for key, win in self.wins.items():
            if not win.in_time:
                assert key not in rows, f"BILLED without an event {key}"
                continue
            assert key in rows, f"LOST EVENT {key}"
            row = rows[key]
            assert row.day == win.event.row.day, f"WRONG DAY {row}"
            if row.charged_nanos != row.price_nanos:
                excused = self.slow or (self.lowered and self.lost)
                assert excused, f"UNCOVERED {row}"
                assert row.reason != TOO_LATE, f"UNCOVERED {row}"

    async def everything(self) -> list[LedgerRow]:
        """All rows."""
        return [row async for part in self.ledger.rows() for row in part]


MODES = ["ok", "ok", "ok", "noreply", "delay", "slow", "lost"]
OPS: dict[str, tuple[float, Callable[[World], object], dict[str, list[Any]]]] = {
    # name: weight, when it can happen, its choices
    "start": (1, lambda w: len(w.daemons) < 3, {}),
    "sync": (6, lambda w: w.daemons, {"n": [0, 1, 2], "mode": MODES}),
    "give_back": (1, lambda w: w.daemons, {"n": [0, 1, 2], "mode": MODES}),
    "drain": (0.5, lambda w: w.daemons, {"n": [0, 1, 2]}),
    "kill": (0.7, lambda w: w.daemons, {"n": [0, 1, 2]}),
    "cut": (0.5, lambda w: w.daemons, {"n": [0, 1, 2]}),
    "deliver": (1, lambda w: w.delayed, {"k": [0, 1, 2]}),
    "reply_late": (1, lambda w: any(d.wire.slow for d in w.daemons), {"n": [0, 1, 2]}),
    "win": (5, lambda w: w.daemons, {"n": [0, 1, 2], "price": [1, 2, 4, 4]}),
    "happen": (4, lambda w: w.wins, {"k": list(range(6))}),
    "consume": (5, lambda w: w.queue and w.daemons, {"q": [0, 1, 2], "n": [0, 1, 2], "mode": ["ok", "ok", "noreply"]}),
    "go_on": (7, lambda w: w.flows, {"k": [0, 1, 2]}),
    "tick": (2.5, lambda w: True, {"ticks": [1, 1, 2, 3, 4]}),
    "lose": (0.35, lambda w: True, {}),
    "snapshot": (0.2, lambda w: True, {}),
    "restore": (0.25, lambda w: w.has_snapshot, {}),
    "limit": (0.2, lambda w: True, {"nanos": [1, 2, 3, 6, 9]}),
    "hear": (0.8, lambda w: w.daemons, {"n": [0, 1, 2]}),
}
RARE = frozenset({"limit", "hear", "snapshot", "restore"})

Trace = list[tuple[str, dict[str, Any]]]


def replay(trace: Trace, make: Callable[[], World]) -> str | None:
    """What is wrong after these steps, None when nothing is."""
    world = make()
    try:
        for name, arguments in trace:
            if OPS[name][1](world):
                getattr(world, name)(**arguments)
                world.check()
        world.final()
    except AssertionError as error:
        return str(error).splitlines()[0]
    return None


def walk(make: Callable[[], World], chance: random.Random, steps: int = 50) -> Trace:
    """One random walk, some kinds of steps left out and some frequent: deep ones are found by leaning to one side."""
    calm = chance.random() < 0.7
    names = [n for n in OPS if not (calm and n in RARE) and (OPS[n][0] >= 4 or chance.random() < 0.65)]
    weights = [OPS[name][0] * chance.lognormvariate(0, 1.1) for name in names]
    tight = chance.random() < 0.8
    trace: Trace = [("sync", {"n": n, "mode": "ok"}) for n in (0, 1) if tight]
    for _ in range(chance.randrange(6, steps)):
        name = chance.choices(names, weights)[0]
        arguments = {key: chance.choice(choices) for key, choices in OPS[name][2].items()}
        if tight and name == "win":
            ready = {"n": arguments["n"], "mode": "ok"}
            trace += [("sync", ready), ("go_on", {"k": -1}), ("sync", ready)][: chance.choice([0, 1, 3])]
            arguments["price"] = chance.choice([2, 4, 4])
        trace.append((name, arguments))
        if tight and name == "win" and chance.random() < 0.8:
            trace.append(("happen", {"k": -1}))
        if tight and name == "sync" and chance.random() < 0.7:
            arguments["mode"] = "ok"
            trace += [("go_on", {"k": -1}), ("sync", arguments)]
        if tight and name in ("tick", "consume") and chance.random() < 0.6:
            trace += [("consume", {"q": 0, "n": chance.choice([0, 1]), "mode": "ok"})] * 2
            trace += [("go_on", {"k": 0})] * chance.choice([0, 2, 4])
    return trace


def find(
    make: Callable[[], World], walks: int, seed: int = 0, steps: int = 50, *, shorten_it: bool = True
) -> tuple[str, Trace] | None:
    """The first walk that ends badly, shortened; None when all end well."""
    chance = random.Random(seed)
    for _ in range(walks):
        trace = walk(make, chance, steps)
        wrong = replay(trace, make)
        if wrong:
            return shorten(wrong, trace, make) if shorten_it else (wrong, trace)
    return None


def shorten(wrong: str, trace: Trace, make: Callable[[], World]) -> tuple[str, Trace]:
    """Leave out what the same failure does not need."""
    shorter = True
    while shorter:
        shorter = False
        for size in (8, 4, 2, 1):
            at = 0
            while at < len(trace):
                attempt = trace[:at] + trace[at + size :]
                found = replay(attempt, make)
                if found and found.split()[0] == wrong.split()[0]:
                    wrong, trace, shorter = found, attempt, True
                else:
                    at += 1
    return wrong, trace
