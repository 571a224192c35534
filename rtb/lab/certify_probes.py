"""Requests that a server must cope with, one kind each."""

from __future__ import annotations

from typing import Any

import orjson
from msgspec import Struct

from rtb.lab.certify_verdict import Kind, Verdict

TRIES = 3
"""How often each is sent: one answer as it should be is enough, for servers fail now and then."""

_BANNER = {"id": "1", "banner": {"w": 300, "h": 250}, "bidfloor": 0.01}
_VIDEO = {
    "id": "1",
    "video": {"mimes": ["video/mp4"], "minduration": 5, "maxduration": 30, "protocols": [2, 3], "w": 640, "h": 360},
}
_AUDIO = {"id": "1", "audio": {"mimes": ["audio/mpeg"], "minduration": 5, "maxduration": 30}}
_NATIVE = {"id": "1", "native": {"request": '{"ver":"1.2","assets":[{"id":1,"title":{"len":90}}]}', "ver": "1.2"}}
_SITE = {"site": {"domain": "news.example", "page": "https://news.example/a"}}
_LONG = "x" * 40_000


class Question(Struct, frozen=True):
    """A probe to be sent: its name, the members of the request, and whether it is to be refused."""

    name: str
    members: dict[str, Any]
    wrong: bool = False

    def body(self, request_id: str, tmax_ms: int, *, test: bool) -> bytes:
        """The JSON to send."""
        if self.wrong:
            return orjson.dumps({"id": request_id, "imp": self.members.get("imp", "none")})
        return orjson.dumps({"id": request_id, "tmax": tmax_ms, **({"test": 1} if test else {}), **self.members})

    def objection(self, verdict: Verdict, status: int) -> str:
        """Why an answer is not as it should be; "" when it is."""
        if self.wrong:
            fine = status == 204 or 400 <= status < 500
            return "" if fine else verdict.reason or f"a request that is none got HTTP status {status}, not 400"
        return "" if verdict.kind in (Kind.BID, Kind.NO_BID) else verdict.reason


def _of(name: str, *imps: dict[str, Any], **members: Any) -> Question:
    return Question(name, {"imp": list(imps), **(members or _SITE)})


QUESTIONS = (
    _of("a banner on a site", _BANNER),
    _of("a banner in an app", _BANNER, app={"bundle": "com.example.app"}),
    _of("video", _VIDEO),
    _of("audio", _AUDIO),
    _of("native", _NATIVE),
    _of("several imps", _BANNER, {**_VIDEO, "id": "2"}, {**_BANNER, "id": "3"}),
    _of("a private deal", {**_BANNER, "pmp": {"private_auction": 1, "deals": [{"id": "rtb-certify", "bidfloor": 1}]}}),
    _of("first price", _BANNER, **_SITE, at=1),
    _of("nothing but what is required", {"id": "1", "banner": {}}, cur=["USD"]),
    _of("fields it does not know", {**_BANNER, "ext": {"x": [1, {"y": None}]}}, **_SITE, unheard_of={"a": [1]}, ext={}),
    _of("values it does not know", {**_BANNER, "instl": 0, "api": [999]}, **_SITE, device={"devicetype": 99}),
    _of("a long request", _BANNER, site={"domain": "news.example", "keywords": _LONG}),
    _of("coppa", _BANNER, **_SITE, regs={"coppa": 1}),
    _of("gdpr without consent", _BANNER, **_SITE, regs={"gdpr": 1}),
    _of("advertisers blocked", _BANNER, **_SITE, badv=["ford.com"], bcat=["IAB25", "IAB26"]),
    Question("no bid request", {}, wrong=True),
)
"""What both kinds of servers are asked."""
