"""RabbitMQ's management API as figures: of a real node, and of what is no management at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from aiohttp import web

from rtb.adapters.amqp import RabbitBroker
from rtb.adapters.clock import SystemClock
from rtb.adapters.management import ManagementApi
from rtb.errors import BrokerError
from rtb.lab.servers.process import free_port
from rtb.lab.servers.rabbitmq import RabbitServer, is_installed
from rtb.ports import Message, QueueSpec, Topology
from rtb.ports.queue_stats import QueueFigures


@pytest.fixture
def server(tmp_path: Path) -> RabbitServer:
    """A node with the plugin."""
    if not is_installed():
        pytest.skip("no rabbitmq-server on this machine: apt-get install rabbitmq-server")
    return RabbitServer(tmp_path, management=True)


async def test_a_real_node_tells_its_queues(server: RabbitServer) -> None:
    """Depth, consumers and, once it has sampled them, rates; a wrong virtual host and a wrong user are errors."""
    broker = RabbitBroker(server.url, SystemClock())
    try:
        await asyncio.to_thread(server.start)
        await broker.start()
        await broker.declare(Topology({}, (QueueSpec("q"),), ()))
        api = ManagementApi(server.management_url)
        figure = QueueFigures("q")
        async with asyncio.timeout(120):
            while not figure.publish_per_s or not figure.ready:
                await broker.publish("", "q", Message(body=b"x"))
                figure = (await api.figures()).get("q", figure)
                await asyncio.sleep(0.1)  # nothing tells when the node has sampled
        assert (figure.name, figure.unacked, figure.consumers) == ("q", 0, 0)
        await api.close()
        short = ManagementApi(server.management_url.removesuffix("/api"))
        assert "q" in await short.figures()
        await short.close()
        for url, vhost in ((server.management_url, "none"), (server.management_url.replace("guest:", "nobody:"), "/")):
            other = ManagementApi(url, vhost=vhost)
            with pytest.raises(BrokerError, match=r"answers 40[14]; check URL, user and virtual host") as caught:
                await other.figures()
            assert "guest" not in str(caught.value)
            await other.close()
    finally:
        await broker.close()
        await asyncio.to_thread(server.stop)


@pytest_asyncio.fixture
async def impostor() -> AsyncIterator[tuple[str, list[str]]]:
    """Answers whatever is put into its list; its URL."""
    bodies: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        return web.Response(text=bodies[0])

    app = web.Application()
    app.router.add_get("/{rest:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    yield f"http://{host}:{port}/api", bodies
    await runner.cleanup()


async def test_what_a_new_queue_does_not_tell_is_unknown(impostor: tuple[str, list[str]]) -> None:
    """Counts and rates come only with the first statistics."""
    url, bodies = impostor
    api = ManagementApi(url)
    bodies.append(
        '[{"name":"new"},{"name":"old","messages_ready":3,"messages_unacknowledged":2,"consumers":1,'
        '"message_stats":{"publish_details":{"rate":4.5},"deliver_get_details":{"rate":1.0}}}]'
    )
    assert await api.figures() == {"new": QueueFigures("new"), "old": QueueFigures("old", 3, 2, 1, 4.5, 1.0)}
    await api.close()


@pytest.mark.parametrize("body", ["<html>", "{}", '[{"name":3}]', "[" + " " * (17 << 20) + "]"])
async def test_what_is_no_management_is_an_error(impostor: tuple[str, list[str]], body: str) -> None:
    """Never an exception of somebody else's, and never without bound."""
    url, bodies = impostor
    bodies.append(body)
    api = ManagementApi(url)
    with pytest.raises(BrokerError, match="the management API at http://127"):
        await api.figures()
    await api.close()


async def test_nobody_there_is_an_error() -> None:
    """The message names the address, not the password."""
    api = ManagementApi(f"http://user:secret@127.0.0.1:{free_port()}/api")
    with pytest.raises(BrokerError, match="the management API at http://127") as caught:
        await api.figures()
    assert "secret" not in str(caught.value)
    await api.close()
