"""Clearing, held against a slow model that was written from the rules alone and shares no code with it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from rtb.domain.auction import Bid, Result, clear, clear_all, clear_ranked, tie_break
from rtb.domain.groups import MAX_WITHDRAWALS
from rtb.domain.terms import DealTerms, Terms
from rtb.openrtb import Loss

RANK = tie_break(b"model", "auction-1")
CENT = 10_000
VIDEO = 2


class Fate(NamedTuple):
    """What became of the imp, with bids by their number."""

    winner: int | None
    price: int
    min_to_win: int
    losses: dict[int, tuple[int, int | None]]


def model(bids: Sequence[Bid], imp: Terms, increment: int, deals_first: bool) -> Fate:
    """The rules, one after the other, without a thought for speed."""
    losses: dict[int, tuple[int, int | None]] = {}
    floors: dict[int, int] = {}
    for n, bid in enumerate(bids):
        objection = model_objection(bid, imp)
        if objection is not None:
            losses[n] = (objection, None)
            continue
        floors[n] = model_floor(bid, imp)
        if bid.price_micros < floors[n]:
            losses[n] = (100 if bid.dealid is None else 101, floors[n])
    running = [n for n in floors if n not in losses]
    if not running:
        return Fate(None, 0, 0, losses)
    if deals_first and any(bids[n].dealid is not None for n in running):
        for n in running:
            if bids[n].dealid is None:
                losses[n] = (103, None)
        running = [n for n in running if n not in losses]
    winner = running[0]
    for n in running[1:]:
        if bids[n].price_micros > bids[winner].price_micros or (
            bids[n].price_micros == bids[winner].price_micros and ticket(bids[n]) < ticket(bids[winner])
        ):
            winner = n
    rivals = [n for n in running if n != winner]
    at = model_type(bids[winner], imp)
    price = bids[winner].price_micros
    if at == 3:
        price = floors[winner]
    elif at == 2:
        others = [bids[n].price_micros for n in rivals if not one_advertiser(bids[n], bids[winner])]
        asked = max(floors[winner], max(others) + increment) if others else floors[winner] or increment
        price = min(price, asked)
    to_beat = price if at == 2 else bids[winner].price_micros
    for n in rivals:
        losses[n] = (102, to_beat if bids[n].price_micros <= to_beat else bids[winner].price_micros)
    for n, (reason, least) in list(losses.items()):
        if least is not None and reason in (100, 101):
            open_bid, open_winner = bids[n].dealid is None, bids[winner].dealid is None
            if not deals_first or open_bid == open_winner:
                losses[n] = (reason, max(least, to_beat))
            elif open_bid:
                losses[n] = (reason, None)
    next_best = max([bids[n].price_micros for n in rivals] + [floors[winner]])
    return Fate(winner, price, next_best, losses)


def model_objection(bid: Bid, imp: Terms) -> int | None:
    if bid.dealid is None:
        return 4 if imp.private else None
    if imp.deals is None or bid.dealid not in imp.deals:
        return 4
    deal = imp.deals[bid.dealid]
    if deal.wseat is not None and bid.seat not in deal.wseat:
        return 104
    if deal.wadomain is None:
        return None
    if not bid.adomain:
        return 6
    return None if all(name in deal.wadomain for name in bid.adomain) else 205


def model_floor(bid: Bid, imp: Terms) -> int:
    """7.11.2: the deal's guidance, else the stream's, else the imp's; 3.2.35: outside of all ranges the imp's."""
    is_stream = bid.mtype == VIDEO and bid.dur > 0
    guidance = None
    if bid.dealid is not None:
        deal = (imp.deals or {})[bid.dealid]
        if deal.floor_micros is not None:
            return deal.floor_micros
        if is_stream and (deal.cpm_per_second_micros or deal.durfloors):
            guidance = (deal.cpm_per_second_micros, deal.durfloors)
    if guidance is None and is_stream:
        guidance = (imp.streams or {}).get(VIDEO)
    if guidance is None:
        return imp.floor_micros
    per_second, ranges = guidance
    if per_second:
        return per_second * bid.dur
    fitting = [floor for low, high, floor in ranges if bid.dur in range(low, high + 1)]
    return sorted(fitting)[0] if fitting else imp.floor_micros


def model_type(winner: Bid, imp: Terms) -> int:
    """The deal's, else what is agreed with the bidder, else the request's."""
    if winner.dealid is not None:
        deal = (imp.deals or {})[winner.dealid]
        if deal.at in (1, 2) or (deal.at == 3 and deal.floor_micros is not None):
            return deal.at
    return winner.at if winner.at in (1, 2) else imp.at


def one_advertiser(one: Bid, other: Bid) -> bool:
    if one.adomain and other.adomain:
        return bool(set(one.adomain) & set(other.adomain))
    return (one.bidder, one.seat) == (other.bidder, other.seat)


def ticket(bid: Bid) -> tuple[bytes, bytes]:
    return RANK("1", bid.seat), RANK("1", bid.bidder)


micros = st.integers(0, 8).map(lambda n: n * 4_000)
floors = st.sampled_from([0, 4_000, 12_000, 20_000])
ranges = st.lists(st.tuples(st.sampled_from([0, 1, 15]), st.sampled_from([14, 20, 10**9]), floors), max_size=2).map(
    tuple
)
deals = st.builds(
    DealTerms,
    id=st.just(""),
    at=st.sampled_from([None, 1, 2, 3]),
    floor_micros=st.none() | floors,
    wseat=st.none() | st.frozensets(st.sampled_from("stu")),
    wadomain=st.none() | st.frozensets(st.sampled_from(["a.example", "b.example"]), min_size=1),
    cpm_per_second_micros=st.sampled_from([0, 0, 1_000]),
    durfloors=ranges,
)
imps = st.builds(
    Terms,
    impid=st.just("1"),
    at=st.sampled_from([1, 2]),
    floor_micros=floors,
    deals=st.none() | st.dictionaries(st.sampled_from(["d1", "d2"]), deals, min_size=1),
    private=st.sampled_from([False, False, False, True]),
    streams=st.none() | st.fixed_dictionaries({VIDEO: st.tuples(st.sampled_from([0, 800]), ranges)}),
)
bid_lists = st.lists(
    st.builds(
        Bid,
        impid=st.just("1"),
        seat=st.sampled_from("stu"),
        price_micros=micros.filter(bool),
        bidder=st.sampled_from(["x", "y"]),
        dealid=st.sampled_from([None, None, "d1", "d2"]),
        adomain=st.lists(st.sampled_from(["a.example", "b.example", "c.example"]), max_size=2, unique=True).map(tuple),
        mtype=st.sampled_from([1, VIDEO]),
        dur=st.sampled_from([0, 10, 15, 30]),
        at=st.sampled_from([0, 0, 1, 2]),
    ),
    max_size=7,
)
increments = st.sampled_from([0, 1, CENT])


def fate(bids: Sequence[Bid], imp: Terms, increment: int = CENT, deals_first: bool = True) -> Fate:
    """What clear makes of it, in the model's terms."""
    for n, bid in enumerate(bids):
        bid.content = n
    result = clear(bids, imp, RANK, increment_micros=increment, deals_first=deals_first)
    assert len(result.losses) == len(bids) - (result.winner is not None)
    losses = {lost.bid.content: (int(lost.reason), lost.min_to_win_micros) for lost in result.losses}
    winner = None if result.winner is None else result.winner.content
    assert sorted([*losses, *([] if winner is None else [winner])]) == list(range(len(bids)))
    return Fate(winner, result.price_micros, result.min_to_win_micros, losses)


@given(bid_lists, imps, increments, st.booleans())
@settings(max_examples=600, deadline=None)
def test_clear_agrees_with_the_model(bids: list[Bid], imp: Terms, increment: int, deals_first: bool) -> None:
    """Winner, price, minimum to win, and every loss with its reason are the model's."""
    assert fate(bids, imp, increment, deals_first) == model(bids, imp, increment, deals_first)


@given(bid_lists, imps, increments, st.booleans())
@settings(max_examples=200, deadline=None)
def test_the_price_lies_between_floor_and_bid(bids: list[Bid], imp: Terms, increment: int, deals_first: bool) -> None:
    """floor <= price <= the winner's bid, whatever the deals and types."""
    result = clear(bids, imp, RANK, increment_micros=increment, deals_first=deals_first)
    if result.winner is not None:
        assert model_floor(result.winner, imp) <= result.price_micros <= result.winner.price_micros


@given(bid_lists, imps, st.booleans(), st.randoms(use_true_random=False))
@settings(max_examples=200, deadline=None)
def test_the_order_of_bids_does_not_matter(
    bids: list[Bid], imp: Terms, deals_first: bool, shuffler: random.Random
) -> None:
    """Bids of different buyers come out alike in any order of arrival."""
    for n, bid in enumerate(bids):
        bid.seat = f"{bid.seat}{n}"
    before = fate(bids, imp, deals_first=deals_first)
    order = list(range(len(bids)))
    shuffler.shuffle(order)
    after = fate([bids[n] for n in order], imp, deals_first=deals_first)
    assert (
        after._replace(
            winner=None if after.winner is None else order[after.winner],
            losses={order[n]: loss for n, loss in after.losses.items()},
        )
        == before
    )


@given(bid_lists, imps, st.integers(1, 10**9), st.booleans())
@settings(max_examples=200, deadline=None)
def test_raising_the_winner_s_bid_changes_no_second_price(
    bids: list[Bid], imp: Terms, more: int, deals_first: bool
) -> None:
    """A second-price winner could have bid more for the same: its own bid sets no price but a cap."""
    imp.at = 2
    for bid in bids:
        bid.at = 0
    for deal in (imp.deals or {}).values():
        deal.at = None
    before = fate(bids, imp, deals_first=deals_first)
    if before.winner is None or before.price == bids[before.winner].price_micros:
        return
    winner = bids[before.winner]
    winner.price_micros += more
    after = fate(bids, imp, deals_first=deals_first)
    assert (after.winner, after.price) == (before.winner, before.price)


@given(bid_lists, imps, st.booleans())
@settings(max_examples=200, deadline=None)
def test_the_winner_s_minimum_is_one(bids: list[Bid], imp: Terms, deals_first: bool) -> None:
    """A micro above its minimum to win the winner still wins; a micro below it does not."""
    before = fate(bids, imp, deals_first=deals_first)
    if before.winner is None:
        return
    bids[before.winner].price_micros = before.min_to_win + 1
    assert fate(bids, imp, deals_first=deals_first).winner == before.winner
    if before.min_to_win > 0:
        bids[before.winner].price_micros = before.min_to_win - 1
        assert fate(bids, imp, deals_first=deals_first).winner != before.winner


@given(bid_lists, imps, st.booleans())
@settings(max_examples=200, deadline=None)
def test_a_loser_s_minimum_is_one_at_first_price(bids: list[Bid], imp: Terms, deals_first: bool) -> None:
    """At first price a loser wins a micro above its minimum; one that is told none does not win at any price."""
    imp.at = 1
    for bid in bids:
        bid.at = 0
    for deal in (imp.deals or {}).values():
        deal.at = 1
    before = fate(bids, imp, deals_first=deals_first)
    for n, (_, least) in before.losses.items():
        own = bids[n].price_micros
        bids[n].price_micros = 10**12 if least is None else least + 1
        assert (fate(bids, imp, deals_first=deals_first).winner == n) is (least is not None)
        bids[n].price_micros = own


group_names = ["", "", "g1", "g2", "g3", "g4"]
grouped_bids = st.lists(
    st.builds(
        Bid,
        impid=st.sampled_from("123"),
        seat=st.sampled_from("stuv"),
        price_micros=micros.filter(bool),
        group=st.sampled_from(group_names),
    ),
    max_size=10,
)


@given(grouped_bids, floors)
@settings(max_examples=300, deadline=None)
def test_a_group_wins_all_its_imps_or_none(bids: list[Bid], floor: int) -> None:
    """Groups win whole; what is left is cleared as if the withdrawn had never bid; none could come back."""
    terms = [Terms(impid=impid, floor_micros=floor) for impid in "123"]
    results = clear_all(by_imp(bids), terms, RANK)
    for n, bid in enumerate(bids):
        bid.content = n
    fates = [lost.bid.content for result in results for lost in result.losses] + winners(results)
    assert sorted(fates) == list(range(len(bids)))
    names = {bid.group for bid in bids} - {""}
    inside = {bids[n].group for n in winners(results)} - {""}
    assert not broken(bids, results, inside)
    kept = [bid for bid in bids if not bid.group or bid.group in inside]
    assert outline(results) == outline([clear(by_imp(kept).get(imp.impid, []), imp, RANK) for imp in terms])
    for name in names - inside:
        back = [bid for bid in bids if not bid.group or bid.group in inside | {name}]
        alone = [clear(by_imp(back).get(imp.impid, []), imp, RANK) for imp in terms]
        assert broken(back, alone, inside | {name})


@given(bid_lists, st.sampled_from([1, 2]), st.integers(0, 1_000_000))
@settings(max_examples=300, deadline=None)
def test_ranked_bids_clear_as_any_do(bids: list[Bid], at: int, floor: int) -> None:
    """Open bids in order of price, some below the floor: the short way comes to the same result in every field."""
    for bid in bids:
        bid.at = 0
    imp = Terms(impid="1", at=at, floor_micros=floor)
    ranked = [bid for bid in bids if bid.dealid is None]
    ranked.sort(key=lambda bid: -bid.price_micros)
    assert clear_ranked(ranked, imp, RANK) == clear(ranked, imp, RANK)


def test_very_many_groups_are_settled_in_bounded_rounds() -> None:
    """A bidder that sends hundreds of groups that cannot win costs a bounded number of clearings."""
    bids = [
        Bid(impid=impid, seat="s", price_micros=price, group=f"g{price}") for price in range(1, 500) for impid in "12"
    ]
    bids.append(Bid(impid="2", seat="t", price_micros=10_000))
    calls = []

    def counting(impid: str, seat: str) -> bytes:
        calls.append(seat)
        return RANK(impid, seat)

    results = clear_all(by_imp(bids), [Terms(impid="1"), Terms(impid="2")], counting)
    assert [result.winner and result.winner.seat for result in results] == [None, "t"]
    assert {lost.reason for result in results for lost in result.losses} == {Loss.OUTBID}
    assert len(calls) <= len(bids) * (2 * MAX_WITHDRAWALS + 2)


def by_imp(bids: Sequence[Bid]) -> dict[str, list[Bid]]:
    """Bids by impid, in their order."""
    found: dict[str, list[Bid]] = {}
    for bid in bids:
        found.setdefault(bid.impid, []).append(bid)
    return found


def winners(results: Sequence[Result]) -> list[int]:
    """The numbers of the winning bids."""
    return [result.winner.content for result in results if result.winner is not None]


def broken(bids: Sequence[Bid], results: Sequence[Result], names: set[str]) -> set[str]:
    """The groups among names that do not win each imp they bid on."""
    won = {result.impid: result.winner.group for result in results if result.winner is not None}
    return {bid.group for bid in bids if bid.group in names and won.get(bid.impid) != bid.group}


def outline(results: Sequence[Result]) -> list[tuple[str, Any, int]]:
    """Who won what for how much."""
    return [(one.impid, None if one.winner is None else one.winner.content, one.price_micros) for one in results]
