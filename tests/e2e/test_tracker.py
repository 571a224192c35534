"""Tracking through a daemon: what stands in an answer's markup is fetched, and the ledger knows it."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from tests.support.daemon import LIMIT_S, Daemon, bids
from tests.support.http import Response, fetch, get, post, request
from tests.support.production import Production
from tests.support.samples import bid_request, campaign

TEA: dict[str, Any] = {
    **campaign("tea", bid=3.0),
    "daily_budget": 10.0,
    "creatives": [
        {
            "id": "tea-ad",
            "w": 300,
            "h": 250,
            "image_url": "https://cdn.test/tea.png",
            "landing_page": "https://tea.test/?click=${CLICK_ID}",
        }
    ],
}
URL = re.compile(r"https?://[^\"']*/t/([ic])/([A-Za-z0-9_-]+)[^\"']*")


def won(daemon: Daemon, auction: dict[str, Any] | None = None) -> tuple[str, str, str]:
    """The pixel's and the link's path of a win, and its token."""
    [seat] = bids(daemon.auction(auction or bid_request())).seatbid or []
    [bid] = seat.bid or []
    found = {kind[1]: kind for kind in URL.finditer(bid.adm or "")}
    assert found["i"][0].startswith(daemon.url)
    return _path(found["i"][0]), _path(found["c"][0]), found["i"][2]


def _path(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}" if parts.query else parts.path


def ask(daemon: Daemon, path: str) -> Response:
    """Fetch as a browser does."""
    lines = {"host": "t", "user-agent": "Mozilla/5.0 (X11; Linux x86_64) Firefox/132.0"}
    return fetch(daemon.url, request("GET", path, lines))


def until(daemon: Daemon, **wanted: int) -> None:
    """Return once the campaign's figures are these."""
    give_up = time.monotonic() + LIMIT_S
    while True:
        figures = daemon.admin("campaigns.stats", ids=["tea"])
        [shown] = figures["result"]["rows"]
        if all(shown.get(name) == number for name, number in wanted.items()):
            return
        assert time.monotonic() < give_up, figures
        time.sleep(0.05)


def test_an_ad_is_shown_clicked_and_converted(tmp_path: Path) -> None:
    """Pixel, redirect to the landing page with the click's id, conversion: each counts once, however often told."""
    with Daemon(tmp_path) as daemon:
        daemon.put_campaigns(TEA)
        pixel, link, token = won(daemon)
        for _ in range(2):
            shown = ask(daemon, pixel)
            assert (shown.status, shown.headers["content-type"], len(shown.body)) == (200, "image/gif", 43)
        clicked = ask(daemon, link)
        assert (clicked.status, clicked.headers["location"]) == (302, f"https://tea.test/?click={token}")
        event = {"type": "conversion", "token": token, "value": 20, "currency": "USD", "order_id": "1"}
        told = fetch(daemon.url, post(msgspec.json.encode([event, event]), path="/events"))
        assert msgspec.json.decode(told.body) == [{"status": "accepted"}] * 2
        until(daemon, impressions=1, clicks=1, conversions=1)


def test_nothing_comes_of_a_forgery(tmp_path: Path) -> None:
    """An altered token is a 403, another destination a 404, and nothing is counted."""
    with Daemon(tmp_path) as daemon:
        daemon.put_campaigns(TEA)
        pixel, _, token = won(daemon)
        altered = token[:40] + ("A" if token[40] != "A" else "B") + token[41:]
        assert ask(daemon, pixel.replace(token, altered)).status == 403
        astray = ask(daemon, f"/t/c/{token}?u=https%3A%2F%2Fevil.test%2F")
        assert (astray.status, "location" in astray.headers) == (404, False)
        assert ask(daemon, pixel).status == 200
        until(daemon, impressions=1, clicks=0)


def test_a_daemon_that_does_not_track(tmp_path: Path) -> None:
    """No URLs in the markup, and nobody listens for them."""
    with Daemon(tmp_path, "tracking.enabled=false") as daemon:
        daemon.put_campaigns(TEA)
        [seat] = bids(daemon.auction(bid_request())).seatbid or []
        [bid] = seat.bid or []
        assert "/t/" not in (bid.adm or "")
        assert (bid.nurl, bid.burl, bid.lurl) == (None, None, None)
        assert get(daemon.url, "/t/i/x").status == 404


def test_the_first_request_of_all_wins_on_shared_accounts(tmp_path: Path, production: Production) -> None:
    """A campaign that never won has no lease yet: the auction waits for it, and nobody has to ask twice."""
    with Daemon(tmp_path, *production.settings()) as daemon:
        daemon.put_campaigns(TEA)
        pixel, _, _ = won(daemon)
        assert ask(daemon, pixel).status == 200
