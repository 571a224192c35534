"""A spool in a folder: append-only segments, made durable by fdatasync in a thread of its own.

    00000001.spool   records; see rtb.adapters.segments
    position         u64 segment, u64 offset, u32 crc: where the replay stands

A segment that is replayed is deleted.
"""

from __future__ import annotations

import asyncio
import os
import struct
import zlib
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import structlog

from rtb.adapters.segments import Segments, framed, left_by_workers
from rtb.errors import StoreError

READ_BYTES = 4 << 20
"""A read hands out no more than this at once, but always one record."""

INHERITED_AT_ONCE = 1_000

SUFFIX = "spool"
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
        self._thread: ThreadPoolExecutor | None = None
        self._segments = Segments(folder, SUFFIX, segment_bytes)
        self._segment, self._offset = 0, 0  # where the replay stands
        self._read: list[tuple[int, int]] = []  # where each of the records last read ends
        self._position = -1
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
        """Let another process have it, once what is under way is done; whoever does not wait for that leaves it to the
        thread."""
        thread, self._thread = self._thread, None
        if thread is not None:
            closing = asyncio.get_running_loop().run_in_executor(thread, self._close)
            thread.shutdown(wait=False)
            await self._told(asyncio.shield(closing))

    async def _run(self, work: Callable[[], _T]) -> _T:
        """Do it in the thread, one after the other; a caller that is cancelled does not stop it half-way."""
        if self._thread is None:
            raise StoreError(f"spool {self._folder} is not open; call open() first")
        return await self._told(asyncio.get_running_loop().run_in_executor(self._thread, work))

    async def _told(self, work: Awaitable[_T]) -> _T:
        try:
            return await work
        except OSError as error:
            raise StoreError(f"spool {self._folder}: {error.strerror or error}") from error

    def _open(self) -> None:
        numbers = self._segments.open()
        self._position = os.open(self._folder / "position", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._segments.sync_folder()
        self._segment, self._offset = self._stored_position()
        self._waiting = 0
        for number in numbers:
            if number < self._segment:
                self._segments.path(number).unlink()
                continue
            for end, _ in self._segments.survey(number):
                if number > self._segment or end > self._offset:
                    self._waiting += 1
        if self._heir_from is not None:
            for folder in left_by_workers(self._folder, self._heir_from, SUFFIX):
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

    def _append(self, records: Sequence[bytes]) -> None:
        data = b"".join(framed(record) for record in records)
        if sum(self._segments.sizes.values()) + len(data) > self._max_bytes:
            raise StoreError(f"spool {self._folder} is full at {self._max_bytes} bytes; is the broker away for long?")
        self._segments.append(data, after=self._segment)
        self._waiting += len(records)

    def _oldest(self, limit: int) -> list[bytes]:
        found: list[bytes] = []
        self._read.clear()
        room = READ_BYTES
        for number in self._segments.sizes:
            for end, record in self._segments.records(number, self._offset if number == self._segment else 0):
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
        for number, size in list(self._segments.sizes.items()):
            if number > self._segment or (number == self._segment and self._offset < size):
                break
            self._segments.remove(number)

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

    def _close(self) -> None:
        self._segments.close()
        if self._position >= 0:
            os.close(self._position)
        self._position = -1
