"""``scripts/services``: servers of one's own, started, found and stopped."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from rtb.lab.servers.process import accepts
from tests.support.daemon import ROOT


def services(folder: Path, command: str) -> subprocess.CompletedProcess[str]:
    """What the script runs, for servers in `folder`."""
    return subprocess.run(
        [sys.executable, "-m", "rtb.lab.servers", "--folder", str(folder), command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )


def test_servers_run_until_they_are_stopped() -> None:
    """``start`` prints four URLs that answer and stand in files; ``stop`` leaves nothing running."""
    with tempfile.TemporaryDirectory(prefix="rtb-services-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # PostgreSQL runs as another user when we are root
        assert services(folder, "status").returncode == 1
        try:
            started = services(folder, "start")
            assert started.returncode == 0, started
            urls = dict(line.split() for line in started.stdout.splitlines())
            assert list(urls) == ["broker", "management", "state", "store"]
            ports = [urlsplit(url).port or 0 for url in urls.values()]
            assert all(map(accepts, ports))
            assert {path.name: path.read_text().strip() for path in folder.glob("*.url")} == {
                f"{name}.url": url for name, url in urls.items()
            }
            assert services(folder, "start").stdout == started.stdout
            assert services(folder, "status").stdout == started.stdout
        finally:
            stopped = services(folder, "stop")
        assert stopped.stdout == "stopped\n"
        assert not any(map(accepts, ports))
        assert services(folder, "status").returncode == 1
