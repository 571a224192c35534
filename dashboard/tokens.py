"""The file of who may use the dashboard: names, roles, and hashes of tokens; made when it is missing.

    session 5f0c...                   hex; signs session cookies: without it everybody logs in anew
    operator admin 91bd...            role, name, and the hex SHA-256 of the token
    viewer wall-screen 03aa...

A token is 256 random bits, so that a plain hash of it gives nothing away. It is shown once, when it is made. To take
one back, delete its line; the sessions that began with it end, too. Daemons that share the file share tokens and
sessions, and look at it once a second (`Tokens.refresh`); which sessions were logged out of they share in a file, too,
and in the state store (dashboard.endings).
"""

from __future__ import annotations

import hashlib
import hmac
import math
import os
import re
import secrets
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path

import structlog
from msgspec import Struct

from dashboard.endings import Endings, stamp_of
from rtb.errors import ConfigError
from rtb.ports import StateStore

TOKEN_BYTES = 32
SESSION_BYTES = 8
_SESSION = "session"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}")
_HASH = re.compile(r"[0-9a-f]{64}")
_log = structlog.get_logger(__name__)


class Role(StrEnum):
    """What somebody may do: look, or also change things."""

    VIEWER = "viewer"
    OPERATOR = "operator"


class Identity(Struct, frozen=True):
    """Who asks."""

    name: str
    role: Role


class Pass(Struct, frozen=True):
    """What somebody was let in with, to be looked at again while they stay (`Tokens.stands`).

    `digest` is the hash of the token that it is, or began with; "" where nobody needs one. A session has its own id,
    ends at `expires`, in Unix seconds, and was signed with the key of this `epoch`.
    """

    identity: Identity
    digest: str = ""
    session: str = ""
    expires: float = math.inf
    epoch: int = 0


Entries = Mapping[str, tuple[Role, str]]


class Tokens:
    """Who is behind a token, and sessions for them: ``name:expires:id:digest``, signed, kept nowhere."""

    def __init__(self, entries: Entries, session_key: bytes) -> None:
        """`entries` are role and token hash by name."""
        self._epoch = 0
        self._key = b""
        self._take(entries, session_key)
        self._ended = Endings()
        self._path: Path | None = None
        self._stamp: object = None

    def __len__(self) -> int:
        """How many there are."""
        return len(self._entries)

    def knows(self, name: str) -> bool:
        """Whether somebody has this name."""
        return name in self._entries

    def identify(self, token: str) -> Pass | None:
        """Whose token it is, None when nobody's; it takes as long either way."""
        given = hash_of(token)
        found = None
        for identity, digest in self._entries.values():
            if hmac.compare_digest(given, digest):
                found = Pass(identity, digest)
        return found

    def session(self, identity: Identity, expires: int) -> str:
        """A new session until `expires`, in Unix seconds."""
        own = secrets.token_hex(SESSION_BYTES)
        return f"{identity.name}:{expires}:{own}:{self._sign(identity.name, str(expires), own)}"

    def resume(self, session: str, now: float) -> Pass | None:
        """Whose session it is, None when it was not made here, is over, was ended, or its token is gone."""
        name, _, rest = session.partition(":")
        expires, _, rest = rest.partition(":")
        own, _, sign = rest.partition(":")
        known = self._entries.get(name)
        if known is None or not expires.isascii() or not expires.isdecimal() or len(expires) > 12:
            return None
        if not hmac.compare_digest(sign.encode(), self._sign(name, expires, own).encode()):
            return None
        found = Pass(*known, own, int(expires), self._epoch)
        return found if self.stands(found, now) else None

    def end(self, session: str, now: float) -> None:
        """Nobody resumes this session any more."""
        found = self.resume(session, now)
        if found is not None:
            self._ended.add(found.session, int(found.expires), now)

    def stands(self, given: Pass, now: float) -> bool:
        """Whether it would still let in who came with it."""
        if self._entries.get(given.identity.name) != (given.identity, given.digest):
            return False
        if not given.session:
            return True
        return now < given.expires and given.epoch == self._epoch and given.session not in self._ended

    async def meet(self, store: StateStore, now: float) -> None:
        """Share with who has the same store which sessions were logged out of. Raises StoreError."""
        await self._ended.meet(store, now)

    def refresh(self) -> None:
        """Take over what the file says by now, where there is one; one that is of no use changes nothing."""
        self._ended.refresh()
        if self._path is None or (stamp := stamp_of(self._path)) == self._stamp:
            return
        self._stamp = stamp
        try:
            self._take(*_read(self._path))
        except ConfigError as error:
            _log.warning("dashboard_tokens_not_read", reason=str(error), note="those known before stay")

    def follow(self, path: Path, stamp: object) -> None:
        """They are from this file, as it was at `stamp`."""
        self._path, self._stamp = path, stamp
        self._ended.follow(path.with_name(f"{path.name}.ended"))

    def _take(self, entries: Entries, session_key: bytes) -> None:
        self._entries = {name: (Identity(name, role), digest) for name, (role, digest) in entries.items()}
        self._epoch += session_key != self._key
        self._key = session_key

    def _sign(self, name: str, expires: str, own: str) -> str:
        """With the token's hash in it: a session ends with its token."""
        identity, digest = self._entries[name]
        message = "\0".join((name, identity.role.value, expires, own, digest))
        return hmac.digest(self._key, message.encode(), "sha256").hex()


def hash_of(token: str) -> str:
    """As it stands in the file."""
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()


def token_file(path: Path) -> tuple[Tokens, str]:
    """The tokens in the file; it is made, for its owner alone to read, when it is missing: then with the token of an
    operator, which is returned, too, to be shown once.

    Raises:
        ConfigError: it cannot be read or made, or a line of it makes no sense.
    """
    made = ""
    try:
        if not path.exists():
            made = _make(path)
    except OSError as error:
        raise _unusable(path, error) from None
    stamp = stamp_of(path)  # of before it is read: what is changed meanwhile is read again
    tokens = Tokens(*_read(path))
    tokens.follow(path, stamp)
    return tokens, made


def _read(path: Path) -> tuple[Entries, bytes]:
    """Roles and hashes by name, and the key of sessions. Raises ConfigError."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise _unusable(path, error) from None
    entries: dict[str, tuple[Role, str]] = {}
    session_key = b""
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if words[0] == _SESSION and len(words) == 2 and _HASH.fullmatch(words[1]):
            session_key = bytes.fromhex(words[1])
        elif len(words) == 3 and words[0] in set(Role) and _NAME.fullmatch(words[1]) and _HASH.fullmatch(words[2]):
            if words[1] in entries:
                raise _wrong(path, f"line {number}: there is another {words[1]!r}; give each its own name")
            entries[words[1]] = (Role(words[0]), words[2])
        else:
            raise _wrong(path, f'line {number}: write "viewer NAME SHA256" or "operator NAME SHA256"')
    if not session_key:
        raise _wrong(path, 'a line "session" with 64 hex digits is missing; delete the file and a new one is made')
    return entries, session_key


def add_token(path: Path, role: Role, name: str) -> str:
    """Make a token for somebody and add it to the file; daemons know it within a second.

    Raises:
        ConfigError: the name is taken or none, or the file cannot be read or written.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(f"name {name[:64]!r}: use up to 64 letters, digits and _ . @ -")
    tokens, _ = token_file(path)
    if tokens.knows(name):
        raise _wrong(path, f"there is another {name!r}; give each its own name")
    token = secrets.token_urlsafe(TOKEN_BYTES)
    try:
        text = path.read_text(encoding="ascii")
        separator = "" if text.endswith("\n") else "\n"
        with path.open("a", encoding="ascii") as file:
            file.write(f"{separator}{role.value} {name} {hash_of(token)}\n")
    except (OSError, UnicodeDecodeError) as error:
        raise _unusable(path, error) from None
    return token


def _make(path: Path) -> str:
    """Whole or not at all; of several daemons that start at once one makes it, and "" is what the others get."""
    path.parent.mkdir(parents=True, exist_ok=True)
    token = secrets.token_urlsafe(TOKEN_BYTES)
    own = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    text = f"{_SESSION} {secrets.token_hex(32)}\n{Role.OPERATOR.value} admin {hash_of(token)}\n"
    descriptor = os.open(own, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(own, path)
    except FileExistsError:
        return ""
    finally:
        own.unlink()
    return token


def _unusable(path: Path, error: Exception) -> ConfigError:
    reason = error.strerror if isinstance(error, OSError) else "not a text of ASCII characters"
    return ConfigError(f"dashboard.token_file: cannot use {path}: {reason}")


def _wrong(path: Path, what: str) -> ConfigError:
    return ConfigError(f"dashboard.token_file: {path}: {what}")
