"""The page of one campaign in a real browser: its day so far, every source merged, its definition."""

from __future__ import annotations

import re

from playwright.async_api import expect

from rtb.domain.source_metrics import CampaignMetrics, Figures
from rtb.ports import LedgerKind
from tests.e2e.dashboard.conftest import Visit
from tests.support.dashboard_site import DashboardSite
from tests.support.seconds import second
from tests.unit.metric_parts import Platform

TODAY, YESTERDAY = "2026-01-01", "2025-12-31"


async def test_figures_are_those_of_the_api(site: DashboardSite, platform: Platform, visit: Visit) -> None:
    """Today's from the ledger; and by source: 3 impressions of the house and 7 of an ad platform are
    10 in all, 2 spent here and 5 there 7, which brought 14: a return of 2."""
    platform.told["shoes"] = CampaignMetrics(Figures(7, 1, 1_000_000, 5 * 10**9, 14 * 10**9), "USD")
    await site.bought("shoes", YESTERDAY, LedgerKind.IMPRESSION, 0.5)
    await site.bought("shoes", TODAY, LedgerKind.IMPRESSION, 0.25)
    await site.bought("shoes", TODAY, LedgerKind.IMPRESSION, 1.25)
    second(site)
    page = await visit("#/campaigns/shoes")
    await expect(page.get_by_role("heading", level=1)).to_contain_text("Autumn shoes")
    await expect(page.locator('[data-value="spent"]')).to_have_text("1.500")

    await page.get_by_role("radio", name="Today").check()
    await page.get_by_role("radio", name="7 days").check()
    _, told = await site.ask("GET", f"/api/metrics/shoes?since=2025-12-26&until={TODAY}")
    assert (told["totals"]["impressions"], told["totals"]["spend"], told["totals"]["roas"]) == (10, 7.0, 2.0)
    total = page.get_by_role("row", name="All sources")
    await expect(total).to_have_text(re.compile(r"fresh10110\.001100\.007\.000?7\.000?700\.0014\.002\.00$"))
    await expect(page.get_by_role("row", name="platform")).to_contain_text("5.000")
    days = page.get_by_role("region", name="Table of days").locator("tbody tr")
    await expect(days).to_have_text([re.compile(f"^{TODAY}"), re.compile(f"^{YESTERDAY}")])


async def test_a_change_of_somebody_else_shows_by_itself(site: DashboardSite, visit: Visit) -> None:
    """Its bid, its state and its definition, with the next second; and that it is acted on from here."""
    second(site)
    page = await visit("#/campaigns/shoes")
    await expect(page.locator(".bid-line")).to_contain_text("3.000")
    await site.ask("PATCH", "/api/campaigns/shoes", {"bid": 3.5, "daily_budget": 20.0})
    second(site)
    await expect(page.locator(".bid-line")).to_contain_text("3.500")
    await expect(page.locator(".facts-list")).to_contain_text("cpm, bid 3.500")
    await expect(page.locator(".facts-list")).to_contain_text("20.00")
    await page.get_by_role("button", name="Pause Autumn shoes").click()
    await expect(page.locator(".page-head .pill")).to_have_text("paused")
    assert (await site.ask("GET", "/api/campaigns/shoes"))[1]["row"]["status"] == "paused"
