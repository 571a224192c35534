"""AMQP 0-9-1 frames of the hot path, as bytes: publishing, acknowledging, and the properties of what is delivered.

A queue path of thousands of messages a second is spent on these few frames, so they are packed and read here without an
object for each. Everything rare (handshake, channels, declaring, consuming) is aiormq's. tests/unit compare every frame
with pamqp's.

Source: AMQP 0-9-1 specification, 2.3.5 (frames), 4.2 (formal grammar); RabbitMQ, "AMQP 0-9-1 Errata" (field types).
"""

from __future__ import annotations

from collections.abc import Mapping
from struct import Struct as Layout
from typing import Any

from pamqp import decode as pamqp_decode

from rtb.errors import BrokerError
from rtb.ports import DEATH_COUNT, NO_HEADERS, Message

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
"""Frame types."""

FRAME_END = 0xCE
OVERHEAD = 8
"""Bytes of a frame around its payload: type, channel, size, and the end octet."""

HEARTBEAT_FRAME = b"\x08\x00\x00\x00\x00\x00\x00\xce"
CONTENT_TYPE = b"application/json"
MAX_SHORT = 255

FRAME_HEAD = Layout(">BHI")
METHOD_ID = Layout(">HH")
TAG_AND_BITS = Layout(">QB")
_SETTLE = Layout(">BHIHHQBB")
_HEADER = Layout(">BHIHHQH")
_U32 = Layout(">I")
_U64 = Layout(">Q")
_I64 = Layout(">q")
_F64 = Layout(">d")
_LENGTHS = [bytes((length,)) for length in range(MAX_SHORT + 1)]

# Property flags of class basic, in the order in which the properties follow (4.2.6.1).
_CONTENT_TYPE, _CONTENT_ENCODING, _HEADERS, _DELIVERY_MODE, _PRIORITY = 1 << 15, 1 << 14, 1 << 13, 1 << 12, 1 << 11
_CORRELATION_ID, _REPLY_TO, _EXPIRATION, _MESSAGE_ID, _TIMESTAMP = 1 << 10, 1 << 9, 1 << 8, 1 << 7, 1 << 6

DELIVERY_COUNT = "x-delivery-count"
_DEATHS = "x-death"


def publish(channel: int, exchange: str, routing_key: str, *, mandatory: bool) -> bytes:
    """The basic.publish frame; the content follows it.

    Raises:
        BrokerError: a name over 255 bytes.
    """
    name, key = _short(exchange, "exchange"), _short(routing_key, "routing key")
    payload = b"\x00\x3c\x00\x28\x00\x00" + name + key + (b"\x01" if mandatory else b"\x00")
    return FRAME_HEAD.pack(METHOD, channel, len(payload)) + payload + b"\xce"


def content(channel: int, message: Message, frame_max: int) -> bytes:
    """The header and body frames of a message.

    Raises:
        BrokerError: a property over 255 bytes, or a header that has no place in a field table.
    """
    properties, flags = _properties(message)
    body = message.body
    size = len(body)
    head = _HEADER.pack(HEADER, channel, 14 + len(properties), 60, 0, size, flags) + properties
    if size <= frame_max - OVERHEAD:
        return head + b"\xce" + FRAME_HEAD.pack(BODY, channel, size) + body + b"\xce" if size else head + b"\xce"
    step = frame_max - OVERHEAD
    parts = [head, b"\xce"]
    for at in range(0, size, step):
        part = body[at : at + step]
        parts += (FRAME_HEAD.pack(BODY, channel, len(part)), part, b"\xce")
    return b"".join(parts)


def ack(channel: int, tag: int, *, multiple: bool) -> bytes:
    """The basic.ack frame of a delivery, or of all up to it."""
    return _SETTLE.pack(METHOD, channel, 13, 60, 80, tag, multiple, FRAME_END)


def nack(channel: int, tag: int, *, requeue: bool) -> bytes:
    """The basic.nack frame of one delivery."""
    return _SETTLE.pack(METHOD, channel, 13, 60, 120, tag, 2 if requeue else 0, FRAME_END)


def get(channel: int, queue: str) -> bytes:
    """The basic.get frame, to be acknowledged."""
    payload = b"\x00\x3c\x00\x46\x00\x00" + _short(queue, "queue") + b"\x00"
    return FRAME_HEAD.pack(METHOD, channel, len(payload)) + payload + b"\xce"


def short(data: bytes, at: int) -> tuple[str, int]:
    """The short string at an offset, and where it ends."""
    end = at + 1 + data[at]
    return data[at + 1 : end].decode("utf-8", "replace"), end


def message_of(properties: bytes, body: bytes) -> tuple[Message, int]:
    """A message from its property flags and list, and how often a quorum queue delivered it before.

    Of the headers, plain strings and numbers are kept; the counts of ``x-death`` are summed up as DEATH_COUNT.
    """
    flags = properties[0] << 8 | properties[1]
    at = 2
    headers: Mapping[str, Any] = NO_HEADERS
    deliveries = 0
    texts = ["", "", "", ""]
    timestamp, persistent = None, False
    if flags & _CONTENT_TYPE:
        at += 1 + properties[at]
    if flags & _CONTENT_ENCODING:
        at += 1 + properties[at]
    if flags & _HEADERS:
        length, table = pamqp_decode.field_table(properties[at:])
        headers, deliveries = _plain(table)
        at += length
    if flags & _DELIVERY_MODE:
        persistent = properties[at] == 2
        at += 1
    if flags & _PRIORITY:
        at += 1
    for i, flag in enumerate((_CORRELATION_ID, _REPLY_TO, _EXPIRATION, _MESSAGE_ID)):
        if flags & flag:
            texts[i], at = short(properties, at)
    if flags & _TIMESTAMP:
        timestamp = float(_U64.unpack_from(properties, at)[0])
    correlation_id, reply_to, expiration, message_id = texts
    message = Message(
        body=body,
        message_id=message_id,
        correlation_id=correlation_id,
        reply_to=reply_to,
        timestamp=timestamp,
        expiration_ms=int(expiration) if expiration.isdecimal() else None,
        persistent=persistent,
        headers=headers,
    )
    return message, deliveries


def _properties(message: Message) -> tuple[bytes, int]:
    flags = _CONTENT_TYPE | _DELIVERY_MODE
    parts = [b"\x10", CONTENT_TYPE]
    if message.headers:
        flags |= _HEADERS
        parts.append(_table(message.headers))
    parts.append(b"\x02" if message.persistent else b"\x01")
    if message.correlation_id:
        flags |= _CORRELATION_ID
        parts.append(_short(message.correlation_id, "correlation_id"))
    if message.reply_to:
        flags |= _REPLY_TO
        parts.append(_short(message.reply_to, "reply_to"))
    if message.expiration_ms is not None:
        flags |= _EXPIRATION
        parts.append(_short(str(max(0, message.expiration_ms)), "expiration"))
    if message.message_id:
        flags |= _MESSAGE_ID
        parts.append(_short(message.message_id, "message_id"))
    if message.timestamp is not None:
        flags |= _TIMESTAMP
        parts.append(_U64.pack(int(message.timestamp)))
    return b"".join(parts), flags


def _short(text: str, name: str) -> bytes:
    data = text.encode(errors="replace")
    if len(data) > MAX_SHORT:
        raise BrokerError(f"{name} of {len(data)} bytes, AMQP has room for {MAX_SHORT}: {text[:40]!r}...")
    return _LENGTHS[len(data)] + data


def _table(headers: Mapping[str, str | int | float]) -> bytes:
    parts = [b""]
    for name, value in headers.items():
        parts.append(_short(name, "header name"))
        if isinstance(value, bool):
            parts.append(b"t\x01" if value else b"t\x00")
        elif isinstance(value, int):
            if not -(1 << 63) <= value < 1 << 63:
                raise BrokerError(f"header {name}: {value} does not fit into 64 bits")
            parts.append(b"l" + _I64.pack(value))
        elif isinstance(value, float):
            parts.append(b"d" + _F64.pack(value))
        else:
            data = value.encode(errors="replace")
            parts.append(b"S" + _U32.pack(len(data)) + data)
    parts[0] = _U32.pack(sum(map(len, parts)))
    return b"".join(parts)


def _plain(table: Mapping[str, Any]) -> tuple[dict[str, str | int | float], int]:
    """The strings and numbers of a header table with the deaths summed up, and the delivery count."""
    headers = {name: value for name, value in table.items() if isinstance(value, str | int | float)}
    deliveries = int(headers.pop(DELIVERY_COUNT, 0))
    deaths = table.get(_DEATHS)
    if isinstance(deaths, list):
        counts = sum(int(death.get("count", 1)) for death in deaths if isinstance(death, dict))
        headers[DEATH_COUNT] = int(headers.get(DEATH_COUNT, 0)) + counts
    return headers, deliveries
