"""Budgets of the house campaigns: a local, synchronous debit at the win, and a signal when a campaign runs dry."""

from __future__ import annotations

from collections.abc import Callable

from rtb.domain.budget import Account, day_end
from rtb.domain.campaign import Campaign
from rtb.ports import Clock


class Budgets:
    """One account a campaign with a daily budget, for the life of the process.

    `on_change(campaign_id, funded)` is called when a campaign can no longer, or again, pay one impression at its bid.
    """

    def __init__(self, clock: Clock, on_change: Callable[[str, bool], None]) -> None:
        """Start without accounts."""
        self._clock = clock
        self._on_change = on_change
        self._accounts: dict[str, tuple[Account, Campaign, int]] = {}  # with the cost of one impression at its bid
        self._dry: set[str] = set()

    def watch(self, campaign: Campaign) -> bool:
        """Open the account of a campaign, or give it its new limit, keeping what was spent today.

        Returns:
            Whether it can pay one impression.
        """
        limit = campaign.daily_budget_nanos
        self._dry.discard(campaign.id)
        if limit is None:
            self._accounts.pop(campaign.id, None)
            return True
        known = self._accounts.get(campaign.id)
        now = self._clock.time()
        spent_nanos = known[0].spent_nanos if known is not None and now < known[0].day_ends else 0
        account = Account(limit, day_end(now, campaign.zone), spent_nanos)
        bid_nanos = campaign.bid_micros
        self._accounts[campaign.id] = (account, campaign, bid_nanos)
        funded = account.spendable(bid_nanos)
        if not funded:
            self._dry.add(campaign.id)
        return funded

    def drop(self, campaign_id: str) -> None:
        """Forget a campaign."""
        self._accounts.pop(campaign_id, None)
        self._dry.discard(campaign_id)

    def account(self, campaign_id: str) -> Account | None:
        """The account of today, None for a campaign without a limit."""
        known = self._accounts.get(campaign_id)
        if known is None:
            return None
        account, campaign, _ = known
        account.roll(self._clock.time(), campaign.zone)
        return account

    def funded(self, campaign_id: str) -> bool:
        """Whether it can pay one impression at its bid."""
        return campaign_id not in self._dry

    def debit(self, campaign_id: str, cost_nanos: int) -> bool:
        """Spend, or refuse: never a nano above the limit."""
        known = self._accounts.get(campaign_id)
        if known is None:
            return True
        account, campaign, bid_nanos = known
        now = self._clock.time()
        if now >= account.day_ends:
            account.roll(now, campaign.zone)
        spent = account.debit(cost_nanos)
        if not account.spendable(bid_nanos) and campaign_id not in self._dry:
            self._dry.add(campaign_id)
            self._on_change(campaign_id, False)
        return spent

    def refresh(self) -> None:
        """Fund the campaigns that ran dry and whose new day has come; called every second."""
        now = self._clock.time()
        for campaign_id in list(self._dry):
            account, campaign, bid_nanos = self._accounts[campaign_id]
            account.roll(now, campaign.zone)  # perhaps a debit or a look at the account already did
            if account.spendable(bid_nanos):
                self._dry.discard(campaign_id)
                self._on_change(campaign_id, True)
