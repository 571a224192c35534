"""A daemon's life: it becomes ready, drains, survives being killed, and says in one line why it cannot start."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from tests.support.daemon import LIMIT_S, Daemon, bids, finish, run, start
from tests.support.held_bidder import HeldBidder
from tests.support.http import Http, fetch, get, post, request
from tests.support.samples import bid_request, campaign

GOOD = post(msgspec.json.encode(bid_request()))
ENDLESS = ("lab.bidder=true", "lab.bidder_ms=60000", "auction.deadline_ms=60000", "drain.limit_s=60")
NO_TMAX = post(msgspec.json.encode(bid_request(tmax=0)))


def under_way(daemon: Daemon) -> None:
    """Wait until the daemon has taken what was sent to it before: it reads its sockets in the order they filled."""
    assert get(daemon.url, "/healthz").status == 200


def test_ready_line_and_pages(tmp_path: Path) -> None:
    """One line says where everything is; /healthz, /readyz and /metrics agree with it."""
    with Daemon(tmp_path) as daemon:
        assert re.fullmatch(
            r"ready http=http://127\.0\.0\.1:\d+ dashboard=http://127\.0\.0\.1:\d+ admin=rtb\.sock campaigns=0 pid=\d+",
            daemon.ready,
        )
        assert daemon.facts["pid"] == str(daemon.process.pid)
        health = get(daemon.url, "/healthz")
        assert (health.status, health.headers["content-type"]) == (200, "application/json")
        assert msgspec.json.decode(health.body)["pid"] == daemon.process.pid
        daemon.put_campaigns(campaign("a"), campaign("b"))
        ready = get(daemon.url, "/readyz")
        assert ready.status == 200
        assert msgspec.json.decode(ready.body) == {"ready": True, "broker": True, "campaigns": 2}
        assert bids(daemon.auction(bid_request())).seatbid
        assert daemon.auction(bid_request(device={"ua": "Googlebot/2.1"})).status == 204
        metrics = get(daemon.url, "/metrics")
        assert (metrics.status, metrics.headers["content-type"].partition(";")[0]) == (200, "text/plain")
        counted = dict(line.rsplit(" ", 1) for line in metrics.body.decode().splitlines() if line[0] != "#")
        assert counted['rtb_auctions_total{outcome="won"}'] == "1.0"
        assert counted['rtb_auctions_total{outcome="no_bid"}'] == "1.0"
        assert fetch(daemon.dashboard, request("GET", "/", {"host": "localhost"})).status == 200
        assert daemon.out.all() == [daemon.ready]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains(tmp_path: Path, number: signal.Signals) -> None:
    """The auction in flight is answered, its connection closed, nobody new is let in; exit code 0, no socket left."""
    with (
        HeldBidder(tmp_path) as bidder,
        Daemon(tmp_path, *bidder.settings) as daemon,
        Http(daemon.url) as in_flight,
        Http(daemon.url) as idle,
    ):
        daemon.put_campaigns(campaign("shoes"))
        in_flight.send(NO_TMAX)
        bidder.wait()
        daemon.signal(number)
        daemon.err.wait_for(lambda line: "draining" in line and "in_flight=1" in line, LIMIT_S)
        assert idle.is_closed()
        bidder.answer()
        answer = in_flight.receive()
        assert bids(answer).seatbid
        assert answer.headers["connection"] == "close"
        assert in_flight.is_closed()
        with pytest.raises(ConnectionRefusedError):
            Http(daemon.url)
        assert daemon.wait() == 0
        assert not (tmp_path / "rtb.sock").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once(tmp_path: Path, number: signal.Signals) -> None:
    """An auction that would take a minute is not waited for; the exit code tells the signal."""
    with Daemon(tmp_path, *ENDLESS) as daemon, Http(daemon.url) as http:
        http.send(NO_TMAX)
        under_way(daemon)
        daemon.signal(number)
        daemon.err.wait_for(lambda line: "draining" in line, LIMIT_S)
        daemon.signal(number)
        assert daemon.wait() == 128 + number
        assert http.is_closed()


def test_the_drain_has_a_limit(tmp_path: Path) -> None:
    """What is not done by drain.limit_s is given up, and said so."""
    with Daemon(tmp_path, *ENDLESS[:-1], "drain.limit_s=0.2") as daemon, Http(daemon.url) as http:
        http.send(NO_TMAX)
        under_way(daemon)
        assert daemon.stop() == 0
        assert http.is_closed()
        assert "drain_limit_reached" in str(daemon.err)


def test_campaigns_outlive_kill_9(tmp_path: Path) -> None:
    """After kill -9 a new daemon has them with their last changes; the socket that was left behind is replaced."""
    with Daemon(tmp_path) as daemon:
        daemon.put_campaigns(campaign("shoes"), campaign("tea", bid=3.0))
        daemon.admin("campaigns.set-bid", id="shoes", bid=4.0)
        daemon.admin("campaigns.pause", id="tea")
        assert daemon.kill() == -signal.SIGKILL
    assert (tmp_path / "rtb.sock").is_socket()
    with Daemon(tmp_path) as daemon:
        assert daemon.facts["campaigns"] == "2"
        rows = daemon.admin("campaigns.list")["result"]
        assert [(row["id"], row["status"], row["bid"], row["version"]) for row in rows] == [
            ("shoes", "active", 4.0, 2),
            ("tea", "paused", 3.0, 2),
        ]
        assert [seat.seat for seat in bids(daemon.auction(bid_request())).seatbid or ()] == ["shoes-inc"]


def test_the_first_start_needs_no_preparation(tmp_path: Path) -> None:
    """The defaults put their files into var/, which is made."""
    (tmp_path / "rtb.toml").write_text("")
    with Daemon(tmp_path, "http.port=0", "dashboard.port=0") as daemon:
        assert daemon.facts["admin"] == "var/rtb.sock"
        assert (tmp_path / "var" / "rtb.db").is_file()


@contextmanager
def busy_port() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def assert_refused(
    folder: Path, *arguments: str, says: str, then: str, environment: Mapping[str, str] | None = None
) -> None:
    """``rtb`` ends with code 1 and one line that begins with `says` and names the remedy."""
    result = run(folder, *arguments, environment=environment or {})
    assert (result.code, result.out) == (1, ""), result.err
    line, *more = result.err.splitlines()
    assert more == []
    assert line.startswith(f"rtb: {says}")
    assert then in line


@pytest.mark.parametrize("section", ["http", "dashboard"])
def test_a_busy_port(tmp_path: Path, section: str) -> None:
    """Named with its key and with what to do."""
    with busy_port() as port:
        says = f"{section}.port: cannot listen on 127.0.0.1:{port}"
        assert_refused(tmp_path, "serve", "--set", f"{section}.port={port}", says=says, then=f"set {section}.port=0")


def test_a_second_daemon_on_the_same_socket(tmp_path: Path) -> None:
    """It is refused, and the first one goes on unharmed."""
    with Daemon(tmp_path) as daemon:
        says = "admin.socket: a daemon is running on rtb.sock"
        assert_refused(tmp_path, "serve", says=says, then="stop it, or set another admin.socket")
        assert get(daemon.url, "/readyz").status == 200
        assert daemon.admin("campaigns.list") == {"result": []}


@pytest.mark.parametrize(
    ("setting", "says", "then"),
    [
        ("http.prt=1", "--set http.prt: http.prt: unknown key", "did you mean http.port?"),
        ("http.port=abc", "--set http.port: http.port: expected `int`", "got `str`"),
        ("http.port=80001", "--set http.port: http.port: expected `int` <= 65535", ""),
        ("http", "--set http: write it as section.key=value", "for example http.port=0"),
        ("http.host=192.0.2.1", "http.port: cannot listen on 192.0.2.1:0", "address"),
        ("dashboard.host=0.0.0.0", "dashboard: host '0.0.0.0' is reachable", "allow them on 127.0.0.1 only"),
        ("auction.minimum_ms=30000", "--set auction.minimum_ms: auction.minimum_ms", "less than auction.deadline_ms"),
        ("store.url=sqlite:///rtb.toml/rtb.db", "store.url: cannot make directory rtb.toml", "set another store.url"),
        ("store.url=sqlite:///rtb.toml", "database ", "is not a SQLite database; give another path"),
        ("store.url=sqlite:///.", "database ", "cannot be opened; check the path"),
        ("store.url=mysql://db", "--set store.url: store.url", "sqlite"),
        ("admin.socket=rtb.toml", "admin.socket: cannot listen on rtb.toml", "set another admin.socket"),
        ("admin.socket=rtb.toml/a", "admin.socket: cannot listen on rtb.toml/a", "set another admin.socket"),
        (f"admin.socket={'a' * 120}", "admin.socket: cannot listen on aaa", "set another admin.socket"),
    ],
)
def test_a_setting_that_cannot_be(tmp_path: Path, setting: str, says: str, then: str) -> None:
    """The line names the setting, what is wrong with it, and what would be right; nothing is destroyed."""
    assert_refused(tmp_path, "serve", "--set", setting, says=says, then=then)
    assert "[http]" in (tmp_path / "rtb.toml").read_text()


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("RTB_HTTP__PORT", "abc", "environment RTB_HTTP__PORT: http.port: expected `int`"),
        ("RTB_HTTP__PRT", "1", "environment RTB_HTTP__PRT: http.prt: unknown key; did you mean http.port?"),
        ("RTB_CONFIG", "none.toml", "none.toml: no such file"),
    ],
)
def test_a_variable_that_cannot_be(tmp_path: Path, name: str, text: str, says: str) -> None:
    """The line names the variable."""
    assert_refused(tmp_path, "serve", says=says, then="", environment={name: text})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[http]\nport = 0\nprt = 1\n", "rtb.toml: http.prt: unknown key; did you mean http.port?"),
        ("port = 0\n", "rtb.toml: port: unknown key outside a section; did you mean http.port?"),
        ("[http]\nport = 'x'\n", "rtb.toml: http.port: expected `int`, got `str`"),
        ("[http\n", "rtb.toml: not TOML"),
    ],
)
def test_a_file_that_cannot_be(tmp_path: Path, text: str, says: str) -> None:
    """The line names the file and the key."""
    (tmp_path / "rtb.toml").write_text(text)
    assert_refused(tmp_path, "serve", says=says, then="")


def test_a_signal_while_it_starts_ends_it_cleanly(tmp_path: Path) -> None:
    """Sent when the store file appears, in the middle of the start: no traceback, whatever part had begun."""
    process = start(tmp_path, "serve")
    while not (tmp_path / "rtb.db").exists():
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.02)
    process.send_signal(signal.SIGTERM)
    result = finish(process)
    assert "Traceback" not in result.err
    assert result.code == 0


def test_pages_say_not_ready_while_draining(tmp_path: Path) -> None:
    """A keep-alive connection with an auction under way learns it by the close after its answer; /readyz of one that
    is pipelined behind it is not asked any more."""
    with HeldBidder(tmp_path) as bidder, Daemon(tmp_path, *bidder.settings) as daemon, Http(daemon.url) as http:
        daemon.put_campaigns(campaign("shoes"))
        http.send(NO_TMAX)
        bidder.wait()
        daemon.signal(signal.SIGTERM)
        daemon.err.wait_for(lambda line: "draining" in line, LIMIT_S)
        http.send_as_far_as_it_goes(request("GET", "/readyz", {"host": "exchange.test"}))
        bidder.answer()
        assert http.receive().status == 200
