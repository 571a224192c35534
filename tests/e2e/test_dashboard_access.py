"""Who may use the dashboard of a daemon: the token of the first start, further ones, and nobody else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from tests.support.daemon import Daemon, run
from tests.support.http import Response, fetch, request

SHOWN = "dashboard token (shown this once): "


def ask(daemon: Daemon, method: str, path: str, token: str = "", body: Any = None) -> Response:
    headers = {"host": "localhost", "authorization": f"Bearer {token}"} if token else {"host": "localhost"}
    content = b"" if body is None else msgspec.json.encode(body)
    if body is not None:
        headers |= {"content-type": "application/json", "content-length": str(len(content))}
    return fetch(daemon.dashboard, request(method, path, headers) + content)


def test_the_token_of_the_first_start_opens_the_dashboard(tmp_path: Path) -> None:
    """It is shown once; without it there is the login page for people and 401 for programs."""
    with Daemon(tmp_path, "dashboard.open_on_loopback=false") as daemon:
        [line] = [line for line in daemon.err.all() if SHOWN in line]
        token = line.removeprefix(SHOWN)
        assert ask(daemon, "GET", "/api/metrics").status == 401
        assert ask(daemon, "GET", "/api/metrics", "guessed").status == 401
        assert ask(daemon, "GET", "/").headers["location"] == "/login"
        assert ask(daemon, "GET", "/api/metrics", token).status == 200
        missing = ask(daemon, "PATCH", "/api/campaigns/none", token, {"status": "paused"})
        assert missing.status == 404
        assert msgspec.json.decode(missing.body)["error"].startswith("campaign 'none': unknown")
    made = run(tmp_path, "dashboard", "token", "wall-screen")
    assert made.code == 0
    with Daemon(tmp_path, "dashboard.open_on_loopback=false") as daemon:
        assert not [line for line in daemon.err.all() if SHOWN in line]
        assert ask(daemon, "GET", "/api/metrics", token).status == 200
        viewer = made.out.strip()
        assert ask(daemon, "GET", "/api/metrics", viewer).status == 200
        assert ask(daemon, "PATCH", "/api/campaigns/none", viewer, {"status": "paused"}).status == 403


def test_the_world_may_log_in_but_never_walk_in(tmp_path: Path) -> None:
    """Every address takes a token file; without a token in it the start is refused, on one line."""
    with Daemon(tmp_path, "dashboard.open_on_loopback=false", "dashboard.host=0.0.0.0") as daemon:
        daemon.facts["dashboard"] = daemon.facts["dashboard"].replace("0.0.0.0", "127.0.0.1")
        assert ask(daemon, "GET", "/api/metrics").status == 401
    tokens = tmp_path / "var" / "dashboard.tokens"
    tokens.write_text("".join(line for line in tokens.read_text().splitlines(True) if line.startswith("session")))
    refused = run(tmp_path, "serve", "--set", "dashboard.open_on_loopback=false", "--set", "dashboard.host=0.0.0.0")
    assert (refused.code, refused.err.splitlines()[-1]) == (
        1,
        "rtb: dashboard: host '0.0.0.0' is reachable from outside, and there is no token; set dashboard.token_file, "
        "or bind it to 127.0.0.1",
    )
