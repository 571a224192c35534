"""Messages on queues: the JSON envelope around every one of them, and the house format's payloads.

    {"message_id", "message_type", "timestamp", "data", "correlation_id", "reply_to"}

Times are RFC 3339 with an offset, written in UTC. `data` is decoded once, by the consumer that knows its shape:
`decode` keeps its bytes, `Payload` turns them into a struct. Ids and times come from the caller.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Generic, TypeVar

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from rtb.errors import Malformed
from rtb.openrtb import MAX_PRICE_CPM

MAX_BODY = 256 * 1024
HOUSE_TIMEOUT_MS = 120
MAX_AMOUNT_NANOS = 9 * 10**15
MAX_MORE_WINS = 15
"""Wins of a message besides the first."""

_T = TypeVar("_T")
Id = Annotated[str, Meta(min_length=1, max_length=255)]
Time = Annotated[datetime, Meta(tz=True)]
Price = Annotated[float, Meta(ge=0, le=MAX_PRICE_CPM)]


class MessageType(StrEnum):
    """What `data` is."""

    BID_REQUEST = "bid_request"
    BID_RESPONSE = "bid_response"
    IMPRESSION = "impression"
    CLICK = "click"
    CONVERSION = "conversion"
    CAMPAIGN_UPDATE = "campaign_update"
    BUDGET_ALERT = "budget_alert"
    RULE_ALERT = "rule_alert"
    PERFORMANCE_UPDATE = "performance_update"
    AUCTION_RESULT = "auction_result"
    METRICS_FRAME = "metrics_frame"
    WIN = "win"
    LOSS = "loss"
    BIDDER_NOTICE = "bidder_notice"


class Envelope(Struct, frozen=True, gc=False):
    """A message as received; a field it does not know is ignored, ``null`` means absent."""

    message_id: Id
    message_type: MessageType
    timestamp: Time
    data: Raw
    correlation_id: str | None = None
    reply_to: str | None = None

    @property
    def time(self) -> float:
        """When it was made, in Unix seconds."""
        return self.timestamp.timestamp()


class _Outgoing(Struct, frozen=True, gc=False):
    message_id: str
    message_type: MessageType
    timestamp: datetime
    data: Any
    correlation_id: str | None
    reply_to: str | None


class Location(Struct, frozen=True, gc=False):
    """Degrees."""

    lat: Annotated[float, Meta(ge=-90, le=90)]
    lng: Annotated[float, Meta(ge=-180, le=180)]


class HouseRequest(Struct, frozen=True, gc=False):
    """A bid request in the house format: one banner place. `floor_price` is CPM, `user_context` any JSON object.

    `location` may be null where it is not known.
    """

    request_id: Id
    user_id: str
    device_type: str
    location: Location | None
    interests: list[str]
    floor_price: Price
    timeout_ms: Annotated[int, Meta(ge=0)] = HOUSE_TIMEOUT_MS
    ad_slot_id: str | None = None
    user_context: dict[str, Any] | None = None
    timestamp: Time | None = None


class HouseStatus(StrEnum):
    """How a house request ended; `timeout` when nothing arrived because of lateness."""

    SUCCESS = "success"
    NO_BID = "no_bid"
    TIMEOUT = "timeout"


class HouseResponse(Struct, frozen=True, gc=False):
    """The answer in the house format; without a winner everything after `status` is null. Prices are CPM."""

    request_id: str
    status: HouseStatus
    campaign_id: str | None = None
    ad_id: str | None = None
    bid_price: float | None = None
    clearing_price: float | None = None
    creative_url: str | None = None
    landing_page: str | None = None


class CampaignUpdate(Struct, frozen=True, gc=False, omit_defaults=True):
    """A change of the catalogue, for every daemon; rtb.domain.campaign_change reads what else stands in it.

    From outside: a whole campaign, bare or as `campaign`, or ``{"campaign_id": "c", "status": "paused"}`` with the
    fields that change. From a daemon, `persisted`: the repository has it already, it only needs to be applied, except
    by its `origin`, the instance that wrote it; without a `campaign` there are too many to name, and the repository
    tells them.
    """

    campaign: Raw = Raw()
    campaign_id: str = ""
    persisted: bool = False
    origin: str = ""


class Win(Struct, frozen=True, gc=False):
    """A house campaign won an imp, and its price was set aside.

    `day` is the budget day that pays ("" when the campaign has no budget), `price_nanos` the clearing price of the
    impression; the billing event is in time until `expires_at`. That and `received_at`, the time of the win, are Unix
    seconds. `user` is the digest that the win's tracking URLs carry. `more` are other wins of the same moment: a
    message for each would cost more than what they tell.
    """

    auction_id: Id
    impid: str
    campaign_id: Id
    day: Annotated[str, Meta(max_length=10)]
    price_nanos: Annotated[int, Meta(ge=0, le=MAX_AMOUNT_NANOS)]
    expires_at: Annotated[float, Meta(gt=0, lt=1e11)]
    instance: Id
    received_at: Annotated[float, Meta(gt=0, lt=1e11)]
    creative_id: Annotated[str, Meta(max_length=200)] = ""
    user: Annotated[str, Meta(max_length=64)] = ""
    more: Annotated[tuple[Win, ...], Meta(max_length=MAX_MORE_WINS)] | UnsetType = UNSET


class TrackedEvent(Struct, frozen=True, gc=False, omit_defaults=True):
    """An impression, click or conversion, as an edge took it at `received_at` (Unix seconds).

    `token` is the signed ticket of the win (rtb.domain.tracking), and all that is believed of what it cost and whom. A
    conversion that an advertiser's server tells may have none: then `campaign_id` and `user_id` say whom to attribute
    it to. `value` is what a conversion was worth to the advertiser, in units of `currency` ("" is the exchange's);
    `order_id` is the advertiser's. `source` is how it came: pixel, burl, redirect, postback. With `refused`, the edge's
    reason, it is only kept for the record.
    """

    received_at: Annotated[float, Meta(gt=0, lt=1e11)]
    token: Annotated[str, Meta(max_length=4_096)] = ""
    source: Annotated[str, Meta(max_length=16)] = "pixel"
    ua: Annotated[str, Meta(max_length=512)] = ""
    ip: Annotated[str, Meta(max_length=45)] = ""
    campaign_id: Annotated[str, Meta(max_length=200)] = ""
    user_id: Annotated[str, Meta(max_length=512)] = ""
    value: Annotated[float, Meta(ge=0, le=1e9)] = 0.0
    currency: Annotated[str, Meta(pattern="^([A-Z]{3})?$")] = ""
    order_id: Annotated[str, Meta(max_length=200)] = ""
    refused: Annotated[str, Meta(max_length=200)] = ""


class AlertKind(StrEnum):
    """What a budget alert tells: most of the budget is spent, or all of it and the campaign pauses."""

    ALERT = "alert"
    PAUSE = "pause"


class BudgetAlert(Struct, frozen=True, gc=False):
    """A campaign's spending came to `share` (0 to 1) of its daily budget, on `day` in its time zone.

    `spent` and `limit` are units of `currency`.
    """

    campaign_id: Id
    kind: AlertKind
    day: str
    share: Annotated[float, Meta(ge=0)]
    spent: Annotated[float, Meta(ge=0)]
    limit: Annotated[float, Meta(ge=0)]
    currency: str
    instance: str = ""


class PerformanceUpdate(Struct, frozen=True, gc=False):
    """What a campaign's ads did since the last update, on `day` in its time zone.

    `spend` and `revenue` (what its conversions were worth to the advertiser) are in units of the exchange currency.
    `sampled_bids` and `sampled_wins` are those of one auction in several (rtb.services.bid_sample).
    `more` are other campaigns' updates of the same moment: a message for each would cost more than what they tell.
    """

    campaign_id: Id
    impressions: Annotated[int, Meta(ge=0)] = 0
    clicks: Annotated[int, Meta(ge=0)] = 0
    conversions: Annotated[int, Meta(ge=0)] = 0
    spend: Annotated[float, Meta(ge=0)] = 0.0
    revenue: Annotated[float, Meta(ge=0)] = 0.0
    wins: Annotated[int, Meta(ge=0)] = 0
    day: Annotated[str, Meta(max_length=10)] = ""
    instance: Annotated[str, Meta(max_length=255)] = ""
    sampled_bids: Annotated[int, Meta(ge=0)] = 0
    sampled_wins: Annotated[int, Meta(ge=0)] = 0
    more: tuple[PerformanceUpdate, ...] | UnsetType = UNSET

    def each(self, message_id: str) -> Iterator[tuple[PerformanceUpdate, str]]:
        """All updates of the message, each with an id of its own."""
        yield self, message_id
        for number, other in enumerate(self.more or (), 1):
            yield other, f"{message_id}/{number}"


class BidderNotice(Struct, frozen=True, gc=False):
    """Our own nurl, burl or lurl of another bidder's win was called, at another instance than that which sold it.

    `kind` is win, billing or loss; `reason` is that of a loss [OpenRTB's loss reason codes], `ip` and `ua` are the
    device's at a billing.
    """

    kind: Annotated[str, Meta(pattern="^(win|billing|loss)$")]
    auction_id: Id
    impid: Annotated[str, Meta(max_length=1_000)] = ""
    reason: Annotated[int, Meta(ge=0)] = 0
    ip: Annotated[str, Meta(max_length=45)] = ""
    ua: Annotated[str, Meta(max_length=512)] = ""


class Payload(Generic[_T]):
    """A decoder of one kind of `data`: make it once, use it for every message."""

    def __init__(self, kind: type[_T]) -> None:
        """Prepare to decode `kind`, a msgspec struct."""
        self._decoder: msgspec.json.Decoder[_T] = msgspec.json.Decoder(kind)

    def decode(self, data: Raw | bytes) -> _T:
        """The struct in `data`.

        Raises:
            Malformed: one line that names the field, as in ``data.floor_price: expected `float` >= 0.0``.
        """
        try:
            return self._decoder.decode(data)
        except msgspec.ValidationError as error:
            raise Malformed(_field_first(error, "data")) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Malformed(f"data: not JSON: {_one_line(error)}") from None


HOUSE_REQUEST = Payload(HouseRequest)
HOUSE_RESPONSE = Payload(HouseResponse)
WIN = Payload(Win)
TRACKED_EVENT = Payload(TrackedEvent)
CAMPAIGN_UPDATE = Payload(CampaignUpdate)
BUDGET_ALERT = Payload(BudgetAlert)
PERFORMANCE_UPDATE = Payload(PerformanceUpdate)
BIDDER_NOTICE = Payload(BidderNotice)

_MISSING = re.compile(r"Object missing required field `(.+)`")
_decoder = msgspec.json.Decoder(Envelope)
_encoder = msgspec.json.Encoder()


def decode(body: bytes) -> Envelope:
    """The envelope of a message body, its `data` still JSON.

    Raises:
        Malformed: over MAX_BODY bytes, not JSON, an unknown type, or a field missing or wrong; one line, field first.
    """
    if len(body) > MAX_BODY:
        raise Malformed(f"body: {len(body)} bytes, at most {MAX_BODY} are accepted")
    try:
        return _decoder.decode(body)
    except msgspec.ValidationError as error:
        raise Malformed(_field_first(error, "")) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(f"body: not JSON: {_one_line(error)}") from None


def encode(
    message_type: MessageType,
    data: Any,
    *,
    message_id: str,
    timestamp: float,
    correlation_id: str | None = None,
    reply_to: str | None = None,
) -> bytes:
    """The JSON of an envelope around `data`: a struct or plain values, or a msgspec.Raw of ready JSON.

    `timestamp` is Unix seconds. All six keys are written, null where absent (an empty string is absent).
    """
    made = datetime.fromtimestamp(timestamp, UTC)
    return _encoder.encode(_Outgoing(message_id, message_type, made, data, correlation_id or None, reply_to or None))


def _field_first(error: msgspec.ValidationError, root: str) -> str:
    what, _, path = _one_line(error).partition(" - at `$")
    path = path.rstrip("`")
    if missing := _MISSING.match(what):
        path, what = f"{path}.{missing[1]}", "required"
    where = f"{root}{path}" if root else path.lstrip(".") or "body"
    return f"{where}: {what[:1].lower()}{what[1:]}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
