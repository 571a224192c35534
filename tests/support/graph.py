"""A local server that speaks Facebook's Graph API as far as batches of campaign insights and ad set updates go."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

from aiohttp import web

TOKEN = "EAAB-graph-token"
VERSION = "v25.0"


def row(impressions: int = 0, link_clicks: int = 0, spend: str = "0", **more: Any) -> dict[str, Any]:
    """A row of insights: numbers are strings there."""
    told = {"impressions": str(impressions), "inline_link_clicks": str(link_clicks), "spend": spend}
    return {**told, "account_currency": "USD", "date_start": "2026-01-01", "date_stop": "2026-01-31", **more}


def error(code: int, message: str, **more: Any) -> dict[str, Any]:
    """An error object."""
    return {"error": {"message": message, "type": "OAuthException", "code": code, "fbtrace_id": "A1", **more}}


class Graph:
    """The state of the server, set by a test, and what it was asked."""

    def __init__(self) -> None:
        self.url = ""
        self.pages: dict[str, list[list[dict[str, Any]]]] = {}
        """The pages of rows of each campaign."""
        self.bids: dict[str, int] = {}
        """The ad sets and their bids, in minor units."""
        self.refused: dict[str, tuple[int, dict[str, Any]]] = {}
        """Ids that are answered with an error: status and body."""
        self.unfinished: set[str] = set()
        """Ids that are answered with null."""
        self.headers: Mapping[str, str] = {}
        self.item_headers: list[dict[str, str]] = []
        self.instead: web.Response | None = None
        """Answer every request with this."""
        self.instead_of: dict[int, web.Response] = {}
        """Answer the n-th request (from 0) with this."""
        self.hang: asyncio.Event | None = None
        """Answer nothing until it is set."""
        self.batches: list[list[dict[str, str]]] = []
        self.forms: list[dict[str, str]] = []
        self.arrived = asyncio.Semaphore(0)
        """Released for each request."""
        self.inside = self.most_at_once = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer one POST."""
        form = {name: str(value) for name, value in (await request.post()).items()}
        self.forms.append(form)
        self.batches.append(json.loads(form["batch"]))
        assert not request.query, "nothing secret belongs into a URL"
        self.inside += 1
        self.most_at_once = max(self.most_at_once, self.inside)
        self.arrived.release()
        try:
            if self.hang is not None:
                await self.hang.wait()
        finally:
            self.inside -= 1
        instead = self.instead_of.get(len(self.batches) - 1, self.instead)
        if instead is not None:
            return instead
        if form["access_token"] != TOKEN:
            refusal = error(190, f"Malformed access token {form['access_token']}")
            return web.json_response(refusal, status=400, headers=self.headers)
        return web.json_response([self._item(order) for order in self.batches[-1]], headers=self.headers)

    def _item(self, order: dict[str, str]) -> dict[str, Any] | None:
        parts = urlsplit(order["relative_url"])
        node, _, edge = parts.path.partition("/")
        if node in self.unfinished:
            return None
        if node in self.refused:
            status, told = self.refused[node]
        elif order["method"] == "GET" and edge == "insights" and node in self.pages:
            status, told = 200, self._page(node, parse_qs(parts.query))
        elif order["method"] == "POST" and not edge and node in self.bids:
            self.bids[node] = int(dict(parse_qsl(order["body"]))["bid_amount"])
            status, told = 200, {"success": True}
        else:
            message = f"Unsupported request. Object with ID '{node}' does not exist"
            status, told = 400, error(100, message, error_subcode=33)
        return {"code": status, "headers": self.item_headers, "body": json.dumps(told)}

    def _page(self, campaign_id: str, query: dict[str, list[str]]) -> dict[str, Any]:
        pages = self.pages[campaign_id]
        at = int(query.get("after", ["0"])[0])
        rows = pages[at] if pages else []
        if not pages:
            return {"data": []}
        paging: dict[str, Any] = {"cursors": {"before": str(at), "after": str(at + 1)}}
        if at + 1 < len(pages):
            paging["next"] = (
                f"https://graph.example/{VERSION}/{campaign_id}/insights?access_token={TOKEN}&after={at + 1}"
            )
        return {"data": rows, "paging": paging}


@asynccontextmanager
async def serving() -> AsyncIterator[Graph]:
    """The server while the context is open."""
    graph = Graph()
    app = web.Application()
    app.router.add_post(f"/{VERSION}/", graph.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    graph.url = f"http://{host}:{port}"
    try:
        yield graph
    finally:
        if graph.hang is not None:
            graph.hang.set()
        await runner.cleanup()
