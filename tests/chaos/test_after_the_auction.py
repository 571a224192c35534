"""Whole daemons and an audience that keeps its own count: what was seen, clicked and bought is in the books, once."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from rtb.lab.audience import Audience, Behaviour, Seen
from rtb.lab.drive import drive
from rtb.lab.servers.process import free_port
from tests.support.daemon import LIMIT_S, Daemon
from tests.support.production import Production
from tests.support.rabbitmq import MakeRabbit
from tests.support.redis import MakeRedis
from tests.support.samples import bid_request, campaign, imp

EVENTS = int(os.environ.get("RTB_CHAOS_EVENTS", "6000"))
"""How many on real servers; ``RTB_CHAOS_EVENTS=100000 scripts/test -k survive_the_death`` takes some seven minutes."""
EAGER = Behaviour(
    view=0.9, click=0.7, conversion=0.7, repeat=0.05, bot=0.03, forged=0.03, view_s=0.05, click_s=0.1, conversion_s=0.1
)
"""So many clicks and purchases that a few thousand wins make twice as many events."""
SIZES = {"tea": (300, 250), "cab": (728, 90), "bank": (160, 600)}
CLICK, CONVERSION = 200_000_000, 5_000_000_000  # nanos: 0.20 and 5.00
CAMPAIGNS = (
    {"bid": 3.0},
    {"pricing": "cpc", "bid": 0.2, "pctr": 0.05},
    {"pricing": "cpa", "bid": 5.0, "pctr": 0.05, "pcvr": 0.05},
)
PATIENT = ("tracking.redirect_ms=10000", "tracking.answer_ms=10000", "drain.limit_s=20", "auction.deadline_ms=5000")
"""A click is redirected only once it is safe, so that whatever was answered must be in the books."""


class Requests:
    """Bid requests of people who come once: a second click of one user would be no click."""

    def __init__(self, rate: float) -> None:
        self.rate = rate

    def requests(self) -> Iterator[dict[str, Any]]:
        """One banner each, of the three sizes in turn."""
        for number, (w, h) in zip(itertools.count(), itertools.cycle(SIZES.values()), strict=False):
            yield bid_request(
                id=f"{number:032x}", imp=[imp(banner={"w": w, "h": h})], user={"id": f"u{number}"}, tmax=5_000
            )


def put_campaigns(daemon: Daemon) -> None:
    """One a size: paid by impression, by click, by conversion; with budgets that nobody exhausts."""
    daemon.put_campaigns(
        *(
            campaign(
                name,
                daily_budget=500_000.0,
                creatives=[
                    {
                        "id": f"{name}-ad",
                        "w": w,
                        "h": h,
                        "image_url": "https://cdn.test/a.png",
                        "landing_page": f"https://{name}.test/?c=${{CLICK_ID}}",
                    }
                ],
                **fields,
            )
            for (name, (w, h)), fields in zip(SIZES.items(), CAMPAIGNS, strict=True)
        )
    )


async def audience_of(url: str, events: int, rate: float, troubles: Sequence[Callable[[], Awaitable[None]]]) -> Seen:
    """Traffic and its audience until about so many events were called, with troubles in between, evenly."""
    audience = Audience(EAGER, seed=3, patience_s=LIMIT_S)
    stop = asyncio.Event()
    driving = asyncio.create_task(
        drive(f"{url}/openrtb2/auction", Requests(rate), rate, stop, on_won=audience.watch, connections=16)
    )
    async with asyncio.timeout(20 * LIMIT_S):
        for number, trouble in enumerate(troubles, 1):
            await audience.answered(events * number // (len(troubles) + 1))
            await trouble()
        await audience.answered(events)
    stop.set()
    await driving
    return await audience.end()


async def settled(daemon: Daemon) -> None:
    """Wait until no event is in the daemon's outbox or on any queue, twice in a row: one that moves from the outbox to
    a queue, or from a queue to another, may pass those of a look that were seen before."""
    give_up = time.monotonic() + 2 * LIMIT_S
    quiet = 0
    while quiet < 2:
        report = (await asyncio.to_thread(daemon.admin, "queues"))["result"]
        waiting = {row["name"]: (row["ready"], row["unacked"]) for row in report["queues"]}
        waiting = {name: numbers for name, numbers in waiting.items() if any(numbers)}
        quiet = 0 if report["problem"] or report["outbox"] or waiting else quiet + 1
        assert time.monotonic() < give_up, (report["problem"], report["outbox"], waiting)
        await asyncio.sleep(0.2)  # nobody tells


async def agree(daemon: Daemon, seen: Seen) -> None:
    """Ledger, accounts and metrics say exactly what the audience did."""
    await settled(daemon)
    rows = (await asyncio.to_thread(daemon.admin, "campaigns.stats", ids=[*SIZES]))["result"]["rows"]
    told = {row["id"]: (row["impressions"], row["clicks"], row["conversions"]) for row in rows}
    assert seen.odd == {}
    assert seen.unanswered == 0
    assert told == {name: (c.impressions, c.clicks, c.conversions) for name, c in sorted(seen.campaigns.items())}
    costs = {row["id"]: round(row["cost"] * 1e9) for row in rows}
    assert costs == {
        "tea": seen.campaigns["tea"].nanos,
        "cab": seen.campaigns["cab"].clicks * CLICK,
        "bank": seen.campaigns["bank"].conversions * CONVERSION,
    }
    audited = (await asyncio.to_thread(daemon.admin, "audit"))["result"]
    assert audited["findings"] == []
    assert audited["uncovered"] == []
    listed = (await asyncio.to_thread(daemon.admin, "campaigns.list"))["result"]
    assert {row["id"]: round(row["spent_today"] * 1e9) for row in listed} == costs


async def test_an_embedded_daemon_that_is_killed_loses_no_event_that_it_answered(tmp_path: Path) -> None:
    """Two kills under load: wins, impressions, clicks and conversions that were answered stand in the ledger once."""
    port = free_port()
    settings = (*PATIENT, f"http.port={port}")
    daemons = [await asyncio.to_thread(Daemon, tmp_path, *settings)]

    async def kill() -> None:
        await asyncio.to_thread(daemons[-1].kill)
        daemons.append(await asyncio.to_thread(Daemon, tmp_path, *settings))

    try:
        put_campaigns(daemons[0])
        seen = await audience_of(f"http://127.0.0.1:{port}", 4_000, 150.0, [kill, kill])
        await agree(daemons[-1], seen)
    finally:
        await asyncio.to_thread(daemons[-1].stop)


@pytest.mark.timeout(300 + EVENTS / 50)
async def test_events_survive_the_death_of_daemon_broker_and_redis(
    tmp_path: Path, production: Production, make_rabbit: MakeRabbit, make_redis: MakeRedis
) -> None:
    """In the middle of the load the daemon is killed, then the broker, then Redis, which comes back empty: ledger,
    accounts and metrics agree with the audience to the event and the nano."""
    rabbit, redis = make_rabbit(), await asyncio.to_thread(make_redis)
    await asyncio.to_thread(rabbit.start)
    port = free_port()
    settings = (
        *PATIENT,
        f"http.port={port}",
        f"broker.url={rabbit.url}",
        f"state.url={redis.url}",
        f"store.url={production.store}",
        "budgets.sync_ms=200",
    )
    daemons = [await asyncio.to_thread(Daemon, tmp_path, *settings)]

    async def kill_daemon() -> None:
        await asyncio.to_thread(daemons[-1].kill)
        daemons.append(await asyncio.to_thread(Daemon, tmp_path, *settings))

    async def kill_broker() -> None:
        await asyncio.to_thread(rabbit.kill)
        await asyncio.to_thread(rabbit.start)

    async def kill_redis() -> None:
        await asyncio.to_thread(redis.restart_empty)

    try:
        put_campaigns(daemons[0])
        seen = await audience_of(f"http://127.0.0.1:{port}", EVENTS, 150.0, [kill_daemon, kill_broker, kill_redis])
        await agree(daemons[-1], seen)
    finally:
        await asyncio.to_thread(daemons[-1].stop)
