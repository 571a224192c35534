"""Whatever bytes arrive, a valid request comes out or one short line that refuses it; never another exception."""

from __future__ import annotations

import json
import random
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from rtb.domain import auction, money
from rtb.domain.intake import take_in
from rtb.domain.terms import terms_of
from rtb.errors import BadRequest
from rtb.openrtb import BidRequest, decode_request, decode_response, encode, validate

REQUEST: dict[str, Any] = {
    "id": "r",
    "at": 2,
    "tmax": 120,
    "cur": ["USD"],
    "imp": [
        {
            "id": "1",
            "banner": {"format": [{"w": 300, "h": 250}], "battr": [1], "api": [5]},
            "bidfloor": 0.85,
            "bidfloorcur": "USD",
            "secure": 1,
            "pmp": {"private_auction": 0, "deals": [{"id": "d", "bidfloor": 1.5, "at": 1, "wseat": ["s"]}]},
            "qty": {"multiplier": 14.2},
            "metric": [{"type": "viewability", "value": 0.85}],
        },
        {
            "id": "2",
            "video": {"mimes": ["video/mp4"], "maxduration": 30, "mincpmpersec": 0.1, "w": 640, "h": 360},
            "audio": {"mimes": ["audio/mp4"], "durfloors": [{"mindur": 1, "maxdur": 15, "bidfloor": 5}]},
            "native": {"request": "{}", "ver": "1.2"},
        },
    ],
    "site": {"domain": "news.example", "cat": ["IAB1"], "content": {"language": "en"}, "publisher": {"id": "p"}},
    "device": {"ua": "UA", "ip": "192.0.2.1", "geo": {"lat": 37.5, "lon": 127.0}, "devicetype": 4, "w": 390, "h": 844},
    "user": {"id": "u", "data": [{"segment": [{"id": "s1"}]}], "ext": {"consent": "C", "eids": []}},
    "regs": {"coppa": 0, "gdpr": 1, "ext": {"us_privacy": "1YNN"}},
    "source": {"fd": 1, "ext": {"schain": {"complete": 1, "nodes": [{"asi": "a", "sid": "1"}]}}},
    "bcat": ["IAB26"],
    "badv": ["bad.example"],
    "ext": {"rtb": {"nbr": 1}},
}
RESPONSE: dict[str, Any] = {
    "id": "r",
    "cur": "USD",
    "seatbid": [
        {
            "seat": "s",
            "group": 0,
            "bid": [
                {"id": "b", "impid": "1", "price": 2.5, "adm": "<p>", "adomain": ["a.example"], "w": 300, "h": 250},
                {"id": "c", "impid": "2", "price": 9, "adm": "<VAST/>", "dur": 15, "mtype": 2, "cat": ["IAB1"]},
                {
                    "id": "d",
                    "impid": "1",
                    "price": 3,
                    "adid": "x",
                    "dealid": "d",
                    "adomain": ["b.example"],
                    "attr": [2],
                },
            ],
        }
    ],
}
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**31, 2**53, 2**63, 2**64, -(2**63), 10**30, -1, 0])
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["\ud800", "\udfff\ud800", "\x00", "\r\nx: y", "${TMAX}", "USD", "1"])
)
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner)
)


def outcome_of(body: bytes) -> BidRequest | None:
    """The request, None when it was refused as it should be; any other exception fails the test."""
    try:
        request = decode_request(body)
    except BadRequest as refusal:
        said = str(refusal)
    else:
        said = ""
    if said:
        assert_one_short_line(said)
        return None
    validate(request)
    _ = (request.gdpr, request.us_privacy, request.consent, request.eids, request.schain, request.wants_nbr)
    assert decode_request(encode(request)).id == request.id
    return request


def assert_one_short_line(said: str) -> None:
    """As it goes into a header and a log."""
    assert said.splitlines() == [said]
    assert len(said) < 600


def mutated(tree: Any, choose: random.Random, value: Any) -> Any:
    """The tree with the value in place of one of its nodes, or with a node left out or put twice."""
    if not isinstance(tree, dict | list) or not tree or choose.random() < 0.15:
        return value
    if isinstance(tree, dict):
        key = choose.choice(list(tree))
        if choose.random() < 0.1:
            return {name: child for name, child in tree.items() if name != key}
        return {**tree, key: mutated(tree[key], choose, value)}
    at = choose.randrange(len(tree))
    if choose.random() < 0.1:
        return [*tree, tree[at]]
    return [mutated(child, choose, value) if i == at else child for i, child in enumerate(tree)]


@given(st.binary(max_size=300))
@settings(deadline=None)
@example(b"\xff\xfe{\x00}\x00")
@example(b'{"id": "r", "imp": [{"id": "1", "banner": {}}]}\x00')
def test_random_bytes(body: bytes) -> None:
    """Bytes that are no JSON are refused."""
    outcome_of(body)


@given(anything)
@settings(deadline=None)
def test_random_json(value: Any) -> None:
    """JSON that is no request is refused; NaN and Infinity are no JSON."""
    outcome_of(json.dumps(value).encode("utf-8", "surrogatepass"))


@given(anything, st.randoms(use_true_random=False))
@settings(max_examples=500, deadline=None)
def test_mutated_requests(value: Any, choose: random.Random) -> None:
    """A request with one wrong node is refused, or decodes and can be auctioned."""
    request = outcome_of(json.dumps(mutated(REQUEST, choose, value)).encode("utf-8", "surrogatepass"))
    if request is None:
        return
    for imp in request.imp or ():
        try:
            terms = terms_of(request, imp, money.Rates())
        except KeyError:  # a floor in an unknown currency, as documented
            continue
        assert terms.floor_micros >= 0


@given(anything, st.randoms(use_true_random=False), st.sampled_from(["utf-8", "utf-16", "latin-1"]))
@settings(deadline=None)
def test_mutated_encodings(value: Any, choose: random.Random, encoding: str) -> None:
    """Text that is not UTF-8, lone surrogates among it, is refused or harmless."""
    text = json.dumps(mutated(REQUEST, choose, value), ensure_ascii=False)
    outcome_of(text.encode(encoding, "surrogatepass" if encoding.startswith("utf") else "replace"))


@given(st.data())
@settings(deadline=None)
def test_cut_and_spliced_bodies(data: st.DataObject) -> None:
    """A body cut short, or with bytes of another in the middle, is refused or decodes."""
    body = json.dumps(REQUEST).encode()
    start = data.draw(st.integers(0, len(body)))
    end = data.draw(st.integers(start, len(body)))
    outcome_of(body[:start] + data.draw(st.binary(max_size=12)) + body[end:])


@given(st.sampled_from(["[", '{"a":', '[{"a":', '{"imp":[', "[[],"]), st.integers(1, 20_000), st.booleans())
@settings(deadline=None)
def test_deep_nesting(piece: str, times: int, in_ext: bool) -> None:
    """Deep JSON ends as a refusal, closed or not, at the top or in a field that is skipped."""
    closing = piece.translate({ord("["): "]", ord("{"): "}", ord(","): "", ord('"'): "", ord(":"): ""})
    closing = "".join(char for char in reversed(closing) if char in "]}") if piece != "[[]," else "]"
    deep = piece * times + "0" + closing * times
    for body in (deep, piece * times):
        outcome_of(
            (f'{{"id": "r", "imp": [{{"id": "1", "banner": {{}}}}], "ext": {body}}}' if in_ext else body).encode()
        )


@given(st.lists(st.tuples(st.sampled_from(sorted(REQUEST)), anything), max_size=6))
@settings(deadline=None)
def test_duplicate_keys(pairs: list[tuple[str, Any]]) -> None:
    """Keys that come twice are refused or decode; the last one counts."""
    fields = [*((key, json.dumps(value)) for key, value in pairs), ("id", '"last"')]
    tail = '"imp": [{"id": "1", "banner": {}}]'
    body = "{" + ", ".join(f'"{key}": {value}' for key, value in fields) + f", {tail}}}"
    request = outcome_of(body.encode("utf-8", "surrogatepass"))
    assert request is None or request.id == "last"


@given(anything, st.randoms(use_true_random=False))
@settings(max_examples=500, deadline=None)
def test_mutated_responses(value: Any, choose: random.Random) -> None:
    """A bidder's response with one wrong node is refused in one line, or is taken in and auctioned."""
    body = json.dumps(mutated(RESPONSE, choose, value)).encode("utf-8", "surrogatepass")
    said = ""
    try:
        response = decode_response(body)
    except BadRequest as refusal:
        said = str(refusal)
    if said:
        assert_one_short_line(said)
        return
    request = decode_request(json.dumps(REQUEST).encode())
    rates = money.Rates()
    bids, rejected = take_in(response, request, "dsp", rates)
    sent = sum(len(seat.bid or ()) for seat in response.seatbid or ())
    assert len(bids) + len(rejected) == sent
    by_imp: dict[str, list[auction.Bid]] = {}
    for bid in bids:
        assert bid.price_micros > 0
        by_imp.setdefault(bid.impid, []).append(bid)
    terms = [terms_of(request, imp, rates) for imp in request.imp or ()]
    for result in auction.clear_all(by_imp, terms, auction.tie_break(b"k", "a")):
        assert result.winner is None or 0 <= result.price_micros <= result.winner.price_micros
