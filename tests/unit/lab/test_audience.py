"""The audience against a server that keeps a count of its own."""

from __future__ import annotations

import random
from collections import Counter

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from rtb.lab.audience import CRAWLER, Audience, Behaviour, forge, tracking_urls

QUICK = {"view_s": 0.0, "click_s": 0.0, "conversion_s": 0.0, "late_s": 0.0}


class Site:
    """Answers tracking URLs, and writes down who called."""

    def __init__(self) -> None:
        """Nobody has called; a status may be set for the calls to come."""
        self.calls: list[tuple[str, str, str, str]] = []
        self.refuse_first = 0
        self.expired = False

    async def handle(self, request: web.Request) -> web.Response:
        """Whatever is called is fine, unless its token was forged or everything is too late."""
        if self.refuse_first:
            self.refuse_first -= 1
            raise web.HTTPServiceUnavailable
        kind, token = request.match_info["kind"], request.match_info["token"]
        self.calls.append((kind, token, request.rel_url.raw_query_string, request.headers["user-agent"]))
        return web.Response(status=403 if not token.startswith("token") else 410 if self.expired else 204)


@pytest.fixture
async def site():
    """A site, and its address."""
    site = Site()
    app = web.Application()
    app.router.add_get("/t/{kind}/{token}", site.handle)
    async with TestServer(app) as server:
        yield site, str(server.make_url("")).rstrip("/")


def response(base: str, number: int) -> bytes:
    """A response with one banner that costs 2.50 CPM."""
    adm = (
        f'<a href="{base}/t/c/token{number}?u=https%3A%2F%2Fshop.example%2F&amp;x=1"><img src="https://cdn.example/a.png">'
        f'</a><img src="{base}/t/i/token{number}" width="1" height="1">'
    )
    return msgspec.json.encode(
        {"id": "r", "seatbid": [{"bid": [{"id": "b", "impid": "1", "price": 2.5, "cid": "c1", "adm": adm}]}]}
    )


async def test_it_sees_clicks_and_buys_and_counts_what_should_be_billed(site) -> None:
    """With every share at 1: each win is seen, clicked and bought once, and every event comes twice."""
    site, base = site
    audience = Audience(Behaviour(view=1, click=1, conversion=1, repeat=1, bot=0, forged=0, **QUICK))
    for number in range(20):
        audience.watch(response(base, number))
    seen = await audience.end()
    count = seen.campaigns["c1"]
    assert (count.wins, count.impressions, count.clicks, count.conversions) == (20, 20, 20, 20)
    assert count.nanos == 20 * 2_500_000
    assert seen.repeats == 60
    assert seen.odd == {}
    kinds = Counter(kind for kind, *_ in site.calls)
    assert kinds == {"i": 40, "c": 40, "v": 40}
    assert {query for kind, _, query, _ in site.calls if kind == "c"} == {"u=https%3A%2F%2Fshop.example%2F&x=1"}


async def test_crawlers_are_no_people(site) -> None:
    """A crawler loads the impression with its own user agent, and nothing follows."""
    site, base = site
    audience = Audience(Behaviour(view=1, click=1, bot=1, repeat=0, forged=0, **QUICK))
    audience.watch(response(base, 1))
    seen = await audience.end()
    assert seen.bots == 1
    assert seen.campaigns["c1"].impressions == 0
    assert [(kind, ua) for kind, _, _, ua in site.calls] == [("i", CRAWLER)]


async def test_forged_and_late_calls_must_be_refused(site) -> None:
    """They count when they are refused as they should be, else the answer is odd."""
    site, base = site
    site.expired = True
    audience = Audience(Behaviour(view=1, bot=0, late=1, forged=1, repeat=0, **QUICK))
    audience.watch(response(base, 1))
    seen = await audience.end()
    forged = [token for _, token, _, _ in site.calls if not token.startswith("token")]
    assert seen.late == 1
    assert (seen.forged, sum(seen.odd.values())) == (len(forged), 1 - len(forged))


async def test_a_call_without_an_answer_is_made_again(site) -> None:
    """A server that is away for a moment gets the event later, and it counts once."""
    site, base = site
    site.refuse_first = 2
    audience = Audience(Behaviour(view=1, click=0, bot=0, forged=0, repeat=0, **QUICK), patience_s=10)
    audience.watch(response(base, 1))
    seen = await audience.end()
    assert (seen.campaigns["c1"].impressions, seen.unanswered) == (1, 0)


async def test_a_server_that_stays_away_is_given_up(site) -> None:
    """What was never answered is not expected in the books."""
    site, base = site
    site.refuse_first = 1_000
    audience = Audience(Behaviour(view=1, bot=0, forged=0, **QUICK), patience_s=0)
    audience.watch(response(base, 1))
    seen = await audience.end()
    assert (seen.campaigns["c1"].impressions, seen.unanswered) == (0, 1)


def test_tracking_urls_are_found_in_every_kind_of_markup() -> None:
    """HTML attributes, CDATA of VAST and JSON of native end a URL; nothing else does."""
    vast = "<Impression><![CDATA[http://a.example:80/t/i/T_-1]]></Impression><ClickThrough>x</ClickThrough>"
    native = '{"link":{"url":"http://a.example/t/c/T2?u=https%3A%2F%2Fb"},"imptrackers":["http://a.example/t/i/T2"]}'
    assert tracking_urls(vast) == {"i": "http://a.example:80/t/i/T_-1"}
    assert tracking_urls(native) == {"c": "http://a.example/t/c/T2?u=https%3A%2F%2Fb", "i": "http://a.example/t/i/T2"}
    assert tracking_urls("<img src='https://cdn.example/a.png'>") == {}


def test_a_forged_url_differs_in_one_character_of_the_token() -> None:
    """And in nothing else."""
    url = "http://a.example/t/i/abcdefgh"
    for seed in range(50):
        altered = forge(url, random.Random(seed))
        assert altered.startswith("http://a.example/t/i/")
        assert sum(a != b for a, b in zip(url, altered, strict=True)) == 1
        assert altered[-1] == "h"
