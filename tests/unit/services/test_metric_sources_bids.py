"""Bids at several sources: each update has its own result."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from rtb.ports.metric_source import BidUpdate, SourceError
from tests.unit.metric_parts import Bench, opened


@pytest_asyncio.fixture
async def bench() -> AsyncIterator[Bench]:
    """Two sources."""
    async with opened() as bench:
        yield bench


def bid(source: str, campaign_id: str, target_id: str) -> BidUpdate:
    """Two dollars."""
    return BidUpdate(source, campaign_id, target_id, 2 * 10**9, "USD")


async def test_bids_are_reported_one_by_one(bench: Bench) -> None:
    """In order, over sources and chunks: applied, refused, unknown source, unknown campaign, named twice."""
    bench.one.refuse = lambda update: "too high" if update.target_id == "s2" else ""
    updates = [
        bid("one", "a", "s1"),
        bid("two", "a", "s1"),
        bid("one", "b", "s2"),
        bid("three", "a", "s1"),
        bid("one", "nobody", "s3"),
        bid("one", "c", "s1"),
        bid("one", "c", "s4"),
    ]
    results = await bench.sources().update_bids(updates)
    assert [result.update for result in results] == updates
    assert [(result.applied_nanos, result.reason) for result in results] == [
        (2 * 10**9, ""),
        (2 * 10**9, ""),
        (None, "too high"),
        (None, "there is no source 'three'"),
        (None, "campaign 'nobody' has no id at one"),
        (None, "an earlier update of this call has the same target"),
        (2 * 10**9, ""),
    ]
    assert sorted(bench.one.asked) == [("s1", "s2"), ("s4",)]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (SourceError("HTTP 429"), "HTTP 429"),
        (ValueError("secret"), "the source failed with ValueError; it may have been applied"),
        (None, "no answer within 0.5 s; it may have been applied"),
    ],
)
async def test_bids_that_fail_together(bench: Bench, error: Exception | None, reason: str) -> None:
    """Those of one source; the other's are applied."""
    bench.one.error = error
    if error is None:
        bench.one.ready.clear()
    results = await bench.sources(deadline_s=0.5).update_bids([bid("one", "a", "s1"), bid("two", "a", "s1")])
    assert [(result.applied_nanos, result.reason) for result in results] == [(None, reason), (2 * 10**9, "")]
