"""A publisher's site with Prebid.js, on an origin of its own."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web
from msgspec import Struct
from playwright.async_api import Page

from tests.support.daemon import LIMIT_S

HERE = Path(__file__).parent
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


class Publisher(Struct):
    """The site; `page` is open in the browser."""

    url: str
    page: Page

    async def publish(self, exchange: str, *ad_units: dict[str, Any], **settings: Any) -> dict[str, Any]:
        """Have Prebid.js ask `exchange`; the bids, and what it tells an ad server by ad unit."""
        asked = {"exchange": exchange, "adUnits": list(ad_units), **settings}
        told: dict[str, Any] = await asyncio.wait_for(
            self.page.evaluate("(settings) => publish(settings)", asked), LIMIT_S
        )
        return told

    async def render(self, ad_id: str) -> None:
        """Have the ad of a bid rendered in the frame #ad."""
        await self.page.evaluate("(id) => render(id)", ad_id)

    async def events(self, name: str) -> list[Any]:
        """Prebid's events of a name so far."""
        heard: list[Any] = await self.page.evaluate(
            "(name) => window.events.filter((event) => event.name === name).map((event) => event.detail)", name
        )
        return heard


@asynccontextmanager
async def serving(app: web.Application) -> AsyncIterator[str]:
    """The URL of an application on a port of its own."""
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def site(bundle: Path) -> web.Application:
    """The page, its script, and /ad.png for creatives."""

    async def html(request: web.Request) -> web.FileResponse:
        return web.FileResponse(HERE / "page.html")

    async def script(request: web.Request) -> web.FileResponse:
        return web.FileResponse(bundle)

    async def picture(request: web.Request) -> web.Response:
        return web.Response(body=PNG, content_type="image/png")

    app = web.Application()
    app.add_routes([web.get("/", html), web.get("/prebid.js", script), web.get("/ad.png", picture)])
    return app
