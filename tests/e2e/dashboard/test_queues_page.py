"""Queues and instances in a real browser: the numbers of the API."""

from __future__ import annotations

from playwright.async_api import expect

from tests.e2e.dashboard.conftest import Visit
from tests.support.dashboard_site import DashboardSite
from tests.support.seconds import second


async def test_queues_are_those_of_the_api(site: DashboardSite, visit: Visit) -> None:
    """Depth, work, consumers and rates; and what waits for the broker."""
    second(site)
    page = await visit("#/queues")
    _, listed = await site.ask("GET", "/api/queues")
    [queue] = listed["queues"]
    row = page.locator(".t-body .t-row")
    await expect(row).to_have_count(1)
    cells = row.locator(".t-cell")
    await expect(cells.nth(0)).to_have_text(queue["name"])
    await expect(cells.nth(1)).to_have_text(str(queue["ready"]))
    await expect(cells.nth(2)).to_have_text(str(queue["unacked"]))
    await expect(cells.nth(3)).to_have_text(str(queue["consumers"]))
    await expect(page.locator('[data-value="outbox"]')).to_have_text("4")


async def test_instances_stand_beside_them(site: DashboardSite, visit: Visit) -> None:
    """Each with its state."""
    second(site)
    page = await visit("#/queues")
    _, listed = await site.ask("GET", "/api/instances")
    table = page.get_by_role("region", name="Table of instances")
    for instance in listed["instances"]:
        await expect(table).to_contain_text(instance["instance"])
        await expect(table).to_contain_text(instance["state"])
