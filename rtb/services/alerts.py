"""Alert rules at work: looked at every few seconds by every daemon, changed and acknowledged by people.

The states stand in the database and change there step by step: of several daemons that see the same, one makes the
step, and the others find it made. A restart changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import structlog
from msgspec import Struct
from msgspec.structs import replace

from rtb.domain.alert import AlertRule, AlertState, Phase, rule_from, step
from rtb.errors import BadRequest, NotFound, StoreError
from rtb.ports import Clock
from rtb.ports.alerts import Alerts
from rtb.services.alert_notices import AlertNotices
from rtb.services.waiting import ended, within

MAX_RULES = 1_000
MAX_RACES = 20

_log = structlog.get_logger(__name__)
Values = Callable[[str], Mapping[str, float | None]]
"""The current values of a campaign, or of the system (""), by the names of the metrics; what is missing is unknown."""


class Conflict(BadRequest):
    """What is asked for does not fit what there is, or somebody else was quicker."""


class AlertView(Struct, frozen=True):
    """A rule, where it stands, and the value now; a `warning` is one line on what keeps the rule from ever firing."""

    rule: AlertRule
    state: AlertState
    value: float | None
    warning: str = ""


class AlertWatch:
    """The rules. `listeners` hear of every change of phase and acknowledgement, wherever it was made; they must not
    block."""

    def __init__(
        self, store: Alerts, values: Values, notices: AlertNotices, clock: Clock, *, every_s: float = 5.0
    ) -> None:
        """Keep rules in `store`, which is open, and compare them with `values` every `every_s`."""
        self.listeners: list[Callable[[AlertView], None]] = []
        self._store = store
        self._values = values
        self._notices = notices
        self._clock = clock
        self._every_s = every_s
        self._known: dict[str, AlertState] = {}
        self._looking = asyncio.Lock()
        self._hurry = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to look."""
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End; call it before the outbox is flushed."""
        if self._task is not None:
            await ended(self._task)
            self._task = None
        await self._notices.stop()

    async def look(self) -> None:
        """Compare every rule with its value now. Raises StoreError."""
        async with self._looking:
            values: dict[str, Mapping[str, float | None]] = {}
            for view in await self._views(values):
                fresh = step(view.rule, view.state, view.value, self._clock.time())
                if fresh is not view.state:
                    fresh = replace(fresh, version=view.state.version + 1)
                    if not await self._store.put_state(fresh):
                        continue  # another daemon was quicker: the next look finds what it wrote
                self._notice(replace(view, state=fresh))
                if fresh.transition and fresh.transition != fresh.told:
                    self._notices.tell(view.rule, fresh)

    async def all(self) -> list[AlertView]:
        """Every rule, ordered by id. Raises StoreError."""
        return await self._views({})

    async def get(self, rule_id: str) -> AlertView:
        """Raises NotFound, StoreError."""
        for view in await self._views({}):
            if view.rule.id == rule_id:
                return view
        raise NotFound(f"alert {rule_id[:100]!r}: unknown")

    async def create(self, obj: Any) -> AlertView:
        """Add a rule, as decoded JSON; one of a campaign that is not known, which may come later, with a warning.

        Raises:
            BadRequest (one line, field first), Conflict, StoreError: nothing was added.
        """
        rule = self._checked(replace(rule_from(obj), version=1))
        rules = await self._store.rules()
        if len(rules) >= MAX_RULES:
            raise Conflict(f"alert: there are {len(rules)} rules, at most {MAX_RULES} are kept; delete one")
        if not await self._store.put_rule(rule):
            raise Conflict(f"alert: id: {rule.id!r} exists; change it, or choose another id")
        self._hurry.set()
        return _view(rule, AlertState(rule_id=rule.id), self._values(rule.campaign_id))

    async def change(self, rule_id: str, fields: Mapping[str, Any]) -> AlertView:
        """Change these fields of a rule; a `version` among them is the one that the change is made for.

        Raises:
            BadRequest, Conflict, NotFound, StoreError: nothing was changed.
        """
        for _ in range(MAX_RACES):
            view = await self.get(rule_id)
            if fields.get("id", rule_id) != rule_id:
                raise BadRequest("alert: id: cannot be changed; delete the rule and add another")
            if fields.get("version", view.rule.version) != view.rule.version:
                raise Conflict(f"alert: version: is {view.rule.version} by now; look again")
            rule = self._checked(rule_from({**msgspec.to_builtins(view.rule), **fields}))
            if rule == view.rule:
                return view
            rule = replace(rule, version=view.rule.version + 1)
            if await self._store.put_rule(rule):
                self._hurry.set()
                return _view(rule, view.state, self._values(rule.campaign_id))
        raise Conflict(f"alert {rule_id!r} keeps being changed by others; try again")

    async def delete(self, rule_id: str) -> None:
        """Remove a rule; of one that was firing nobody is told an end. Raises NotFound, StoreError."""
        if not await self._store.delete_rule(rule_id):
            raise NotFound(f"alert {rule_id[:100]!r}: unknown")
        self._known.pop(rule_id, None)

    async def acknowledge(self, rule_id: str, by: str) -> AlertView:
        """Somebody has seen that it is firing; the first one counts.

        Raises:
            NotFound, Conflict, StoreError: it is not firing.
        """
        for _ in range(MAX_RACES):
            view = await self.get(rule_id)
            if view.state.phase is not Phase.FIRING:
                raise Conflict(f"alert {rule_id!r} is not firing")
            if view.state.acknowledged_at is not None:
                return view
            fresh = replace(
                view.state,
                acknowledged_by=by[:200],
                acknowledged_at=self._clock.time(),
                version=view.state.version + 1,
            )
            if await self._store.put_state(fresh):
                _log.info("alert_acknowledged", rule=rule_id, by=by[:200])
                view = replace(view, state=fresh)
                self._notice(view)
                return view
        raise Conflict(f"alert {rule_id!r} keeps being changed by others; try again")

    async def _views(self, values: dict[str, Mapping[str, float | None]]) -> list[AlertView]:
        rules, states = await self._store.rules(), await self._store.states()
        views = []
        for rule in rules:
            if rule.campaign_id not in values:
                values[rule.campaign_id] = self._values(rule.campaign_id)
            state = states.get(rule.id) or AlertState(rule_id=rule.id)
            views.append(_view(rule, state, values[rule.campaign_id]))
        return views

    def _checked(self, rule: AlertRule) -> AlertRule:
        for i, name in enumerate(rule.channels):
            if name not in self._notices.channels:
                known = ", ".join(self._notices.channels) or "none is set up"
                raise BadRequest(f"alert: channels[{i}]: no channel {name!r}; there are: {known}")
        return rule

    def _notice(self, view: AlertView) -> None:
        """Tell the listeners what they have not heard."""
        known, state = self._known.get(view.rule.id), view.state
        self._known[view.rule.id] = state
        before = (Phase.OK, 0, None) if known is None else (known.phase, known.incident, known.acknowledged_at)
        if before == (state.phase, state.incident, state.acknowledged_at):
            return
        for listener in tuple(self.listeners):
            try:
                listener(view)
            except Exception:
                _log.exception("alert_listener_failed")

    async def _run(self) -> None:
        problem = ""
        while True:
            try:
                await self.look()
                problem = ""
            except StoreError as error:
                if problem != str(error):
                    _log.warning("alerts_not_looked_at", reason=str(error))
                problem = str(error)
            except Exception:
                _log.exception("alerts_not_looked_at")
            await within(self._hurry.wait(), self._every_s)
            self._hurry.clear()


def _view(rule: AlertRule, state: AlertState, values: Mapping[str, float | None]) -> AlertView:
    warning = ""
    if rule.campaign_id and not values:
        warning = (
            f"campaign_id: no campaign {rule.campaign_id!r} is known, and the rule waits for it; "
            "correct the id, or import the campaign"
        )
    return AlertView(rule, state, values.get(rule.metric), warning)
