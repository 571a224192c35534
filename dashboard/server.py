"""The dashboard's web application: the page, its live socket, and the same numbers as JSON."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from pathlib import Path

import msgspec
from aiohttp import web

from dashboard import guard
from dashboard.access import Access
from dashboard.api import Api, json_errors
from dashboard.feeds import Feeds
from dashboard.files import Files
from dashboard.guard import check_bind, require_loopback
from dashboard.hub import Hub
from rtb.services.frame_source import MetricsSource

__all__ = ["HUB", "Access", "Api", "check_bind", "create_app", "require_loopback"]

HUB = web.AppKey("hub", Hub)
MAX_BODY_BYTES = 1 << 20
_WEB = Path(__file__).parent / "web"


def create_app(
    source: MetricsSource,
    *,
    access: Access | None = None,
    api: Api | None = None,
    names: Collection[str] = (),
    origins: Collection[str] = (),
    max_clients: int = 1000,
    send_timeout_s: float = 5.0,
    heartbeat_s: float = 15.0,
) -> web.Application:
    """The application; without `access` it has no login: run it on a loopback address then (`check_bind`).

    ``GET /`` is the page, ``GET /ws`` the socket described at `Hub`, ``GET /api/metrics`` the latest snapshot.

    Args:
        source: where the snapshots come from.
        access: who may do what; without it everybody may do everything.
        api: the REST API; without it there is only ``GET /api/metrics``.
        names: host names the server is known by, besides localhost and plain addresses.
        origins: further origins whose pages may read.
        max_clients: sockets at the same time; more are answered 503.
        send_timeout_s: how long a client may take over one message.
        heartbeat_s: how often a silent client is pinged; it has half of that to answer.
    """
    hub = Hub(
        source,
        Feeds(source) if api is None else api.feeds,
        max_clients=max_clients,
        send_timeout_s=send_timeout_s,
        heartbeat_s=heartbeat_s,
        commands=None if api is None else api.commands(),
        **({} if access is None else {"stands": access.stands}),
    )
    endings: list[Callable[[], object]] = []

    files = Files(_WEB)

    async def page(request: web.Request) -> web.StreamResponse:
        return files.answer(request, "index.html")

    async def metrics(_request: web.Request) -> web.Response:
        body = msgspec.json.encode(source.latest)
        return web.Response(body=body, content_type="application/json", headers={"Cache-Control": "no-store"})

    async def start(_app: web.Application) -> None:
        if access is not None:  # who may stay is known before anybody is told anything
            endings.append(source.subscribe(lambda _snapshot: access.refresh()))
            access.ended.append(hub.review)
            endings.append(asyncio.create_task(access.share()).cancel)
        hub.start()
        if api is not None:
            endings.append(api.broadcast(hub))
            endings.append(api.trails.start(source))

    async def stop(_app: web.Application) -> None:
        for end in endings:
            end()
        await hub.close()

    middlewares = [json_errors, guard.middleware(names, origins), *([access.middleware] if access is not None else [])]
    app = web.Application(middlewares=middlewares, client_max_size=MAX_BODY_BYTES)
    app[HUB] = hub
    if access is not None:
        access.add_routes(app)
    if api is not None:
        api.add_routes(app)
    app.router.add_get("/", page)
    app.router.add_get("/ws", hub.handle)
    app.router.add_get("/api/metrics", metrics)
    files.add_routes(app)
    app.on_response_prepare.append(guard.add_headers)
    app.on_startup.append(start)
    app.on_shutdown.append(stop)
    return app
