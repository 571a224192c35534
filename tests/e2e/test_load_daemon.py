"""The load script against a real daemon: over HTTP and over the embedded queue its accounts balance."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from rtb.lab.load.plan import Report
from tests.support.daemon import ROOT, Daemon, run
from tests.support.production import Production

SHORT = ("--duration", "2", "--warmup", "0.5", "--rate", "200", "--users", "200", "--unique", "200")
LENIENT = ("--max-lag-ms", "60000", "--give-up-ms", "60000")  # a busy machine is not what this is about


@pytest.fixture
def daemon(tmp_path: Path) -> Daemon:
    """A daemon with the demo campaigns."""
    daemon = Daemon(tmp_path)
    assert daemon.run("campaigns", "import", str(ROOT / "config" / "campaigns.json")).code == 0
    return daemon


@pytest.mark.parametrize("body", ["1k", "3.5k"])
def test_accounts_balance_over_http(daemon: Daemon, body: str) -> None:
    """Every request sent is one of won, no-bid, timeout, shed, error, lost, and the daemon counted the same answers."""
    with daemon:
        url = f"{daemon.url}/openrtb2/auction"
        done = daemon.run("load", "--url", url, "--body", body, "--json", "report.json", *SHORT, *LENIENT)
        result = msgspec.json.decode((daemon.folder / "report.json").read_bytes(), type=Report).result
        assert done.code == 0, done
        assert result.sent == 400
        assert result.sent == result.won + result.no_bid + result.timeout + result.shed + result.error + result.lost
        assert result.error == result.lost == 0
        assert result.won > 0
        assert result.server is not None
        assert result.server.pid == int(daemon.facts["pid"])


@pytest.mark.parametrize("body", ["house", "1k"])
def test_accounts_balance_over_the_queue(daemon: Daemon, body: str) -> None:
    """The same over ``bid.requests``, for the house format and for OpenRTB."""
    with daemon:
        socket = daemon.facts["admin"]
        done = daemon.run("load", "--queue", socket, "--body", body, "--json", "report.json", *SHORT, *LENIENT)
        result = msgspec.json.decode((daemon.folder / "report.json").read_bytes(), type=Report).result
        assert done.code == 0, done
        assert result.sent == 400
        assert result.sent == result.won + result.no_bid + result.timeout + result.shed + result.error + result.lost
        assert result.error == result.lost == 0
        assert result.won > 0


def test_no_daemon_is_one_line(tmp_path: Path) -> None:
    """Without a daemon the script says so, names the place, and exits with 1."""
    done = run(tmp_path, "load", "--queue", "nowhere.sock", "--rate", "1", "--duration", "1")
    assert done.code == 1
    assert len(done.err.splitlines()) == 1
    assert "nowhere.sock" in done.err


def test_accounts_balance_over_rabbitmq(tmp_path: Path, production: Production) -> None:
    """The same over a RabbitMQ, from the tool's own process; and without a broker one line."""
    with Daemon(tmp_path, *production.settings()) as daemon:
        assert daemon.run("campaigns", "import", str(ROOT / "config" / "campaigns.json")).code == 0
        done = daemon.run("load", "--broker", production.broker, "--json", "report.json", *SHORT, *LENIENT)
        result = msgspec.json.decode((tmp_path / "report.json").read_bytes(), type=Report).result
        assert done.code == 0, done
        assert result.sent == 400
        assert result.sent == result.won + result.no_bid + result.timeout + result.shed + result.error + result.lost
        assert result.error == result.lost == 0
        assert result.won > 0
    refused = run(tmp_path, "load", "--broker", "amqp://guest:guest@127.0.0.1:1/", "--rate", "1")
    assert refused.code == 1
    assert len(refused.err.splitlines()) == 1
