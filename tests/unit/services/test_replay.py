"""Recorded auctions, run again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec
import pytest
from structlog.testing import capture_logs

from rtb import openrtb
from rtb.domain import prebid
from rtb.domain import replay as log
from rtb.domain.campaign import Campaign, FrequencyCap, Optimise
from rtb.domain.profile import Profile
from rtb.domain.replay import AuctionLine, Header
from rtb.domain.replay_report import Comparison
from rtb.errors import ConfigError, Malformed
from rtb.openrtb import Deal, Pmp, Qty
from rtb.services.exchange import Rules
from rtb.services.replay import replay
from rtb.services.replay_log import ReplayLog, header
from tests.support.recorded_market import RATES, Tape, Trader, campaigns, hold, profiles
from tests.unit.parts import Build, Pauper, Prompt, World, bid_request, campaign, imp, offer

RULES = Rules(tie_key=b"a secret that orders equal bids", first_price_types=frozenset({501}))


def recorder(world: World, tape: Tape, rules: Rules = RULES, *, share: float = 1.0, house: bool = True) -> ReplayLog:
    """Of a world, all of its auctions."""
    head = header(
        rules,
        world.clock,
        instance="test",
        share=share,
        currency="USD",
        rates=RATES,
        advertisers=world.house.advertisers,
        settings={"auction.increment_cpm": 0.01},
    )
    tape.put(log.encode(head))
    return ReplayLog(
        tape,
        world.clock,
        world.rates,
        share=share,
        house=world.house if house else None,
        bidders=lambda: [bidder.name for bidder in world.exchange.bidders],
    )


def listen(world: World) -> Tape:
    """A tape of a world's auctions."""
    tape = Tape()
    world.exchange.listen(recorder(world, tape))
    return tape


def auctions(tape: Tape) -> list[AuctionLine]:
    """What it holds."""
    found = [log.decode(line) for _, line in tape.lines]
    return [line for line in found if isinstance(line, AuctionLine)]


def named(line: AuctionLine) -> dict[str, set[str]] | None:
    """Whom the request of a record offers its imps to."""
    asked = prebid.read(openrtb.decode_request(bytes(line.request)), line.bidders, "rtb")
    return None if asked is None else asked.offers


async def market(build: Build, count: int) -> Tape:
    """The tape of a market with everything in it."""
    world = build(campaigns=campaigns(150, 1), rates=RATES, rules=RULES, fresh_s=1e6)
    traders = [
        Trader("north", world.rates, world.clock),
        Trader("south", world.rates, world.clock, adjustment=0.85),
        Trader("west.1", world.rates, world.clock, at=1),
    ]
    world.exchange.set_bidders([traders[0], world.house, *traders[1:]])
    await world.repository.start()
    await world.repository.put_profiles(profiles())
    tape = Tape()
    await hold(world, recorder(world, tape), count)
    return tape


async def test_ten_thousand_auctions_come_to_the_same_outcomes_bit_for_bit(build: Build) -> None:
    """Whatever was in them: several imps, deals, first and second price, ties, groups, floors in other currencies, bids
    that were refused, winners that could not pay, bidders that were late, requests that were refused, imps offered to
    the bidders that the request names. That all of it was there is counted."""
    tape = await market(build, 10_000)
    found = await replay(tape.lines)
    assert (found.auctions, found.exact, found.deviations) == (10_000, 10_000, [])
    assert found.before == found.after
    assert (found.repriced, found.rewon, found.gained, found.lost) == (0, 0, 0, 0)
    seen = Counter[str]()
    for line in auctions(tape):
        bids = line.bids
        seen[line.outcome.status] += 1
        seen[f"nbr {line.outcome.nbr}"] += 1
        seen["several imps"] += len(line.outcome.results) > 1
        seen["unpaid"] += any(bid.unpaid for bid in bids)
        seen["unpaid house"] += any(bid.unpaid and bid.campaign for bid in bids)
        seen["late"] += bool(line.late)
        seen["failed"] += bool(line.failures)
        seen["skipped"] += bool(line.skipped)
        seen["rejected"] += bool(line.rejected)
        seen["kept out"] += bool(line.kept_out)
        seen["profile"] += line.profile is not None
        seen["frequency"] += bool(line.frequency)
        offers = named(line)
        seen["offered to some"] += offers is not None
        assert all(offers is None or bid.impid in offers.get(bid.bidder, ()) for bid in (*bids, *line.kept_out))
        seen["adjusted"] += any(bid.sent_micros is not None for bid in bids)
        for result in line.outcome.results:
            if result.winner is not None:
                best = bids[result.winner]
                seen[f"won by {best.bidder}"] += 1
                seen["own first price"] += best.at == 1 and best.dealid is None
                assert best.at != 1 or best.dealid or result.price_micros == best.price_micros
                seen["deal won"] += best.dealid is not None
                seen["group won"] += bool(best.group)
                seen["first price"] += result.price_micros == best.price_micros
                seen["tie"] += any(bids[other].price_micros == best.price_micros for other in result.outbid)
                seen["second price"] += result.price_micros < best.price_micros
            for _, reason, _ in result.refused:
                seen[f"loss {reason}"] += 1
    wanted = {
        *("won", "no-bid", "timeout", "nbr 3", "nbr 15", "nbr 500", "nbr 501", "nbr 503", "nbr 504", "several imps"),
        *("unpaid", "unpaid house", "late", "failed", "skipped", "rejected", "kept out", "profile", "frequency"),
        *(
            "offered to some",
            "adjusted",
            "won by house",
            "won by north",
            "won by south",
            "won by west.1",
            "deal won",
            "group won",
        ),
        *(
            "first price",
            "own first price",
            "second price",
            "tie",
            "loss 1",
            "loss 4",
            "loss 100",
            "loss 101",
            "loss 102",
            "loss 103",
        ),
        "loss 104",
    }
    assert {name for name in wanted if not seen[name]} == set()


async def test_a_replay_is_the_same_every_time(build: Build) -> None:
    """Also with changes."""
    tape = await market(build, 300)
    settings = ("floor.times=1.5", "bidder.west.1.enabled=false", "auction.at=1")
    first = await replay(tape.lines, settings)
    assert first == await replay(tape.lines, settings)
    assert first.exact < first.auctions


async def changed(build: Build, *settings: str, floor: float = 0.5) -> Comparison:
    """One auction at a floor of 0.50: a campaign bids 3.00, dsp 2.00, cheap 1.00; a campaign at 0.30 is kept out."""
    world = build(
        Prompt("dsp", offer("dsp", 2.0)),
        Prompt("cheap", offer("cheap", 1.0)),
        campaigns=[campaign("a", 3.0), campaign("b", 0.3)],
        rates=RATES,
        rules=RULES,
    )
    tape = listen(world)
    await world.run(bid_request(imp(bidfloor=floor)))
    return await replay(tape.lines, settings)


@pytest.mark.parametrize(
    ("settings", "buyer", "price"),
    [
        ((), "a", 2.01),
        (("floor=2.5",), "a", 2.5),
        (("floor=3.5",), None, 0),
        (("floor.plus=2",), "a", 2.5),
        (("floor.times=6",), "a", 3.0),
        (("floor.least=2.2",), "a", 2.2),
        (("floor=0.1", "floor.plus=2.1", "floor.times=1.25"), "a", 2.75),
        (("auction.at=1",), "a", 3.0),
        (("auction.increment_cpm=0.25",), "a", 2.25),
        (("bidder.dsp.enabled=false",), "a", 1.01),
        (("bidder.house.enabled=false",), "dsp", 1.01),
        (("bidder.dsp.enabled=false", "bidder.cheap.enabled=false"), "a", 0.5),
        (("bidder.dsp.adjustment=2",), "dsp", 3.01),
        (("bidder.dsp.adjustment=0.6",), "a", 1.21),
        (("bidder.dsp.floor=2.1",), "a", 1.01),
        (("bidder.house.at=1",), "a", 3.0),
        (("campaign.a.enabled=false", "bidder.dsp.at=1"), "dsp", 2.0),
        (("campaign.a.enabled=false", "bidder.dsp.at=0"), "dsp", 1.01),
        (("auction.at=1", "bidder.house.at=2", "floor=2.5"), "a", 2.5),
        (("campaign.a.enabled=false",), "dsp", 1.01),
        (("campaign.a.bid=1.5",), "dsp", 1.51),
        (("bidder.dsp.enabled=false", "bidder.cheap.enabled=false", "campaign.a.enabled=false"), None, 0),
        (("bidder.dsp.enabled=false", "bidder.cheap.enabled=false", "campaign.a.enabled=false", "floor=0.2"), "b", 0.2),
        (("campaign.b.bid=9",), "b", 3.01),
    ],
)
async def test_what_changes_when_a_rule_does(
    build: Build, settings: tuple[str, ...], buyer: str | None, price: float
) -> None:
    """Second price plus 0.01 among 3.00, 2.00 and 1.00 with a floor of 0.50, by hand."""
    found = await changed(build, *settings)
    if buyer is None:
        assert (found.after.total.wins, found.after.total.nanos, found.lost) == (0, 0, 1)
        return
    sold = found.after.campaigns if buyer in ("a", "b") else found.after.bidders
    assert {name: (share.wins, share.nanos) for name, share in sold.items()} == {buyer: (1, round(price * 1e6))}
    assert found.before.total.nanos == 2_010_000
    assert found.exact == (not settings)


async def test_a_campaign_that_optimises_is_priced_anew_under_another_floor(build: Build) -> None:
    """The user's value of -0.5 halves its bid of 2.00; it pays any floor up to what it bids at the average."""
    world = build(campaigns=[campaign("a", 2.0, optimise=Optimise())], rates=RATES, rules=RULES)
    await world.repository.start()
    await world.repository.put_profiles([Profile("u", value=-0.5)])
    tape = listen(world)
    await world.run(bid_request(imp(bidfloor=0.5), user="u"))
    assert auctions(tape)[0].bids[0].price_micros == 1_000_000
    for setting, nanos in (
        ("floor=1.5", 1_500_000),
        ("floor=2.5", 0),
        ("floor=0.2", 200_000),
        ("auction.at=1", 1_000_000),
    ):
        assert (await replay(tape.lines, [setting])).after.total.nanos == nanos


async def test_a_group_that_may_not_bid_it_all_bids_nothing(build: Build) -> None:
    """Its bid of 0.60 on the second imp is below the bidder's new floor of 0.70, so that the dsp gets the first."""
    grouped = (offer("g", 3.0, "1", group="g/g/0"), offer("g", 0.6, "2", group="g/g/0"))
    world = build(Prompt("g", *grouped), Prompt("dsp", offer("dsp", 1.0, "1")), rates=RATES, rules=RULES)
    tape = listen(world)
    await world.run(bid_request(imp("1"), imp("2")))
    before = await replay(tape.lines)
    assert {name: share.wins for name, share in before.after.bidders.items()} == {"g": 2}
    after = await replay(tape.lines, ["bidder.g.floor=0.7"])
    assert {name: share.wins for name, share in after.after.bidders.items()} == {"dsp": 1}
    assert (after.rewon, after.lost) == (1, 1)


async def test_deals_and_the_number_of_advertisers_can_change(build: Build) -> None:
    """An open bid of 2.00 loses to a deal of 1.00 unless they compete; of campaigns at 3.00 and 2.00 one alone pays the
    floor. The multiplier of 2.5 is on what an imp brings."""
    deals = Prompt("dsp", offer("dsp", 2.0), offer("dsp", 1.0, seat="deal", dealid="x"))
    world = build(deals, rates=RATES, rules=RULES)
    tape = listen(world)
    await world.run(bid_request(imp(pmp=Pmp(deals=[Deal(id="x")])), at=1))
    assert (await replay(tape.lines)).after.total.nanos == 1_000_000
    assert (await replay(tape.lines, ["auction.deals=price"])).after.total.nanos == 2_000_000
    world = build(campaigns=[campaign("a", 3.0), campaign("b", 2.0)], rates=RATES, rules=RULES)
    tape = listen(world)
    await world.run(bid_request(imp(bidfloor=0.5, qty=Qty(multiplier=2.5))))
    assert (await replay(tape.lines)).after.total.nanos == 5_025_000
    assert (await replay(tape.lines, ["auction.advertisers=1"])).after.total.nanos == 1_250_000


async def test_what_is_offered_to_others_only_is_nothing_that_a_floor_kept(build: Build) -> None:
    """The request names who may bid on the imp, and the house is not among them."""
    world = build(campaigns=[campaign("a", 0.3)], rates=RATES, rules=RULES)
    tape = listen(world)
    for offered in (None, {"dsp": ["1"]}):
        request = bid_request(imp(bidfloor=0.5))
        world.exchange.begin(request, world.clock.monotonic_ns(), offered=offered)
    assert [len(line.kept_out) for line in auctions(tape)] == [1, 0]
    assert (await replay(tape.lines, ["floor=0.1"])).gained == 1


async def test_a_mistake_in_the_recorder_costs_a_record_not_the_auction(build: Build) -> None:
    """It is told once."""

    class Torn(Tape):
        def put(self, record: bytes, campaigns: Sequence[Campaign] = ()) -> bool:
            raise ZeroDivisionError

    world = build(Prompt("dsp", offer("dsp", 2.0)), rates=RATES, rules=RULES)
    log = ReplayLog(Torn(), world.clock, world.rates, share=1.0)
    world.exchange.listen(log)
    with capture_logs() as told:
        assert [(await world.run(bid_request())).status for _ in range(2)] == ["won", "won"]
    assert [line["event"] for line in told] == ["auction_not_recorded"]
    assert log.recorded == 0


async def test_who_answers_later_than_a_timeout_is_late(build: Build) -> None:
    """The bid took 40 ms from when it was asked."""
    world = build(rates=RATES, rules=RULES)

    class Slow(Prompt):
        def bid(self, auction: object) -> None:
            auction.report(self, self.bids, answered_ns=world.clock.monotonic_ns() + 40_000_000)  # type: ignore[attr-defined]

    world.exchange.set_bidders([Slow("slow", offer("slow", 2.0))])
    tape = listen(world)
    await world.run(bid_request())
    for setting, wins in (
        ("bidder.slow.timeout_ms=40", 1),
        ("bidder.slow.timeout_ms=39", 0),
        ("auction.deadline_ms=40", 1),
        ("auction.deadline_ms=39", 0),
    ):
        assert (await replay(tape.lines, [setting])).after.total.wins == wins


async def test_who_could_not_pay_cannot_in_a_replay(build: Build) -> None:
    """The next one wins, in the record and again."""
    world = build(Pauper("poor", offer("poor", 4.0)), Prompt("dsp", offer("dsp", 2.0)), rates=RATES, rules=RULES)
    tape = listen(world)
    await world.run(bid_request())
    found = await replay(tape.lines)
    assert (found.exact, list(found.after.bidders)) == (1, ["dsp"])
    assert [bid.unpaid for bid in auctions(tape)[0].bids] == [True, False]


async def test_what_is_recorded_of_the_user_was_before_the_win(build: Build) -> None:
    """The frequency counter of the campaign that wins is 1 after the first win, which the second auction tells."""
    world = build(campaigns=[campaign("a", frequency_cap=FrequencyCap(5))], rates=RATES, rules=RULES)
    await world.repository.start()
    tape = listen(world)
    for _ in range(2):
        await world.run(bid_request(user="u"))
    assert [line.frequency.get("a", 0) for line in auctions(tape)] == [0, 1]


async def test_rehearsals_are_not_recorded_and_a_share_is_drawn(build: Build) -> None:
    """None of what sells nothing; with a share of 0 nothing at all."""
    world = build(Prompt("dsp", offer("dsp", 2.0)), rates=RATES, rules=RULES)
    tape, none = listen(world), Tape()
    world.exchange.listen(recorder(world, none, share=0.0))
    await world.run(bid_request(), rehearsal=True)
    await world.run(bid_request(test=1))
    await world.run(bid_request())
    assert (len(auctions(tape)), len(auctions(none))) == (1, 0)


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ("floor", "--set floor: write it as name=value, for example floor=0.8"),
        ("flor=1", "--set flor: unknown; did you mean floor? known are floor, floor.times,"),
        ("floor=-1", "--set floor=-1: must be a number, 0 or more"),
        ("floor=nan", "--set floor=nan: must be a number, 0 or more"),
        ("bidder.dsp.at=3", "--set bidder.dsp.at=3: must be 0 or 1 or 2"),
        ("auction.at=3", "--set auction.at=3: must be 1 or 2"),
        ("bidder.dsp.colour=red", "--set bidder.dsp.colour: unknown;"),
        ("bidder.dsp.enabled=maybe", "--set bidder.dsp.enabled=maybe: must be true or false"),
        ("bidder.dsp.adjustment=0", "--set bidder.dsp.adjustment=0: must be above 0 and at most 10"),
        ("bidder.dps.enabled=false", "--set bidder.dps: no bidder 'dps' in the log; known are cheap, dsp, house"),
        ("campaign.z.enabled=false", "--set campaign.z: no campaign 'z' in the log; known are a, b"),
        ("auction.deadline_ms=0", "--set auction.deadline_ms=0: must be a whole number above 0"),
    ],
)
async def test_a_change_that_cannot_be_is_one_line(build: Build, setting: str, reason: str) -> None:
    """It names the setting, and what is known."""
    with pytest.raises(ConfigError) as raised:
        await changed(build, setting)
    assert str(raised.value).startswith(reason)
    assert "\n" not in str(raised.value)


async def test_a_log_that_is_none_is_one_line(build: Build) -> None:
    """With the place where it stops being one."""
    head = msgspec.json.decode(log.encode(msgspec.convert(HEADER, Header)))
    for lines, reason in (
        ([b"{}"], "f:1: not a line of a replay log"),
        ([b'{"line":"auction"}'], "f:1: not a line of a replay log: Object missing required field `id`"),
        ([msgspec.json.encode({**head, "version": 2})], "f:1: a replay log of version 2; this is a reader of"),
        ([AUCTION], "f:1: an auction before any header: the beginning of the log is missing"),
        ([msgspec.json.encode(head), AUCTION], "f:2: auction x: its request does not decode: id: required"),
    ):
        with pytest.raises(Malformed) as raised:
            await replay([(f"f:{number}", line) for number, line in enumerate(lines, 1)])
        assert str(raised.value).startswith(reason)


HEADER = {
    "line": "header",
    "version": 1,
    "instance": "i",
    "started_at": 0.0,
    "share": 1.0,
    "currency": "USD",
    "rates": {},
    "increment_micros": 10_000,
    "deals_first": True,
    "first_price_types": [],
    "tie_key": "00",
    "advertisers": 10,
}
AUCTION = (
    b'{"line":"auction","id":"x","received_at":0,"deadline_ns":1,"took_ns":1,"request":{},"outcome":{"status":"won"}}'
)
