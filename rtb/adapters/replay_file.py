"""The replay log in a folder: gzipped JSON lines, written by a thread of its own, never more than so many bytes.

    00000001.jsonl.gz    the oldest
    00000002.jsonl.gz    ...

Every file begins with a header and has the campaigns that its auctions name, so that each can be read alone. Each batch
of lines is a gzip member of its own: what a crash leaves is readable up to the last of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gzip
import os
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue

import structlog

from rtb.domain import replay
from rtb.domain.campaign import Campaign
from rtb.domain.replay import CampaignLine, Header
from rtb.errors import StoreError

SUFFIX = ".jsonl.gz"
BATCH_BYTES = 256 << 10
FLUSH_S = 1.0
PARTS = 8
"""A file is closed at this part of the whole."""

_LEVEL = 3  # twice as fast as the usual 6, and a third larger
_Entry = tuple[bytes, Sequence[Campaign]]
_log = structlog.get_logger(__name__)


class ReplayFile:
    """Keeps lines; the oldest files make room. One process writes to a folder."""

    def __init__(self, folder: Path, *, max_bytes: int, max_waiting_bytes: int = 8 << 20) -> None:
        """Hold at most `max_bytes` on disk, and `max_waiting_bytes` in memory that are yet to be written."""
        self._folder = folder
        self._max_bytes = max_bytes
        self._max_waiting = max_waiting_bytes
        self._queue: SimpleQueue[_Entry | Header | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._header: Header | None = None
        self._put = self._done = 0  # bytes; the one is the loop's, the other the thread's
        self._lock = self._file = -1
        self._number = self._size = 0
        self._seen: set[tuple[str, int]] = set()
        self._failing = self._full = False
        self._refused = self._lost = 0
        self.written = 0
        """Records on disk, by this process."""

    @property
    def dropped(self) -> int:
        """Records that were not kept: the disk was too slow, or refused."""
        return self._refused + self._lost

    def open(self, header: Header) -> None:
        """Begin to write, under this header.

        Raises:
            StoreError: another process writes there, or the disk refuses.
        """
        self._header = header
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._number = max([int(path.name[:8]) for path in files(self._folder)], default=0)
        except BlockingIOError:
            self._release()
            raise StoreError(f"replay log {self._folder} is written by another process") from None
        except OSError as error:
            self._release()
            raise StoreError(f"replay log {self._folder}: {error.strerror or error}") from None
        self._thread = threading.Thread(target=self._work, name="replay-log", daemon=True)
        self._thread.start()

    def put(self, record: bytes, campaigns: Sequence[Campaign] = ()) -> bool:
        """Have a line written soon, after those of its campaigns. False where it is dropped: nothing ever waits."""
        if self._thread is None or self._put - self._done > self._max_waiting:
            if not self._full:
                self._full = True
                _log.warning("replay_log_dropping", folder=str(self._folder), note="until the disk has caught up")
            self._refused += 1
            return False
        self._full = False
        self._put += len(record)
        self._queue.put((record, campaigns))
        return True

    def change(self, header: Header) -> None:
        """Have what is put from now on stand under another header, as when the rates have changed."""
        if self._thread is not None:
            self._queue.put(header)

    async def close(self) -> None:
        """Write what waits, and let another process have the folder."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._queue.put(None)
            await asyncio.to_thread(thread.join)
            self._release()

    def _work(self) -> None:
        """The thread."""
        while (batch := self._next_batch()) is not None:
            records = [entry for entry in batch if not isinstance(entry, Header)]
            try:
                self._write(batch)
                self.written += len(records)
                self._failing = False
            except OSError as error:
                self._lost += len(records)
                if not self._failing:
                    _log.warning("replay_log_not_written", folder=str(self._folder), reason=error.strerror)
                self._failing = True
                self._end_file()  # what it ends with may be torn
            self._done += sum(len(record) for record, _ in records)
        self._end_file()

    def _next_batch(self) -> list[_Entry | Header] | None:
        """What came within a moment, up to a size; None at the end."""
        entry = self._queue.get()
        if entry is None:
            return None
        batch, size, until = [entry], 0, time.monotonic() + FLUSH_S
        while size < BATCH_BYTES:
            try:
                entry = self._queue.get(timeout=max(0.0, until - time.monotonic()))
            except Empty:
                break
            if entry is None:
                self._queue.put(None)
                break
            batch.append(entry)
            size += 0 if isinstance(entry, Header) else len(entry[0])
        return batch

    def _write(self, batch: Sequence[_Entry | Header]) -> None:
        if self._file < 0:
            self._begin_file()
        lines: list[bytes] = []
        for entry in batch:
            if isinstance(entry, Header):
                self._header = entry
                lines.append(replay.encode(entry))
                continue
            record, campaigns = entry
            for campaign in campaigns:
                key = (campaign.id, campaign.version)
                if key not in self._seen:
                    self._seen.add(key)
                    lines.append(replay.encode(CampaignLine(campaign)))
            lines.append(record)
        self._append(lines)
        if self._size > self._max_bytes // PARTS:
            self._end_file()

    def _begin_file(self) -> None:
        assert self._header is not None
        kept = [(path, path.stat().st_size) for path in files(self._folder)]
        room = self._max_bytes - 2 * (self._max_bytes // PARTS)  # for this file, and the batch that ends it
        while kept and sum(size for _, size in kept) > room:
            kept.pop(0)[0].unlink()
        self._number += 1
        name = f"{self._number:08d}{SUFFIX}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        self._file = os.open(self._folder / name, flags, 0o600)
        self._seen.clear()
        self._size = 0
        self._append([replay.encode(self._header)])

    def _append(self, lines: Sequence[bytes]) -> None:
        data = memoryview(gzip.compress(b"\n".join(lines) + b"\n", _LEVEL))
        self._size += len(data)
        while data:
            data = data[os.write(self._file, data) :]

    def _end_file(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _release(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def files(folder: Path) -> list[Path]:
    """The files of a log, the oldest first."""
    return sorted(path for path in folder.glob(f"*{SUFFIX}") if path.name[:8].isdigit())


def lines(path: Path) -> Iterator[tuple[str, bytes]]:
    """Where a line stands, and the line, of a file or of all files of a folder; gzipped or not. A file that ends in the
    middle of something, as after a crash, is read up to there.

    Raises:
        StoreError: it is not there, or cannot be read.
    """
    try:
        found = files(path) if path.is_dir() else [path]
        if not found:
            raise StoreError(f"{path}: no replay log in this folder (it would have files such as 00000001{SUFFIX})")
        for file in found:
            yield from _lines_of(file)
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror or error}") from None


def _lines_of(file: Path) -> Iterator[tuple[str, bytes]]:
    with file.open("rb") as plain:
        packed = plain.read(2) == b"\x1f\x8b"
    with gzip.open(file) if packed else file.open("rb") as opened, contextlib.suppress(EOFError, zlib.error):
        for number, line in enumerate(opened, 1):
            whole = line.endswith(b"\n")
            if line.strip() and (whole or number == 1):  # what has not even a first line is no log: let that be told
                yield f"{file}:{number}", line
