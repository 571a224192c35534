"""Daemons on RabbitMQ, Redis and PostgreSQL, alone and as workers on one port."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

import msgspec
import psutil  # type: ignore[import-untyped]
import pytest

from rtb import messages
from rtb.adapters.amqp import RabbitBroker
from rtb.adapters.clock import SystemClock
from rtb.lab.servers.process import free_port
from rtb.messages import MessageType
from rtb.openrtb import BidResponse
from rtb.ports import Message, QueueSpec, Topology
from rtb.services import topology
from tests.contract.brokers import Inbox
from tests.support.daemon import LIMIT_S, Daemon, bids, finish, run, start
from tests.support.http import get
from tests.support.postgres import PostgresDatabases
from tests.support.production import Production
from tests.support.samples import bid_request, campaign


def test_an_auction_over_http_runs_on_the_real_servers(tmp_path: Path, production: Production) -> None:
    """The same answer as embedded: the campaign wins at its floor."""
    with Daemon(tmp_path, *production.settings()) as daemon:
        daemon.put_campaigns(campaign("tea", bid=3.0))
        assert bids(daemon.auction(bid_request())).seatbid[0].bid[0].cid == "tea"  # type: ignore[index]
        ready = msgspec.json.decode(get(daemon.url, "/readyz").body)
        assert ready == {"ready": True, "broker": True, "campaigns": 1}


async def test_a_bid_request_over_rabbitmq_is_answered(tmp_path: Path, production: Production) -> None:
    """Published to ad.bidding / bid.request with a reply_to; the answer carries the correlation id."""
    broker = RabbitBroker(production.broker, SystemClock())
    with Daemon(tmp_path, *production.settings()) as daemon:
        daemon.put_campaigns(campaign("tea", bid=3.0))
        await broker.start()
        await broker.declare(Topology({}, (QueueSpec("replies", exclusive=True),), ()))
        inbox = await Inbox().open(broker, "replies")
        body = messages.encode(
            MessageType.BID_REQUEST,
            bid_request(),
            message_id="m1",
            timestamp=time.time(),
            correlation_id="c1",
            reply_to="replies",
        )
        await broker.publish(topology.BIDDING, "bid.request", Message(body=body, message_id="m1"))
        answer = messages.decode((await inbox.next()).message.body)
        assert answer.correlation_id == "c1"
        response = msgspec.json.decode(answer.data, type=BidResponse)
        assert response.seatbid[0].bid[0].cid == "tea"  # type: ignore[index]
        await broker.close()


def test_a_campaign_survives_the_daemon(tmp_path: Path, production: Production) -> None:
    """What one daemon wrote to PostgreSQL the next one serves."""
    with Daemon(tmp_path, *production.settings()) as daemon:
        daemon.put_campaigns(campaign("tea", bid=3.0))
        daemon.kill()
    with Daemon(tmp_path, *production.settings()) as daemon:
        assert bids(daemon.auction(bid_request())).seatbid[0].bid[0].cid == "tea"  # type: ignore[index]


async def test_a_database_without_tables_is_refused_until_it_is_migrated(
    tmp_path: Path, postgres_databases: PostgresDatabases
) -> None:
    """One line that names the command; after it the daemon starts."""
    store = f"store.url={await postgres_databases.empty()}"
    refused = run(tmp_path, "--set", store, "serve")
    assert refused.code == 1
    assert refused.err.splitlines()[-1].endswith("was never migrated; run `rtb migrate`")
    checked = run(tmp_path, "--set", store, "migrate", "--check")
    assert checked.code == 1
    assert "run `rtb migrate`" in checked.err
    assert run(tmp_path, "--set", store, "migrate").out.startswith("migrated: 0001")
    with Daemon(tmp_path, store) as daemon:
        assert daemon.facts["campaigns"] == "0"


@pytest.fixture
def port() -> int:
    """One that two workers can share."""
    return free_port()


def test_workers_share_a_port(tmp_path: Path, production: Production, port: int) -> None:
    """Connections reach both processes; one that is killed comes back; SIGTERM ends all of them."""
    command = ("serve", "--workers", "2")
    with Daemon(tmp_path, *production.settings(), f"http.port={port}", command=command) as daemon:
        workers = [int(pid) for pid in daemon.facts["pids"].split(",")]
        assert served_by(daemon.url) == set(workers)
        os.kill(workers[1], signal.SIGKILL)
        daemon.err.wait_for(lambda line: "worker_started" in line, LIMIT_S)
        now = served_by(daemon.url)
        assert workers[0] in now
        assert workers[1] not in now
        assert daemon.stop() == 0
        assert not [pid for pid in now if psutil.pid_exists(pid)]


def served_by(url: str) -> set[int]:
    """The processes that answer new connections, until two did."""
    seen: set[int] = set()
    give_up = time.monotonic() + LIMIT_S
    while len(seen) < 2 and time.monotonic() < give_up:
        seen.add(msgspec.json.decode(get(url, "/healthz").body)["pid"])
    return seen


def test_a_signal_while_workers_start_ends_them(tmp_path: Path, port: int) -> None:
    """The database accepts and says nothing, so that no worker is ready yet: the signal does not wait for that."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(LIMIT_S)
        urls = (
            "broker.url=amqp://127.0.0.1:1/",
            "state.url=redis://127.0.0.1:1",
            f"store.url=postgresql://127.0.0.1:{silent.getsockname()[1]}/rtb",
            f"http.port={port}",
        )
        process = start(tmp_path, "serve", "--workers", "2", *(part for url in urls for part in ("--set", url)))
        connection, _ = silent.accept()
        process.send_signal(signal.SIGTERM)
        result = finish(process)
        connection.close()
    assert (result.code, result.out) == (0, "")
    assert "Traceback" not in result.err


def test_workers_need_shared_servers(tmp_path: Path, port: int) -> None:
    """With a broker in process each worker would have a world of its own: one line, exit code 1."""
    refused = run(tmp_path, "serve", "--workers", "2", "--set", f"http.port={port}")
    assert refused.code == 1
    assert refused.err == (
        "rtb: broker.url: memory:// is one process's own and cannot serve several workers; set amqp://...\n"
    )


def test_workers_need_a_port(tmp_path: Path) -> None:
    """Port 0 would give each worker another one."""
    urls = ("--set", "broker.url=amqp://localhost/", "--set", "state.url=redis://localhost")
    refused = run(tmp_path, "serve", "--workers", "2", *urls)
    assert refused.code == 1
    assert refused.err == "rtb: http.port: workers share one port; set http.port to a number above 0\n"
