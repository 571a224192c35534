"""The house in auctions: budgets, frequency caps and changes of the catalogue."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from msgspec.structs import replace

from rtb.domain.campaign import Campaign, FrequencyCap, Pricing, Status, Targeting
from rtb.domain.profile import Profile
from rtb.domain.targeting import Candidate
from rtb.openrtb import Device, Loss, Regs
from rtb.services.exchange import Outcome
from rtb.services.exchange import Status as Ended
from tests.unit.parts import Build, Silent, World, bid_request, campaign, imp

DAY_S = 86_400


def winners(outcome: Outcome) -> list[str | None]:
    return [result.winner.seat if result.winner else None for result in outcome.results]


def spent(world: World, campaign_id: str) -> int:
    account = world.house.budgets.account(campaign_id)
    assert account is not None
    return account.spent_nanos


async def test_one_bid_an_advertiser_and_imp(build: Build) -> None:
    """Two campaigns of one advertiser do not bid against each other: the better one stands for both."""
    mine = [campaign("a1", 3.0, advertiser="a"), campaign("a2", 2.5, advertiser="a"), campaign("b", 1.0)]
    world = build(campaigns=mine)
    outcome = await world.run(bid_request(imp("1"), imp("2")))
    assert world.metrics.bids == 4
    assert [(r.winner.campaign.id, r.price_micros) for r in outcome.results if r.winner] == [
        ("a1", 1_010_000),
        ("a1", 1_010_000),
    ]


async def test_the_clearing_price_is_what_is_spent(build: Build) -> None:
    """Not the bid: 3.00 against 2.00 costs 2,010,000 nanos."""
    world = build(campaigns=[campaign("a", 3.0, daily_budget=1.0), campaign("b", 2.0, daily_budget=1.0)])
    await world.run(bid_request())
    assert (spent(world, "a"), spent(world, "b")) == (2_010_000, 0)


async def test_a_campaign_runs_dry_and_comes_back_at_midnight(build: Build) -> None:
    """0.005 pays two impressions at a first price of 2.00; then it no longer bids, until the new day of its zone."""
    eleven_in_seoul = 1_767_189_600.0  # 2025-12-31 23:00 there, 14:00 UTC
    mine = campaign("a", 2.0, daily_budget=0.005, timezone="Asia/Seoul")
    world = build(campaigns=[mine], time=eleven_in_seoul)
    outcomes = [await world.run(bid_request(at=1)) for _ in range(3)]
    assert [outcome.status for outcome in outcomes] == [Ended.WON, Ended.WON, Ended.NO_BID]
    assert (spent(world, "a"), world.house.is_funded("a"), world.metrics.bids) == (4_000_000, False, 2)
    world.clock.advance(3_599)
    world.house.refresh()
    assert (await world.run(bid_request(at=1))).status is Ended.NO_BID
    world.clock.advance(1)
    world.house.refresh()
    assert (await world.run(bid_request(at=1))).status is Ended.WON
    assert spent(world, "a") == 2_000_000


async def test_budget_for_one_of_two_imps(build: Build) -> None:
    """The campaign wins one; in the same auction the other imp goes to the next, who sees why."""
    world = build(campaigns=[campaign("a", 3.0, daily_budget=0.003), campaign("b", 2.0)])
    outcome = await world.run(bid_request(imp("1"), imp("2"), at=1))
    assert winners(outcome) == ["a", "b"]
    assert (spent(world, "a"), world.metrics.spend_nanos) == (3_000_000, 5_000_000)
    assert [(lost.bid.seat, lost.reason) for lost in outcome.results[1].losses] == [("a", Loss.INTERNAL_ERROR)]


async def test_many_auctions_never_pass_the_budget(build: Build) -> None:
    """Twenty auctions wait for a DSP at once, all with the house's bid in hand: three can be paid, no more."""
    dsp = Silent("dsp")
    world = build(dsp, deadline_ms=60_000, campaigns=[campaign("a", 2.0, daily_budget=0.0061)])
    running = [asyncio.ensure_future(world.run(bid_request(at=1))) for _ in range(20)]
    await asyncio.sleep(0)
    for auction in dsp.seen:
        auction.report(dsp)
    outcomes = await asyncio.gather(*running)
    assert sum(outcome.status is Ended.WON for outcome in outcomes) == 3
    assert (spent(world, "a"), world.metrics.spend_nanos) == (6_000_000, 6_000_000)


async def test_a_cap_counts_at_the_win_and_shows_in_the_next_auction(build: Build) -> None:
    """At most two a day to one user; another user still gets it, and so does the first the next day."""
    world = build(campaigns=[campaign("a", 3.0, frequency_cap=FrequencyCap(2, DAY_S)), campaign("b", 1.0)])
    await world.repository.start()
    assert [winners(await world.run(bid_request(user="u"))) for _ in range(3)] == [["a"], ["a"], ["b"]]
    assert winners(await world.run(bid_request(user="v"))) == ["a"]
    await world.profiles.close()
    world.clock.advance(DAY_S)
    assert winners(await world.run(bid_request(user="u"))) == ["a"]


async def test_a_lost_auction_does_not_count_towards_the_cap(build: Build) -> None:
    """Nor does a rehearsal."""
    world = build(campaigns=[campaign("a", 1.0, frequency_cap=FrequencyCap(1)), campaign("b", 2.0)])
    await world.repository.start()
    await world.run(bid_request(user="u"))
    await world.run(bid_request(user="u", badv=["b.test"]), rehearsal=True)
    assert winners(await world.run(bid_request(user="u", badv=["b.test"]))) == ["a"]
    assert winners(await world.run(bid_request(user="u", badv=["b.test"]))) == []


async def test_a_cap_holds_within_one_request(build: Build) -> None:
    """A page with two places shows a campaign capped at one only once."""
    world = build(campaigns=[campaign("a", 3.0, frequency_cap=FrequencyCap(1)), campaign("b", 1.0)])
    await world.repository.start()
    assert winners(await world.run(bid_request(imp("1"), imp("2"), user="u"))) == ["a", "b"]
    assert winners(await world.run(bid_request(imp("1"), user="u"))) == ["b"]


async def test_a_cap_holds_for_auctions_at_once(build: Build) -> None:
    """Two auctions of one user that both have its bid in hand: one may show it."""
    dsp = Silent("dsp")
    mine = [campaign("a", 3.0, frequency_cap=FrequencyCap(1), daily_budget=1.0), campaign("b", 1.0)]
    world = build(dsp, deadline_ms=60_000, campaigns=mine)
    await world.repository.start()
    await world.profiles.get("u")
    running = [asyncio.ensure_future(world.run(bid_request(user="u"))) for _ in range(2)]
    await asyncio.sleep(0)
    for auction in dsp.seen:
        auction.report(dsp)
    assert sorted(name or "" for outcome in await asyncio.gather(*running) for name in winners(outcome)) == ["a", "b"]
    assert spent(world, "a") == 1_010_000


@pytest.mark.parametrize("private", [{"regs": Regs(coppa=1)}, {"device": Device(lmt=1)}])
async def test_protected_users_have_no_profile_and_are_not_counted(build: Build, private: dict[str, object]) -> None:
    """COPPA or limited tracking: targeting by profile finds nothing, and no impression is kept for the id."""
    sports = campaign("sports", 3.0, targeting=Targeting(interests=("sports",)))
    world = build(campaigns=[sports, campaign("a", 1.0, frequency_cap=FrequencyCap(1))])
    await world.repository.start()
    await world.repository.put_profiles([Profile("u", ("sports",))])
    assert [winners(await world.run(bid_request(user="u", **private))) for _ in range(2)] == [["a"], ["a"]]
    assert winners(await world.run(bid_request(user="u"))) == ["sports"]
    assert [user.frequency for user in await world.state.get_users(["u"])] == [{}]


async def test_a_put_shows_in_the_next_auction(build: Build) -> None:
    """A new bid, a pause, a resume and a new campaign; a campaign keeps what it spent today."""
    world = build(campaigns=[campaign("a", 1.0, daily_budget=1.0)])

    async def best() -> list[str | None]:
        return winners(await world.run(bid_request()))

    assert await best() == ["a"]
    world.house.put(campaign("b", 2.0))
    assert await best() == ["b"]
    world.house.put(campaign("a", 3.0, daily_budget=1.0))
    assert await best() == ["a"]
    assert spent(world, "a") == 10_000 + 2_010_000
    world.house.put(campaign("a", 3.0, daily_budget=1.0, status=Status.PAUSED))
    assert await best() == ["b"]
    world.house.put(campaign("a", 3.0, daily_budget=1.0))
    assert await best() == ["a"]


async def test_a_raised_budget_brings_a_dry_campaign_back(build: Build) -> None:
    """At once, with the rest of the day's money only."""
    mine = campaign("a", 2.0, daily_budget=0.002)
    world = build(campaigns=[mine])
    await world.run(bid_request(at=1))
    assert (await world.run(bid_request(at=1))).status is Ended.NO_BID
    world.house.put(replace(mine, daily_budget=0.004, version=2))
    assert (await world.run(bid_request(at=1))).status is Ended.WON
    assert (await world.run(bid_request(at=1))).status is Ended.NO_BID


async def test_a_new_day_does_not_resume_what_was_paused(build: Build) -> None:
    """Dry and then paused: midnight gives it its budget, not its life."""
    mine = campaign("a", 2.0, daily_budget=0.002)
    world = build(campaigns=[mine])
    await world.run(bid_request(at=1))
    world.house.put(replace(mine, status=Status.PAUSED))
    world.clock.advance(DAY_S)
    world.house.refresh()
    assert (await world.run(bid_request(at=1))).status is Ended.NO_BID
    world.house.put(mine)
    assert (await world.run(bid_request(at=1))).status is Ended.WON


async def test_an_auction_in_flight_keeps_the_value_it_holds(build: Build) -> None:
    """A change while a DSP is awaited does not change what was bid."""
    dsp = Silent("dsp")
    world = build(dsp, deadline_ms=60_000, campaigns=[campaign("a", 2.0)])
    running = asyncio.ensure_future(world.run(bid_request(at=1)))
    await asyncio.sleep(0)
    world.house.put(campaign("a", 5.0))
    dsp.seen[0].report(dsp)
    outcome = await running
    assert outcome.results[0].price_micros == 2_000_000


async def test_lots_are_drawn_among_all_who_bid_the_same(build: Build) -> None:
    """Nine advertisers at 1.00, of whom four enter an auction: each of them wins some, and pays 1.00; two at 2.00 win
    before all of them, at 2.00."""
    world = build(campaigns=[campaign(f"c{n}", 1.0) for n in range(9)])
    won = Counter([winner_of(await world.run(bid_request())) for _ in range(200)])
    assert set(won) == {(f"c{n}", 1_000_000) for n in range(9)}
    for name in ("d1", "d2"):
        world.house.put(campaign(name, 2.0))
    won = Counter([winner_of(await world.run(bid_request())) for _ in range(50)])
    assert set(won) == {("d1", 2_000_000), ("d2", 2_000_000)}


def winner_of(outcome: Outcome) -> tuple[str, int]:
    [result] = outcome.results
    assert isinstance(result.winner, Candidate)
    return result.winner.campaign.id, result.price_micros


def cpc(**fields: object) -> Campaign:
    return campaign("a", 0.5, pricing=Pricing.CPC, pctr=0.01, **fields)


async def test_a_click_campaign_bids_its_expected_value(build: Build) -> None:
    """0.50 a click at one click in a hundred is an eCPM of 5.00."""
    world = build(campaigns=[cpc()])
    outcome = await world.run(bid_request(at=1))
    assert outcome.results[0].price_micros == 5_000_000


def test_loading_replaces_the_catalogue(build: Build) -> None:
    """What cannot pay a single impression is in it, but not live."""
    world = build(campaigns=[campaign("old")])
    world.house.load([campaign("a"), campaign("b", daily_budget=0.001)])
    assert sorted(one.id for one in world.house.campaigns()) == ["a", "b"]
    assert (world.house.is_funded("a"), world.house.is_funded("b")) == (True, False)
