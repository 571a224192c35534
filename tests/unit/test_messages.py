"""rtb.messages: the envelope, the house format."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw, Struct

from rtb.errors import Malformed
from rtb.messages import (
    HOUSE_REQUEST,
    HOUSE_RESPONSE,
    MAX_BODY,
    HouseResponse,
    HouseStatus,
    Location,
    MessageType,
    Payload,
    decode,
    encode,
)

GOOD: dict[str, Any] = {
    "message_id": "m-1",
    "message_type": "click",
    "timestamp": "2026-01-01T00:00:00.250Z",
    "data": {"x": [1, 2]},
    "correlation_id": "c-1",
    "reply_to": "replies",
}
REQUEST: dict[str, Any] = {
    "request_id": "r-1",
    "user_id": "u-1",
    "device_type": "mobile",
    "location": {"lat": 37.5, "lng": 127},
    "interests": ["tea", "travel"],
    "floor_price": 0.5,
}


def body(**changes: Any) -> bytes:
    """The good envelope with changes; None takes a key away."""
    return json.dumps({key: value for key, value in {**GOOD, **changes}.items() if value is not None}).encode()


def house(**changes: Any) -> bytes:
    """The good house request with changes."""
    return json.dumps({**REQUEST, **changes}).encode()


def test_an_envelope_is_read() -> None:
    """All six fields, the data as the JSON it came as; the time is Unix seconds (2026-01-01 is day 20,454)."""
    envelope = decode(body())
    assert (envelope.message_id, envelope.message_type) == ("m-1", MessageType.CLICK)
    assert envelope.time == 20_454 * 86_400 + 0.25
    assert json.loads(bytes(envelope.data)) == {"x": [1, 2]}
    assert (envelope.correlation_id, envelope.reply_to) == ("c-1", "replies")


def test_optional_fields_may_be_absent_or_null() -> None:
    """correlation_id and reply_to are optional; what the envelope does not know is ignored."""
    absent = decode(body(correlation_id=None, reply_to=None, extra={"a": 1}))
    null = decode(
        b'{"message_id":"m","message_type":"win","timestamp":"2026-01-01T00:00:00Z","data":1,"reply_to":null}'
    )
    assert (absent.correlation_id, absent.reply_to, null.reply_to) == (None, None, None)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-01-01T00:00:00Z", 0.0),
        ("2026-01-01T00:00:00.5Z", 0.5),
        ("2026-01-01T09:00:01+09:00", 1.0),
        ("2026-01-01t00:00:02z", 2.0),
        ("2026-01-01T00:00:03.000001Z", 3.000001),
        ("2026-01-01T00:00:03.123456789Z", 3.123457),
    ],
)
def test_times_are_rfc_3339(text: str, seconds: float) -> None:
    """With or without a fraction, in any offset, either case (RFC 3339 5.6); finer than a microsecond is rounded."""
    assert decode(body(timestamp=text)).time == pytest.approx(20_454 * 86_400 + seconds, abs=5e-7)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"message_id": None}, "message_id: required"),
        ({"message_type": None}, "message_type: required"),
        ({"timestamp": None}, "timestamp: required"),
        ({"data": None}, "data: required"),
        ({"message_id": ""}, "message_id: "),
        ({"message_id": 7}, "message_id: "),
        ({"message_id": "x" * 256}, "message_id: "),
        ({"message_type": "bid"}, "message_type: invalid enum value 'bid'"),
        ({"timestamp": 1_767_225_600}, "timestamp: "),
        ({"timestamp": "2026-01-01T00:00:00"}, "timestamp: "),
        ({"timestamp": "yesterday"}, "timestamp: "),
        ({"reply_to": ["q"]}, "reply_to: "),
    ],
)
def test_a_wrong_envelope_is_malformed(changes: dict[str, Any], reason: str) -> None:
    """The reason is one line that begins with the field."""
    with pytest.raises(Malformed) as caught:
        decode(body(**changes))
    assert str(caught.value).startswith(reason)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [b"", b"null", b"[]", b"{", b"\xff\xfe", b'{"message_id": NaN}', b"[" * 100_000, b'{"data":' + b"[" * 60_000],
    ids=["empty", "null", "array", "cut", "not utf-8", "NaN", "deep", "deep data"],
)
def test_what_is_no_envelope_is_malformed(data: bytes) -> None:
    """Whatever the bytes, the error is Malformed and speaks of the body."""
    with pytest.raises(Malformed, match=r"^body: "):
        decode(data)


def test_a_body_over_the_limit_is_malformed() -> None:
    """256 KiB are accepted, one byte more is not."""
    room = MAX_BODY - len(body(data="")) + len('""') - 2
    assert len(decode(body(data="x" * room)).data) == room + 2
    with pytest.raises(Malformed, match="262145 bytes"):
        decode(body(data="x" * (room + 1)))


@given(st.binary(max_size=200))
def test_no_bytes_break_the_decoder(data: bytes) -> None:
    """Bytes are an envelope or Malformed, nothing else."""
    with contextlib.suppress(Malformed):
        decode(data)


def test_an_envelope_is_written_with_all_its_keys() -> None:
    """Absent is null, the time is UTC with Z."""
    made = encode(MessageType.WIN, {"a": 1}, message_id="m", timestamp=20_454 * 86_400 + 0.25, reply_to="")
    assert json.loads(made) == {
        "message_id": "m",
        "message_type": "win",
        "timestamp": "2026-01-01T00:00:00.250000Z",
        "data": {"a": 1},
        "correlation_id": None,
        "reply_to": None,
    }


def test_ready_json_is_embedded_as_it_is() -> None:
    """A Raw is not decoded on its way out."""
    made = encode(MessageType.WIN, Raw(b'{"a": 1.50}'), message_id="m", timestamp=0.0)
    assert b'"data":{"a": 1.50}' in made


@given(
    kind=st.sampled_from(MessageType),
    data=st.recursive(
        st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=10,
    ),
    message_id=st.text(min_size=1, max_size=255),
    correlation_id=st.text(min_size=1) | st.none(),
    timestamp=st.floats(0, 4e9),
)
def test_what_is_encoded_decodes(
    kind: MessageType, data: Any, message_id: str, correlation_id: str | None, timestamp: float
) -> None:
    """Encoding and decoding are inverse, times to the microsecond."""
    made = encode(kind, data, message_id=message_id, timestamp=timestamp, correlation_id=correlation_id)
    envelope = decode(made)
    assert (envelope.message_type, envelope.message_id, envelope.correlation_id) == (kind, message_id, correlation_id)
    assert envelope.time == pytest.approx(timestamp, abs=1e-6)
    assert json.loads(bytes(envelope.data)) == data


def test_a_house_request_is_read() -> None:
    """The required fields, and the defaults of the others."""
    request = HOUSE_REQUEST.decode(house())
    assert (request.request_id, request.user_id, request.device_type) == ("r-1", "u-1", "mobile")
    assert (request.location, request.interests, request.floor_price) == (Location(37.5, 127.0), ["tea", "travel"], 0.5)
    assert (request.timeout_ms, request.ad_slot_id, request.user_context, request.timestamp) == (120, None, None, None)


def test_a_house_request_may_say_more() -> None:
    """The optional fields; an unknown location is null."""
    request = HOUSE_REQUEST.decode(
        house(
            location=None,
            timeout_ms=80,
            ad_slot_id="top",
            user_context={"tier": ["gold"]},
            timestamp="2026-01-01T00:00:00Z",
        )
    )
    assert (request.location, request.timeout_ms, request.ad_slot_id) == (None, 80, "top")
    assert request.user_context == {"tier": ["gold"]}
    assert request.timestamp is not None
    assert request.timestamp.timestamp() == 20_454 * 86_400


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"request_id": ""}, "data.request_id"),
        ({"user_id": None}, "data.user_id"),
        ({"location": {"lat": 90.1, "lng": 0}}, "data.location.lat"),
        ({"location": {"lat": 0, "lng": -181}}, "data.location.lng"),
        ({"location": {"lat": 0}}, "data.location.lng"),
        ({"interests": "tea"}, "data.interests"),
        ({"interests": ["tea", 1]}, "data.interests[1]"),
        ({"floor_price": -0.01}, "data.floor_price"),
        ({"floor_price": 1_000_001}, "data.floor_price"),
        ({"timeout_ms": -1}, "data.timeout_ms"),
        ({"timeout_ms": 99.5}, "data.timeout_ms"),
        ({"user_context": []}, "data.user_context"),
        ({"timestamp": "2026-01-01"}, "data.timestamp"),
    ],
)
def test_a_wrong_house_request_is_malformed(changes: dict[str, Any], field: str) -> None:
    """The reason names the field under data."""
    with pytest.raises(Malformed) as caught:
        HOUSE_REQUEST.decode(house(**changes))
    assert str(caught.value).startswith(f"{field}: ")


@pytest.mark.parametrize("field", sorted(REQUEST))
def test_a_house_request_needs_its_fields(field: str) -> None:
    """Whatever has no default is required."""
    with pytest.raises(Malformed, match=rf"^data\.{field}: required$"):
        HOUSE_REQUEST.decode(json.dumps({key: value for key, value in REQUEST.items() if key != field}).encode())


@pytest.mark.parametrize("data", [b"", b"null", b"[1]", b"{", b"\xff", b"[" * 60_000])
def test_what_is_no_payload_is_malformed(data: bytes) -> None:
    """Whatever the bytes, the error is Malformed and speaks of data."""
    with pytest.raises(Malformed, match=r"^data: "):
        HOUSE_REQUEST.decode(data)


def test_a_house_response_has_every_key() -> None:
    """Without a winner everything after the status is null."""
    made = encode(MessageType.BID_RESPONSE, HouseResponse("r-1", HouseStatus.NO_BID), message_id="m", timestamp=0.0)
    assert json.loads(made)["data"] == {
        "request_id": "r-1",
        "status": "no_bid",
        "campaign_id": None,
        "ad_id": None,
        "bid_price": None,
        "clearing_price": None,
        "creative_url": None,
        "landing_page": None,
    }
    assert HOUSE_RESPONSE.decode(decode(made).data) == HouseResponse("r-1", HouseStatus.NO_BID)


def test_any_struct_can_be_a_payload() -> None:
    """A consumer brings its own shape."""

    class Click(Struct):
        ad_id: str

    assert Payload(Click).decode(decode(body(data={"ad_id": "a"})).data) == Click("a")
    with pytest.raises(Malformed, match=r"^data\.ad_id: required$"):
        Payload(Click).decode(decode(body()).data)
