"""``rtb demo`` as a newcomer sees it: one command, and the numbers move."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
from playwright.async_api import Page, expect

from tests.support.daemon import Daemon
from tests.support.http import get

OpenPage = Callable[..., Awaitable[Page]]


def number(text: str) -> float:
    """A figure as the page writes it."""
    return float(text.replace(",", "").removesuffix(" in total"))


async def test_the_dashboard_moves_with_the_demo(tmp_path: Path, open_page: OpenPage, page_errors: list[str]) -> None:
    """Auctions are run, won and paid for, and the page counts on while it is looked at."""
    with Daemon(tmp_path, command=("demo", "--rate", "100")) as daemon:
        page = await open_page(daemon.dashboard)
        await expect(page.locator("#state")).to_have_text("live", timeout=60_000)
        total = page.locator('[data-tile="auctions"] .note')
        await expect(total).to_have_text(re.compile("[1-9].* in total"), timeout=60_000)
        for _ in range(3):
            before = await total.inner_text()
            await expect(total).not_to_have_text(before, timeout=60_000)
            assert number(await total.inner_text()) > number(before)
        for name in ("auctions", "bid_rate", "win_rate", "spend"):
            # the figures are of the last second, in which a busy machine may have done nothing
            await expect(page.locator(f'[data-value="{name}"]').first).to_have_text(re.compile("[1-9]"), timeout=60_000)
        assert page_errors == []
        await page.context.close()

        ready = msgspec.json.decode(get(daemon.url, "/readyz").body)
        assert (ready["ready"], ready["campaigns"]) == (True, 40)
        store = Path(daemon.facts["admin"]).parent
        assert store.is_dir()
        assert daemon.stop() == 0
    assert not store.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["rtb.toml"]
