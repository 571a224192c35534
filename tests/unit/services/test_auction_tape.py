"""The tape of auctions: what is kept, and how it is told and explained."""

from __future__ import annotations

from rtb.domain.campaign import Status
from rtb.openrtb import App, Banner, BidRequest, Device, Geo, Imp, Site
from rtb.ports import OpenAuction
from rtb.services.auction_tape import AuctionRow, AuctionTape
from tests.unit.parts import MS, Broken, Build, Prompt, Silent, World, bid_request, campaign, imp, offer


class Refusing(Prompt):
    """Takes no part, and says why."""

    def bid(self, auction: OpenAuction) -> None:
        """Report that."""
        auction.report(self, skipped="qps")


def taped(world: World, **options: float) -> AuctionTape:
    """A tape that listens."""
    tape = AuctionTape(world.exchange, world.house, world.rates, world.clock, **options)  # type: ignore[arg-type]
    world.exchange.listen(tape)
    return tape


async def test_an_auction_is_explained_as_it_was(build: Build) -> None:
    """Also when the campaigns have changed since: the winner still won, at its price."""
    world = build(Prompt("dsp", offer("dsp", 2.5)), campaigns=[campaign("a", 3.0), campaign("b", 2.0)])
    tape = taped(world)
    request = bid_request(
        imp(bidfloor=0.5), user="u", site=Site(domain="news.test"), device=Device(os="iOS", geo=Geo(country="KOR"))
    )
    await world.repository.start()
    outcome = await world.run(request)
    world.house.put(campaign("a", 9.0, version=2, status=Status.PAUSED))
    [row] = tape.recent()
    assert (row.id, row.request_id, row.outcome, row.nbr, row.imps, row.bids) == (
        outcome.auction_id,
        "r",
        "won",
        None,
        1,
        3,
    )
    assert (row.took_ms, row.deadline_ms, row.late, row.failed) == (0.0, 100.0, [], [])
    [sold] = row.sold
    assert (sold.bidder, sold.campaign, sold.price, sold.paid) == ("house", "a", 3.0, 2.51)
    story = tape.explain(row.id)
    assert story is not None
    assert story.auction == row
    assert (story.request.site, story.request.os, story.request.country, story.request.user) == (
        "news.test",
        "iOS",
        "KOR",
        True,
    )
    [of_imp] = story.request.imps
    assert (of_imp.media, of_imp.w, of_imp.h, of_imp.floor) == (["banner"], 300, 250, 0.5)
    verdicts = {v.campaign or v.bidder: (v.verdict, v.price) for v in story.explanation.verdicts}
    assert verdicts == {"a": ("won", 3.0), "b": ("lost", 2.0), "dsp": ("lost", 2.5)}
    assert tape.explain("gone") is None


async def test_only_so_many_a_second_are_kept(build: Build) -> None:
    """Two: of ten a second apart by tenths the first and the sixth; the oldest make room."""
    world = build(campaigns=[campaign("a", 3.0)])
    tape = taped(world, per_s=2.0, keep=3)
    heard: list[AuctionRow] = []
    tape.listeners.append(heard.append)
    ids = []
    for _ in range(20):
        ids.append((await world.run(bid_request())).auction_id)
        world.clock.advance(0.1)
    assert [row.id for row in heard] == [ids[0], ids[5], ids[10], ids[15]]
    assert [row.id for row in tape.recent()] == [ids[15], ids[10], ids[5]]
    assert [row.id for row in tape.recent(1)] == [ids[15]]


async def test_rehearsals_are_not_kept_and_a_listener_that_fails_harms_nobody(build: Build) -> None:
    """The auction goes on, and the next listener hears of it."""
    world = build(campaigns=[campaign("a", 3.0)])
    tape = taped(world)
    heard: list[AuctionRow] = []

    def broken(_row: AuctionRow) -> None:
        raise ZeroDivisionError

    tape.listeners += [broken, heard.append]
    await world.run(bid_request(), rehearsal=True)
    assert tape.recent() == []
    assert (await world.run(bid_request())).status == "won"
    assert len(heard) == 1


async def test_campaigns_that_did_not_bid_are_judged_up_to_a_number(build: Build) -> None:
    """Those that bid are there in any case."""
    paused = [campaign(f"p{n}", 5.0 + n, status=Status.PAUSED) for n in range(5)]
    world = build(campaigns=[*paused, campaign("a", 3.0)])
    tape = taped(world, campaigns=2)
    outcome = await world.run(bid_request())
    story = tape.explain(outcome.auction_id)
    assert story is not None
    verdicts = {v.campaign: (v.verdict, v.seat) for v in story.explanation.verdicts}
    assert verdicts == {"p4": ("no-bid", "p4"), "p3": ("no-bid", "p3"), "a": ("won", "a")}


async def test_an_auction_that_was_refused_has_a_row(build: Build) -> None:
    """Its request may name next to nothing, and nobody was asked."""
    world = build(campaigns=[campaign("a", 3.0)])
    tape = taped(world)
    refused = BidRequest(id="x", imp=[Imp(id="1", banner=Banner())], app=App(bundle="com.x"), cur=["XXX"])
    outcome = await world.run(refused)
    story = tape.explain(outcome.auction_id)
    assert story is not None
    assert (story.auction.outcome, story.auction.nbr, story.request.app) == ("no-bid", 504, "com.x")
    assert story.explanation.verdicts == []


async def test_a_story_has_its_timing(build: Build) -> None:
    """When bidders were asked, when each answer came, what it was, and when it was decided: in ms from the arrival."""
    remote, slow = Silent("remote"), Silent("slow")
    world = build(
        remote,
        slow,
        Prompt("empty"),
        Refusing("shy"),
        Broken("broken"),
        campaigns=[campaign("a", 3.0)],
        deadline_ms=1_000,
    )
    tape = taped(world)
    auction = world.exchange.begin(bid_request(), world.clock.monotonic_ns() - 2 * MS)
    world.clock.advance(0.03)
    auction.report(remote, [offer("remote", 4.0)], answered_ns=world.clock.monotonic_ns())
    world.clock.advance(0.01)
    auction.deadline_ns = world.clock.monotonic_ns()  # the event loop's own time does not pass
    await world.exchange.finish(auction)
    story = tape.explain(auction.id)
    assert story is not None
    timing = story.timing
    assert (timing.asked_ms, timing.settled_ms, timing.deadline_ms) == (2.0, 42.0, 42.0)
    assert [(answer.bidder, answer.ms, answer.result, answer.bids) for answer in timing.answers] == [
        ("house", None, "bids", 1),
        ("remote", 32.0, "bids", 1),
        ("slow", None, "late", 0),
        ("empty", None, "no-bid", 0),
        ("shy", None, "skipped", 0),
        ("broken", None, "failed", 0),
    ]
    assert (story.auction.late, story.auction.failed, story.auction.skipped) == (["slow"], ["broken"], ["shy"])
    assert (story.auction.took_ms, story.campaigns, story.judged) == (42.0, 1, 1)
    verdicts = {v.campaign or v.bidder: v.verdict for v in story.explanation.verdicts}
    assert verdicts == {
        "a": "lost",
        "remote": "won",
        "slow": "failed",
        "empty": "no-bid",
        "shy": "skipped",
        "broken": "failed",
    }


async def test_a_bidder_that_has_gone_since_is_still_in_the_timing(build: Build) -> None:
    """Behind those there are."""
    world = build(Prompt("gone", offer("gone", 4.0)), campaigns=[campaign("a", 3.0)])
    tape = taped(world)
    outcome = await world.run(bid_request())
    world.exchange.set_bidders([world.house])
    story = tape.explain(outcome.auction_id)
    assert story is not None
    assert [(answer.bidder, answer.result) for answer in story.timing.answers] == [("house", "bids"), ("gone", "bids")]


async def test_nobody_was_asked(build: Build) -> None:
    """There is nothing to time but the deadline."""
    world = build(campaigns=[campaign("a", 3.0)])
    tape = taped(world)
    outcome = await world.run(bid_request(cur=["XXX"]))
    story = tape.explain(outcome.auction_id)
    assert story is not None
    assert (story.timing.asked_ms, story.timing.answers, story.timing.deadline_ms) == (None, [], 100.0)
