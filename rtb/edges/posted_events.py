"""POST /events: impressions, clicks and conversions that a server tells, one or up to 1,000 at once.

    {"type": "conversion", "token": "...", "value": 19.9, "currency": "EUR", "order_id": "7"}

or a list of those. `user_agent` and `ip` are the device's. A conversion without a token needs `campaign_id`, `user_id`
and `order_id`, and the header ``Authorization: Bearer SECRET``. The answer has a verdict on each, in order:
``{"status": "accepted"}`` or ``{"status": "refused", "reason": "..."}``.
"""

from __future__ import annotations

import hmac
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from rtb.edges.http_responses import error, response
from rtb.edges.patience import Waiting
from rtb.errors import BrokerError
from rtb.services.tracker import MAX_ID, MAX_UA, MAX_VALUE, Refused, Tracker, Visit

EVENTS = b"/events"
MAX_BATCH = 1_000


class PostedEvent(Struct, frozen=True, gc=False):
    """One event, as it is posted."""

    type: Annotated[str, Meta(pattern="^(impression|click|conversion)$")]
    token: str = ""
    campaign_id: Annotated[str, Meta(max_length=MAX_ID)] = ""
    user_id: Annotated[str, Meta(max_length=MAX_UA)] = ""
    value: Annotated[float, Meta(ge=0, le=MAX_VALUE)] = 0.0
    currency: Annotated[str, Meta(pattern="^([A-Z]{3})?$")] = ""
    order_id: Annotated[str, Meta(max_length=MAX_ID)] = ""
    user_agent: str = ""
    ip: str = ""


_decoder = msgspec.json.Decoder(list[msgspec.Raw])
_one = msgspec.json.Decoder(PostedEvent)
_many = msgspec.json.Decoder(list[PostedEvent])
_ACCEPTED = {"status": "accepted"}
_CHOICES = {"type": "choose one of impression, click, conversion", "currency": "write three capital letters, as in EUR"}
"""What fields say that have a pattern."""


class _Batch:
    """Counts the events that are not safe yet, and answers after the last one."""

    __slots__ = ("_failed", "_left", "_waiting")

    def __init__(self, waiting: Waiting, left: int) -> None:
        self._waiting = waiting
        self._left = left
        self._failed: BrokerError | None = None

    def __call__(self, error: BrokerError | None) -> None:
        """One more is safe, or was decided; or it failed, and with it the batch."""
        self._failed = error or self._failed
        self._left -= 1
        if not self._left:
            self._waiting(self._failed)


class PostedEvents:
    """Takes batches."""

    def __init__(self, tracker: Tracker, secret: str) -> None:
        """`tracker` decides; `secret` is the bearer token of those who may tell conversions without a token."""
        self._tracker = tracker
        self._bearer = b"Bearer " + secret.encode() if secret else b""

    def take(self, body: bytes, authorization: bytes, received_at: float, waiting: Waiting) -> bytes | None:
        """Decide on each; None when `waiting` answers once all that was accepted is safe, else the error response."""
        events = _decoded(body)
        if isinstance(events, str):
            return error(b"400 Bad Request", events)
        is_known = bool(self._bearer) and hmac.compare_digest(authorization, self._bearer)
        batch = _Batch(waiting, len(events) + 1)
        verdicts: list[dict[str, str]] = []
        for event in events:
            reason = event if isinstance(event, str) else self._decide(event, received_at, is_known, batch)
            if reason is None:
                verdicts.append(_ACCEPTED)
            else:
                verdicts.append({"status": "refused", "reason": str(reason)})
                batch(None)
        waiting.safe = response(b"200 OK", msgspec.json.encode(verdicts), b"cache-control: no-store\r\n")
        batch(None)
        return None

    def _decide(self, event: PostedEvent, received_at: float, is_known: bool, batch: _Batch) -> Refused | None:
        tracker, kind = self._tracker, event.type
        visit = Visit(received_at, "postback", event.user_agent, event.ip, event.value, event.currency, event.order_id)
        if not event.token:
            if kind != "conversion":
                return tracker.count_refused(kind, Refused.NO_TOKEN)
            if not is_known:
                return tracker.count_refused(kind, Refused.UNAUTHORIZED)
            return tracker.take_told(event.campaign_id, event.user_id, visit, batch)
        ticket = tracker.ticket(kind, event.token, visit)
        if isinstance(ticket, Refused):
            return ticket
        if event.campaign_id and event.campaign_id != ticket.campaign_id:
            return tracker.refuse(kind, Refused.OTHER_CAMPAIGN, visit, token=event.token)
        tracker.accept(kind, ticket, event.token, visit, batch)
        return None


def _decoded(body: bytes) -> list[PostedEvent | str] | str:
    """The events, or why one cannot be read; a reason alone when that is so of all."""
    is_list = body.lstrip()[:1] == b"["
    try:
        events: list[Any] = _many.decode(body) if is_list else [_one.decode(body)]
    except msgspec.ValidationError as wrong:
        if not is_list:
            return _reason(wrong)
        try:
            events = [_each(raw) for raw in _decoder.decode(body)]
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return "events: not JSON"
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return "events: not JSON"
    if len(events) > MAX_BATCH:
        return f"events: {len(events)}, at most {MAX_BATCH} are taken at once"
    return events


def _each(raw: msgspec.Raw) -> PostedEvent | str:
    try:
        return _one.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as wrong:
        return _reason(wrong)


def _reason(wrong: Exception) -> str:
    """What is wrong with one event, the field first."""
    what, _, where = str(wrong).partition(" - at `$.")
    field = where.rstrip("`")
    if "regex" in what:
        what = _CHOICES[field]
    return f"event{'.' * bool(field)}{field}: {what[:1].lower()}{what[1:]}"
