"""The lines of a replay log."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtb.domain import replay
from rtb.domain.profile import Profile
from rtb.domain.replay import AuctionLine, CampaignLine, RecordedBid, RecordedOutcome, RecordedResult
from rtb.domain.replay_report import Comparison, Sale
from rtb.errors import Malformed
from tests.unit.parts import campaign

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(JSON, st.sampled_from((0, 2)))
def test_a_request_is_one_line_and_says_the_same(value: object, indent: int) -> None:
    """Whatever line breaks it has between its tokens; those in its strings are escaped."""
    body = msgspec.json.format(msgspec.json.encode(value), indent=indent).replace(b"\n", b"\r\n")
    line = bytes(replay.one_line(body))
    assert b"\n" not in line
    assert b"\r" not in line
    assert msgspec.json.decode(line) == msgspec.json.decode(body)


def test_lines_are_read_as_they_were_written() -> None:
    """Equal bytes for equal values, whatever the order of a mapping."""
    line = AuctionLine(
        id="a",
        received_at=1_767_225_600.123456,
        deadline_ns=100_000_000,
        took_ns=5,
        request=msgspec.Raw(b'{"id":"r","x":[1]}'),
        outcome=RecordedOutcome(
            status="won",
            results=[RecordedResult(impid="1", winner=0, price_micros=1, refused=[(1, 100, 7), (2, 104, None)])],
        ),
        profile=Profile("u", value=0.1),
        frequency={"b": 1, "a": 2},
        bids=[RecordedBid(impid="1", bidder="x", seat="y", price_micros=3, adomain=("z",))],
    )
    encoded = replay.encode(line)
    again = replay.decode(encoded)
    assert isinstance(again, AuctionLine)
    assert (again.received_at, again.profile, again.frequency) == (line.received_at, line.profile, line.frequency)
    assert bytes(again.request) == bytes(line.request)
    assert replay.encode(again) == encoded
    assert replay.encode(msgspec.structs.replace(line, frequency={"a": 2, "b": 1})) == encoded
    assert replay.encode(again.outcome) == replay.encode(line.outcome)
    assert replay.decode(replay.encode(CampaignLine(campaign("c")))) == CampaignLine(campaign("c"))


@pytest.mark.parametrize("line", [b"", b"[]", b'{"line":"other"}', b"\xff", b'{"line":"campaign"}', b"[" * 3_000])
def test_what_is_no_line_is_told_so(line: bytes) -> None:
    """In one line."""
    with pytest.raises(Malformed) as raised:
        replay.decode(line)
    assert "\n" not in str(raised.value)


def sale(impid: str, bidder: str, price_micros: int, campaign: str = "", seat: str = "") -> Sale:
    """Of one impression: a nano for each micro of CPM."""
    return Sale(impid=impid, bidder=bidder, seat=seat, campaign=campaign, price_micros=price_micros, nanos=price_micros)


def test_imps_are_compared_one_by_one() -> None:
    """Of six: the same, another price, another buyer, newly sold, no longer sold, unsold in both."""
    found = Comparison()
    before = {"1": sale("1", "x", 10), "2": sale("2", "x", 10), "3": sale("3", "x", 10), "5": sale("5", "h", 7, "c")}
    after = {"1": sale("1", "x", 10), "2": sale("2", "x", 12), "3": sale("3", "y", 9, seat="s"), "4": sale("4", "x", 1)}
    found.add("a", 5.0, 6, before, after, exact=False)
    assert (found.same, found.repriced, found.rewon, found.gained, found.lost) == (2, 1, 1, 1, 1)
    assert (found.before.total.nanos, found.after.total.nanos) == (37, 32)
    assert {name: (one.wins, one.nanos) for name, one in found.after.bidders.items()} == {"x": (3, 23), "y": (1, 9)}
    assert {name: (one.wins, one.nanos) for name, one in found.before.campaigns.items()} == {"c": (1, 7)}
    assert [(e.impid, e.before, e.after) for e in found.examples] == [
        ("2", "x", "x"),
        ("3", "x", "y/s"),
        ("5", "c", ""),
        ("4", "", "x"),
    ]
    found.add("b", 3.0, 1, {}, {}, exact=True)
    assert (found.auctions, found.imps, found.exact, found.same) == (2, 7, 1, 3)
    assert (found.first_at, found.last_at, found.deviations) == (3.0, 5.0, ["a"])
    assert (found.before.auctions_won, found.after.auctions_won) == (1, 1)
