"""Remote bidders in a real browser: how they do, what they are refused for, and none at all."""

from __future__ import annotations

from playwright.async_api import expect

from rtb.domain.bidder_policy import BidderSettings
from rtb.services.bidder_health import BidderHealth
from tests.e2e.dashboard.conftest import Visit
from tests.support.dashboard_site import DashboardSite
from tests.support.seconds import second
from tests.unit.parts import MS


async def test_without_bidders_the_page_says_how_to_get_one(site: DashboardSite, visit: Visit) -> None:
    """It names the setting."""
    second(site)
    page = await visit("#/bidders")
    await expect(page.locator(".t-empty")).to_contain_text("[bidders] file")


async def test_a_bidder_is_told_with_its_answers_and_its_failures(site: DashboardSite, visit: Visit) -> None:
    """Two answers of which one bid, a timeout, and a wrong status: 4 calls, one late, one failed."""
    health = BidderHealth(BidderSettings(name="acme", url="https://acme.example/bid"), site.world.clock)
    site.bidders.append(health)
    second(site)
    now_ns = site.world.clock.monotonic_ns()
    for _ in range(4):
        assert health.refusal(now_ns) is None
    health.answered(now_ns, 20 * MS, 1, 0)
    health.answered(now_ns, 30 * MS, 0, 0)
    health.timed_out(now_ns)
    health.failed(now_ns, "status-500")
    second(site)
    page = await visit("#/bidders")
    _, listed = await site.ask("GET", "/api/bidders")
    [row] = listed["bidders"]
    assert (row["calls"], row["bids"], row["timeouts"], row["errors"]) == (4, 1, 1, {"status-500": 1})
    line = page.locator(".t-body .t-row")
    await expect(line).to_contain_text("acme")
    await expect(line).to_contain_text("taking part")
    why = page.get_by_role("region", name="Why acme did not bid")
    await expect(why).to_contain_text("late")
    await expect(why).to_contain_text("failed: status-500")
