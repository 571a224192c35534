"""Many who find a book missing at once rebuild it once."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

import pytest

from rtb.errors import NotFound
from rtb.services.restoring import Restoring
from tests.unit.services.tracked import DAY, IMPRESSION, Tracked


class Counting:
    """How often each campaign was rebuilt."""

    def __init__(self, world: Tracked) -> None:
        self.asked: list[str] = []
        self._world = world

    async def restore(self, campaign_ids: Collection[str]) -> None:
        """Give others a turn before and after."""
        self.asked += campaign_ids
        await asyncio.sleep(0)
        await self._world.rebuild.restore(campaign_ids)


async def test_who_comes_later_finds_it_done() -> None:
    """Of ten at once one rebuilds; a book that is there is left alone; one that is lost later is rebuilt again."""
    world = Tracked()
    counting = Counting(world)
    restoring = Restoring(counting.restore, world.accounts, world.ledger, world.find)
    await asyncio.gather(*(restoring.restore(["cpm"]) for _ in range(10)))
    assert counting.asked == ["cpm"]
    world.accounts.lose()
    await asyncio.gather(*(restoring.restore(["cpm", "cpm"]) for _ in range(3)))
    assert counting.asked == ["cpm", "cpm"]
    await world.happens(IMPRESSION, world.ticket())
    assert await world.ledger.spent() == {("cpm", DAY): 2_000_000}


async def test_a_book_behind_its_epoch_is_rebuilt() -> None:
    """Whoever raised it may be dead."""
    world = Tracked()
    counting = Counting(world)
    restoring = Restoring(counting.restore, world.accounts, world.ledger, world.find)
    await restoring.restore(["cpm"])
    await world.ledger.raise_epochs(["*"])
    await restoring.restore(["cpm"])
    assert counting.asked == ["cpm", "cpm"]


async def test_an_unknown_campaign_is_said_to_be() -> None:
    """As by the rebuild itself, and the next one gets his turn."""
    world = Tracked()
    restoring = Restoring(world.rebuild.restore, world.accounts, world.ledger, world.find)
    with pytest.raises(NotFound):
        await restoring.restore(["gone"])
    await restoring.restore(["cpm"])
