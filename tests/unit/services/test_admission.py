"""Which requests get an auction, and until when."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtb.openrtb import BidRequest, Device, Imp, NoBid
from rtb.services.admission import MAX_USER_AGENT, Admission

MS = 1_000_000
BROWSER = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0 Safari/537.36"
GOOGLEBOT = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"


@pytest.fixture
def admission() -> Admission:
    return Admission(deadline_ms=100, network_margin_ms=10, minimum_ms=5, max_in_flight=3)


def request(user_agent: str | None = None) -> BidRequest:
    device = None if user_agent is None else Device(ua=user_agent)
    return BidRequest(id="r", imp=[Imp(id="1")], device=device)


def test_the_room_there_is(admission: Admission) -> None:
    """So many more of the three auctions that may be under way."""
    assert [admission.room(in_flight) for in_flight in (0, 2, 3)] == [3, 1, 0]


@pytest.mark.parametrize(
    ("tmax", "ms"),
    [(None, 100), (0, 100), (500, 100), (110, 100), (109, 99), (60, 50), (10, 0), (3, -7)],
)
def test_the_sooner_of_deadline_and_tmax_counts(admission: Admission, tmax: int | None, ms: int) -> None:
    """deadline = min(100 ms, tmax - 10 ms) from arrival; a tmax of 0 or none says nothing."""
    assert admission.deadline_ns(tmax, 7_000_000_123) == 7_000_000_123 + ms * MS


@given(
    deadline_ms=st.integers(1, 1_000),
    margin_ms=st.integers(0, 200),
    tmax=st.integers(1, 10_000),
    received_ns=st.integers(0, 2**60),
)
def test_a_deadline_is_never_after_either_limit(deadline_ms: int, margin_ms: int, tmax: int, received_ns: int) -> None:
    """Neither the configured deadline nor tmax less the way back is ever passed, and one of them is met exactly."""
    admission = Admission(deadline_ms=deadline_ms, network_margin_ms=margin_ms, minimum_ms=1, max_in_flight=1)
    left_ns = admission.deadline_ns(tmax, received_ns) - received_ns
    limits = [deadline_ms * MS, (tmax - margin_ms) * MS]
    assert left_ns in limits
    assert all(left_ns <= limit for limit in limits)


def test_too_little_time_is_told_first(admission: Admission) -> None:
    """Less than the useful minimum left is 15, the minimum itself is enough; nothing else is worth a look then."""
    assert admission.refusal(request(), 5 * MS - 1, 0) is NoBid.INSUFFICIENT_TIME
    assert admission.refusal(request(), 5 * MS, 0) is None
    assert admission.refusal(request(GOOGLEBOT), -1, 99) is NoBid.INSUFFICIENT_TIME


def test_the_cap_on_auctions_in_flight(admission: Admission) -> None:
    """With three under way the fourth is shed: 502."""
    assert admission.refusal(request(), 90 * MS, 2) is None
    assert admission.refusal(request(), 90 * MS, 3) is NoBid.SHED


@pytest.mark.parametrize(
    ("user_agent", "refusal"),
    [(BROWSER, None), (GOOGLEBOT, NoBid.KNOWN_CRAWLER), ("curl/8.5.0", NoBid.KNOWN_CRAWLER), ("", None), (None, None)],
)
def test_crawlers_get_no_auction(admission: Admission, user_agent: str | None, refusal: NoBid | None) -> None:
    """A known crawler is 3, the second time too; a browser or no user agent at all is no crawler."""
    assert admission.refusal(request(user_agent), 90 * MS, 0) is refusal
    assert admission.refusal(request(user_agent), 90 * MS, 0) is refusal


def test_a_user_agent_is_read_only_so_far(admission: Admission) -> None:
    """A hostile one of megabytes costs no more than its beginning, which is what is looked at and kept."""
    assert admission.refusal(request(BROWSER + " " * 2_000_000 + GOOGLEBOT), 90 * MS, 0) is None
    assert max(map(len, admission._crawlers)) <= MAX_USER_AGENT


def test_many_user_agents_do_not_pile_up(admission: Admission) -> None:
    """What is remembered stays bounded, and answers stay right."""
    for n in range(20_050):
        admission.refusal(request(f"App/{n}"), 90 * MS, 0)
    assert len(admission._crawlers) <= 20_000
    assert admission.refusal(request(GOOGLEBOT), 90 * MS, 0) is NoBid.KNOWN_CRAWLER
