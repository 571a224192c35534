"""The REST API over a real server and real services; every answer is what the OpenAPI document says."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from jsonschema import Draft202012Validator

from rtb.adapters.clock import ManualClock
from rtb.errors import StoreError
from rtb.ports import LedgerKind
from rtb.ports.history import Action
from tests.support.dashboard_site import OPS, WALL, DashboardSite
from tests.unit.parts import Prompt, bid_request, campaign, offer, world

TODAY = "2026-01-01"
ALERT: dict[str, Any] = {"id": "low", "metric": "bid_rate", "condition": "less_than", "threshold": 0.6}


class Checked(DashboardSite):
    """Compares every answer with the document."""

    document: dict[str, Any]

    async def start(self) -> None:
        await super().start()
        _, self.document = await super().ask("GET", "/api/openapi.json")

    async def ask(self, method: str, path: str, body: Any = None, **options: Any) -> tuple[int, Any]:
        status, answer = await super().ask(method, path, body, **options)
        operation = self._operation(method, path.partition("?")[0])
        if operation is not None:
            described = operation["responses"][str(status)]
            if "content" in described:
                schema = described["content"]["application/json"]["schema"]
                jsonschema.validate(answer, {**schema, "components": self.document["components"]})
            else:
                assert answer is None
        return status, answer

    def _operation(self, method: str, path: str) -> Any:
        """The exact path if there is one, else the one whose braces fit."""
        parts = path.split("/")
        fitting = [
            template
            for template in self.document["paths"]
            if len(template.split("/")) == len(parts)
            and all(a == b or a.startswith("{") for a, b in zip(template.split("/"), parts, strict=True))
        ]
        best = min(fitting, key=lambda template: template.count("{"), default=None)
        return None if best is None else self.document["paths"][best].get(method.lower())


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Checked]:
    """A DSP that bids 2.5, and three campaigns; a has a budget of 10 a day."""
    made = world(
        str(tmp_path / "rtb.db"),
        Prompt("dsp", offer("dsp", 2.5)),
        campaigns=[campaign("a", 3.0, daily_budget=10.0), campaign("b", 2.0), campaign("c", 1.0)],
        clock=ManualClock(),
    )
    site = Checked(made)
    await site.start()
    yield site
    await site.stop()
    await made.profiles.close()
    await made.repository.close()


async def test_the_document_is_valid(site: Checked) -> None:
    """OpenAPI 3.1: each schema a JSON schema of 2020-12, each reference there, each parameter of a path declared."""
    document = site.document
    assert document["openapi"] == "3.1.0"
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    text = json.dumps(document)
    for name in {part.split('"')[0] for part in text.split('"#/components/schemas/')[1:]}:
        assert name in document["components"]["schemas"]
    ids = [op["operationId"] for path in document["paths"].values() for op in path.values()]
    assert len(set(ids)) == len(ids)
    for path, operations in document["paths"].items():
        for operation in operations.values():
            declared = {p["name"] for p in operation.get("parameters", ()) if p["in"] == "path"}
            assert declared == {part.strip("{}") for part in path.split("/") if part.startswith("{")}


async def test_campaigns_page_by_page(site: Checked) -> None:
    """In the order of ids; the cursor of a page leads to the next one, that of the last is null."""
    status, first = await site.ask("GET", "/api/campaigns?limit=2")
    assert (status, [row["id"] for row in first["campaigns"]], first["total"]) == (200, ["a", "b"], 3)
    _, second = await site.ask("GET", f"/api/campaigns?limit=2&cursor={first['next']}")
    assert ([row["id"] for row in second["campaigns"]], second["next"]) == (["c"], None)
    await site.ask("PATCH", "/api/campaigns/b", {"status": "paused"})
    _, paused = await site.ask("GET", "/api/campaigns?status=paused")
    assert ([row["id"] for row in paused["campaigns"]], paused["total"]) == (["b"], 1)
    for query, line in (
        ("limit=0", "limit: expected a number from 1 to 1000"),
        ("limit=x", "limit: expected a number from 1 to 1000"),
        ("status=gone", "status: choose one of active, paused, ended"),
    ):
        assert await site.ask("GET", f"/api/campaigns?{query}") == (400, {"error": line})


async def test_a_campaign_with_its_figures_of_today(site: Checked) -> None:
    """From memory, as they were written to the ledger."""
    await site.bought("a", TODAY, LedgerKind.IMPRESSION, 2.5)
    await site.bought("a", TODAY, LedgerKind.CLICK)
    status, found = await site.ask("GET", "/api/campaigns/a")
    row = found["row"]
    assert (status, row["bid"], row["ecpm"], row["daily_budget"], row["spent_today"]) == (200, 3.0, 3.0, 10.0, 2.5)
    assert (row["impressions"], row["clicks"], row["ctr"], row["roas"], row["funded"]) == (1, 1, 1.0, 0.0, True)
    assert found["campaign"]["creatives"][0]["id"] == "a-ad"
    status, answer = await site.ask("GET", "/api/campaigns/x")
    assert (status, answer["error"].startswith("campaign 'x': unknown")) == (404, True)


async def test_a_changed_bid_reaches_the_next_auction(site: Checked) -> None:
    """Raised above the DSP's and a's, b wins; paused, it does not. The history says who did it."""
    assert (await site.world.run(bid_request())).results[0].winner.campaign.id == "a"  # type: ignore[union-attr]
    status, found = await site.ask("PATCH", "/api/campaigns/b", {"bid": 5.0, "version": 1})
    assert (status, found["row"]["bid"], found["row"]["version"]) == (200, 5.0, 2)
    assert (await site.world.run(bid_request())).results[0].winner.campaign.id == "b"  # type: ignore[union-attr]
    await site.ask("PATCH", "/api/campaigns/b", {"status": "paused"})
    assert (await site.world.run(bid_request())).results[0].winner.campaign.id == "a"  # type: ignore[union-attr]
    assert site.actors == ["dashboard:ops", "dashboard:ops"]


async def test_who_changed_what_is_told(site: Checked) -> None:
    """The newest first: who acted here by name, what differs, and why; what the daemon did by itself as well."""
    await site.ask("PATCH", "/api/campaigns/b", {"bid": 5.0})
    site.world.clock.advance(60)
    await site.catalogue.set_bid("b", 4.0)
    site.world.clock.advance(60)
    await site.ask("PATCH", "/api/campaigns/b", {"status": "paused"})
    site.recorder.record("b", Action.BUDGET_ALERT, key=(TODAY,), actor="automation", cause="90 % are spent")
    site.world.clock.advance(60)
    await site.recorder.stop()
    status, told = await site.ask("GET", "/api/campaigns/b/history")
    by_time = [(event["at"] - site.world.clock.time(), event["actor"], event["action"]) for event in told["events"]]
    assert (status, sorted(by_time)) == (
        200,
        [
            (-180.0, "dashboard:ops", "changed"),
            (-120.0, "admin", "changed"),
            (-60.0, "automation", "budget alert"),
            (-60.0, "dashboard:ops", "paused"),
        ],
    )
    assert [event["at"] for event in told["events"]] == sorted((event["at"] for event in told["events"]), reverse=True)
    assert [event["details"] for event in told["events"][2:]] == [{"bid": [5.0, 4.0]}, {"bid": [2.0, 5.0]}]
    assert {event["cause"] for event in told["events"]} == {"", "90 % are spent"}
    assert len((await site.ask("GET", "/api/campaigns/b/history?limit=1"))[1]["events"]) == 1
    assert await site.ask("GET", "/api/campaigns/a/history") == (200, {"events": []})
    assert (await site.ask("GET", "/api/campaigns/b/history?limit=0"))[0] == 400
    assert (await site.ask("GET", "/api/campaigns/x/history"))[0] == 404


async def test_changes_that_make_no_sense_are_refused(site: Checked) -> None:
    """With the field, or with what stands in the way; nothing is changed."""
    status, answer = await site.ask("PATCH", "/api/campaigns/b", {"bid": -1})
    assert (status, answer["error"]) == (400, "campaign 'b': bid: expected `float` >= 0.0")
    status, answer = await site.ask("PATCH", "/api/campaigns/b", {"bid": 4.0, "version": 9})
    assert (status, answer["error"]) == (409, "campaign 'b': version: is 1 by now; look again")
    for body, line in (
        ({"id": "z", "bid": 4.0}, "id: cannot be changed"),
        ({}, "body: names no field that changes"),
        ([1], "body: expected an object"),
    ):
        assert await site.ask("PATCH", "/api/campaigns/b", body) == (400, {"error": line})
    assert (await site.ask("PATCH", "/api/campaigns/x", {"bid": 4.0}))[0] == 404
    assert (await site.ask("PATCH", "/api/campaigns/b", data=b"{"))[0] == 415
    headers = {**OPS, "Content-Type": "application/json"}
    status, answer = await site.ask("PATCH", "/api/campaigns/b", data=b"{", headers=headers)
    assert (status, answer["error"].startswith("body: not JSON: ")) == (400, True)
    status, _ = await site.ask("PATCH", "/api/campaigns/b", data=io.BytesIO(b" " * (1 << 21)), headers=headers)
    assert status == 413
    assert (await site.ask("GET", "/api/campaigns/b"))[1]["row"]["version"] == 1


async def test_a_campaign_is_added_once(site: Checked) -> None:
    """With the id of the path; a second time it exists."""
    body = {"advertiser": "x", "bid": 9.0, "creatives": [{"id": "x-ad", "w": 300, "h": 250, "adm": "<b>x</b>"}]}
    status, found = await site.ask("POST", "/api/campaigns/new", body)
    assert (status, found["row"]["id"], found["row"]["status"]) == (201, "new", "active")
    assert (await site.world.run(bid_request())).results[0].winner.campaign.id == "new"  # type: ignore[union-attr]
    status, answer = await site.ask("POST", "/api/campaigns/new", body)
    assert (status, answer["error"]) == (409, "campaign 'new' exists; change it, or choose another id")
    assert (await site.ask("POST", "/api/campaigns/other", {**body, "id": "new"}))[0] == 400
    status, answer = await site.ask("POST", "/api/campaigns/other", {"bid": 1.0})
    assert (status, "advertiser" in answer["error"]) == (400, True)


async def test_metrics_are_merged_and_day_by_day(site: Checked) -> None:
    """All sources together, each of them, and the ledger's days; of other days only when asked for."""
    await site.bought("a", "2025-12-31", LedgerKind.IMPRESSION, 1.0)
    await site.bought("a", TODAY, LedgerKind.IMPRESSION, 2.5)
    await site.bought("a", TODAY, LedgerKind.CLICK)
    status, found = await site.ask("GET", "/api/metrics/a")
    assert (status, found["since"], found["until"], found["standing"]) == (200, TODAY, TODAY, "fresh")
    assert (found["totals"]["spend"], found["totals"]["clicks"], found["totals"]["cpc"]) == (2.5, 1, 2.5)
    assert [(source["source"], source["standing"]) for source in found["sources"]] == [("house", "fresh")]
    _, found = await site.ask("GET", f"/api/metrics/a?since=2025-12-31&until={TODAY}")
    assert [(day["date"], day["figures"]["spend"]) for day in found["days"]] == [("2025-12-31", 1.0), (TODAY, 2.5)]
    for query in ("since=x", "since=2026-01-02&until=2026-01-01", "since=2020-01-01"):
        assert (await site.ask("GET", f"/api/metrics/a?{query}"))[0] == 400
    assert (await site.ask("GET", "/api/metrics/x"))[0] == 404


async def test_the_life_of_an_alert(site: Checked) -> None:
    """Added, firing, acknowledged by name, changed, removed."""
    status, row = await site.ask("POST", "/api/alerts", ALERT)
    assert (status, row["phase"], row["value"], row["rule"]["severity"]) == (201, "ok", 0.5, "warning")
    assert (await site.ask("POST", "/api/alerts", ALERT))[0] == 409
    assert (await site.ask("POST", "/api/alerts/low/acknowledge"))[0] == 409
    await site.alerts.look()
    _, row = await site.ask("POST", "/api/alerts/low/acknowledge")
    assert (row["phase"], row["incident"], row["acknowledged_by"]) == ("firing", 1, "ops")
    _, row = await site.ask("PATCH", "/api/alerts/low", {"threshold": 0.1, "recover_at": None})
    assert (row["rule"]["threshold"], row["rule"]["version"]) == (0.1, 2)
    status, answer = await site.ask("PATCH", "/api/alerts/low", {"metric": "ctr"})
    assert (status, answer["error"].startswith("alert: metric: the system has no 'ctr'")) == (400, True)
    _, listed = await site.ask("GET", "/api/alerts")
    assert ([row["rule"]["id"] for row in listed["alerts"]], "roas" in listed["campaign_metrics"]) == (["low"], True)
    assert (await site.ask("GET", "/api/alerts/low"))[0] == 200
    assert await site.ask("DELETE", "/api/alerts/low") == (204, None)
    assert await site.ask("DELETE", "/api/alerts/low") == (404, {"error": "alert 'low': unknown"})


async def test_an_auction_is_looked_into(site: Checked) -> None:
    """From the list of the last ones to who bid what and why it lost."""
    outcome = await site.world.run(bid_request())
    _, listed = await site.ask("GET", "/api/auctions/recent?limit=1")
    assert [row["id"] for row in listed["auctions"]] == [outcome.auction_id]
    status, story = await site.ask("GET", f"/api/auctions/{outcome.auction_id}")
    verdicts = {v.get("campaign") or v["bidder"]: v["verdict"] for v in story["explanation"]["verdicts"]}
    assert (status, verdicts) == (200, {"a": "won", "b": "lost", "c": "lost", "dsp": "lost"})
    assert (await site.ask("GET", "/api/auctions/x"))[0] == 404


async def test_queues_and_instances(site: Checked) -> None:
    """As last seen."""
    _, queues = await site.ask("GET", "/api/queues")
    assert (queues["queues"][0]["name"], queues["queues"][0]["ready"], queues["outbox"]) == ("bid.requests", 3, 4)
    site.world.clock.advance(1)
    site.source.tick()
    _, found = await site.ask("GET", "/api/instances")
    assert [(row["instance"], row["state"]) for row in found["instances"]] == [("test", "live")]
    assert found["instances"][0]["pid"] > 0
    assert await site.ask("GET", "/api/bidders") == (200, {"time": found["time"], "bidders": []})
    site.world.clock.advance(60)
    site.source.tick()
    _, reports = await site.ask("GET", "/api/reports")
    assert [(report["time"], report["instances"]) for report in reports["reports"]] == [(1_767_225_600, 1)]


async def test_a_viewer_looks_and_changes_nothing(site: Checked) -> None:
    """Whatever it is."""
    assert await site.ask("GET", "/api/me", headers=WALL) == (200, {"name": "wall", "role": "viewer"})
    assert (await site.ask("GET", "/api/campaigns", headers=WALL))[0] == 200
    for method, path in (
        ("PATCH", "/api/campaigns/a"),
        ("POST", "/api/campaigns/z"),
        ("POST", "/api/alerts"),
        ("DELETE", "/api/alerts/low"),
        ("POST", "/api/alerts/low/acknowledge"),
    ):
        assert (await site.ask(method, path, {"bid": 1.0}, headers=WALL))[0] == 403
    assert (await site.ask("GET", "/api/campaigns", headers={}))[0] == 401


async def test_every_refusal_is_a_line_of_json(site: Checked) -> None:
    """Also those of the server itself, and of a database that is away."""
    status, answer = await site.ask("GET", "/api/nothing")
    assert (status, answer) == (404, {"error": "not found"})
    async with site.session.put(site.origin + "/api/alerts", headers=OPS) as response:
        assert (response.status, await response.json()) == (405, {"error": "method not allowed"})
        assert response.headers["Allow"] == "GET,POST"

    async def away() -> Any:
        raise StoreError("database rtb is away")

    site.alerts.all = away  # type: ignore[method-assign]
    assert await site.ask("GET", "/api/alerts") == (503, {"error": "database rtb is away"})

    async def broken() -> Any:
        raise ZeroDivisionError

    site.alerts.all = broken  # type: ignore[method-assign]
    async with site.session.get(site.origin + "/api/alerts", headers=OPS) as response:
        assert response.status == 500
        assert await response.json() == {"error": "the daemon failed: ZeroDivisionError; see its log"}
