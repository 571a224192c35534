"""A local server that speaks the Google Ads API over REST: campaign reports by page, ad group bids, access tokens."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

VERSION = "v26"
CUSTOMER = "1234567890"
DEVELOPER_TOKEN = "developer-token-1"
ACCESS_TOKEN = "ya29.access-token"
FAILURE = f"type.googleapis.com/google.ads.googleads.{VERSION}.errors.GoogleAdsFailure"


def metrics(
    impressions: int = 0, clicks: int = 0, cost_micros: int = 0, conversions: float = 0, value: float = 0
) -> dict[str, Any]:
    """Metrics as JSON: int64 in strings, doubles as numbers, zeros too."""
    return {
        "impressions": str(impressions),
        "clicks": str(clicks),
        "costMicros": str(cost_micros),
        "conversions": conversions,
        "conversionsValue": value,
    }


def failed(at: int | None, kind: str, code: str, message: str) -> dict[str, Any]:
    """An error of a GoogleAdsFailure, of operation `at`."""
    told: dict[str, Any] = {"errorCode": {kind: code}, "message": message}
    if at is not None:
        path = [{"fieldName": "operations", "index": at}, {"fieldName": "update"}]
        told["location"] = {"fieldPathElements": path}
    return told


def status(code: int, name: str, message: str, *errors: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A refusal: google.rpc.Status with a GoogleAdsFailure."""
    details = [{"@type": FAILURE, "errors": list(errors), "requestId": "r1"}] if errors else []
    return {"error": {"code": code, "message": message, "status": name, "details": details + more.get("details", [])}}


class Granted:
    """An access token that was given before."""

    def __init__(self, token: str = ACCESS_TOKEN) -> None:
        self.token = token
        self.forgotten: list[str] = []

    async def get(self) -> str:
        """Give it."""
        return self.token

    def forget(self, token: str) -> None:
        """Remember that it was refused."""
        self.forgotten.append(token)


class AdWords:
    """The state of the server, set by a test, and what it was asked."""

    def __init__(self) -> None:
        self.url = ""
        self.currency = "EUR"
        self.campaigns: dict[str, dict[str, Any]] = {}
        """The metrics of each campaign."""
        self.page_size = 10_000
        self.bids: dict[str, int] = {}
        """The ad groups and their CPC bids, in micros."""
        self.refused: dict[str, dict[str, Any]] = {}
        """Ad groups that refuse: kind, code and message of the error."""
        self.unlocated: dict[str, Any] | None = None
        """An error of no operation, told besides the others."""
        self.instead: dict[int, web.Response] = {}
        """Answers to the n-th request (from 0), or with -1 to all."""
        self.hang: asyncio.Event | None = None
        self.asked: list[dict[str, Any]] = []
        self.headers: list[Mapping[str, str]] = []
        self.tokens: list[dict[str, str]] = []
        self.token: web.Response | None = None

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer one POST."""
        self.asked.append(await request.json())
        self.headers.append(request.headers)
        if self.hang is not None:
            await self.hang.wait()
        instead = self.instead.get(len(self.asked) - 1, self.instead.get(-1))
        if instead is not None:
            return instead
        if request.headers["developer-token"] != DEVELOPER_TOKEN:
            told = failed(None, "authenticationError", "DEVELOPER_TOKEN_INVALID", "The developer token is not valid.")
            return web.json_response(status(401, "UNAUTHENTICATED", "Not signed in.", told), status=401)
        if request.headers["authorization"] != f"Bearer {ACCESS_TOKEN}":
            return web.json_response(status(401, "UNAUTHENTICATED", "Invalid credentials."), status=401)
        if request.match_info["method"] == "googleAds:search":
            return web.json_response(self._search(self.asked[-1]))
        return web.json_response(self._mutate(self.asked[-1]))

    async def grant(self, request: web.Request) -> web.StreamResponse:
        """Give an access token."""
        self.tokens.append({name: str(value) for name, value in (await request.post()).items()})
        if self.token is not None:
            return self.token
        return web.json_response({"access_token": ACCESS_TOKEN, "expires_in": 3599, "token_type": "Bearer"})

    def _search(self, asked: dict[str, Any]) -> dict[str, Any]:
        listed = re.search(r"campaign\.id IN \(([0-9, ]+)\)", asked["query"])
        assert listed is not None
        ids = [campaign_id for campaign_id in listed[1].split(", ") if campaign_id in self.campaigns]
        first = int(asked.get("pageToken", "0"))
        rows = [
            {
                "campaign": {"resourceName": f"customers/{CUSTOMER}/campaigns/{campaign_id}", "id": campaign_id},
                "customer": {"resourceName": f"customers/{CUSTOMER}", "currencyCode": self.currency},
                "metrics": self.campaigns[campaign_id],
            }
            for campaign_id in ids[first : first + self.page_size]
        ]
        page: dict[str, Any] = {"fieldMask": "campaign.id,metrics.impressions"}
        if rows:
            page["results"] = rows  # an empty list is left out
        if first + self.page_size < len(ids):
            page["nextPageToken"] = str(first + self.page_size)
        return page

    def _mutate(self, asked: dict[str, Any]) -> dict[str, Any]:
        assert asked["partialFailure"] is True
        results: list[dict[str, str]] = []
        errors: list[dict[str, Any]] = []
        for at, operation in enumerate(asked["operations"]):
            update = operation["update"]
            group = update["resourceName"].removeprefix(f"customers/{CUSTOMER}/adGroups/")
            if group in self.refused:
                errors.append(failed(at, **self.refused[group]))
                results.append({})
            elif self.unlocated is not None and group not in self.bids:
                results.append({})
            else:
                assert operation["updateMask"] == "cpcBidMicros"
                self.bids[group] = int(update["cpcBidMicros"])
                results.append({"resourceName": update["resourceName"]})
        if self.unlocated is not None:
            errors.append(self.unlocated)
        if not errors:
            return {"results": results}
        partial = {"code": 3, "message": "Multiple errors.", "details": [{"@type": FAILURE, "errors": errors}]}
        return {"results": results, "partialFailureError": partial}


@asynccontextmanager
async def serving() -> AsyncIterator[AdWords]:
    """The server while the context is open."""
    adwords = AdWords()
    app = web.Application()
    app.router.add_post(f"/{VERSION}/customers/{CUSTOMER}/{{method}}", adwords.answer)
    app.router.add_post("/token", adwords.grant)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    adwords.url = f"http://{host}:{port}"
    try:
        yield adwords
    finally:
        if adwords.hang is not None:
            adwords.hang.set()
        await runner.cleanup()
