"""``rtb certify`` at our own daemon."""

from __future__ import annotations

from pathlib import Path

from tests.support.daemon import Daemon

CAMPAIGN = {
    "id": "tea",
    "advertiser": "lotus",
    "adomain": ["lotus.example"],
    "bid": 5.0,
    "creatives": [
        {"id": "300x250", "w": 300, "h": 250, "image_url": "https://cdn.example/a.png"},
        {"id": "any", "image_url": "https://cdn.example/b.png"},
    ],
}


def test_our_own_exchange_is_certified(tmp_path: Path) -> None:
    """Its answers are those that we would take from others. With a tmax that nobody misses it passes all of it; as a
    test by default, so that nothing is sold."""
    with Daemon(tmp_path) as rtb:
        rtb.put_campaigns(CAMPAIGN)
        url = f"{rtb.url}/openrtb2/auction"
        given = ("--rate", "200", "--duration", "0.5", "--tmax", "20000", "--seed", "1")
        asked = rtb.run("certify", url, "--exchange", "--strict", "--json", *given)
        assert (asked.code, asked.err) == (0, "")
        found = asked.json()
        assert found["passed"]
        assert found["sent"] == 100 == found["bids"] + found["no_bids"]
        assert found["bids"] > 10
        assert (found["reasons"], found["refused"]) == ({}, {})
        assert [line["name"] for line in found["lines"] if not line["passed"]] == []
        printed = rtb.run("certify", url.replace("auction", "nothing"), "--exchange", *given)
        assert printed.code == 1
        assert "FAIL  timeouts, errors and invalid answers  100.00 %" in printed.out
        assert "100 x error: HTTP status 404" in printed.out
        assert printed.out.endswith("\nFAILED\n")
