"""What an answer is worth."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from rtb import openrtb
from rtb.lab.certify_verdict import Kind, Verdict, judged

REQUEST = openrtb.decode_request(
    msgspec.json.encode(
        {
            "id": "r",
            "imp": [
                {"id": "1", "banner": {"w": 300, "h": 250}, "bidfloor": 1.0, "secure": 1},
                {
                    "id": "2",
                    "banner": {"w": 728, "h": 90},
                    "pmp": {"private_auction": 1, "deals": [{"id": "d", "bidfloor": 3.0}]},
                },
            ],
            "badv": ["blocked.test"],
            "wseat": ["s"],
        }
    )
)


def bid(**fields: Any) -> dict[str, Any]:
    """A bid that can be taken, on imp 1."""
    return {
        "id": "b",
        "impid": "1",
        "price": 2.0,
        "adm": "<b>ad</b>",
        "adomain": ["a.test"],
        "w": 300,
        "h": 250,
    } | fields


def judge(*bids: dict[str, Any], status: int = 200, **fields: Any) -> Verdict:
    """The verdict on a response with these bids."""
    response = {"id": "r", "cur": "USD", "seatbid": [{"seat": "s", "bid": list(bids)}], **fields}
    return judged(REQUEST, status, msgspec.json.encode(response))


@pytest.mark.parametrize(
    ("status", "content"),
    [(204, b""), (200, b""), (200, b"{}"), (200, b'{"id":"r","seatbid":[]}'), (200, b'{"id":"r","nbr":2}')],
)
def test_forms_of_a_no_bid(status: int, content: bytes) -> None:
    """OpenRTB 2.6 7.1: 204, an empty object, a well-formed response without bids; and an empty body."""
    assert judged(REQUEST, status, content) == Verdict(Kind.NO_BID)


def test_a_bid_is_a_bid() -> None:
    """Nothing is refused; nor of two for one imp, though one of them loses."""
    assert judge(bid()) == judge(bid(), bid(id="c", price=1.5)) == Verdict(Kind.BID)


@pytest.mark.parametrize("status", [400, 302, 500, 201])
def test_another_status_is_an_error(status: int) -> None:
    """Whatever is in it."""
    assert judge(bid(), status=status) == Verdict(Kind.ERROR, f"HTTP status {status}")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"<html>", "the response is not JSON"),
        (b'{"id":1}', "id: expected `str | null`, got `int`"),
        (b'{"id":"r","seatbid":[{"bid":[{"price":"2"}]}]}', "seatbid[0].bid[0].price: expected `float | null`"),
        (b'{"id":"x","seatbid":[{"seat":"s","bid":[{"impid":"1","price":2}]}]}', "id: is not that of the request"),
    ],
)
def test_what_is_no_bid_response_is_invalid(content: bytes, reason: str) -> None:
    """With what is wrong, field first."""
    verdict = judged(REQUEST, 200, content)
    assert verdict.kind is Kind.INVALID
    assert verdict.reason.startswith(reason)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"impid": "9"}, "invalid response (3)"),
        ({"price": 0}, "price missing (9)"),
        ({"adm": ""}, "markup missing (7)"),
        ({"adomain": None}, "adomain missing (6)"),
        ({"adomain": ["www.blocked.test"]}, "advertiser blocked (205)"),
        ({"w": 728, "h": 90}, "size (203)"),
        ({"adm": "<img src='http://x'>"}, "not secure (207)"),
    ],
)
def test_a_bid_that_cannot_be_taken_makes_its_answer_invalid_when_it_is_alone(
    fields: dict[str, Any], reason: str
) -> None:
    """The loss reasons of OpenRTB 3.0; beside a good one it is only refused."""
    assert judge(bid(**fields)) == Verdict(Kind.INVALID, f"no bid can be taken: {reason}", (reason,))
    assert judge(bid(), bid(**fields)) == Verdict(Kind.BID, "", (reason,))


def test_currency_and_seat_are_the_responses() -> None:
    """One without a rate is refused with 3, a seat outside wseat with 104."""
    assert judge(bid(), cur="XTS").refused == ("invalid response (3)",)
    assert judge(bid(), seatbid=[{"seat": "t", "bid": [bid()]}]).refused == ("seat blocked (104)",)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"price": 0.99}, "below floor (100)"),
        ({"impid": "2", "w": 728, "h": 90}, "invalid deal (4)"),
        ({"impid": "2", "w": 728, "h": 90, "dealid": "d"}, "below deal floor (101)"),
    ],
)
def test_what_loses_by_the_terms_is_refused_but_valid(fields: dict[str, Any], reason: str) -> None:
    """A floor of 1.00; a private auction with a deal of 3.00."""
    assert judge(bid(**fields)) == Verdict(Kind.BID, "", (reason,))
