"""Alerts over HTTP, to a real server on this machine."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace

from rtb.adapters.outgoing_http import OutgoingHttp
from rtb.adapters.webhook import SlackWebhook, Webhook
from rtb.ports.notifier import Notice, NotifyError
from tests.support.http_server import RESET, HttpServer, Reply

NOTICE = Notice(
    key="k-1",
    rule_id="slow",
    name="Slow",
    state="firing",
    severity="critical",
    campaign_id="",
    metric="latency_p99_ms",
    condition="greater_than",
    threshold=100.0,
    value=120.5,
    at=1_767_225_600.0,
    began=1_767_225_600.0,
    instance="a",
    text="[critical] Slow firing: <!channel> & co",
)


@pytest.fixture
async def server() -> AsyncIterator[HttpServer]:
    async with HttpServer(Reply(200)) as server:
        yield server


@pytest.fixture
async def http() -> AsyncIterator[OutgoingHttp]:
    client = OutgoingHttp(allow=["127.0.0.1"])
    yield client
    await client.close()


async def test_a_webhook_gets_the_notice_signed(server: HttpServer, http: OutgoingHttp) -> None:
    """The receiver computes the same HMAC over timestamp, full stop and body; the key tells a repetition."""
    await Webhook("ops", server.url("/hook"), http, lambda: 1_767_225_601.2, secret="s3cret").notify(NOTICE)
    [request] = server.requests
    assert (request.method, request.target, request.headers["content-type"]) == ("POST", "/hook", "application/json")
    told = json.loads(request.body)
    assert (told["rule_id"], told["state"], told["value"], told["at"]) == ("slow", "firing", 120.5, 1_767_225_600.0)
    assert (request.headers["idempotency-key"], request.headers["x-rtb-timestamp"]) == ("k-1", "1767225601")
    expected = hmac.new(b"s3cret", b"1767225601." + request.body, hashlib.sha256).hexdigest()
    assert request.headers["x-rtb-signature"] == f"sha256={expected}"


async def test_without_a_secret_nothing_is_signed(server: HttpServer, http: OutgoingHttp) -> None:
    """A signature that proves nothing is not sent."""
    await Webhook("ops", server.url(), http, lambda: 0.0).notify(NOTICE)
    assert "x-rtb-signature" not in server.requests[0].headers


async def test_slack_gets_a_coloured_line(server: HttpServer, http: OutgoingHttp) -> None:
    """Slack's three control characters are escaped, so that a name mentions nobody; the end of an alert is green."""
    slack = SlackWebhook("slack", server.url("/services/T/B/x"), http)
    await slack.notify(NOTICE)
    await slack.notify(replace(NOTICE, state="resolved"))
    [first], [second] = (json.loads(request.body)["attachments"] for request in server.requests)
    assert first["text"] == first["fallback"] == "[critical] Slow firing: &lt;!channel&gt; &amp; co"
    assert (first["color"], second["color"], first["ts"]) == ("#a30200", "#2eb886", 1_767_225_600)


@pytest.mark.parametrize(
    ("reply", "final", "after_s"),
    [
        (Reply(500), False, 0.0),
        (Reply(429, {"Retry-After": "7"}), False, 7.0),
        (Reply(404), True, 0.0),
        (Reply(302, {"Location": "/x"}), True, 0.0),
        (RESET, False, 0.0),
    ],
)
async def test_what_may_be_tried_again(
    server: HttpServer, http: OutgoingHttp, reply: Reply, final: bool, after_s: float
) -> None:
    """Failures of the server and of the way there, and being asked to wait; not a refusal, nor a redirect."""
    server.replies.append(reply)
    with pytest.raises(NotifyError) as caught:
        await Webhook("ops", server.url(), http, lambda: 0.0).notify(NOTICE)
    assert (caught.value.final, caught.value.after_s) == (final, after_s)


async def test_a_url_that_leads_into_the_house_is_refused() -> None:
    """The address policy holds for webhooks, too."""
    http = OutgoingHttp()
    with pytest.raises(NotifyError) as caught:
        await SlackWebhook("slack", "http://127.0.0.1:1/T0/secret", http).notify(NOTICE)
    assert caught.value.final
    assert "secret" not in str(caught.value)
    await http.close()
