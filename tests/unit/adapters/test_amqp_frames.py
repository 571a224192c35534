"""rtb.adapters.amqp_frames against pamqp, which knows the whole protocol."""

from __future__ import annotations

from datetime import UTC, datetime

import pamqp.frame
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from rtb.adapters import amqp_frames
from rtb.errors import BrokerError
from rtb.ports import DEATH_COUNT, Message

SHORT = st.text(max_size=60)
NAMES = st.text("abyzAZ019-_.:", max_size=60)
CHANNELS = st.integers(1, 65_535)
TAGS = st.integers(1, 2**63 - 1)
VALUES = st.one_of(st.text(max_size=50), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), st.booleans())
MESSAGES = st.builds(
    Message,
    body=st.binary(max_size=300),
    message_id=SHORT,
    correlation_id=SHORT,
    reply_to=SHORT,
    timestamp=st.none() | st.integers(0, 2**32 - 1).map(float),
    expiration_ms=st.none() | st.integers(0, 2**40),
    persistent=st.booleans(),
    headers=st.dictionaries(st.text(min_size=1, max_size=20).filter(lambda name: not name.startswith("x-")), VALUES),
)


def unmarshal(data: bytes) -> list[tuple[int, object]]:
    """Channel and frame of each frame in the bytes."""
    frames = []
    while data:
        used, channel, frame = pamqp.frame.unmarshal(data)
        frames.append((channel, frame))
        data = data[used:]
    return frames


@given(CHANNELS, NAMES, SHORT, st.booleans())
def test_publish(channel: int, exchange: str, key: str, mandatory: bool) -> None:
    """The very bytes that pamqp makes."""
    frame = Basic.Publish(exchange=exchange, routing_key=key, mandatory=mandatory)
    assert amqp_frames.publish(channel, exchange, key, mandatory=mandatory) == pamqp.frame.marshal(frame, channel)


@given(CHANNELS, TAGS, st.booleans())
def test_settling(channel: int, tag: int, flag: bool) -> None:
    """ack, with multiple or without, and nack, with requeue or without, are pamqp's."""
    ack = Basic.Ack(delivery_tag=tag, multiple=flag)
    nack = Basic.Nack(delivery_tag=tag, multiple=False, requeue=flag)
    assert amqp_frames.ack(channel, tag, multiple=flag) == pamqp.frame.marshal(ack, channel)
    assert amqp_frames.nack(channel, tag, requeue=flag) == pamqp.frame.marshal(nack, channel)


def test_get() -> None:
    """basic.get, to be acknowledged."""
    frame = pamqp.frame.marshal(Basic.Get(queue="ad.dead", no_ack=False), 7)
    assert amqp_frames.get(7, "ad.dead") == frame


@given(CHANNELS, MESSAGES)
@example(1, Message(body=b""))
def test_content_is_what_pamqp_reads(channel: int, message: Message) -> None:
    """Every property arrives; an empty one is left out."""
    frames = unmarshal(amqp_frames.content(channel, message, 131_072))
    assert {number for number, _ in frames} == {channel}
    header = frames[0][1]
    assert isinstance(header, ContentHeader)
    assert header.body_size == len(message.body)
    got = header.properties
    assert (got.content_type, got.delivery_mode) == ("application/json", 2 if message.persistent else 1)
    assert (got.message_id or "", got.correlation_id or "") == (message.message_id, message.correlation_id)
    assert (got.reply_to or "") == message.reply_to
    assert got.expiration == (None if message.expiration_ms is None else str(message.expiration_ms))
    assert got.timestamp == (None if message.timestamp is None else datetime.fromtimestamp(message.timestamp, UTC))
    assert (got.headers or {}) == dict(message.headers)
    bodies = [frame.value for _, frame in frames[1:] if isinstance(frame, ContentBody)]
    assert b"".join(bodies) == message.body


@given(MESSAGES)
def test_a_message_reads_what_it_wrote(message: Message) -> None:
    """Decoding the properties of an encoded message gives the message."""
    header = amqp_frames.content(1, message, 131_072)
    size = int.from_bytes(header[3:7], "big")
    got, count = amqp_frames.message_of(header[7 + 12 : 7 + size], message.body)
    assert (got, count) == (message, 0)
    assert dict(got.headers) == dict(message.headers)


@pytest.mark.parametrize("size", [0, 1, 91, 92, 93, 184, 185, 1_000])
def test_a_long_body_is_cut(size: int) -> None:
    """No frame is longer than agreed; 92 bytes of payload fit into one of 100."""
    body = bytes(n % 251 for n in range(size))
    frames = unmarshal(amqp_frames.content(1, Message(body=body), 100))[1:]
    values = [frame.value for _, frame in frames if isinstance(frame, ContentBody)]
    assert b"".join(values) == body
    assert len(values) == -(-size // 92)
    assert all(len(value) <= 92 for value in values)


def test_foreign_properties_are_skipped() -> None:
    """What this system does not use (encoding, priority, type, user, app) is stepped over."""
    properties = Basic.Properties(
        content_type="text/plain",
        content_encoding="gzip",
        priority=3,
        message_id="m",
        message_type="t",
        app_id="a",
        timestamp=datetime(2026, 1, 1, tzinfo=UTC),
        expiration="soon",
    )
    data = pamqp.frame.marshal(ContentHeader(body_size=1, properties=properties), 1)
    got, _ = amqp_frames.message_of(data[7 + 12 : -1], b"1")
    assert got == Message(body=b"1", message_id="m", timestamp=1_767_225_600.0, persistent=False)


def test_deaths_are_summed_up() -> None:
    """Of x-death the counts are kept, with what a header carried on from before; x-delivery-count is told apart."""
    headers = {
        "x-death": [{"count": 2, "reason": "expired", "queue": "a"}, {"count": 1, "reason": "rejected", "queue": "b"}],
        DEATH_COUNT: 4,
        "x-delivery-count": 5,
        "x-first-death-reason": "expired",
        "nested": {"a": 1},
    }
    data = pamqp.frame.marshal(ContentHeader(body_size=0, properties=Basic.Properties(headers=headers)), 1)
    got, count = amqp_frames.message_of(data[7 + 12 : -1], b"")
    assert dict(got.headers) == {DEATH_COUNT: 7, "x-first-death-reason": "expired"}
    assert count == 5


@pytest.mark.parametrize(
    ("message", "name"),
    [
        (Message(body=b"", message_id="x" * 256), "message_id of 256 bytes"),
        (Message(body=b"", correlation_id="é" * 128), "correlation_id of 256 bytes"),
        (Message(body=b"", headers={"big": 2**63}), "header big"),
    ],
)
def test_what_amqp_has_no_room_for_is_named(message: Message, name: str) -> None:
    """A property over 255 bytes or a number over 64 bits is an error before anything is sent."""
    with pytest.raises(BrokerError, match=name):
        amqp_frames.content(1, message, 131_072)
    with pytest.raises(BrokerError, match="routing key of 300 bytes"):
        amqp_frames.publish(1, "", "k" * 300, mandatory=True)
