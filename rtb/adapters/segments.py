"""Records in append-only files of one folder, which one process uses at a time. Synchronous: call it in a thread.

    00000001.{suffix}   u32 length, u32 crc, the record; and so on (little endian, crc32 of length and record)
    lock                flocked by the process that uses the folder

A process starts a segment of its own and never appends to another's, so a torn tail is only ever a tail: reading a
segment ends at its first incomplete or damaged record.
"""

from __future__ import annotations

import fcntl
import glob
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import structlog

from rtb.errors import StoreError
from rtb.ports.spool import MAX_RECORD

_HEAD = struct.Struct("<II")
_LENGTH = struct.Struct("<I")
_log = structlog.get_logger(__name__)


class Segments:
    """The segments of one folder, oldest first. Methods raise OSError when the disk refuses."""

    def __init__(self, folder: Path, suffix: str, segment_bytes: int) -> None:
        """Begin a new segment after about `segment_bytes`."""
        self.folder = folder
        self.sizes: dict[int, int] = {}
        """Bytes of whole records by segment."""
        self._suffix = suffix
        self._segment_bytes = segment_bytes
        self._file = self._lock = -1

    def open(self) -> list[int]:
        """Take the folder; the numbers of the segments in it, which are read by `survey`.

        Raises:
            StoreError: another process uses it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(
                f"{self._suffix} {self.folder} is in use by another process; give each its own folder"
            ) from None
        self.sizes.clear()
        self.sync_folder()
        return sorted(int(path.stem) for path in self.folder.glob(f"*.{self._suffix}"))

    def survey(self, number: int) -> Iterator[tuple[int, bytes]]:
        """The whole records of a segment that an earlier process left, each with the offset of its end; read all."""
        path, end = self.path(number), 0
        for end, record in _records(path):
            yield end, record
        if lost := path.stat().st_size - end:
            _log.warning(f"{self._suffix}_tail_torn", segment=number, whole_bytes=end, lost_bytes=lost)
        self.sizes[number] = end

    def records(self, number: int, start: int = 0) -> Iterator[tuple[int, bytes]]:
        """The records of a segment from an offset on, each with the offset of its end."""
        return _records(self.path(number), start, self.sizes[number])

    def append(self, data: bytes, *, after: int = 0) -> int:
        """Add framed records; the number of their segment, which is above `after`.

        They are durable when it returns, and none is there when it raises.
        """
        number = self._writable(after)
        start = self.sizes[number]
        try:
            written = 0
            while written < len(data):
                written += os.pwrite(self._file, data[written:], start + written)
            os.fdatasync(self._file)
        except OSError:
            # After a failed fsync nothing is known of this file's pages: leave it as it was and go on in another.
            self._end(start)
            if not start:
                self.remove(number)
            raise
        self.sizes[number] = start + len(data)
        return number

    def remove(self, number: int) -> None:
        """Delete a segment."""
        if number == max(self.sizes):
            self._end()
        self.path(number).unlink()
        del self.sizes[number]

    def sync_folder(self) -> None:
        """Make the names of the files durable."""
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def close(self) -> None:
        """Let another process have the folder."""
        self._end()
        if self._lock >= 0:
            os.close(self._lock)
        self._lock = -1

    def path(self, number: int) -> Path:
        """The file of a segment."""
        return self.folder / f"{number:08}.{self._suffix}"

    def _writable(self, after: int) -> int:
        """The segment to append to, a new one when there is none or it is long."""
        newest = max(self.sizes, default=after)
        if self._file >= 0 and self.sizes.get(newest, self._segment_bytes) < self._segment_bytes:
            return newest
        self._end()
        number = max(newest, after) + 1
        self._file = os.open(self.path(number), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self.sizes[number] = 0
        self.sync_folder()
        return number

    def _end(self, size: int | None = None) -> None:
        file, self._file = self._file, -1
        if file >= 0:
            try:
                if size is not None:
                    os.ftruncate(file, size)
            finally:
                os.close(file)


def framed(record: bytes) -> bytes:
    """A record as it stands in a segment. Raises ValueError for none of 1 to MAX_RECORD bytes."""
    if not 0 < len(record) <= MAX_RECORD:
        raise ValueError(f"a record has 1 to {MAX_RECORD} bytes, not {len(record)}")
    return _HEAD.pack(len(record), _crc(record)) + record


def left_by_workers(folder: Path, first: int, suffix: str) -> list[Path]:
    """The folders ``{folder}.{number}`` with segments, of workers from this number on."""
    numbered = [
        (int(found.suffix[1:]), found)
        for found in folder.parent.glob(f"{glob.escape(folder.name)}.*")
        if found.is_dir() and found.suffix[1:].isdecimal()
    ]
    return [found for number, found in sorted(numbered) if number >= first and any(found.glob(f"*.{suffix}"))]


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
