"""One request of rtb.adapters.lean_http on its way: what is sent, what came back, who waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rtb.adapters.lean_connection import LeanConnection


class Call:
    """It ends once: with an `error`, or with the response's `status`, `headers` (as they came) and `body`, which was
    cut at `max_body` when it is not `whole`."""

    __slots__ = (
        "_on_end",
        "again",
        "body",
        "connection",
        "error",
        "headers",
        "max_body",
        "request",
        "status",
        "timeout_s",
        "timer",
        "whole",
    )

    def __init__(
        self, request: bytes, on_end: Callable[[Call], None], *, timeout_s: float, max_body: int, again: bool
    ) -> None:
        """`on_end` is called with it; `again`: it may be sent a second time when the server may not have seen it."""
        self.request = request
        self.timeout_s = timeout_s
        self.max_body = max_body
        self.again = again
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.whole = True
        self.error: Exception | None = None
        self.connection: LeanConnection | None = None
        self.timer: asyncio.TimerHandle | None = None
        self._on_end: Callable[[Call], None] | None = on_end

    @property
    def ended(self) -> bool:
        """Whether nobody waits for it any more."""
        return self._on_end is None

    def end(self, error: Exception | None = None) -> None:
        """Tell whoever waits, unless that was done."""
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            self.error = error
            self.connection = None
            if self.timer is not None:
                self.timer.cancel()
            on_end(self)

    def forget(self) -> None:
        """Nobody waits any more."""
        self._on_end = None
        if self.timer is not None:
            self.timer.cancel()
