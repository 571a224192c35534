"""What holds for every page: usable with a keyboard and a screen reader, fits every screen, small on the wire."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, Response, expect

from tests.e2e.conftest import LIMIT_MS
from tests.e2e.dashboard.conftest import KEEP_STATES, been
from tests.support.dashboard_demo import Demo, add_alerts

ROOT = Path(__file__).parents[3]
AXE = ROOT / "node_modules" / "axe-core" / "axe.min.js"
MOST_BYTES = 150_000
PAGES = ["#/", "#/campaigns", "#/campaigns/autumn-shoes", "#/auctions", "AUCTION", "#/bidders", "#/alerts", "#/queues"]


@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def demo(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Demo]:
    """A quarter of a minute of traffic, with alerts and everything."""
    demo = Demo(tmp_path_factory.mktemp("demo"))
    await demo.start()
    await demo.live(15)
    await add_alerts(demo.site)
    yield demo
    await demo.stop()


@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def page(chromium: Browser, demo: Demo) -> AsyncIterator[Page]:
    """One window for all of them: going from page to page is part of it."""
    context = await chromium.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light")
    context.set_default_timeout(LIMIT_MS)
    await context.add_cookies([{"name": "rtb_session", "value": demo.site.cookie("ops"), "url": demo.site.origin}])
    page = await context.new_page()
    await page.add_init_script(KEEP_STATES)
    await page.goto(demo.site.origin)
    yield page
    await context.close()


async def show(page: Page, demo: Demo, page_hash: str) -> None:
    """Go there, and let it live through a second."""
    if page_hash == "AUCTION":
        page_hash = f"#/auctions/{demo.site.tape.recent(1)[0].id}"
    await page.evaluate("(hash) => { location.hash = hash }", page_hash)
    name = page_hash.split("/")[1] or "overview"
    await expect(page.locator("html")).to_have_attribute("data-page", name)
    await expect(page.locator("main h1").first).not_to_be_empty()
    await demo.second()
    await been(page, "live")
    await painted(page)


async def painted(page: Page) -> None:
    """Wait until what has changed is laid out and drawn."""
    await page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


async def serious(page: Page, rules: str) -> list[Any]:
    """What axe finds that keeps somebody from using the page; `rules` are options of ``axe.run``."""
    found: dict[str, Any] = await page.evaluate(f"() => axe.run({{resultTypes: ['violations'], {rules}}})")
    return [
        (violation["id"], violation["impact"], [node["html"][:160] for node in violation["nodes"][:3]])
        for violation in found["violations"]
        if violation["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("page_hash", PAGES)
async def test_usable_by_everybody_and_on_every_screen(page: Page, demo: Demo, page_hash: str) -> None:
    """axe finds nothing serious (WCAG 2.2 A and AA) in light and dark colours; from 360 to 2560 pixels nothing sticks
    out sideways and no big number is cut off."""
    await page.set_viewport_size({"width": 1280, "height": 900})
    await page.emulate_media(color_scheme="light", reduced_motion="reduce")
    await show(page, demo, page_hash)
    if AXE.exists():
        await page.evaluate(AXE.read_text(encoding="utf-8"))
        assert await serious(page, "runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa']") == []
        await page.emulate_media(color_scheme="dark")
        await demo.second()  # a stale page is grey
        assert await serious(page, "runOnly: ['color-contrast']") == []
    for width in (360, 800, 1440, 2560):
        await page.set_viewport_size({"width": width, "height": 900})
        await painted(page)
        cut: list[str] = await page.evaluate(
            "() => [document.documentElement, ...document.querySelectorAll('.big, .badge, .pill, .button')]"
            ".filter((e) => e.offsetParent !== null || e === document.documentElement)"
            ".filter((e) => e.scrollWidth > Math.ceil(e.getBoundingClientRect().width))"
            ".map((e) => e.outerHTML.slice(0, 80))"
        )
        assert (width, cut) == (width, [])
    if not AXE.exists():
        pytest.skip("looked at the widths only, axe-core is not there: python scripts/vendor.py --checks")


async def test_every_page_can_be_reached_on_a_small_screen(page: Page, demo: Demo) -> None:
    """Their names stand side by side in 360 pixels, with the number of alerts."""
    await page.set_viewport_size({"width": 360, "height": 640})
    await show(page, demo, "#/queues")
    await expect(page.locator("#firing")).to_be_visible()
    names = page.locator("nav a")
    for number in range(await names.count()):
        await expect(names.nth(number)).to_be_in_viewport(ratio=1)


async def test_the_whole_page_is_small(chromium: Browser, demo: Demo) -> None:
    """Everything that all pages load, each file gzipped, is below 150 KB; nothing is loaded from elsewhere."""
    context = await chromium.new_context()
    context.set_default_timeout(LIMIT_MS)
    await context.add_cookies([{"name": "rtb_session", "value": demo.site.cookie("ops"), "url": demo.site.origin}])
    page = await context.new_page()
    await page.add_init_script(KEEP_STATES)
    answers: list[Response] = []
    page.on("response", lambda answer: answers.append(answer))
    await page.goto(demo.site.origin)
    for page_hash in PAGES:
        await show(page, demo, page_hash)
    sizes = {}
    for answer in answers:
        assert answer.url.startswith(demo.site.origin)
        if "/api/" not in answer.url:
            sizes[answer.url] = len(gzip.compress(await answer.body()))
    await context.close()
    assert len(sizes) > 20
    assert sum(sizes.values()) < MOST_BYTES, json.dumps(sizes, indent=1)


def test_nothing_becomes_markup() -> None:
    """No module writes HTML, and no page has inline scripts or styles, which the policy would refuse."""
    web = ROOT / "dashboard" / "web"
    for file in [*web.glob("*.js"), *web.glob("lib/*.js"), *web.glob("pages/*.js")]:
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", file.read_text()), file
    for file in web.glob("*.html"):
        assert not re.search(r"<style|style=|<script>|\son\w+=", file.read_text()), file


def test_the_sheet_of_one_page_changes_no_other() -> None:
    """All of them are loaded in the end: each speaks of classes, and begins with none that another begins with."""
    owners: dict[str, str] = {}
    for sheet in sorted((ROOT / "dashboard" / "web" / "css" / "pages").glob("*.css")):
        text = re.sub(r"/\*.*?\*/|@media[^{]*\{", "", sheet.read_text(), flags=re.DOTALL)
        for selector in ",".join(re.findall(r"([^{}]+)\{", text)).split(","):
            first = re.match(r"\s*(\.[\w-]+)", selector)
            assert first is not None, f"{sheet.name}: {selector.strip()}"
            assert owners.setdefault(first[1], sheet.name) == sheet.name, f"{sheet.name}: {selector.strip()}"
