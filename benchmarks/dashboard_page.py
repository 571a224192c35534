"""What the dashboard's page costs the browser: how soon it is alive, how much it loads, how a long table scrolls.

python -m benchmarks.dashboard_page [visits] [campaigns]

A headless chromium without a graphics card, on loopback, with an empty cache at every visit. The page is alive when the
first live number stands in it; by then it takes clicks. The server runs in this process.
"""

from __future__ import annotations

import asyncio
import gzip
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import structlog
from playwright.async_api import Browser, Page, Response, async_playwright

from tests.e2e.conftest import CHROMIUM_ARGS
from tests.support.dashboard_site import DashboardSite
from tests.support.seconds import second
from tests.unit.parts import campaign, world

WATCH = """
const look = () => {
  const value = document.querySelector('[data-value="auctions"]');
  if (value && /\\d/.test(value.textContent)) window.aliveAt = performance.now();
  else requestAnimationFrame(look);
};
requestAnimationFrame(look);
"""
ROW_PX = 40
SCROLL = """
async (pixels) => {
  const box = document.querySelector(".t-box");
  const frames = [];
  let longTasks = 0;
  new PerformanceObserver((list) => (longTasks += list.getEntries().length)).observe({ entryTypes: ["longtask"] });
  let last = await new Promise(requestAnimationFrame);
  for (let i = 0; i < 300; i++) {
    box.scrollTop += pixels;
    const now = await new Promise(requestAnimationFrame);
    frames.push(now - last);
    last = now;
  }
  frames.sort((a, b) => a - b);
  const rows = box.querySelectorAll(".t-body .t-row").length;
  return [frames[150], frames[285], frames[299], longTasks, rows, document.querySelectorAll("*").length];
}
"""


async def main(visits: int, campaigns: int) -> None:
    """Print the figures."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    with tempfile.TemporaryDirectory() as folder:
        names = [campaign(f"c{n:05}", daily_budget=100.0) for n in range(campaigns)]
        made = world(str(Path(folder) / "rtb.db"), campaigns=names)
        site = DashboardSite(made)
        await site.start()
        for n in range(300):
            second(site, won=200 + n % 50, no_bid=40, latency_ms=1 + n % 9)
        async with async_playwright() as playwright:
            path = shutil.which("chromium") or shutil.which("google-chrome")
            browser = await playwright.chromium.launch(executable_path=path, args=CHROMIUM_ARGS)
            await _print_loading(browser, site, visits)
            await _print_scrolling(browser, site)
            await browser.close()
        await site.stop()
        await made.profiles.close()
        await made.repository.close()


async def _print_loading(browser: Browser, site: DashboardSite, visits: int) -> None:
    alive: list[float] = []
    sizes: dict[str, int] = {}
    for _ in range(visits):
        page = await _open(browser, site)
        answers: list[Response] = []
        page.on("response", _collector(answers))
        await page.add_init_script(WATCH)
        await page.goto(site.origin)
        await page.wait_for_function("() => window.aliveAt !== undefined")
        alive.append(await page.evaluate("() => window.aliveAt"))
        sizes = {answer.url: len(gzip.compress(await answer.body())) for answer in answers if "/api/" not in answer.url}
        await page.context.close()
    print(f"alive after {statistics.median(alive):.0f} ms ({min(alive):.0f} to {max(alive):.0f}, {visits} visits)")
    print(f"overview: {len(sizes)} files, {sum(sizes.values()) / 1e3:.1f} KB gzipped")


async def _print_scrolling(browser: Browser, site: DashboardSite) -> None:
    page = await _open(browser, site)
    await page.goto(f"{site.origin}/#/campaigns")
    total = len(list(site.world.house.campaigns()))
    await page.wait_for_function(
        "(rows) => document.querySelector('.t-grid')?.getAttribute('aria-rowcount') === rows", arg=str(total + 1)
    )
    for further in (3, 15):
        p50, p95, most, long_tasks, rows, elements = await page.evaluate(SCROLL, further * ROW_PX)
        print(
            f"{total} rows, {further} of them further a frame: frame p50 {p50:.1f} ms, p95 {p95:.1f} ms, "
            f"longest {most:.1f} ms, {long_tasks:.0f} tasks over 50 ms"
        )
    print(f"{rows} rows and {elements} elements in the document")
    await page.context.close()


def _collector(answers: list[Response]) -> Callable[[Response], None]:
    def collect(answer: Response) -> None:
        answers.append(answer)

    return collect


async def _open(browser: Browser, site: DashboardSite) -> Page:
    context = await browser.new_context(viewport={"width": 1440, "height": 900})
    await context.add_cookies([{"name": "rtb_session", "value": site.cookie("ops"), "url": site.origin}])
    return await context.new_page()


if __name__ == "__main__":
    asyncio.run(main(*(int(text) for text in (sys.argv[1:] + ["10", "10000"][len(sys.argv) - 1 :]))))
