"""The auction inspector in a real browser: the live tape, and one auction explained as the API explains it."""

from __future__ import annotations

import re

from msgspec.structs import replace
from playwright.async_api import expect

from rtb.domain.privacy import Reason, Treatment
from rtb.openrtb import Site
from tests.e2e.dashboard.conftest import HOSTILE, Visit
from tests.support.dashboard_site import DashboardSite
from tests.support.seconds import second
from tests.unit.parts import Discreet, bid_request


async def test_the_tape_runs_and_tells_the_whole_story_of_an_auction(site: DashboardSite, visit: Visit) -> None:
    """An auction that is held while the page is open appears; its story is that of GET /api/auctions/{id}: who won at
    which price, who lost to what, who made no bid and why, and when the bidders answered."""
    second(site)
    page = await visit("#/auctions")
    await expect(page.locator(".t-empty")).to_be_visible()
    await site.world.run(bid_request())
    rows = page.locator(".t-body .t-row")
    await expect(rows).to_have_count(1)
    await expect(rows).to_contain_text("shoes")
    _, listed = await site.ask("GET", "/api/auctions/recent")
    [row] = listed["auctions"]
    _, told = await site.ask("GET", f"/api/auctions/{row['id']}")
    await rows.click()
    story = page.locator(".story")
    await expect(story.locator("h2").first).to_contain_text("shoes pays 2.510 CPM")
    assert page.url.endswith(f"#/auctions/{row['id']}")
    await expect(story.locator(".facts")).to_contain_text(row["request_id"])
    for verdict in told["explanation"]["verdicts"]:
        await expect(story).to_contain_text(verdict["why"])
    await expect(story.locator(".fate-won")).to_have_count(1)
    await expect(story.locator(".fate-lost")).to_have_count(2)
    await expect(story.locator(".waterfall")).to_contain_text("dsp")
    await page.reload()
    await expect(page.locator(".story h2").first).to_contain_text("shoes pays 2.510 CPM")


async def test_a_bidder_that_was_told_less_of_the_user(site: DashboardSite, visit: Visit) -> None:
    """How much less, and why, stands among the facts of the auction."""
    [dsp] = [bidder for bidder in site.world.exchange.bidders if isinstance(bidder, Discreet)]
    dsp.told = Treatment.ANONYMOUS, Reason.GDPR_VENDOR
    await site.world.run(bid_request())
    _, listed = await site.ask("GET", "/api/auctions/recent")
    page = await visit(f"#/auctions/{listed['auctions'][0]['id']}")
    facts = page.locator(".story .facts")
    fact = facts.locator("div", has_text="Told less of the user").locator("dd")
    await expect(fact).to_have_text("dsp (anonymous, gdpr: no consent for its vendor id)")


async def test_the_address_is_that_of_the_auction_told(site: DashboardSite, visit: Visit) -> None:
    """Opened by its address it keeps it; the way back to the tape, and the browser's back and forward, lead where they
    say."""
    await site.world.run(bid_request())
    _, listed = await site.ask("GET", "/api/auctions/recent")
    told = f"#/auctions/{listed['auctions'][0]['id']}"
    page = await visit(told, width=800)
    story, tape = page.locator(".story"), page.locator(".tape-side")
    await expect(story.locator("h2").first).to_contain_text("shoes pays 2.510 CPM")
    assert page.url == f"{site.origin}/{told}"
    await expect(tape).to_be_hidden()
    await page.get_by_role("button", name="Back to the tape").click()
    await expect(tape).to_be_visible()
    assert page.url == f"{site.origin}/#/auctions"
    await page.go_back()
    await expect(story.locator("h2").first).to_contain_text("shoes pays 2.510 CPM")
    await page.go_forward()
    await expect(tape).to_be_visible()
    await expect(story).to_be_hidden()


async def test_the_tape_can_be_held_and_searched(site: DashboardSite, visit: Visit) -> None:
    """What happens meanwhile is not shown; the search finds seats and outcomes."""
    page = await visit("#/auctions")
    await site.world.run(bid_request())
    rows = page.locator(".t-body .t-row")
    await expect(rows).to_have_count(1)
    await page.get_by_role("button", name="Hold the tape").click()
    site.world.clock.advance(1.0)
    await site.world.run(bid_request())
    second(site)  # what is told after the auction: it has been heard when this has
    await expect(page.locator("#asof")).to_have_text(re.compile(r":02$"))
    await page.get_by_role("button", name="Let it run").click()
    site.world.clock.advance(1.0)
    await site.world.run(bid_request())
    await expect(rows).to_have_count(2)
    await page.get_by_label("Search auctions").fill("nobody")
    await expect(rows).to_have_count(0)
    await page.get_by_label("Search auctions").fill("SHOES")
    await expect(rows).to_have_count(2)
    await page.get_by_label("Outcome").select_option("no-bid")
    await expect(rows).to_have_count(0)


async def test_what_comes_from_outside_stays_text(site: DashboardSite, visit: Visit) -> None:
    """A request with markup for its id and its site, and a campaign with markup for its name."""
    await site.world.run(replace(bid_request(site=Site(domain=HOSTILE)), id=HOSTILE))
    page = await visit("#/auctions")
    await page.locator(".t-body .t-row").click()
    await expect(page.locator(".story .facts")).to_contain_text(HOSTILE)
    assert await page.locator("img").count() == 0
    assert "owned" not in await page.title()


async def test_one_that_has_left_the_tape_is_said_to_have(
    site: DashboardSite, visit: Visit, page_errors: list[str]
) -> None:
    """An address may be older than the tape."""
    page = await visit("#/auctions/long-gone")
    await expect(page.locator(".story [role=alert]")).to_contain_text("long-gone")
    page_errors[:] = [line for line in page_errors if "404" not in line]
