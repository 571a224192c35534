"""Values that are made from their keys and kept for the next time."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TypeVar

_K = TypeVar("_K", bound=Hashable)
_V = TypeVar("_V")


class Remembered(dict[_K, _V]):
    """A dictionary that makes a missing value, and forgets the oldest when it is full: ``table[key]`` always answers,
    in the time of a plain look-up when it knows."""

    __slots__ = ("_make", "_most")

    def __init__(self, make: Callable[[_K], _V], most: int) -> None:
        """Keep at most `most` values, made by `make`."""
        super().__init__()
        self._make = make
        self._most = most

    def __missing__(self, key: _K) -> _V:
        if len(self) >= self._most:
            del self[next(iter(self))]
        value = self[key] = self._make(key)
        return value
