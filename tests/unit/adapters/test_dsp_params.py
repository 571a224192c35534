"""Parameters of bidders in a request: to each its own."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import Raw

from rtb import openrtb
from rtb.adapters.dsp_params import aliases, has_params, own_params

PARAMS = {"acme": {"placement": 1}, "other": {"secret": 2}, "Acme2": {"placement": 3}, "rtb": {}}


def request(imp_ext: Any, ext: Any = None) -> openrtb.BidRequest:
    """With an imp that says this."""
    message = {"id": "r", "imp": [{"id": "1", "banner": {"w": 300, "h": 250}, "ext": imp_ext}]}
    return openrtb.decode_request(json.dumps(message if ext is None else message | {"ext": ext}).encode())


def kept(imp_ext: Any, bidder: str = "acme", **known_as: str) -> Any:
    """What an imp's ext says to a bidder."""
    imp = {"id": "1", "novel": [1, 2.50], "ext": imp_ext}
    sent = json.loads(bytes(own_params(Raw(json.dumps(imp).encode()), bidder, known_as)))
    assert (sent["id"], sent["novel"]) == ("1", [1, 2.5])
    return sent["ext"]


def test_a_bidder_is_sent_its_own_parameters_alone() -> None:
    """Under its name in any case, and under an alias that stands for it; the rest of the ext stays."""
    ext = {"gpid": "/top", "prebid": {"bidder": PARAMS, "is_rewarded": 1}}
    assert kept(ext, Acme2="acme") == {
        "gpid": "/top",
        "prebid": {"bidder": {"acme": {"placement": 1}, "Acme2": {"placement": 3}}, "is_rewarded": 1},
    }
    assert kept({"prebid": {"bidder": {"ACME": {}}}}) == {"prebid": {"bidder": {"ACME": {}}}}


def test_an_alias_for_another_is_not_its_own() -> None:
    """Even where the code is the bidder's name."""
    assert kept({"prebid": {"bidder": PARAMS}}, acme="other") == {"prebid": {}}


@pytest.mark.parametrize("bidder", [[], "acme", None, {"other": {"secret": 1}}])
def test_what_is_nobodys_or_no_object_is_left_out(bidder: Any) -> None:
    """So that nothing of another bidder's slips through."""
    assert kept({"prebid": {"bidder": bidder, "storedrequest": {"id": "1"}}}) == {
        "prebid": {"storedrequest": {"id": "1"}}
    }


@pytest.mark.parametrize("ext", [{}, {"prebid": {}}, {"prebid": 1}, {"gpid": "/top"}, [], 1])
def test_an_imp_without_parameters_stays_as_it_is(ext: Any) -> None:
    """Whatever else it says."""
    assert kept(ext) == ext


@pytest.mark.parametrize(("ext", "found"), [({"prebid": {}}, True), ({"gpid": "/top"}, False), ({}, False)])
def test_most_requests_have_none(ext: Any, found: bool) -> None:
    """Which is told without decoding."""
    assert has_params(request(ext)) is found
    assert has_params(openrtb.decode_request(b'{"id":"r","imp":[{"id":"1","ext":{"\\u0070rebid":{}},"banner":{}}]}'))


@pytest.mark.parametrize("ext", [None, {}, {"prebid": {}}, {"prebid": {"aliases": 1}}, {"prebid": "x"}])
def test_a_request_may_give_no_aliases(ext: Any) -> None:
    """Or none that are any."""
    assert aliases(request({}, ext)) == {}
    assert aliases(request({}, {"prebid": {"aliases": {"a": "acme"}}})) == {"a": "acme"}
