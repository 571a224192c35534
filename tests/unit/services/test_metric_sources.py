"""Metrics from several sources: kept apart, merged, and never zero for want of an answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import date

import pytest
import pytest_asyncio

from rtb.domain.source_metrics import CampaignMetrics, Days, Figures, Reading, Standing
from rtb.errors import ConfigError, StoreError
from rtb.ports.metric_source import BidResult, BidUpdate, SourceError, SourceFailure
from rtb.services.own_figures import OwnFigures
from tests.unit.metric_parts import ONE, TODAY, Bench, opened

YESTERDAY = Days(date(2025, 12, 31), date(2025, 12, 31))


@pytest_asyncio.fixture
async def bench() -> AsyncIterator[Bench]:
    """Two sources."""
    async with opened() as bench:
        yield bench


async def test_two_sources_become_one(bench: Bench) -> None:
    """2 EUR at 1.50 and 1 USD are 4 USD; both are fresh and named."""
    bench.tell(
        "a",
        CampaignMetrics(Figures(1000, 10, 1_000_000, 10**9, 3 * 10**9), "USD"),
        CampaignMetrics(Figures(3000, 30, 500_000, 2 * 10**9, 0), "EUR"),
    )
    merged = (await bench.sources().get(["a"], TODAY))["a"]
    assert merged.totals == Figures(4000, 40, 1_500_000, 4 * 10**9, 3 * 10**9)
    assert merged.standing is Standing.FRESH
    assert merged.currency == "USD"
    assert [reading.source for reading in merged.readings] == ["one", "two"]


async def test_nothing_is_not_zero(bench: Bench) -> None:
    """Before anything was fetched there are no totals, and a campaign that no source has is unknown."""
    sources = bench.sources()
    merged = sources.known("a", TODAY)
    assert (merged.totals, merged.standing, merged.unknown) == (None, Standing.UNKNOWN, ("one", "two"))
    assert merged.readings[0].reason == "not fetched yet"
    alien = (await sources.get(["nobody"], TODAY))["nobody"]
    assert (alien.totals, alien.standing, alien.readings) == (None, Standing.UNKNOWN, ())


async def test_a_misspelt_source_is_not_passed_over(bench: Bench) -> None:
    """A campaign that names a source that is not there says so; two sources of one name are refused."""
    bench.ids["a"]["facebok"] = "1"
    bench.tell("a", ONE, ONE)
    merged = (await bench.sources().get(["a"], TODAY))["a"]
    assert (merged.totals, merged.unknown) == (Figures(2), ("facebok",))
    assert merged.readings[0].reason == "no source of this name is set up"
    bench.two.name = "one"
    with pytest.raises(ConfigError, match="two metric sources are named 'one'"):
        bench.sources()


async def test_what_fails_keeps_its_last_figures(bench: Bench) -> None:
    """Stale with age and reason, and part of the totals; the other source goes on, and a recovery ends it."""
    sources = bench.sources()
    bench.tell("a", ONE, CampaignMetrics(Figures(10), "USD"))
    await sources.get(["a"], TODAY)
    bench.clock.advance(400)
    bench.one.error = SourceError("HTTP 500")
    bench.two.told["2a"] = CampaignMetrics(Figures(20), "USD")
    merged = (await sources.get(["a"], TODAY))["a"]
    assert merged.totals == Figures(21)
    assert (merged.standing, merged.stale) == (Standing.STALE, ("one",))
    assert merged.readings == (
        Reading("one", Standing.STALE, Figures(1), 400.0, "HTTP 500"),
        Reading("two", Standing.FRESH, Figures(20), 0.0),
    )
    bench.one.error = None
    bench.one.told["1a"] = CampaignMetrics(Figures(5), "USD")
    bench.clock.advance(15)
    merged = (await sources.get(["a"], TODAY))["a"]
    assert (merged.totals, merged.standing) == (Figures(25), Standing.FRESH)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (SourceError("Limit reached (code 17)"), "Limit reached (code 17)"),
        (StoreError("the database is away"), "the database is away"),
        (ValueError("secret"), "the source failed with ValueError"),
    ],
)
async def test_a_source_that_never_answered_is_unknown(bench: Bench, error: Exception, reason: str) -> None:
    """Whatever it raises; what is no error of ours is named by its kind alone, for its text may hold a token."""
    bench.tell("a", ONE, ONE)
    bench.one.error = error
    merged = (await bench.sources().get(["a"], TODAY))["a"]
    assert (merged.totals, merged.standing, merged.unknown) == (Figures(1), Standing.UNKNOWN, ("one",))
    assert merged.readings[0] == Reading("one", Standing.UNKNOWN, reason=reason)


async def test_one_campaign_fails_alone(bench: Bench) -> None:
    """Refused, left out, or in a currency without a rate: each says why, the others are whole."""
    bench.one.told = {"1a": ONE, "1b": SourceFailure("no permission"), "1d": CampaignMetrics(Figures(1), "JPY")}
    for name in "abcd":
        del bench.ids[name]["two"]
    found = await bench.sources().get(["a", "b", "c", "d"], TODAY)
    assert {name: merged.readings[0].reason for name, merged in found.items()} == {
        "a": "",
        "b": "no permission",
        "c": "the source told nothing of this campaign",
        "d": "there is no exchange rate for JPY",
    }
    assert [merged.totals for merged in found.values()] == [Figures(1), None, None, None]


async def test_figures_grow_old_by_themselves(bench: Bench) -> None:
    """Nobody asked for longer than they are fresh: stale, with their age."""
    bench.tell("a", ONE, ONE)
    sources = bench.sources()
    await sources.get(["a"], TODAY)
    bench.clock.advance(301)
    reading = sources.known("a", TODAY).readings[0]
    assert (reading.standing, reading.age_s, reading.reason) == (Standing.STALE, 301.0, "not asked for again since")


async def test_days_are_apart(bench: Bench) -> None:
    """Figures of one range say nothing of another."""
    bench.tell("a", ONE, ONE)
    sources = bench.sources()
    await sources.get(["a"], TODAY)
    assert sources.known("a", YESTERDAY).totals is None


async def test_memory_is_bounded(bench: Bench) -> None:
    """The campaign that was fetched longest ago is forgotten, and unknown again."""
    for name in "abc":
        bench.tell(name, ONE, ONE)
    sources = bench.sources(keep=2)
    found = await sources.get("abc", TODAY)
    assert all(merged.totals == Figures(2) for merged in found.values())
    assert [sources.known(name, TODAY).standing for name in "abc"] == [
        Standing.UNKNOWN,
        Standing.FRESH,
        Standing.FRESH,
    ]


async def test_the_house_is_a_source_of_every_campaign(bench: Bench) -> None:
    """By the campaign's own id; what its ledger leaves out is unknown, and its bids are not set here."""

    async def ledger(ids: Sequence[str], days: Days) -> Mapping[str, Figures]:
        return {"a": Figures(7)} if "a" in ids and days == TODAY else {}

    bench.tell("a", ONE, ONE)
    sources = bench.sources(house=OwnFigures(ledger, "USD"))
    found = await sources.get(["a", "mine"], TODAY)
    assert found["a"].totals == Figures(9)
    assert found["mine"].unknown == ("house",)
    update = BidUpdate("house", "a", "a", 1, "USD")
    assert await sources.update_bids([update]) == [
        BidResult(update, reason="a bid of the house is set by changing its campaign")
    ]
