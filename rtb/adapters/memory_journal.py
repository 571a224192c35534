"""What the in-process broker must not forget: a log of the persistent messages in its durable queues.

    put     b"p", u64 id, the message: it stands in its queue
    gone    b"g", u64 id, u64 id, ...: they were acknowledged, or moved, or dropped

The log is a sequence of segments (see rtb.adapters.segments). What comes within GATHER_S is written and fsynced as one
batch, in a thread, puts first: a message that moves from queue to queue is in the log under its new id before it is
gone under the old one. The oldest segment is deleted once all its messages are gone; when the log is more than twice
as long as what lives in it, the living messages of the oldest segment are written once more at its end. So a message
that nobody ever acknowledges keeps no others on disk.
"""

from __future__ import annotations

import asyncio
import struct
from array import array
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import msgspec
import structlog
from msgspec import Struct

from rtb.adapters.segments import Segments, framed, left_by_workers
from rtb.errors import BrokerError, StoreError
from rtb.ports import NO_HEADERS, Message
from rtb.ports.broker import Answer

SUFFIX = "journal"
GATHER_S = 0.005
"""How long the first message of a batch waits for others."""
LINGER_S = 0.1
"""How long what nobody waits for may take: acknowledgements, moves."""
RETRY_S = 1.0
SLACK_SEGMENTS = 4
"""The log may be so many segments longer than twice what lives in it."""

_PUT, _GONE = b"p", b"g"
_ID = struct.Struct("<Q")
_HEADER = 1 + _ID.size
_T = TypeVar("_T")
_log = structlog.get_logger(__name__)


class Kept(Struct, array_like=True, gc=False):
    """A message in a queue, as it stands on disk. `expires_at` is Unix seconds; `deaths` see memory_queue."""

    queue: str
    exchange: str
    routing_key: str
    body: bytes
    message_id: str
    correlation_id: str
    reply_to: str
    timestamp: float | None
    expiration_ms: int | None
    headers: dict[str, str | int | float]
    expires_at: float | None = None
    deaths: list[tuple[str, str]] = []

    @property
    def message(self) -> Message:
        """The message itself."""
        return Message(
            body=self.body,
            message_id=self.message_id,
            correlation_id=self.correlation_id,
            reply_to=self.reply_to,
            timestamp=self.timestamp,
            expiration_ms=self.expiration_ms,
            headers=self.headers or NO_HEADERS,
        )


_decoder = msgspec.msgpack.Decoder(Kept)
_encoder = msgspec.msgpack.Encoder()


class _Put(Struct, eq=False, gc=False):
    """Messages that are written together; without `done` nobody waits for them, and they are tried again."""

    ids: range
    data: Sequence[bytes]
    done: Answer | None

    def answer(self, error: BrokerError | None) -> None:
        """Tell whoever waits, whose own failure stops nobody."""
        if self.done is None:
            return
        try:
            self.done(error)
        except Exception:
            _log.exception("journal_callback_failed")


class Journal:
    """The log in one folder, of one process."""

    def __init__(self, folder: Path, *, segment_bytes: int = 8 << 20, heir_from: int | None = None) -> None:
        """Keep it in `folder`. With `heir_from` take over what was left in the folders of workers of that number and
        above, ``{folder}.{number}``, unless somebody uses them."""
        self._folder = folder
        self._heir_from = heir_from
        self._slack_bytes = SLACK_SEGMENTS * segment_bytes
        self._segments = Segments(folder, SUFFIX, segment_bytes)
        self._where: dict[int, int] = {}  # living message -> its segment
        self._living: Counter[int] = Counter()  # segment -> living messages
        self._put: Counter[int] = Counter()  # segment -> messages ever written to it
        self._next_id = 1
        self._pending: list[_Put] = []
        self._gone = array("Q")
        self._stirred = asyncio.Event()
        self._urgent = asyncio.Event()
        self._closing = False
        self._refuses = False
        self._thread: ThreadPoolExecutor | None = None
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> list[tuple[int, Kept]]:
        """Take the folder; the messages that an earlier process left, by id, oldest first.

        Raises:
            BrokerError: another process uses the folder, or the disk refuses.
        """
        self._thread = ThreadPoolExecutor(1, SUFFIX)
        try:
            found = await self._run(self._load)
        except (OSError, StoreError) as error:
            self._segments.close()
            self._thread.shutdown()
            raise BrokerError(self._told(error)) from error
        self._stirred, self._urgent, self._closing = asyncio.Event(), asyncio.Event(), False
        self._task = asyncio.create_task(self._work(), name=SUFFIX)
        kept = [(id_, message) for id_, record in sorted(found.items()) if (message := _decoded(record)) is not None]
        if kept:
            _log.info("journal_found", folder=str(self._folder), messages=len(kept))
        return kept

    def put(self, kept: Sequence[Kept], done: Answer | None = None) -> int:
        """Write messages, all or none; the id of the first, the others have those that follow.

        Args:
            kept: what one publish puts into queues.
            done: called once they are durable, or with the BrokerError that says why none of them is. Without it they
                are written again until they are durable.

        Raises:
            ValueError: one is too long for a record.
        """
        first = self._next_id
        data = [framed(_PUT + _ID.pack(id_) + _encoder.encode(one)) for id_, one in enumerate(kept, first)]
        self._next_id = first + len(data)
        self._pending.append(_Put(range(first, self._next_id), data, done))
        if done is None:
            self._stirred.set()
        elif not self._urgent.is_set():
            self._stirred.set()
            self._urgent.set()
        return first

    def gone(self, id_: int) -> None:
        """A message need not be kept any longer."""
        if not self._gone:
            self._stirred.set()
        self._gone.append(id_)

    async def close(self) -> None:
        """Write what is pending, and let another process have the folder. What cannot be written now fails."""
        task, self._task = self._task, None
        if task is None or self._thread is None:
            return
        self._closing = True
        self._stirred.set()
        self._urgent.set()
        await asyncio.wait({task})
        await self._run(self._close)
        self._thread.shutdown()
        self._thread = None

    async def _run(self, work: Callable[..., _T], *arguments: object) -> _T:
        assert self._thread is not None
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    async def _work(self) -> None:
        """Write batch after batch: at once what came while another was written, else after GATHER_S."""
        while not self._closing:
            if not self._urgent.is_set():
                await self._stirred.wait()
                if not self._urgent.is_set():
                    await _within(self._urgent.wait(), LINGER_S)
                await asyncio.sleep(GATHER_S)
            try:
                await self._write()
                await self._tidy()
            except Exception:
                with suppress(OSError):  # a full disk may have no room for the log either
                    _log.exception("journal_failed")
                await asyncio.sleep(RETRY_S)
        await self._write()

    async def _write(self) -> None:
        self._stirred.clear()
        self._urgent.clear()
        puts, self._pending = self._pending, []
        gone, self._gone = self._gone, array("Q")
        data = [part for put in puts for part in put.data]
        if gone:
            data.append(framed(_GONE + gone.tobytes()))
        if not data:
            return
        try:
            number = await self._run(self._segments.append, b"".join(data))
        except Exception as error:
            self._failed(puts, gone, error)
        else:
            self._written(number, puts, gone)

    def _written(self, number: int, puts: Sequence[_Put], gone: Iterable[int]) -> None:
        self._place([id_ for put in puts for id_ in put.ids], number)
        self._forget(gone)
        for put in puts:
            put.answer(None)
        if self._refuses:
            self._refuses = False
            _log.info("journal_writes_again", folder=str(self._folder))

    def _failed(self, puts: Sequence[_Put], gone: array[int], error: Exception) -> None:
        """Publishers keep what is theirs; the rest is tried again."""
        moves = [put for put in puts if put.done is None]
        self._pending[:0] = moves
        self._gone = gone + self._gone
        if not moves:
            self._forget(gone)  # their segments may be deleted though no record says that they are gone
        for put in puts:
            put.answer(BrokerError(f"the message was not kept: {self._told(error)}"))
        if moves or gone:
            asyncio.get_running_loop().call_later(RETRY_S, self._stirred.set)
        if not self._refuses:
            self._refuses = True
            with suppress(OSError):
                _log.error("journal_refuses", folder=str(self._folder), reason=_reason(error))

    def _place(self, ids: Sequence[int], number: int) -> None:
        self._where.update(dict.fromkeys(ids, number))
        self._living[number] += len(ids)
        self._put[number] += len(ids)

    def _forget(self, ids: Iterable[int]) -> None:
        for id_ in ids:
            number = self._where.pop(id_, None)
            if number is not None:
                self._living[number] -= 1

    async def _tidy(self) -> None:
        """Delete the oldest segments whose messages are all gone; write the rest of one anew when the log is long."""
        sizes = self._segments.sizes
        while len(sizes) > 1:
            oldest = min(sizes)
            if self._living[oldest]:
                lives = sum(size * self._living[n] // max(self._put[n], 1) for n, size in sizes.items())
                if sum(sizes.values()) <= 2 * lives + self._slack_bytes:
                    return
                try:
                    ids, number = await self._run(self._rewrite, oldest)
                except OSError as error:
                    _log.warning("journal_not_shortened", reason=_reason(error))
                    return
                self._forget(ids)
                self._place(ids, number)
            await self._run(self._segments.remove, oldest)
            del self._living[oldest], self._put[oldest]

    def _rewrite(self, number: int) -> tuple[list[int], int]:
        """Append what lives of a segment; nothing else runs that changes what does."""
        records = [record for _, record in self._segments.records(number) if record[:1] == _PUT]
        living = [record for record in records if self._where.get(_id(record)) == number]
        return [_id(record) for record in living], self._segments.append(b"".join(map(framed, living)))

    def _load(self) -> dict[int, bytes]:
        """Read everything; the records of the living messages."""
        self._where.clear()
        self._living.clear()
        self._put.clear()
        found: dict[int, bytes] = {}
        for number in self._segments.open():
            for _, record in self._segments.survey(number):
                if record[:1] == _PUT:
                    id_ = _id(record)
                    self._forget([id_])  # written anew
                    self._place([id_], number)
                    found[id_] = record
                    self._next_id = max(self._next_id, id_ + 1)
                elif record[:1] == _GONE:
                    ids = array("Q", record[1:])
                    self._forget(ids)
                    for id_ in ids:
                        found.pop(id_, None)
                    self._next_id = max(self._next_id, max(ids) + 1)
        if self._heir_from is not None:
            for folder in left_by_workers(self._folder, self._heir_from, SUFFIX):
                found |= self._inherit(folder)
        return found

    def _inherit(self, folder: Path) -> dict[int, bytes]:
        """Append what another folder holds, then empty it; after a crash in between it is there twice."""
        left = Journal(folder)
        found: dict[int, bytes] = {}
        try:
            for id_, (_, record) in enumerate(sorted(left._load().items()), self._next_id):
                found[id_] = _PUT + _ID.pack(id_) + record[_HEADER:]
            if found:
                self._place([*found], self._segments.append(b"".join(map(framed, found.values()))))
                self._next_id = max(found) + 1
            for number in [*left._segments.sizes]:
                left._segments.remove(number)
        except (StoreError, OSError) as error:
            _log.warning("journal_not_inherited", folder=str(folder), reason=str(error))
            return {id_: record for id_, record in found.items() if id_ in self._where}
        finally:
            left._segments.close()
        _log.info("journal_inherited", folder=str(folder), messages=len(found))
        return found

    def _close(self) -> None:
        if not self._where:
            for number in [*self._segments.sizes]:
                self._segments.remove(number)
        self._segments.close()

    def _told(self, error: Exception) -> str:
        return str(error) if isinstance(error, StoreError) else f"{SUFFIX} {self._folder}: {_reason(error)}"


def _id(record: bytes) -> int:
    number: int = _ID.unpack_from(record, 1)[0]
    return number


def _decoded(record: bytes) -> Kept | None:
    try:
        return _decoder.decode(record[_HEADER:])
    except msgspec.MsgspecError as error:
        _log.error("journal_record_unreadable", reason=str(error), bytes=len(record))
        return None


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else "") or str(error) or type(error).__name__


async def _within(event: Awaitable[object], limit_s: float) -> None:
    try:
        await asyncio.wait_for(event, limit_s)
    except TimeoutError:
        pass
