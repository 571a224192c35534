"""A spool in a folder: append-only segment files, made durable by fdatasync in a thread of its own.

    00000001.spool   u32 length, u32 crc, the record; and so on (little endian, crc32 of length and record)
    position         u64 segment, u64 offset, u32 crc: where the replay stands
    lock             flocked by the process that uses the folder

A process starts a segment of its own and never appends to another's, so a torn tail is only ever a tail: reading a
segment ends at its first incomplete or damaged record. A segment that is replayed is deleted.
"""

from __future__ import annotations

import asyncio
import fcntl
import glob
import os
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, TypeVar

import structlog

from rtb.errors import StoreError
from rtb.ports.spool import MAX_RECORD

READ_BYTES = 4 << 20
"""A read hands out no more than this at once, but always one record."""

INHERITED_AT_ONCE = 1_000

_HEAD = struct.Struct("<II")
_LENGTH = struct.Struct("<I")
_POSITION = struct.Struct("<QQ")
_T = TypeVar("_T")
_log = structlog.get_logger(__name__)


class FileSpool:
    """The records in one folder, as `ports.Spool`."""

    def __init__(
        self, folder: Path, *, max_bytes: int = 1 << 30, segment_bytes: int = 16 << 20, heir_from: int | None = None
    ) -> None:
        """Hold at most `max_bytes` in segments of about `segment_bytes`. With `heir_from` take over what was left in
        the folders of workers of that number and above, ``{folder}.{number}``, unless somebody uses them."""
        self._folder = folder
        self._heir_from = heir_from
        self._max_bytes = max_bytes
        self._segment_bytes = segment_bytes
        self._thread: ThreadPoolExecutor | None = None
        self._segments: dict[int, int] = {}  # number -> bytes of whole records, oldest first
        self._segment, self._offset = 0, 0  # where the replay stands
        self._read: list[tuple[int, int]] = []  # where each of the records last read ends
        self._file = self._lock = self._position = -1
        self._waiting = 0

    async def open(self) -> int:
        """Open it and find what an earlier process left; how many records wait.

        Raises:
            StoreError: another process uses the folder, or the disk refuses.
        """
        self._thread = ThreadPoolExecutor(1, "spool")
        try:
            await self._run(self._open)
        except StoreError:
            await self.close()
            raise
        return self._waiting

    async def append(self, records: Sequence[bytes]) -> None:
        """Add records of 1 to MAX_RECORD bytes; they are durable when it returns, and none is there when it raises."""
        await self._run(lambda: self._append(records))

    async def read(self, limit: int) -> list[bytes]:
        """The oldest records, at most `limit`, at least one when any waits; they stay until they are discarded."""
        return await self._run(lambda: self._oldest(limit))

    async def discard(self, count: int) -> None:
        """Forget the oldest `count` of the records last read; durable when it returns."""
        await self._run(lambda: self._discard(count))

    @property
    def waiting(self) -> int:
        """Records not discarded yet."""
        return self._waiting

    async def close(self) -> None:
        """Let another process have it."""
        if self._thread is not None:
            await self._run(self._close)
            self._thread.shutdown()
            self._thread = None

    async def _run(self, work: Callable[[], _T]) -> _T:
        """Do it in the thread, one after the other; a caller that is cancelled does not stop it half-way."""
        if self._thread is None:
            raise StoreError(f"spool {self._folder} is not open; call open() first")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except OSError as error:
            raise StoreError(f"spool {self._folder}: {error.strerror or error}") from error

    def _open(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(f"spool {self._folder} is in use by another process; give each its own folder") from None
        self._position = os.open(self._folder / "position", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._segment, self._offset = self._stored_position()
        self._segments.clear()
        self._waiting = 0
        for number in sorted(int(path.stem) for path in self._folder.glob("*.spool")):
            if number < self._segment:
                self._path(number).unlink()
                continue
            self._survey(number)
        self._sync_folder()
        if self._heir_from is not None:
            for folder in _left_by_workers(self._folder, self._heir_from):
                self._inherit(folder)

    def _inherit(self, folder: Path) -> None:
        """Append what another folder holds, then empty it; after a crash in between some of it is published twice."""
        left = FileSpool(folder)
        try:
            left._open()
            count = left._waiting
            while left._waiting:
                records = left._oldest(INHERITED_AT_ONCE)
                self._append(records)
                left._discard(len(records))
        except (StoreError, OSError) as error:
            _log.warning("spool_not_inherited", folder=str(folder), reason=str(error))
        else:
            _log.info("spool_inherited", folder=str(folder), messages=count)
        finally:
            left._close()

    def _survey(self, number: int) -> None:
        """Find where the whole records of a segment end, and count those that were not replayed."""
        path, end = self._path(number), 0
        for end, _ in _records(path):
            if number > self._segment or end > self._offset:
                self._waiting += 1
        if lost := path.stat().st_size - end:
            _log.warning("spool_tail_torn", segment=number, whole_bytes=end, lost_bytes=lost)
        self._segments[number] = end

    def _append(self, records: Sequence[bytes]) -> None:
        data = b"".join(_framed(record) for record in records)
        if sum(self._segments.values()) + len(data) > self._max_bytes:
            raise StoreError(f"spool {self._folder} is full at {self._max_bytes} bytes; is the broker away for long?")
        number = self._writable()
        start = self._segments[number]
        try:
            written = 0
            while written < len(data):
                written += os.pwrite(self._file, data[written:], start + written)
            os.fdatasync(self._file)
        except OSError:
            # After a failed fsync nothing is known of this file's pages: leave it as it was and go on in another.
            self._end_segment(start)
            if not start:
                self._remove(number)
            raise
        self._segments[number] = start + len(data)
        self._waiting += len(records)

    def _writable(self) -> int:
        """The segment to append to, a new one when there is none or it is long."""
        newest = max(self._segments, default=self._segment)
        if self._file >= 0 and self._segments.get(newest, self._segment_bytes) < self._segment_bytes:
            return newest
        self._end_segment()
        number = max(newest, self._segment) + 1
        self._file = os.open(self._path(number), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._segments[number] = 0
        self._sync_folder()
        return number

    def _end_segment(self, size: int | None = None) -> None:
        file, self._file = self._file, -1
        if file >= 0:
            try:
                if size is not None:
                    os.ftruncate(file, size)
            finally:
                os.close(file)

    def _oldest(self, limit: int) -> list[bytes]:
        found: list[bytes] = []
        self._read.clear()
        room = READ_BYTES
        for number, size in self._segments.items():
            start = self._offset if number == self._segment else 0
            for end, record in _records(self._path(number), start, size):
                found.append(record)
                self._read.append((number, end))
                room -= len(record)
                if len(found) >= limit or room <= 0:
                    return found
        return found

    def _discard(self, count: int) -> None:
        if not count:
            return
        self._segment, self._offset = self._read[count - 1]
        del self._read[:count]
        self._store_position()
        self._waiting -= count
        for number, size in list(self._segments.items()):
            if number > self._segment or (number == self._segment and self._offset < size):
                break
            if number == max(self._segments):
                self._end_segment()
            self._remove(number)

    def _remove(self, number: int) -> None:
        del self._segments[number]
        self._path(number).unlink()

    def _stored_position(self) -> tuple[int, int]:
        """Where the replay stood; the beginning when that cannot be told: then some of it is published twice."""
        data = os.pread(self._position, _POSITION.size + _LENGTH.size, 0)
        body, check = data[: _POSITION.size], data[_POSITION.size :]
        if check != _LENGTH.pack(zlib.crc32(body)):
            return 0, 0
        segment, offset = _POSITION.unpack(body)
        return segment, offset

    def _store_position(self) -> None:
        body = _POSITION.pack(self._segment, self._offset)
        os.pwrite(self._position, body + _LENGTH.pack(zlib.crc32(body)), 0)
        os.fdatasync(self._position)

    def _sync_folder(self) -> None:
        """Make the names of the files durable."""
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _close(self) -> None:
        self._end_segment()
        for descriptor in (self._position, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._position = self._lock = -1

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:08}.spool"


def _left_by_workers(folder: Path, first: int) -> list[Path]:
    """The folders with records of workers from this number on."""
    numbered = [
        (int(found.suffix[1:]), found)
        for found in folder.parent.glob(f"{glob.escape(folder.name)}.*")
        if found.is_dir() and found.suffix[1:].isdecimal()
    ]
    return [found for number, found in sorted(numbered) if number >= first and any(found.glob("*.spool"))]


def _framed(record: bytes) -> bytes:
    if not 0 < len(record) <= MAX_RECORD:
        raise ValueError(f"a record has 1 to {MAX_RECORD} bytes, not {len(record)}")
    return _HEAD.pack(len(record), _crc(record)) + record


def _crc(record: bytes) -> int:
    return zlib.crc32(record, zlib.crc32(_LENGTH.pack(len(record))))


def _records(path: Path, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, bytes]]:
    """Each whole record between two offsets, with the offset of its end; ends at the first that is not whole."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size if stop is None else stop
        file.seek(start)
        while start < size and (record := _record(file, size - start)):
            start += _HEAD.size + len(record)
            yield start, record


def _record(file: BinaryIO, room: int) -> bytes:
    """The record at the file's position, empty when it is not whole."""
    head = file.read(_HEAD.size)
    if len(head) < _HEAD.size:
        return b""
    length, crc = _HEAD.unpack(head)
    if length > room - _HEAD.size:
        return b""
    record = file.read(length)
    return record if len(record) == length and crc == _crc(record) else b""
