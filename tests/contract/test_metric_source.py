"""What every metric source promises, whatever is on its other side."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import date

import pytest
import pytest_asyncio

from rtb.domain.source_metrics import CampaignMetrics, Days, Figures
from rtb.ports.metric_source import BidUpdate, SourceError, SourceFailure
from tests.contract.metric_sources import SECRETS, SOURCES, SourceUnderTest

JANUARY = Days(date(2026, 1, 1), date(2026, 1, 31))


@pytest_asyncio.fixture(params=SOURCES)
async def under_test(request: pytest.FixtureRequest) -> AsyncIterator[SourceUnderTest]:
    """A source and its other side."""
    async with SOURCES[request.param]() as made:
        yield made


async def test_figures_are_exact(under_test: SourceUnderTest) -> None:
    """Counts and spend to the micro, in the source's currency, by the source's ids; zeros too."""
    under_test.give("11", 1_000_000, 12_345, 6_789_012_345)
    under_test.give("12", 0, 0, 0)
    assert await under_test.source.fetch(["12", "11"], JANUARY) == {
        "11": CampaignMetrics(Figures(1_000_000, 12_345, 0, 6_789_012_345_000), "USD"),
        "12": CampaignMetrics(Figures(), "USD"),
    }


@pytest.mark.parametrize("stranger", ["99", "", "1 OR 1=1", "../me", "1?fields=id", "²", "1\n2", "9" * 500])
async def test_a_stranger_is_never_figures(under_test: SourceUnderTest, stranger: str) -> None:
    """An id that the other side does not know, or that is no id, is left out or fails; the others are told."""
    under_test.give("11", 5, 0, 0)
    found = await under_test.source.fetch(["11", stranger], JANUARY)
    assert found["11"] == CampaignMetrics(Figures(5), "USD")
    assert isinstance(found.get(stranger, SourceFailure("left out")), SourceFailure)
    assert set(found) <= {"11", stranger}


async def test_an_id_twice_is_one(under_test: SourceUnderTest) -> None:
    """Its figures are not doubled."""
    under_test.give("11", 5, 1, 10)
    found = await under_test.source.fetch(["11", "11"], JANUARY)
    assert found == {"11": CampaignMetrics(Figures(5, 1, 0, 10_000), "USD")}


async def test_nobody_is_nothing(under_test: SourceUnderTest) -> None:
    """No campaigns, no bids: no answers."""
    assert await under_test.source.fetch([], JANUARY) == {}
    assert list(await under_test.source.update_bids([])) == []


async def test_a_breakdown_is_one_error(under_test: SourceUnderTest) -> None:
    """Of the port, one line, without secrets; afterwards all is as before."""
    under_test.give("11", 5, 0, 0)
    under_test.break_down()
    with pytest.raises(SourceError) as caught:
        await under_test.source.fetch(["11"], JANUARY)
    line = str(caught.value)
    assert line
    assert "\n" not in line
    assert not any(secret in line for secret in SECRETS)
    under_test.recover()
    assert await under_test.source.fetch(["11"], JANUARY) == {"11": CampaignMetrics(Figures(5), "USD")}


async def test_whoever_gives_up_leaves_nothing_behind(under_test: SourceUnderTest) -> None:
    """A call that is cancelled while the other side hangs gives its place back: the next one passes."""
    under_test.give("11", 5, 0, 0)
    under_test.hang()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await under_test.source.fetch(["11"], JANUARY)
    under_test.recover()
    assert await under_test.source.fetch(["11"], JANUARY) == {"11": CampaignMetrics(Figures(5), "USD")}


async def test_a_bid_is_applied_or_refused(under_test: SourceUnderTest) -> None:
    """One result each, in order: what is bid now, never more than asked for, or a reason."""
    under_test.give_target("21")
    updates = [
        BidUpdate("x", "11", "21", 1_239_999_999, "USD"),
        BidUpdate("x", "12", "99", 10**9, "USD"),
        BidUpdate("x", "13", "21", 10**9, "CHF"),
        BidUpdate("x", "14", "no id", 10**9, "USD"),
        BidUpdate("x", "15", "21", 0, "USD"),
    ]
    results = await under_test.source.update_bids(updates)
    assert [result.update for result in results] == updates
    for result in results:
        assert (result.applied_nanos is None) == bool(result.reason)
        assert result.applied_nanos is None or 0 < result.applied_nanos <= result.update.bid_nanos
    assert [bool(result.reason) for result in results[1:]] == [True] * 4


async def test_bids_in_a_breakdown(under_test: SourceUnderTest) -> None:
    """Each has a reason; none is lost."""
    under_test.give_target("21")
    under_test.break_down()
    updates = [BidUpdate("x", str(n), str(n), 10**9, "USD") for n in range(3)]
    results = await under_test.source.update_bids(updates)
    assert [result.update for result in results] == updates
    assert all(result.reason and result.applied_nanos is None for result in results)
