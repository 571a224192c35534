"""The bytes that bidders get."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from msgspec import Struct

from rtb import openrtb
from rtb.adapters.dsp_request import Bodies, Form
from rtb.domain.money import Rates
from rtb.domain.privacy import Treatment
from rtb.domain.terms import Terms
from rtb.openrtb import BidRequest
from rtb.ports import Bidder


class Sale(Struct):
    """An auction as far as a body depends on it."""

    id: str
    body: bytes
    request: BidRequest
    terms: list[Terms]
    rehearsal: bool = False
    user_id: str = ""
    profile: None = None
    frequency: dict[str, int] = {}
    deadline_ns: int = 0
    offered: None = None

    def report(self, bidder: Bidder, bids: Any = (), rejected: Any = (), failure: str | None = None) -> None:
        """Nobody bids here."""


def sent(of: Sale, tmax: int = 9, **form: Any) -> bytes:
    """What is sent of an auction."""
    return Bodies(RATES).form(Form(**form)).of(of, tmax)


RATES = Rates("USD", {"EUR": 2.0})


def sale(message: dict[str, Any], *, name: str = "1", at: int = 2, rehearsal: bool = False, kept: bool = True) -> Sale:
    """An auction of a request."""
    body = json.dumps(message).encode()
    request = openrtb.decode_request(body)
    return Sale(name, body if kept else b"", request, [Terms(impid="1", at=at)], rehearsal)


BASE: dict[str, Any] = {
    "id": "r",
    "imp": [{"id": "1", "banner": {"w": 300, "h": 250}, "novel": {"a": [1, 2.50]}}],
    "tmax": 120,
    "device": {"ua": "☃", "sua": {"mobile": 1}},
    "ext": {"who": "knows"},
}


def test_a_body_is_the_request_with_its_own_tmax_and_at() -> None:
    """Everything else is as it came, known or not, to the byte; `at` is what the auction is run under."""
    body = sent(sale(BASE, at=1), 73)
    assert json.loads(body) == BASE | {"tmax": 73, "at": 1}
    assert b'{"ua": "\\u2603", "sua": {"mobile": 1}}' in body


def test_a_rehearsal_says_so() -> None:
    """A bidder must not count what is not sold."""
    body = sent(sale(BASE, rehearsal=True), 73)
    assert json.loads(body)["test"] == 1


def test_a_request_that_is_no_longer_there_as_bytes_is_written_anew() -> None:
    """From what was understood of it."""
    body = json.loads(sent(sale(BASE, kept=False), 73))
    assert (body["id"], body["imp"], body["tmax"]) == ("r", [{"id": "1", "banner": {"w": 300, "h": 250}}], 73)


NEW = {
    "source": {"fd": 1, "schain": {"complete": 1, "nodes": []}, "ext": {"x": 1}},
    "regs": {"coppa": 0, "gdpr": 1, "us_privacy": "1YNN", "gpp": "D", "gpp_sid": [7]},
    "user": {"id": "u", "consent": "CP", "eids": [{"source": "s"}], "ext": {"consent": "older"}},
}
OLD = {
    "source": {"fd": 1, "ext": {"schain": {"complete": 1, "nodes": []}, "x": 1}},
    "regs": {"coppa": 0, "ext": {"gdpr": 1, "us_privacy": "1YNN", "gpp": "D", "gpp_sid": [7]}},
    "user": {"id": "u", "ext": {"consent": "older", "eids": [{"source": "s"}]}},
}


def test_2_5_has_moved_members_in_ext() -> None:
    """schain, gdpr, us_privacy, gpp, consent, eids; what is in ext already stays."""
    body = json.loads(sent(sale(BASE | NEW), version="2.5"))
    assert body == BASE | OLD | {"tmax": 9, "at": 2}


def test_2_6_has_them_beside_ext() -> None:
    """Whatever the publisher sent; an ext that is left empty stays an object."""
    body = json.loads(sent(sale(BASE | OLD), version="2.6"))
    assert body["source"] == {"fd": 1, "schain": {"complete": 1, "nodes": []}, "ext": {"x": 1}}
    assert body["regs"] == {"coppa": 0, "gdpr": 1, "us_privacy": "1YNN", "gpp": "D", "gpp_sid": [7], "ext": {}}
    assert body["user"] == {"id": "u", "consent": "older", "eids": [{"source": "s"}], "ext": {}}


@pytest.mark.parametrize("ext", [None, [], "text", 3])
@pytest.mark.parametrize("version", ["2.5", "2.6"])
def test_an_ext_that_is_no_object_does_no_harm(ext: Any, version: str) -> None:
    """The members find their place all the same."""
    request = BASE | {"user": {"consent": "CP", "ext": ext}}
    user = json.loads(sent(sale(request), version=version))["user"]
    assert user == ({"ext": {"consent": "CP"}} if version == "2.5" else {"consent": "CP", "ext": ext})


def test_imps_and_currencies_are_cut_down() -> None:
    """To those that the bidder is for."""
    imps = [{"id": name, "banner": {"w": 1, "h": 1}, "x": name} for name in "abc"]
    body = sent(sale(BASE | {"imp": imps}), version="2.6", imps=(0, 2), currencies=("EUR", "USD"))
    assert json.loads(body) == BASE | {"imp": [imps[0], imps[2]], "cur": ["EUR", "USD"], "tmax": 9, "at": 2}


def test_equal_bodies_are_one() -> None:
    """Bidders that get the same share the bytes; the next auction has its own."""
    bodies, first, second = Bodies(RATES), sale(BASE, name="1"), sale(BASE | {"id": "s"}, name="2")
    body = bodies.form(Form()).of(first, 9)
    assert bodies.form(Form()).of(first, 9) is body
    packed = bodies.form(Form(compressed=True)).of(first, 9)
    assert bodies.form(Form(compressed=True)).of(first, 9) is packed
    assert gzip.decompress(packed) == body
    assert json.loads(bodies.form(Form()).of(first, 8)) == json.loads(body) | {"tmax": 8}
    assert json.loads(bodies.form(Form()).of(second, 8))["id"] == "s"
    assert json.loads(bodies.form(Form()).of(first, 8))["id"] == "r"


@pytest.mark.parametrize(
    ("imp", "form", "floor"),
    [
        ({}, {"floor_micros": 500_000}, {"bidfloor": 0.5, "bidfloorcur": "USD"}),
        ({"bidfloor": 0.7}, {"floor_micros": 500_000}, {"bidfloor": 0.7, "bidfloorcur": "USD"}),
        ({"bidfloor": 0.1, "bidfloorcur": "EUR"}, {"floor_micros": 500_000}, {"bidfloor": 0.25, "bidfloorcur": "EUR"}),
        ({"bidfloor": 0.1, "bidfloorcur": "XTS"}, {"floor_micros": 500_000}, {"bidfloor": 0.1, "bidfloorcur": "XTS"}),
        ({"bidfloor": 0.9}, {"adjustment": 0.9}, {"bidfloor": 1.0, "bidfloorcur": "USD"}),
        ({"bidfloor": 1.0}, {"adjustment": 0.85}, {"bidfloor": 1.176471, "bidfloorcur": "USD"}),  # 1 / 0.85, up
        ({}, {"adjustment": 0.9}, {}),
    ],
)
def test_a_bidder_is_told_the_floor_it_has_to_meet(imp: Any, form: dict[str, Any], floor: dict[str, Any]) -> None:
    """The higher one of its own and the imp's, in the imp's currency, before its price is adjusted."""
    one = {"id": "1", "banner": {"w": 1, "h": 1}}
    body = json.loads(sent(sale(BASE | {"imp": [one | imp]}), **form))
    assert body["imp"] == [one | floor]
    assert body["ext"] == {"who": "knows"}


USER: dict[str, Any] = {
    "id": "u",
    "buyeruid": "b",
    "yob": 1990,
    "gender": "F",
    "keywords": "a,b",
    "data": [{"id": "1"}],
    "eids": [{"source": "s"}],
    "consent": "CP",
    "geo": {"lat": 48.85837, "lon": 2.294481, "zip": "75007", "country": "FRA"},
    "ext": {"eids": [{"source": "t"}], "data": 1, "novel": 2},
}
DEVICE: dict[str, Any] = {
    "ua": "x",
    "ifa": "i",
    "didsha1": "d",
    "lmt": 1,
    "ip": "203.0.113.77",
    "ipv6": "2001:db8:1:2:3:4:5:6",
    "geo": {"lat": -33.45694, "lon": 151, "accuracy": 5, "city": "x"},
    "novel": 1,
}


def test_a_request_may_go_out_without_precise_geography() -> None:
    """Two decimals of degrees, 24 bits of an IPv4 address, 48 of an IPv6 one; the rest as it is."""
    body = json.loads(sent(sale(BASE | {"user": USER, "device": DEVICE}), treatment=Treatment.COARSE))
    assert body["device"] == DEVICE | {
        "ip": "203.0.113.0",
        "ipv6": "2001:db8:1::",
        "geo": {"lat": -33.46, "lon": 151, "city": "x"},
    }
    geo = {"lat": 48.86, "lon": 2.29, "country": "FRA"}
    ext = {"data": 1, "novel": 2}
    assert body["user"] == USER | {"geo": geo, "ext": ext}


@pytest.mark.parametrize("version", ["2.5", "2.6"])
def test_a_request_may_go_out_without_its_user(version: str) -> None:
    """Neither who it is nor what is known of him; consent and what nobody knows stay, wherever the version has them."""
    sold = sale(BASE | {"user": USER, "device": DEVICE})
    body = json.loads(sent(sold, version=version, treatment=Treatment.ANONYMOUS))
    geo = {"lat": 48.86, "lon": 2.29, "country": "FRA"}
    consent = {"consent": "CP", "ext": {"novel": 2}} if version == "2.6" else {"ext": {"novel": 2, "consent": "CP"}}
    assert body["user"] == {"geo": geo} | consent
    assert body["device"] == {
        "ua": "x",
        "lmt": 1,
        "ip": "203.0.113.0",
        "ipv6": "2001:db8:1::",
        "geo": {"lat": -33.46, "lon": 151, "city": "x"},
        "novel": 1,
    }
    assert body["imp"] == BASE["imp"]


@pytest.mark.parametrize(
    ("members", "found"),
    [
        ({"user": {"geo": None, "id": "u"}}, {"user": {}}),
        ({"user": {"ext": None}}, {"user": {"ext": None}}),
        ({"device": {"ip": "all over"}}, {"device": {"ip": ""}}),
        ({"user": None, "device": None}, {}),
    ],
)
def test_what_is_not_as_it_should_be_does_not_slip_through(members: dict[str, Any], found: dict[str, Any]) -> None:
    """It is left out."""
    body = json.loads(sent(sale(BASE | {"device": {}} | members), treatment=Treatment.ANONYMOUS))
    assert {name: body[name] for name in ("user", "device") if body.get(name)} == {k: v for k, v in found.items() if v}


def test_a_request_that_needs_no_change_goes_out_as_it_came() -> None:
    """But for tmax: spaces, unknown members and the order stay."""
    for before, after in (
        (
            b'{"id": "r", "tmax" : 120 , "at":2,"imp":[{"id":"1","banner":{}}],"novel":[ 1]}',
            b'{"id": "r", "tmax":9 , "at":2,"imp":[{"id":"1","banner":{}}],"novel":[ 1]}',
        ),
        (
            b'{"at":2,"id":"r","imp":[{"id":"1","banner":{}}],"tmax":120}\n',
            b'{"at":2,"id":"r","imp":[{"id":"1","banner":{}}],"tmax":9}\n',
        ),
    ):
        of = Sale("1", before, openrtb.decode_request(before), [Terms(impid="1", at=2)], False)
        assert sent(of) == after


def test_a_tmax_of_somebody_else_is_left_alone() -> None:
    """Of an extension, beside the request's own or without it."""
    for own in ({"tmax": 120}, {}):
        message = {"ext": {"tmax": 7}, "at": 2, "id": "r", "imp": [{"id": "1", "banner": {}}], **own}
        assert json.loads(sent(sale(message))) == message | {"tmax": 9}
