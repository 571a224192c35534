"""What parts ask of other parts that are made after them."""

from __future__ import annotations

from zoneinfo import ZoneInfo

from rtb.domain.budget import budget_day
from rtb.domain.campaign import Campaign
from rtb.messages import AlertKind
from rtb.ports import Repository
from rtb.services.automation import Automation
from rtb.services.house_bidder import HouseBidder
from rtb.services.rebuild import UTC_ZONE


class Late:
    """Billing must find campaigns and tell of budgets before there is a house or an automation: both are set here once
    they are made, and before anything starts."""

    house: HouseBidder
    automation: Automation

    def __init__(self, repository: Repository) -> None:
        """`repository` knows the campaigns that the index does not have (yet)."""
        self._repository = repository

    def campaign(self, campaign_id: str) -> Campaign | None:
        """One of the catalogue, without I/O."""
        return self.house.index.get(campaign_id)

    async def find(self, campaign_id: str) -> Campaign | None:
        """One of the catalogue or the repository."""
        return self.campaign(campaign_id) or await self._repository.campaign(campaign_id)

    def date(self, campaign_id: str, at: float) -> str:
        """The day that it is for a campaign at a time in Unix seconds."""
        return budget_day(at, self.zone(campaign_id))

    def zone(self, campaign_id: str) -> ZoneInfo:
        """That of its budget days; UTC for one that nobody knows."""
        campaign = self.campaign(campaign_id)
        return UTC_ZONE if campaign is None else campaign.zone

    def alert(self, campaign_id: str, day: str, kind: AlertKind, *, spent_nanos: int, limit_nanos: int) -> None:
        """A budget is nearly spent, or spent."""
        self.automation.alert(campaign_id, day, kind, spent_nanos=spent_nanos, limit_nanos=limit_nanos)

    def shares(self, campaign_id: str) -> tuple[float | None, float]:
        """At which shares of its budget a campaign's alert goes out, and it pauses."""
        return self.automation.shares(campaign_id)
