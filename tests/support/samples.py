"""Campaigns and bid requests to begin a test with; what matters to the test is given by it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

NOON_HERE = f"Etc/GMT{datetime.now(UTC).hour - 12:+d}"
"""A time zone in which it is about noon as the tests begin, so that none of them sees a midnight, when budgets and
figures of the day begin anew. The sign is that of POSIX: Etc/GMT-3 is three hours ahead of UTC."""


def campaign(name: str, **fields: Any) -> dict[str, Any]:
    """A campaign of an advertiser of its own: a 300x250 banner at 2.00 CPM for everyone, without a budget, around its
    noon."""
    return {
        "id": name,
        "advertiser": f"{name}-inc",
        "adomain": [f"{name}.test"],
        "bid": 2.0,
        "timezone": NOON_HERE,
        "creatives": [{"id": f"{name}-ad", "w": 300, "h": 250, "adm": f"<b>{name}</b>"}],
        **fields,
    }


def bid_request(**fields: Any) -> dict[str, Any]:
    """One 300x250 banner imp with a floor of 0.50 CPM, on a site, by a phone in Seoul, without a tmax: the
    exchange's own deadline holds."""
    return {
        "id": "request-1",
        "imp": [imp()],
        "site": {"domain": "news.test", "cat": ["IAB12"]},
        "device": {
            "devicetype": 4,
            "os": "Android",
            "language": "ko",
            "geo": {"country": "KOR", "region": "KR-11", "city": "Seoul", "lat": 37.5665, "lon": 126.978},
        },
        **fields,
    }


def imp(**fields: Any) -> dict[str, Any]:
    """A 300x250 banner with a floor of 0.50 CPM."""
    return {"id": "1", "banner": {"w": 300, "h": 250}, "bidfloor": 0.5, **fields}
