"""Filling a bid request up to a size, with what SSPs fill theirs with."""

from __future__ import annotations

import random
from typing import Any

import orjson

from rtb.lab.vocabulary import INTERESTS, LANGUAGES, SEGMENTS


def fill(request: dict[str, Any], target_bytes: int, rng: random.Random) -> None:
    """Add source, content, eids, referrer as far as they fit, then data segments up to the last few bytes."""
    venue = request.get("site") or request["app"]
    room = target_bytes - len(orjson.dumps(request))
    extras: list[tuple[dict[str, Any], str, Any]] = [
        (request, "source", {"fd": 0, "tid": f"{rng.getrandbits(128):032x}"}),
        (venue, "content", _content(rng)),
        (request["user"], "eids", [{"source": "id.example", "uids": [{"id": f"{rng.getrandbits(160):040x}"}]}]),
    ]
    if "site" in request:
        search = f"q={venue['name'].replace(' ', '+')}&utm_source=portal&utm_campaign=c{rng.randrange(10_000)}"
        extras.append((venue, "ref", f"https://www.portal.example/search?{search}"))
    for owner, name, value in extras:
        cost = len(orjson.dumps({name: value})) - 1  # its comma in, its braces out
        if cost <= room:
            owner[name] = value
            room -= cost
    segments = _segments(room - len(orjson.dumps({"data": [{"id": "dmp-1", "segment": []}]})) + 1, rng)
    if segments:
        request["user"]["data"] = [{"id": "dmp-1", "segment": segments}]


def _segments(room: int, rng: random.Random) -> list[dict[str, str]]:
    """Different segments whose JSON, commas included, fits into `room` bytes."""
    segments: list[dict[str, str]] = []
    if room <= 0:
        return segments
    for number in rng.sample(range(len(SEGMENTS)), min(len(SEGMENTS), room // 32)):
        segment = {"id": SEGMENTS[number], "name": INTERESTS[number % len(INTERESTS)]}
        room -= len(orjson.dumps(segment)) + bool(segments)
        if room < 0:
            break
        segments.append(segment)
    return segments


def _content(rng: random.Random) -> dict[str, Any]:
    return {
        "id": f"{rng.getrandbits(48):012x}",
        "title": " and ".join(rng.sample(INTERESTS, 3)),
        "language": rng.choice(LANGUAGES),
        "keywords": ",".join(rng.sample(INTERESTS, 5)),
        "url": f"https://cdn.content.example/{rng.getrandbits(64):016x}/index.html",
    }
