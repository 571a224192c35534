"""OpenRTB on the wire: what is decoded, what is refused and how it is said, what is carried."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rtb import openrtb
from rtb.errors import BadRequest, TooLarge
from rtb.openrtb import MAX_DEPTH, MAX_IMPS, BidRequest, decode_request, decode_response, encode


def request(**fields: Any) -> bytes:
    """A minimal valid request, with these top-level fields."""
    return json.dumps({"id": "r", "imp": [{"id": "1", "banner": {"w": 300, "h": 250}}], **fields}).encode()


def imp(**fields: Any) -> bytes:
    """A request whose one imp has these fields besides its id."""
    return request(imp=[{"id": "1", **fields}])


def reason(body: bytes) -> str:
    """Why the body is refused."""
    with pytest.raises(BadRequest) as refusal:
        decode_request(body)
    return str(refusal.value)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", "the body is not JSON"),
        (b"{", "the body is not JSON"),
        (b"\xef\xbb\xbf{}", "the body is not JSON"),
        (b'{"id": "\xff"}', "the body is not JSON"),
        (b'{"id": "r", "unknown": "\xff"}', "the body is not JSON"),
        (b"null", "the body: "),
        (b"[]", "the body: "),
        (b'"x"', "the body: "),
        (b"{}", "id: "),
        (request(id=""), "id: "),
        (request(id=7), "id: "),
        (b'{"id": "r"}', "imp: "),
        (request(imp=[]), "imp: "),
        (request(imp=None), "imp: "),
        (request(imp=[None]), "imp[0]: "),
        (request(imp=[{"id": str(i), "banner": {}} for i in range(MAX_IMPS + 1)]), "imp: "),
        (request(imp=[{"banner": {}}]), "imp[0].id: "),
        (request(imp=[{"id": "a", "banner": {}}, {"id": "a", "banner": {}}]), "imp[1].id: "),
        (imp(), "imp[0]: "),
        (imp(banner=None), "imp[0]: "),
        (imp(video={}), "imp[0].video.mimes: "),
        (imp(video={"mimes": []}), "imp[0].video.mimes: "),
        (imp(audio={}), "imp[0].audio.mimes: "),
        (imp(native={}), "imp[0].native.request: "),
        (imp(banner={"w": -1}), "imp[0].banner.w: "),
        (imp(banner={"format": [{"w": 300, "h": -250}]}), "imp[0].banner.format[0].h: "),
        (imp(banner={}, bidfloor=-0.01), "imp[0].bidfloor: "),
        (imp(banner={}, bidfloor="1"), "imp[0].bidfloor: "),
        (imp(banner={}, bidfloor=1_000_000.01), "imp[0].bidfloor: "),
        (imp(video={"mimes": ["video/mp4"], "maxextended": -2}), "imp[0].video.maxextended: "),
        (imp(video={"mimes": ["video/mp4"], "mincpmpersec": -1}), "imp[0].video.mincpmpersec: "),
        (imp(banner={}, pmp={"deals": [{}]}), "imp[0].pmp.deals[0].id: "),
        (imp(banner={}, pmp={"deals": [{"id": "d", "bidfloor": -1}]}), "imp[0].pmp.deals[0].bidfloor: "),
        (imp(banner={}, qty={"multiplier": 0}), "imp[0].qty.multiplier: "),
        (request(tmax=-1), "tmax: "),
        (request(tmax="${TMAX}"), "tmax: "),
        (request(tmax=100.5), "tmax: "),
        (request(site={}, app={}), "site, app, dooh: "),
        (request(site={}, dooh={}), "site, app, dooh: "),
        (request(regs={"gdpr": 2}), "regs.gdpr: "),
        (request(device={"geo": {"accuracy": -1}}), "device.geo.accuracy: "),
    ],
)
def test_a_refusal_names_the_field(body: bytes, field: str) -> None:
    """Each is refused with one line that begins with the field, in the spec's words."""
    assert reason(body).startswith(field)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_none_are_refused(number: str) -> None:
    """A floor that is not finite is refused, as JSON or as a number out of range."""
    body = b'{"id": "r", "imp": [{"id": "1", "banner": {}, "bidfloor": %s}]}' % number.encode()
    assert "\n" not in reason(body)


def test_a_duplicate_imp_id_is_quoted_in_part_and_in_ascii() -> None:
    """However long or strange an id is, the reason stays one short line that fits a header."""
    long = "\n한글" * 1000
    said = reason(request(imp=[{"id": long, "banner": {}}, {"id": long, "banner": {}}]))
    assert said.startswith("imp[1].id: ")
    assert said.isascii()
    assert "\n" not in said
    assert len(said) < 600


def test_nesting_to_the_limit_is_decoded() -> None:
    """MAX_DEPTH levels are carried, wherever they are; brackets in strings do not count."""
    inside = MAX_DEPTH - 1  # the body itself is a level
    nested = b"[" * inside + b"]" * inside
    deep = b'{"id": "r", "imp": [{"id": "1", "banner": {}}], "unknown": %s, "brackets": "%s"}'
    assert decode_request(deep % (nested, rb"\"[\\" * 1000)).id == "r"
    with pytest.raises(TooLarge, match="nesting"):
        decode_request(deep % (b"[" + nested + b"]", b""))


@pytest.mark.parametrize("piece", [b'\\"', b'"', b'"a', b"\\", b'"\\', b"[", b"[{", b"]", b"[]", b'{"a":', b"[[]"])
def test_no_body_holds_the_loop(piece: bytes) -> None:
    """The nesting check is linear: a quarter of a megabyte of anything is refused, with no pattern to run away.

    A quadratic check takes hours for the first of these, so the test need not look at a clock.
    """
    body = b"[" * (MAX_DEPTH + 1) + piece * (262_144 // len(piece))
    assert "\n" not in reason(body)
    assert "\n" not in reason(b'{"id": "r", "unknown": ' + piece * (262_144 // len(piece)))


def test_unknown_values_are_carried() -> None:
    """An enumeration grows without the decoder: unknown numbers are kept, unknown fields skipped."""
    body = request(
        at=501,
        imp=[
            {"id": "1", "banner": {"pos": 99, "api": [77], "btype": [9], "battr": [999]}, "instl": 7, "new": {"a": [1]}}
        ],
        device={"devicetype": 42, "connectiontype": -3, "sua": {"browsers": []}},
        cattax=600,
        new=[{"deep": None}],
    )
    decoded = decode_request(body)
    assert decoded.imp is not None
    assert decoded.device is not None
    banner = decoded.imp[0].banner
    assert banner is not None
    assert (decoded.at, decoded.cattax, decoded.device.devicetype) == (501, 600, 42)
    assert (banner.pos, banner.api, banner.btype, banner.battr) == (99, [77], [9], [999])


def test_null_means_absent() -> None:
    """null in any field reads as if the field were not there, in an ext as well."""
    body = request(at=None, tmax=None, cur=None, site=None, app={}, regs={"gdpr": None, "ext": None}, ext=None)
    decoded = decode_request(body)
    assert (decoded.at, decoded.tmax, decoded.cur, decoded.site) == (None, None, None, None)
    assert decoded.gdpr is None
    assert not decoded.wants_nbr


def test_the_last_of_two_equal_keys_counts() -> None:
    """JSON leaves duplicate keys open; the last one counts, as in the parsers that read the forwarded body."""
    decoded = decode_request(b'{"id": "a", "id": "b", "imp": [{"id": "1", "banner": {}}]}')
    assert decoded.id == "b"


OLD = {
    "regs": {"ext": {"gdpr": 1, "us_privacy": "1YNN"}},
    "user": {"ext": {"consent": "CONSENT", "eids": [{"source": "id.example", "uids": [{"id": "u1", "atype": 1}]}]}},
    "source": {
        "ext": {"schain": {"complete": 1, "ver": "1.0", "nodes": [{"asi": "ssp.example", "sid": "7", "hp": 1}]}}
    },
}
NEW = {name: fields["ext"] for name, fields in OLD.items()}


@pytest.mark.parametrize("spelling", [OLD, NEW], ids=["2.5", "2.6"])
def test_old_spellings_read_like_new_ones(spelling: dict[str, Any]) -> None:
    """2.5 keeps gdpr, us_privacy, consent, eids and schain in ext; the properties read either."""
    decoded = decode_request(request(**spelling))
    assert (decoded.gdpr, decoded.us_privacy, decoded.consent) == (1, "1YNN", "CONSENT")
    assert [(eid.source, [uid.id for uid in eid.uids or ()]) for eid in decoded.eids] == [("id.example", ["u1"])]
    assert decoded.schain is not None
    assert [node.asi for node in decoded.schain.nodes or ()] == ["ssp.example"]


def test_the_new_spelling_goes_before_the_old() -> None:
    """Where both are there, the field of 2.6 counts: gdpr 0 is an answer, not an absence."""
    both = request(
        regs={"gdpr": 0, "us_privacy": "1---", "ext": {"gdpr": 1, "us_privacy": "1YYY"}},
        user={"consent": "new", "ext": {"consent": "old"}},
    )
    decoded = decode_request(both)
    assert (decoded.gdpr, decoded.us_privacy, decoded.consent) == (0, "1---", "new")


def test_without_either_spelling_nothing_is_known() -> None:
    """Absent objects and an absent ext read as unknown."""
    for body in (request(), request(regs={}, user={}, source={}), request(regs={"ext": {}}, user={"ext": {}})):
        decoded = decode_request(body)
        assert (decoded.gdpr, decoded.us_privacy, decoded.consent) == (None, None, None)
        assert (decoded.eids, decoded.schain) == ([], None)


def test_a_misfit_in_an_ext_hides_nothing_else() -> None:
    """An ext is free-form: a consent that is a number, a broken eid or gdpr as a text does not hide its neighbour."""
    decoded = decode_request(
        request(regs={"ext": {"gdpr": "1", "us_privacy": "1YNN"}}, user={"ext": {"consent": "C", "eids": "none"}})
    )
    assert (decoded.gdpr, decoded.us_privacy) == (None, "1YNN")
    assert (decoded.consent, decoded.eids) == ("C", [])
    assert decode_request(request(user={"ext": {"consent": 1}})).consent is None
    assert decode_request(request(user={"ext": "text"}, regs={"ext": [1]}, ext=7)).consent is None


@pytest.mark.parametrize(
    ("ext", "wants"),
    [
        ({"rtb": {"nbr": 1}}, True),
        ({"rtb": {"nbr": 0}}, False),
        ({"rtb": None}, False),
        ({"rtb": 1}, False),
        ({}, False),
    ],
)
def test_a_request_can_ask_for_nbr(ext: dict[str, Any], wants: bool) -> None:
    """ext.rtb.nbr = 1, and nothing else, asks for the reason of a no-bid."""
    assert decode_request(request(ext=ext)).wants_nbr is wants


def test_a_request_survives_encoding() -> None:
    """What was decoded and encoded again decodes to the same, ext and all."""
    once = decode_request(request(**NEW, at=1, tmax=120, ext={"rtb": {"nbr": 1}, "x": [1, {"y": None}]}))
    again = decode_request(encode(once))
    assert encode(again) == encode(once)
    assert again.wants_nbr
    assert again.gdpr == 1


def test_an_empty_request_encodes_to_nothing() -> None:
    """Defaults are left out."""
    assert encode(BidRequest()) == b"{}"


@pytest.mark.parametrize("body", [b"", b" \r\n", b"{}", b'{"id": "r", "seatbid": []}', b'{"id": "r", "nbr": 2}'])
def test_ways_not_to_bid(body: bytes) -> None:
    """7.1: an empty body, an empty object, no seatbid or an nbr are all no-bids."""
    assert not decode_response(body).seatbid


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"null", "the body: "),
        (b"[]", "the body: "),
        (b"<html>", "the response is not JSON"),
        (b'{"seatbid": [{"bid": [{"price": "1.0"}]}]}', "seatbid[0].bid[0].price: "),
        (b'{"seatbid": [{"bid": [{"price": 1e999}]}]}', "seatbid[0].bid[0].price: "),
        (b'{"seatbid": {}}', "seatbid: "),
        (b'{"ext": ' + b"[" * 100_000, "the response is not JSON"),
    ],
)
def test_a_bad_response_names_the_field(body: bytes, field: str) -> None:
    """A response that is none is refused in one line as well."""
    with pytest.raises(BadRequest) as refusal:
        decode_response(body)
    assert str(refusal.value).startswith(field)
    assert "\n" not in str(refusal.value)


def test_a_response_keeps_what_it_says() -> None:
    """The fields that the auction and the notices need arrive under the spec's names."""
    bid = {
        "id": "b",
        "impid": "1",
        "price": 1.25,
        "nurl": "n",
        "burl": "b",
        "lurl": "l",
        "adm": "a",
        "langb": "zh-Hant",
    }
    seat = {"seat": "s", "group": 1, "bid": [bid]}
    response = decode_response(json.dumps({"id": "r", "bidid": "x", "cur": "EUR", "seatbid": [seat]}).encode())
    assert response.seatbid is not None
    assert (response.bidid, response.cur, response.seatbid[0].seat, response.seatbid[0].group) == ("x", "EUR", "s", 1)
    assert json.loads(encode(response))["seatbid"] == [seat]


def test_the_lists_carry_the_numbers_of_openrtb_3() -> None:
    """Spot checks of the 3.0 no-bid and loss lists, and of our own from 500 on."""
    assert (openrtb.NoBid.KNOWN_CRAWLER, openrtb.NoBid.INSUFFICIENT_TIME, openrtb.NoBid.NO_ELIGIBLE_DEMAND) == (
        3,
        15,
        500,
    )
    assert (openrtb.Loss.INVALID_DEAL, openrtb.Loss.OUTBID, openrtb.Loss.LOST_TO_DEAL) == (4, 102, 103)
    assert (openrtb.Loss.SIZE, openrtb.Loss.ADVERTISER_BLOCKED, openrtb.Loss.AD_TYPE_BLOCKED) == (203, 205, 211)
    assert (openrtb.MarkupType.BANNER, openrtb.MarkupType.NATIVE) == (1, 4)
