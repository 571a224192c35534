"""The file of remote bidders: TOML, one ``[[bidder]]`` table each; beside it, in FILE.off, who is switched off.

Both are small and read whole. Daemons that share them follow every change within a second.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from rtb.domain.bidder_policy import BidderSettings
from rtb.errors import ConfigError, NotFound

_Stamp = tuple[int, int, int]


class BidderFile:
    """Reads the bidders, and switches them on and off."""

    def __init__(self, path: Path) -> None:
        """Of this file, which must be there when it is read."""
        self.path = path
        self._off = path.with_name(f"{path.name}.off")
        self._read: tuple[_Stamp | None, _Stamp | None] | None = None

    def changed(self) -> bool:
        """Whether it is another than was read last."""
        return self._read != (_stamp(self.path), _stamp(self._off))

    def read(self) -> list[BidderSettings]:
        """The bidders, in the order of the file; those that are switched off are not enabled.

        Raises:
            ConfigError: one line that names the file, the bidder, the key, and what is wrong.
        """
        self._read = (_stamp(self.path), _stamp(self._off))
        tables = _tables(self.path)
        off = self._switched_off()
        found = [_bidder(self.path, number, table) for number, table in enumerate(tables, 1)]
        return [replace(one, enabled=False) if one.name in off else one for one in found]

    def switch(self, name: str, enabled: bool) -> None:
        """Switch a bidder on or off, for every daemon that reads this file, until it is switched again.

        Raises:
            NotFound: there is none of this name.
            ConfigError: it is switched off by its own ``enabled``, or the file cannot be read or written.
        """
        found = {one.name: one for one in (_bidder(self.path, i, t) for i, t in enumerate(_tables(self.path), 1))}
        if name not in found:
            raise NotFound(f"bidder {name[:100]!r}: unknown; {self.path} has {', '.join(found) or 'none'}")
        if enabled and not found[name].enabled:
            raise ConfigError(f"bidder {name}: {self.path} says enabled = false; take that out")
        off = self._switched_off() - {name} if enabled else self._switched_off() | {name}
        fresh = self._off.with_name(f"{self._off.name}.{os.getpid()}")
        try:
            fresh.write_text("".join(f"{each}\n" for each in sorted(off)), encoding="utf-8")
            fresh.replace(self._off)
        except OSError as error:
            raise ConfigError(f"bidders.file: cannot write {self._off}: {error.strerror or error}") from None

    def _switched_off(self) -> set[str]:
        try:
            return set(self._off.read_text(encoding="utf-8").split())
        except FileNotFoundError:
            return set()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"bidders.file: cannot read {self._off}: {error}") from None


def _tables(path: Path) -> Sequence[Any]:
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"bidders.file: {path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"bidders.file: {path}: cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"bidders.file: {path}: not TOML: {error}") from None
    tables = tree.pop("bidder", [])
    if tree or not isinstance(tables, list):
        key = next(iter(tree), "bidder")
        raise ConfigError(f"bidders.file: {path}: {key}: write each bidder as a table [[bidder]]")
    return tables


def _bidder(path: Path, number: int, table: Any) -> BidderSettings:
    name = table.get("name", f"number {number}") if isinstance(table, dict) else f"number {number}"
    try:
        return msgspec.convert(table, BidderSettings)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$")
        key = where.strip("`.").removeprefix("[...]")
        told = f"{key}: {what[:1].lower()}{what[1:]}" if key else f"{what[:1].lower()}{what[1:]}"
        raise ConfigError(f"{path}: bidder {str(name)[:64]}: {told}") from None


def _stamp(path: Path) -> _Stamp | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
