"""The dashboard in a real browser, over a real server, with real counters."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, Self

import pytest
from aiohttp import web
from playwright.async_api import Page, expect

from dashboard.server import create_app
from rtb.domain.metrics import Counts, Frame
from rtb.openrtb import Loss, NoBid
from rtb.services.metrics import FrameSource, Metrics

if TYPE_CHECKING:
    from playwright.async_api import Locator

OpenPage = Callable[..., Awaitable[Page]]
SECOND = 10**9


class SteppedClock:
    """Wall time that runs, and a monotonic clock that a tick moves by exactly a second: rates come out whole."""

    def __init__(self) -> None:
        self.ns = 0

    def monotonic_ns(self) -> int:
        return self.ns

    def time(self) -> float:
        return time.time()


class Site:
    """A dashboard whose seconds pass when the test says so."""

    def __init__(self) -> None:
        self.clock = SteppedClock()
        self.metrics = Metrics("exchange-1", self.clock)
        self.source = FrameSource(self.metrics, self.clock)
        self.port = 0
        self.runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    async def start(self) -> Self:
        self.runner = web.AppRunner(create_app(self.source), shutdown_timeout=1)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", self.port, reuse_address=True).start()
        self.port = self.runner.addresses[0][1]
        return self

    async def stop(self) -> None:
        if self.runner is not None:
            await self.runner.cleanup()

    def tick(self, *, won: int = 0, no_bid: int = 0, latency_ms: float = 0) -> None:
        """One second with that many auctions, all of the same duration."""
        self.metrics.won += won
        self.metrics.no_bid += no_bid
        self.metrics.nbr[NoBid.NO_ELIGIBLE_DEMAND] += no_bid
        self.metrics.bids += 4 * won
        self.metrics.wins += won
        self.metrics.losses[Loss.OUTBID] += 3 * won
        self.metrics.spend_nanos += won * 1_000_000
        for _ in range(won + no_bid):
            self.metrics.latency.record(round(latency_ms * 1e6))
        self.clock.ns += SECOND
        self.source.tick()


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    site = await Site().start()
    yield site
    await site.stop()


def value(page: Page, name: str) -> Locator:
    return page.locator(f'[data-value="{name}"]').first


async def test_numbers_move_with_every_frame(site: Site, open_page: OpenPage, page_errors: list[str]) -> None:
    """1,200 auctions, 900 of them won with 4 bids each at 0.001 USD; then a different second."""
    site.tick(won=900, no_bid=300, latency_ms=4.0)
    page = await open_page(site.url)
    await expect(value(page, "state")).to_have_text("live")
    await expect(value(page, "auctions")).to_have_text("1,200")
    await expect(value(page, "bid_rate")).to_have_text("75.0")
    await expect(value(page, "win_rate")).to_have_text("25.0")
    await expect(value(page, "spend")).to_have_text("0.900")
    # 4 ms, at most 1/32 above
    await expect(value(page, "p99")).to_have_text(re.compile(r"^4\.(0\d|1[0-2])$"))
    await expect(page.locator("#no-bids tr")).to_have_text(re.compile("no eligible demand.*500.*300.*300"))
    await expect(page.locator("#losses tr")).to_have_text(re.compile("outbid.*102.*2,700.*2,700"))

    site.tick(won=10, no_bid=40, latency_ms=150)
    await expect(value(page, "auctions")).to_have_text("50.0")
    await expect(value(page, "auctions_total")).to_have_text("1,250")
    await expect(value(page, "bid_rate")).to_have_text("20.0")
    await expect(value(page, "spend_total")).to_have_text("0.910")
    await expect(page.locator("tr.over")).to_have_count(4)  # every percentile is beyond the 100 ms line
    assert page_errors == []


async def test_page_comes_back_by_itself_after_the_server_restarted(site: Site, open_page: OpenPage) -> None:
    """The badge says so meanwhile, and the numbers are the new server's."""
    site.tick(won=100, latency_ms=1)
    page = await open_page(site.url)
    await expect(value(page, "state")).to_have_text("live")
    await site.stop()
    await expect(value(page, "state")).to_have_text("reconnecting")

    reborn = Site()
    reborn.port = site.port
    await reborn.start()
    reborn.tick(won=70, latency_ms=1)
    await expect(value(page, "auctions")).to_have_text("70.0", timeout=20_000)
    await expect(page.locator("html")).to_have_attribute("data-state", "live")
    await reborn.stop()


async def test_badge_turns_stale_when_frames_stop_and_live_when_they_come_again(
    site: Site, open_page: OpenPage
) -> None:
    """Being connected is not being live."""
    site.tick(won=1)
    page = await open_page(site.url)
    await expect(value(page, "state")).to_have_text("live")
    await expect(value(page, "state")).to_have_text("stale", timeout=20_000)
    site.tick(won=1)
    await expect(value(page, "state")).to_have_text("live")


async def test_instances_are_listed_and_hostile_names_are_only_text(site: Site, open_page: OpenPage) -> None:
    """A name with markup in it is shown as it is."""
    name = "<img src=x onerror=document.title='owned'>"
    site.source.receive(Frame(instance=name, seq=5, time=0, uptime_ns=SECOND, counts=Counts(won=9)))
    for _ in range(4):
        site.tick(won=1)
    page = await open_page(site.url)
    rows = page.locator("#instance-rows tr")
    await expect(rows).to_have_count(2)
    await expect(rows.filter(has_text=name)).to_contain_text("stale 4 s")
    await expect(value(page, "instances")).to_have_text("1 of 2 live")
    await expect(page).to_have_title("rtb exchange")
    await expect(page.locator("main img")).to_have_count(0)


@pytest.mark.parametrize("width", [360, 390, 800, 1280, 2560])
@pytest.mark.parametrize("color_scheme", ["light", "dark"])
async def test_page_fits_every_width(site: Site, open_page: OpenPage, width: int, color_scheme: str) -> None:
    """Nothing sticks out sideways, no big number is cut off, and the ground follows the viewer's scheme."""
    site.tick(won=2_000, no_bid=345_678, latency_ms=88.8)
    page = await open_page(site.url, width=width, color_scheme=color_scheme)
    await expect(value(page, "auctions")).to_have_text("347,678")
    cut: list[Any] = await page.evaluate(
        "() => [document.documentElement, ...document.querySelectorAll('.big, .tile p, .bars td.num, .badge')]"
        ".filter((e) => e.scrollWidth > Math.ceil(e.getBoundingClientRect().width))"
        ".map((e) => e.outerHTML.slice(0, 80))"
    )
    assert cut == []
    ground = await page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    brightness = sum(int(part) for part in re.findall(r"\d+", ground)[:3])
    assert (brightness > 600) == (color_scheme == "light")
