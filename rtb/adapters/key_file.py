"""The file of the secrets that tracking URLs are signed with; made when it is missing.

    identity 5f0c...      hex; of the digests of users and landing pages: it stays
    2 91bd...             key id and secret: the first one signs
    1 03aa...             the others are still believed

To rotate, add a line with a new key below the first one on every daemon and restart them; then move it up, restart
again, and delete the old line once its last URL has expired. Every daemon needs the same file.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from rtb.domain.tracking import Keys
from rtb.errors import ConfigError

_IDENTITY = "identity"
_SECRET_BYTES = 32


def key_file(path: Path) -> tuple[Keys, bytes]:
    """The keys and the identity in the file, which only its owner can read when it is made here.

    Raises:
        ConfigError: it cannot be read or made, or a line of it makes no sense.
    """
    try:
        if not path.exists():
            _make(path)
        lines = path.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text of ASCII characters"
        raise ConfigError(f"tracking.key_file: cannot use {path}: {reason}") from None
    named: dict[str, bytes] = {}
    for number, line in enumerate(lines, 1):
        name, _, secret = line.strip().partition(" ")
        if not name or name.startswith("#"):
            continue
        try:
            named[name] = bytes.fromhex(secret)
            if name != _IDENTITY:
                int(name)
        except ValueError:
            raise _wrong(path, f'line {number}: write "identity HEX" or "KEY-ID HEX"') from None
    identity = named.pop(_IDENTITY, b"")
    if not identity or not named:
        raise _wrong(path, "it needs an identity and a key; delete it and a new one is made")
    try:
        keys = {int(name): secret for name, secret in named.items()}
        return Keys(keys, current=next(iter(keys))), identity
    except ValueError as error:
        raise _wrong(path, str(error)) from None


def _make(path: Path) -> None:
    """Whole or not at all; of several daemons that start at once one makes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    own = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    text = f"{_IDENTITY} {secrets.token_hex(_SECRET_BYTES)}\n1 {secrets.token_hex(_SECRET_BYTES)}\n"
    descriptor = os.open(own, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(own, path)
    except FileExistsError:
        pass
    finally:
        own.unlink()


def _wrong(path: Path, what: str) -> ConfigError:
    return ConfigError(f"tracking.key_file: {path}: {what}")
