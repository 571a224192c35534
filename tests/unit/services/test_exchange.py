"""One auction from request to outcome: bidders, deadline, rules, currencies, what is counted."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rtb.adapters.memory_state import MemoryState
from rtb.domain.auction import Lost
from rtb.domain.campaign import FrequencyCap
from rtb.errors import BadRequest, StoreError
from rtb.openrtb import BidRequest, Deal, Device, Loss, NoBid, Pmp, Qty, Regs, User
from rtb.ports import CachedUser, Clock
from rtb.services.exchange import MAX_USER_ID, Auction, Outcome, Rules, Status
from tests.unit.parts import (
    MS,
    Broken,
    Build,
    Pauper,
    Prompt,
    Silent,
    World,
    bid_request,
    campaign,
    imp,
    offer,
)

HOUR_MS = 3_600_000


class HangingState(MemoryState):
    """A state store that does not answer until it is given up."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.given_up = asyncio.Event()

    async def get_users(self, user_ids: object) -> list[CachedUser]:
        """Wait."""
        await self.given_up.wait()
        raise StoreError("gone")


def prices(outcome: Outcome) -> dict[str, tuple[str, int] | None]:
    """impid -> (seat, clearing price in micros)."""
    return {r.impid: (r.winner.seat, r.price_micros) if r.winner else None for r in outcome.results}


def losses(outcome: Outcome) -> list[tuple[str, Loss]]:
    return sorted((lost.bid.seat, lost.reason) for result in outcome.results for lost in result.losses)


async def test_the_house_alone_needs_no_waiting(build: Build) -> None:
    """begin has the outcome at once: the best of two campaigns wins and pays the second bid plus one cent."""
    world = build(campaigns=[campaign("a", 3.0), campaign("b", 2.0)])
    auction = world.exchange.begin(bid_request(), world.clock.monotonic_ns())
    outcome = auction.outcome
    assert outcome is not None
    assert (outcome.status, outcome.nbr, prices(outcome)) == (Status.WON, None, {"1": ("a", 2_010_000)})
    assert losses(outcome) == [("b", Loss.OUTBID)]
    counts = world.metrics.counts()
    assert (counts.won, counts.imps, counts.bids, counts.wins, counts.spend_nanos) == (1, 1, 2, 1, 2_010_000)
    assert (dict(counts.losses), world.metrics.in_flight) == ({102: 1}, 0)


async def test_auction_ids_are_unique_and_not_the_request_s(build: Build) -> None:
    """The same request twice is two auctions."""
    world = build()
    one, other = await world.run(bid_request()), await world.run(bid_request())
    assert one.auction_id != other.auction_id
    assert "r" not in (one.auction_id, other.auction_id)


async def test_all_bidders_meet_in_one_auction(build: Build) -> None:
    """An outside bid prices the house's and is told why it lost, with the price that would have won."""
    world = build(Prompt("dsp", offer("dsp", 2.5)), campaigns=[campaign("a", 3.0)])
    outcome = await world.run(bid_request())
    assert prices(outcome) == {"1": ("a", 2_510_000)}
    assert [(lost.bid.seat, lost.reason, lost.min_to_win_micros) for lost in outcome.results[0].losses] == [
        ("dsp", Loss.OUTBID, 2_510_000)
    ]


async def test_the_last_report_settles_at_once(build: Build) -> None:
    """With an hour to go the outcome is there as soon as nobody is pending."""
    late = Silent("dsp")
    world = build(late, deadline_ms=HOUR_MS, campaigns=[campaign("a", 1.0)])
    running = asyncio.ensure_future(world.run(bid_request()))
    await asyncio.sleep(0)
    assert world.metrics.in_flight == 1
    late.seen[0].report(late, [offer("dsp", 4.0)])
    assert prices(await running) == {"1": ("dsp", 1_010_000)}
    assert (world.metrics.in_flight, world.metrics.bidder_timeouts, late.costs) == (0, 0, [1_010_000])


async def test_at_the_deadline_what_has_arrived_counts(build: Build) -> None:
    """The late bidder loses its turn, not the auction; its report later is forgotten."""
    late = Silent("slow")
    world = build(late, Prompt("fast", offer("fast", 1.5)), deadline_ms=3, campaigns=[campaign("a", 2.0)])
    outcome = await world.run(bid_request())
    assert (outcome.status, prices(outcome)) == (Status.WON, {"1": ("a", 1_510_000)})
    late.seen[0].report(late, [offer("slow", 9.0)])
    assert (prices(outcome), late.costs) == ({"1": ("a", 1_510_000)}, [])
    counts = world.metrics.counts()
    assert (counts.bidder_timeouts, counts.bids, counts.won, counts.timeout) == (1, 2, 1, 0)


@pytest.mark.parametrize(
    ("prompt", "late", "status", "nbr"),
    [
        ([], True, Status.TIMEOUT, NoBid.ALL_LATE),
        ([], False, Status.NO_BID, NoBid.NO_ELIGIBLE_DEMAND),
        ([offer("dsp", 0.5)], True, Status.NO_BID, NoBid.ALL_BELOW_FLOOR),
        ([offer("dsp", 0.5)], False, Status.NO_BID, NoBid.ALL_BELOW_FLOOR),
        ([offer("dsp", 0.5, dealid="?")], False, Status.NO_BID, NoBid.NO_ELIGIBLE_DEMAND),
    ],
)
async def test_timeout_means_that_only_lateness_left_nothing(
    build: Build, prompt: list[object], late: bool, status: Status, nbr: NoBid
) -> None:
    """No bid at all because of lateness is a timeout, 503; a bid that arrived and lost makes it a no-bid."""
    bidders = [Prompt("dsp", *prompt), *([Silent("slow")] if late else [])]  # type: ignore[arg-type]
    world = build(*bidders, deadline_ms=3)
    outcome = await world.run(bid_request(imp(bidfloor=1.0)))
    assert (outcome.status, outcome.nbr) == (status, nbr)
    counts = world.metrics.counts()
    assert dict(counts.nbr) == {int(nbr): 1}
    assert (counts.timeout, counts.no_bid) == ((1, 0) if status is Status.TIMEOUT else (0, 1))


async def test_only_the_first_report_of_a_bidder_counts(build: Build) -> None:
    """A second one, or one of somebody who was not asked, neither adds bids nor settles the auction early."""
    twice, other = Silent("twice"), Silent("other")
    world = build(twice, other, deadline_ms=HOUR_MS)
    running = asyncio.ensure_future(world.run(bid_request()))
    await asyncio.sleep(0)
    auction = twice.seen[0]
    auction.report(twice, [offer("twice", 1.0)])
    auction.report(twice, [offer("twice", 9.0)])
    auction.report(Silent("stranger"), [offer("stranger", 9.0)])
    await asyncio.sleep(0)
    assert not running.done()
    auction.report(other)
    assert prices(await running) == {"1": ("twice", 10_000)}
    assert world.metrics.bids == 1


async def test_a_bidder_that_raises_fails_alone(build: Build) -> None:
    """The others bid on; the failure is counted and kept, and no auction stays in flight."""
    world = build(Broken("broken"), Prompt("dsp", offer("dsp", 1.0)))
    auction = world.exchange.begin(bid_request(), world.clock.monotonic_ns())
    assert auction.outcome is not None
    assert prices(auction.outcome) == {"1": ("dsp", 10_000)}
    assert auction.failures == {"broken": "RuntimeError: the model is not loaded"}
    assert (world.metrics.bidder_errors, world.metrics.bidder_timeouts, world.metrics.in_flight) == (1, 0, 0)


async def test_bids_refused_on_intake_count_as_losses(build: Build) -> None:
    """They are no valid bids, and lose with their reason."""
    world = build(Prompt("dsp", rejected=[Lost(offer("dsp", 1.0), Loss.MARKUP_MISSING)]))
    outcome = await world.run(bid_request())
    assert (outcome.status, outcome.nbr) == (Status.NO_BID, NoBid.NO_ELIGIBLE_DEMAND)
    assert (world.metrics.bids, dict(world.metrics.losses)) == (0, {Loss.MARKUP_MISSING: 1})


async def test_a_bid_below_its_bidders_own_floor_would_have_had_to_win_too(build: Build) -> None:
    """Its floor alone, 2.50, would have left it below the 3.01 that won; another imp's winner is none of its business,
    and where price did not decide there is none to name."""
    low, odd = (
        Lost(offer("a", 2.0), Loss.BELOW_FLOOR, 2_500_000),
        Lost(offer("a", 2.0, "2"), Loss.BELOW_FLOOR, 2_500_000),
    )
    wrong = Lost(offer("a", 2.0), Loss.SIZE)
    world = build(Prompt("a", rejected=[low, odd, wrong]), Prompt("b", offer("b", 4.0)), Prompt("c", offer("c", 3.0)))
    outcome = await world.run(bid_request(imp(), imp("2")))
    assert outcome.results[0].price_micros == 3_010_000
    assert [lost.min_to_win_micros for lost in (low, odd, wrong)] == [3_010_000, 2_500_000, None]


@pytest.mark.parametrize("waits_for", ["bidder", "profile"])
async def test_a_cancelled_auction_is_not_in_flight(build: Build, waits_for: str) -> None:
    """Whoever waited for the answer has gone: the auction ends, once, and a report after that is forgotten."""
    late = Silent("dsp")
    if waits_for == "profile":
        world = build(late, state=HangingState(ManualTime()), deadline_ms=HOUR_MS, wait_s=0.001)
    else:
        world = build(late, deadline_ms=HOUR_MS)
    running = asyncio.ensure_future(world.run(bid_request(user="u" if waits_for == "profile" else "")))
    await asyncio.sleep(0)
    assert world.metrics.in_flight == 1
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert (world.metrics.in_flight, dict(world.metrics.nbr)) == (0, {NoBid.TECHNICAL_ERROR: 1})
    for auction in late.seen:
        auction.report(late, [offer("dsp", 1.0)])
    assert (world.metrics.in_flight, world.metrics.won, late.costs) == (0, 0, [])
    await abandon(world)


class ManualTime:
    """A clock that stands still."""

    def monotonic_ns(self) -> int:
        return 1

    def time(self) -> float:
        return 1.0


async def abandon(world: World) -> None:
    """Give up a lookup that will never end, so that closing does not wait for it."""
    if isinstance(world.state, HangingState):
        world.state.given_up.set()
    await world.profiles.close()


async def test_the_deadline_bounds_the_wait_for_the_profile(build: Build) -> None:
    """A lookup that hangs, with a profile wait far beyond the deadline: the auction goes on without profile."""
    world = build(state=HangingState(ManualTime()), deadline_ms=3, wait_s=3_600.0, campaigns=[campaign("a")])
    outcome = await world.run(bid_request(user="u"))
    assert prices(outcome) == {"1": ("a", 10_000)}
    await abandon(world)


async def test_a_message_that_waited_past_its_deadline_is_a_timeout(build: Build) -> None:
    """It is answered as such, not auctioned: no bidder hears of it."""
    dsp = Prompt("dsp", offer("dsp", 1.0))
    world = build(dsp)
    outcome = await world.run(bid_request(), age_ms=100)
    assert (outcome.status, outcome.nbr, dsp.seen) == (Status.TIMEOUT, NoBid.ALL_LATE, [])
    outcome = await world.run(bid_request(tmax=60), age_ms=50)
    assert (outcome.status, world.metrics.timeout, world.metrics.in_flight) == (Status.TIMEOUT, 2, 0)


async def test_a_message_that_is_old_but_in_time_is_auctioned(build: Build) -> None:
    """The deadline counts from when the message was made."""
    dsp = Prompt("dsp", offer("dsp", 1.0))
    world = build(dsp)
    outcome = await world.run(bid_request(), age_ms=99)
    assert outcome.status is Status.WON
    assert dsp.seen[0].deadline_ns == world.clock.monotonic_ns() + 1 * MS


async def test_too_short_a_tmax_is_no_timeout(build: Build) -> None:
    """It never had a chance: 15, with no bidder asked."""
    dsp = Prompt("dsp", offer("dsp", 1.0))
    world = build(dsp, minimum_ms=5)
    outcome = await world.run(bid_request(tmax=14))
    assert (outcome.status, outcome.nbr, dsp.seen) == (Status.NO_BID, NoBid.INSUFFICIENT_TIME, [])
    assert (await world.run(bid_request(tmax=15))).status is Status.WON


async def test_crawlers_and_overload_are_refused(build: Build) -> None:
    """A crawler is a no-bid with 3; above the cap of auctions in flight a request is shed with 502."""
    late = Silent("dsp")
    world = build(late, max_in_flight=1, deadline_ms=HOUR_MS)
    bot = Device(ua="Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)")
    outcome = await world.run(bid_request(device=bot))
    assert (outcome.status, outcome.nbr) == (Status.NO_BID, NoBid.KNOWN_CRAWLER)
    running = asyncio.ensure_future(world.run(bid_request()))
    await asyncio.sleep(0)
    outcome = await world.run(bid_request())
    assert (outcome.status, outcome.nbr) == (Status.SHED, NoBid.SHED)
    late.seen[0].report(late)
    await running
    counts = world.metrics.counts()
    assert (counts.shed, counts.no_bid, dict(counts.nbr)) == (1, 2, {3: 1, 502: 1, 500: 1})
    assert world.metrics.in_flight == 0


async def test_auctions_may_take_each_step_together(build: Build) -> None:
    """They end as if each had been begun by itself; one that is refused passes the other steps as it is."""
    world = build(campaigns=[campaign("a", 3.0), campaign("b", 2.0)], minimum_ms=5)
    exchange = world.exchange
    requests = [bid_request(), bid_request(tmax=14), bid_request(at=1)]
    auctions = [exchange.admit(request, world.clock.monotonic_ns()) for request in requests]
    refused = auctions[1].outcome
    assert [auction.outcome for auction in auctions] == [None, refused, None]
    for step in (exchange.ask, exchange.settle):
        for auction in auctions:
            step(auction)
    assert refused is not None
    assert (auctions[1].outcome, refused.nbr) == (refused, NoBid.INSUFFICIENT_TIME)
    paid = [prices(auction.outcome) for auction in auctions if auction.outcome is not None]
    assert paid == [{"1": ("a", 2_010_000)}, {}, {"1": ("a", 3_000_000)}]
    assert (world.metrics.counts().won, world.metrics.in_flight) == (2, 0)


async def test_an_auction_that_waits_is_not_settled_by_its_third_step(build: Build) -> None:
    """A bidder has not answered: `conclude` or `finish` go on from there."""
    late = Silent("dsp")
    world = build(late, deadline_ms=HOUR_MS)
    auction = world.exchange.admit(bid_request(), world.clock.monotonic_ns())
    world.exchange.ask(auction)
    world.exchange.settle(auction)
    assert (auction.outcome, world.metrics.in_flight) == (None, 1)
    ended = asyncio.ensure_future(world.exchange.finish(auction))
    await asyncio.sleep(0)
    late.seen[0].report(late, [offer("dsp", 1.0)])
    assert (await ended).status is Status.WON


async def test_a_cap_holds_among_auctions_that_are_asked_together(build: Build) -> None:
    """Both have a bid of a campaign that the user may see once: the second to be settled goes to another."""
    capped = campaign("a", 3.0, frequency_cap=FrequencyCap(1))
    world = build(campaigns=[capped, campaign("b", 2.0)])
    exchange = world.exchange
    await world.repository.start()
    await world.profiles.get("u")
    auctions = [exchange.admit(bid_request(user="u"), world.clock.monotonic_ns()) for _ in range(2)]
    for step in (exchange.ask, exchange.settle):
        for auction in auctions:
            step(auction)
    paid = [prices(auction.outcome) for auction in auctions if auction.outcome is not None]
    assert paid == [{"1": ("a", 2_010_000)}, {"1": ("b", 10_000)}]


@pytest.mark.parametrize(("at", "price"), [(None, 2_010_000), (2, 2_010_000), (1, 3_000_000), (501, 3_000_000)])
async def test_the_auction_type_decides_the_price(build: Build, at: int | None, price: int) -> None:
    """Second price plus is the default, 1 the first price, and so is an exchange-specific type configured here."""
    rules = Rules(first_price_types=frozenset({501}), tie_key=b"k")
    world = build(campaigns=[campaign("a", 3.0), campaign("b", 2.0)], rules=rules)
    assert prices(await world.run(bid_request(at=at))) == {"1": ("a", price)}


async def test_an_unknown_exchange_specific_type_is_refused(build: Build) -> None:
    """From 500 on a type must be configured; the message names the field, and nothing stays in flight."""
    dsp = Prompt("dsp", offer("dsp", 1.0))
    world = build(dsp)
    with pytest.raises(BadRequest, match=r"^imp\[0\]\.pmp: deal 'd': at: 500 "):
        await world.run(bid_request(imp("1", pmp=Pmp(deals=[Deal(id="d", at=500)]))))
    with pytest.raises(BadRequest, match=r"^at: 500 "):
        await world.run(bid_request(at=500))
    assert (world.metrics.in_flight, dsp.seen) == (0, [])


@pytest.mark.parametrize(
    ("cur", "currency", "nbr"),
    [
        (None, "USD", None),
        (["EUR", "USD"], "USD", None),
        (["EUR"], "EUR", None),
        (["XXX", "EUR"], "EUR", None),
        (["XXX"], "", NoBid.NO_RATE),
    ],
)
async def test_the_answer_is_in_a_currency_that_the_request_allows(
    build: Build, cur: list[str] | None, currency: str, nbr: NoBid | None
) -> None:
    """The exchange's own where it may be, else the first with a rate; with none there is no bid."""
    world = build(campaigns=[campaign("a")], rates={"EUR": 1.25})
    outcome = await world.run(bid_request(cur=cur))
    assert (outcome.currency, outcome.nbr) == (currency, nbr)


async def test_a_floor_counts_in_its_own_currency(build: Build) -> None:
    """A floor of 1.00 EUR at 1.25 is 1.25 USD: a lone bid of 2.00 pays that; without a rate there is no bid."""
    world = build(campaigns=[campaign("a", 2.0)], rates={"EUR": 1.25})
    assert prices(await world.run(bid_request(imp(bidfloor=1.0, bidfloorcur="EUR")))) == {"1": ("a", 1_250_000)}
    outcome = await world.run(bid_request(imp(bidfloor=1.0, bidfloorcur="XXX")))
    assert (outcome.status, outcome.nbr) == (Status.NO_BID, NoBid.NO_RATE)
    deal = Pmp(deals=[Deal(id="d", bidfloor=1.0, bidfloorcur="XXX")])
    assert (await world.run(bid_request(imp(pmp=deal)))).nbr is NoBid.NO_RATE


async def test_an_imp_whose_floor_nobody_can_tell_does_not_cost_the_others(build: Build) -> None:
    """It is not sold, to the house or to an outside bidder; the imp beside it is."""
    world = build(Prompt("dsp", offer("dsp", 9.0)), campaigns=[campaign("a", 2.0)])
    unknown = imp(bidfloor=1.0, bidfloorcur="XXX")
    outcome = await world.run(bid_request(unknown, imp("2", bidfloor=1.0)))
    assert (outcome.status, prices(outcome)) == (Status.WON, {"1": None, "2": ("a", 1_000_000)})
    assert losses(outcome) == [("dsp", Loss.INTERNAL_ERROR)]
    assert world.metrics.in_flight == 0


@pytest.mark.parametrize("how", ["test", "rehearsal"])
async def test_a_rehearsal_runs_the_auction_and_leaves_no_trace(build: Build, how: str) -> None:
    """The outcome is the same; nothing is paid, and no counter moves, of bids, losses, lateness, failures or time."""
    dsp, late = Prompt("dsp", offer("dsp", 1.0)), Silent("late")
    rejected = Prompt("sloppy", rejected=[Lost(offer("sloppy", 1.0), Loss.PRICE_MISSING)])
    capped = campaign("a", 3.0, daily_budget=1.0)
    world = build(dsp, late, rejected, Broken("broken"), deadline_ms=3, campaigns=[capped, campaign("b", 2.0)])
    before = world.metrics.counts()
    outcome = await world.run(bid_request(test=1 if how == "test" else 0), rehearsal=how == "rehearsal")
    assert prices(outcome) == {"1": ("a", 2_010_000)}
    assert world.metrics.counts() == before
    assert (world.metrics.latency.count, world.metrics.in_flight, dsp.costs) == (0, 0, [])
    account = world.house.budgets.account("a")
    assert account is not None
    assert account.spent_nanos == 0


async def test_who_cannot_pay_loses_to_the_next(build: Build) -> None:
    """The imp is cleared again in the same auction, without the bid; each that could not pay keeps its loss."""
    bidders = [Pauper("p1", offer("p1", 9.0)), Pauper("p2", offer("p2", 8.0)), Prompt("dsp", offer("dsp", 3.0))]
    world = build(*bidders, campaigns=[campaign("a", 2.0)])
    outcome = await world.run(bid_request())
    assert prices(outcome) == {"1": ("dsp", 2_010_000)}
    assert losses(outcome) == [("a", Loss.OUTBID), ("p1", Loss.INTERNAL_ERROR), ("p2", Loss.INTERNAL_ERROR)]
    counts = world.metrics.counts()
    assert (counts.wins, counts.spend_nanos, dict(counts.losses)) == (1, 2_010_000, {1: 2, 102: 1})


async def test_nobody_can_pay(build: Build) -> None:
    """Then the imp is not sold and the answer is a no-bid; both bids are accounted for."""
    world = build(Pauper("p1", offer("p1", 9.0)), Pauper("p2", offer("p2", 8.0)))
    outcome = await world.run(bid_request())
    assert (outcome.status, outcome.nbr) == (Status.NO_BID, NoBid.NO_ELIGIBLE_DEMAND)
    assert losses(outcome) == [("p1", Loss.INTERNAL_ERROR), ("p2", Loss.INTERNAL_ERROR)]
    assert world.metrics.spend_nanos == 0


async def test_an_auction_that_cannot_be_settled_is_over(build: Build) -> None:
    """What goes wrong at the end of an auction is told to its caller, and leaves nothing under way."""
    dsp = Prompt("dsp", offer("dsp", 3.0))
    world = build(dsp)
    dsp.claim = None  # type: ignore[method-assign, assignment]
    with pytest.raises(TypeError):
        await world.run(bid_request())
    assert (world.metrics.in_flight, dict(world.metrics.nbr)) == (0, {NoBid.TECHNICAL_ERROR: 1})


async def test_a_withdrawn_group_stays_withdrawn(build: Build) -> None:
    """Its bid does not win the one imp that comes free because the winner cannot pay: it wanted both or none."""
    group = [offer("g", 5.0, "1", group="g"), offer("g", 1.0, "2", group="g")]
    world = build(Prompt("g", *group), Pauper("p", offer("p", 6.0, "2")), Prompt("dsp", offer("dsp", 0.5, "2")))
    outcome = await world.run(bid_request(imp("1"), imp("2")))
    assert prices(outcome) == {"1": None, "2": ("dsp", 10_000)}
    assert losses(outcome) == [("g", Loss.OUTBID), ("g", Loss.OUTBID), ("p", Loss.INTERNAL_ERROR)]


async def test_the_cost_of_a_sale_counts_its_impressions(build: Build) -> None:
    """qty.multiplier: at 1.01 CPM one impression is 1,010,000 nanos, a screen that 3.5 see 3,535,000."""
    dsp = Prompt("dsp", offer("dsp", 2.0))
    world = build(dsp, Prompt("rival", offer("rival", 1.0)))
    await world.run(bid_request(imp(qty=Qty(multiplier=3.5))))
    assert (dsp.costs, world.metrics.spend_nanos) == ([3_535_000], 3_535_000)


async def test_listeners_hear_of_every_auction_once(build: Build) -> None:
    """Won, refused or expired, with its outcome."""
    world = build(campaigns=[campaign("a")])
    heard: list[tuple[Auction, Outcome]] = []
    world.exchange.listen(lambda auction, outcome: heard.append((auction, outcome)))
    outcomes = [await world.run(bid_request()), await world.run(bid_request(tmax=1))]
    outcomes.append(await world.run(bid_request(), age_ms=500))
    assert [outcome for _, outcome in heard] == outcomes
    assert [auction.outcome for auction, _ in heard] == outcomes


@pytest.mark.parametrize(
    ("fields", "user_id"),
    [
        ({"user": User(id="u", buyeruid="b")}, "u"),
        ({"user": User(buyeruid="b")}, "b"),
        ({"user": User()}, ""),
        ({}, ""),
        ({"user": User(id="u"), "regs": Regs(coppa=1)}, ""),
        ({"user": User(id="u"), "regs": Regs(coppa=0)}, "u"),
        ({"user": User(id="u"), "device": Device(lmt=1)}, ""),
        ({"user": User(id="u"), "device": Device(lmt=0)}, "u"),
        ({"user": User(id="u" * MAX_USER_ID)}, "u" * MAX_USER_ID),
        ({"user": User(id="u" * (MAX_USER_ID + 1))}, ""),
    ],
)
def test_whom_profile_and_caps_are_for(fields: dict[str, object], user_id: str) -> None:
    """Nobody where COPPA applies or the device limits tracking [3.2.3, 3.2.18], nor under an id of absurd length."""
    assert Auction("x", BidRequest(id="r", **fields), 0, 0).user_id == user_id  # type: ignore[arg-type]


FATES = st.sampled_from(["bids", "none", "late", "raises", "broke"])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(bidders=st.lists(st.tuples(FATES, st.integers(1, 500)), max_size=6, unique_by=lambda one: one[1]))
async def test_every_mix_of_bidders_settles(build: Build, bidders: list[tuple[str, int]]) -> None:
    """Against a model: the highest bid that arrived and can pay wins at the next lower one's price plus a cent, at most
    its own; timeout needs a late one and no bid; each bidder has one fate in the counters, nothing stays in flight."""
    kinds = {"bids": Prompt, "none": Prompt, "late": Silent, "raises": Broken, "broke": Pauper}
    made = []
    for fate, cents in bidders:
        name = f"d{cents}"
        bid = [offer(name, cents / 100)] if fate in ("bids", "broke") else []
        made.append(kinds[fate](name, *bid))
    world = build(*made, deadline_ms=2)
    outcome = await world.run(bid_request())
    able = sorted((cents for fate, cents in bidders if fate == "bids"), reverse=True)
    arrived = sum(fate in ("bids", "broke") for fate, _ in bidders)
    late = sum(fate == "late" for fate, _ in bidders)
    if able:
        below = [cents for fate, cents in bidders if fate in ("bids", "broke") and cents < able[0]]
        price = min(able[0], max(below, default=0) + 1)
        assert prices(outcome) == {"1": (f"d{able[0]}", price * 10_000)}
    expected = Status.WON if able else Status.TIMEOUT if late and not arrived else Status.NO_BID
    assert outcome.status is expected
    counts = world.metrics.counts()
    assert (counts.bids, counts.bidder_timeouts, world.metrics.in_flight) == (arrived, late, 0)
    assert counts.bidder_errors == sum(fate == "raises" for fate, _ in bidders)
    assert counts.wins + sum(counts.losses.values()) == arrived
