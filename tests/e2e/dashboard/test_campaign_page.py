"""The page of one campaign in a real browser: its day so far, every source merged, its definition."""

from __future__ import annotations

import re

from playwright.async_api import expect

from rtb.domain.campaign import Status
from rtb.domain.source_metrics import CampaignMetrics, Figures
from rtb.ports import LedgerKind
from rtb.ports.history import Action
from tests.e2e.dashboard.conftest import HOSTILE, Visit
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


async def test_charts_begin_with_the_last_hour(site: DashboardSite, visit: Visit) -> None:
    """However late the page is opened: what had been spent and won by then, every ten seconds, and now. 1 was spent by
    the first second and 3 by the eleventh, in which 20 imps were won: 2 a second over those ten."""
    await site.bought("shoes", TODAY, LedgerKind.IMPRESSION, 1.0)
    second(site)
    await site.bought("shoes", TODAY, LedgerKind.IMPRESSION, 2.0)
    for n in range(20):
        await site.bought("shoes", TODAY, LedgerKind.WIN, n / 1e6)
    for _ in range(12):
        second(site)
    page = await visit("#/campaigns/shoes")
    for name, expected in (("Spent today", ["3.000", "3.000", "1.000"]), ("Wins", ["1.7", "2.0", r"\D"])):
        chart = page.locator("figure", has=page.get_by_role("heading", name=name))
        await chart.get_by_role("button", name=f"{name} as a table").click()
        rows = chart.locator("tbody tr")
        await expect(rows).to_have_text(
            [re.compile(rf":{at}{value}") for at, value in zip(("13", "11", "01"), expected, strict=True)]
        )


async def test_who_changed_what_is_shown(site: DashboardSite, visit: Visit) -> None:
    """Here, by the command line and by the daemon itself; a change of now appears by itself; what comes from outside
    stays text."""
    await site.ask("PATCH", "/api/campaigns/shoes", {"bid": 3.5})
    site.world.clock.advance(60)
    await site.catalogue.set_status("shoes", Status.PAUSED)
    site.world.clock.advance(60)
    site.recorder.record("shoes", Action.BUDGET_ALERT, key=(TODAY,), actor="automation", cause=HOSTILE)
    second(site)
    page = await visit("#/campaigns/shoes")
    rows = page.get_by_role("region", name="Table of changes").locator("tbody tr")
    await expect(rows).to_have_text(
        [
            re.compile("00:02:00automationbudget alert<img src=x onerror"),
            re.compile("00:01:00command linepausedstatus active → paused"),
            re.compile("00:00:00opschangedbid 3 → 3.5"),
        ]
    )
    await page.get_by_role("button", name="Resume Autumn shoes").click()
    await expect(rows).to_have_count(4)
    await expect(rows.first).to_have_text(re.compile("opsresumedstatus paused → active"))
    await expect(page.locator("img")).to_have_count(0)
