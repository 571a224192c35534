"""What of a daemon has to do with the catalogue, on a database and a broker that it shares with others like it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from rtb.adapters.spool import FileSpool
from rtb.domain.campaign import Campaign
from rtb.edges.campaign_consumer import CampaignListener, CampaignWriter
from rtb.messages import PerformanceUpdate
from rtb.ports import Broker
from rtb.services.announcements import Announcements
from rtb.services.campaigns import Campaigns
from rtb.services.outbox import Outbox
from tests.contract.brokers import PATIENCE_S
from tests.unit.parts import World

NEVER_S = 3_600.0


class CatalogueDaemon:
    """One daemon's catalogue, its outbox and its two consumers; `world` has the house and the repository."""

    def __init__(self, name: str, world: World, broker: Broker, folder: Path, *, follow_s: float = NEVER_S) -> None:
        self.name = name
        self.world = world
        self.broker = broker
        self.heard: asyncio.Queue[PerformanceUpdate] = asyncio.Queue()
        self._follow_s = follow_s
        self._changed = asyncio.Event()
        self._put = world.house.put
        world.house.put = self._watch  # type: ignore[method-assign]
        self.outbox = Outbox(broker, FileSpool(folder / f"spool-{name}"), world.metrics)
        announcements = Announcements(self.outbox, world.clock, name)
        self.catalogue = Campaigns(world.repository, world.house, announce=announcements.campaigns)
        self._check = self.catalogue.check
        self._checked = asyncio.Event()
        self.catalogue.check = self._watch_check  # type: ignore[method-assign]
        self.listener = CampaignListener(
            broker,
            self.catalogue,
            world.metrics,
            instance=name,
            on_performance=lambda update, message_id: self.heard.put_nowait(update),
        )
        self.writer = CampaignWriter(broker, self.catalogue, world.metrics, world.clock)

    async def start(self, *, writes: bool = True) -> None:
        """As a daemon does: load, follow, listen."""
        await self.catalogue.load()
        await self.outbox.start()
        self.catalogue.follow(self._follow_s)
        await self.listener.start()
        if writes:
            await self.writer.start()

    async def stop(self) -> None:
        """In reverse."""
        try:
            await asyncio.wait_for(self.writer.stop(), 1)
        except TimeoutError:
            pass
        await self.listener.stop()
        await self.catalogue.stop()
        await self.outbox.stop(1)

    async def writer_waits(self) -> None:
        """Wait until the writer has found the repository away."""
        await asyncio.wait_for(self._checked.wait(), PATIENCE_S)

    def known(self, campaign_id: str) -> Campaign | None:
        """The campaign as it bids here."""
        return self.world.house.index.get(campaign_id)

    async def until(self, happened: Callable[[], bool]) -> None:
        """Wait for the catalogue to be so."""
        async with asyncio.timeout(PATIENCE_S):
            while not happened():
                self._changed.clear()
                await self._changed.wait()

    async def at_version(self, campaign_id: str, version: int) -> Campaign:
        """Wait until a campaign has come to a version."""
        await self.until(lambda: (known := self.known(campaign_id)) is not None and known.version >= version)
        known = self.known(campaign_id)
        assert known is not None
        assert known.version == version
        return known

    def _watch(self, campaign: Campaign) -> None:
        self._put(campaign)
        self._changed.set()

    async def _watch_check(self) -> None:
        self._checked.set()
        await self._check()
