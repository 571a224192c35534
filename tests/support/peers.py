"""Real OpenRTB material that stands beside the checkout on some machines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from msgspec import Raw, Struct

DATA = Path(__file__).parents[3] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="needs the collected OpenRTB material in ../shared/data")


class _Line(Struct):
    body: Raw
    src: str = ""


class _Whole(Struct):
    request: Raw = msgspec.field(name="mockBidRequest")
    code: int = msgspec.field(name="expectedReturnCode", default=200)
    message: str = msgspec.field(name="expectedErrorMessage", default="")


def corpus() -> Iterator[tuple[str, bytes]]:
    """(Where it is from, body) of the requests in openrtb-requests.jsonl."""
    for line in (DATA / "openrtb-requests.jsonl").read_bytes().splitlines():
        item = msgspec.json.decode(line, type=_Line)
        yield item.src, bytes(item.body)


def specification() -> Iterator[tuple[str, bytes]]:
    """(File name, body) of the sample requests of OpenRTB 2.6."""
    for path in sorted((DATA / "iab-openrtb26").glob("2.6-*-req.json")):
        yield path.name, bytes(msgspec.json.decode(path.read_bytes(), type=_Line).body)


def whole(kind: str) -> Iterator[tuple[str, bytes]]:
    """(File name, body) of the sample requests of Prebid Server: ``invalid-whole`` or ``valid-whole``."""
    for path in sorted((DATA / "pbs-sample-requests" / kind).rglob("*.json")):
        yield path.name, bytes(msgspec.json.decode(path.read_bytes(), type=_Whole).request)


def rtb4free() -> Iterator[tuple[str, bytes]]:
    """(File name, content) of the sample bids of RTB4FREE, some of them not JSON."""
    for path in sorted((DATA / "rtb4free").iterdir()):
        yield path.name, path.read_bytes()
