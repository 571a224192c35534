"""The catalogue under change: the repository first, then the index, so that what is seen is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from rtb.domain.campaign import Campaign, Status, validated
from rtb.errors import NotFound
from rtb.ports import Repository
from rtb.services.house_bidder import HouseBidder


class Campaigns:
    """Loads and changes house campaigns; a change is whole when the call returns, and a failure changes nothing."""

    def __init__(self, repository: Repository, house: HouseBidder) -> None:
        """Keep `house` in step with `repository`."""
        self._repository = repository
        self._house = house
        self._changing = asyncio.Lock()

    async def load(self) -> int:
        """Fill the index from the repository, at start; how many campaigns there are."""
        campaigns = [campaign async for chunk in self._repository.campaigns() for campaign in chunk]
        self._house.load(campaigns)
        return len(campaigns)

    async def put(self, campaigns: Sequence[Campaign]) -> int:
        """Insert new campaigns and replace known ones, each with a version above the one it replaces.

        Returns:
            How many were written.

        Raises:
            StoreError: nothing was written.
        """
        async with self._changing:
            fresh = [self._next(campaign) for campaign in campaigns]
            written = await self._repository.put_campaigns(fresh)
            for campaign in fresh:
                self._house.put(campaign)
            return written

    async def set_status(self, campaign_id: str, status: Status) -> Campaign:
        """Pause or resume. Raises NotFound, StoreError."""
        return await self._change(campaign_id, status=status)

    async def set_bid(self, campaign_id: str, bid: float) -> Campaign:
        """Give it another bid, in its own pricing's unit. Raises NotFound, InvalidCampaign, StoreError."""
        return await self._change(campaign_id, bid=bid)

    def get(self, campaign_id: str) -> Campaign:
        """Raises NotFound."""
        campaign = self._house.index.get(campaign_id)
        if campaign is None:
            raise NotFound(f"campaign {campaign_id!r}: unknown; `rtb campaigns list` names them all")
        return campaign

    def all(self, status: Status | None = None) -> list[Campaign]:
        """Every campaign by id, or those of one status."""
        found = (campaign for campaign in self._house.campaigns() if status is None or campaign.status is status)
        return sorted(found, key=lambda campaign: campaign.id)

    async def _change(self, campaign_id: str, **fields: object) -> Campaign:
        async with self._changing:
            old = self.get(campaign_id)
            new = validated(msgspec.structs.replace(old, version=old.version + 1, **fields))
            await self._repository.put_campaigns([new])
            self._house.put(new)
            return new

    def _next(self, campaign: Campaign) -> Campaign:
        known = self._house.index.get(campaign.id)
        if known is None or campaign.version > known.version:
            return campaign
        return msgspec.structs.replace(campaign, version=known.version + 1)
