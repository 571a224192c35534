"""Alert rules at work: evaluation, telling, acknowledgement; alone, among several daemons, and over restarts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from rtb import messages
from rtb.adapters.clock import ManualClock
from rtb.adapters.memory_alerts import MemoryAlerts
from rtb.adapters.memory_state import MemoryState
from rtb.domain.alert import Phase
from rtb.errors import BadRequest, NotFound, StoreError
from rtb.ports import Message
from rtb.ports.notifier import Notice, Notifier, NotifyError
from rtb.services.alert_notices import AlertNotices
from rtb.services.alerts import AlertView, AlertWatch, Conflict

RULE: dict[str, Any] = {
    "id": "slow",
    "name": "Slow",
    "metric": "latency_p99_ms",
    "condition": "greater_than",
    "threshold": 100.0,
    "for_s": 10,
    "severity": "critical",
}


class Channel:
    """Keeps what it is told; fails as often as `failures` says."""

    def __init__(self, name: str, *failures: NotifyError) -> None:
        self.name = name
        self.failures = list(failures)
        self.notices: list[Notice] = []
        self.attempts = 0

    async def notify(self, notice: Notice) -> None:
        self.attempts += 1
        if self.failures:
            raise self.failures.pop(0)
        self.notices.append(notice)


class Shared:
    """What several daemons have in common."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.store = MemoryAlerts()
        self.state = MemoryState(self.clock)
        self.values: dict[str, dict[str, float | None]] = {"": {"latency_p99_ms": 50.0}}
        self.posted: list[tuple[str, str, Message]] = []


class Daemon:
    """One of them."""

    def __init__(self, shared: Shared, *channels: Notifier, instance: str = "a", **options: Any) -> None:
        self.shared = shared
        self.notices = AlertNotices(
            shared.store,
            shared.state,
            shared.clock,
            instance=instance,
            notifiers=channels,
            post=lambda *posted: shared.posted.append(posted),
            **options,
        )
        self.watch = AlertWatch(shared.store, lambda id_: shared.values.get(id_, {}), self.notices, shared.clock)

    async def look(self, value: float | None = None, *, after_s: float = 0) -> None:
        """A look at the system's latency so much later, and all that follows from it at that moment."""
        self.shared.clock.advance(after_s)
        if value is not None:
            self.shared.values[""]["latency_p99_ms"] = value
        await self.watch.look()
        await settle()


async def settle() -> None:
    """Let every task go on until it waits for the clock."""
    for _ in range(50):
        await asyncio.sleep(0)


async def pass_time(clock: ManualClock, seconds: float) -> None:
    """Second by second, with time for what each brings about."""
    for _ in range(round(seconds)):
        clock.advance(1)
        await settle()


async def fire(daemon: Daemon) -> None:
    """Two looks, ten seconds apart, at 120 ms."""
    await daemon.look(120.0)
    await daemon.look(120.0, after_s=10)


async def test_begin_and_end_are_told_once_each() -> None:
    """To every channel and to ad.alerts, however often it is looked at meanwhile."""
    shared, mail, hook = Shared(), Channel("mail"), Channel("hook")
    daemon = Daemon(shared, mail, hook)
    await daemon.watch.create(RULE)
    await fire(daemon)
    for _ in range(20):
        await daemon.look(130.0, after_s=5)
    await daemon.look(80.0)
    await daemon.look(80.0, after_s=10)
    await daemon.look(80.0, after_s=10)
    assert [(notice.state, notice.value) for notice in mail.notices] == [("firing", 120.0), ("resolved", 80.0)]
    assert hook.notices == mail.notices
    assert mail.notices[0].text == "[critical] Slow firing: latency_p99_ms greater than 100 for 10 s; value 120"
    assert mail.notices[1].text.startswith("[critical] Slow resolved after 110 s: ")
    assert [posted[:2] for posted in shared.posted] == [("ad.alerts", "alert.rule")] * 2
    envelope = messages.decode(shared.posted[0][2].body)
    assert (envelope.message_id, envelope.message_type) == (mail.notices[0].key, "rule_alert")


async def test_a_rule_of_an_unknown_campaign_says_so_until_it_comes() -> None:
    """It is kept, since the campaign may be imported later; adding, changing and listing it name the field, and it is
    watched as soon as the campaign is there."""
    shared = Shared()
    daemon = Daemon(shared)
    rule = {"id": "tea", "campaign_id": "lotus-tee", "metric": "clicks", "condition": "less_than", "threshold": 5}
    warning = "campaign_id: no campaign 'lotus-tee' is known, and the rule waits for it; "
    warning += "correct the id, or import the campaign"
    assert (await daemon.watch.create(rule)).warning == warning
    assert (await daemon.watch.change("tea", {"threshold": 6})).warning == warning
    await daemon.watch.look()
    [view] = await daemon.watch.all()
    assert (view.warning, view.value, view.state.phase) == (warning, None, Phase.OK)
    shared.values["lotus-tea"] = {"clicks": 2, "ctr": None}
    view = await daemon.watch.change("tea", {"campaign_id": "lotus-tea"})
    assert (view.warning, view.value) == ("", 2)
    await daemon.watch.look()
    assert (await daemon.watch.get("tea")).state.phase is Phase.FIRING
    assert (await daemon.watch.change("tea", {"metric": "ctr"})).warning == ""  # unknown, but of a campaign


async def test_several_daemons_tell_once() -> None:
    """All look at the same moment; one makes the step, and one tells."""
    shared = Shared()
    channels = [Channel("mail") for _ in range(4)]
    daemons = [Daemon(shared, channel, instance=str(n)) for n, channel in enumerate(channels)]
    await daemons[0].watch.create(RULE)
    for value in (120.0, 120.0, 80.0, 80.0):
        shared.values[""]["latency_p99_ms"] = value
        for _ in range(3):
            await asyncio.gather(*(daemon.watch.look() for daemon in daemons))
            await settle()
        shared.clock.advance(10)
    assert [notice.state for channel in channels for notice in channel.notices] in (
        ["firing", "resolved"],
        ["resolved", "firing"],
    )
    assert len(shared.posted) == 2


async def test_a_restart_goes_on_where_it_was() -> None:
    """What was pending stays so, with its ten seconds; what is firing and told is not told again."""
    shared, mail = Shared(), Channel("mail")
    await Daemon(shared, mail).watch.create(RULE)
    await Daemon(shared, mail).look(120.0)
    await Daemon(shared, mail, instance="b").look(after_s=9)
    assert mail.notices == []
    await Daemon(shared, mail, instance="c").look(after_s=1)
    assert len(mail.notices) == 1
    await Daemon(shared, mail, instance="d").look(after_s=600)
    assert len(mail.notices) == 1


async def test_a_daemon_that_dies_while_telling_is_stood_in_for() -> None:
    """Its claim ends after two minutes; the channel that has it is not told again."""
    shared, mail, hook = Shared(), Channel("mail"), Channel("hook", *[NotifyError("away")] * 2)
    dying = Daemon(shared, mail, hook)
    await dying.watch.create(RULE)
    await fire(dying)
    await dying.watch.stop()
    assert (len(mail.notices), len(hook.notices)) == (1, 0)
    other = Daemon(shared, mail, hook, instance="b")
    await other.look(after_s=100)
    assert (len(mail.notices), len(hook.notices)) == (1, 0)
    await other.look(after_s=21)
    await pass_time(shared.clock, 5)
    assert (len(mail.notices), len(hook.notices), len(shared.posted)) == (1, 1, 1)


async def test_failures_are_tried_again_ever_more_slowly() -> None:
    """After 1, 2 and 4 seconds; a channel that fails holds up no other."""
    shared, mail = Shared(), Channel("mail")
    hook = Channel("hook", *[NotifyError("HTTP 503") for _ in range(3)])
    daemon = Daemon(shared, mail, hook)
    await daemon.watch.create(RULE)
    await fire(daemon)
    assert (len(mail.notices), hook.attempts) == (1, 1)
    attempts = []
    for _ in range(8):
        await pass_time(shared.clock, 1)
        attempts.append(hook.attempts)
    assert attempts == [2, 2, 3, 3, 3, 3, 4, 4]
    assert len(hook.notices) == 1


async def test_who_was_told_is_remembered_until_the_database_takes_it() -> None:
    """It goes away while a channel is told: the channel is not told again when it is back."""

    class Away(MemoryAlerts):
        away = False

        async def states(self) -> Any:
            if self.away:
                raise StoreError("database is away")
            return await super().states()

    class Slow(Channel):
        async def notify(self, notice: Notice) -> None:
            await super().notify(notice)
            store.away = True

    shared, slow = Shared(), Slow("slow")
    shared.store = store = Away()
    daemon = Daemon(shared, slow)
    await daemon.watch.create(RULE)
    await fire(daemon)
    with pytest.raises(StoreError):
        await daemon.look(after_s=5)
    store.away = False
    for _ in range(3):
        await daemon.look(after_s=5)
    [view] = await daemon.watch.all()
    assert (len(slow.notices), len(shared.posted), view.state.told) == (1, 1, "1:firing")


async def test_a_channel_may_ask_to_be_left_alone() -> None:
    """Retry-After counts where it is longer than our own wait."""
    shared, hook = Shared(), Channel("hook", NotifyError("HTTP 429", after_s=30.0))
    daemon = Daemon(shared, hook)
    await daemon.watch.create(RULE)
    await fire(daemon)
    await pass_time(shared.clock, 29)
    assert hook.attempts == 1
    await pass_time(shared.clock, 1)
    assert len(hook.notices) == 1


async def test_what_is_refused_for_good_is_not_repeated() -> None:
    """Once, and counted; also by later looks."""
    shared, hook = Shared(), Channel("hook", NotifyError("HTTP 404", final=True))
    daemon = Daemon(shared, hook)
    await daemon.watch.create(RULE)
    await fire(daemon)
    await daemon.look(after_s=500)
    assert (hook.attempts, daemon.notices.failed) == (1, 1)


async def test_after_an_hour_it_is_given_up() -> None:
    """A channel that fails all along is tried, round after round, and then no more."""
    shared, hook = Shared(), Channel("hook", *[NotifyError("away") for _ in range(10_000)])
    daemon = Daemon(shared, hook)
    await daemon.watch.create(RULE)
    await fire(daemon)
    for _ in range(200):
        await daemon.look()
        await pass_time(shared.clock, 30)
    given_up, tried = daemon.notices.failed, hook.attempts
    await daemon.look(after_s=100)
    await pass_time(shared.clock, 30)
    assert (given_up, hook.attempts) == (1, tried)
    [view] = await daemon.watch.all()
    assert view.state.told == "1:firing"


async def test_a_mistake_in_one_channel_does_not_keep_the_others_from_being_told() -> None:
    """Whatever it raises."""

    class Broken(Channel):
        async def notify(self, notice: Notice) -> None:
            raise ZeroDivisionError

    shared, mail = Shared(), Channel("mail")
    daemon = Daemon(shared, Broken("broken"), mail)
    await daemon.watch.create(RULE)
    await fire(daemon)
    assert len(mail.notices) == 1
    await daemon.watch.stop()


async def test_notifications_are_rate_limited() -> None:
    """Six a minute at once, the next one ten seconds later."""
    shared, mail = Shared(), Channel("mail")
    daemon = Daemon(shared, mail, per_minute=6)
    for n in range(9):
        await daemon.watch.create({**RULE, "id": f"r{n}", "for_s": 0})
    await daemon.look(120.0)
    assert len(mail.notices) == 6
    await pass_time(shared.clock, 9)
    assert len(mail.notices) == 6
    await pass_time(shared.clock, 1)
    assert len(mail.notices) == 7
    await pass_time(shared.clock, 20)
    assert {notice.rule_id for notice in mail.notices} == {f"r{n}" for n in range(9)}


async def test_a_rule_may_name_its_channels() -> None:
    """Only those are told; a name that is no channel's is refused."""
    shared, mail, hook = Shared(), Channel("mail"), Channel("hook")
    daemon = Daemon(shared, mail, hook)
    await daemon.watch.create({**RULE, "channels": ["hook"]})
    await fire(daemon)
    assert (len(mail.notices), len(hook.notices)) == (0, 1)
    with pytest.raises(BadRequest, match=r"^alert: channels\[0\]: no channel 'pager'; there are: mail, hook$"):
        await daemon.watch.change("slow", {"channels": ["pager"]})


async def test_rules_of_campaigns_go_by_their_own_values() -> None:
    """Each campaign's value is asked for; one that is unknown has none, and nothing fires."""
    shared = Shared()
    daemon = Daemon(shared)
    rule = {"metric": "ctr", "condition": "less_than", "threshold": 0.5}
    for name in ("c", "d", "gone"):
        await daemon.watch.create({**rule, "id": name, "campaign_id": name})
    shared.values |= {"c": {"ctr": 0.4}, "d": {"ctr": 0.6}}
    await daemon.look()
    views = {view.rule.id: (view.state.phase, view.value) for view in await daemon.watch.all()}
    assert views == {"c": (Phase.FIRING, 0.4), "d": (Phase.OK, 0.6), "gone": (Phase.OK, None)}


async def test_the_first_who_acknowledges_counts() -> None:
    """With name and time; on every daemon, until the next incident. What is not firing cannot be acknowledged."""
    shared = Shared()
    daemon, other = Daemon(shared), Daemon(shared, instance="b")
    await daemon.watch.create(RULE)
    with pytest.raises(Conflict, match=r"^alert 'slow' is not firing$"):
        await daemon.watch.acknowledge("slow", "mina")
    with pytest.raises(NotFound):
        await daemon.watch.acknowledge("fast", "mina")
    await fire(daemon)
    await daemon.watch.acknowledge("slow", "mina")
    state = (await other.watch.acknowledge("slow", "jun")).state
    assert (state.acknowledged_by, state.acknowledged_at) == ("mina", shared.clock.time())
    await daemon.look(50.0)
    await daemon.look(after_s=10)
    await fire(daemon)
    [view] = await daemon.watch.all()
    assert (view.state.incident, view.state.acknowledged_by) == (2, "")


async def test_listeners_hear_what_changes_wherever_it_was_changed() -> None:
    """Each phase and acknowledgement once, on both daemons; one that fails keeps it from nobody."""
    shared = Shared()
    here, there = Daemon(shared), Daemon(shared, instance="b")
    heard: list[tuple[str, str, str]] = []

    def listener(where: str) -> Callable[[AlertView], None]:
        return lambda view: heard.append((where, view.state.phase.value, view.state.acknowledged_by))

    def broken(_view: AlertView) -> None:
        raise ZeroDivisionError

    here.watch.listeners += [broken, listener("here")]
    there.watch.listeners.append(listener("there"))
    await here.watch.create(RULE)
    await here.look(120.0)
    await there.look()
    await here.look(after_s=10)
    await there.look()
    await there.watch.acknowledge("slow", "mina")
    await here.look()
    steps = [("pending", ""), ("firing", ""), ("firing", "mina")]
    assert [step[1:] for step in heard if step[0] == "here"] == steps
    assert [step[1:] for step in heard if step[0] == "there"] == steps


async def test_rules_are_changed_field_by_field() -> None:
    """What is not named stays; a change for an older version is refused, and so is another id."""
    daemon = Daemon(Shared())
    created = (await daemon.watch.create({**RULE, "version": 9})).rule
    assert created.version == 1
    with pytest.raises(Conflict, match=r"^alert: id: 'slow' exists"):
        await daemon.watch.create(RULE)
    changed = (await daemon.watch.change("slow", {"threshold": 200, "version": 1})).rule
    assert (changed.threshold, changed.name, changed.version) == (200.0, "Slow", 2)
    assert (await daemon.watch.change("slow", {"threshold": 200})).rule.version == 2
    with pytest.raises(Conflict, match=r"^alert: version: is 2 by now; look again$"):
        await daemon.watch.change("slow", {"threshold": 300, "version": 1})
    with pytest.raises(BadRequest, match=r"^alert: id: cannot be changed"):
        await daemon.watch.change("slow", {"id": "fast"})
    with pytest.raises(BadRequest, match=r"^alert: for_s: expected `float` >= 0"):
        await daemon.watch.change("slow", {"for_s": -1})
    await daemon.watch.delete("slow")
    for gone in (daemon.watch.delete("slow"), daemon.watch.get("slow"), daemon.watch.change("slow", {})):
        with pytest.raises(NotFound, match=r"^alert 'slow': unknown$"):
            await gone


async def test_it_looks_by_itself_and_outlives_a_database_that_is_away() -> None:
    """A new rule is looked at at once; after an error the next look goes on."""

    class Flaky(MemoryAlerts):
        away = False

        async def rules(self) -> Any:
            if self.away:
                raise StoreError("database is away")
            return await super().rules()

    shared = Shared()
    shared.store = store = Flaky()
    daemon = Daemon(shared, Channel("mail"))
    daemon.watch._every_s = 0.001
    fired = asyncio.Event()
    daemon.watch.listeners.append(lambda view: fired.set() if view.state.phase is Phase.FIRING else None)
    store.away = True
    await daemon.watch.start()
    await asyncio.sleep(0.01)
    store.away = False
    shared.values[""]["latency_p99_ms"] = 101.0
    await daemon.watch.create({**RULE, "for_s": 0})
    async with asyncio.timeout(20):
        await fired.wait()
    await daemon.watch.stop()


async def test_without_the_shared_state_it_is_told_all_the_same() -> None:
    """Perhaps twice, with the same key: better than not at all."""

    class Away(MemoryState):
        async def seen(self, claims: Any, ttl_s: float) -> list[bool]:
            raise StoreError("state is away")

    shared, mail = Shared(), Channel("mail")
    shared.state = Away(shared.clock)
    daemon = Daemon(shared, mail)
    await daemon.watch.create(RULE)
    await fire(daemon)
    assert len(mail.notices) == 1
