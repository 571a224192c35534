"""``rtb dead-letters`` and ``rtb topology``, on a running daemon and without one."""

from __future__ import annotations

from pathlib import Path

from rtb.adapters.amqp import RabbitBroker
from rtb.adapters.clock import SystemClock
from rtb.ports import Message
from rtb.services import topology
from tests.contract.brokers import Inbox
from tests.support.daemon import Daemon, run
from tests.support.production import Production


async def test_a_malformed_message_can_be_seen_sent_back_and_dropped(tmp_path: Path, production: Production) -> None:
    """It dies in bid.requests with its reason; sent back it dies again; dropped it is gone."""
    broker = RabbitBroker(production.broker, SystemClock())
    with Daemon(tmp_path, *production.settings()) as daemon:
        await broker.start()
        dead = await Inbox(ack=False).open(broker, topology.DEAD)
        await broker.publish(topology.BIDDING, "bid.request", Message(body=b"{", message_id="m1"))
        (await dead.next()).nack(requeue=True)
        await dead.subscription.cancel()
        await broker.close()
        listed = daemon.run("dead-letters", "list").out
        assert listed.splitlines()[1].split()[:2] == ["m1", topology.BID_REQUESTS]
        assert "not JSON" in listed
        assert daemon.run("dead-letters", "show", "m1").json()["body"] == "{"
    urls = [part for setting in production.settings() for part in ("--set", setting)]
    assert run(tmp_path, *urls, "dead-letters", "requeue", "m1").out == "1 sent back\n"
    assert run(tmp_path, *urls, "dead-letters", "purge", "--all").out == "0 dropped\n"


def test_the_topology_can_be_checked_and_made_without_a_daemon(tmp_path: Path, production: Production) -> None:
    """An empty broker lacks everything: exit code 1 and a line for each; after ``apply`` nothing."""
    urls = [part for setting in production.settings() for part in ("--set", setting)]
    missing = run(tmp_path, *urls, "topology", "check")
    assert missing.code == 1
    assert f"queue {topology.WINS}" in missing.out
    assert run(tmp_path, *urls, "topology", "apply").out == "the broker has the topology\n"
    assert run(tmp_path, *urls, "topology", "check").code == 0


def test_queues_that_nobody_consumes_are_warned_of_without_a_daemon(tmp_path: Path, production: Production) -> None:
    """One look is enough for that; what nobody has to consume has no warning."""
    urls = [part for setting in production.settings() for part in ("--set", setting)]
    assert run(tmp_path, *urls, "topology", "apply").code == 0
    rows = {row["name"]: row for row in run(tmp_path, *urls, "queues", "--json").json()["queues"]}
    found = [(rows[name]["consumers"], rows[name]["warnings"]) for name in (topology.BID_REQUESTS, topology.DEAD)]
    assert found == [(0, ["unconsumed"]), (0, [])]


def test_dead_letters_of_a_broker_in_process_end_with_it(tmp_path: Path) -> None:
    """Without a daemon there is nothing to look at: one line that says so."""
    refused = run(tmp_path, "dead-letters", "list")
    assert refused.code == 1
    assert "no daemon runs" in refused.err


def test_which_messages_must_be_said(tmp_path: Path) -> None:
    """Neither ids nor --all is a mistake, not everything."""
    refused = run(tmp_path, "dead-letters", "purge")
    assert refused.code == 2
    assert "name the messages, or give --all" in refused.err
