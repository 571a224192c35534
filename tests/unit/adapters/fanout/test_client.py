"""The fan-out client: connections that are kept, limited, warmed and renewed; names, addresses and certificates."""

from __future__ import annotations

import asyncio
import gzip
import shutil
import socket
import ssl
import subprocess
from pathlib import Path

import pytest

from rtb.adapters.clock import ManualClock, SystemClock
from rtb.adapters.http_client import Call, Failure, FanoutClient, Limits
from rtb.errors import ConfigError
from tests.support.fanout import LOCAL, ask, soon_ns
from tests.support.http_server import HttpServer, Reply
from tests.support.raw_server import RawServer, answering, read_request

GOOD = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood"


async def test_a_call_is_a_post_with_the_headers_given(client: FanoutClient) -> None:
    """Path and query as they are; JSON unless told otherwise; one connection for one call after another."""
    async with HttpServer(Reply(200, {"x": "y"}, b'{"id":"1"}')) as server:
        endpoint = client.endpoint(
            server.url("/bid%20here?a=1&b=%2F"), headers={"Authorization": "Bearer t", "x-openrtb-version": "2.5"}
        )
        for _ in range(3):
            call = await ask(client, endpoint, b'{"id":"r"}')
            assert (call.failure, call.status, call.content) == (None, 200, b'{"id":"1"}')
        request = server.requests[0]
        assert (request.method, request.target, request.body) == ("POST", "/bid%20here?a=1&b=%2F", b'{"id":"r"}')
        assert request.headers == {
            "host": f"127.0.0.1:{server.port}",
            "authorization": "Bearer t",
            "x-openrtb-version": "2.5",
            "content-type": "application/json",
            "accept-encoding": "gzip",
            "content-length": "10",
        }
        assert server.connections == 1


@pytest.mark.parametrize(
    ("url", "headers"),
    [
        ("ftp://dsp.test/", {}),
        ("dsp.test/bid", {}),
        ("http://", {}),
        ("http://dsp.test:99999/", {}),
        ("http://user:secret@dsp.test/", {}),
        ("http://10.0.0.1/", {}),
        ("http://169.254.169.254/latest/meta-data", {}),
        ("http://[::1]/", {}),
        ("http://dsp.test/", {"x": "a\r\nhost: evil"}),
        ("http://dsp.test/", {"x\r\nhost": "a"}),
        ("http://dsp.test/", {"Content-Length": "3"}),
        ("http://dsp.test/", {"Transfer-Encoding": "chunked"}),
    ],
)
async def test_a_wrong_endpoint_is_refused_when_it_is_configured(url: str, headers: dict[str, str]) -> None:
    """Not when it is called; the line does not show a password."""
    client = FanoutClient(SystemClock())
    with pytest.raises(ConfigError) as refused:
        client.endpoint(url, headers=headers)
    assert "secret" not in str(refused.value)
    await client.close()


async def test_a_gzip_response_is_decompressed(client: FanoutClient) -> None:
    """As is a chunked one put together."""
    packed = gzip.compress(b"good")
    pieces = b"".join(b"%x\r\n%b\r\n" % (1, bytes([byte])) for byte in packed)
    chunked = b"HTTP/1.1 200 OK\r\nContent-Encoding: GZIP\r\ntransfer-encoding: chunked\r\n\r\n" + pieces + b"0\r\n\r\n"
    async with RawServer(answering(chunked, chunked)) as server:
        endpoint = client.endpoint(server.url)
        assert [(await ask(client, endpoint)).content for _ in range(2)] == [b"good", b"good"]
        assert server.connections == 1


async def test_connections_are_limited_and_so_is_the_wait(client: FanoutClient) -> None:
    """Three connections, two calls that wait for one: the sixth call fails at once, the others get their answers."""
    async with HttpServer() as server:
        server.hold.clear()
        endpoint = client.endpoint(server.url(), limits=Limits(connections=3, waiting=2))
        calls = [asyncio.create_task(ask(client, endpoint)) for _ in range(5)]
        await server.asked(3)
        over = await ask(client, endpoint)
        assert over.failure is Failure.BUSY
        server.hold.set()
        assert {call.status for call in await asyncio.gather(*calls)} == {204}
        assert (server.most_at_once, server.connections) == (3, 3)


async def test_a_call_may_time_out_while_it_waits_for_a_connection(client: FanoutClient) -> None:
    """Its place is free again; the connection goes on with the call before it."""
    async with HttpServer() as server:
        server.hold.clear()
        endpoint = client.endpoint(server.url(), limits=Limits(connections=1, waiting=1))
        first = asyncio.create_task(ask(client, endpoint))
        await server.asked(1)
        assert (await ask(client, endpoint, within_s=0.02)).failure is Failure.TIMEOUT
        third = asyncio.create_task(ask(client, endpoint))
        server.hold.set()
        assert {(await first).status, (await third).status} == {204}
        assert (server.connections, len(server.requests)) == (1, 2)


async def test_a_cancelled_call_is_never_heard_of_and_closes_its_connection(client: FanoutClient) -> None:
    """Whether it was on the wire or waited."""
    heard: list[Call] = []
    async with HttpServer() as server:
        server.hold.clear()
        endpoint = client.endpoint(server.url(), limits=Limits(connections=1))
        on_wire = client.call(endpoint, b"{}", heard.append, soon_ns())
        await server.asked(1)
        waiting = client.call(endpoint, b"{}", heard.append, soon_ns())
        client.cancel(waiting)
        client.cancel(on_wire)
        client.cancel(on_wire)
        server.hold.set()
        assert (await ask(client, endpoint)).status == 204
        assert (server.connections, len(server.requests), heard) == (2, 2, [])


async def test_the_caller_may_raise(client: FanoutClient) -> None:
    """That is logged; the connection serves the next call."""

    def broken(call: Call) -> None:
        raised.set()
        raise RuntimeError("a mistake of ours")

    raised = asyncio.Event()
    async with HttpServer() as server:
        endpoint = client.endpoint(server.url())
        client.call(endpoint, b"{}", broken, soon_ns())
        await raised.wait()
        assert (await ask(client, endpoint)).status == 204
        assert server.connections == 1


async def test_connections_are_opened_ahead_of_need() -> None:
    """At the start as many as are to be kept warm, and again when they have been idle for too long."""
    clock = ManualClock()
    client = FanoutClient(clock, allow=LOCAL)
    async with RawServer(answering()) as server:
        client.endpoint(server.url, limits=Limits(warm=3, keep_alive_s=10))
        client.start()
        await server.until(lambda: server.open == 3)
        clock.advance(9)
        await asyncio.sleep(0)
        assert server.connections == 3
        clock.advance(2)
        await server.until(lambda: server.connections == 6 and server.open == 3)
        await client.close()


async def test_an_idle_connection_is_used_only_for_so_long() -> None:
    """For the configured time, or a second less than what the server announces."""
    clock = ManualClock()
    client = FanoutClient(clock, allow=LOCAL)
    plain = HttpServer()
    hinting = HttpServer(Reply(headers={"Keep-Alive": "timeout=5, max=100"}))
    async with plain, hinting:
        for server, kept_s in ((plain, 15), (hinting, 4)):
            endpoint = client.endpoint(server.url())
            for seconds, connections in ((0, 1), (kept_s - 0.5, 1), (kept_s + 0.5, 2)):
                clock.advance(seconds)
                answered: asyncio.Future[Call] = asyncio.get_running_loop().create_future()
                client.call(endpoint, b"{}", answered.set_result, clock.monotonic_ns() + 10**9)
                assert (await answered).status == 204
                assert server.connections == connections
        await client.close()


async def test_a_server_that_is_away_is_not_hurried() -> None:
    """Calls fail with the reason at once while it is left alone, and are tried again after a pause that grows."""
    clock = ManualClock()
    client = FanoutClient(clock, allow=LOCAL)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    endpoint = client.endpoint(f"http://127.0.0.1:{port}/")

    async def once() -> Call:
        answered: asyncio.Future[Call] = asyncio.get_running_loop().create_future()
        client.call(endpoint, b"{}", answered.set_result, clock.monotonic_ns() + 10**9)
        return await answered

    assert (await once()).failure is Failure.CONNECT
    server = RawServer(answering(GOOD))
    server.port = port
    async with server:
        assert (await once()).failure is Failure.CONNECT
        assert server.connections == 0
        clock.advance(0.11)
        assert (await once()).content == b"good"
    await client.close()


async def test_names_are_followed_to_new_addresses() -> None:
    """A connection to an address that the name no longer has is not used again."""
    clock = ManualClock()
    addresses = ["127.0.0.1"]

    async def resolve(host: str) -> list[str]:
        asked.append(host)
        return list(addresses)

    asked: list[str] = []
    client = FanoutClient(clock, allow=LOCAL, resolve=resolve, names_fresh_s=30)
    async with HttpServer() as server:
        with socket.create_server(("127.0.0.2", server.port)) as second:
            second.settimeout(20)
            endpoint = client.endpoint(server.url(host="dsp.test"), limits=Limits(keep_alive_s=1_000))
            client.start()
            answered: asyncio.Future[Call] = asyncio.get_running_loop().create_future()
            client.call(endpoint, b"{}", answered.set_result, clock.monotonic_ns() + 10**9)
            assert (await answered).status == 204
            assert server.requests[0].headers["host"] == f"dsp.test:{server.port}"
            addresses[:] = ["127.0.0.2"]
            clock.advance(31)
            while endpoint.pool.connections:
                await asyncio.sleep(0)
                clock.advance(1)
            client.call(endpoint, b"{}", lambda call: None, clock.monotonic_ns() + 10**9)
            connection, _ = await asyncio.get_running_loop().run_in_executor(None, second.accept)
            connection.close()
            assert asked == ["dsp.test"] * len(asked)
            await client.close()


async def test_a_name_that_leads_inside_is_not_connected_to() -> None:
    """Whatever it led to when it was configured: the address that is connected to decides."""

    async def resolve(host: str) -> list[str]:
        return ["127.0.0.1"] if host == "rebound.test" else ["10.0.0.7", "127.0.0.1"]

    client = FanoutClient(SystemClock(), allow=["mine.test", "127.0.0.1"], resolve=resolve)
    strict = FanoutClient(SystemClock(), resolve=resolve)
    async with HttpServer() as server:
        refused = await ask(strict, strict.endpoint(server.url(host="rebound.test")))
        assert refused.failure is Failure.REFUSED
        assert "127.0.0.1" in refused.detail
        assert not server.connections
        assert (await ask(client, client.endpoint(server.url(host="other.test")))).status == 204
        await client.close()
        await strict.close()


async def test_every_address_of_a_name_is_tried() -> None:
    """Until one takes the connection."""

    async def resolve(host: str) -> list[str]:
        return ["127.0.0.3", "127.0.0.2", "127.0.0.1"]  # nobody listens on the first two

    client = FanoutClient(SystemClock(), allow=LOCAL, resolve=resolve)
    async with HttpServer() as server:
        assert (await ask(client, client.endpoint(server.url(host="dsp.test")))).status == 204
        await client.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `cert` and `key`, signed by themselves, for dsp.test."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate, and it is not installed")
    folder = tmp_path_factory.mktemp("certificate")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=dsp.test"
    files = ["-addext", "subjectAltName=DNS:dsp.test", "-keyout", "key", "-out", "cert"]
    subprocess.run([*command.split(), *files], cwd=folder, check=True, capture_output=True)
    return folder


async def test_certificates_are_checked(certificate: Path) -> None:
    """Against the authorities that are trusted, and the host's name; nothing is sent to a server that fails."""

    async def resolve(host: str) -> list[str]:
        return ["127.0.0.1"]

    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs.load_cert_chain(certificate / "cert", certificate / "key")
    trusted = ssl.create_default_context(cafile=str(certificate / "cert"))
    trusting = FanoutClient(SystemClock(), allow=LOCAL, resolve=resolve, tls=trusted)
    plain = FanoutClient(SystemClock(), allow=LOCAL, resolve=resolve)
    async with HttpServer(Reply(200, {}, b"x" * 100_000), tls=theirs) as server:
        endpoint = trusting.endpoint(server.url(host="dsp.test"))
        assert [len((await ask(trusting, endpoint)).content) for _ in range(2)] == [100_000] * 2
        assert (server.connections, len(server.requests)) == (1, 2)
        for client, host in ((trusting, "other.test"), (plain, "dsp.test")):
            call = await ask(client, client.endpoint(server.url(host=host)))
            assert call.failure is Failure.CONNECT
            assert "certificate" in call.detail.lower()
        assert len(server.requests) == 2
        await trusting.close()
        await plain.close()


async def test_the_network_is_measured_apart_from_the_server(client: FanoutClient) -> None:
    """On loopback a round trip takes microseconds, however long the server thinks. Its kernel acknowledges a request
    together with the response, so that what the kernel has seen of late is the thinking, too."""
    think_s = 0.03

    async def thinking(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await read_request(reader):
            await asyncio.sleep(think_s)
            writer.write(GOOD)

    async with RawServer(thinking) as server:
        endpoint = client.endpoint(server.url)
        assert endpoint.network_ns == 0
        for _ in range(25):
            assert (await ask(client, endpoint)).status == 200
        endpoint.pool.sweep(SystemClock().monotonic_ns())
        assert 0 < endpoint.network_ns < think_s * 1e9 / 4


async def test_closing_fails_what_is_under_way_and_leaves_no_connection(client: FanoutClient) -> None:
    """On the wire or waiting; a call after that fails too."""
    async with RawServer(answering(b"")) as server:
        endpoint = client.endpoint(server.url, limits=Limits(connections=1))
        calls = [asyncio.create_task(ask(client, endpoint)) for _ in range(2)]
        await server.until(lambda: server.open == 1)
        await client.close()
        assert {call.failure for call in await asyncio.gather(*calls)} == {Failure.CLOSED}
        await server.until(lambda: server.open == 0)
        assert (await ask(client, endpoint)).failure is Failure.CLOSED


async def test_a_retired_endpoint_finishes_what_it_has_begun(client: FanoutClient) -> None:
    """On the wire or waiting; then its connections close, and further calls fail. Other endpoints go on."""
    async with HttpServer() as server:
        server.hold.clear()
        endpoint = client.endpoint(server.url(), limits=Limits(connections=1))
        other = client.endpoint(server.url())
        calls = [asyncio.create_task(ask(client, endpoint)) for _ in range(2)]
        await server.asked(1)
        client.retire(endpoint)
        assert (await ask(client, endpoint)).failure is Failure.CLOSED
        server.hold.set()
        assert {call.status for call in await asyncio.gather(*calls)} == {204}
        assert (server.connections, endpoint.pool.is_over) == (1, True)
        assert (await ask(client, other)).status == 204
