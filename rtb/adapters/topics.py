"""Which bindings of an exchange a routing key fits: the rules of AMQP 0-9-1 (3.1.3) as RabbitMQ applies them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

from rtb.ports import ExchangeType

CACHED_KEYS = 10_000

_Q = TypeVar("_Q")


def matches(pattern: str, routing_key: str) -> bool:
    """Whether a topic pattern fits a key: ``*`` stands for one word, ``#`` for any number of words, none included.

    Words are what dots separate; the empty key has none. O(words of pattern x words of key).
    """
    words = _words(routing_key)
    # fits[i]: the pattern words read so far fit the first i words of the key
    fits = [True] + [False] * len(words)
    for part in _words(pattern):
        if part == "#":
            for i in range(len(words)):
                fits[i + 1] = fits[i + 1] or fits[i]
        else:
            for i in range(len(words), 0, -1):
                fits[i] = fits[i - 1] and part in ("*", words[i - 1])
            fits[0] = False
    return fits[-1]


def _words(key: str) -> list[str]:
    return key.split(".") if key else []


class Bindings(Generic[_Q]):
    """The bindings of one exchange; a queue is found once, however many of its bindings fit."""

    def __init__(self, kind: ExchangeType) -> None:
        """Start without bindings."""
        self.kind = kind
        self._bound: dict[tuple[str, _Q], None] = {}
        self._cache: dict[str, tuple[_Q, ...]] = {}

    def add(self, routing_key: str, queue: _Q) -> None:
        """Bind, once."""
        self._bound[routing_key, queue] = None
        self._cache.clear()

    def remove(self, queue: _Q) -> None:
        """Forget every binding of the queue."""
        self._bound = {bound: None for bound in self._bound if bound[1] is not queue}
        self._cache.clear()

    def route(self, routing_key: str) -> Sequence[_Q]:
        """The queues that a message with this key reaches."""
        found = self._cache.get(routing_key)
        if found is None:
            found = tuple(dict.fromkeys(queue for key, queue in self._bound if self._fits(key, routing_key)))
            if len(self._cache) >= CACHED_KEYS:
                self._cache.clear()
            self._cache[routing_key] = found
        return found

    def _fits(self, bound_key: str, routing_key: str) -> bool:
        match self.kind:
            case ExchangeType.FANOUT:
                return True
            case ExchangeType.DIRECT:
                return bound_key == routing_key
            case ExchangeType.TOPIC:
                return matches(bound_key, routing_key)
