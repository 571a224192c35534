"""Admin commands: run by the daemon over its local socket, or on its store when none runs."""

from __future__ import annotations

import http.client
import os
import socket
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import click
import msgspec

from rtb.cli.options import load
from rtb.cli.output import log_to_stderr
from rtb.config import MEMORY, Settings
from rtb.errors import AdminError

ANSWER_LIMIT_S = 300.0
"""How long a command waits for the daemon, which may be writing a million campaigns."""

AUDIT = "audit"
STATS = "campaigns.stats"
START = "start one, or set admin.socket to that of the one that runs"
ON_DAEMON = "bidders."
ON_BROKER = ("dead-letters.", "topology.", "queues")


def command(context: click.Context, name: str, **arguments: Any) -> Any:
    """Run an admin command on the running daemon, or on the store when none runs.

    Only a socket that nobody listens on means that none runs: a daemon that cannot be reached would not see the change.
    """
    settings = load(context, None, ())
    given = {key: value for key, value in arguments.items() if value is not None}
    path = Path(settings.admin.socket)
    with socket.socket(socket.AF_UNIX) as connected:
        try:
            connected.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            pass  # not running, or killed and its socket left behind
        except OSError as error:
            raise AdminError(f"admin.socket {path}: cannot be reached: {error.strerror or error}") from None
        else:
            return _ask(connected, path, name, given)
    import uvloop

    return uvloop.run(_offline(settings, name, given))


def _ask(connected: socket.socket, path: Path, name: str, arguments: dict[str, Any]) -> Any:
    """The same command on the running daemon, which alone may change what it serves."""
    connected.settimeout(ANSWER_LIMIT_S)
    connection = http.client.HTTPConnection("rtb")
    connection.sock = connected
    try:
        connection.request("POST", f"/{name}", msgspec.json.encode(arguments))
        body = msgspec.json.decode(connection.getresponse().read(), type=dict[str, Any])
    except (OSError, http.client.HTTPException, msgspec.MsgspecError) as error:
        raise AdminError(f"admin.socket {path}: the daemon did not answer: {error}") from None
    if "error" in body:
        raise AdminError(body["error"])
    return body["result"]


async def _offline(settings: Settings, name: str, arguments: dict[str, Any]) -> Any:
    """The same command on parts of our own, over the same store or broker."""
    from rtb import daemon, wiring

    _refuse_without_daemon(settings, name)
    log_to_stderr(settings, level="warning")
    async with AsyncExitStack() as stack:
        if name.startswith(ON_BROKER):
            system = wiring.build(settings, os.getpid())
            stack.push_async_callback(system.broker.close)
            if system.outside.management is not None:
                stack.push_async_callback(system.outside.management.close)
            await system.broker.start()
        else:
            daemon.make_store_folder(settings)
            system = wiring.build(settings, os.getpid())
            stack.push_async_callback(system.outside.state.close)
            stack.push_async_callback(system.money.accounts.close)
            stack.push_async_callback(system.profiles.close)
            stack.push_async_callback(system.outside.repository.close)
            await system.outside.repository.start()
            stack.push_async_callback(system.recorder.stop)
            stack.push_async_callback(system.elsewhere.stop)
            await system.catalogue.load()
            if name == STATS:
                stack.push_async_callback(system.told.performance.stop)
                await system.told.performance.start()
        return await system.admin.run(name, arguments)


def _refuse_without_daemon(settings: Settings, name: str) -> None:
    """AdminError of a command that asks for what a daemon alone has in its memory."""
    if name.startswith(ON_DAEMON):
        why = ""
    elif name.startswith(ON_BROKER) and settings.broker.url == MEMORY:
        why = f", and the broker of broker.url {MEMORY} ends with its daemon"
    elif name == AUDIT and settings.state.url == MEMORY:
        why = f", and the accounts of state.url {MEMORY} end with their daemon"
    else:
        return
    raise AdminError(f"no daemon runs on admin.socket {settings.admin.socket}{why}; {START}")
