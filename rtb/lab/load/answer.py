"""What an HTTP answer says: a lean reading of the fixed form that bidders use (Content-Length, no chunks)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from rtb.lab.load.tally import Outcome

OUTCOME_HEADER = b"x-rtb-outcome"
_BY_NAME = {
    b"won": Outcome.WON,
    b"no-bid": Outcome.NO_BID,
    b"timeout": Outcome.TIMEOUT,
    b"shed": Outcome.SHED,
}
_SEATBID = re.compile(rb'"seatbid"\s*:\s*\[\s*\{')
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] (\d{3})(?: |$)")


@dataclass(frozen=True, slots=True)
class Head:
    """Status, body length, the outcome that the header tells, and whether the server closes the connection."""

    status: int
    length: int
    told: Outcome | None
    closes: bool


def read_head(data: bytes) -> Head:
    """The head of an answer, without the empty line that ends it.

    Raises:
        ValueError: not HTTP/1, without Content-Length where a body is due, chunked, or a Content-Length that is none.
    """
    first, *lines = data.split(b"\r\n")
    status = _STATUS_LINE.match(first)
    if status is None:
        raise ValueError("not HTTP/1.1")
    fields: dict[bytes, bytes] = {}
    for line in lines:
        name, _, value = line.partition(b":")
        fields[name.lower()] = value.strip()
    code = int(status[1])
    if code < 200:
        raise ValueError(f"status {code}")
    if b"transfer-encoding" in fields:
        raise ValueError("chunked")
    length = fields.get(b"content-length", b"0" if code in (204, 304) else b"")
    if not length.isdigit():
        raise ValueError("no Content-Length")
    return Head(
        status=code,
        length=0 if code in (204, 304) else int(length),
        told=_BY_NAME.get(fields.get(OUTCOME_HEADER, b"")),
        closes=fields.get(b"connection", b"").lower() == b"close",
    )


def classify(head: Head, body: bytes, request_id: bytes) -> tuple[Outcome, str]:
    """The outcome of a complete answer, and the reason when it is an error.

    Args:
        head: its head.
        body: its body; a 200 must carry `request_id`, the id of the request it answers.
        request_id: empty when any id will do.
    """
    status = head.status
    if status == 204:
        if head.told is Outcome.WON:
            return Outcome.ERROR, "204 told as won"
        return (Outcome.NO_BID if head.told is None else head.told), ""
    if status != 200:
        return Outcome.ERROR, f"status {status}"
    if request_id not in body:
        return Outcome.ERROR, "answer to another request"
    if _SEATBID.search(body) is not None:
        if head.told is None or head.told is Outcome.WON:
            return Outcome.WON, ""
        return Outcome.ERROR, f"seatbid told as {head.told.name.lower()}"
    if head.told is Outcome.WON:
        return Outcome.ERROR, "won without a seatbid"
    return (Outcome.NO_BID if head.told is None else head.told), ""
