"""Sessions that were logged out of: in memory, in a file beside the token file, which daemons share like that one, and
in the state store, which reaches those that have copies of the file.

The file has a line each, ``ID EXPIRES``, for as long as the session would have lasted. A daemon that is told of one
writes it anew, whole or not at all, while others that want to do the same wait; all look at it once a second.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import structlog

from rtb.ports import StateStore

_LINE = re.compile(r"([0-9a-f]+) ([0-9]{1,12})")
_log = structlog.get_logger(__name__)


class Endings:
    """Ids of sessions, and when they would have ended, in Unix seconds."""

    def __init__(self) -> None:
        """None, and no file."""
        self._stored: Mapping[str, int] = {}
        self._told: dict[str, int] = {}
        self._shared: dict[str, int] = {}
        self._path: Path | None = None
        self._stamp: object = None

    def __contains__(self, session: str) -> bool:
        """Whether somebody has logged out of it."""
        return session in self._told or session in self._shared or session in self._stored

    def follow(self, path: Path) -> None:
        """Share them with who has the same file; it need not be there yet."""
        self._path = path
        self.refresh()

    def add(self, session: str, expires: int, now: float) -> None:
        """It is over from now on; for other daemons as soon as they look (`refresh`)."""
        self._told = {one: until for one, until in self._told.items() if until > now} | {session: expires}
        if self._path is None:
            return
        try:
            with _alone(self._path):
                _write(self._path, _read(self._path, now) | self._told)
        except OSError as error:
            _log.warning("dashboard_logout_not_shared", file=str(self._path), reason=error.strerror)

    async def meet(self, store: StateStore, now: float) -> None:
        """Take over what the store was told of, and tell it what it lacks: also what it lost. Raises StoreError."""
        found = await store.ended_sessions()
        known = {**self._stored, **self._shared, **self._told}
        self._stored = {session: expires for session, expires in known.items() if expires > now} | found
        for session in self._stored.keys() - found.keys():
            await store.end_session(session, self._stored[session], now)

    def refresh(self) -> None:
        """Take over what other daemons were told of."""
        if self._path is None or (stamp := stamp_of(self._path)) == self._stamp:
            return
        try:
            self._shared = _read(self._path)
        except OSError as error:
            _log.warning("dashboard_logouts_not_read", file=str(self._path), reason=error.strerror)
        self._stamp = stamp


def stamp_of(path: Path) -> object:
    """Another one when the file was changed; None while it cannot be seen."""
    try:
        seen = path.stat()
    except OSError:
        return None
    return seen.st_mtime_ns, seen.st_size, seen.st_ino


def _read(path: Path, now: float = 0.0) -> dict[str, int]:
    """What is not over by itself; nothing where there is no file. Raises OSError."""
    try:
        text = path.read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:
        return {}
    found = [match.groups() for line in text.splitlines() if (match := _LINE.fullmatch(line))]
    return {session: int(expires) for session, expires in found if int(expires) > now}


def _write(path: Path, expires: dict[str, int]) -> None:
    own = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    own.touch(0o600)
    own.write_text("".join(f"{session} {until}\n" for session, until in expires.items()), encoding="ascii")
    own.replace(path)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """While nobody else writes it. Raises OSError."""
    lock = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
