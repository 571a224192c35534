"""Conversion rates from a file: used by the next auction, followed, and never replaced by what cannot be read."""

from __future__ import annotations

from pathlib import Path

import msgspec

from tests.support.daemon import LIMIT_S, Daemon
from tests.support.http import fetch, post, request
from tests.support.samples import bid_request, imp

NO_RATE, NO_DEMAND = 504, 500


def why_not(daemon: Daemon, currency: str) -> int:
    """The reason that a request with a floor in this currency is not sold for."""
    body = bid_request(imp=[imp(bidfloor=1.0, bidfloorcur=currency)], ext={"rtb": {"nbr": 1}})
    return int(msgspec.json.decode(fetch(daemon.url, post(msgspec.json.encode(body))).body)["nbr"])


def gauge(daemon: Daemon, name: str) -> float:
    """A gauge of /metrics."""
    body = fetch(daemon.url, request("GET", "/metrics", {"host": "localhost"})).body.decode()
    return next(float(line.split()[1]) for line in body.splitlines() if line.startswith(f"{name} "))


def test_rates_of_a_file_are_used_and_told(tmp_path: Path) -> None:
    """A currency of the file has a rate; another has none; and the rates are not stale."""
    (tmp_path / "rates.json").write_text('{"EUR": 1.25}')
    with Daemon(tmp_path, "currency.source=rates.json") as daemon:
        assert (why_not(daemon, "EUR"), why_not(daemon, "SEK")) == (NO_DEMAND, NO_RATE)
        assert gauge(daemon, "rtb_rates_stale") == 0


def test_a_source_that_cannot_be_read_stops_nobody(tmp_path: Path) -> None:
    """The rates of the settings hold, /metrics says that those of the source are missing, and the log why."""
    with Daemon(tmp_path, "currency.source=nowhere.json", "currency.rates.SEK=0.1") as daemon:
        said = "currency.source: nowhere.json cannot be read: No such file or directory"
        daemon.err.wait_for(lambda line: said in line, LIMIT_S)
        assert (why_not(daemon, "EUR"), why_not(daemon, "SEK")) == (NO_RATE, NO_DEMAND)
        assert gauge(daemon, "rtb_rates_stale") == 1
