"""The overview and the header in a real browser: live numbers, the badge, pause and rewind, one instance."""

from __future__ import annotations

import re

from playwright.async_api import Locator, Page, expect

from rtb.services.metrics import Metrics
from tests.e2e.dashboard.conftest import HOSTILE, KEEP_STATES, Visit, been
from tests.support.dashboard_site import DashboardSite
from tests.support.seconds import second


def value(page: Page, name: str) -> Locator:
    return page.locator(f'[data-value="{name}"]')


async def test_numbers_are_the_apis_and_move_with_every_second(site: DashboardSite, visit: Visit) -> None:
    """1,200 auctions, 900 of them won with 4 bids each at 0.001 USD; then a different second."""
    second(site, won=900, no_bid=300, latency_ms=4.0)
    page = await visit()
    await been(page, "live")
    _, told = await site.ask("GET", "/api/metrics")
    assert (told["rates"]["auctions"], told["bid_rate"], told["win_rate"]) == (1200.0, 0.75, 0.25)
    await expect(value(page, "auctions")).to_have_text("1,200")
    await expect(value(page, "bid_rate")).to_have_text("75.0")
    await expect(value(page, "win_rate")).to_have_text("25.0")
    await expect(value(page, "spend")).to_have_text("0.900")
    # 4 ms, at most 1/32 above
    await expect(value(page, "p99")).to_have_text(re.compile(r"^4\.(0\d|1[0-2])$"))
    await expect(page.get_by_role("row", name="no eligible demand")).to_have_text(re.compile("500.*300.*300"))
    await expect(page.get_by_role("row", name="outbid")).to_have_text(re.compile("102.*2,700.*2,700"))
    await expect(value(page, "queue_ready")).to_have_text("3")

    second(site, won=10, no_bid=40, latency_ms=150)
    await expect(value(page, "auctions")).to_have_text("50.0")
    await expect(page.locator('[data-tile="auctions"]')).to_contain_text("1,250 in total")
    await expect(value(page, "bid_rate")).to_have_text("20.0")
    await expect(page.locator("tr.over")).to_have_count(4)  # every percentile is beyond the 100 ms line
    heat = page.locator(".heat-canvas")
    await expect(heat).to_have_attribute("aria-label", re.compile("50 of 1,250 auctions took longer than 100 ms"))


async def test_charts_tell_in_words_what_they_draw(site: DashboardSite, visit: Visit) -> None:
    """As the label of the picture, and as a table."""
    for won in (100, 300, 200):
        second(site, won=won)
    page = await visit()
    chart = page.locator("figure", has=page.get_by_role("heading", name="Auctions /s"))
    await expect(chart.get_by_role("img")).to_have_attribute(
        "aria-label", re.compile("answered 200 /s, from 100 to 300")
    )
    await chart.get_by_role("button", name="Auctions as a table").click()
    await expect(chart.locator("tbody tr")).to_have_text([re.compile("200$"), re.compile("300$"), re.compile("100$")])


async def test_charts_of_a_young_server_are_filled(site: DashboardSite, visit: Visit) -> None:
    """They begin with its first second, or a minute ago, and grow up to the range."""
    for _ in range(3):
        second(site, won=1)
    page = await visit()
    heat = page.locator(".heat-canvas")
    await expect(heat).to_have_attribute("aria-label", re.compile("over 1 m 00 s: 0 of 3 auctions"))
    for _ in range(80):
        second(site, won=1)
    await expect(heat).to_have_attribute("aria-label", re.compile("over 1 m 22 s: 0 of 82 auctions"))


async def test_a_page_that_was_there_before_the_first_second_knows_the_instance(
    site: DashboardSite, visit: Visit
) -> None:
    """The greeting has named none; with the first second there is one."""
    page = await visit()
    await page.wait_for_function("() => document.documentElement.dataset.page")
    second(site)
    await expect(page.locator("#instance option").first).to_have_text("1 instance")


async def test_other_pages_open_while_the_server_is_away(site: DashboardSite, visit: Visit) -> None:
    """They were fetched once the first one stood."""
    second(site)
    page = await visit()
    await page.wait_for_function(
        "() => performance.getEntriesByType('resource').some((one) => one.name.endsWith('css/pages/queues.css'))"
    )
    await site.runner.cleanup()
    await expect(page.locator("#state")).to_have_text("reconnecting")
    for name in ("Bidders", "Alerts", "Queues"):
        await page.get_by_role("link", name=name).first.click()
        await expect(page.get_by_role("heading", level=1)).to_contain_text(name)


async def test_badge_turns_stale_when_seconds_stop_and_live_when_they_come_again(
    site: DashboardSite, visit: Visit
) -> None:
    """Being connected is not being live."""
    second(site, won=1)
    page = await visit()
    await been(page, "live")
    await expect(page.locator("#state")).to_have_text("stale")
    second(site, won=1)
    await been(page, "live", "stale", "live")


async def test_page_comes_back_by_itself_after_the_server_was_killed(site: DashboardSite, visit: Visit) -> None:
    """The badge says so meanwhile, the numbers are the new server's, and what was seen before stays in the charts."""
    second(site, won=100)
    page = await visit("#/")
    await been(page, "live")
    await site.runner.cleanup()
    await expect(page.locator("#state")).to_have_text("reconnecting")
    await expect(page.locator("html")).to_have_attribute("data-state", "reconnecting")

    site.world.clock.advance(20)
    reborn = DashboardSite(site.world, port=site.port)
    await reborn.start()
    second(reborn, won=70)
    second(reborn, won=80)
    await expect(value(page, "auctions")).to_have_text("80.0")
    await been(page, "live", "reconnecting", "live")
    chart = page.locator("figure", has=page.get_by_role("heading", name="Auctions /s"))
    await chart.get_by_role("button", name="Auctions as a table").click()
    await expect(chart.locator("tbody tr").first).to_have_text(re.compile("80.0$"))
    await expect(chart.locator("tbody tr").last).to_have_text(re.compile("100$"))
    await reborn.stop()


async def test_pause_keeps_the_second_and_rewind_goes_back(site: DashboardSite, visit: Visit) -> None:
    """Tiles and charts stand still while seconds pass; the slider leads to earlier ones; resuming shows now."""
    for won in (100, 200, 300):
        second(site, won=won)
    page = await visit()
    await expect(value(page, "auctions")).to_have_text("300")
    await page.get_by_role("button", name="Pause").click()
    second(site, won=400)
    await expect(page.locator("#asof")).to_have_text(re.compile(r":04$"))
    await expect(value(page, "auctions")).to_have_text("300")
    slider = page.get_by_role("slider", name="Rewind")
    await slider.press("ArrowLeft")
    await expect(value(page, "auctions")).to_have_text("200")
    await expect(page.locator("#moment")).to_have_text(re.compile(r":02$"))
    await page.get_by_role("button", name="Pause").click()
    await expect(value(page, "auctions")).to_have_text("400")
    await expect(page.locator("#moment")).to_have_text("live")


async def test_one_instance_can_be_looked_at_and_hostile_names_are_only_text(site: DashboardSite, visit: Visit) -> None:
    """Merged it is the sum; a name with markup in it is shown as it is."""
    other = Metrics(HOSTILE, site.world.clock)
    for _ in range(2):
        other.won += 40
        site.source.receive(other.frame())
        second(site, won=60)
    page = await visit()
    await expect(value(page, "auctions")).to_have_text("100")
    await expect(page.get_by_role("row", name=HOSTILE)).to_contain_text("live")
    await page.get_by_label("Instance", exact=True).select_option(HOSTILE)
    await expect(value(page, "auctions")).to_have_text("40.0")
    other.won += 41
    site.source.receive(other.frame())
    second(site, won=60)
    await expect(value(page, "auctions")).to_have_text("41.0")
    await expect(page).to_have_title("Overview · rtb exchange")
    await expect(page.locator("img")).to_have_count(0)


async def test_colours_follow_the_viewers_choice(site: DashboardSite, visit: Visit) -> None:
    """And the choice is kept."""
    second(site, won=1)
    page = await visit(scheme="light")
    ground = "() => getComputedStyle(document.body).backgroundColor"
    assert await page.evaluate(ground) == "rgb(245, 246, 248)"
    await page.get_by_label("Colours").select_option("dark")
    assert await page.evaluate(ground) == "rgb(11, 14, 18)"
    await page.reload()
    assert await page.evaluate(ground) == "rgb(11, 14, 18)"


async def test_logging_out_in_one_window_ends_the_others(
    site: DashboardSite, visit: Visit, page_errors: list[str]
) -> None:
    """All windows of the session are at the login page, by themselves; another session stays where it is."""
    second(site, won=100)
    page, stays = await visit(), await visit(by="wall")
    other = await page.context.new_page()
    await other.add_init_script(KEEP_STATES)
    await other.goto(site.origin)
    for window in (page, other, stays):
        await been(window, "live")
    await page.get_by_role("button", name="Log out").click()
    for window in (page, other):
        await expect(window.get_by_label("Token")).to_be_visible()
    second(site, won=200)
    await expect(value(stays, "auctions")).to_have_text("200")
    page_errors[:] = [line for line in page_errors if "401" not in line and "/ws" not in line]
