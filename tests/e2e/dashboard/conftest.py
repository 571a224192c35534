"""A whole dashboard and browsers that look at it; one chromium for all tests, a window of its own for each."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright

from rtb.adapters.clock import ManualClock
from rtb.domain.campaign import Status
from tests.e2e.conftest import CHROMIUM_ARGS, LIMIT_MS, START_LIMIT_MS
from tests.support.dashboard_site import DashboardSite
from tests.unit.metric_parts import Platform
from tests.unit.parts import Discreet, campaign, offer, world

HOSTILE = "<img src=x onerror=document.title='owned'>"
Visit = Callable[..., Awaitable[Page]]
KEEP_STATES = """
window.states = [];
new MutationObserver(() => {
  const state = document.documentElement.dataset.state;
  if (state && state !== window.states.at(-1)) window.states.push(state);
}).observe(document, { subtree: true, childList: true, attributes: true, attributeFilter: ["data-state"] });
window.said = [];
new MutationObserver((changes) => {
  for (const change of changes) for (const node of change.addedNodes)
    if (node.classList?.contains("toast")) window.said.push(node.textContent);
}).observe(document, { subtree: true, childList: true });
"""
"""A page is live for three seconds after a second has come, and says things for a few: both stay here, however late a
test looks."""


async def been(page: Page, *states: str) -> None:
    """Wait until the connection has been in each of these, one after the other."""
    await page.wait_for_function(
        "(wanted) => window.states.reduce((at, state) => at + (state === wanted[at]), 0) === wanted.length",
        arg=list(states),
    )


async def said(page: Page, text: str) -> None:
    """Wait until the page has said something with this in it."""
    await page.wait_for_function("(text) => window.said.some((line) => line.includes(text))", arg=text)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """They share the browser, so they share its loop."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here) and item.get_closest_marker("asyncio") is not None:
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def chromium() -> AsyncIterator[Browser]:
    """A headless chromium; without one the tests skip."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no chromium on this machine: run scripts/browser as root, or apt-get install chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=CHROMIUM_ARGS, timeout=START_LIMIT_MS)
        yield browser
        await browser.close()


@pytest.fixture
def platform() -> Platform:
    """A metric source beside the house's ledger, which knows nothing of any campaign at first."""
    return Platform("platform", batch=100)


@pytest_asyncio.fixture(loop_scope="session")
async def site(tmp_path: Path, platform: Platform) -> AsyncIterator[DashboardSite]:
    """A DSP that bids 2.5, and three campaigns: one with a budget of 10 a day, one with a hostile name, one paused."""
    made = world(
        str(tmp_path / "rtb.db"),
        Discreet("dsp", offer("dsp", 2.5)),
        campaigns=[
            campaign("shoes", 3.0, name="Autumn shoes", daily_budget=10.0),
            campaign("evil", 2.0, name=HOSTILE, advertiser=HOSTILE),
            campaign("rest", 1.0, name="At rest", status=Status.PAUSED),
        ],
        clock=ManualClock(),
    )
    site = DashboardSite(made, sources=[platform])
    await site.start()
    yield site
    await site.stop()
    await made.profiles.close()
    await made.repository.close()


@pytest.fixture
def page_errors() -> list[str]:
    """What pages complained about: uncaught exceptions, console errors. Any fails the test, but that a server which the
    test stopped is away."""
    return []


@pytest_asyncio.fixture(loop_scope="session")
async def visit(chromium: Browser, site: DashboardSite, page_errors: list[str]) -> AsyncIterator[Visit]:
    """Open a page as somebody who has logged in: ``await visit("#/campaigns", by="wall", width=360)``."""
    contexts = []

    async def open_page(page_hash: str = "#/", *, by: str = "ops", width: int = 1280, scheme: str = "light") -> Page:
        size = {"width": width, "height": 900}
        context = await chromium.new_context(viewport=size, color_scheme=scheme)  # type: ignore[arg-type]
        contexts.append(context)
        context.set_default_timeout(LIMIT_MS)
        await context.add_cookies([{"name": "rtb_session", "value": site.cookie(by), "url": site.origin}])
        page = await context.new_page()
        await page.add_init_script(KEEP_STATES)
        page.on("pageerror", lambda error: page_errors.append(str(error)))
        page.on("console", lambda line: page_errors.append(line.text) if line.type == "error" else None)
        await page.goto(f"{site.origin}/{page_hash}")
        return page

    yield open_page
    for context in contexts:
        await context.close()
    assert [line for line in page_errors if "ERR_CONNECTION_REFUSED" not in line] == []
