"""A running daemon answers what others have written: real requests, the specification's samples, bad ones."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
import pytest
from crawleruseragents import is_crawler

from rtb import openrtb
from rtb.domain import campaign as campaigns
from rtb.domain import facts
from rtb.domain.campaign import Campaign
from rtb.domain.money import Rates
from rtb.domain.targeting import Fit, check
from rtb.openrtb import BidRequest, BidResponse, Imp
from rtb.wiring import resource
from tests.support import peers
from tests.support.daemon import Daemon
from tests.support.http import Http, Response, post
from tests.support.peers import needs_data

pytestmark = needs_data
RATES = Rates("USD")

PREBIDS_OWN_RULES = {
    "alias-bidder-self.json", "alias-unknown-core.json", "bid-adjustment-invalid-bidder.json", "cache-nothing.json",
    "imp-ext-empty.json", "imp-ext-invalid-params.json", "imp-ext-prebid-bidder-empty.json",
    "imp-ext-unknown-bidder.json", "imp-no-ext.json", "invalid-bidder-params.json",  # its ext.prebid and bidder params
    "banner-hmax.json", "banner-hmin.json", "banner-wmax.json",  # deprecated since 2.4, but legal [3.2.6]
    "banner-h-only.json", "format-empty-object.json", "interstitial-empty.json",  # sizes are optional [3.2.6, 3.2.10]
    "no-site-or-app-or-dooh.json",  # recommended, not required [3.2.1]
    "user-ext-consent-int.json",  # an ext is free-form
}  # fmt: skip
"""Requests that Prebid Server refuses and OpenRTB does not."""
TMAX = re.compile(rb'("tmax"\s*:\s*)(\d+)')


def demo_campaigns() -> list[dict[str, Any]]:
    """The demo campaigns, without what makes answers depend on the time of day or on earlier requests."""
    found: list[dict[str, Any]] = msgspec.json.decode(resource("campaigns.json").read_bytes())["campaigns"]
    for campaign in found:
        for key in ("frequency_cap", "frequency_caps", "pacing", "alert_at", "pause_at", "daily_budget"):
            campaign.pop(key, None)
        campaign.get("targeting", {}).pop("hours", None)
    return found


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """With the demo campaigns."""
    with Daemon(tmp_path_factory.mktemp("corpus")) as daemon:
        daemon.put_campaigns(*demo_campaigns())
        yield daemon


def answers(daemon: Daemon, requests: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, bytes, Response]]:
    """What each request is answered, one after another on one connection."""
    with Http(daemon.url) as http:
        for name, body in requests:
            yield name, body, http.exchange(post(patient(body)))


def patient(body: bytes) -> bytes:
    """The request with a tmax that nobody misses on a busy machine, where its own is enough for an auction."""
    return TMAX.sub(lambda found: found[1] + (b"30000" if int(found[2]) >= 15 else found[2]), body)


def assert_sound(name: str, body: bytes, answer: Response) -> None:
    """200, 204 or 400 and nothing else, each with what belongs to it."""
    assert answer.headers["x-openrtb-version"] == "2.6", name
    if answer.status == 400:
        assert answer.body.decode().rstrip("\n") == answer.error, name
        assert answer.error
        assert "\n" not in answer.error, name
    elif answer.status == 204:
        assert answer.headers["x-rtb-outcome"] == "no-bid", name
    else:
        assert answer.status == 200, name
        request = msgspec.json.decode(body)
        response = msgspec.json.decode(answer.body, type=BidResponse)
        imps = {imp["id"]: imp for imp in request["imp"]}
        won = [bid for seat in response.seatbid or () for bid in seat.bid or ()]
        assert response.id == request["id"], name
        assert won or asks_as_a_page(request), name
        assert len({bid.impid for bid in won}) == len(won), name
        for bid in won:
            floor = imps[bid.impid].get("bidfloor") or 0.0
            currency = imps[bid.impid].get("bidfloorcur") or "USD"
            assert bid.price is not None, name
            assert bid.price > 0, name
            assert bid.dealid or currency != "USD" or bid.price >= floor, name
            assert bid.adm, name


def asks_as_a_page(body: dict[str, Any]) -> bool:
    """Whether it has ``ext.prebid``, its own or an imp's: then even no bid is a 200, as Prebid.js wants."""
    return any("prebid" in (part.get("ext") or {}) for part in (body, *body["imp"]))


def refused_fields(body: dict[str, Any]) -> set[str]:
    """The fields that OpenRTB forbids a request to have as it does, by the specification's text; none if it may."""
    found = set()
    tmax = body.get("tmax")
    if isinstance(tmax, str) or (tmax or 0) < 0:
        found.add("tmax")
    if sum(body.get(name) is not None for name in ("site", "app", "dooh")) > 1:
        found.add("site, app, dooh")
    seen = set()
    for i, imp in enumerate(body["imp"]):
        if (imp.get("bidfloor") or 0) < 0:
            found.add(f"imp[{i}].bidfloor")
        if ((imp.get("banner") or {}).get("w") or 0) < 0:
            found.add(f"imp[{i}].banner.w")
        if all(imp.get(media) is None for media in ("banner", "video", "audio", "native")):
            found.add(f"imp[{i}]")
        for media, required in (("video", "mimes"), ("audio", "mimes"), ("native", "request")):
            if imp.get(media) is not None and not imp[media].get(required):
                found.add(f"imp[{i}].{media}.{required}")
        if not imp.get("id") or imp["id"] in seen:
            found.add(f"imp[{i}].id")
        seen.add(imp.get("id"))
    return found


def is_auctioned(body: dict[str, Any]) -> bool:
    """Whether there is time for an auction, a person to see it, and a rate for every currency (there is only USD)."""
    currencies = {imp.get("bidfloorcur") or "USD" for imp in body["imp"] if imp.get("bidfloor")}
    tmax = body.get("tmax") or 100
    user_agent = (body.get("device") or {}).get("ua") or ""
    return tmax >= 15 and currencies <= {"USD"} and "USD" in (body.get("cur") or ["USD"]) and not is_crawler(user_agent)


def names_bidders(imp: Imp) -> bool:
    """Whether it is offered to bidders by their codes (``ext.prebid.bidder``), none of which is the house's."""
    ext = msgspec.json.decode(imp.ext) if imp.ext else {}
    asked = ext.get("prebid") if isinstance(ext, dict) else None
    return bool(isinstance(asked, dict) and asked.get("bidder"))


def will_be_sold(request: BidRequest, catalogue: list[Campaign]) -> bool:
    """Whether any campaign may bid for any imp: every campaign tried, without the index."""
    context = facts.context(request, now=time.time())
    placements = [facts.placement(imp, RATES) for imp in request.imp or () if not names_bidders(imp)]
    return any(isinstance(check(c, context, placement), Fit) for placement in placements for c in catalogue)


def test_real_requests_are_answered_as_the_specification_and_every_campaign_say(daemon: Daemon) -> None:
    """2,292 requests of SSPs and publishers: the 258 that break OpenRTB are refused by a field that does, of the
    others exactly those are sold for which one campaign or more may bid."""
    catalogue = [campaigns.convert(item) for item in demo_campaigns()]
    statuses: Counter[int] = Counter()
    for name, body, answer in answers(daemon, peers.corpus()):
        statuses[answer.status] += 1
        assert_sound(name, body, answer)
        request = msgspec.json.decode(body)
        if fields := refused_fields(request):
            assert answer.status == 400, name
            assert answer.error.partition(":")[0] in fields, name
        else:
            sold = is_auctioned(request) and will_be_sold(openrtb.decode_request(body), catalogue)
            assert answer.status == (200 if sold or asks_as_a_page(request) else 204), name
            assert (b'"bid":' in answer.body) == sold, name
    assert statuses == {200: 1679, 204: 355, 400: 258}


def test_the_samples_of_the_specification_are_auctioned(daemon: Daemon) -> None:
    """All five are valid."""
    statuses = {}
    for name, body, answer in answers(daemon, peers.specification()):
        assert_sound(name, body, answer)
        statuses[name] = answer.status
    assert len(statuses) == 5
    assert set(statuses.values()) <= {200, 204}


def test_what_prebid_server_refuses_is_refused_where_openrtb_says_so(daemon: Daemon) -> None:
    """25 of its 43 invalid requests break OpenRTB; the others break rules of its own."""
    statuses = {}
    for name, body, answer in answers(daemon, peers.whole("invalid-whole")):
        assert_sound(name, body, answer)
        statuses[name] = answer.status
    assert {name for name, status in statuses.items() if status != 400} == PREBIDS_OWN_RULES
    assert Counter(statuses.values())[400] == 25


def test_what_prebid_server_takes_is_taken(daemon: Daemon) -> None:
    """All of its valid requests are auctioned."""
    statuses = []
    for name, body, answer in answers(daemon, peers.whole("valid-whole")):
        assert_sound(name, body, answer)
        statuses.append(answer.status)
    assert len(statuses) == 18
    assert 400 not in statuses


def test_the_samples_of_rtb4free_are_answered(daemon: Daemon) -> None:
    """SSPs' own dialects: four break OpenRTB, two with their native assets outside `request`."""
    refused = {}
    for name, body, answer in answers(daemon, peers.rtb4free()):
        assert_sound(name, body, answer)
        if answer.status == 400:
            refused[name] = answer.error.partition(":")[0]
    assert refused == {
        "fyberDisplay640x480.txt": "imp[0].video.mimes",
        "nexageNativeAppWall.txt": "imp[0].native.request",
        "nexageNativeContentStreamWithVideo.txt": "imp[0].native.request",
        "suspect.txt": "imp[0].banner.w",
    }
