"""Alerts in a real browser: made, firing, acknowledged, changed and deleted, by those who may."""

from __future__ import annotations

from playwright.async_api import Page, expect

from tests.e2e.dashboard.conftest import HOSTILE, Visit
from tests.support.dashboard_site import DashboardSite

RULE = {"id": "few", "name": HOSTILE, "metric": "bid_rate", "condition": "less_than", "threshold": 0.8}


async def open_form(page: Page, **fields: str) -> None:
    await page.get_by_role("button", name="New rule").click()
    for label, value in fields.items():
        await page.locator(f".rule-form [name={label}]").fill(value)


async def test_an_alert_is_made_fires_and_is_acknowledged(site: DashboardSite, visit: Visit) -> None:
    """The page follows by itself; the API has what the page shows, and who acknowledged."""
    page = await visit("#/alerts")
    await open_form(page, id="few-bids", name="Few bids", threshold="0.8", for_s="0")
    await page.locator(".rule-form [name=metric]").select_option("bid_rate")
    await page.locator(".rule-form [name=condition]").select_option("less_than")
    await page.get_by_role("button", name="Save").click()
    rule = page.locator(".alert", has_text="Few bids")
    await expect(rule).to_contain_text("bid_rate is below 0.8")
    await site.alerts.look()
    await expect(rule.locator(".phase")).to_have_text("firing")
    await rule.get_by_role("button", name="Acknowledge").click()
    await expect(rule).to_contain_text("acknowledged by ops")
    _, listed = await site.ask("GET", "/api/alerts")
    [row] = listed["alerts"]
    assert (row["phase"], row["acknowledged_by"], row["rule"]["threshold"]) == ("firing", "ops", 0.8)


async def test_a_rule_of_an_unknown_campaign_is_marked(site: DashboardSite, visit: Visit) -> None:
    """With the field, and what to do; one of the system is not."""
    rule = {"id": "few", "campaign_id": HOSTILE, "metric": "clicks", "condition": "less_than", "threshold": 1}
    status, row = await site.ask("POST", "/api/alerts", rule)
    assert (status, row["warning"].startswith("campaign_id: no campaign ")) == (201, True)
    assert (await site.ask("POST", "/api/alerts", {**RULE, "id": "system"}))[1]["warning"] == ""
    page = await visit("#/alerts")
    warning = page.locator(".alert .warning:visible")
    await expect(warning).to_have_text(row["warning"])
    assert await page.locator("img").count() == 0


async def test_what_cannot_be_a_rule_is_not_sent(site: DashboardSite, visit: Visit) -> None:
    """The fields say what they take: an id without spaces, and numbers with a point, which a comma is not dropped
    from."""
    page = await visit("#/alerts")
    await open_form(page, id="few bids", threshold="0,5", for_s="x")
    await page.get_by_role("button", name="Save").click()
    invalid = page.locator(".rule-form input:invalid")
    assert await invalid.evaluate_all("(fields) => fields.map((field) => field.name)") == ["id", "threshold", "for_s"]
    for name, value in (("id", "few-bids:1"), ("threshold", "-5e-7"), ("for_s", ".5")):
        await page.locator(f".rule-form [name={name}]").fill(value)
    await expect(invalid).to_have_count(0)
    await page.get_by_role("button", name="Save").click()
    await expect(page.locator("main h1")).to_contain_text("1 rule, 0 firing")
    [row] = (await site.ask("GET", "/api/alerts"))[1]["alerts"]
    assert (row["rule"]["id"], row["rule"]["threshold"], row["rule"]["for_s"]) == ("few-bids:1", -5e-7, 0.5)


async def test_a_rule_is_changed_and_deleted(site: DashboardSite, visit: Visit) -> None:
    """What the server refuses stands beside the form, in its words; a hostile name stays text."""
    assert (await site.ask("POST", "/api/alerts", RULE))[0] == 201
    page = await visit("#/alerts")
    rule = page.locator(".alert")
    await expect(rule.locator("h2")).to_have_text(HOSTILE)
    assert await page.locator("img").count() == 0
    await rule.get_by_role("button", name="Edit").click()
    await page.locator(".rule-form [name=threshold]").fill("0.4")
    await page.get_by_role("button", name="Save").click()
    await expect(rule).to_contain_text("bid_rate is below 0.4")
    assert (await site.ask("GET", "/api/alerts"))[1]["alerts"][0]["rule"]["threshold"] == 0.4
    page.on("dialog", lambda dialog: dialog.accept())
    await rule.get_by_role("button", name="Delete").click()
    await expect(page.locator(".alert")).to_have_count(0)
    assert (await site.ask("GET", "/api/alerts"))[1]["alerts"] == []


async def test_a_rule_that_is_refused_is_said_to_be(site: DashboardSite, visit: Visit, page_errors: list[str]) -> None:
    """Two rules cannot have one id."""
    assert (await site.ask("POST", "/api/alerts", RULE))[0] == 201
    page = await visit("#/alerts")
    await open_form(page, id="few", threshold="1")
    await page.get_by_role("button", name="Save").click()
    await expect(page.locator(".rule-form [role=alert]")).to_contain_text("'few' exists")
    page_errors[:] = [line for line in page_errors if "409" not in line]


async def test_a_viewer_looks_on(site: DashboardSite, visit: Visit) -> None:
    """Without anything to act with."""
    assert (await site.ask("POST", "/api/alerts", RULE))[0] == 201
    page = await visit("#/alerts", by="wall")
    await expect(page.locator(".alert")).to_have_count(1)
    await expect(page.locator(".alert button")).to_have_count(0)
    await expect(page.get_by_role("button", name="New rule")).to_be_disabled()
