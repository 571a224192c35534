"""Clearing by example: ties, terms, what raises. The rules in full are in tests/golden and test_auction_model."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise, permutations
from typing import Any

import pytest

from rtb.domain import money
from rtb.domain.auction import Bid, clear, clear_all, same_advertiser, tie_break
from rtb.domain.terms import DealTerms, Terms, allows, terms_of
from rtb.openrtb import Audio, BidRequest, Deal, DurFloors, Imp, Loss, Pmp, Video

KEY = b"a secret of the exchange"


def bid(seat: str, cpm: float = 1.0, **fields: Any) -> Bid:
    """A bid on imp 1 by a seat of its own advertiser."""
    return Bid(impid="1", seat=seat, price_micros=money.to_micros(cpm), **{"bidder": "dsp", **fields})


def tied(auction_id: str, seats: str, key: bytes = KEY) -> str:
    """The seat that wins when all bid the same."""
    winner = clear([bid(seat) for seat in seats], Terms(impid="1"), tie_break(key, auction_id)).winner
    assert winner is not None
    return winner.seat


def test_a_tie_is_settled_alike_on_replay_and_in_any_order() -> None:
    """The same auction id gives the same winner, whichever bid came first."""
    for n in range(20):
        assert len({tied(f"auction-{n}", "".join(seats)) for seats in permutations("abcd")}) == 1


def test_a_tie_is_fair_over_time() -> None:
    """Over 2,000 auctions under a fixed key each of two seats wins half of them, each of four a quarter.

    Four standard deviations of a fair coin are 89 and 77 wins; the key is fixed, so the count is the same every time.
    """
    two = Counter(tied(f"auction-{n}", "ab") for n in range(2000))
    assert two.total() == 2000
    assert abs(two["a"] - 1000) <= 89
    four = Counter(tied(f"auction-{n}", "abcd") for n in range(2000))
    assert all(abs(four[seat] - 500) <= 77 for seat in "abcd")


def test_a_tie_differs_between_auctions_imps_and_keys() -> None:
    """Neither the auction before nor another exchange's key tells who wins the next."""
    one = [tied(f"auction-{n}", "ab") for n in range(200)]
    other_key = [tied(f"auction-{n}", "ab", b"another secret") for n in range(200)]
    assert 60 <= sum(x == y for x, y in zip(one, other_key, strict=True)) <= 140
    assert 60 <= sum(x == y for x, y in pairwise(one)) <= 140
    rank = tie_break(KEY, "auction")
    assert len({rank(impid, seat) for impid in "12" for seat in "ab"}) == 4


def test_more_bids_of_a_seat_are_no_more_tickets() -> None:
    """A seat that bids the same five times wins the same auctions as with one bid."""
    assert [tied(f"auction-{n}", "ab") for n in range(200)] == [tied(f"auction-{n}", "aaaaab") for n in range(200)]


def test_of_a_seat_s_equal_bids_its_first_wins() -> None:
    """The order within one seat's answer is that seat's preference."""
    bids = [bid("a", content="first"), bid("a", content="second")]
    result = clear(bids, Terms(impid="1"), tie_break(KEY, "auction"))
    assert result.winner is not None
    assert result.winner.content == "first"


def test_bidders_that_share_a_seat_name_share_the_ties() -> None:
    """Seat names are a bidder's own: the name of the bidder then decides, fairly."""
    wins: Counter[str] = Counter()
    for n in range(2000):
        bids = [bid("1", bidder="x"), bid("1", bidder="y")]
        forth = clear(bids, Terms(impid="1"), tie_break(KEY, f"auction-{n}")).winner
        back = clear(bids[::-1], Terms(impid="1"), tie_break(KEY, f"auction-{n}")).winner
        assert forth is back
        assert forth is not None
        wins[forth.bidder] += 1
    assert abs(wins["x"] - 1000) <= 89


def test_tied_bids_pay_their_bid_whoever_wins() -> None:
    """Two advertisers at 1.00: second price is 1.00, and the increment does not lift it above the bid."""
    result = clear([bid("a"), bid("b")], Terms(impid="1", floor_micros=500_000), tie_break(KEY, "auction"))
    assert (result.price_micros, result.min_to_win_micros) == (1_000_000, 1_000_000)
    assert [(lost.reason, lost.min_to_win_micros) for lost in result.losses] == [(Loss.OUTBID, 1_000_000)]


def test_nothing_bid_nothing_won() -> None:
    """An imp without bids has a result without winner, price and losses."""
    result = clear([], Terms(impid="1", floor_micros=1), tie_break(KEY, "auction"))
    assert (result.winner, result.price_micros, result.min_to_win_micros, result.losses) == (None, 0, 0, [])


def test_a_negative_increment_is_an_error() -> None:
    """The plus of second price plus cannot be a minus."""
    with pytest.raises(ValueError, match="increment"):
        clear([], Terms(impid="1"), tie_break(KEY, "auction"), increment_micros=-1)


def test_clearing_changes_no_bid() -> None:
    """The bids stay as they came, so that a replay under other rules starts from the same."""
    bids = [bid("a", 2), bid("b", 3, group="g"), bid("c", 1)]
    before = [repr(one) for one in bids]
    clear_all({"1": bids}, [Terms(impid="1"), Terms(impid="2")], tie_break(KEY, "auction"))
    assert [repr(one) for one in bids] == before


def test_results_come_in_the_order_of_the_imps() -> None:
    """One result an imp, in the request's order, bids or none."""
    results = clear_all({}, [Terms(impid="b"), Terms(impid="a")], tie_break(KEY, "auction"))
    assert [result.impid for result in results] == ["b", "a"]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (("ford.com",), ("ford.com",), True),
        (("ford.com", "x.example"), ("y.example", "ford.com"), True),
        (("ford.com",), ("opel.de",), False),
        ((), ("ford.com",), True),  # one bidder's one seat, and one of them says nothing
        ((), (), True),
    ],
)
def test_one_advertiser(one: tuple[str, ...], other: tuple[str, ...], same: bool) -> None:
    """A common domain makes one advertiser; where a bid names none, the seat does."""
    assert same_advertiser(bid("s", adomain=one), bid("s", adomain=other)) is same
    assert same_advertiser(bid("s", adomain=other), bid("s", adomain=one)) is same


def test_unnamed_advertisers_of_two_seats_or_bidders_differ() -> None:
    """Without domains, two seats are two buyers, and so is one seat name at two bidders."""
    assert not same_advertiser(bid("s"), bid("t"))
    assert not same_advertiser(bid("s", bidder="x"), bid("s", bidder="y"))


RATES = money.Rates("USD", {"EUR": 1.1})


def test_terms_of_a_bare_imp() -> None:
    """3.2.1 and 3.2.4: second price plus, no floor, no deals."""
    assert terms_of(BidRequest(), Imp(id="1"), RATES) == Terms(impid="1", at=2, floor_micros=0)


def test_terms_in_full() -> None:
    """Floors in micros of the exchange currency; deal floors in their own currency, stream floors in the imp's."""
    imp = Imp(
        id="1",
        bidfloor=1.0,
        bidfloorcur="EUR",
        video=Video(mincpmpersec=0.1),
        audio=Audio(durfloors=[DurFloors(maxdur=15, bidfloor=2.0), DurFloors(mindur=16, bidfloor=4.0)]),
        pmp=Pmp(
            private_auction=1,
            deals=[
                Deal(id="a", bidfloor=0.0, at=3, wseat=["s"], wadomain=["Ford.com"]),
                Deal(id="b", bidfloor=2.0, bidfloorcur="EUR", at=0),
                Deal(id="c", mincpmpersec=0.05, durfloors=[DurFloors(mindur=5)]),
            ],
        ),
    )
    assert terms_of(BidRequest(at=1), imp, RATES) == Terms(
        impid="1",
        at=1,
        floor_micros=1_100_000,
        private=True,
        streams={2: (110_000, ()), 3: (0, ((0, 15, 2_200_000), (16, 10**9, 4_400_000)))},
        deals={
            "a": DealTerms(id="a", at=3, floor_micros=0, wseat=frozenset("s"), wadomain=frozenset({"ford.com"})),
            "b": DealTerms(id="b", floor_micros=2_200_000),
            "c": DealTerms(id="c", cpm_per_second_micros=50_000, durfloors=((5, 10**9, 0),)),
        },
    )


def test_terms_can_override_the_auction_type() -> None:
    """The exchange may run a request's own type as one it knows."""
    assert terms_of(BidRequest(at=501), Imp(id="1"), RATES, at=1).at == 1


@pytest.mark.parametrize(
    "imp",
    [
        Imp(id="1", bidfloor=1.0, bidfloorcur="XXX"),
        Imp(id="1", bidfloorcur="XXX", video=Video(mincpmpersec=1.0)),
        Imp(id="1", pmp=Pmp(deals=[Deal(id="d", bidfloor=1.0, bidfloorcur="XXX")])),
    ],
)
def test_an_imp_with_a_floor_in_an_unknown_currency_is_not_for_sale(imp: Imp) -> None:
    """No rate, no floor: every bid on it loses, and none is told a price that would have won."""
    unsold = terms_of(BidRequest(), imp, RATES)
    assert unsold == Terms(impid="1", sold=False)
    result = clear([bid("a")], unsold, tie_break(KEY, "auction"))
    assert result.winner is None
    assert [(lost.reason, lost.min_to_win_micros) for lost in result.losses] == [(Loss.INTERNAL_ERROR, None)]


@pytest.mark.parametrize(
    ("adomain", "allowed"),
    [
        (("ford.com",), True),
        (("www.ford.com",), True),
        (("notford.com",), False),
        (("com",), False),
        (("ford.com", "opel.de"), False),
        ((), False),
    ],
)
def test_wadomain(adomain: tuple[str, ...], allowed: bool) -> None:
    """3.2.12: each domain of the creative is or lies under an allowed one; a rotating one may show any."""
    assert allows(frozenset({"ford.com"}), adomain) is allowed
