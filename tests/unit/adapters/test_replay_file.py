"""The folder of a replay log."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import msgspec
import pytest
from structlog.testing import capture_logs

from rtb.adapters.replay_file import SUFFIX, ReplayFile, files, lines
from rtb.domain import replay
from rtb.domain.replay import CampaignLine, Header
from rtb.errors import StoreError
from tests.unit.parts import campaign

HEAD = Header(
    version=1,
    instance="i",
    started_at=0.0,
    share=1.0,
    currency="USD",
    rates={},
    increment_micros=10_000,
    deals_first=True,
    first_price_types=[],
    tie_key="00",
    advertisers=10,
)


def kept(path: Path) -> list[bytes]:
    """The lines of a log but for headers and campaigns."""
    found = []
    for _, line in lines(path):
        if line.startswith(b'{"n"'):
            found.append(line)
        else:
            assert isinstance(replay.decode(line), Header | CampaignLine)
    return found


def record(n: int, size: int = 0) -> bytes:
    """A line of its own, of random bytes where it has a size: they do not compress."""
    return msgspec.json.encode({"n": n, "x": os.urandom(size).hex()})


async def test_what_is_put_is_read_again(tmp_path: Path) -> None:
    """In order, after a header, by nobody else; a second run goes on in a file of its own."""
    folder = tmp_path / "a" / "replay"
    for run in range(2):
        tape = ReplayFile(folder, max_bytes=1 << 20)
        tape.open(HEAD)
        assert all(tape.put(record(n)) for n in range(run * 100, run * 100 + 100))
        await tape.close()
        assert (tape.written, tape.dropped) == (100, 0)
    assert [msgspec.json.decode(line)["n"] for line in kept(folder)] == [*range(200)]
    assert [path.name for path in files(folder)] == [f"0000000{n}{SUFFIX}" for n in (1, 2)]
    for path in files(folder):
        assert path.stat().st_mode & 0o777 == 0o600
        assert replay.decode(next(line for _, line in lines(path))) == HEAD


async def test_the_oldest_files_make_room_and_each_has_its_campaigns(tmp_path: Path) -> None:
    """Never more than the limit on disk; the newest lines are there, in every file after a campaign of theirs."""
    tape = ReplayFile(tmp_path, max_bytes=2_000_000, max_waiting_bytes=1 << 30)
    tape.open(HEAD)
    ad = campaign("a")
    for n in range(1_200):
        tape.put(record(n, 4_000), [ad, ad])
    await tape.close()
    assert sum(path.stat().st_size for path in files(tmp_path)) <= 2_000_000
    numbers = [msgspec.json.decode(line)["n"] for line in kept(tmp_path)]
    assert numbers == [*range(numbers[0], 1_200)]
    assert numbers[0] > 0
    for path in files(tmp_path):
        assert [line for _, line in lines(path)].count(replay.encode(CampaignLine(ad)) + b"\n") == 1


async def test_a_crash_leaves_what_was_written_before_it(tmp_path: Path) -> None:
    """The batch that is torn is gone, the others are there, and a file by itself is a log."""
    tape = ReplayFile(tmp_path, max_bytes=1 << 20)
    tape.open(HEAD)
    tape.put(record(1))
    await tape.close()
    [path] = files(tmp_path)
    whole = gzip.compress(record(2) + b"\n")
    with path.open("ab") as opened:
        opened.write(whole[: len(whole) // 2])
    assert len(kept(tmp_path)) == len(kept(path)) == 1


async def test_a_slow_disk_costs_records_and_never_time(tmp_path: Path) -> None:
    """With no room in memory a record is dropped at once and counted, as it is before the log is open; that it began is
    told once."""
    tape = ReplayFile(tmp_path, max_bytes=1 << 20, max_waiting_bytes=100)
    with capture_logs() as told:
        assert not tape.put(record(0))
        assert not tape.put(record(0))
    assert [line["event"] for line in told] == ["replay_log_dropping"]
    tape.open(HEAD)
    taken = [tape.put(record(n, 100)) for n in range(1, 4)]
    assert taken[0]
    await tape.close()
    assert not tape.put(record(9))
    assert tape.written == sum(taken)
    assert tape.dropped == 6 - sum(taken)


async def test_a_disk_that_refuses_is_told_once_and_counted(tmp_path: Path) -> None:
    """Here the folder is gone; when it is back, what comes then is kept."""
    folder = tmp_path / "replay"
    tape = ReplayFile(folder, max_bytes=1 << 20)
    tape.open(HEAD)
    (folder / "lock").unlink()
    folder.rmdir()
    with capture_logs() as told:
        tape.put(record(1))
        await tape.close()
    assert (tape.written, tape.dropped) == (0, 1)
    assert [line["event"] for line in told] == ["replay_log_not_written"]


async def test_another_header_holds_from_where_it_was_given(tmp_path: Path) -> None:
    """Also in the next file."""
    changed = msgspec.structs.replace(HEAD, rates={"EUR": 1.1})
    tape = ReplayFile(tmp_path, max_bytes=200_000)
    tape.open(HEAD)
    tape.put(record(1))
    tape.change(changed)
    tape.put(record(2, 30_000))
    await tape.close()
    again = ReplayFile(tmp_path, max_bytes=200_000)
    again.open(changed)
    await again.close()
    found = [line for _, line in lines(tmp_path)]
    assert [replay.decode(found[0]), replay.decode(found[2])] == [HEAD, changed]
    assert [line[:6] for line in (found[1], found[3])] == [b'{"n":1', b'{"n":2']


async def test_one_process_writes_and_nonsense_is_refused(tmp_path: Path) -> None:
    """In one line each."""
    tape = ReplayFile(tmp_path, max_bytes=1 << 20)
    tape.open(HEAD)
    with pytest.raises(StoreError, match="is written by another process"):
        ReplayFile(tmp_path, max_bytes=1 << 20).open(HEAD)
    await tape.close()
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match=r"replay log .*: "):
        ReplayFile(tmp_path / "file" / "sub", max_bytes=1).open(HEAD)
    with pytest.raises(StoreError, match="No such file"):
        list(lines(tmp_path / "missing"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(StoreError, match="no replay log in this folder"):
        list(lines(tmp_path / "empty"))
