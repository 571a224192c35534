"""Commands to a running daemon, over its socket."""

from __future__ import annotations

import json
import socket
import stat
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
import pytest_asyncio

from rtb import openrtb
from rtb.adapters.memory_ledger import MemoryLedger
from rtb.edges.admin import Admin, listen
from rtb.ports import LedgerKind, LedgerRow
from rtb.services.budgets import Budgets
from rtb.services.campaigns import Campaigns
from tests.unit.parts import Build, World, bid_request, campaign, imp

REQUEST = openrtb.encode(bid_request()).decode()


class Bench:
    """A daemon's admin API, and who commands it."""

    def __init__(self, world: World, path: Path) -> None:
        self.world = world
        self.path = path
        catalogue = Campaigns(world.repository, world.house)
        self.admin = Admin(catalogue, world.exchange, world.house, world.clock, world.rates)

    async def post(self, command: str, body: bytes) -> tuple[int, dict[str, Any]]:
        connector = aiohttp.UnixConnector(str(self.path))
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.post(f"http://daemon/{command}", data=body) as response,
        ):
            return response.status, await response.json()

    async def command(self, command: str, **arguments: Any) -> Any:
        """The result of a command that works."""
        status, answer = await self.post(command, msgspec.json.encode(arguments))
        assert status == 200, answer
        return answer["result"]

    async def refusal(self, command: str, **arguments: Any) -> str:
        """The one line that a command is refused with."""
        status, answer = await self.post(command, msgspec.json.encode(arguments))
        assert (status, list(answer)) == (400, ["error"])
        assert "\n" not in answer["error"]
        return str(answer["error"])


@pytest_asyncio.fixture
async def bench(build: Build) -> AsyncIterator[Bench]:
    world = build()
    await world.repository.start()
    with tempfile.TemporaryDirectory() as folder:  # the path of a socket must be short
        made = Bench(world, Path(folder, "run", "rtb.sock"))
        runner = await listen(made.admin, made.path)
        yield made
        await runner.cleanup()


def plain(*names: str, **fields: Any) -> list[Any]:
    return [msgspec.to_builtins(campaign(name, **fields)) for name in names]


async def test_imported_campaigns_bid(bench: Bench) -> None:
    """At once; the answer says how many were written."""
    assert await bench.command("campaigns.import", campaigns=plain("a", "b")) == {"written": 2}
    assert (await bench.world.run(bid_request())).nbr is None
    assert await bench.world.repository.campaign("b") == campaign("b")


@pytest.mark.parametrize(
    ("campaigns", "names"),
    [
        ([{"id": "a"}], ["'a'", "advertiser"]),
        ([{**plain("a")[0], "bdi": 1}], ["'a'", "bdi"]),
        ([{**plain("a")[0], "bid": 0}], ["'a'", "bid"]),
        ([7], ["object"]),
        (plain("a", "a"), ["same id"]),
    ],
)
async def test_a_bad_import_changes_nothing(bench: Bench, campaigns: list[Any], names: list[str]) -> None:
    """It names campaign and field; the good ones beside it are not written either."""
    error = await bench.refusal("campaigns.import", campaigns=[*plain("good"), *campaigns])
    assert all(name in error for name in names)
    assert await bench.command("campaigns.list") == []
    assert await bench.world.repository.campaign("good") is None


async def test_the_list_and_its_figures(bench: Bench) -> None:
    """By id, with what was spent today; by status; no more than asked for."""
    await bench.command("campaigns.import", campaigns=plain("b", "a", daily_budget=0.002, name="Two a day"))
    await bench.world.run(bid_request(at=1))
    rows = await bench.command("campaigns.list")
    assert rows[0] == {
        "id": "a",
        "name": "Two a day",
        "advertiser": "a",
        "status": "active",
        "pricing": "cpm",
        "bid": 2.0,
        "ecpm": 2.0,
        "daily_budget": 0.002,
        "spent_today": rows[0]["spent_today"],
        "held": rows[0]["held"],
        "funded": rows[0]["funded"],
        "version": 1,
    }
    assert sorted((row["spent_today"] + row["held"], row["funded"]) for row in rows) == [(0.0, True), (0.002, False)]
    await bench.command("campaigns.pause", id="b")
    assert [row["id"] for row in await bench.command("campaigns.list", status="paused")] == ["b"]
    assert [row["id"] for row in await bench.command("campaigns.list", limit=1)] == ["a"]
    assert "argument 'status': invalid enum value 'sleeping'" in await bench.refusal(
        "campaigns.list", status="sleeping"
    )


async def test_a_campaign_is_shown_whole(bench: Bench) -> None:
    """Its figures, and the definition as it would be imported again."""
    await bench.command("campaigns.import", campaigns=plain("a"))
    shown = await bench.command("campaigns.show", id="a")
    assert (shown["id"], shown["spent_today"]) == ("a", None)
    assert await bench.command("campaigns.import", campaigns=[shown["campaign"]]) == {"written": 1}


async def test_pause_resume_and_bid_act_at_once(bench: Bench) -> None:
    """Each answers with the campaign as it is now."""
    await bench.command("campaigns.import", campaigns=plain("a"))
    paused = await bench.command("campaigns.pause", id="a")
    assert (paused["status"], paused["version"]) == ("paused", 2)
    assert (await bench.world.run(bid_request())).nbr is not None
    assert (await bench.command("campaigns.resume", id="a"))["status"] == "active"
    assert (await bench.command("campaigns.set-bid", id="a", bid=4))["ecpm"] == 4.0
    assert (await bench.world.run(bid_request(at=1))).results[0].price_micros == 4_000_000


async def test_an_auction_by_hand_counts(bench: Bench) -> None:
    """It is one like any other, answered with the bid response."""
    await bench.command("campaigns.import", campaigns=plain("a"))
    answer = await bench.command("auction", request=REQUEST)
    assert (answer["id"], answer["seatbid"][0]["bid"][0]["cid"]) == ("r", "a")
    assert bench.world.metrics.won == 1


@pytest.mark.parametrize(("code", "seat"), [("house", "house"), ("rtb", "rtb"), ("shop", "shop"), ("nobody", None)])
async def test_a_request_by_hand_is_offered_to_whom_it_names(bench: Bench, code: str, seat: str | None) -> None:
    """As over HTTP: the house by its name, by an alias, as one of all; who is not there is told of."""
    await bench.command("campaigns.import", campaigns=plain("a"))
    asked = {
        **json.loads(REQUEST),
        "imp": [{"id": "1", "banner": {"w": 300, "h": 250}, "ext": {"prebid": {"bidder": {code: {}}}}}],
        "ext": {"prebid": {"aliases": {"shop": "house"}}},
    }
    request = json.dumps(asked)
    found = await bench.command("explain", request=request)
    answer = await bench.command("auction", request=request)
    if seat is None:
        assert found["verdicts"][0]["why"] == "offered: the request names others"
        assert list(answer["ext"]["errors"]) == ["nobody"]
    else:
        assert found["verdicts"][0]["verdict"] == "won"
        assert [each["seat"] for each in answer["seatbid"]] == [seat]


async def test_an_explanation_does_not(bench: Bench) -> None:
    """It rehearses."""
    await bench.command("campaigns.import", campaigns=plain("a"))
    request = openrtb.encode(bid_request(imp(bidfloor=9.0))).decode()
    found = await bench.command("explain", request=request)
    assert (found["outcome"], found["nbr"], found["floors"]) == ("no-bid", 500, {"1": 9.0})
    assert found["verdicts"] == [
        {
            "impid": "1",
            "bidder": "house",
            "verdict": "no-bid",
            "campaign": "a",
            "seat": "a",
            "criterion": "floor",
            "why": "floor: price 2.00 CPM is below 9.00",
        }
    ]
    assert bench.world.metrics.no_bid == 0


@pytest.mark.parametrize(
    ("command", "arguments", "error"),
    [
        ("campaigns.burn", {}, "campaigns.burn: no such command"),
        ("campaigns.show", {}, "campaigns.show: argument 'id' is missing"),
        ("campaigns.show", {"id": "x"}, "campaign 'x': unknown"),
        ("campaigns.set-bid", {"id": "x", "bid": 1}, "campaign 'x': unknown"),
        ("campaigns.set-bid", {"id": "x", "bid": "much"}, "campaigns.set-bid: argument 'bid': expected `float`"),
        ("explain", {"request": "{"}, "the body is not JSON"),
        ("auction", {"request": '{"id":"r"}'}, "imp: required"),
        ("explain", {"request": REQUEST.replace('"imp"', '"at":777,"imp"')}, "at: 777 "),
    ],
)
async def test_what_is_refused(bench: Bench, command: str, arguments: dict[str, Any], error: str) -> None:
    """400 with one line that says what is wrong."""
    assert (await bench.refusal(command, **arguments)).startswith(error)


async def test_arguments_must_be_a_json_object(bench: Bench) -> None:
    """None at all are an empty one."""
    for body in (b"not json", b"[]", b"\xff"):
        status, answer = await bench.post("campaigns.list", body)
        assert (status, list(answer)) == (400, ["error"])
    assert await bench.post("campaigns.list", b"") == (200, {"result": []})


async def test_a_mistake_of_ours_is_one_line_too(bench: Bench) -> None:
    """500 without a trace; the daemon goes on."""

    async def broken(arguments: dict[str, Any]) -> Any:
        raise ZeroDivisionError("secret")

    bench.admin.commands["break"] = broken
    status, answer = await bench.post("break", b"{}")
    assert (status, answer) == (500, {"error": "the daemon failed: ZeroDivisionError; see its log"})
    assert await bench.command("campaigns.list") == []


async def test_the_socket_is_its_owner_s_alone(bench: Bench) -> None:
    """Who can open it commands the daemon."""
    mode = bench.path.stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


async def test_a_socket_left_behind_is_replaced(bench: Bench) -> None:
    """As after a kill -9."""
    stale = bench.path.with_name("stale.sock")
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(stale))
    runner = await listen(bench.admin, stale)
    other = Bench(bench.world, stale)
    assert await other.command("campaigns.list") == []
    await runner.cleanup()


async def test_what_other_daemons_spent_today_is_listed(build: Build) -> None:
    """With shared accounts this daemon knows of no spending before it leases: the ledger has 0.25 of today, in the
    campaign's zone, and 0.5 of yesterday, which does not count."""
    world = build(campaigns=[campaign("tea", 2.0, daily_budget=10.0)])
    ledger = MemoryLedger()
    for day, nanos in (("2025-12-31", 500_000_000), ("2026-01-01", 250_000_000)):
        row = LedgerRow(
            key=day,
            kind=LedgerKind.WIN,
            campaign_id="tea",
            day=day,
            auction_id="a",
            impid="1",
            instance="another",
            price_nanos=nanos,
            charged_nanos=nanos,
            expires_at=0.0,
            received_at=0.0,
        )
        await ledger.append([row], epochs={})
    world.house.budgets = Budgets(world.clock, shared=True)
    world.house.load([campaign("tea", 2.0, daily_budget=10.0)])
    catalogue = Campaigns(world.repository, world.house)
    admin = Admin(catalogue, world.exchange, world.house, world.clock, world.rates, ledger=ledger)
    assert [row["spent_today"] for row in await admin.run("campaigns.list", {})] == [0.25]
    assert (await admin.run("campaigns.show", {"id": "tea"}))["spent_today"] == 0.25
