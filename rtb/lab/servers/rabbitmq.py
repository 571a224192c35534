"""A private RabbitMQ node: its own name, folder, ports and epmd, so that nothing of it is shared or left running."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from rtb.lab.servers.certificates import Certificates
from rtb.lab.servers.process import ServerFailed, ServerProcess, accepts, free_port

SCRIPTS = Path("/usr/lib/rabbitmq/bin")
"""Where Debian's rabbitmq-server package keeps the scripts that run as whoever calls them."""

CONTROL_LIMIT_S = 120.0
WATERMARK = "0.6"


class RabbitServer:
    """One node on 127.0.0.1; its ports stay the same over restarts, and so does what is durable.

    Synchronous, as ServerProcess is: inside a running loop use `asyncio.to_thread`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        management: bool = False,
        port: int | None = None,
        certificates: Certificates | None = None,
    ) -> None:
        """Describe a node that keeps its files in `folder`. With `management` the plugin's API is served, too; with
        `certificates` it speaks TLS, too, on a port of its own."""
        self.port = free_port() if port is None else port
        self.tls_port = free_port() if certificates is not None else None
        self._certificates = certificates
        self.management_port = free_port() if management else None
        self._folder = folder / f"rabbitmq-{self.port}"
        self._node = f"rtb-{self.port}@localhost"  # unique here, and the same when the same files are used again
        self._epmd_port = free_port()
        environment = self._environment()
        self._process = ServerProcess("rabbitmq", [str(SCRIPTS / "rabbitmq-server")], folder, environment)
        self._epmd = ServerProcess("epmd", ["epmd", "-port", str(self._epmd_port)], folder, environment)

    @property
    def url(self) -> str:
        """Where a client connects, as the default administrator: virtual host ``/``."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    @property
    def tls_url(self) -> str:
        """The same over TLS, without an authority; only with `certificates`."""
        assert self.tls_port is not None, "this node was started without certificates"
        return f"amqps://guest:guest@127.0.0.1:{self.tls_port}/"

    @property
    def management_url(self) -> str:
        """Base of the management API, with credentials; only with `management`."""
        assert self.management_port is not None, "this node was started without the management plugin"
        return f"http://guest:guest@127.0.0.1:{self.management_port}/api"

    @property
    def pid(self) -> int:
        """Of the running node."""
        return self._process.pid

    def start(self) -> None:
        """Run it, and return once it accepts connections; after `kill`, with what it had on disk.

        Raises:
            ServerFailed: it is not installed, or did not come up.
        """
        if not is_installed():
            raise ServerFailed("no rabbitmq-server on this machine: apt-get install rabbitmq-server")
        self._configure()
        if not accepts(self._epmd_port):
            self._epmd.start(lambda: accepts(self._epmd_port))
        try:
            self._process.start(self._answers)
        except ServerFailed:
            self._epmd.kill()
            raise

    def stop(self) -> None:
        """End it in order, and its epmd."""
        try:
            self._process.stop()
        finally:
            self._epmd.kill()

    def kill(self) -> None:
        """SIGKILL the node; `start` it again, or `stop` to end its epmd, too."""
        self._process.kill()

    def pause(self) -> None:
        """SIGSTOP: connections stay open and nothing answers."""
        self._process.pause()

    def resume(self) -> None:
        """SIGCONT."""
        self._process.resume()

    def add_vhost(self, name: str) -> str:
        """Make a virtual host, empty and apart from the others; its URL. Takes some seconds."""
        self.control("add_vhost", name)
        self.control("set_permissions", "-p", name, "guest", ".*", ".*", ".*")
        return f"{self.url}{name}"

    def raise_memory_alarm(self) -> None:
        """From now on connections that publish are blocked."""
        self.control("set_vm_memory_high_watermark", "0.00001")

    def clear_memory_alarm(self) -> None:
        """Let publishers go on."""
        self.control("set_vm_memory_high_watermark", WATERMARK)

    def control(self, *words: str) -> str:
        """What ``rabbitmqctl`` prints.

        Raises:
            ServerFailed: it failed, or took too long.
        """
        try:
            done = subprocess.run(
                [str(SCRIPTS / "rabbitmqctl"), "--quiet", "--node", self._node, *words],
                cwd=self._process.folder,
                env=self._process.environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=CONTROL_LIMIT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ServerFailed(f"rabbitmqctl {words[0]} took more than {CONTROL_LIMIT_S:.0f} s") from None
        if done.returncode:
            raise ServerFailed(f"rabbitmqctl {words[0]}: {' '.join((done.stderr or done.stdout).split())[-300:]}")
        return done.stdout

    def _answers(self) -> bool:
        return all(accepts(port) for port in (self.port, self.tls_port, self.management_port) if port is not None)

    def _configure(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        lines = [
            f"listeners.tcp.local = 127.0.0.1:{self.port}",
            "log.console = true",
            "log.console.level = warning",
            "log.file = false",
            f"vm_memory_high_watermark.relative = {WATERMARK}",
            "disk_free_limit.absolute = 50MB",
        ]
        if self._certificates is not None:
            lines += [
                f"listeners.ssl.local = 127.0.0.1:{self.tls_port}",
                f"ssl_options.cacertfile = {self._certificates.authority}",
                f"ssl_options.certfile = {self._certificates.certificate}",
                f"ssl_options.keyfile = {self._certificates.key}",
                "ssl_options.verify = verify_none",
            ]
        plugins = "[]."
        if self.management_port is not None:
            plugins = "[rabbitmq_management]."
            lines += [
                "management.tcp.ip = 127.0.0.1",
                f"management.tcp.port = {self.management_port}",
                "collect_statistics_interval = 1000",
            ]
        (self._folder / "rabbitmq.conf").write_text("\n".join([*lines, ""]))
        (self._folder / "enabled_plugins").write_text(f"{plugins}\n")

    def _environment(self) -> dict[str, str]:
        inherited = {name: "" for name in os.environ if name.startswith("RABBITMQ_")}
        return {
            **inherited,
            "HOME": str(self._folder),  # of the Erlang cookie
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_CRASH_DUMP": os.devnull,
            "RUNNING_UNDER_SYSTEMD": "true",  # the launcher becomes the node, so that signals reach it
            "RABBITMQ_NODENAME": self._node,
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_CONF_ENV_FILE": os.devnull,
            "RABBITMQ_CONFIG_FILE": str(self._folder / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._folder / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(self._folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self._folder / "log"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(self._folder / "config"),
        }


def is_installed() -> bool:
    """Whether this machine has RabbitMQ."""
    return (SCRIPTS / "rabbitmq-server").exists()
