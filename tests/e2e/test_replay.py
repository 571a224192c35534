"""Auctions among bidders over HTTP, recorded to disk as they happen, and replayed by the command."""

from __future__ import annotations

import asyncio
from itertools import islice
from pathlib import Path

import pytest

from rtb import openrtb
from rtb.adapters.clock import SystemClock
from rtb.adapters.replay_file import ReplayFile
from rtb.domain.bidder_policy import BidderSettings
from rtb.lab.dsp import DspScript, Misbehaviour, serving
from rtb.services.exchange import Rules
from rtb.services.replay_log import ReplayLog, header
from rtb.wiring.bidders import RemoteBidders
from tests.support import daemon
from tests.support.daemon import Daemon
from tests.support.recorded_market import RATES, bodies, campaigns
from tests.support.samples import bid_request, campaign, imp
from tests.unit.parts import world

RULES = Rules(tie_key=b"a secret that orders equal bids", first_price_types=frozenset({501}))
AUCTIONS = 400
SCRIPTS = (
    DspScript(name="quick", latency_ms=(0.0, 2.0), cpm=(1.0, 6.0)),
    DspScript(name="slow", latency_ms=(20.0, 120.0), cpm=(2.0, 9.0)),
    DspScript(name="equal", latency_ms=(0.0, 5.0), cpm=(2.0,), errors=0.1),
    DspScript(name="same", latency_ms=(0.0, 5.0), cpm=(2.0,), no_bid=0.1),
    DspScript(name="dead", latency_ms=(0.0,), misbehaves=0.5, misbehaviour=Misbehaviour.HANG),
    DspScript(name="wrong", latency_ms=(0.0,), misbehaves=0.5, misbehaviour=Misbehaviour.WRONG_CURRENCY),
)


@pytest.fixture
async def log(tmp_path: Path) -> Path:
    """The folder of a log, after auctions of which many were under way at a time."""
    clock = SystemClock()
    tape = ReplayFile(tmp_path / "log", max_bytes=10_000_000)
    market = world(str(tmp_path / "db"), campaigns=campaigns(100, 2), rates=RATES, rules=RULES, clock=clock)
    remote = RemoteBidders(clock, market.rates, {}, allow=["127.0.0.0/8"])
    async with serving(SCRIPTS) as served:
        settings = [
            BidderSettings(name=dsp.script.name, url=url, adjustment=0.9, secondary=dsp.script.name == "slow")
            for dsp, url in served
        ]
        market.exchange.set_bidders([market.house, *remote.apply(settings)])
        tape.open(header(RULES, clock, instance="i", share=1, currency="USD", rates=RATES, advertisers=10, settings={}))
        names = [bidder.name for bidder in market.exchange.bidders]
        listener = ReplayLog(tape, clock, market.rates, share=1.0, house=market.house, bidders=lambda: names)
        market.exchange.listen(listener)
        await market.repository.start()
        under_way = asyncio.Semaphore(20)

        async def hold(body: bytes) -> None:
            async with under_way:
                auction = market.exchange.begin(openrtb.decode_request(body), clock.monotonic_ns(), body=body)
                if auction.outcome is None:
                    await market.exchange.finish(auction)

        await asyncio.gather(*(hold(body) for body in islice(bodies(5), AUCTIONS)))
        await remote.close()
    await market.profiles.close()
    await market.repository.close()
    await tape.close()
    assert (tape.written, tape.dropped, listener.recorded) == (AUCTIONS, 0, AUCTIONS)
    return tmp_path / "log"


async def test_what_happened_over_http_is_replayed_bit_for_bit(log: Path, tmp_path: Path) -> None:
    """Whatever the machine's timing made of it; without a bidder others have its wins."""
    unchanged = await asyncio.to_thread(daemon.run, tmp_path, "replay", str(log), "--json")
    assert (unchanged.code, unchanged.err) == (0, "")
    found = unchanged.json()
    assert (found["auctions"], found["exact"], found["deviations"]) == (AUCTIONS, AUCTIONS, [])
    winners = found["before"]["bidders"]
    assert "house" in winners
    without = await asyncio.to_thread(
        daemon.run, tmp_path, "replay", str(log), "--set", "bidder.quick.enabled=false", "--json"
    )
    after = without.json()["after"]["bidders"]
    assert "quick" not in after
    assert sum(share["wins"] for share in after.values()) >= sum(
        share["wins"] for name, share in winners.items() if name != "quick"
    )
    refused = await asyncio.to_thread(daemon.run, tmp_path, "replay", str(log), "--set", "bidder.quik.enabled=false")
    assert (refused.code, refused.err) == (
        1,
        "rtb: --set bidder.quik: no bidder 'quik' in the log; known are dead, equal, house, quick, same, slow, wrong\n",
    )


def test_a_daemon_keeps_what_it_auctions(tmp_path: Path) -> None:
    """All of it here; the log is whole when the daemon has stopped, and nobody else can read it. The second auction is
    not sold at twice the floor: 2 x 3.00 is above the bid of 5.00."""
    with Daemon(tmp_path, "log.replay=kept", "log.replay_share=1", "log.replay_max_mb=8") as rtb:
        rtb.put_campaigns(campaign("tea", bid=5.0))
        for floor in (0.5, 3.0):
            assert rtb.auction(bid_request(imp=[imp(bidfloor=floor)])).status == 200
        rtb.stop()
    replayed = daemon.run(tmp_path, "replay", "kept", "--set", "floor.times=2", "--json")
    assert (replayed.code, replayed.err) == (0, "")
    found = replayed.json()
    assert (found["auctions"], found["repriced"], found["lost"]) == (2, 1, 1)
    assert found["before"]["campaigns"]["tea"] == {"wins": 2, "revenue": 0.0035}
    assert found["after"]["campaigns"]["tea"] == {"wins": 1, "revenue": 0.001}
    [path] = (tmp_path / "kept").glob("*.jsonl.gz")
    assert path.stat().st_mode & 0o077 == 0
    unchanged = daemon.run(tmp_path, "replay", str(path))
    assert unchanged.out.splitlines()[1:] == ["2 of 2 outcomes are the recorded ones, bit for bit"]
