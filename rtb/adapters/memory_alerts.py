"""Alert rules in process memory: for tests, and for a daemon whose rules need not outlive it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rtb.domain.alert import AlertRule, AlertState


class MemoryAlerts:
    """Implements ports.alerts.Alerts. Never raises StoreError."""

    def __init__(self) -> None:
        """No rule yet."""
        self._rules: dict[str, AlertRule] = {}
        self._states: dict[str, AlertState] = {}

    async def start(self) -> None:
        """Nothing to open."""

    async def rules(self) -> Sequence[AlertRule]:
        """Every rule, ordered by id."""
        return [self._rules[rule_id] for rule_id in sorted(self._rules)]

    async def put_rule(self, rule: AlertRule) -> bool:
        """Insert or replace, on top of the version before."""
        known = self._rules.get(rule.id)
        if rule.version != (1 if known is None else known.version + 1):
            return False
        self._rules[rule.id] = rule
        return True

    async def delete_rule(self, rule_id: str) -> bool:
        """Remove a rule and its state."""
        self._states.pop(rule_id, None)
        return self._rules.pop(rule_id, None) is not None

    async def states(self) -> Mapping[str, AlertState]:
        """The state of every rule that has one."""
        return dict(self._states)

    async def put_state(self, state: AlertState) -> bool:
        """Write a state on top of the version before."""
        known = self._states.get(state.rule_id)
        if state.rule_id not in self._rules or state.version != (1 if known is None else known.version + 1):
            return False
        self._states[state.rule_id] = state
        return True

    async def close(self) -> None:
        """What is kept stays."""
