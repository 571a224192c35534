"""A page that takes several bids of the house, and shows the second."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from tests.support.daemon import LIMIT_S, Daemon
from tests.support.http import fetch, request
from tests.support.samples import bid_request, campaign

PIXEL = re.compile(r"https?://[^\"']*/t/i/[A-Za-z0-9_-]+")
MULTIBID = [{"bidder": "rtb", "maxbids": 2, "targetbiddercodeprefix": "rtb"}]


def figures(daemon: Daemon, campaign_id: str) -> dict[str, Any]:
    """What is known of a campaign."""
    [row] = daemon.admin("campaigns.stats", ids=[campaign_id])["result"]["rows"]
    return {name: row[name] for name in ("wins", "impressions", "cost")}


def test_what_is_shown_is_counted_and_billed_once(tmp_path: Path) -> None:
    """The second bid's pixel is fetched twice: its campaign has an impression at its price, the winner's has none."""
    ask = bid_request(at=1, ext={"prebid": {"multibid": MULTIBID, "targeting": {}}})
    ask["imp"][0]["ext"] = {"prebid": {"bidder": {"rtb": {}}}}
    with Daemon(tmp_path) as daemon:
        daemon.put_campaigns(
            *(campaign(name, bid=bid, daily_budget=10.0) for name, bid in (("tea", 3.0), ("cup", 2.0)))
        )
        [seat] = msgspec.json.decode(daemon.auction(ask).body)["seatbid"]
        assert [(bid["cid"], bid["price"]) for bid in seat["bid"]] == [("tea", 3.0), ("cup", 2.0)]
        found = PIXEL.search(seat["bid"][1]["adm"])
        assert found is not None
        for _ in range(2):
            lines = {"host": "t", "user-agent": "Mozilla/5.0 (X11; Linux x86_64) Firefox/132.0"}
            assert fetch(daemon.url, request("GET", urlsplit(found[0]).path, lines)).status == 200
        give_up = time.monotonic() + LIMIT_S
        while figures(daemon, "cup") != {"wins": 1, "impressions": 1, "cost": 0.002}:
            assert time.monotonic() < give_up
            time.sleep(0.05)
        assert figures(daemon, "tea")["impressions"] == 0
