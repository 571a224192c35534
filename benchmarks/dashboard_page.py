"""What the dashboard's page costs the browser: how soon it is alive, how much it loads, how a long table scrolls.

python -m benchmarks.dashboard_page [visits] [campaigns]

A headless chromium without a graphics card, on loopback, with an empty cache at every visit. The page is interactive
when it is mounted, and alive when the first live number stands in it. What it loads is counted in a visit of its own,
for counting takes time. Of scrolling there are two figures: the processor time of the main thread for a frame (script,
style, layout, paint), of which 16.7 ms are there, and how far apart the frames were, which on a machine without a
graphics card is mostly the drawing of pixels, and everything else that runs there. The server runs in this process.
"""

from __future__ import annotations

import asyncio
import gzip
import shutil
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import structlog
from playwright.async_api import Browser, Page, Response, async_playwright

from benchmarks import page_trace
from tests.e2e.conftest import CHROMIUM_ARGS
from tests.support.dashboard_site import DashboardSite
from tests.support.seconds import second
from tests.unit.parts import campaign, world

WATCH = """
const look = () => {
  if (document.documentElement.dataset.page) window.takesClicksAt ??= performance.now();
  const value = document.querySelector('[data-value="auctions"]');
  if (value && /\\d/.test(value.textContent)) window.aliveAt = performance.now();
  else requestAnimationFrame(look);
};
requestAnimationFrame(look);
"""
ROW_PX = 40
BUDGET_MS = 1_000 / 60
FRAMES = 200
SCROLL = """
async ([pixels, frames]) => {
  const box = document.querySelector(".t-box");
  const times = [];
  let last = await new Promise(requestAnimationFrame);
  for (let i = 0; i < frames; i++) {
    box.scrollTop += pixels;
    const now = await new Promise(requestAnimationFrame);
    times.push(now - last);
    last = now;
  }
  const rows = box.querySelectorAll(".t-body .t-row").length;
  return [times, rows, document.querySelectorAll("*").length];
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
    interactive: list[float] = []
    alive: list[float] = []
    for _ in range(visits):
        async with _visit(browser, site) as page:
            interactive.append(await page.evaluate("() => window.takesClicksAt"))
            alive.append(await page.evaluate("() => window.aliveAt"))
    for what, at in (("interactive", interactive), ("alive", alive)):
        print(f"{what} after {statistics.median(at):.0f} ms ({min(at):.0f} to {max(at):.0f}, {visits} visits)")
    answers: list[Response] = []
    async with _visit(browser, site, _collector(answers)):
        sizes = {answer.url: len(gzip.compress(await answer.body())) for answer in answers if "/api/" not in answer.url}
    print(f"overview: {len(sizes)} files, {sum(sizes.values()) / 1e3:.1f} KB gzipped")


@asynccontextmanager
async def _visit(
    browser: Browser, site: DashboardSite, heard: Callable[[Response], None] | None = None
) -> AsyncIterator[Page]:
    """The overview, alive; `heard` is told of every response."""
    page = await _open(browser, site)
    if heard is not None:
        page.on("response", heard)
    await page.add_init_script(WATCH)
    await page.goto(site.origin)
    await page.wait_for_function("() => window.aliveAt !== undefined")
    yield page
    await page.context.close()


async def _print_scrolling(browser: Browser, site: DashboardSite) -> None:
    page = await _open(browser, site)
    await page.goto(f"{site.origin}/#/campaigns")
    total = len(list(site.world.house.campaigns()))
    await page.wait_for_function(
        "(rows) => document.querySelector('.t-grid')?.getAttribute('aria-rowcount') === rows", arg=str(total + 1)
    )
    for further in (3, 15):
        await page_trace.start(browser, page)
        apart, rows, elements = await page.evaluate(SCROLL, [further * ROW_PX, FRAMES])
        frames = (await page_trace.stop(browser)).frames()
        costs = [sum(frame.values()) for frame in frames]
        kinds = sum(frames, Counter())
        print(f"{total} rows, {further} of them further a frame, {len(frames)} frames:")
        print(
            f"  main thread {_spread(costs)} a frame, {sum(cost > BUDGET_MS for cost in costs)} above {BUDGET_MS:.1f}; "
            + ", ".join(f"{kind} {took / len(frames):.1f}" for kind, took in kinds.most_common())
        )
        print(f"  frames {_spread(apart)} apart")
    print(f"{rows} rows and {elements} elements in the document")
    await page.context.close()


def _spread(values: Sequence[float]) -> str:
    ordered = sorted(values)
    p50, p95, p99 = (ordered[min(len(ordered) - 1, int(share * len(ordered)))] for share in (0.5, 0.95, 0.99))
    return f"p50 {p50:.1f}, p95 {p95:.1f}, p99 {p99:.1f} ms"


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
