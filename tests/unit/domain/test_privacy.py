"""What a bidder may be told of a user, by what the request says and the bidder's settings."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rtb import openrtb
from rtb.domain.privacy import PrivacyPolicy, Reason, Treatment, signals
from rtb.openrtb import BidRequest

CONSENT = "COvFyGBOvFyGBAbAAAENAPCAAOAAAAAAAAAAAEEUACCKAAA"
"""Of the specification: purposes 1 to 3, vendors 2, 6 and 8, no precise geolocation."""
NO_STORAGE = "CPXxRfAPXxRfAAfKABENB-CgAAAAAAAAAAYgAAAAAAAA"

WHOLE, COARSE, ANONYMOUS, NONE = Treatment


def request(**members: Any) -> BidRequest:
    """A request with these members."""
    return openrtb.decode_request(json.dumps({"id": "r", "imp": [{"id": "1", "banner": {}}]} | members).encode())


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"device": {"lmt": 0, "dnt": 0}},
        {"regs": {}},
        {"regs": {"coppa": 0, "gdpr": 0, "us_privacy": "1YNN"}},
        {"regs": {"gdpr": 0}, "user": {"consent": "broken"}},
        {"regs": {"gpp": "DBACNY~a~1YNN", "gpp_sid": [6]}},
        {"regs": {"gpp": "DBACNY~a~1YYN", "gpp_sid": [-1]}},
        {"regs": {"ext": {"gpc": 0}}},
    ],
)
def test_most_requests_limit_nobody(members: dict[str, Any]) -> None:
    """Then there is nothing to ask about each bidder."""
    assert signals(request(**members)) is None


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"regs": {"coppa": 1}}, Reason.COPPA),
        ({"device": {"lmt": 1}}, Reason.LMT),
        ({"device": {"dnt": 1}}, Reason.LMT),
        ({"regs": {"us_privacy": "1YYN"}}, Reason.US),
        ({"regs": {"ext": {"us_privacy": "1YYN"}}}, Reason.US),
        ({"regs": {"ext": {"gpc": "1"}}}, Reason.US),
        ({"regs": {"gpp": "DBACNY~a~1YYN", "gpp_sid": [6]}}, Reason.US),
        ({"regs": {"ext": {"gpp": "DBACNY~a~1YYN", "gpp_sid": [6]}}}, Reason.US),
        ({"regs": {"gpp": "broken", "gpp_sid": [7]}}, Reason.US),
        ({"regs": {"gdpr": 1}}, Reason.GDPR_STRING),
        ({"regs": {"ext": {"gdpr": 1}}, "user": {"consent": "BO..."}}, Reason.GDPR_STRING),
        ({"regs": {"gpp": "DBABM~broken", "gpp_sid": [2]}}, Reason.GDPR_STRING),
        ({"regs": {"gdpr": 1}, "user": {"consent": NO_STORAGE}}, Reason.GDPR_PURPOSE),
        ({"regs": {"coppa": 1, "gdpr": 1}, "device": {"lmt": 1}}, Reason.COPPA),
    ],
)
def test_the_law_or_the_user_forbids_it(members: dict[str, Any], reason: Reason) -> None:
    """The request is stripped for a bidder, or it is not asked: as it is configured for just this rule."""
    found = signals(request(**members))
    assert found is not None
    assert found.verdict(PrivacyPolicy()) == (ANONYMOUS, reason)
    key = {"coppa": "coppa", "lmt or dnt": "lmt"}.get(reason.value, reason.value[:4].strip(" p"))
    assert found.verdict(PrivacyPolicy(**{key: "skip"})) == (NONE, reason)


@pytest.mark.parametrize(
    "members",
    [
        {"regs": {"gdpr": 1}, "user": {"consent": CONSENT}},
        {"regs": {"ext": {"gdpr": 1}}, "user": {"ext": {"consent": CONSENT}}},
        {"regs": {"gpp": f"DBABM~{CONSENT}", "gpp_sid": [2]}},
    ],
)
@pytest.mark.parametrize(
    ("gvlid", "verdict"),
    [
        (0, (COARSE, Reason.GDPR_GEO)),
        (6, (COARSE, Reason.GDPR_GEO)),
        (7, (ANONYMOUS, Reason.GDPR_VENDOR)),
    ],
)
def test_consent_is_looked_up_for_each_vendor(members: dict[str, Any], gvlid: int, verdict: Any) -> None:
    """In the TC string, wherever that stands; it does not allow precise geolocation."""
    found = signals(request(**members))
    assert found is not None
    assert found.verdict(PrivacyPolicy(gvlid=gvlid)) == verdict


def test_the_strictest_rule_decides() -> None:
    """Consent does not help against an opt-out of the device."""
    found = signals(request(regs={"gdpr": 1}, user={"consent": CONSENT}, device={"lmt": 1}))
    assert found is not None
    assert found.verdict(PrivacyPolicy(gvlid=6)) == (ANONYMOUS, Reason.LMT)
    assert found.verdict(PrivacyPolicy(gvlid=7, gdpr="skip")) == (NONE, Reason.GDPR_VENDOR)
