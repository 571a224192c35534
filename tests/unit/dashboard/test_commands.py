"""The WebSocket protocol over a real server and real services: subscriptions, commands, events, backfill."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientWebSocketResponse, WSCloseCode, WSMsgType

from rtb.adapters.clock import ManualClock
from rtb.domain.pacing import Pace
from rtb.ports import LedgerKind
from rtb.services.metrics import Metrics
from rtb.services.queue_monitor import QueueReport, QueueRow
from tests.support.dashboard_site import OPS, WALL, DashboardSite
from tests.unit.parts import bid_request, campaign, world

ALERT: dict[str, Any] = {"id": "low", "metric": "bid_rate", "condition": "less_than", "threshold": 0.6}


class Socket:
    """A client that has been greeted."""

    def __init__(self, site: DashboardSite, ws: ClientWebSocketResponse) -> None:
        self.site = site
        self.ws = ws
        self.initial: Any = None

    async def say(self, **message: Any) -> Any:
        """Send a message, and what it is answered."""
        await self.ws.send_json(message)
        return await self.hear()

    async def hear(self) -> Any:
        """The next message; the reports of minutes that are over do not count."""
        async with asyncio.timeout(20):
            while (message := await self.ws.receive_json())["type"] == "report":
                pass
            return message

    async def tick(self) -> Any:
        """A second later, and the update of it."""
        self.site.world.clock.advance(1)
        self.site.source.tick()
        return await self.hear()


Connect = Callable[..., AbstractAsyncContextManager[Socket]]


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[DashboardSite]:
    made = world(str(tmp_path / "rtb.db"), campaigns=[campaign("a", 3.0), campaign("b", 2.0)], clock=ManualClock())
    site = DashboardSite(made)
    await site.start()
    yield site
    await site.stop()
    await made.profiles.close()
    await made.repository.close()


@pytest.fixture
def connect(site: DashboardSite) -> Connect:
    @asynccontextmanager
    async def connect(headers: dict[str, str] = OPS) -> AsyncIterator[Socket]:
        async with site.session.ws_connect(site.origin + "/ws", headers=headers) as ws:
            socket = Socket(site, ws)
            socket.initial = await socket.hear()
            yield socket

    return connect


async def test_subscribed_campaigns_come_with_every_update(site: DashboardSite, connect: Connect) -> None:
    """To who asked, until they ask no more; to others not."""
    async with connect() as one, connect(WALL) as other:
        assert (one.initial["type"], one.initial["data"]["protocol"]) == ("initial", 2)
        answer = await one.say(type="subscribe", id=7, campaign_id="a")
        assert (answer["type"], answer["id"], answer["data"]["spent_today"]) == ("ok", 7, 0.0)
        await site.bought("a", "2026-01-01", LedgerKind.IMPRESSION, 2.5)
        update = await one.tick()
        live = dict(zip(one.initial["data"]["campaign_fields"], update["data"]["campaigns"]["a"], strict=True))
        assert (update["type"], live["spent_today"], live["impressions"], live["bid"]) == (
            "metrics_update",
            2.5,
            1,
            3.0,
        )
        assert list((await other.hear())["data"]) == ["snapshot", "point"]
        assert await one.say(type="unsubscribe", id="x", campaign_id="a") == {"type": "ok", "id": "x", "data": None}
        assert list((await one.tick())["data"]) == ["snapshot", "point"]


async def test_an_operator_acts(site: DashboardSite, connect: Connect) -> None:
    """The next auction knows of it, and the history who it was."""
    async with connect() as socket:
        answer = await socket.say(type="update_bid", id=1, campaign_id="b", bid=5.0)
        assert (answer["type"], answer["data"]["bid"], answer["data"]["version"]) == ("ok", 5.0, 2)
        assert (await site.world.run(bid_request())).results[0].winner.campaign.id == "b"  # type: ignore[union-attr]
        assert (await socket.say(type="pause", id=2, campaign_id="b"))["data"]["status"] == "paused"
        assert (await site.world.run(bid_request())).results[0].winner.campaign.id == "a"  # type: ignore[union-attr]
        assert (await socket.say(type="resume", id=3, campaign_id="b"))["data"]["status"] == "active"
        assert site.actors == ["dashboard:ops"] * 3


async def test_a_viewer_does_not(site: DashboardSite, connect: Connect) -> None:
    """Nothing changes; looking is allowed."""
    async with connect(WALL) as socket:
        for message in (
            {"type": "update_bid", "campaign_id": "a", "bid": 9.0},
            {"type": "pause", "campaign_id": "a"},
            {"type": "resume", "campaign_id": "a"},
            {"type": "ack_alert", "alert_id": "low"},
        ):
            answer = await socket.say(id=1, **message)
            line = f"{message['type']}: 'wall' may look only; this needs the role operator"
            assert answer == {"type": "error", "id": 1, "error": line}
        assert site.catalogue.get("a").version == 1
        assert (await socket.say(type="subscribe", campaign_id="a"))["type"] == "ok"


async def test_a_campaign_s_last_hour_is_told(site: DashboardSite, connect: Connect) -> None:
    """A point every ten seconds, with what had been spent and won by then: 1 in the first ten seconds and 2.5 in the
    next; of a campaign that did nothing there are none."""
    site.paces["a"] = Pace(1.0, 0, 4_000_000_000)
    began = site.world.clock.time()
    async with connect() as socket:
        await site.bought("a", "2026-01-01", LedgerKind.IMPRESSION, 1.0)
        await socket.tick()
        await site.bought("a", "2026-01-01", LedgerKind.WIN)
        await site.bought("a", "2026-01-01", LedgerKind.IMPRESSION, 1.5)
        for _ in range(19):
            await socket.tick()
        answer = await socket.say(type="backfill", id=1, campaign_id="a", since=0)
        fields = socket.initial["data"]["campaign_point_fields"]
        assert fields == ["time", "spent_today", "target", "wins"]
        assert (answer["type"], answer["data"]["more"]) == ("backfill", False)
        assert answer["data"]["points"] == [[began + 1, 1.0, 4.0, 0], [began + 11, 2.5, 4.0, 1]]
        answer = await socket.say(type="backfill", id=2, campaign_id="a", since=began + 1)
        assert answer["data"]["points"] == [[began + 11, 2.5, 4.0, 1]]
        assert (await socket.say(type="backfill", id=3, campaign_id="b", since=0))["data"]["points"] == []
        assert (await socket.say(type="backfill", id=4, campaign_id="x", since=0))["type"] == "error"


async def test_who_is_logged_out_is_not_obeyed(site: DashboardSite, connect: Connect) -> None:
    """Not even in the second in which the session has ended and the hub has not looked yet: the connection ends and
    nothing changes."""
    session = {"Cookie": f"rtb_session={site.cookie('ops')}", "Origin": site.origin}
    async with connect(session) as socket:
        assert (await socket.say(type="pause", id=1, campaign_id="a"))["data"]["status"] == "paused"
        site.world.clock.advance(3_600)
        await socket.ws.send_json({"type": "resume", "id": 2, "campaign_id": "a"})
        message = await socket.ws.receive(timeout=20)
        assert (message.type, message.data) == (WSMsgType.CLOSE, WSCloseCode.POLICY_VIOLATION)
    assert site.catalogue.get("a").version == 2


@pytest.mark.parametrize(
    ("text", "said_id", "line"),
    [
        ("{", None, "message: Input data was truncated"),
        ("[]", None, "message: Expected `object`, got `array`"),
        ('{"type": "shout", "id": "q"}', "q", "type: 'shout' is unknown; choose one of subscribe, "),
        ('{"type": "subscribe", "id": "q"}', "q", "campaign_id: required"),
        ('{"type": "subscribe", "id": "q", "campaign_id": "x"}', "q", "campaign 'x': unknown"),
        ('{"type": "subscribe", "id": "q", "channel": "x"}', "q", "channel: 'x' is unknown"),
        ('{"type": "update_bid", "id": 1, "campaign_id": "a"}', 1, "bid: required"),
        ('{"type": "update_bid", "id": 1, "campaign_id": "a", "bid": -1}', 1, "campaign 'a': bid: "),
        ('{"type": "ack_alert", "id": 1, "alert_id": "x"}', 1, "alert 'x': unknown"),
        ('{"type": "pause", "id": 1, "campaign_id": "a", "colour": 1}', None, "message: Object contains unknown field"),
    ],
)
async def test_what_is_wrong_is_one_line_with_the_request_s_id(
    connect: Connect, text: str, said_id: Any, line: str
) -> None:
    """And the connection stays."""
    async with connect() as socket:
        await socket.ws.send_str(text)
        answer = await socket.hear()
        assert (answer["type"], answer["id"]) == ("error", said_id)
        assert answer["error"].startswith(line)
        assert (await socket.tick())["type"] == "metrics_update"


async def test_everybody_hears_of_alerts(site: DashboardSite, connect: Connect) -> None:
    """When one fires, and when somebody acknowledges it over the socket."""
    await site.alerts.create(ALERT)
    async with connect() as socket, connect(WALL) as other:
        await site.alerts.look()
        for client in (socket, other):
            event = await client.hear()
            assert (event["type"], event["data"]["rule"]["id"], event["data"]["phase"]) == ("alert", "low", "firing")
        await socket.ws.send_json({"type": "ack_alert", "id": 1, "alert_id": "low"})
        heard = [await socket.hear() for _ in range(2)]
        assert sorted(message["type"] for message in heard) == ["alert", "ok"]
        assert (await other.hear())["data"]["acknowledged_by"] == "ops"


async def test_the_tape_of_auctions_runs_for_who_wants_it(site: DashboardSite, connect: Connect) -> None:
    """Each sampled auction as a row; its explanation is asked for over the API."""
    async with connect() as socket, connect() as other:
        assert (await socket.say(type="subscribe", channel="auctions"))["type"] == "ok"
        outcome = await site.world.run(bid_request())
        event = await socket.hear()
        assert (event["type"], event["data"]["id"], event["data"]["outcome"]) == ("auction", outcome.auction_id, "won")
        await socket.say(type="unsubscribe", channel="auctions")
        site.world.clock.advance(1)
        await site.world.run(bid_request())
        assert (await socket.tick())["type"] == "metrics_update"
        assert (await other.hear())["type"] == "metrics_update"


async def test_a_gap_is_filled(connect: Connect) -> None:
    """All points between two moments, as far back as they are kept; the last one is the update's."""
    async with connect() as socket:
        updates = [(await socket.tick())["data"] for _ in range(5)]
        times = [update["snapshot"]["time"] for update in updates]
        answer = await socket.say(type="backfill", id=1, since=times[1])
        assert (answer["type"], answer["id"], answer["data"]["more"]) == ("backfill", 1, False)
        assert [point[0] for point in answer["data"]["points"]] == times[2:]
        assert answer["data"]["points"][-1] == updates[-1]["point"]
        answer = await socket.say(type="backfill", since=0, until=times[2])
        assert [point[0] for point in answer["data"]["points"]] == times[:2]


async def test_a_long_gap_is_filled_piece_by_piece(site: DashboardSite, connect: Connect) -> None:
    """Six hundred points at most, the oldest first; asked from the last one on there is the rest."""
    for _ in range(700):
        site.world.clock.advance(1)
        site.source.tick()
    async with connect() as socket:
        assert len(socket.initial["data"]["history"]) == 300
        first = (await socket.say(type="backfill", since=0))["data"]
        assert (len(first["points"]), first["more"]) == (600, True)
        rest = (await socket.say(type="backfill", since=first["points"][-1][0]))["data"]
        assert (len(rest["points"]), rest["more"]) == (100, False)
        assert rest["points"] == socket.initial["data"]["history"][200:]


async def test_channels_tell_how_things_stand(site: DashboardSite, connect: Connect) -> None:
    """At once and then every second, the queues only when somebody has looked; to others nothing."""
    async with connect() as socket, connect() as other:
        await socket.tick()
        for channel, rows in (("instances", "instances"), ("bidders", "bidders"), ("queues", "queues")):
            answer = await socket.say(type="subscribe", id=1, channel=channel)
            assert (answer["type"], rows in answer["data"]) == ("ok", True)
            assert "minutes" not in answer["data"]
        heard = [await socket.tick(), await socket.hear(), await socket.hear()]
        assert sorted(message["type"] for message in heard) == ["bidder", "instance", "metrics_update"]
        site.queues = QueueReport(2.0, (QueueRow("bid.requests", 5, 0, 1, None, None),))
        heard = [await socket.tick(), *[await socket.hear() for _ in range(3)]]
        told = {message["type"]: message["data"] for message in heard}
        assert (told["queue"]["time"], told["queue"]["queues"][0]["ready"], told["queue"]["outbox"]) == (2.0, 5, 4)
        assert [row["state"] for row in told["instance"]["instances"]] == ["live"]
        for channel in ("instances", "bidders", "queues"):
            await socket.say(type="unsubscribe", channel=channel)
        assert [(await socket.tick())["type"], (await socket.tick())["type"]] == ["metrics_update"] * 2
        assert {(await other.hear())["type"] for _ in range(5)} == {"metrics_update"}


async def test_one_instance_is_looked_at_alone(site: DashboardSite, connect: Connect) -> None:
    """With its last points, and in every update, until it is gone or another is looked at."""
    peer = Metrics("other", site.world.clock)
    peer.won = 7
    site.world.clock.advance(1)
    site.source.receive(peer.frame())
    async with connect() as socket:
        await socket.tick()
        answer = await socket.say(type="subscribe", id=1, instance="other")
        assert (answer["data"]["instance"], answer["data"]["snapshot"]["totals"]) == ("other", {"won": 7})
        assert len(answer["data"]["history"]) == 1
        view = (await socket.tick())["data"]["view"]
        assert (view["instance"], view["snapshot"]["totals"]["won"], len(view["point"])) == ("other", 7, 15)
        answer = await socket.say(type="subscribe", id=1, instance="gone")
        assert answer["error"] == "instance 'gone': has not been heard of lately"
        site.world.clock.advance(301)
        view = (await socket.tick())["data"]["view"]
        assert view == {"instance": "other", "snapshot": None, "point": None}
        await socket.say(type="unsubscribe", instance="other")
        assert "view" not in (await socket.tick())["data"]


async def test_an_update_of_twenty_campaigns_is_under_4_kb(site: DashboardSite, connect: Connect) -> None:
    """With figures in every field, five reasons and three daemons."""
    metrics = site.world.metrics
    metrics.won, metrics.bids, metrics.wins, metrics.spend_nanos = 123_456, 234_567, 123_456, 987_654_321_987
    metrics.nbr.update(dict.fromkeys((500, 501, 503), 4_321))
    metrics.losses.update(dict.fromkeys((100, 102), 7_654))
    for n in range(1, 1_000):
        metrics.latency.record(n * 54_321)
    for name in ("other", "third"):
        peer = Metrics(name, site.world.clock)
        peer.won = 99_999
        site.source.receive(peer.frame())
    async with connect() as socket:
        for n in range(20):
            site.world.house.put(campaign(f"campaign-{n:04}", 2.345))
            await site.bought(f"campaign-{n:04}", "2026-01-01", LedgerKind.IMPRESSION, 1_234.567891)
            await socket.say(type="subscribe", campaign_id=f"campaign-{n:04}")
        site.world.clock.advance(1)
        site.source.tick()
        text = await socket.ws.receive_str()
    assert text.count("1234.567891") == 20
    assert len(text.encode()) < 4_096


async def test_a_page_may_subscribe_to_much_at_once(site: DashboardSite, connect: Connect) -> None:
    """As it does when it comes back: nothing is refused."""
    async with connect() as socket:
        for n in range(100):
            await socket.ws.send_json({"type": "subscribe", "id": n, "campaign_id": "ab"[n % 2]})
        answers = [await socket.hear() for _ in range(64)]
        assert {answer["type"] for answer in answers} == {"ok"}


async def test_too_much_at_once_is_refused(site: DashboardSite, connect: Connect) -> None:
    """While eight commands are under way a ninth is not begun; those under way are finished."""
    async with site.catalogue._changing, connect() as socket:
        for n in range(8):
            await socket.ws.send_json({"type": "pause", "id": n, "campaign_id": "a"})
        refused = await socket.say(type="pause", id=8, campaign_id="a")
        assert refused["error"] == "too much at once; wait for the answers"
        site.catalogue._changing.release()
        answers = [await socket.hear() for _ in range(8)]
        await site.catalogue._changing.acquire()
    assert sorted(answer["id"] for answer in answers) == list(range(8))
