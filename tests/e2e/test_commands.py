"""The commands, on a running daemon and on its store when none runs."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rtb.config import Settings, flatten
from rtb.wiring import resource
from tests.support.daemon import LIMIT_S, Daemon, Result, bids, finish, run, short_address, start
from tests.support.samples import bid_request, campaign


@pytest.fixture(scope="module")
def one_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """Without campaigns."""
    with Daemon(tmp_path_factory.mktemp("commands")) as daemon:
        yield daemon


@pytest.fixture
def daemon(one_daemon: Daemon) -> Daemon:
    """With "shoes" at 2.00 CPM and "tea" at 3.00, both active."""
    one_daemon.put_campaigns(campaign("shoes"), campaign("tea", bid=3.0))
    return one_daemon


def file(*campaigns: dict[str, Any]) -> bytes:
    """A campaign file."""
    return msgspec.json.encode({"campaigns": campaigns})


def won(daemon: Daemon) -> tuple[str, float] | None:
    """The campaign that wins the next auction over HTTP and what it pays; None when nobody does."""
    response = daemon.auction(bid_request())
    if response.status == 204:
        return None
    [seat] = bids(response).seatbid or ()
    [bid] = seat.bid or ()
    return bid.cid or "", bid.price or 0.0


def test_import_replaces_and_inserts(daemon: Daemon) -> None:
    """From a file or stdin, an array or an object with "campaigns"; the next auction knows them."""
    imported = daemon.run("campaigns", "import", "-", given=file(campaign("shoes", bid=4.0), campaign("pens", bid=3.5)))
    assert imported == Result(0, "2 campaigns written\n", "")
    assert won(daemon) == ("shoes", 3.51)
    (daemon.folder / "list.json").write_bytes(msgspec.json.encode([campaign("pens", status="ended")]))
    assert daemon.run("campaigns", "import", "list.json") == Result(0, "1 campaigns written\n", "")
    assert won(daemon) == ("shoes", 3.01)


def test_a_pause_and_a_bid_count_from_the_next_auction_on(daemon: Daemon) -> None:
    """Second price: the winner pays a cent above the other's bid, and the floor of 0.50 when it is alone."""
    assert won(daemon) == ("tea", 2.01)
    raised = daemon.run("campaigns", "set-bid", "shoes", "3.5")
    assert (raised.code, raised.err) == (0, "")
    assert re.fullmatch(r"shoes: active, bid 3\.5 cpm, version \d+\n", raised.out)
    assert won(daemon) == ("shoes", 3.01)
    paused = daemon.run("campaigns", "pause", "tea")
    assert re.fullmatch(r"tea: paused, bid 3 cpm, version \d+\n", paused.out)
    assert won(daemon) == ("shoes", 0.5)
    daemon.run("campaigns", "pause", "shoes")
    assert won(daemon) is None
    assert daemon.run("campaigns", "resume", "tea").code == 0
    assert won(daemon) == ("tea", 0.5)


def test_list_and_show(daemon: Daemon) -> None:
    """A table for people, JSON for programs, by status if wanted."""
    daemon.admin("campaigns.pause", id="tea")
    daemon.put_campaigns(campaign("pens", status="ended"))
    table = daemon.run("campaigns", "list").out.splitlines()
    assert table[0].split() == [
        "ID", "ADVERTISER", "STATUS", "FUNDED", "PRICING", "BID", "ECPM", "DAILY_BUDGET", "SPENT_TODAY", "HELD",
    ]  # fmt: skip
    assert [line.split()[:3:2] for line in table[1:]] == [["pens", "ended"], ["shoes", "active"], ["tea", "paused"]]
    assert table[2].split() == ["shoes", "shoes-inc", "active", "yes", "cpm", "2", "2", "-", "-", "-"]
    paused = daemon.run("campaigns", "list", "--status", "paused", "--json").json()
    assert [row["id"] for row in paused] == ["tea"]
    assert len(daemon.run("campaigns", "list", "--limit", "1", "--json").json()) == 1
    shown = daemon.run("campaigns", "show", "shoes").json()
    assert shown["campaign"]["creatives"][0]["adm"] == "<b>shoes</b>"


def test_what_was_spent_is_listed(daemon: Daemon) -> None:
    """One impression at 2.01 CPM is 0.00201: held for the win, and spent once it was shown."""
    daemon.put_campaigns(campaign("tea", bid=3.0, daily_budget=1.0))
    assert won(daemon) == ("tea", 2.01)
    [tea] = [row for row in daemon.run("campaigns", "list", "--json").json() if row["id"] == "tea"]
    assert (tea["spent_today"], tea["held"], tea["daily_budget"], tea["funded"]) == (0.0, 0.00201, 1.0, True)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"bid": -1}, "rtb: campaign 'bad': bid: expected `float` >= 0"),
        ({"bid": 0}, "rtb: campaign 'bad': bid: the auction price is 0"),
        ({"bit": 2}, "rtb: campaign 'bad': "),
        ({"targeting": {"geo": [{"lat": 91, "lon": 0}]}}, "rtb: campaign 'bad': targeting.geo[0].lat: expected"),
        ({"timezone": "Mars/Olympus"}, "rtb: campaign 'bad': "),
        ({"creatives": []}, "rtb: campaign 'bad': creatives: expected `array` of length >= 1"),
        ({"id": "shoes"}, "rtb: campaigns: two have the same id; give each its own"),
    ],
)
def test_a_bad_campaign_is_named_with_its_field_and_nothing_is_changed(
    daemon: Daemon, wrong: dict[str, Any], says: str
) -> None:
    """Also not by the good ones beside it."""
    before = daemon.admin("campaigns.list")
    result = daemon.run(
        "campaigns", "import", "-", given=file(campaign("shoes", bid=9.0), {**campaign("bad"), **wrong})
    )
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith(says)
    assert result.err.count("\n") == 1
    assert daemon.admin("campaigns.list") == before
    assert won(daemon) == ("tea", 2.01)


@pytest.mark.parametrize(
    ("arguments", "given", "says"),
    [
        (("campaigns", "import", "-"), b"not JSON", "rtb: <stdin>: not JSON"),
        (("campaigns", "import", "-"), b"{}", 'rtb: <stdin>: must be an array of campaigns, or an object with "camp'),
        (("campaigns", "show", "nobody"), b"", "rtb: campaign 'nobody': unknown; `rtb campaigns list` names them all"),
        (("campaigns", "pause", "nobody"), b"", "rtb: campaign 'nobody': unknown"),
        (("campaigns", "set-bid", "shoes", "0"), b"", "rtb: campaign 'shoes': bid: the auction price is 0"),
        (("campaigns", "set-bid", "shoes", "-5"), b"", "rtb: campaign 'shoes': bid: price -5.0 is not between"),
        (("campaigns", "set-bid", "shoes", "nan"), b"", "rtb: campaigns.set-bid: argument 'bid': expected `float`"),
        (("campaigns", "set-bid", "shoes", "1e300"), b"", "rtb: campaign 'shoes': "),
        (("auction", "-"), b"{", "rtb: the body is not JSON"),
        (("auction", "-"), b"{}", "rtb: id: required"),
        (("auction", "-"), b"\xff", "rtb: <stdin>: not UTF-8"),
        (("explain", "-"), b'{"id":"1","imp":[{"id":"1"}]}', "rtb: imp[0]: needs one of banner"),
    ],
)
def test_a_command_that_cannot_be_done(daemon: Daemon, arguments: tuple[str, ...], given: bytes, says: str) -> None:
    """One line, exit code 1."""
    result = daemon.run(*arguments, given=given)
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith(says)
    assert result.err.count("\n") == 1


def test_auction_from_a_file_and_from_stdin(daemon: Daemon) -> None:
    """The bid response, as an SSP would get it; without a bid its reason."""
    request = msgspec.json.encode(bid_request())
    (daemon.folder / "request.json").write_bytes(request)
    by_file = daemon.run("auction", "request.json").json()
    by_stdin = daemon.run("auction", "-", given=request).json()
    for response in (by_file, by_stdin):
        [bid] = response["seatbid"][0]["bid"]
        assert (response["id"], bid["cid"], bid["price"]) == ("request-1", "tea", 2.01)
        assert bid["burl"].startswith(f"{daemon.url}/t/b/")
        assert f"{daemon.url}/t/i/" in bid["adm"]
    assert by_file["bidid"] != by_stdin["bidid"]
    dear = msgspec.json.encode(bid_request(imp=[{"id": "1", "banner": {"w": 300, "h": 250}, "bidfloor": 50}]))
    assert daemon.run("auction", "-", given=dear).json() == {"id": "request-1", "nbr": 500}


def test_without_a_daemon_commands_work_on_the_store(tmp_path: Path) -> None:
    """What they change is there for the daemon that comes; the demo campaigns are a campaign file."""
    assert run(tmp_path, "campaigns", "import", str(resource("campaigns.json"))).out == "40 campaigns written\n"
    changed = run(tmp_path, "campaigns", "set-bid", "house-remnant", "31")
    assert (changed.code, changed.err) == (0, "")
    [change, made] = run(tmp_path, "campaigns", "history", "house-remnant", "--json").json()
    assert (made["action"], change["action"], change["details"]["bid"][1]) == ("created", "changed", 31.0)
    with Daemon(tmp_path) as daemon:
        assert daemon.facts["campaigns"] == "40"
        [row] = [row for row in daemon.admin("campaigns.list")["result"] if row["id"] == "house-remnant"]
        assert (row["bid"], row["version"]) == (31.0, 2)
        daemon.kill()
    assert (tmp_path / "rtb.sock").is_socket()
    assert run(tmp_path, "campaigns", "pause", "house-remnant").code == 0


def test_a_daemon_that_dies_while_it_is_asked(tmp_path: Path) -> None:
    """The command fails with a line; it does not go on to the store, which it might change a second time."""
    with socket.socket(socket.AF_UNIX) as dying:
        dying.bind(short_address(tmp_path / "rtb.sock"))
        dying.listen()
        process = start(tmp_path, "campaigns", "list")
        dying.settimeout(LIMIT_S)
        dying.accept()[0].close()
        result = finish(process)
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith("rtb: admin.socket rtb.sock: the daemon did not answer")
    assert not (tmp_path / "rtb.db").exists()


def test_check_config(tmp_path: Path) -> None:
    """Every setting in its place with the value that holds; secrets are masked; an error is a line."""
    printed = run(tmp_path, "check-config", "--set", "auction.tie_key=hunter2", environment={"RTB_HTTP__PORT": "9999"})
    assert printed.code == 0
    found = dict(line.split(" = ", 1) for line in printed.out.splitlines())
    assert list(found) == list(flatten(Settings()))
    assert (found["http.port"], found["admin.socket"], found["auction.tie_key"]) == ("9999", '"rtb.sock"', '"****"')
    assert "hunter2" not in printed.out
    refused = run(tmp_path, "check-config", "--set", "http.prt=1")
    assert (refused.code, refused.out) == (1, "")
