"""The bytes that bidders get."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from msgspec import Struct

from rtb import openrtb
from rtb.adapters.dsp_request import Bodies
from rtb.domain.auction import Terms
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

    def report(self, bidder: Bidder, bids: Any = (), rejected: Any = (), failure: str | None = None) -> None:
        """Nobody bids here."""


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
    body = Bodies().body(sale(BASE, at=1), version="2.6", tmax=73)
    assert json.loads(body) == BASE | {"tmax": 73, "at": 1}
    assert b'{"ua": "\\u2603", "sua": {"mobile": 1}}' in body


def test_a_rehearsal_says_so() -> None:
    """A bidder must not count what is not sold."""
    body = Bodies().body(sale(BASE, rehearsal=True), version="2.6", tmax=73)
    assert json.loads(body)["test"] == 1


def test_a_request_that_is_no_longer_there_as_bytes_is_written_anew() -> None:
    """From what was understood of it."""
    body = json.loads(Bodies().body(sale(BASE, kept=False), version="2.6", tmax=73))
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
    body = json.loads(Bodies().body(sale(BASE | NEW), version="2.5", tmax=9))
    assert body == BASE | OLD | {"tmax": 9, "at": 2}


def test_2_6_has_them_beside_ext() -> None:
    """Whatever the publisher sent; an ext that is left empty stays an object."""
    body = json.loads(Bodies().body(sale(BASE | OLD), version="2.6", tmax=9))
    assert body["source"] == {"fd": 1, "schain": {"complete": 1, "nodes": []}, "ext": {"x": 1}}
    assert body["regs"] == {"coppa": 0, "gdpr": 1, "us_privacy": "1YNN", "gpp": "D", "gpp_sid": [7], "ext": {}}
    assert body["user"] == {"id": "u", "consent": "older", "eids": [{"source": "s"}], "ext": {}}


@pytest.mark.parametrize("ext", [None, [], "text", 3])
@pytest.mark.parametrize("version", ["2.5", "2.6"])
def test_an_ext_that_is_no_object_does_no_harm(ext: Any, version: str) -> None:
    """The members find their place all the same."""
    request = BASE | {"user": {"consent": "CP", "ext": ext}}
    user = json.loads(Bodies().body(sale(request), version=version, tmax=9))["user"]
    assert user == ({"ext": {"consent": "CP"}} if version == "2.5" else {"consent": "CP", "ext": ext})


def test_imps_and_currencies_are_cut_down() -> None:
    """To those that the bidder is for."""
    imps = [{"id": name, "banner": {"w": 1, "h": 1}, "x": name} for name in "abc"]
    body = Bodies().body(sale(BASE | {"imp": imps}), version="2.6", tmax=9, imps=(0, 2), currencies=("EUR", "USD"))
    assert json.loads(body) == BASE | {"imp": [imps[0], imps[2]], "cur": ["EUR", "USD"], "tmax": 9, "at": 2}


def test_equal_bodies_are_one() -> None:
    """Bidders that get the same share the bytes; the next auction has its own."""
    bodies, first, second = Bodies(), sale(BASE, name="1"), sale(BASE | {"id": "s"}, name="2")
    body = bodies.body(first, version="2.6", tmax=9)
    assert bodies.body(first, version="2.6", tmax=9) is body
    assert bodies.body(first, version="2.6", tmax=8) != body
    packed = bodies.body(first, version="2.6", tmax=9, compressed=True)
    assert bodies.body(first, version="2.6", tmax=9, compressed=True) is packed
    assert gzip.decompress(packed) == body
    assert json.loads(bodies.body(second, version="2.6", tmax=9))["id"] == "s"
