"""A publisher's page in the browser, with Prebid.js in it."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser

from tests.e2e.conftest import LIMIT_MS
from tests.e2e.prebid.publisher import Publisher, serving, site

ROOT = Path(__file__).parents[3]
# The browser says that it is headless, and bots get no ads.
AGENT = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36"


@pytest.fixture(scope="session")
def bundle() -> Path:
    """Prebid.js and the page's script in one file; scripts/prebid makes it, or says what is missing."""
    done = subprocess.run([ROOT / "scripts" / "prebid"], stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 0, f"scripts/prebid: {done.stderr.strip()}"
    return ROOT / "var" / "prebid" / "prebid.js"


@pytest.fixture
async def publisher(browser: Browser, bundle: Path, page_errors: list[str]) -> AsyncIterator[Publisher]:
    """The site, as a visitor has it open."""
    async with serving(site(bundle)) as url:
        context = await browser.new_context(user_agent=AGENT)
        context.set_default_timeout(LIMIT_MS)
        page = await context.new_page()
        page.on("pageerror", lambda error: page_errors.append(str(error)))
        page.on("console", lambda message: page_errors.append(message.text) if message.type == "error" else None)
        await page.goto(url)
        yield Publisher(url, page)
        await context.close()
