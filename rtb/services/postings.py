"""A message with its destination, in memory and as a record on disk."""

from __future__ import annotations

import msgspec
import structlog
from msgspec import Struct

from rtb.errors import BrokerError
from rtb.ports import NO_HEADERS, Message
from rtb.ports.broker import Answer

_log = structlog.get_logger(__name__)


class Posting(Struct, eq=False, gc=False):
    """What is to be published where, and who wants to hear of it."""

    exchange: str
    routing_key: str
    message: Message
    done: Answer | None = None

    def resolve(self, error: BrokerError | None) -> None:
        """Tell whoever posted it, whose own failure stops nobody."""
        if self.done is None:
            return
        try:
            self.done(error)
        except Exception:
            _log.exception("posting_callback_failed", message_id=self.message.message_id)


class _Record(Struct, array_like=True):
    """A posting on disk."""

    exchange: str
    routing_key: str
    body: bytes
    message_id: str
    correlation_id: str
    reply_to: str
    timestamp: float | None
    headers: dict[str, str | int | float]


_decoder = msgspec.msgpack.Decoder(_Record)
_encoder = msgspec.msgpack.Encoder()


def encode(posting: Posting) -> bytes:
    """The record of a posting."""
    message = posting.message
    return _encoder.encode(
        _Record(
            posting.exchange,
            posting.routing_key,
            message.body,
            message.message_id,
            message.correlation_id,
            message.reply_to,
            message.timestamp,
            dict(message.headers),
        )
    )


def decode(record: bytes) -> Posting | None:
    """The posting in a record; None when it cannot be read, which is logged."""
    try:
        kept = _decoder.decode(record)
    except msgspec.MsgspecError as error:
        _log.error("spool_record_unreadable", reason=str(error), bytes=len(record))
        return None
    message = Message(
        body=kept.body,
        message_id=kept.message_id,
        correlation_id=kept.correlation_id,
        reply_to=kept.reply_to,
        timestamp=kept.timestamp,
        headers=kept.headers or NO_HEADERS,
    )
    return Posting(kept.exchange, kept.routing_key, message)
