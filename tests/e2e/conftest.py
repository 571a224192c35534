"""A real browser for tests that look at pages: Debian's chromium, driven by playwright."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from playwright.async_api import Browser, Page, async_playwright, expect

CHROMIUM_ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

START_LIMIT_MS = 180_000
LIMIT_MS = 60_000
"""The longest a browser takes for a step on a busy machine; only a failure waits for it."""
expect.set_options(timeout=LIMIT_MS)

OpenPage = Callable[..., Awaitable[Page]]


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """A headless chromium; without one the test skips."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no chromium on this machine: run scripts/browser as root, or apt-get install chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=CHROMIUM_ARGS, timeout=START_LIMIT_MS)
        yield browser
        await browser.close()


@pytest.fixture
def page_errors() -> list[str]:
    """What the pages of `open_page` complained about: uncaught exceptions and console errors."""
    return []


@pytest.fixture
def open_page(browser: Browser, page_errors: list[str]) -> OpenPage:
    """Open a URL in a window of its own: ``await open_page(url, width=390, height=844, color_scheme="dark")``."""

    async def open_url(url: str, *, width: int = 1280, height: int = 900, color_scheme: str = "light") -> Page:
        context = await browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=color_scheme,  # type: ignore[arg-type]
        )
        context.set_default_timeout(LIMIT_MS)
        page = await context.new_page()
        page.on("pageerror", lambda error: page_errors.append(str(error)))
        page.on("console", lambda message: page_errors.append(message.text) if message.type == "error" else None)
        await page.goto(url)
        return page

    return open_url
