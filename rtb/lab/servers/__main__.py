"""``scripts/services``: RabbitMQ, Redis and PostgreSQL of our own, kept by one process until it is told to stop.

The keeper writes each server's URL into a file of its folder (``broker.url``, ``state.url`` ...), which
config/production.toml names. Data of RabbitMQ and PostgreSQL stay in the folder for the next start.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import click
import psutil  # type: ignore[import-untyped]

from rtb.errors import RtbError
from rtb.lab.servers.postgres import PostgresServer
from rtb.lab.servers.process import accepts
from rtb.lab.servers.rabbitmq import RabbitServer
from rtb.lab.servers.redis import RedisServer

URLS = ("broker", "management", "state", "store")
PIDS = "pids"
START_LIMIT_S = 240.0
STOP_LIMIT_S = 60.0


@click.group()
@click.option("--folder", type=click.Path(path_type=Path), default=Path("var/services"), show_default=True)
@click.pass_context
def main(context: click.Context, folder: Path) -> None:
    """RabbitMQ, Redis and PostgreSQL of our own on free ports."""
    context.obj = folder


@main.command()
@click.pass_obj
def start(folder: Path) -> None:
    """Start them, unless they run, and print their URLs."""
    if not _keeper(folder):
        _end(_pids(folder))
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "keeper.log").open("ab") as log:
            keeper = subprocess.Popen(
                [sys.executable, "-m", "rtb.lab.servers", "--folder", str(folder), "keep"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        give_up = time.monotonic() + START_LIMIT_S
        while not _keeper(folder):
            if keeper.poll() is not None or time.monotonic() > give_up:
                lines = (folder / "keeper.log").read_text(errors="replace").splitlines()
                raise click.ClickException(lines[-1] if lines else "the servers did not start")
            time.sleep(0.1)
    _print(folder)


@main.command()
@click.pass_obj
def stop(folder: Path) -> None:
    """Stop them; their data stay."""
    if not _pids(folder):
        click.echo("not running")
        return
    _end(_pids(folder)[:1])  # the keeper stops its servers
    _end(_pids(folder))  # and what a killed keeper left behind
    _forget(folder)
    click.echo("stopped")


@main.command()
@click.pass_obj
def status(folder: Path) -> None:
    """Print their URLs; exit code 1 when they do not run."""
    if not _keeper(folder):
        click.echo("not running")
        sys.exit(1)
    _print(folder)


@main.command(hidden=True)
@click.pass_obj
def keep(folder: Path) -> None:
    """Run them in the foreground until SIGTERM."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    with ExitStack() as stack:
        rabbitmq = RabbitServer(folder.absolute(), management=True, port=_port(folder))
        redis = RedisServer(folder.absolute() / "redis")
        postgres = PostgresServer(folder.absolute() / "postgres")
        (folder / "redis").mkdir(exist_ok=True)
        for server in (redis, postgres, rabbitmq):
            stack.callback(server.stop)
            try:
                server.start()
            except RtbError as error:
                click.echo(str(error))
                sys.exit(1)
        me = psutil.Process()
        pids = [me.pid, *(child.pid for child in me.children(recursive=True))]
        urls = (rabbitmq.url, rabbitmq.management_url, redis.url, postgres.url)
        stack.callback(_forget, folder)
        for name, url in zip(URLS, urls, strict=True):
            path = folder / f"{name}.url"
            path.touch(mode=0o600)
            path.write_text(f"{url}\n")
        (folder / PIDS).write_text(" ".join(str(pid) for pid in pids))
        while True:
            signal.pause()


def _port(folder: Path) -> int | None:
    """RabbitMQ's of the last time, which its data go by; None when there was none or somebody has taken it."""
    found = [int(path.name.removeprefix("rabbitmq-")) for path in folder.glob("rabbitmq-*")]
    return next((port for port in found if not accepts(port)), None)


def _print(folder: Path) -> None:
    for name in URLS:
        click.echo(f"{name:<11}{(folder / f'{name}.url').read_text().strip()}")


def _pids(folder: Path) -> list[int]:
    """The keeper's, then the servers'; none when they were stopped."""
    try:
        return [int(word) for word in (folder / PIDS).read_text().split()]
    except FileNotFoundError:
        return []


def _keeper(folder: Path) -> bool:
    """Whether the keeper runs (its pid may be another program's by now)."""
    pids = _pids(folder)
    try:
        return bool(pids) and "keep" in psutil.Process(pids[0]).cmdline()
    except psutil.Error:
        return False


def _end(pids: list[int]) -> None:
    """SIGTERM to those that are ours, and wait."""
    ours = []
    for pid in pids:
        try:
            process = psutil.Process(pid)
            if any(word in " ".join(process.cmdline()) for word in ("keep", "rabbitmq", "epmd", "redis", "postgres")):
                process.terminate()
                ours.append(process)
        except psutil.Error:
            pass
    psutil.wait_procs(ours, STOP_LIMIT_S)


def _forget(folder: Path) -> None:
    """What is of this run only: where the servers are, and Redis' files."""
    for name in (PIDS, *(f"{name}.url" for name in URLS)):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / "redis", ignore_errors=True)


if __name__ == "__main__":
    main()
