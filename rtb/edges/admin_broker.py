"""Admin commands on the broker: dead letters and the topology."""

from __future__ import annotations

from typing import Any

import msgspec

from rtb.edges.admin import Command, given
from rtb.ports import Broker
from rtb.services import topology
from rtb.services.dead_letters import DeadLetter, DeadLetters
from rtb.services.outbox import Outbox
from rtb.services.queue_monitor import QueueMonitor


def broker_commands(broker: Broker, monitor: QueueMonitor, outbox: Outbox) -> dict[str, Command]:
    """``dead-letters.list | show | requeue | purge``, ``topology.apply | check``, over this connection, and ``queues``,
    with what waits in `outbox` for the broker."""
    letters = DeadLetters(broker)

    async def list_(arguments: dict[str, Any]) -> Any:
        return [_row(letter) for letter in await letters.oldest(given(arguments, "limit", int, 100))]

    async def show(arguments: dict[str, Any]) -> Any:
        letter = await letters.show(given(arguments, "id", str))
        return {**_row(letter), "body": letter.body.decode(errors="replace")}

    async def requeue(arguments: dict[str, Any]) -> Any:
        return msgspec.to_builtins(await letters.requeue(given(arguments, "ids", list[str], None)))

    async def purge(arguments: dict[str, Any]) -> Any:
        return await letters.purge(given(arguments, "ids", list[str], None))

    async def apply(_: dict[str, Any]) -> Any:
        await broker.declare(topology.topology())
        return await check(_)

    async def check(_: dict[str, Any]) -> Any:
        return list(await topology.check(broker))

    async def queues(_: dict[str, Any]) -> Any:
        if not monitor.report.time:  # a command without a daemon: one look warns of nothing yet
            await monitor.look()
        return {**msgspec.to_builtins(await monitor.look()), "outbox": outbox.waiting}

    return {
        "queues": queues,
        "dead-letters.list": list_,
        "dead-letters.show": show,
        "dead-letters.requeue": requeue,
        "dead-letters.purge": purge,
        "topology.apply": apply,
        "topology.check": check,
    }


def _row(letter: DeadLetter) -> dict[str, Any]:
    return {
        "message_id": letter.message_id,
        "queue": letter.queue,
        "reason": letter.reason,
        "error": letter.error,
        "deaths": letter.deaths,
        "timestamp": letter.timestamp,
        "bytes": len(letter.body),
    }
