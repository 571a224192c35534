"""Telling people of alerts: each beginning and each end once, whichever daemon saw it first.

The database knows what there is to tell and which channels have it; the claim on a transition in the shared state says
which daemon works on it. A claim ends by itself: when its daemon dies, another goes on with the channels that are left.
A channel may hear the same twice, with the same key, when a daemon dies between telling it and writing that down.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

import structlog
from msgspec.structs import replace

from rtb import messages
from rtb.domain.alert import AlertRule, AlertState, Phase
from rtb.errors import StoreError
from rtb.messages import MessageType
from rtb.ports import Message, StateStore
from rtb.ports.alerts import Alerts
from rtb.ports.clock import TimerClock
from rtb.ports.notifier import Notice, Notifier, NotifyError
from rtb.services import topology
from rtb.services.announcements import message_id

NS = 1_000_000_000
BROKER = "broker"
"""The channel of ``ad.alerts``."""
CLAIM_S = 120.0
ROUND_S = 90.0
"""How long a daemon tries within one claim."""
GIVE_UP_S = 3_600.0
FIRST_WAIT_S, MOST_WAIT_S = 1.0, 32.0
MAX_RACES = 20
MAX_UNWRITTEN = 1_000
"""Transitions of which this daemon remembers whom it told, until the database takes it."""

_log = structlog.get_logger(__name__)
Post = Callable[[str, str, Message], None]


class Turns:
    """At most so many a minute, as many at once."""

    def __init__(self, per_minute: int, clock: TimerClock) -> None:
        """All of them are there."""
        self._clock = clock
        self._most = float(per_minute)
        self._left = self._most
        self._at_ns = clock.monotonic_ns()

    def take(self) -> float:
        """Take one; 0.0, or in how many seconds there will be one."""
        now_ns = self._clock.monotonic_ns()
        self._left = min(self._most, self._left + (now_ns - self._at_ns) / NS * self._most / 60)
        self._at_ns = now_ns
        if self._left >= 1:
            self._left -= 1
            return 0.0
        return (1 - self._left) * 60 / self._most


class AlertNotices:
    """Tells channels, and ``ad.alerts`` / ``alert.rule``, what `tell` is called with.

    `told` and `failed` count what channels took, and what was given up.
    """

    def __init__(
        self,
        store: Alerts,
        state: StateStore,
        clock: TimerClock,
        *,
        instance: str,
        notifiers: Sequence[Notifier] = (),
        post: Post | None = None,
        per_minute: int = 20,
    ) -> None:
        """Tell `notifiers`, each `per_minute` times at most, failed attempts included."""
        self._store = store
        self._state = state
        self._clock = clock
        self._instance = instance
        self._notifiers: Mapping[str, Notifier] = {notifier.name: notifier for notifier in notifiers}
        self._turns = {name: Turns(per_minute, clock) for name in self._notifiers}
        self._post = post
        self._telling: dict[str, asyncio.Task[None]] = {}
        self._unwritten: dict[str, list[str]] = {}
        self.told = self.failed = 0

    @property
    def channels(self) -> Sequence[str]:
        """Whom rules may name."""
        return list(self._notifiers)

    def tell(self, rule: AlertRule, state: AlertState) -> None:
        """Tell of the last transition whoever has not heard of it, without waiting; call it as often as you like."""
        key = message_id("alert", rule.id, state.transition, repr(state.began))
        if key not in self._telling:
            task = asyncio.get_running_loop().create_task(self._tell(key, rule, state))
            self._telling[key] = task
            task.add_done_callback(lambda task: self._ended(key, task))

    async def stop(self) -> None:
        """End; what was not told is told later, by whoever runs then."""
        tasks = list(self._telling.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _ended(self, key: str, task: asyncio.Task[None]) -> None:
        del self._telling[key]
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("alert_not_told", reason=f"{type(error).__name__}: {error}")

    async def _tell(self, key: str, rule: AlertRule, state: AlertState) -> None:
        try:
            if (await self._state.seen([(f"alert:{key}", self._instance)], CLAIM_S))[0]:
                return
        except StoreError as error:
            _log.info("alert_not_claimed", rule=rule.id, reason=str(error))
        notice = notice_of(key, rule, state, self._instance)
        done = self._unwritten.pop(key, [])
        known = {*state.delivered, *done}
        due = [name for name in self._named(rule) if name not in known]
        end_ns = self._clock.monotonic_ns() + round(ROUND_S * NS)
        if self._post is not None and BROKER not in known:
            _log.warning("alert", rule=rule.id, state=notice.state, severity=notice.severity, text=notice.text)
            self._publish(self._post, notice)
            done.append(BROKER)
        try:
            async with asyncio.TaskGroup() as group:
                for name in due:
                    group.create_task(self._deliver(self._notifiers[name], notice, end_ns, done))
        finally:
            if not await self._write_down(rule.id, state.transition, done, settled=set(done) >= set(due)):
                self._unwritten[key] = done
                while len(self._unwritten) > MAX_UNWRITTEN:
                    del self._unwritten[next(iter(self._unwritten))]

    def _named(self, rule: AlertRule) -> list[str]:
        if not rule.channels:
            return list(self._notifiers)
        return [name for name in rule.channels if name in self._notifiers]

    def _publish(self, post: Post, notice: Notice) -> None:
        kind = MessageType.RULE_ALERT
        body = messages.encode(kind, notice, message_id=notice.key, timestamp=notice.at)
        post(*topology.ROUTES[kind], Message(body=body, message_id=notice.key, timestamp=self._clock.time()))

    async def _deliver(self, notifier: Notifier, notice: Notice, end_ns: int, done: list[str]) -> None:
        """Try until it is told, refused for good, or this round is over; `done` gets the channel when it is settled."""
        wait_s = FIRST_WAIT_S
        while True:
            if (turn_s := self._turns[notifier.name].take()) > 0:
                if not await self._sleep(turn_s, end_ns):
                    _log.warning("alert_rate_limited", channel=notifier.name, rule=notice.rule_id)
                    return
                continue
            try:
                await notifier.notify(notice)
                self.told += 1
                done.append(notifier.name)
                return
            except NotifyError as error:
                failure = error
            except Exception as error:  # a mistake of the notifier, which must not keep the others from being told
                failure = NotifyError(f"{type(error).__name__}: {error}")
            _log.warning("alert_notification_failed", channel=notifier.name, rule=notice.rule_id, reason=str(failure))
            if failure.final:
                self.failed += 1
                done.append(notifier.name)
                return
            if not await self._sleep(max(wait_s, failure.after_s), end_ns):
                return
            wait_s = min(2 * wait_s, MOST_WAIT_S)

    async def _sleep(self, seconds: float, end_ns: int) -> bool:
        """Wait, unless it would be later than the end then."""
        due_ns = self._clock.monotonic_ns() + round(seconds * NS)
        if due_ns > end_ns:
            return False
        passed = asyncio.Event()
        timer = self._clock.call_at(due_ns, passed.set)
        try:
            await passed.wait()
        finally:
            timer.cancel()
        return True

    async def _write_down(self, rule_id: str, transition: str, done: Sequence[str], *, settled: bool) -> bool:
        """Which channels have it; once all have, or it is too old, that it was told. Whether it could be written."""
        try:
            for _ in range(MAX_RACES):
                state = (await self._store.states()).get(rule_id)
                if state is None or state.transition != transition:
                    return True  # something newer is to be told
                delivered = tuple(dict.fromkeys((*state.delivered, *done)))
                late = self._clock.time() - state.changed > GIVE_UP_S
                if late and not settled:
                    self.failed += 1
                    _log.error("alert_given_up", rule=rule_id, transition=transition)
                told = transition if settled or late else state.told
                fresh = replace(state, delivered=delivered, told=told, version=state.version + 1)
                if (delivered, told) == (state.delivered, state.told) or await self._store.put_state(fresh):
                    return True
        except StoreError as error:
            _log.warning("alert_told_but_not_written", rule=rule_id, reason=str(error))
        return False


def notice_of(key: str, rule: AlertRule, state: AlertState, instance: str) -> Notice:
    """What there is to say of the last transition."""
    firing = state.phase is Phase.FIRING
    what = "firing" if firing else "resolved"
    value = "unknown" if state.value is None else f"{state.value:g}"
    lasted = "" if firing else f" after {state.changed - state.began:.0f} s"
    return Notice(
        key=key,
        rule_id=rule.id,
        name=rule.name,
        state=what,
        severity=rule.severity.value,
        campaign_id=rule.campaign_id,
        metric=rule.metric,
        condition=rule.condition.value,
        threshold=rule.threshold,
        value=state.value,
        at=state.changed,
        began=state.began,
        instance=instance,
        text=f"[{rule.severity.value}] {rule.name or rule.id} {what}{lasted}: {rule.describe()}; value {value}",
    )
