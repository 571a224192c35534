"""Telling people of alerts."""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

from rtb.errors import RtbError


class NotifyError(RtbError):
    """A notification was not taken: one line, without secrets. When it is `final`, repeating it is no use; else
    `after_s` is how long the other side wants to be left alone (0: it did not say)."""

    def __init__(self, reason: str, *, final: bool = False, after_s: float = 0.0) -> None:
        """Say why."""
        super().__init__(reason)
        self.final = final
        self.after_s = after_s


class Notice(Struct, frozen=True, kw_only=True):
    """An alert began to fire, or was resolved.

    `key` is the same whoever tells it and how often. `state` is firing or resolved; `at`, when that happened, and
    `began` are Unix seconds; `text` is all of it in one line.
    """

    key: str
    rule_id: str
    name: str
    state: str
    severity: str
    campaign_id: str
    metric: str
    condition: str
    threshold: float
    value: float | None
    at: float
    began: float
    instance: str
    text: str


class Notifier(Protocol):
    """One way to reach people."""

    @property
    def name(self) -> str:
        """Its name in configuration and in rules."""
        ...

    async def notify(self, notice: Notice) -> None:
        """Hand it over, once.

        Raises:
            NotifyError: it may not have arrived.
        """
        ...
