"""``rtb replay``: what it prints, and how it refuses."""

from __future__ import annotations

import gzip
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio
from click.testing import CliRunner

from rtb.adapters.replay_file import ReplayFile, files
from rtb.cli import cli
from rtb.domain import replay as log
from rtb.errors import ConfigError, Malformed, StoreError
from rtb.services.exchange import Rules
from rtb.services.replay_log import ReplayLog, header
from tests.unit.parts import Build, Prompt, bid_request, campaign, imp, offer

RULES = Rules(tie_key=b"a secret that orders equal bids")


@pytest_asyncio.fixture
async def folder(tmp_path: Path, build: Build) -> Path:
    """The log of two auctions: floor 0.50, campaign a at 3.00 beats dsp at 2.00; floor 2.50, a alone."""
    world = build(Prompt("dsp", offer("dsp", 2.0)), campaigns=[campaign("a", 3.0)], rules=RULES)
    tape = ReplayFile(tmp_path / "log", max_bytes=1 << 20)
    tape.open(
        header(RULES, world.clock, instance="i", share=1.0, currency="USD", rates={}, advertisers=10, settings={})
    )
    world.exchange.listen(ReplayLog(tape, world.clock, world.rates, share=1.0, house=world.house))
    for floor in (0.5, 2.5):
        await world.run(bid_request(imp(bidfloor=floor)))
    await tape.close()
    return tmp_path / "log"


def invoke(*arguments: str | Path) -> tuple[int, str]:
    """Exit code and output; errors of ours are raised, and are printed by `main`."""
    result = CliRunner().invoke(cli, ["replay", *map(str, arguments)], catch_exceptions=False, standalone_mode=False)
    return result.exit_code, result.output


def test_unchanged_it_says_that_all_outcomes_are_the_recorded_ones(folder: Path) -> None:
    """Of a folder, and of one file of it; the auctions were on 1 January 2026."""
    for path in (folder, files(folder)[0]):
        code, out = invoke(path)
        assert code == 0
        assert out.splitlines() == [
            "2 auctions of 2 imps, 2026-01-01 00:00:00 to 2026-01-01 00:00:00 UTC",
            "2 of 2 outcomes are the recorded ones, bit for bit",
        ]


def test_a_deviation_is_told_by_the_exit_code(folder: Path, tmp_path: Path) -> None:
    """Here somebody has changed a recorded price."""
    lines = gzip.decompress(files(folder)[0].read_bytes())
    assert b'"price_micros":2010000' in lines
    (tmp_path / "edited.jsonl").write_bytes(lines.replace(b'"price_micros":2010000', b'"price_micros":2010001'))
    code, out = invoke(tmp_path / "edited.jsonl")
    assert code == 1
    assert "1 of 2 outcomes are the recorded ones, bit for bit\nothers, for example: " in out


def test_tables_tell_the_difference(folder: Path) -> None:
    """With a floor of 2.20 everywhere: 2.01 becomes 2.20, and 2.50 becomes 2.20; an impression is a thousandth."""
    code, out = invoke(folder, "--set", "floor=2.2")
    assert code == 0
    rows = [line.split() for line in out.splitlines()]
    assert ["changed:", "floor=2.2"] in rows
    assert "imps: 0 as before, 0 won by another, 2 at another price, 0 newly sold, 0 no longer sold" in out
    assert ["revenue,", "USD", "0.004510", "0.004400", "-2.4", "%"] in rows
    assert ["mean", "price,", "CPM", "2.2550", "2.2000", "-2.4", "%"] in rows
    assert ["house", "2", "2", "0.004510", "0.004400", "-2.4", "%"] in rows
    assert ["a", "2", "2", "0.004510", "0.004400", "-2.4", "%"] in rows


def test_json_has_the_same(folder: Path) -> None:
    """Money in units of the currency, prices in CPM. Without the house the dsp wins the first imp, at 0.50."""
    code, out = invoke(folder, "--set", "bidder.house.enabled=false", "--json")
    assert code == 0
    found = msgspec.json.decode(out)
    assert (found["auctions"], found["rewon"], found["lost"], found["currency"]) == (2, 1, 1, "USD")
    assert found["changes"] == ["bidder.house.enabled=false"]
    assert (found["exact"], found["differences"]) == (0, 2)
    assert found["after"]["total"] == {"wins": 1, "revenue": 0.0005}
    assert found["after"]["bidders"] == {"dsp": {"wins": 1, "revenue": 0.0005}}
    assert found["before"]["campaigns"] == {"a": {"wins": 2, "revenue": 0.00451}}
    assert (found["before"]["mean_price"], found["after"]["mean_price"]) == (2.255, 0.5)
    first, second = found["examples"]
    assert (first["before"], first["after"], first["before_price"], first["after_price"]) == ("a", "dsp", 2.01, 0.5)
    assert (second["before"], second["after"]) == ("a", "")


def test_an_empty_log_is_no_mistake(tmp_path: Path) -> None:
    """Nothing was recorded yet."""
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"")
    assert invoke(path) == (0, "0 auctions of 0 imps\n0 of 0 outcomes are the recorded ones, bit for bit\n")
    assert invoke(path, "--set", "floor=1")[0] == 0


@pytest.mark.parametrize("text", [b"garbage", b"garbage\n", gzip.compress(b"garbage"), b'{"header":{"version"'])
def test_what_is_no_log_is_not_taken_for_an_empty_one(tmp_path: Path, text: bytes) -> None:
    """Whether or not its only line is a whole one."""
    path = tmp_path / "log.jsonl"
    path.write_bytes(text)
    with pytest.raises(Malformed, match=r"log\.jsonl:1: not a line of a replay log: "):
        invoke(path)


def test_refusals_are_one_line(folder: Path, tmp_path: Path) -> None:
    """What `main` prints."""
    with pytest.raises(ConfigError, match=r"--set floor=x: must be a number, 0 or more"):
        invoke(folder, "--set", "floor=x")
    with pytest.raises(StoreError, match=r"cannot be read: No such file"):
        invoke(tmp_path / "nothing")


def test_the_help_names_what_can_be_changed() -> None:
    """All of it."""
    from rtb.domain.replay_changes import KNOWN

    _, out = invoke("--help")
    for name in KNOWN:
        assert f".{name.rpartition('.')[2]}" in out or name in out
    assert log.VERSION == 1
