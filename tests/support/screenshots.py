"""Takes pictures of every page of the demo's dashboard, in a real browser; scripts/screenshots runs it."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import sys
import tempfile
from pathlib import Path

from playwright.async_api import Browser, async_playwright

from tests.e2e.conftest import CHROMIUM_ARGS
from tests.support.dashboard_demo import Demo, add_alerts

WIDTHS = (360, 1440, 2560)
HEIGHTS = {360: 800, 1440: 900, 2560: 1440}
SCHEMES = ("light", "dark")
PAST_S = 900
AUCTION = "#/auctions/ONE"


async def main(folder: Path, wanted: list[str]) -> None:
    """Live through a quarter of an hour, then look at every page."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("screenshots: no chromium (apt-get install chromium)")
    with tempfile.TemporaryDirectory() as data:
        demo = Demo(Path(data))
        await demo.start()
        print("living through a quarter of an hour, which takes a minute ...", file=sys.stderr)
        await demo.live(PAST_S)
        await add_alerts(demo.site)
        pages = {
            "overview": "#/",
            "campaigns": "#/campaigns",
            "campaign": "#/campaigns/autumn-shoes",
            "auctions": "#/auctions",
            "auction": AUCTION,
            "bidders": "#/bidders",
            "alerts": "#/alerts",
            "queues": "#/queues",
        }
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_ARGS)
            for name in wanted or pages:
                for scheme, width in itertools.product(SCHEMES, WIDTHS):
                    page_hash = pages[name]
                    if page_hash == AUCTION:  # the tape goes on, and forgets
                        page_hash = f"#/auctions/{demo.site.tape.recent(5)[-1].id}"
                    await _shoot(browser, demo, folder / f"{name}-{scheme}-{width}.png", page_hash, scheme, width)
            await browser.close()
        await demo.stop()


async def _shoot(browser: Browser, demo: Demo, file: Path, page_hash: str, scheme: str, width: int) -> None:
    size = {"width": width, "height": HEIGHTS[width]}
    context = await browser.new_context(viewport=size, color_scheme=scheme)  # type: ignore[arg-type]
    await context.add_cookies([{"name": "rtb_session", "value": demo.site.cookie("ops"), "url": demo.site.origin}])
    page = await context.new_page()
    page.on("pageerror", lambda error: print(f"{file.name}: {error}", file=sys.stderr))
    page.on("console", lambda line: line.type == "error" and print(f"{file.name}: {line.text}", file=sys.stderr))
    await page.goto(f"{demo.site.origin}/{page_hash}")
    await page.locator("html[data-state=live]").wait_for()
    for _ in range(3):
        await demo.second()
        await page.wait_for_timeout(250)
    await page.screenshot(path=file, full_page=width != 2560)
    print(file)
    await context.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2:]))
