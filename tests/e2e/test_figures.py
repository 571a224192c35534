"""What an operator sees of campaigns: stats, history and metrics on the command line, counters for Prometheus."""

from __future__ import annotations

import re
import time
from pathlib import Path

from tests.e2e.test_tracker import TEA, ask, until, won
from tests.support.daemon import LIMIT_S, Daemon, Result
from tests.support.http import get
from tests.support.samples import bid_request, imp

PATIENT = ("tracking.redirect_ms=10000", "tracking.answer_ms=10000")
"""Events are on disk before they are answered, however slow it is."""


def test_stats_history_and_counters_of_one_click(tmp_path: Path) -> None:
    """Two wins at the floor of 0.50 CPM, one shown twice and clicked, one with a forged URL: 0.0005 spent."""
    with Daemon(tmp_path, *PATIENT) as daemon:
        daemon.put_campaigns(TEA)
        daemon.admin("campaigns.set-bid", id="tea", bid=4.0)
        pixel, link, token = won(daemon)
        won(daemon)
        for _ in range(2):
            assert ask(daemon, pixel).status == 200
        assert ask(daemon, link).status == 302
        altered = "B" if token[40] != "B" else "C"
        assert ask(daemon, f"/t/i/{token[:40]}{altered}{token[41:]}").status == 403
        until(daemon, wins=2, impressions=1, clicks=1)

        head, row, *rest = daemon.run("campaigns", "stats", "tea").out.splitlines()
        told = dict(zip(head.split(), row.split(), strict=True))
        assert rest == []
        assert (told["ID"], told["WINS"], told["IMPRESSIONS"], told["CLICKS"]) == ("tea", "2", "1", "1")
        assert (told["COST"], told["CPM"], told["CPC"], told["CTR"]) == ("0.0005", "0.5", "0.0005", "1")
        [by_date] = daemon.run("campaigns", "stats", "tea", "--by", "date", "--json").json()["rows"]
        assert re.fullmatch(r"\d{4}-\d{2}-\d{2}", by_date["date"])
        assert by_date["cost"] == 0.0005
        [listed] = daemon.admin("campaigns.list")["result"]
        assert (listed["spent_today"], round(listed["held"], 9)) == (0.0005, 0.0005)

        history = daemon.run("campaigns", "history", "tea", "--json").json()
        assert [(event["actor"], event["action"]) for event in history] == [("admin", "changed"), ("admin", "created")]
        assert history[0]["details"] == {"bid": [3.0, 4.0]}
        told = daemon.run("campaigns", "history", "tea").out.splitlines()
        assert [line.split()[1:] for line in told] == [
            ["ACTOR", "ACTION", "WHAT", "CAUSE"],
            ["admin", "changed", "bid", "3.0", "->", "4.0"],
            ["admin", "created"],
        ]

        metrics = daemon.run("campaigns", "metrics", "tea", "--json").json()
        assert (metrics["standing"], metrics["totals"]["impressions"], metrics["totals"]["spend"]) == (
            "fresh",
            1,
            0.0005,
        )

        scraped = get(daemon.url, "/metrics").body.decode()
        assert 'rtb_events_total{kind="impression"} 2.0' in scraped
        assert 'rtb_events_total{kind="click"} 1.0' in scraped
        assert 'rtb_events_refused_total{kind="impression",reason="forged token"} 1.0' in scraped
        assert "rtb_events_unsafe_total 0.0" in scraped


def test_those_who_spend_today_are_shown_wherever_they_have_their_midnight(tmp_path: Path) -> None:
    """It is always another date in Kiritimati (UTC+14) or in Pago Pago (UTC-11) than in UTC; the one that costs more
    comes first."""
    east, west = "Pacific/Kiritimati", "Pacific/Pago_Pago"
    prices = {east: 1.0, west: 2.0}
    with Daemon(tmp_path) as daemon:
        for zone, price in prices.items():
            site = {"domain": f"{price}.test"}
            daemon.put_campaigns({**TEA, "id": zone, "timezone": zone, "targeting": {"domain": [site["domain"]]}})
            pixel, _, _ = won(daemon, bid_request(site=site, imp=[imp(bidfloor=price)]))
            assert ask(daemon, pixel).status == 200
        give_up = time.monotonic() + LIMIT_S
        while True:
            rows = daemon.admin("campaigns.stats")["result"]["rows"]
            if [(row["id"], row["cost"]) for row in rows] == [(west, 0.002), (east, 0.001)]:
                return
            assert time.monotonic() < give_up, rows
            time.sleep(0.05)


def test_figures_of_nobody_and_wrong_dates_are_one_line(tmp_path: Path) -> None:
    """An unknown campaign and a date that is none are told in a line that names them, and so is a day without wins."""
    with Daemon(tmp_path) as daemon:
        daemon.put_campaigns(TEA)
        idle = daemon.run("campaigns", "stats")
        assert (idle.code, idle.err) == (
            0,
            "no campaign won or spent anything today; name one to see it, with --since DATE its past\n",
        )
        for arguments, what in (
            (("stats", "coffee"), "campaign 'coffee': unknown"),
            (("history", "coffee"), "campaign 'coffee': unknown"),
            (("metrics", "coffee"), "campaign 'coffee': unknown"),
            (("stats", "tea", "--since", "yesterday"), "campaigns.stats: argument 'since'"),
            (("stats", "tea", "--since", "2026-13-01"), "argument 'since': give a date as in 2026-11-22"),
            (("stats", "tea", "--since", "2026-11-22", "--until", "2026-11-21"), "'until': must not be before since"),
            (("metrics", "tea", "--since", "yesterday"), "since, until: give dates as in"),
        ):
            refused: Result = daemon.run("campaigns", *arguments)
            assert refused.code == 1
            assert what in refused.err
            assert len(refused.err.splitlines()) == 1
