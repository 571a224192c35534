"""Why an auction came out as it did."""

from __future__ import annotations

from rtb.domain.auction import Lost
from rtb.domain.campaign import FrequencyCap, Pacing, Status, Targeting
from rtb.domain.privacy import Reason, Treatment
from rtb.openrtb import Banner, BidRequest, Device, Geo, Imp, Loss
from rtb.ports import OpenAuction
from rtb.services.admission import Admission
from rtb.services.exchange import Exchange, Rules
from rtb.services.explain import Explanation, Verdict, explain
from rtb.services.house_bidder import HouseBidder
from rtb.services.pacing import Pacer
from tests.unit.parts import Broken, Build, Discreet, Prompt, Silent, World, bid_request, campaign, imp, offer


async def explained(world: World, request: BidRequest) -> Explanation:
    return await explain(world.exchange, world.house, request, world.clock, world.rates)


def of(explanation: Explanation, name: str) -> Verdict:
    """The one verdict on a campaign or bidder."""
    [found] = [v for v in explanation.verdicts if name in (v.campaign, v.bidder)]
    return found


async def test_the_winner_and_who_was_outbid(build: Build) -> None:
    """Prices, what is paid, and what would have won."""
    world = build(Prompt("dsp", offer("dsp", 2.5)), campaigns=[campaign("a", 3.0), campaign("b", 2.0)])
    found = await explained(world, bid_request(imp(bidfloor=0.5)))
    assert (found.request_id, found.outcome, found.nbr, found.nbr_name) == ("r", "won", None, "")
    assert (found.at, found.floors, found.clearing) == ([2], {"1": 0.5}, {"1": 2.51})
    a, b, dsp = (of(found, name) for name in ("a", "b", "dsp"))
    assert (a.verdict, a.bidder, a.seat, a.price, a.min_to_win) == ("won", "house", "a", 3.0, 2.5)
    assert (b.verdict, b.price, b.loss, b.criterion, b.min_to_win) == ("lost", 2.0, 102, "outbid", 2.51)
    assert (dsp.verdict, dsp.seat, dsp.price, dsp.loss) == ("lost", "dsp", 2.5, 102)


async def test_an_explanation_leaves_no_trace(build: Build) -> None:
    """Nothing is paid, counted or capped."""
    mine = campaign("a", 3.0, daily_budget=1.0, frequency_cap=FrequencyCap(1))
    world = build(campaigns=[mine])
    await world.repository.start()
    before = world.metrics.counts()
    for _ in range(3):
        assert of(await explained(world, bid_request()), "a").verdict == "won"
    assert world.metrics.counts() == before
    account = world.house.budgets.account("a")
    assert account is not None
    assert account.spent_nanos == 0


async def test_why_a_paced_campaign_did_not_bid(build: Build) -> None:
    """Nine tenths of the budget are spent when pacing begins: the chance that is left to it, with the amounts."""
    paced = campaign("a", 3.0, daily_budget=1.0, pacing=Pacing.EVEN)
    world = build(campaigns=[paced, campaign("unpaced", 9.0, targeting=Targeting(country=("KOR",)))])
    pacer = Pacer(world.clock, world.house.budgets.spending)
    pacer.watch(paced)
    world.house.admits, world.house.objection = pacer.admits, pacer.objection
    world.house.budgets.debit("a", 900_000_000)
    world.clock.advance(6 * 3_600)
    found = of(await explained(world, bid_request()), "a")
    assert (found.verdict, found.criterion) == ("no-bid", "pacing")
    assert found.why.startswith("pacing: takes part in ")
    assert found.why.endswith(" % of the auctions now: 0.9 spent, target 0.9")


async def test_why_campaigns_did_not_bid(build: Build) -> None:
    """Each with the first criterion it fails and the values behind it."""
    world = build(
        campaigns=[
            campaign("paused", status=Status.PAUSED),
            campaign("dry", daily_budget=0.001),
            campaign("wrong-country", targeting=Targeting(country=("KOR",))),
            campaign("cheap", 0.4),
            campaign("capped", frequency_cap=FrequencyCap(1)),
        ]
    )
    await world.repository.start()
    await world.run(bid_request(user="u"))
    request = bid_request(imp(bidfloor=0.5), user="u", device=Device(geo=Geo(country="USA")))
    found = await explained(world, request)
    assert (found.outcome, found.nbr, found.nbr_name) == ("no-bid", 500, "no_eligible_demand")
    assert {v.campaign: (v.verdict, v.criterion) for v in found.verdicts} == {
        "paused": ("no-bid", "status"),
        "dry": ("no-bid", "budget"),
        "wrong-country": ("no-bid", "country"),
        "cheap": ("no-bid", "floor"),
        "capped": ("no-bid", "frequency"),
    }
    assert of(found, "cheap").why == "floor: price 0.40 CPM is below 0.50"
    assert of(found, "wrong-country").why == "country: USA is none of KOR"
    assert of(found, "capped").why == "frequency: 1 shown, at most 1 in 86400 s"


async def test_a_campaign_that_fits_but_did_not_enter(build: Build) -> None:
    """Its advertiser's better campaign stood for it."""
    world = build(campaigns=[campaign("a1", 3.0, advertiser="a"), campaign("a2", 2.0, advertiser="a")])
    verdict = of(await explained(world, bid_request()), "a2")
    assert (verdict.verdict, verdict.criterion, verdict.price) == ("no-bid", "rank", 2.0)


async def test_every_imp_has_its_own_verdicts(build: Build) -> None:
    """Won here, the wrong size there."""
    world = build(campaigns=[campaign("a")])
    found = await explained(world, bid_request(imp("1"), Imp(id="2", banner=Banner(w=728, h=90))))
    assert [(v.impid, v.verdict, v.criterion) for v in found.verdicts] == [("1", "won", ""), ("2", "no-bid", "size")]


async def test_what_became_of_the_other_bidders(build: Build) -> None:
    """No bid, refused on intake with its reason, failed with its error, late at the deadline."""
    rejected = Prompt("sloppy", rejected=[Lost(offer("sloppy", 1.0), Loss.MARKUP_MISSING)])
    world = build(Prompt("idle"), rejected, Broken("broken"), Silent("slow"), deadline_ms=3)
    found = await explained(world, bid_request())
    assert (found.outcome, found.nbr_name) == ("timeout", "all_late")
    assert {v.bidder: (v.verdict, v.why) for v in found.verdicts} == {
        "idle": ("no-bid", "no bid: answered without one"),
        "sloppy": ("lost", "lost: bid 1.00 CPM, markup missing (7)"),
        "broken": ("failed", "RuntimeError: the model is not loaded"),
        "slow": ("failed", "late: had not answered at the deadline"),
    }


async def test_whom_privacy_tells_less(build: Build) -> None:
    """How much less, and why: of those that were asked. Whoever was not has that for a verdict."""
    world = build(
        Discreet("whole"),
        Discreet("coarse", told=(Treatment.COARSE, Reason.GDPR_GEO)),
        Discreet("anonymous", told=(Treatment.ANONYMOUS, Reason.GDPR_VENDOR)),
        Discreet("unasked", told=(Treatment.NONE, Reason.COPPA)),
        Prompt("local"),
        campaigns=[campaign("a")],
    )
    found = await explained(world, bid_request())
    assert found.told_less == {
        "coarse": "coarse, gdpr: no opt-in to precise geolocation",
        "anonymous": "anonymous, gdpr: no consent for its vendor id",
    }
    assert of(found, "unasked").why == "not asked: coppa"
    assert (await explained(world, bid_request(tmax=5))).told_less == {}


async def test_a_failure_of_the_house_shows_too(build: Build) -> None:
    """Or its campaigns would seem to have been beaten."""

    class BrokenHouse(HouseBidder):
        def bid(self, auction: OpenAuction) -> None:
            """Raise."""
            raise RuntimeError("the index is gone")

    world = build()
    house = BrokenHouse(world.profiles, world.clock, world.rates)
    admission = Admission(deadline_ms=100, network_margin_ms=10, minimum_ms=1, max_in_flight=10)
    exchange = Exchange(
        [house], world.profiles, admission, world.metrics, world.clock, rates=world.rates, rules=Rules()
    )
    found = await explain(exchange, house, bid_request(), world.clock, world.rates)
    assert of(found, "house").why == "RuntimeError: the index is gone"


async def test_a_refused_request_has_no_verdicts(build: Build) -> None:
    """Nobody was asked; the reason is the request's."""
    world = build(campaigns=[campaign("a")])
    found = await explained(world, bid_request(tmax=5))
    assert (found.outcome, found.nbr, found.nbr_name, found.verdicts) == ("no-bid", 15, "insufficient_time", [])
    bot = Device(ua="Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)")
    found = await explained(world, bid_request(device=bot))
    assert (found.nbr_name, found.verdicts) == ("known_crawler", [])


async def test_whom_the_request_does_not_name_is_told_so_for_each_imp(build: Build) -> None:
    """Imp 1 is offered to the dsp alone, imp 2 to the house and the late one; nobody is offered imp 3."""
    world = build(Prompt("dsp", offer("dsp", 2.5)), Silent("late"), Silent("other"), campaigns=[campaign("a", 3.0)])
    request = bid_request(imp("1"), imp("2"), imp("3"), tmax=20)
    offered = {"dsp": {"1"}, "house": {"2"}, "late": {"2"}}
    found = await explain(world.exchange, world.house, request, world.clock, world.rates, offered=offered)
    others = "the request names others"
    assert {(v.bidder, v.impid): (v.verdict, v.criterion, v.why.partition(": ")[2]) for v in found.verdicts} == {
        ("house", "1"): ("no-bid", "offered", others),
        ("house", "2"): ("won", "", "bid 3.00 CPM, pays 0.01"),
        ("house", "3"): ("no-bid", "offered", others),
        ("dsp", "1"): ("won", "", "bid 2.50 CPM, pays 0.01"),
        ("dsp", "2"): ("skipped", "", others),
        ("dsp", "3"): ("skipped", "", others),
        ("late", ""): ("failed", "", "had not answered at the deadline"),
        ("late", "1"): ("skipped", "", others),
        ("late", "3"): ("skipped", "", others),
        **{("other", impid): ("skipped", "", others) for impid in "123"},
    }
