"""The catalogue under change: repository and index keep in step."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from msgspec.structs import replace

from rtb.domain.campaign import Status
from rtb.errors import InvalidCampaign, NotFound, StoreError
from rtb.services.campaigns import Campaigns
from tests.unit.parts import Build, World, bid_request, campaign


@pytest_asyncio.fixture
async def world(build: Build) -> AsyncIterator[World]:
    made = build()
    await made.repository.start()
    yield made


@pytest.fixture
def catalogue(world: World) -> Campaigns:
    return Campaigns(world.repository, world.house)


async def test_loading_fills_the_index(world: World, catalogue: Campaigns) -> None:
    """What the repository holds bids."""
    await world.repository.put_campaigns([campaign("a"), campaign("b")])
    assert await catalogue.load() == 2
    assert [one.id for one in catalogue.all()] == ["a", "b"]
    assert (await world.run(bid_request())).nbr is None


async def test_what_is_put_bids_and_is_kept(world: World, catalogue: Campaigns) -> None:
    """At once here, and after a restart."""
    assert await catalogue.put([campaign("a"), campaign("b")]) == 2
    assert (await world.run(bid_request())).nbr is None
    assert await world.repository.campaign("a") == catalogue.get("a") == campaign("a")


async def test_a_replacement_gets_the_next_version(world: World, catalogue: Campaigns) -> None:
    """Whatever version it claims, unless that is newer still; else the repository would refuse it."""
    await catalogue.put([campaign("a", 1.0)])
    await catalogue.put([campaign("a", 2.0)])
    assert (catalogue.get("a").version, catalogue.get("a").bid) == (2, 2.0)
    await catalogue.put([campaign("a", 3.0, version=9)])
    assert catalogue.get("a").version == 9
    assert await world.repository.campaign("a") == catalogue.get("a")


async def test_a_status_and_a_bid_can_be_set(world: World, catalogue: Campaigns) -> None:
    """Each is a new version, kept, and seen by the next auction."""
    await catalogue.put([campaign("a", 1.0)])
    assert (await catalogue.set_status("a", Status.PAUSED)).version == 2
    assert (await world.run(bid_request())).nbr is not None
    await catalogue.set_status("a", Status.ACTIVE)
    assert (await catalogue.set_bid("a", 4.0)).bid == 4.0
    assert (await world.run(bid_request(at=1))).results[0].price_micros == 4_000_000
    assert await world.repository.campaign("a") == campaign("a", 4.0, version=4)


@pytest.mark.parametrize("bid", [0.0, -1.0, float("nan"), float("inf"), 2e6])
async def test_a_bid_that_makes_no_sense_changes_nothing(world: World, catalogue: Campaigns, bid: float) -> None:
    """Zero, negative, not a number, or above a million CPM."""
    await catalogue.put([campaign("a", 1.0)])
    with pytest.raises(InvalidCampaign, match="'a'"):
        await catalogue.set_bid("a", bid)
    assert await world.repository.campaign("a") == catalogue.get("a") == campaign("a", 1.0)


async def test_an_unknown_campaign_is_not_found(catalogue: Campaigns) -> None:
    """By whatever is asked of it."""
    with pytest.raises(NotFound, match="'x'"):
        catalogue.get("x")
    with pytest.raises(NotFound, match="'x'"):
        await catalogue.set_bid("x", 1.0)
    with pytest.raises(NotFound, match="'x'"):
        await catalogue.set_status("x", Status.PAUSED)


async def test_a_repository_that_fails_leaves_the_index_alone(world: World, catalogue: Campaigns) -> None:
    """What is seen is kept: a change that could not be stored does not bid either."""
    await catalogue.put([campaign("a", 1.0)])
    await world.repository.close()
    for change in (catalogue.put([campaign("a", 2.0), campaign("b")]), catalogue.set_bid("a", 3.0)):
        with pytest.raises(StoreError):
            await change
    assert catalogue.all() == [campaign("a", 1.0)]


async def test_changes_at_once_follow_one_another(world: World, catalogue: Campaigns) -> None:
    """None is lost to another that read the same version."""
    await catalogue.put([campaign("a", 1.0)])
    await asyncio.gather(catalogue.set_bid("a", 5.0), catalogue.set_status("a", Status.PAUSED))
    expected = replace(campaign("a", 5.0), status=Status.PAUSED, version=3)
    assert await world.repository.campaign("a") == catalogue.get("a") == expected


async def test_campaigns_are_listed_by_id_and_status(catalogue: Campaigns) -> None:
    """All of them, or those of one status."""
    await catalogue.put([campaign("b"), campaign("a", status=Status.PAUSED), campaign("c", status=Status.ENDED)])
    assert [one.id for one in catalogue.all()] == ["a", "b", "c"]
    assert [one.id for one in catalogue.all(Status.PAUSED)] == ["a"]
