"""What watching costs: CPU and memory of a server with a thousand dashboards, each subscribed to twenty campaigns.

python -m benchmarks.dashboard [clients] [campaigns each] [seconds]

The clients run in this process, the server in another; what is printed is the server's own.
"""

from __future__ import annotations

import asyncio
import resource
import sys
import tempfile
from pathlib import Path

import aiohttp
import psutil  # type: ignore[import-untyped]
import uvloop

from rtb.adapters.clock import SystemClock
from tests.support.dashboard_site import OPS, DashboardSite
from tests.unit.parts import campaign, world

CAMPAIGNS = 40
SETTLE_S = 3


async def serve(folder: str) -> None:
    """A dashboard whose source ticks every second, until the process is ended."""
    campaigns = [campaign(f"c{n}") for n in range(CAMPAIGNS)]
    site = DashboardSite(world(str(Path(folder) / "rtb.db"), campaigns=campaigns, clock=SystemClock()))
    await site.start()
    site.source.start()
    print(site.origin, flush=True)
    await asyncio.Event().wait()


async def measure(clients: int, each: int, seconds: int) -> None:
    """Connect, wait until all is quiet, and look at the server for a while."""
    with tempfile.TemporaryDirectory() as folder:
        server = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "benchmarks.dashboard", "--serve", folder, stdout=asyncio.subprocess.PIPE
        )
        assert server.stdout is not None
        origin = (await server.stdout.readline()).decode().strip()
        process = psutil.Process(server.pid)
        before = process.memory_info().rss
        messages = 0

        async def read(ws: aiohttp.ClientWebSocketResponse) -> None:
            nonlocal messages
            async for _ in ws:
                messages += 1

        try:
            connector = aiohttp.TCPConnector(limit=0)
            async with aiohttp.ClientSession(headers=OPS, connector=connector) as session, asyncio.TaskGroup() as group:
                tasks = []
                for number in range(clients):
                    ws = await session.ws_connect(f"{origin}/ws", max_msg_size=0)
                    for n in range(each):
                        await ws.send_json({"type": "subscribe", "campaign_id": f"c{(number + n) % CAMPAIGNS}"})
                    tasks.append(group.create_task(read(ws)))
                await asyncio.sleep(SETTLE_S)
                began_s, heard = sum(process.cpu_times()[:2]), messages
                await asyncio.sleep(seconds)
                share = (sum(process.cpu_times()[:2]) - began_s) / seconds
                megabytes = (process.memory_info().rss - before) / 1e6
                per_s = (messages - heard) / seconds
                for task in tasks:
                    task.cancel()
        finally:
            server.kill()
            await server.wait()
    print(f"{clients} clients, {each} campaigns each: {share:.1%} of a core, {megabytes:.0f} MB, {per_s:.0f} updates/s")


def main() -> None:
    """See the module."""
    if sys.argv[1:2] == ["--serve"]:
        uvloop.run(serve(sys.argv[2]))
        return
    clients, each, seconds = (int(given) for given in [*sys.argv[1:], *("1000", "20", "20")[len(sys.argv) - 1 :]])
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, max(4 * clients, 1_024)), most))
    uvloop.run(measure(clients, each, seconds))


if __name__ == "__main__":
    main()
