"""What the dashboard's page costs the browser: how soon it is alive, how much it loads, how a long table scrolls.

python -m benchmarks.dashboard_page [visits] [campaigns]

A headless chromium without a graphics card, on loopback. The server runs in a process of its own, as a user has it, and
tells a snapshot every second; beside it and the browser there is only the driver, which waits. Every visit is made in a
new window with an empty cache, once that window is quiet. The page is interactive when it is mounted, and alive when
the first live number stands in it, both counted from when the browser began to navigate (`performance.timeOrigin`); the
first frame of the login page, which has no script, tells what the browser itself takes. What the page loads is counted
in a visit of its own, for counting takes time. Of scrolling there are two figures: the processor time of the main
thread for a frame (script, style, layout, paint), of which 16.7 ms are there, and how far apart the frames were, which
on a machine without a graphics card is mostly the drawing of pixels, and everything else that runs there.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import shutil
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import msgspec
import psutil  # type: ignore[import-untyped]
import structlog
import uvloop
from playwright.async_api import Browser, Page, Response, async_playwright

from benchmarks import page_trace
from tests.e2e.conftest import CHROMIUM_ARGS
from tests.support.dashboard_site import DashboardSite
from tests.support.seconds import second
from tests.unit.parts import campaign, world

WATCH = """
const value = () => document.querySelector('[data-value="auctions"]')?.textContent ?? "";
const look = () => {
  const now = performance.now();
  if (document.readyState !== "loading") window.shownAt ??= now;
  if (document.documentElement.dataset.page) window.takesClicksAt ??= now;
  if (window.shownAt && (location.pathname !== "/" || /\\d/.test(value()))) {
    window.aliveAt = now;
    console.info("alive");
  } else requestAnimationFrame(look);
};
requestAnimationFrame(look);
"""
"""It looks at every frame, and says when all is there: asking the page for it would take the page's time."""
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


LAST = "(one) => one.name.endsWith('css/pages/queues.css')"
"""What the page fetches last, once the overview stands: the other pages."""
SERVE = "--serve"
SECONDS_BEFORE = 300
LOOK_S, MOST_LOOKS, QUIET = 0.25, 20, 0.1
"""How long a look at the processor's time is, how many there are at most, and the share of a core that is quiet."""


class Served(msgspec.Struct):
    """Where the server is, and the cookie of somebody who has logged in."""

    origin: str
    cookie: str


async def serve(folder: str, campaigns: int) -> None:
    """Be the server, until the process is ended: five minutes have passed, and seconds go on."""
    names = [campaign(f"c{n:05}", daily_budget=100.0) for n in range(campaigns)]
    site = DashboardSite(world(str(Path(folder) / "rtb.db"), campaigns=names))
    await site.start()
    for n in range(SECONDS_BEFORE):
        second(site, won=200 + n % 50, no_bid=40, latency_ms=1 + n % 9)
    print(msgspec.json.encode(Served(site.origin, site.cookie("ops"))).decode(), flush=True)
    while True:
        await asyncio.sleep(1)
        second(site, won=220, no_bid=40, latency_ms=3)


async def measure(visits: int, campaigns: int) -> None:
    """Print the figures."""
    with tempfile.TemporaryDirectory() as folder:
        server = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "benchmarks.dashboard_page", SERVE, folder, str(campaigns)),
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            assert server.stdout is not None
            site = msgspec.json.decode(await server.stdout.readline(), type=Served)
            async with async_playwright() as playwright:
                path = shutil.which("chromium") or shutil.which("google-chrome")
                browser = await playwright.chromium.launch(executable_path=path, args=CHROMIUM_ARGS)
                await _print_loading(browser, site, visits)
                await _print_scrolling(browser, site, campaigns)
                await browser.close()
        finally:
            server.kill()
            await server.wait()


async def _print_loading(browser: Browser, site: Served, visits: int) -> None:
    """The two pages in turns, so that the machine's moods are the same for both."""
    times: dict[str, list[float]] = {"interactive": [], "alive": [], "the login page": []}
    for _ in range(visits):
        async with _visit(browser, site) as page:
            times["interactive"].append(await page.evaluate("() => window.takesClicksAt"))
            times["alive"].append(await page.evaluate("() => window.aliveAt"))
        async with _visit(browser, site, "/login") as page:
            times["the login page"].append(await page.evaluate("() => window.shownAt"))
    print(f"{visits} visits, each with an empty cache; server, browser and driver are processes of their own")
    for what, at in times.items():
        low, middle, high = statistics.quantiles(at, n=4)
        print(f"{what} after {middle:.0f} ms (quartiles {low:.0f} and {high:.0f}, {min(at):.0f} to {max(at):.0f})")
    answers: list[Response] = []
    async with _visit(browser, site, heard=answers.append) as page:
        await page.wait_for_function(f"() => performance.getEntriesByType('resource').some({LAST})")
        sizes = {answer.url: len(gzip.compress(await answer.body())) for answer in answers if "/api/" not in answer.url}
    print(f"all pages, which come behind the first: {len(sizes)} files, {sum(sizes.values()) / 1e3:.1f} KB gzipped")


@contextlib.asynccontextmanager
async def _visit(
    browser: Browser,
    site: Served,
    path: str = "/",
    *,
    heard: Callable[[Response], None] | None = None,
) -> AsyncIterator[Page]:
    """A page, once it is there; `heard` is told of every response."""
    page = await _open(browser, site)
    await _quiet()
    if heard is not None:
        page.on("response", lambda answer: heard(answer))
    await page.add_init_script(WATCH)
    async with page.expect_console_message(lambda line: line.text == "alive"):
        await page.goto(site.origin + path)
    yield page
    await page.context.close()


async def _quiet() -> None:
    """Wait until the new window is done with itself: a browser without a head loads three hundred modules of its own
    for each (the list below its address bar), which would be counted as ours."""
    spent_s = _spent_s()
    for _ in range(MOST_LOOKS):
        await asyncio.sleep(LOOK_S)
        before_s, spent_s = spent_s, _spent_s()
        if spent_s - before_s < QUIET * LOOK_S:
            return


def _spent_s() -> float:
    """Processor time of all processes below this one."""
    total = 0.0
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += sum(process.cpu_times()[:2])
    return total


async def _print_scrolling(browser: Browser, site: Served, total: int) -> None:
    page = await _open(browser, site)
    await page.goto(f"{site.origin}/#/campaigns")
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


async def _open(browser: Browser, site: Served) -> Page:
    context = await browser.new_context(viewport={"width": 1440, "height": 900})
    await context.add_cookies([{"name": "rtb_session", "value": site.cookie, "url": site.origin}])
    return await context.new_page()


def main() -> None:
    """See the module."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    if sys.argv[1:2] == [SERVE]:
        uvloop.run(serve(sys.argv[2], int(sys.argv[3])))
        return
    visits, campaigns = (int(given) for given in [*sys.argv[1:], *("20", "10000")[len(sys.argv) - 1 :]])
    asyncio.run(measure(visits, campaigns))


if __name__ == "__main__":
    main()
