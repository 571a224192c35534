"""The spool: what was durable comes back in order, once, whatever ended the process."""

from __future__ import annotations

import asyncio
import resource
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from rtb.adapters.spool import FileSpool
from rtb.errors import StoreError

Make = Callable[..., FileSpool]


@pytest_asyncio.fixture
async def make(tmp_path: Path) -> AsyncIterator[Make]:
    """Spools in one folder, closed after the test."""
    made: list[FileSpool] = []

    def one(**options: int) -> FileSpool:
        spool = FileSpool(tmp_path / "spool", **options)
        made.append(spool)
        return spool

    yield one
    for spool in made:
        await spool.close()


async def drained(spool: FileSpool, limit: int = 100) -> list[bytes]:
    """Everything in it, taken out."""
    found: list[bytes] = []
    while records := await spool.read(limit):
        await spool.discard(len(records))
        found += records
    return found


async def test_records_come_back_in_order(make: Make) -> None:
    """Within a process, over several segments; a read leaves them there, a discard does not."""
    spool = make(segment_bytes=64)
    assert await spool.open() == 0
    expected = [b"%d" % n * 5 for n in range(100)]
    for start in range(0, 100, 10):
        await spool.append(expected[start : start + 10])
    assert spool.waiting == 100
    assert await spool.read(15) == expected[:15]
    assert await spool.read(15) == expected[:15]
    await spool.discard(7)
    assert await spool.read(3) == expected[7:10]
    assert spool.waiting == 93
    assert await drained(spool, 9) == expected[7:]
    assert (spool.waiting, await spool.read(1)) == (0, [])


async def test_what_was_not_discarded_is_there_after_a_restart(make: Make) -> None:
    """And new records stand behind it."""
    first = make(segment_bytes=40)
    await first.open()
    await first.append([b"a" * 30, b"b" * 30, b"c" * 30])
    await first.append([b"d"])
    await first.read(10)
    await first.discard(2)
    await first.close()
    second = make()
    assert await second.open() == 2
    await second.append([b"e"])
    assert await drained(second) == [b"c" * 30, b"d", b"e"]
    await second.close()
    assert await make().open() == 0


async def test_segments_are_deleted_when_replayed(make: Make, tmp_path: Path) -> None:
    """An empty spool takes no room, and goes on with records that come later."""
    spool = make(segment_bytes=10)
    await spool.open()
    for n in range(5):
        await spool.append([b"%d" % n * 20])
    assert len(list((tmp_path / "spool").glob("*.spool"))) == 5
    await spool.read(3)
    await spool.discard(3)
    assert len(list((tmp_path / "spool").glob("*.spool"))) == 2
    await drained(spool)
    assert list((tmp_path / "spool").glob("*.spool")) == []
    await spool.append([b"more"])
    assert await drained(spool) == [b"more"]


@pytest.mark.timeout(1_200)  # a slow disk takes half a second for each of many syncs
@settings(max_examples=60, deadline=None)
@given(
    records=st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=8),
    data=st.data(),
    tail=st.sampled_from([b"", b"\0" * 30, b"\xff" * 30]),
)
def test_any_truncation_keeps_the_whole_records(
    tmp_path_factory: pytest.TempPathFactory, records: list[bytes], data: st.DataObject, tail: bytes
) -> None:
    """Cut anywhere, with or without rubbish behind the cut: exactly the records in front of it are recovered."""
    folder = tmp_path_factory.mktemp("spool")

    async def write() -> None:
        spool = FileSpool(folder)
        await spool.open()
        await spool.append(records)
        await spool.close()

    async def read() -> tuple[int, list[bytes]]:
        spool = FileSpool(folder)
        waiting = await spool.open()
        await spool.append([b"later"])
        found = await drained(spool)
        await spool.close()
        return waiting, found

    asyncio.run(write())
    (segment,) = folder.glob("*.spool")
    whole = segment.read_bytes()
    assert len(whole) == sum(8 + len(record) for record in records)  # length and crc are 4 bytes each
    cut = data.draw(st.integers(0, len(whole)))
    segment.write_bytes(whole[:cut] + (tail if cut < len(whole) else b""))
    ends = [sum(8 + len(record) for record in records[: n + 1]) for n in range(len(records))]
    expected = [record for record, end in zip(records, ends, strict=True) if end <= cut]
    waiting, found = asyncio.run(read())
    # rubbish may by chance continue a record with the very bytes that were cut off
    assert found[-1] == b"later"
    assert found[: len(expected)] == expected
    assert waiting == len(found) - 1
    assert found[:-1] == records[: len(found) - 1]
    if not tail:
        assert found[:-1] == expected


@pytest.mark.parametrize("position", [b"", b"\0" * 20, b"\xff" * 20, b"short"])
async def test_a_lost_position_repeats_and_loses_nothing(make: Make, tmp_path: Path, position: bytes) -> None:
    """Then the replay begins at the oldest record that is still there."""
    first = make()
    await first.open()
    await first.append([b"a", b"b"])
    await first.read(1)
    await first.discard(1)
    await first.close()
    (tmp_path / "spool" / "position").write_bytes(position)
    second = make()
    assert await second.open() == 2
    assert await drained(second) == [b"a", b"b"]


async def test_a_second_process_is_refused(make: Make) -> None:
    """One folder, one owner; once it lets go another may have it."""
    first, second = make(), make()
    await first.open()
    with pytest.raises(StoreError, match="in use by another process"):
        await second.open()
    await first.close()
    assert await second.open() == 0


async def test_a_full_spool_refuses_and_keeps_what_it_has(make: Make) -> None:
    """Above max_bytes nothing of an append is kept; when records are replayed there is room again."""
    spool = make(max_bytes=100, segment_bytes=50)
    await spool.open()
    await spool.append([b"a" * 40])
    await spool.append([b"b" * 40])
    with pytest.raises(StoreError, match="is full at 100 bytes"):
        await spool.append([b"c", b"d"])
    assert await drained(spool) == [b"a" * 40, b"b" * 40]
    await spool.append([b"c", b"d"])
    assert await drained(spool) == [b"c", b"d"]


@pytest.mark.parametrize("first", [0, 1])
async def test_a_disk_that_refuses_leaves_what_is_there(make: Make, tmp_path: Path, first: int) -> None:
    """The append that hit the end of the disk leaves no trace; it can be repeated when there is room."""
    spool = make()
    await spool.open()
    before = [b"kept" * 10] * first
    if before:
        await spool.append(before)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, hard))
    try:
        for _ in range(3):
            with pytest.raises(StoreError, match="File too large"):
                await spool.append([b"x" * 50] * 10)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sum(path.stat().st_size for path in (tmp_path / "spool").glob("*.spool")) == 48 * first
    assert spool.waiting == first
    await spool.append([b"again"])
    assert await drained(spool) == [*before, b"again"]


@pytest.mark.parametrize("record", [b"", b"x" * ((16 << 20) + 1)])
async def test_a_record_has_a_size(make: Make, record: bytes) -> None:
    """From 1 byte to 16 MiB."""
    spool = make()
    await spool.open()
    with pytest.raises(ValueError, match="a record has"):
        await spool.append([record])
    assert spool.waiting == 0


async def test_nothing_works_before_it_is_open(make: Make) -> None:
    """And the message says so."""
    with pytest.raises(StoreError, match="not open"):
        await make().append([b"a"])


WRITER = """
import asyncio, sys
from pathlib import Path
from rtb.adapters.spool import FileSpool

async def main():
    spool = FileSpool(Path(sys.argv[1]), segment_bytes=4096)
    await spool.open()
    n = 0
    while True:
        await spool.append([b"%d" % (n + i) for i in range(10)])
        n += 10
        if n % 40 == 0:
            await spool.read(10)
            await spool.discard(10)
        print(n, spool.waiting, flush=True)

asyncio.run(main())
"""


async def test_a_process_killed_at_work_loses_nothing_durable(make: Make, tmp_path: Path) -> None:
    """Of a process that is killed while it writes and discards, every acknowledged record is there, in order."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WRITER, str(tmp_path / "spool"), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    written = waiting = 0
    for _ in range(50):
        written, waiting = (int(word) for word in (await process.stdout.readline()).split())
    process.send_signal(signal.SIGKILL)
    rest, _ = await process.communicate()
    if lines := rest.decode().splitlines()[:-1]:  # the last may be torn
        written, waiting = (int(word) for word in lines[-1].split())
    spool = make()
    assert await spool.open() >= waiting - 10  # a discard may have come after the last line
    found = [int(record) for record in await drained(spool)]
    assert found == list(range(found[0], found[-1] + 1))
    assert found[-1] >= written - 1
    assert found[0] <= written + 10 - waiting + 10


async def left(folder: Path, *records: bytes) -> None:
    """A spool that a process left behind with these records."""
    spool = FileSpool(folder)
    await spool.open()
    await spool.append(records)
    await spool.close()


async def test_the_records_of_workers_that_are_no_more_are_inherited(tmp_path: Path, make: Make) -> None:
    """Of four workers two are left: the first takes over what workers 2 and 3 had, behind its own; not that of 1."""
    await left(tmp_path / "spool", b"own")
    for number in range(1, 4):
        await left(tmp_path / f"spool.{number}", b"a%d" % number, b"b%d" % number)
    await left(tmp_path / "spool.old", b"somebody else's")
    spool = make(heir_from=2)
    assert await spool.open() == 5
    assert await drained(spool) == [b"own", b"a2", b"b2", b"a3", b"b3"]
    await spool.close()
    again = make(heir_from=2)
    assert await again.open() == 0
    other = FileSpool(tmp_path / "spool.1")
    assert await other.open() == 2
    await other.close()


async def test_a_spool_in_use_is_not_inherited(tmp_path: Path, make: Make) -> None:
    """Another daemon still has the folder: its records are its own."""
    await left(tmp_path / "spool.1", b"a")
    user = FileSpool(tmp_path / "spool.1")
    await user.open()
    spool = make(heir_from=1)
    assert await spool.open() == 0
    assert await drained(user) == [b"a"]
    await user.close()


async def test_a_full_spool_inherits_nothing(tmp_path: Path, make: Make) -> None:
    """What does not fit stays where it is, and the spool opens."""
    await left(tmp_path / "spool.1", b"x" * 100)
    spool = make(heir_from=1, max_bytes=50)
    assert await spool.open() == 0
    other = FileSpool(tmp_path / "spool.1")
    assert await other.open() == 1
    await other.close()
