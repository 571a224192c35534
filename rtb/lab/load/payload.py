"""Request bodies, prepared before a run so that making them costs nothing during it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import orjson

from rtb.errors import ConfigError
from rtb.lab.traffic import Traffic

ID_BYTES = 32
SIZES = {"1k": 1000, "3.5k": 3500}


@dataclass(frozen=True, slots=True)
class Payload:
    """A body around its request id, which is filled in at the time of sending."""

    before: bytes
    after: bytes

    def body(self, request_id: bytes) -> bytes:
        """The body of that id, which has ID_BYTES characters."""
        return b"".join((self.before, request_id, self.after))

    @property
    def size(self) -> int:
        """Bytes of a body."""
        return len(self.before) + ID_BYTES + len(self.after)


def payloads(source: str, unique: int, seed: int, users: int) -> list[Payload]:
    """`unique` different bodies.

    Args:
        source: a key of SIZES for generated traffic of about that size, ``house`` for the house format, else the path
            of a JSON bid request, whose id is replaced and whose user is varied as generated traffic varies it.
        unique: how many, at least 1.
        seed: of the traffic.
        users: population of the traffic.

    Raises:
        ConfigError: the file cannot be read or is not a JSON object.
    """
    traffic = Traffic(seed, users)
    if source == "house":
        houses = (traffic.house() for _ in range(unique))
        return [split(orjson.dumps(house), str(house["request_id"]).encode()) for house in houses]
    if source in SIZES:
        bodies = (traffic.body(SIZES[source]) for _ in range(unique))
        return [split(body, orjson.loads(body)["id"].encode()) for body in bodies]
    return _from_file(Path(source), unique, traffic)


def request_ids(seed: int) -> Iterator[bytes]:
    """Ids without end, each once, and not those of another seed."""
    run = f"{random.Random(seed).getrandbits(64):016x}".encode()
    return (b"%b%016x" % (run, number) for number in count())


def _from_file(path: Path, unique: int, traffic: Traffic) -> list[Payload]:
    try:
        text = path.read_bytes()
        request = orjson.loads(text)
    except (OSError, orjson.JSONDecodeError) as error:
        raise ConfigError(f"--body {path}: {error}; give 1k, 3.5k, house or a file with one JSON bid request") from None
    if not isinstance(request, dict):
        raise ConfigError(f"--body {path}: not a JSON object")
    layout = orjson.OPT_INDENT_2 if b"\n" in text.strip() else 0  # keep about the size it has on disk
    request_id = b"0" * (ID_BYTES - 1) + b"1"
    found = []
    for _ in range(unique):
        user = {**(request.get("user") or {}), "id": traffic.draw_user().id}
        body = orjson.dumps({**request, "id": request_id.decode(), "user": user}, option=layout)
        found.append(split(body, request_id))
    return found


def split(body: bytes, request_id: bytes) -> Payload:
    """The body, with the place of its id open for another one of the same length."""
    before, _, after = body.partition(request_id)
    return Payload(before, after)
