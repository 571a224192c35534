"""Remote bidders of a running daemon: they bid, and come and go with their file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from rtb.lab.dsp import DspScript, serving
from tests.support.daemon import Daemon, run
from tests.support.http import Http, post
from tests.support.samples import bid_request, imp

REQUEST = msgspec.json.encode(bid_request(cur=["USD"]))
NAMED = msgspec.json.encode(
    bid_request(imp=[imp(ext={"prebid": {"bidder": {"two": {}}}})], cur=["USD"]),
)
BIDDER = '[[bidder]]\nname = "{name}"\nurl = "{url}"\n'


@pytest.fixture
async def urls() -> AsyncIterator[list[str]]:
    """Two simulated bidders that always bid: the first 2 CPM, the second 5."""
    scripts = [
        DspScript(name=f"dsp{cpm}", latency_ms=(1.0, 1.0), cpm=(float(cpm), float(cpm)), no_bid=0.0) for cpm in (2, 5)
    ]
    async with serving(scripts, seed=1) as served:
        yield [url for _, url in served]


def price(daemon: Daemon) -> float | None:
    """What an auction of one imp sells at; None when nobody bids."""
    with Http(daemon.url) as client:
        response = client.exchange(post(REQUEST))
    if response.status == 204:
        return None
    return float(msgspec.json.decode(response.body)["seatbid"][0]["bid"][0]["price"])


async def test_bidders_come_and_go_without_a_restart(tmp_path: Path, urls: list[str]) -> None:
    """A file that is changed is followed as a whole; one that is wrong changes nothing, and `rtb bidders list` says so;
    a bidder can be switched off and on, and asked alone."""
    file = tmp_path / "bidders.toml"
    first, second = (BIDDER.format(name=name, url=url) for name, url in zip(("two", "five"), urls, strict=True))
    file.write_text(first)
    (tmp_path / "request.json").write_bytes(REQUEST)
    settings = ("bidders.file=bidders.toml", 'bidders.allow=["127.0.0.1"]')
    with Daemon(tmp_path, *settings) as daemon:

        async def rtb(*arguments: str) -> tuple[int, str, str]:
            result = await asyncio.to_thread(run, tmp_path, *arguments)
            return result.code, result.out, result.err

        assert await asyncio.to_thread(price, daemon) == 0.5
        file.write_text(first + second)
        code, out, _ = await rtb("bidders", "enable", "five")
        assert code == 0
        assert "five" in out
        assert await asyncio.to_thread(price, daemon) == 2.01
        (tmp_path / "named.json").write_bytes(NAMED)
        code, out, _ = await rtb("explain", "named.json")
        assert code == 0
        told = [line.split(maxsplit=3)[1:] for line in out.splitlines()[-2:]]
        assert told == [
            ["two", "-", "won      won: bid 2.00 CPM, pays 0.5"],
            ["five", "-", "skipped  not asked: the request names others"],
        ]
        anonymous = bid_request(regs={"coppa": 1}, cur=["USD"])
        (tmp_path / "child.json").write_bytes(msgspec.json.encode(anonymous))
        file.write_text(first + second + 'privacy = { coppa = "skip" }\n')
        assert (await rtb("bidders", "enable", "five"))[0] == 0
        code, out, _ = await rtb("explain", "child.json")
        assert code == 0
        assert "told less of the user (anonymous, coppa): two" in out.splitlines()
        assert ["five", "-", "skipped", "not", "asked:", "coppa"] in [line.split() for line in out.splitlines()]
        file.write_text(first + second + "speed = 1\n")
        code, out, err = await rtb("bidders", "enable", "five")
        assert code == 1
        assert "bidder five: object contains unknown field `speed`" in err
        assert await asyncio.to_thread(price, daemon) == 2.01
        file.write_text(first + second)
        assert (await rtb("bidders", "disable", "five"))[0] == 0
        assert await asyncio.to_thread(price, daemon) == 0.5
        code, out, _ = await rtb("bidders", "list")
        rows = [line.split()[:2] for line in out.splitlines()]
        assert rows == [["NAME", "STATE"], ["two", "closed"], ["five", "off"]]
        code, out, _ = await rtb("bidders", "test", "two", "request.json")
        found = msgspec.json.decode(out)
        assert (found["outcome"], found["bids"]) == ("won", [{"impid": "1", "seat": "dsp2", "price": 2.0}])
        assert await rtb("bidders", "test", "five", "request.json") == (
            1,
            "",
            "rtb: bidder 'five': not in use; `rtb bidders list` shows who is\n",
        )


def test_a_wrong_file_refuses_the_start(tmp_path: Path) -> None:
    """On one line."""
    (tmp_path / "bidders.toml").write_text('[[bidder]]\nname = "acme"\n')
    result = run(tmp_path, "serve", "--set", "bidders.file=bidders.toml")
    assert (result.code, result.err.splitlines()[-1]) == (
        1,
        "rtb: bidders.toml: bidder acme: object missing required field `url`",
    )
