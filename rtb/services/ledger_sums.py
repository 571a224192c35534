"""What the ledger says of budgets: what was spent, and what is still held for wins."""

from __future__ import annotations

from collections.abc import Collection
from zoneinfo import ZoneInfo

from rtb.domain.budget import DAYS_KEPT, LIFE, Reserve, Timing, budget_day, day_before
from rtb.domain.campaign import Campaign
from rtb.ports import Ledger

_UTC = ZoneInfo("UTC")


async def reserves(ledger: Ledger, now: float, timing: Timing) -> dict[str, dict[str, Reserve]]:
    """What is held for wins that may still be billed in time, by campaign and instance. All that an instance won for a
    campaign lapses with the last of it."""
    settle_s = timing.settle_ms / 1_000
    received_since = now - settle_s - timing.window_ms / 1_000
    found: dict[str, dict[str, Reserve]] = {}
    for wins in await ledger.open_wins(received_since=received_since, expires_since=now - settle_s):
        instances = found.setdefault(wins.campaign_id, {})
        known = instances.get(wins.instance, Reserve(0, {}))
        nanos = dict(known.nanos)
        for day in {wins.day, LIFE}:
            nanos[day] = nanos.get(day, 0) + wins.held_nanos
        until_ms = max(known.until_ms, round(wins.expires_at * 1_000) + timing.settle_ms)
        instances[wins.instance] = Reserve(until_ms, nanos)
    return found


async def sums(
    ledger: Ledger, campaigns: Collection[Campaign], now: float, *, all_campaigns: bool = False
) -> dict[str, dict[str, int]]:
    """What the ledger says was spent of each account: of the last days, and of the life where there is a budget for it.

    Of these campaigns, or of all for the days.
    """
    ids = [campaign.id for campaign in campaigns]
    since = min((day_before(budget_day(now, c.zone), DAYS_KEPT) for c in campaigns), default="")
    if all_campaigns:
        since = day_before(budget_day(now - 86_400, _UTC), DAYS_KEPT)
    found: dict[str, dict[str, int]] = {}
    for (campaign_id, day), nanos in (await ledger.spent(None if all_campaigns else ids, since_day=since)).items():
        if day < LIFE:
            found.setdefault(campaign_id, {})[day] = nanos
    lives = [campaign.id for campaign in campaigns if campaign.lifetime_budget is not None]
    if lives:
        for (campaign_id, day), nanos in (await ledger.spent(lives)).items():
            if day:
                sums_ = found.setdefault(campaign_id, {})
                sums_[LIFE] = sums_.get(LIFE, 0) + nanos
    return found
