"""Substitution macros, against section 4.4 of OpenRTB 2.6."""

from __future__ import annotations

import base64
import re
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from rtb.domain import macros
from rtb.domain.auction import Lost, Result, clear
from rtb.domain.intake import RemoteBid, take_in
from rtb.domain.macros import AUDIT, Values, loss_values, substitute, substituted, win_values
from rtb.domain.money import Rates
from rtb.domain.terms import Terms
from rtb.openrtb import AuctionType, Banner, Bid, BidRequest, BidResponse, Imp, Loss, SeatBid

NAMES = (
    "AUCTION_ID",
    "AUCTION_BID_ID",
    "AUCTION_IMP_ID",
    "AUCTION_SEAT_ID",
    "AUCTION_AD_ID",
    "AUCTION_PRICE",
    "AUCTION_CURRENCY",
    "AUCTION_MBR",
    "AUCTION_LOSS",
    "AUCTION_MIN_TO_WIN",
    "AUCTION_MULTIPLIER",
    "AUCTION_IMP_TS",
    "AUCTION_DISCOUNT_PCT",
    "AUCTION_DISCOUNT_CPM",
)
"""As 4.4 lists them."""
REQUEST = BidRequest(id="request-1", imp=[Imp(id="imp-1", banner=Banner(w=300, h=250))], cur=["USD", "EUR"])
DOLLARS = Rates("USD")


def bids_of(*prices: float, rates: Rates = DOLLARS, currency: str = "USD") -> list[RemoteBid]:
    """Bids of one response, by a seat and an advertiser each."""
    response = BidResponse(
        id="request-1",
        bidid="response-1",
        cur=currency,
        seatbid=[
            SeatBid(
                seat=f"seat-{n}",
                bid=[Bid(id=f"{n}", impid="imp-1", price=price, adm="<b>", adid=f"ad-{n}", adomain=[f"{n}.test"])],
            )
            for n, price in enumerate(prices)
        ],
    )
    bids, rejected = take_in(response, REQUEST, "dsp", rates)
    assert not rejected
    return [bid for bid in bids if isinstance(bid, RemoteBid)]


def settle(bids: list[RemoteBid], at: int, floor_micros: int = 0) -> Result:
    """The imp cleared; ties do not occur."""
    return clear(bids, Terms(impid="imp-1", at=at, floor_micros=floor_micros), lambda impid, seat: b"")


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        (AuctionType.FIRST_PRICE, {1.00: ("1.00", "0.90"), 0.90: ("", "1.00"), 0.80: ("", "1.00"), None: ("", "")}),
        (
            AuctionType.SECOND_PRICE_PLUS,
            {1.00: ("0.91", "0.90"), 0.90: ("", "0.91"), 0.80: ("", "0.91"), None: ("", "")},
        ),
    ],
)
def test_price_and_minimum_to_win_are_those_of_the_tables(
    at: int, expected: dict[float | None, tuple[str, str]]
) -> None:
    """4.4.1: floor 0.85; bids of 1.00, 0.90, 0.80 and an invalid one (None), in a first and a second price auction."""
    bids = bids_of(1.00, 0.90, 0.80)
    result = settle(bids, int(at), 850_000)
    invalid = Lost(bids_of(2.00)[0], Loss.ADVERTISER_BLOCKED)
    found = {1.00: win_values("r", result, DOLLARS)}
    for lost in [*result.losses]:
        found[lost.bid.price_micros / 1e6] = loss_values("r", lost, DOLLARS)
    told: dict[float | None, tuple[str, str]] = {price: _told(values) for price, values in found.items()}
    told[None] = _told(loss_values("r", invalid, DOLLARS))
    assert told == expected


def _told(values: Values) -> tuple[str, str]:
    return substitute("${AUCTION_PRICE}", values), substitute("${AUCTION_MIN_TO_WIN}", values)


def test_a_lone_winner_learns_the_floor() -> None:
    """4.4.1: the minimum to win is the floor if there was only one bid."""
    result = settle(bids_of(1.00), int(AuctionType.SECOND_PRICE_PLUS), 850_000)
    assert _told(win_values("r", result, DOLLARS)) == ("0.85", "0.85")


def test_every_macro_of_a_win() -> None:
    """All 14 of 4.4: two bids of 2.00 and 1.00 at second price pay 1.01, a ratio of 0.505; 30.3 impressions (7.9.4)."""
    result = settle(bids_of(2.00, 1.00), int(AuctionType.SECOND_PRICE_PLUS))
    values = win_values("request-1", result, DOLLARS, multiplier=30.3)
    values = structs.replace(values, imp_ts="1767225600123", discount_pct="20.0", discount_cpm="2.0")
    assert [substitute(f"${{{name}}}", values) for name in NAMES] == [
        "request-1",
        "response-1",
        "imp-1",
        "seat-0",
        "ad-0",
        "1.01",
        "USD",
        "0.505",
        "0",
        "1.00",
        "30.3",
        "1767225600123",
        "20.0",
        "2.0",
    ]


def test_every_macro_of_a_loss() -> None:
    """Outbid (102) by 2.00, which pays 1.01; what was paid is disclosed only as the minimum to win."""
    (lost,) = settle(bids_of(2.00, 1.00), int(AuctionType.SECOND_PRICE_PLUS)).losses
    values = loss_values("request-1", lost, DOLLARS)
    assert [substitute(f"${{{name}}}", values) for name in NAMES] == [
        "request-1",
        "response-1",
        "imp-1",
        "seat-1",
        "ad-1",
        "",
        "USD",
        "",
        "102",
        "1.01",
        "",
        "",
        "",
        "",
    ]


def test_prices_are_in_the_currency_of_the_bid() -> None:
    """A euro is two dollars: bids of 3.00 and 2.00 EUR are 6.00 and 4.00 USD; one cent more is 4.01 USD, 2.005 EUR."""
    rates = Rates("USD", {"EUR": 2.0})
    result = settle(bids_of(3.00, 2.00, rates=rates, currency="EUR"), int(AuctionType.SECOND_PRICE_PLUS))
    url = "${AUCTION_PRICE} ${AUCTION_CURRENCY} ${AUCTION_MIN_TO_WIN}"
    assert substitute(url, win_values("r", result, rates)) == "2.005 EUR 2.00"
    assert substitute(url, loss_values("r", result.losses[0], rates)) == " EUR 2.005"


def test_absent_values_leave_nothing() -> None:
    """A macro whose source is optional and absent is replaced by a string of length zero."""
    assert substitute("?" + "&".join(f"{name}=${{{name}}}" for name in NAMES), Values()) == "?" + "&".join(
        f"{name}=" for name in NAMES
    )


def test_a_test_says_audit_where_nothing_was_sold() -> None:
    """4.4, best practice; the ids and the currency are true in a test, too."""
    result = settle(bids_of(2.00, 1.00), int(AuctionType.SECOND_PRICE_PLUS))
    for values in (
        win_values("request-1", result, DOLLARS, multiplier=2.0, test=True),
        loss_values("request-1", result.losses[0], DOLLARS, test=True),
    ):
        known = [substitute(f"${{{name}}}", values) for name in NAMES]
        assert known.count(AUDIT) == 8
        assert known[:3] == ["request-1", "response-1", "imp-1"]
        assert known[5] == known[8] == known[9] == AUDIT


def test_values_are_percent_encoded() -> None:
    """An id is the SSP's, and may not break out of the URL or the markup that it is put into."""
    values = Values(id='a b&c=d/é"><script>')
    expected = "a%20b%26c%3Dd%2F%C3%A9%22%3E%3Cscript%3E"
    assert substitute("https://dsp.test/?id=${AUCTION_ID}&x=1", values) == f"https://dsp.test/?id={expected}&x=1"
    assert substitute('<img src="//t.test/${AUCTION_ID}">', values) == f'<img src="//t.test/{expected}">'


def test_base64_is_known_as_b64() -> None:
    """4.4's own example; "0.91" is MC45MQ== in Base64 (RFC 4648), its padding percent-encoded."""
    assert substitute("${AUCTION_PRICE:B64}", Values(price="0.91")) == "MC45MQ%3D%3D"
    assert base64.b64decode("MC45MQ==") == b"0.91"


def test_encodings_are_by_agreement() -> None:
    """A house may agree on others; one that is unknown discloses nothing, and none makes something of nothing."""
    agreed = {"REV": lambda value: value[::-1]}
    values = Values(price="0.91")
    assert substitute("${AUCTION_PRICE:REV}|${AUCTION_PRICE:B64}", values, agreed) == "19.0|"
    assert substitute("${AUCTION_PRICE:REV}${AUCTION_MBR:B64}", Values(), {**agreed, **macros.ENCODINGS}) == ""


@pytest.mark.parametrize(
    "text",
    [
        "",
        "https://dsp.test/?p=1",
        "${AUCTION}",
        "${AUCTION_PRICES}",
        "${AUCTION_PRICE",
        "$AUCTION_PRICE",
        "${auction_price}",
    ],
)
def test_what_is_no_macro_stays(text: str) -> None:
    """Only the macros that 4.4 defines are replaced."""
    assert substitute(text, Values(price="1.00")) == text


def test_text_without_macros_is_the_same_object() -> None:
    """Most markup has none; it is not copied."""
    text = "<b>ad</b>" * 1_000
    bid = Bid(id="1", adm=text)
    assert substitute(text, Values()) is text
    assert substituted(bid, Values()) is bid
    assert substituted(Bid(id="1"), Values()).adm is None


def test_macros_in_markup_are_replaced() -> None:
    """In adm, wherever they stand and as often as they do; the bid itself is not changed."""
    bid = Bid(id="1", adm='<img src="//t.test/?p=${AUCTION_PRICE}"><!-- ${AUCTION_PRICE} -->', nurl="${AUCTION_PRICE}")
    made = substituted(bid, Values(price="0.91"))
    assert made.adm == '<img src="//t.test/?p=0.91"><!-- 0.91 -->'
    assert (made.nurl, bid.adm is not None and "${" in bid.adm) == ("${AUCTION_PRICE}", True)


@given(st.integers(1, 10**12))
def test_prices_are_exact_decimals(micros: int) -> None:
    """No exponent, no float: the text is the number of millionths, with two places at least."""
    bid = RemoteBid(impid="1", seat="s", price_micros=micros, currency="USD", content=Bid())
    text = win_values("r", Result("1", bid, micros, micros, []), DOLLARS).price
    whole, _, places = text.partition(".")
    assert 2 <= len(places) <= 6
    assert int(whole) * 10**6 + int(places.ljust(6, "0")) == micros


_TWIN = re.compile(r"\$\{(" + "|".join(sorted(NAMES, key=len, reverse=True)) + r")(?::([^{}]*))?\}")
_PIECES = st.sampled_from(
    ["${", "}", "$", ":", "{", "B64", "AUCTION_", "a&=", *NAMES, "${AUCTION_PRICE}", "${AUCTION_"]
)


@given(text=st.lists(_PIECES).map("".join), price=st.sampled_from(["", "0.91", "a b"]))
def test_what_is_a_macro_is_one_wherever_it_stands(text: str, price: str) -> None:
    """Against a regular expression of 4.4's names with an optional suffix; half macros and braces stay as they are."""
    values = Values(price=price, id="r/1")

    def value(macro: re.Match[str]) -> str:
        name, code = macro.groups()
        found: str = getattr(values, name.removeprefix("AUCTION_").lower())
        if code is not None and found:
            found = base64.b64encode(found.encode()).decode() if code == "B64" else ""
        return quote(found, safe="")

    assert substitute(text, values) == _TWIN.sub(value, text)
