"""Reading HTTP answers."""

from __future__ import annotations

import pytest

from rtb.lab.load.answer import Head, classify, read_head
from rtb.lab.load.tally import Outcome

ID = b"0123456789abcdef0123456789abcdef"
WON = b'{"id":"' + ID + b'","seatbid":[{"bid":[{"id":"1","impid":"1","price":1}]}]}'
NBR = b'{"id":"' + ID + b'","nbr":500}'


def head(status: int, told: Outcome | None = None) -> Head:
    """A head of that status."""
    return Head(status=status, length=0, told=told, closes=False)


def test_reads_status_length_and_outcome() -> None:
    """Field names count in any case, values without the blanks around them."""
    read = read_head(b"HTTP/1.1 200 OK\r\nContent-LENGTH:  17 \r\nX-RTB-Outcome: no-bid\r\nDate: now")
    assert read == Head(status=200, length=17, told=Outcome.NO_BID, closes=False)


def test_204_has_no_body() -> None:
    """A 204 needs no Content-Length, and one that is there does not announce a body [RFC 9110 8.6]."""
    assert read_head(b"HTTP/1.1 204 No Content\r\nx-rtb-outcome: shed") == head(204, Outcome.SHED)
    assert read_head(b"HTTP/1.1 204 No Content\r\ncontent-length: 0").length == 0


def test_connection_close_is_seen() -> None:
    """The server may announce that it closes."""
    assert read_head(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nConnection: Close").closes


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"SSH-2.0-OpenSSH", "not HTTP"),
        (b"HTTP/1.1 abc", "not HTTP"),
        (b"HTTP/1.1 200 OK", "Content-Length"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: -1", "Content-Length"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked", "chunked"),
        (b"HTTP/1.1 101 Switching Protocols", "101"),
    ],
)
def test_what_it_cannot_read_is_refused(data: bytes, why: str) -> None:
    """Anything but the fixed form is a ValueError that says why."""
    with pytest.raises(ValueError, match=why):
        read_head(data)


@pytest.mark.parametrize(
    ("told", "status", "body", "outcome"),
    [
        (None, 204, b"", Outcome.NO_BID),
        (Outcome.NO_BID, 204, b"", Outcome.NO_BID),
        (Outcome.TIMEOUT, 204, b"", Outcome.TIMEOUT),
        (Outcome.SHED, 204, b"", Outcome.SHED),
        (None, 200, WON, Outcome.WON),
        (Outcome.WON, 200, WON, Outcome.WON),
        (None, 200, NBR, Outcome.NO_BID),
        (Outcome.TIMEOUT, 200, NBR, Outcome.TIMEOUT),
        (None, 200, b'{"id":"' + ID + b'","seatbid":[]}', Outcome.NO_BID),
        (None, 400, b"imp: required", Outcome.ERROR),
        (None, 500, b"", Outcome.ERROR),
        (None, 302, b"", Outcome.ERROR),
    ],
)
def test_outcome_of_an_answer(told: Outcome | None, status: int, body: bytes, outcome: Outcome) -> None:
    """204 and a 200 with nbr are no bids unless the header says timeout or shed; a 200 with a seatbid is won."""
    assert classify(head(status, told), body, ID)[0] is outcome


@pytest.mark.parametrize(
    ("told", "status", "body", "reason"),
    [
        (None, 200, WON.replace(ID, b"f" * 32), "answer to another request"),
        (Outcome.WON, 200, NBR, "won without a seatbid"),
        (Outcome.SHED, 200, WON, "seatbid told as shed"),
        (Outcome.WON, 204, b"", "204 told as won"),
        (None, 503, b"", "status 503"),
    ],
)
def test_contradictions_are_errors(told: Outcome | None, status: int, body: bytes, reason: str) -> None:
    """An answer that says two things, or belongs to another request, is an error with its reason."""
    assert classify(head(status, told), body, ID) == (Outcome.ERROR, reason)


def test_any_id_will_do_when_asked() -> None:
    """Without an id to look for, another request's is accepted."""
    assert classify(head(200), WON, b"") == (Outcome.WON, "")
