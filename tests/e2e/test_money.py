"""Budgets of whole daemons: what was won is billed, stands in the ledger, and outlives the process."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.e2e.test_tracker import TEA, ask, until, won
from tests.support.daemon import LIMIT_S, Daemon
from tests.support.production import Production
from tests.support.samples import bid_request, campaign, imp

PRICE = 1.0  # CPM: the floor of every imp and the only bid, so what is paid
IMPRESSION = 1_000_000  # nanos: a thousandth of 1.00


def test_what_was_spent_outlives_the_daemon(tmp_path: Path) -> None:
    """A budget of five impressions is spent in two lives of an embedded daemon: three, then two, and never a sixth."""
    with Daemon(tmp_path) as daemon:
        daemon.put_campaigns(campaign("tea", bid=PRICE, daily_budget=5 * PRICE / 1000))
        assert wins(daemon, 3) == 3
    with Daemon(tmp_path) as daemon:
        assert wins(daemon, 6) == 2
        assert spent(daemon) == 5
        assert daemon.admin("audit")["result"]["balanced"]
        assert "tea" not in daemon.admin("audit")["result"]["findings"]


@pytest.mark.parametrize("shared", [False, True])
def test_a_lifetime_budget_for_a_running_campaign(tmp_path: Path, request: pytest.FixtureRequest, shared: bool) -> None:
    """Three of five impressions of a life were won before it had a limit: two are left, whatever the day could pay."""
    settings = [*request.getfixturevalue("production").settings(), "budgets.sync_ms=50"] if shared else []
    tea = campaign("tea", bid=PRICE, daily_budget=100 * PRICE / 1000)
    with Daemon(tmp_path, *settings) as daemon:
        daemon.put_campaigns(tea)
        sold, give_up = 0, time.monotonic() + LIMIT_S
        while sold < 3:  # a first lease takes a moment
            assert time.monotonic() < give_up, sold
            sold += wins(daemon, 1)
        daemon.put_campaigns({**tea, "lifetime_budget": 5 * PRICE / 1000})
        while sold < 5:
            assert time.monotonic() < give_up, sold
            sold += wins(daemon, 1)
        assert wins(daemon, 20) == 0
        assert daemon.admin("audit")["result"]["balanced"]


def test_the_audit_of_a_running_daemon_balances(tmp_path: Path) -> None:
    """``rtb audit`` counts one account, and a row for each win, once they are committed; of all or of one by its name.
    A name that nobody knows is an error: where no books are, nothing balances."""
    with Daemon(tmp_path) as daemon:
        daemon.put_campaigns(campaign("tea", bid=PRICE, daily_budget=1.0))
        assert wins(daemon, 4) == 4
        for arguments in ((), ("tea",)):
            done = daemon.run("audit", *arguments)
            assert (done.code, done.out.rpartition(": ")[2]) == (0, "balanced\n")
        mistyped = daemon.run("audit", "tee")
        assert (mistyped.code, mistyped.err.partition(";")[0]) == (1, "rtb: campaign 'tee': unknown")


def test_an_audit_without_the_accounts_is_refused(tmp_path: Path) -> None:
    """Accounts in process end with their daemon: one line that says so."""
    with Daemon(tmp_path) as daemon:
        daemon.put_campaigns(campaign("tea", bid=PRICE, daily_budget=1.0))
    refused = Daemon.run(daemon, "audit")
    assert refused.code == 1
    assert "no daemon runs" in refused.err


def test_two_daemons_share_one_budget(tmp_path: Path, production: Production) -> None:
    """Ten impressions, two daemons: together they sell ten, and the audit without any daemon balances."""
    (one_folder := tmp_path / "one").mkdir()
    (two_folder := tmp_path / "two").mkdir()
    settings = [*production.settings(), "budgets.sync_ms=50", "budgets.lease_share=0.2"]
    with Daemon(one_folder, *settings) as one, Daemon(two_folder, *settings) as two:
        one.put_campaigns(campaign("tea", bid=PRICE, daily_budget=10 * PRICE / 1000))
        two.admin("campaigns.list")
        sold, give_up = 0, time.monotonic() + LIMIT_S
        while sold < 10:
            assert time.monotonic() < give_up, sold
            sold += wins(one, 1) + wins(two, 1)
        assert sold == 10
        assert wins(one, 20) + wins(two, 20) == 0
    audited = one.run("--set", production.settings()[0], *sets(production), "audit")
    assert (audited.code, audited.out.rpartition(": ")[2]) == (0, "balanced\n"), audited


def test_where_wins_are_billed_nothing_else_is(tmp_path: Path) -> None:
    """An impression and a click that follow are counted, and the campaign has paid the price of one win."""
    with Daemon(tmp_path, "budgets.bill_at=win") as daemon:
        daemon.put_campaigns({**TEA, "bid": PRICE})
        pixel, link, _ = won(daemon, bid_request(imp=[imp(bidfloor=PRICE)]))
        assert (ask(daemon, pixel).status, ask(daemon, link).status) == (200, 302)
        until(daemon, wins=1, impressions=1, clicks=1)
        assert spent(daemon) == 1
        [row] = daemon.admin("campaigns.stats", ids=["tea"])["result"]["rows"]
        assert round(row["cost"] * 1e9) == IMPRESSION
        assert daemon.admin("audit")["result"]["balanced"]


def sets(production: Production) -> list[str]:
    """The settings as arguments of a command."""
    return [part for setting in production.settings() for part in ("--set", setting)]


def wins(daemon: Daemon, count: int) -> int:
    """How many of so many auctions were won."""
    request = bid_request(imp=[imp(bidfloor=PRICE)])
    return sum(daemon.auction({**request, "id": str(i)}).status == 200 for i in range(count))


def spent(daemon: Daemon) -> int:
    """Impressions that the campaign's budget paid or holds money for today, as ``rtb campaigns list`` tells it."""
    (row,) = daemon.admin("campaigns.list")["result"]
    return round((row["spent_today"] + row["held"]) * 1e9 / IMPRESSION)
