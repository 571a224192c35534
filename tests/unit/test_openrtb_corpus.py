"""Requests that others wrote: which decode, which are refused and why, none forgotten."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rtb.errors import BadRequest
from rtb.openrtb import decode_request, decode_response, encode

DATA = Path(__file__).parents[3] / "shared" / "data"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the collected OpenRTB material is not at ../shared/data")

# invalid-whole: the field that our refusal begins with
REFUSED = {
    "audio-maxbitrate-negative.json": "imp[0].audio.maxbitrate",
    "audio-mimes-empty.json": "imp[0].audio.mimes",
    "audio-minbitrate-negative.json": "imp[0].audio.minbitrate",
    "banner-h-negative.json": "imp[0].banner.h",
    "banner-w-negative.json": "imp[0].banner.w",
    "device-geo-accuracy-negative.json": "device.geo.accuracy",
    "device-h-negative.json": "device.h",
    "device-ppi-negative.json": "device.ppi",
    "empty-object.json": "id",
    "format-wmin-negative.json": "imp[0].banner.format[0].wmin",
    "format-wratio-negative.json": "imp[0].banner.format[0].wratio",
    "imp-id-duplicates.json": "imp[1].id",
    "imp-no-type.json": "imp[0]",
    "metric-empty-object.json": "imp[0]",  # Prebid Server has no metrics; the imp has no media either
    "native-empty.json": "imp[0].native.request",
    "null.json": "the body",
    "only-request-id.json": "imp",
    "regs-gdpr-invalid.json": "regs.gdpr",
    "site-dooh-both.json": "site, app, dooh",
    "tmax-negative.json": "tmax",
    "user-geo-accuracy-negative.json": "user.geo.accuracy",
    "video-h-negative.json": "imp[0].video.h",
    "video-mimes-empty.json": "imp[0].video.mimes",
    "video-minbitrate-negative.json": "imp[0].video.minbitrate",
    "video-w-negative.json": "imp[0].video.w",
}
PREBIDS_OWN = "Prebid Server's own ext.prebid, which OpenRTB carries without reading"
# invalid-whole: what Prebid Server refuses and OpenRTB does not
ACCEPTED = {
    "alias-bidder-self.json": PREBIDS_OWN,
    "alias-unknown-core.json": PREBIDS_OWN,
    "banner-h-only.json": "3.2.6: w and h are recommended, not required",
    "banner-hmax.json": "hmax is an old field of OpenRTB; Prebid Server does not support it",
    "banner-hmin.json": "hmin is an old field of OpenRTB; Prebid Server does not support it",
    "banner-wmax.json": "wmax is an old field of OpenRTB; Prebid Server does not support it",
    "bid-adjustment-invalid-bidder.json": PREBIDS_OWN,
    "cache-nothing.json": PREBIDS_OWN,
    "format-empty-object.json": "3.2.10: it is recommended, not required, that a format says a size",
    "imp-ext-empty.json": PREBIDS_OWN,
    "imp-ext-invalid-params.json": PREBIDS_OWN,
    "imp-ext-prebid-bidder-empty.json": PREBIDS_OWN,
    "imp-ext-unknown-bidder.json": PREBIDS_OWN,
    "imp-no-ext.json": PREBIDS_OWN,
    "interstitial-empty.json": PREBIDS_OWN,
    "invalid-bidder-params.json": PREBIDS_OWN,
    "no-site-or-app-or-dooh.json": "3.2.1: site, app and dooh are recommended, not required",
    "user-ext-consent-int.json": "user.ext is free-form; the consent reads as unknown",
}
# rtb4free: the field that our refusal begins with; the others decode
REFUSED_RTB4FREE = {
    "fyberDisplay640x480.txt": "imp[0].video.mimes",  # required by 3.2.7
    "nexageNativeAppWall.txt": "imp[0].native.request",  # native 1.0 as an object, of before OpenRTB 2.3
    "nexageNativeContentStreamWithVideo.txt": "imp[0].native.request",  # likewise
    "suspect.txt": "imp[0].banner.w",  # every number a float, 320.0: 3.2.6 wants integers
}
# openrtb-requests.jsonl: how many are refused for what; the texts are ours, with the indexes taken out
REFUSED_LINES = {
    "tmax: expected `int | null`, got `str`": 144,  # the template "{{TMAX}}" of a test harness, never filled in
    "imp[].id: ids must be unique [3.2.4]": 9,
    "imp[].id: required, a non-empty string [3.2.4]": 5,
    "imp[]: needs one of banner, video, audio, native [3.2.4]": 29,
    "imp[].video.mimes: required, at least one MIME type [3.2.7]": 19,
    "imp[].audio.mimes: required, at least one MIME type [3.2.8]": 4,
    "imp[].native.request: required, the native request as a JSON string [3.2.9]": 18,
    "imp[].banner.w: expected `int` >= 0": 1,
    "imp[].bidfloor: expected `float` >= 0.0": 2,
    "site, app, dooh: only one of them may be present [3.2.1]": 27,
}


def test_the_2292_collected_requests() -> None:
    """2,034 decode and encode again; 258 are refused, each for a rule that adapter tests break, most on purpose."""
    reasons: Counter[str] = Counter()
    decoded = 0
    for body in _bodies("openrtb-requests.jsonl"):
        refusal = _refusal(decode_request, body)
        if refusal is None:
            decoded += 1
            request = decode_request(body)
            assert encode(decode_request(encode(request))) == encode(request)
        else:
            reasons[_without_indexes(refusal)] += 1
    assert reasons == REFUSED_LINES
    assert (decoded, reasons.total()) == (2034, 258)


def test_the_958_collected_responses() -> None:
    """951 decode; seven mocks that are no bid responses are refused by the field that has the wrong type."""
    refusals = [_refusal(decode_response, body) for body in _bodies("openrtb-bidresponses.jsonl")]
    fields = Counter(_without_indexes(refusal).partition(": ")[0] for refusal in refusals if refusal is not None)
    assert refusals.count(None) == 951
    assert fields == {
        "seatbid": 2,
        "seatbid[].bid": 1,
        "seatbid[].bid[].mtype": 1,
        "seatbid[].bid[].price": 1,
        "seatbid[].bid[].w": 2,
    }


def test_invalid_whole_is_listed_in_full() -> None:
    """Every request that Prebid Server refuses is either refused here or accepted for a reason."""
    names = [path.name for path in (DATA / "pbs-sample-requests" / "invalid-whole").iterdir()]
    assert sorted([*REFUSED, *ACCEPTED]) == sorted(names)


@pytest.mark.parametrize("name", REFUSED)
def test_an_invalid_request_is_refused_by_its_field(name: str) -> None:
    """What OpenRTB forbids is refused, field first."""
    with pytest.raises(BadRequest) as refusal:
        decode_request(_mock(DATA / "pbs-sample-requests" / "invalid-whole" / name))
    assert str(refusal.value).startswith(f"{REFUSED[name]}: ")


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_only_prebid_server_refuses_is_accepted(name: str) -> None:
    """What OpenRTB allows decodes, whatever is in an ext."""
    assert decode_request(_mock(DATA / "pbs-sample-requests" / "invalid-whole" / name)).id


def test_valid_whole_decodes() -> None:
    """Every request that Prebid Server accepts decodes, those of its currency tests as well."""
    folder = DATA / "pbs-sample-requests"
    paths = [*(folder / "valid-whole").rglob("*.json"), *(folder / "currency-conversion").glob("*.json")]
    assert len(paths) == 27
    for path in paths:
        assert decode_request(_mock(path)).id, path.name


def test_iab_samples_decode() -> None:
    """The specification's own sample requests and responses decode."""
    requests = sorted((DATA / "iab-openrtb26").glob("*-req.json"))
    responses = sorted((DATA / "iab-openrtb26").glob("*-resp.json"))
    assert (len(requests), len(responses)) == (7, 10)
    for path in requests:
        assert decode_request(json.dumps(_load(path)["body"]).encode()).imp, path.name
    for path in responses:
        decode_response(json.dumps(_load(path)["body"]).encode())


def test_rtb4free_samples() -> None:
    """All 39 decode but four, each of which breaks a rule."""
    paths = sorted((DATA / "rtb4free").iterdir())
    refusals = {path.name: _refusal(decode_request, path.read_bytes()) for path in paths}
    assert {name: said.partition(": ")[0] for name, said in refusals.items() if said} == REFUSED_RTB4FREE
    assert len(paths) == 39


def test_the_load_tests_request_decodes() -> None:
    """The large realistic request is read as what it says."""
    request = decode_request((DATA / "nobidder-bid_request.json").read_bytes())
    assert request.imp is not None
    banner = request.imp[0].banner
    assert banner is not None
    assert (banner.w, banner.h) == (160, 600)


def _bodies(name: str) -> Iterator[bytes]:
    for line in (DATA / name).read_text(encoding="utf-8").splitlines():
        body = json.loads(line)["body"]
        yield body.encode() if isinstance(body, str) else json.dumps(body).encode()


def _refusal(decode: Callable[[bytes], object], body: bytes) -> str | None:
    """The one short line that refuses the body, None when it decodes."""
    try:
        decode(body)
    except BadRequest as refusal:
        said = str(refusal)
    else:
        return None
    assert "\n" not in said
    assert len(said) < 600
    return said


def _load(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return loaded


def _mock(path: Path) -> bytes:
    return json.dumps(_load(path).get("mockBidRequest")).encode()


def _without_indexes(reason: str) -> str:
    reason = re.sub(r"\[\d+\]", "[]", reason)
    return re.sub(r"'.*' is also imp\[\]\.id; ", "", reason)
