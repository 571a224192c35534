"""The first auctions after a start, on shared accounts in a real Redis: none is lost for want of a lease."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from uuid import uuid4

import pytest_asyncio

from rtb.adapters.clock import SystemClock
from rtb.adapters.memory_ledger import MemoryLedger
from rtb.adapters.redis_accounts import RedisAccounts
from rtb.domain.budget import Sync, Synced, Timing
from rtb.domain.campaign import Campaign, Creative
from rtb.errors import StoreError
from rtb.lab.servers.redis import RedisServer
from rtb.openrtb import Banner, Imp, Loss, NoBid
from rtb.services.budgets import Budgets
from rtb.services.exchange import Status
from rtb.services.leases import Leases
from rtb.services.rebuild import Rebuild
from tests.unit.parts import Build, Prompt, World, bid_request, campaign, imp, offer

TIMING = Timing(grace_ms=0)


class Gate(RedisAccounts):
    """Accounts that a test can hold up, or have fail."""

    def __init__(self, url: str) -> None:
        super().__init__(url, TIMING, timeout_s=20.0, prefix=f"first-{uuid4().hex[:12]}:")
        self.opened = asyncio.Event()
        self.opened.set()
        self.asked = asyncio.Event()
        self.synced: list[str] = []
        self.fails = False

    async def sync(self, syncs: Sequence[Sync]) -> list[Synced]:
        """Once open."""
        self.synced += [sync.campaign_id for sync in syncs]
        self.asked.set()
        await self.opened.wait()
        if self.fails:
            raise StoreError("away")
        replies = await super().sync(syncs)
        self.asked.set()
        return replies

    async def next_sync(self) -> None:
        """Return when another is asked for, or was answered."""
        self.asked.clear()
        await self.asked.wait()


class Shared:
    """A world whose house spends from shared accounts."""

    def __init__(self, build: Build, url: str, campaigns: Sequence[Campaign], *bidders: Prompt) -> None:
        clock = SystemClock()
        known = {one.id: one for one in campaigns}

        async def find(campaign_id: str) -> Campaign | None:
            return known.get(campaign_id)

        self.accounts = Gate(url)
        rebuild = Rebuild(self.accounts, MemoryLedger(), find, clock, timing=TIMING)
        budgets = Budgets(clock, instance="i", timing=TIMING, shared=True)
        self.leases = Leases(budgets, self.accounts, rebuild.restore, clock, interval_s=60.0)
        self.world: World = build(
            *bidders, campaigns=campaigns, clock=clock, budgets=budgets, deadline_ms=60_000, network_margin_ms=0
        )


Start = Callable[..., "asyncio.Future[Shared]"]


@pytest_asyncio.fixture
async def start(build: Build, redis_server: RedisServer) -> AsyncIterator[Callable[..., object]]:
    """``shared = await start(*campaigns, bidders=())``, leases running."""
    made: list[Shared] = []

    async def begin(*campaigns: Campaign, bidders: Sequence[Prompt] = ()) -> Shared:
        shared = Shared(build, redis_server.url, campaigns, *bidders)
        made.append(shared)
        await shared.leases.start()
        return shared

    yield begin
    for shared in made:
        shared.accounts.opened.set()
        await shared.leases.stop()
        await shared.accounts.close()


async def test_the_very_first_request_wins(start) -> None:  # type: ignore[no-untyped-def]
    """The auction waits the moment until a lease is there, and nothing is withdrawn."""
    shared = await start(campaign("a", 3.0, daily_budget=1.0), campaign("b", 2.0, daily_budget=1.0))
    outcome = await shared.world.run(bid_request())
    assert [result.winner.seat for result in outcome.results] == ["a"]
    assert [(lost.bid.seat, lost.reason) for lost in outcome.results[0].losses] == [("b", Loss.OUTBID)]
    assert (await shared.world.run(bid_request())).status is Status.WON


async def test_many_first_requests_at_once(start) -> None:  # type: ignore[no-untyped-def]
    """All of them win, for one lease."""
    shared = await start(campaign("a", 3.0, daily_budget=1.0))
    outcomes = await asyncio.gather(*[shared.world.run(bid_request(imp("1"), imp("2"))) for _ in range(50)])
    assert {outcome.status for outcome in outcomes} == {Status.WON}
    assert sum(len(outcome.results) for outcome in outcomes) == 100


async def test_a_budget_that_pays_for_three(start) -> None:  # type: ignore[no-untyped-def]
    """Waiting does not spend a nano more than there is: 0.0065 pays three impressions at a first price of 2.00."""
    shared = await start(campaign("a", 2.0, daily_budget=0.0065))
    outcomes = await asyncio.gather(*[shared.world.run(bid_request(at=1)) for _ in range(10)])
    assert [outcome.status for outcome in outcomes].count(Status.WON) == 3


async def test_the_best_for_an_imp_is_waited_for(start) -> None:  # type: ignore[no-untyped-def]
    """Somebody else could pay at once; but a campaign that seldom matches would never win if that were enough."""
    shared = await start(campaign("a", 3.0, daily_budget=1.0), campaign("b", 2.0))
    outcome = await shared.world.run(bid_request())
    assert [result.winner.seat for result in outcome.results] == ["a"]
    assert [(lost.bid.seat, lost.reason) for lost in outcome.results[0].losses] == [("b", Loss.OUTBID)]


async def test_the_best_for_another_imp_is_waited_for(start) -> None:  # type: ignore[no-untyped-def]
    """Each imp has a best campaign of its own: that of the first can pay, that of the second cannot yet."""
    wide = Creative(id="w", w=728, h=90, image_url="https://cdn.test/w.png", landing_page="https://a.test/")
    shared = await start(campaign("a", 3.0, daily_budget=1.0, creatives=(wide,)), campaign("b", 2.0))
    outcome = await shared.world.run(bid_request(imp("1"), Imp(id="2", banner=Banner(w=728, h=90))))
    assert [result.winner and result.winner.seat for result in outcome.results] == ["b", "a"]


async def test_leases_that_take_long_while_somebody_can_pay(start) -> None:  # type: ignore[no-untyped-def]
    """The wait is a part of the auction's time; then who can pay wins, and the lease is there for the next one."""
    shared = await start(campaign("a", 3.0, daily_budget=1.0), campaign("b", 2.0))
    shared.accounts.opened.clear()
    shared.world.house.patience = 0.0001
    outcome = await shared.world.run(bid_request())
    assert [result.winner.seat for result in outcome.results] == ["b"]
    assert shared.accounts.synced == ["a"]


async def test_accounts_that_do_not_answer(start) -> None:  # type: ignore[no-untyped-def]
    """The wait ends by itself, long before the auction's deadline; other bidders win, or nobody."""
    rival = Prompt("dsp", offer("dsp", 1.0))
    for bidders, status in (((rival,), Status.WON), ((), Status.NO_BID)):
        shared = await start(campaign("a", 3.0, daily_budget=1.0), bidders=bidders)
        shared.accounts.opened.clear()
        shared.world.house.hope = 0.0001
        outcome = await asyncio.wait_for(shared.world.run(bid_request()), 30.0)
        assert outcome.status is status
        assert outcome.nbr is (None if bidders else NoBid.NO_ELIGIBLE_DEMAND)


async def test_accounts_known_to_be_away(start) -> None:  # type: ignore[no-untyped-def]
    """Nobody waits for a lease that cannot come: the auction is over in the step that began it."""
    shared = await start(campaign("a", 3.0, daily_budget=1.0))

    shared.accounts.fails = True
    shared.world.house.warm(1)
    async with asyncio.timeout(30.0):
        while not shared.world.house.budgets.is_away:
            await shared.accounts.next_sync()
    auction = shared.world.exchange.begin(bid_request(), shared.world.clock.monotonic_ns())
    assert auction.outcome is not None


async def test_warming_up(start) -> None:  # type: ignore[no-untyped-def]
    """After a start the campaigns that bid most are leased for, so that even their first auction does not wait."""
    campaigns = [campaign(f"c{n}", 1.0 + n, daily_budget=1.0) for n in range(5)]
    shared = await start(*campaigns)
    budgets = shared.world.house.budgets
    shared.world.house.warm(2)
    async with asyncio.timeout(30.0):
        while not (budgets.is_ready("c4") and budgets.is_ready("c3")):
            await shared.accounts.next_sync()
    assert set(shared.accounts.synced) == {"c4", "c3"}
    auction = shared.world.exchange.begin(bid_request(), shared.world.clock.monotonic_ns())
    assert auction.outcome is not None
    assert auction.outcome.results[0].winner.seat == "c4"
