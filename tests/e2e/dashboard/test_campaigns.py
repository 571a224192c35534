"""Campaigns in a real browser: found, watched and acted on in place, by those who may."""

from __future__ import annotations

import re
from pathlib import Path

from playwright.async_api import Locator, Page, expect

from rtb.ports import LedgerKind
from tests.e2e.dashboard.conftest import HOSTILE, Visit, said
from tests.support.dashboard_site import DashboardSite
from tests.support.seconds import second
from tests.unit.parts import bid_request, campaign

TODAY = "2026-01-01"


def row(page: Page, name: str) -> Locator:
    return page.locator(".t-body .t-row", has_text=name)


async def winner(site: DashboardSite) -> tuple[str, float]:
    """Who wins the next auction, and the CPM that it bid; without the shoes that is the DSP."""
    won = (await site.world.run(bid_request())).results[0].winner
    assert won is not None
    return won.bidder, won.price_micros / 1e6


async def test_an_operator_edits_a_bid_pauses_and_resumes_where_the_campaign_stands(
    site: DashboardSite, visit: Visit
) -> None:
    """The next auction knows, and the history who did it; the row shows what the server answered."""
    second(site)
    page = await visit("#/campaigns")
    shoes = row(page, "Autumn shoes")
    await shoes.get_by_role("button", name="bid of Autumn shoes: 3.000; change it").click()
    field = shoes.get_by_label("new bid of Autumn shoes")
    await field.fill("4.25")
    await field.press("Enter")
    await expect(shoes.get_by_role("button", name="bid of Autumn shoes: 4.250; change it")).to_be_focused()
    _, detail = await site.ask("GET", "/api/campaigns/shoes")
    assert (detail["row"]["bid"], detail["row"]["version"], site.actors) == (4.25, 2, ["dashboard:ops"])
    assert await winner(site) == ("house", 4.25)

    await shoes.get_by_role("button", name="Pause Autumn shoes").click()
    await expect(shoes).to_contain_text("paused")
    assert (await site.ask("GET", "/api/campaigns/shoes"))[1]["row"]["status"] == "paused"
    assert await winner(site) == ("dsp", 2.5)
    await shoes.get_by_role("button", name="Resume Autumn shoes").click()
    await expect(shoes).to_contain_text("active")
    assert (await site.ask("GET", "/api/campaigns/shoes"))[1]["row"]["status"] == "active"
    assert await winner(site) == ("house", 4.25)


async def test_a_refused_bid_is_said_and_changes_nothing(site: DashboardSite, visit: Visit) -> None:
    """Escape gives up editing, a wrong number is refused here, a campaign that has ended by the server."""
    second(site)
    page = await visit("#/campaigns")
    shoes = row(page, "Autumn shoes")
    await shoes.get_by_role("button", name="bid of").click()
    field = shoes.get_by_label("new bid of Autumn shoes")
    await field.press("Escape")
    await expect(field).to_be_hidden()
    await shoes.get_by_role("button", name="bid of").click()
    await field.fill("-1")
    await field.press("Enter")
    await said(page, "A bid is a number from 0.")
    await field.fill("1e12")
    await field.press("Enter")
    await said(page, "campaign 'shoes': bid: ")
    await expect(shoes).to_contain_text("3.000")


async def test_a_comma_makes_no_other_number_of_a_bid(site: DashboardSite, visit: Visit) -> None:
    """Whoever types 1,5 does not bid 15."""
    second(site)
    page = await visit("#/campaigns")
    shoes = row(page, "Autumn shoes")
    await shoes.get_by_role("button", name="bid of").click()
    field = shoes.get_by_label("new bid of Autumn shoes")
    await field.press("Control+a")
    await field.press_sequentially("1,5")
    await field.press("Enter")
    await said(page, "A bid is a number from 0.")
    await expect(field).to_have_value("1,5")
    assert site.actors == []


async def test_a_double_click_pauses_once(site: DashboardSite, visit: Visit) -> None:
    """Its second click does not resume. What is asked for after it is done after it."""
    second(site)
    page = await visit("#/campaigns")
    shoes = row(page, "Autumn shoes")
    await shoes.get_by_role("button", name="Pause Autumn shoes").dblclick()
    await expect(shoes).to_contain_text("paused")
    await shoes.get_by_role("button", name="bid of").click()
    field = shoes.get_by_label("new bid of Autumn shoes")
    await field.fill("4")
    await field.press("Enter")
    await expect(shoes.get_by_role("button", name="bid of Autumn shoes: 4.000; change it")).to_be_focused()
    _, detail = await site.ask("GET", "/api/campaigns/shoes")
    assert (detail["row"]["status"], len(site.actors)) == ("paused", 2)


async def test_a_viewer_sees_and_cannot_act(site: DashboardSite, visit: Visit, page_errors: list[str]) -> None:
    """No button to act with, on both pages; and the server refuses what the page would not ask for."""
    second(site)
    page = await visit("#/campaigns", by="wall")
    await expect(row(page, "Autumn shoes")).to_contain_text("3.000")
    await expect(page.locator(".t-body button")).to_have_count(0)
    await row(page, "Autumn shoes").get_by_role("link").click()
    await expect(page.get_by_role("heading", level=1)).to_contain_text("Autumn shoes")
    await expect(page.locator("main button", has_text=re.compile("Pause|Resume|✎"))).to_have_count(0)
    answer = await page.evaluate(
        "() => fetch('/api/campaigns/shoes', {method: 'PATCH', body: '{\"bid\": 9}',"
        " headers: {'Content-Type': 'application/json'}}).then((answer) => answer.status)"
    )
    assert answer == 403
    page_errors.clear()


async def test_search_sort_and_export(site: DashboardSite, visit: Visit, tmp_path: Path) -> None:
    """The list narrows while one types; headers sort both ways and say so; the file has what is shown, no formulas."""
    await site.catalogue.put([campaign("formula", 9.0, name='=HYPERLINK("http://evil","x")', advertiser="@cmd")])
    second(site)
    page = await visit("#/campaigns")
    names = page.locator(".t-body .t-cell:first-child")
    await expect(names).to_have_count(4)
    bid = page.get_by_role("columnheader", name="Bid")
    await bid.get_by_role("button").click()
    await expect(bid).to_have_attribute("aria-sort", "descending")
    await expect(names).to_have_text(['=HYPERLINK("http://evil","x")', "Autumn shoes", HOSTILE, "At rest"])
    await bid.get_by_role("button").click()
    await expect(names).to_have_text(["At rest", HOSTILE, "Autumn shoes", '=HYPERLINK("http://evil","x")'])
    async with page.expect_download() as started:
        await page.get_by_role("button", name="Export CSV").click()
    await (await started.value).save_as(tmp_path / "campaigns.csv")
    lines = (tmp_path / "campaigns.csv").read_text(encoding="utf-8-sig").splitlines()
    assert lines[0].startswith("Campaign,Advertiser,Status,Bid,Spent today,")
    assert lines[1].startswith("At rest,rest,paused,1,0,")
    assert lines[4].startswith('"\'=HYPERLINK(""http://evil"",""x"")",\'@cmd,active,9,0,')

    await page.get_by_role("searchbox").fill("SHOES")
    await expect(names).to_have_text(["Autumn shoes"])
    await page.get_by_role("searchbox").fill("")
    await page.get_by_label("Status").select_option("paused")
    await expect(names).to_have_text(["At rest"])


async def test_rows_in_sight_are_live(site: DashboardSite, visit: Visit) -> None:
    """What is bought shows with the next second: 2 of 10 is spent, 1 click of 2 impressions."""
    second(site)
    page = await visit("#/campaigns")
    shoes = row(page, "Autumn shoes")
    await expect(shoes).to_contain_text("0.00 / 10.00")
    await site.bought("shoes", TODAY, LedgerKind.IMPRESSION, 1.25)
    await site.bought("shoes", TODAY, LedgerKind.IMPRESSION, 0.75)
    await site.bought("shoes", TODAY, LedgerKind.CLICK)
    second(site)
    await expect(shoes).to_contain_text("2.000 / 10.00")
    await expect(shoes).to_contain_text("50.00")
    assert await shoes.locator(".budget-bar").evaluate("(bar) => bar.style.getPropertyValue('--share')") == "0.2"


async def test_a_hostile_name_stays_text_everywhere(site: DashboardSite, visit: Visit, page_errors: list[str]) -> None:
    """In the list, on its own page, in the address and in what is said about it."""
    second(site)
    page = await visit("#/campaigns")
    await row(page, HOSTILE).get_by_role("button", name="Pause").click()
    await said(page, f"{HOSTILE} is paused now")
    await row(page, HOSTILE).get_by_role("link").click()
    await expect(page.get_by_role("heading", level=1)).to_contain_text(HOSTILE)
    await expect(page).to_have_title("Campaign · rtb exchange")
    await page.goto(f"{site.origin}/#/campaigns/%3Cimg%20src=x%20onerror=alert(1)%3E")
    await expect(page.get_by_role("alert")).to_contain_text("unknown")
    await expect(page.locator("img")).to_have_count(0)
    page_errors.clear()  # of the campaign that there is not


async def test_ten_thousand_rows_keep_the_document_small(site: DashboardSite, visit: Visit) -> None:
    """Only what is in sight is in the document, wherever one scrolls; the keyboard gets to the last one."""
    await site.catalogue.put(
        [campaign(f"c{i:05}", 1.0, name=f"Campaign {i:05}", daily_budget=1.0) for i in range(10_000)]
    )
    second(site)
    page = await visit("#/campaigns")
    await expect(page.get_by_role("status").get_by_text("10,003")).to_be_visible()
    await page.get_by_role("columnheader", name="Campaign").get_by_role("button").click()
    table = page.get_by_role("region", name="Campaigns")
    await expect(table.get_by_role("table")).to_have_attribute("aria-rowcount", "10004")
    assert await page.locator("body *").count() < 2_000
    await table.focus()
    await page.keyboard.press("End")
    await expect(row(page, "Campaign 09999")).to_be_focused()
    await page.keyboard.press("ArrowUp")
    await expect(row(page, "Campaign 09998")).to_be_focused()
    assert await page.locator(".t-body .t-row").count() < 60
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", level=1)).to_contain_text("Campaign 09998")
