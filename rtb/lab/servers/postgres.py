"""A private PostgreSQL in a folder of its own, on a free port and a Unix socket."""

from __future__ import annotations

import grp
import os
import pwd
import secrets
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import psutil  # type: ignore[import-untyped]

from rtb.lab.servers.certificates import Certificates
from rtb.lab.servers.process import ServerFailed, ServerProcess, free_port

USER = "rtb"
DATABASE = "rtb"
SYSTEM_USER = "postgres"  # whom PostgreSQL runs as when we are root, whom it refuses
SOCKET_PATH_LIMIT = 107  # bytes of a Unix socket's path
SETUP_LIMIT_S = 120.0
PROBE_LIMIT_S = 20.0


class PostgresServer:
    """A cluster with one superuser and one database, both named rtb; `folder` keeps data, password, socket and log.

    A folder that was used before is used again. With `durable` off a commit does not wait for the disk: it survives
    the server's death, not the machine's. When we are root it runs as user postgres, who must be able to reach the
    folder.
    """

    def __init__(self, folder: Path, *, durable: bool = True, certificates: Certificates | None = None) -> None:
        """Describe it; `start` makes what is missing and runs it. With `certificates` it speaks TLS to who asks."""
        self.folder = folder.absolute()
        self.port = 0
        self._durable = durable
        self._certificates = certificates
        self._password = ""
        self._process: _Postmaster | None = None

    @property
    def url(self) -> str:
        """Of its database, over TCP."""
        return self.url_of(DATABASE)

    def url_of(self, database: str) -> str:
        """Of another database in it, over TCP."""
        return f"postgresql://{USER}:{quote(self._password, safe='')}@127.0.0.1:{self.port}/{quote(database, safe='')}"

    @property
    def pid(self) -> int:
        """Of the running postmaster."""
        assert self._process is not None, "PostgreSQL was not started"
        return self._process.pid

    def start(self) -> None:
        """Run it and return once it takes connections.

        Raises:
            ServerFailed: it is not installed, cannot reach the folder, or does not come up.
        """
        binaries = _binaries()
        if not (self.folder / "data" / "PG_VERSION").exists():
            self._make(binaries)
        self._password = (self.folder / "password").read_text()
        self.port = self.port or free_port()
        ready = [str(binaries / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port), "-t", "5"]
        command = [*_as_system_user(), str(binaries / "postgres"), "-D", str(self.folder / "data"), *self._settings()]
        self._process = _Postmaster("postgres", command, self.folder, {})
        self._process.start(lambda: _says_yes(ready))

    def stop(self) -> None:
        """End it in order, without waiting for its clients; their transactions are undone."""
        if self._process is not None:
            self._process.stop(signal.SIGINT)

    def kill(self) -> None:
        """SIGKILL all of its processes, at once."""
        if self._process is not None:
            self._process.kill()

    def restart(self) -> None:
        """Stop in order and start again, on the same port."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """SIGSTOP all of its processes: connections stay open and nothing answers."""
        assert self._process is not None, "PostgreSQL was not started"
        self._process.pause()

    def resume(self) -> None:
        """SIGCONT."""
        assert self._process is not None, "PostgreSQL was not started"
        self._process.resume()

    def _make(self, binaries: Path) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        password = self.folder / "password"
        password.touch(mode=0o600)
        password.write_text(secrets.token_urlsafe(16))
        if os.geteuid() == 0:
            for path in (self.folder, password):
                shutil.chown(path, SYSTEM_USER, SYSTEM_USER)
        data = str(self.folder / "data")
        options = ["-U", USER, f"--pwfile={password}", "--auth=scram-sha-256", "--encoding=UTF8", "--no-locale"]
        self._run([str(binaries / "initdb"), "-D", data, *options, *([] if self._durable else ["--no-sync"])])
        alone = [str(binaries / "postgres"), "--single", "-D", data, "postgres"]
        self._run(alone, f"CREATE DATABASE {DATABASE}\n")

    def _settings(self) -> list[str]:
        socket = str(self.folder)
        if len(f"{socket}/.s.PGSQL.{self.port}") > SOCKET_PATH_LIMIT:
            socket = ""
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": socket,
            "shared_buffers": "64MB",
            "max_connections": "100",
        }
        if self._certificates is not None:
            key = shutil.copy(self._certificates.key, self.folder / "server.key")  # nobody else may read it
            certificate = shutil.copy(self._certificates.certificate, self.folder / "server.pem")
            if os.geteuid() == 0:
                shutil.chown(key, SYSTEM_USER, SYSTEM_USER)
                shutil.chown(certificate, SYSTEM_USER, SYSTEM_USER)
            settings |= {"ssl": "on", "ssl_cert_file": str(certificate), "ssl_key_file": str(key)}
        if not self._durable:
            settings |= {"fsync": "off", "full_page_writes": "off"}
        return [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]

    def _run(self, command: Sequence[str], stdin: str = "") -> None:
        try:
            done = subprocess.run(
                [*_as_system_user(), *command],
                input=stdin,
                capture_output=True,
                text=True,
                cwd=self.folder,
                timeout=SETUP_LIMIT_S,
                check=False,
            )
            words = (
                " ".join((done.stderr or done.stdout or "it said nothing").split())[-400:] if done.returncode else ""
            )
        except subprocess.TimeoutExpired:
            words = f"{Path(command[0]).name} takes more than {SETUP_LIMIT_S:g} s"
        if words:
            shutil.rmtree(self.folder / "data", ignore_errors=True)
            raise ServerFailed(f"PostgreSQL cannot be set up in {self.folder}: {words}")


class _Postmaster(ServerProcess):
    """Its children lead process groups of their own, so a signal goes to each of them."""

    def _signal_all(self, number: signal.Signals) -> None:
        try:
            postmaster = psutil.Process(self.pid)
            if number != signal.SIGCONT:
                postmaster.suspend()  # from now on it forks nobody
            for process in (*postmaster.children(recursive=True), postmaster):
                process.send_signal(number)
        except psutil.NoSuchProcess:
            pass


def _says_yes(command: Sequence[str]) -> bool:
    try:
        return subprocess.run(command, check=False, timeout=PROBE_LIMIT_S).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def _binaries() -> Path:
    """The newest installation's, else those on the PATH."""
    installed = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/postgres")]
    if installed:
        return max(installed, key=lambda path: float(path.parent.name))
    found = shutil.which("postgres")
    if found is None:
        raise ServerFailed("PostgreSQL is not installed; on Debian: apt-get install postgresql")
    return Path(found).resolve().parent


def _as_system_user() -> list[str]:
    if os.geteuid() != 0:
        return []
    try:
        user, group = pwd.getpwnam(SYSTEM_USER), grp.getgrnam(SYSTEM_USER)
    except KeyError:
        raise ServerFailed(f"PostgreSQL refuses to run as root and there is no user {SYSTEM_USER}") from None
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={group.gr_gid}", "--clear-groups", "--"]
