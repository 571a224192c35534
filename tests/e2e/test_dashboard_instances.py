"""The dashboard of one worker shows all of them: merged, one by one, and what became of each."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from rtb.lab.servers.process import free_port
from tests.support.daemon import LIMIT_S, Daemon
from tests.support.http import fetch, post
from tests.support.production import Production
from tests.support.samples import bid_request

AUCTIONS = 40
OUTCOMES = ("won", "no_bid", "timeout", "shed", "invalid")


class Page:
    """A browser at the socket."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self.ws = ws

    async def until(self, kind: str, expected: Callable[[Any], bool]) -> Any:
        """The data of the first message of this kind that is as expected."""
        async with asyncio.timeout(LIMIT_S):
            while True:
                message = await self.ws.receive_json()
                if message["type"] == kind and expected(message["data"]):
                    return message["data"]

    async def say(self, **message: Any) -> Any:
        """The data of the answer."""
        await self.ws.send_json(message)
        return await self.until("ok", lambda data: True)


def auctions(totals: dict[str, Any]) -> int:
    """Of every outcome."""
    return sum(totals.get(name, 0) for name in OUTCOMES)


def counted(snapshot: dict[str, Any]) -> dict[str, int]:
    """Auctions, and instances that are heard of and that are not: a busy machine may be silent for a while."""
    return {"auctions": auctions(snapshot["totals"]), "live": snapshot["live"], "stale": snapshot["stale"]}


def states(data: dict[str, Any]) -> list[str]:
    """What the instances are, in order of the alphabet."""
    return sorted(row["state"] for row in data["instances"])


async def test_all_workers_are_seen_from_one(tmp_path: Path, production: Production) -> None:
    """Their auctions add up to what was asked, each is looked at alone, and one that is killed turns stale."""
    command = ("serve", "--workers", "2")
    with Daemon(tmp_path, *production.settings(), f"http.port={free_port()}", command=command) as daemon:
        workers = [int(pid) for pid in daemon.facts["pids"].split(",")]
        async with aiohttp.ClientSession() as session, session.ws_connect(f"{daemon.dashboard}/ws") as ws:
            page = Page(ws)
            told = await page.say(type="subscribe", channel="instances")
            assert set(told) == {"time", "instances"}
            both = await page.until("instance", lambda data: states(data) == ["live", "live"])
            assert {row["pid"] for row in both["instances"]} == set(workers)
            request = post(msgspec.json.encode(bid_request()))
            for _ in range(AUCTIONS):
                await asyncio.to_thread(fetch, daemon.url, request)
            all_live = {"auctions": AUCTIONS, "live": 2, "stale": 0}
            await page.until("metrics_update", lambda data: counted(data["snapshot"]) == all_live)
            alone = [
                (await page.say(type="subscribe", instance=row["instance"]))["snapshot"]["totals"]
                for row in both["instances"]
            ]
            assert sum(map(auctions, alone)) == AUCTIONS
            os.kill(workers[1], signal.SIGKILL)
            gone = await page.until("instance", lambda data: states(data) == ["live", "live", "stale"])
            became = {row["pid"]: row["state"] for row in gone["instances"]}
            assert (became[workers[0]], became[workers[1]]) == ("live", "stale")
            snapshot = (await page.until("metrics_update", lambda data: True))["snapshot"]
            assert auctions(snapshot["totals"]) == AUCTIONS
