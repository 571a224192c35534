"""Where alert rules and their states are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from rtb.domain.alert import AlertRule, AlertState


class Alerts(Protocol):
    """Rules and states, shared by every daemon; a write succeeds only on top of the version that the writer has seen.

    Every method raises StoreError when the database is away or refuses.
    """

    async def start(self) -> None:
        """Open it."""
        ...

    async def rules(self) -> Sequence[AlertRule]:
        """Every rule, ordered by id."""
        ...

    async def put_rule(self, rule: AlertRule) -> bool:
        """Insert a rule of version 1, or replace the version before `rule.version`; whether that was there to replace
        (or, for version 1, nothing was)."""
        ...

    async def delete_rule(self, rule_id: str) -> bool:
        """Remove a rule and its state; whether there was one."""
        ...

    async def states(self) -> Mapping[str, AlertState]:
        """The state of every rule that has one, by the rule's id."""
        ...

    async def put_state(self, state: AlertState) -> bool:
        """Write a state of version n + 1 over version n (0: there is none); whether that, and the rule, was there."""
        ...

    async def close(self) -> None:
        """Finish what is under way and close."""
        ...
