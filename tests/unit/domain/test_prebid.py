"""What a request says in ext.prebid: read, refused, ignored with a warning; and whom its bidder codes mean."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from rtb.domain.auction import Bid
from rtb.domain.prebid import NOT_DONE, Asked, may_ask, read, storing
from rtb.errors import BadRequest
from rtb.openrtb import decode_request

BIDDERS = ("house", "acme", "zeta")


def body(*imp_exts: Any, ext: Any = None) -> bytes:
    imps = [{"id": str(i), "banner": {"w": 1, "h": 1}, "ext": imp_ext} for i, imp_ext in enumerate(imp_exts, 1)]
    return msgspec.json.encode({"id": "r", "imp": imps, "ext": ext or {}})


def asked(*bidders: dict[str, Any] | None, **said: Any) -> Asked:
    """A request with such an ext.prebid, its imps offered to these bidder codes."""
    exts = [{} if codes is None else {"prebid": {"bidder": codes}} for codes in bidders or [None]]
    found = read(decode_request(body(*exts, ext={"prebid": said})), BIDDERS, "rtb")
    assert found is not None
    return found


def bid(bidder: str, seat: str = "", impid: str = "1") -> Bid:
    return Bid(impid=impid, seat=seat or bidder, bidder=bidder, price_micros=1)


def test_a_request_that_says_nothing_to_prebid() -> None:
    """Whatever else its exts say."""
    assert read(decode_request(body({"data": {}}, ext={"rtb": {"nbr": 1}})), BIDDERS, "rtb") is None


def test_an_ext_that_is_no_object_says_nothing() -> None:
    """It is not for us to refuse; one that mentions Prebid is."""
    assert read(decode_request(body([1], ext="x")), BIDDERS, "rtb") is None
    assert not may_ask(decode_request(b'{"id":"r","imp":[{"id":"1","banner":{}}]}'))
    with pytest.raises(BadRequest, match=r"^imp\[0\]\.ext: expected `object`"):
        read(decode_request(body(["prebid"])), BIDDERS, "rtb")


def test_an_imp_alone_can_ask() -> None:
    """As in the first example of Prebid Server's documentation."""
    found = read(decode_request(body({"prebid": {"bidder": {"acme": {"placement": 1}}}})), BIDDERS, "rtb")
    assert found is not None
    assert (found.offers, found.for_page) == ({"acme": {"1"}}, False)


@pytest.mark.parametrize("codes", [None, {}, {"rtb": {}}, {"house": {}, "acme": {}, "zeta": {}}, {"x": {}, "RTB": {}}])
def test_imps_for_everybody(codes: dict[str, Any] | None) -> None:
    """Without codes, with the exchange's own code, or with the codes of all."""
    assert asked(codes).offers is None


def test_imps_for_some() -> None:
    """Codes are compared without regard to case; an alias means whom it stands for, even where it is a name here."""
    found = asked({"Acme": {}}, None, {"house": {}, "nobody": {}}, aliases={"house": "zeta"})
    assert found.offers == {"acme": {"1", "2"}, "house": {"2"}, "zeta": {"2", "3"}}
    assert found.unknown == ["nobody"]


def test_imps_for_nobody_here() -> None:
    """Nobody is offered anything."""
    assert asked({"appnexus": {}}).offers == {}


def test_bids_stand_under_the_page_s_code_of_their_bidder() -> None:
    """By name before by the exchange's own; by its name where the page does not say."""
    found = asked({"Acme": {}, "rtb": {}}, {"me": {}}, None, aliases={"me": "rtb"})
    assert found.seat(bid("acme", "their-seat")) == "Acme"
    assert found.seat(bid("zeta")) == "rtb"
    assert found.seat(bid("zeta", impid="2")) == "me"
    assert found.seat(bid("house", "advertiser", impid="3")) == "house"
    assert (found.label("acme"), found.label("zeta"), found.label("rtb")) == ("Acme", "zeta", "rtb")


@pytest.mark.parametrize(
    ("alternates", "seat"),
    [
        ({"enabled": True, "bidders": {"ACME": {"enabled": True, "allowedbiddercodes": ["groupm"]}}}, "GroupM"),
        ({"enabled": True, "bidders": {"acme": {"enabled": True, "allowedbiddercodes": ["*"]}}}, "GroupM"),
        ({"enabled": True, "bidders": {"acme": {"enabled": True}}}, "GroupM"),
        ({"enabled": True, "bidders": {"acme": {"enabled": True, "allowedbiddercodes": ["other"]}}}, "Acme"),
        ({"enabled": True, "bidders": {"acme": {"allowedbiddercodes": ["*"]}}}, "Acme"),
        ({"enabled": True, "bidders": {"zeta": {"enabled": True}}}, "Acme"),
        ({"bidders": {"acme": {"enabled": True}}}, "Acme"),
    ],
)
def test_bids_stand_under_a_seat_that_the_page_allows(alternates: dict[str, Any], seat: str) -> None:
    """Of that bidder, and only where it is enabled twice."""
    assert asked({"Acme": {}}, alternatebiddercodes=alternates).seat(bid("acme", "GroupM")) == seat


@pytest.mark.parametrize("said", [{"targeting": {}}, {"events": {}}])
def test_a_page_says_so(said: dict[str, Any]) -> None:
    """It wants key-values or event URLs, which exchanges do not."""
    assert asked(**said).for_page
    assert not asked(channel={"name": "pbjs"}).for_page


def test_what_is_ignored_is_warned_of() -> None:
    """One line a member, which says what holds instead."""
    assert asked(cache={"bids": {}}, debug=True).warnings == [f"ext.prebid.cache: ignored, {NOT_DONE['cache']}"]
    assert len(asked(**{name: {} for name in NOT_DONE}).warnings) == len(NOT_DONE)
    stored = body({"prebid": {"storedbidresponse": [{}]}}, ext={"prebid": {"storedrequest": {"id": "1"}}})
    found = read(decode_request(stored), BIDDERS, "rtb")
    assert found is not None
    assert found.warnings == [
        "ext.prebid.storedrequest: ignored, nothing is stored here",
        "imp '1': ext.prebid.storedbidresponse: ignored, nothing is stored here",
    ]


@pytest.mark.parametrize(
    ("said", "imp_ext", "reason"),
    [
        ({"targeting": {"includewinners": "yes"}}, {}, "ext.prebid.targeting.includewinners: expected `bool"),
        ({"targeting": {"prefix": "very-long-one"}}, {}, "ext.prebid.targeting.prefix: expected `str` of length <= 8"),
        ({"targeting": {"pricegranularity": "x"}}, {}, "ext.prebid.targeting.pricegranularity: 'x' is none"),
        ({}, {"prebid": {"bidder": []}}, "imp[0].ext.prebid.bidder: expected `object"),
    ],
)
def test_refusals_name_the_field(said: dict[str, Any], imp_ext: dict[str, Any], reason: str) -> None:
    """One line each."""
    with pytest.raises(BadRequest) as refused:
        read(decode_request(body(imp_ext, ext={"prebid": said})), BIDDERS, "rtb")
    assert str(refused.value).startswith(reason)


def test_a_request_that_breaks_openrtb_because_it_counts_on_something_stored() -> None:
    """The reason is found; for any other request there is none."""
    stored = {"storedrequest": {"id": "1"}}
    empty = msgspec.json.encode({"id": "r", "imp": [{"id": "1", "ext": {"prebid": stored}}]})
    assert storing(empty) == "imp[0].ext.prebid.storedrequest: nothing is stored here; send the whole imp"
    assert storing(msgspec.json.encode({"ext": {"prebid": stored}})).startswith("ext.prebid.storedrequest: ")
    for other in (b"", b"{}", b'{"prebid":"storedrequest"', b'["prebid","storedrequest"]', b"\xff" + empty):
        assert storing(other) == ""
