"""The file of who may use the dashboard: names, roles, and hashes of tokens; made when it is missing.

    session 5f0c...                   hex; signs session cookies: without it everybody logs in anew
    operator admin 91bd...            role, name, and the hex SHA-256 of the token
    viewer wall-screen 03aa...

A token is 256 random bits, so that a plain hash of it gives nothing away. It is shown once, when it is made. To take
one back, delete its line and restart; the sessions that began with it end, too. Daemons that share the file share
tokens and sessions.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from enum import StrEnum
from pathlib import Path

from msgspec import Struct

from rtb.errors import ConfigError

TOKEN_BYTES = 32
_SESSION = "session"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}")
_HASH = re.compile(r"[0-9a-f]{64}")


class Role(StrEnum):
    """What somebody may do: look, or also change things."""

    VIEWER = "viewer"
    OPERATOR = "operator"


class Identity(Struct, frozen=True):
    """Who asks."""

    name: str
    role: Role


class Tokens:
    """Who is behind a token, and sessions for them: ``name:expires:digest``, signed, kept nowhere."""

    def __init__(self, entries: dict[str, tuple[Role, str]], session_key: bytes) -> None:
        """`entries` are role and token hash by name."""
        self._entries = {name: (Identity(name, role), digest) for name, (role, digest) in entries.items()}
        self._key = session_key

    def __len__(self) -> int:
        """How many there are."""
        return len(self._entries)

    def knows(self, name: str) -> bool:
        """Whether somebody has this name."""
        return name in self._entries

    def identify(self, token: str) -> Identity | None:
        """Whose token it is, None when nobody's; it takes as long either way."""
        given = hash_of(token)
        found = None
        for identity, digest in self._entries.values():
            if hmac.compare_digest(given, digest):
                found = identity
        return found

    def session(self, identity: Identity, expires: int) -> str:
        """A session until `expires`, in Unix seconds."""
        return f"{identity.name}:{expires}:{self._sign(identity.name, str(expires))}"

    def resume(self, session: str, now: float) -> Identity | None:
        """Whose session it is, None when it was not made here, is over, or its token is gone."""
        name, _, rest = session.partition(":")
        expires, _, digest = rest.partition(":")
        known = self._entries.get(name)
        if known is None or not expires.isascii() or not expires.isdecimal() or len(expires) > 12:
            return None
        if not hmac.compare_digest(digest.encode(), self._sign(name, expires).encode()) or now >= int(expires):
            return None
        return known[0]

    def _sign(self, name: str, expires: str) -> str:
        """With the token's hash in it: a session ends with its token."""
        identity, digest = self._entries[name]
        message = "\0".join((name, identity.role.value, expires, digest))
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
    return Tokens(entries, session_key), made


def add_token(path: Path, role: Role, name: str) -> str:
    """Make a token for somebody and add it to the file; daemons know it after a restart.

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
