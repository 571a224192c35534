"""Two daemons spend one budget while they are killed at random: it is never overspent, and every account balances."""

from __future__ import annotations

import http.client
import itertools
import random
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from rtb.lab.servers.process import free_port
from tests.support.daemon import LIMIT_S, Daemon
from tests.support.production import Production
from tests.support.samples import bid_request, campaign, imp

LOAD_S = 60.0
KILLS = 11  # at least, however long the daemons take to come back
PRICE = 1.0  # CPM, the floor and the only bid: an impression is 1,000,000 nanos
IMPRESSION = 1_000_000
IMPRESSIONS = 8_000
QUICK = (
    "budgets.bill_at=win",  # nobody here sees an impression
    "budgets.sync_ms=100",
    "budgets.lease_ttl_s=2",
    "budgets.window_s=2",
    "budgets.settle_s=4",
    "drain.limit_s=20",
)
"""A dead daemon's lease is over after 8 s, so that money comes back while the test runs."""


class Traffic(threading.Thread):
    """Auctions at one port, one after the other, whoever listens there; counts those that were won."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.won = 0
        self._port = port
        self._over = threading.Event()

    def run(self) -> None:
        """Until `end`."""
        bodies = (
            msgspec.json.encode(bid_request(id=str(number), imp=[imp(bidfloor=PRICE)], tmax=1_000))
            for number in itertools.count()
        )
        while not self._over.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=5)
            try:
                while not self._over.is_set():
                    connection.request("POST", "/openrtb2/auction", next(bodies), {"content-type": "application/json"})
                    answer = connection.getresponse()
                    answer.read()
                    self.won += answer.status == 200
            except (OSError, http.client.HTTPException):
                self._over.wait(0.02)  # killed; the next one is on its way
            finally:
                connection.close()

    def end(self) -> None:
        """Stop, and wait for that."""
        self._over.set()
        self.join(LIMIT_S)


def test_a_budget_is_never_overspent_by_daemons_that_are_killed(tmp_path: Path, production: Production) -> None:
    """For a minute of load one of two daemons after the other is killed and started again. Then the ledger has not a
    nano more than the limit, every event in time was charged in full, and accounts and ledger agree."""
    dice = random.Random(7)
    ports = (free_port(), free_port())
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()

    def start(which: int) -> Daemon:
        return Daemon(folders[which], *production.settings(), *QUICK, f"http.port={ports[which]}")

    daemons: list[Daemon] = []
    traffic = [Traffic(port) for port in ports]
    try:
        daemons += [start(0)]
        daemons += [start(1)]
        limit = PRICE / 1_000 * IMPRESSIONS
        daemons[0].put_campaigns(campaign("tea", bid=PRICE, daily_budget=limit), campaign("new", bid=0.1))
        for each in traffic:
            each.start()
        kills, until = 0, time.monotonic() + LOAD_S
        while time.monotonic() < until or kills < KILLS:
            time.sleep(dice.uniform(0.5, 4.0))  # load is what passes meanwhile
            which = dice.randrange(2)
            daemons[which].kill()
            kills += 1
            daemons[which] = start(which)
        for each in traffic:
            each.end()
        audited = settled(daemons)
        charged = sum(row["spent_today"] for row in daemons[0].admin("campaigns.list")["result"] if row["id"] == "tea")
    finally:
        for daemon in daemons:
            if daemon.process.poll() is None:
                daemon.signal(signal.SIGTERM)
            daemon.wait()
    won = sum(each.won for each in traffic)
    assert audited["findings"] == []
    assert audited["uncovered"] == []
    assert 0 < round(charged * 1e9) <= IMPRESSIONS * IMPRESSION
    assert audited["rows"] <= won + kills, "more was billed than was ever answered, or lost in an answer by a kill"
    assert won > IMPRESSIONS / 2


def settled(daemons: Sequence[Daemon]) -> dict[str, Any]:
    """The audit, once every win is in the ledger: twice in a row none was in an outbox, on the queue or in the hands of
    a daemon, which knows its own alone. A win that moves may pass what a look has seen before, but not two of them."""
    give_up = time.monotonic() + LIMIT_S
    quiet = 0
    while quiet < 2:
        assert time.monotonic() < give_up, "wins were still waiting on the queue"
        waiting = 0
        for daemon in daemons:
            report = daemon.admin("queues")["result"]
            wins = next(row for row in report["queues"] if row["name"] == "ad.wins")
            waiting += wins["ready"] + wins["unacked"] + report["outbox"]
        quiet = 0 if waiting else quiet + 1
    audited: dict[str, Any] = daemons[0].admin("audit")["result"]
    return audited
