"""The in-process broker with a journal in a process that is killed at work, again and again."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

from rtb.adapters.clock import SystemClock
from rtb.adapters.memory_broker import MemoryBroker
from rtb.ports import QueueSpec, Topology

LIVES = 5
LINES = 1_500
"""What a process says before it is killed."""

WORKER = """
import asyncio, sys
from pathlib import Path
from rtb.adapters.clock import SystemClock
from rtb.adapters.memory_broker import MemoryBroker
from rtb.ports import Message, QueueSpec, Topology

async def main():
    broker = MemoryBroker(SystemClock(), journal=Path(sys.argv[1]))
    await broker.start()
    work = QueueSpec("work", delivery_limit=20, dead_letter_exchange="", dead_letter_routing_key="dead")
    await broker.declare(Topology({}, [work, QueueSpec("dead")], []))
    n = int(sys.argv[2])

    def take(delivery):
        number = int(delivery.message.body)
        if number % 7 == 0:
            delivery.nack(requeue=False)
        else:
            print("done", number, flush=True)
            delivery.ack()

    def send():
        nonlocal n
        number, n = n, n + 1

        def confirmed(error):
            assert error is None
            print("confirmed", number, flush=True)
            asyncio.get_running_loop().call_soon(send)

        broker.send("", "work", Message(body=b"%d" % number), confirmed)

    for _ in range(50):
        send()
    await asyncio.sleep(0.01)  # some stand in the queue before anybody takes them
    await broker.consume("work", take, prefetch=20)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def live(folder: Path, first: int) -> list[tuple[str, int]]:
    """What a process that sends from this number on says until it is killed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WORKER, str(folder), str(first), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    said = [await process.stdout.readline() for _ in range(LINES)]
    process.send_signal(signal.SIGKILL)
    rest, _ = await process.communicate()
    said += rest.splitlines(keepends=True)
    lines = [line.split() for line in said if line.endswith(b"\n")]  # the last may be torn
    return [(line[0].decode(), int(line[1])) for line in lines if line[0] in (b"done", b"confirmed")]


async def test_a_process_killed_at_work_loses_nothing_confirmed(tmp_path: Path) -> None:
    """Five times over: every confirmed message was done by a consumer, or is in its queue, or, if it was rejected, in
    the dead letters; and what was done well before a kill is not done again."""
    folder = tmp_path / "journal"
    confirmed: set[int] = set()
    done: list[int] = []
    for life in range(LIVES):
        said = await live(folder, life * 100_000)
        confirmed |= {number for what, number in said if what == "confirmed"}
        mine = [number for what, number in said if what == "done"]
        assert not set(mine) & set(done[:-500])
        done += mine
    broker = MemoryBroker(SystemClock(), journal=folder)
    await broker.start()
    await broker.declare(Topology({}, [QueueSpec("work"), QueueSpec("dead")], []))
    left: dict[str, list[int]] = {"work": [], "dead": []}
    for queue, numbers in left.items():
        while (delivery := await broker.get(queue)) is not None:
            assert delivery.redelivered
            numbers.append(int(delivery.message.body))
    await broker.close()
    assert left["work"] == sorted(left["work"])
    assert all(number % 7 == 0 for number in left["dead"])
    assert confirmed <= {*done, *left["work"], *left["dead"]}
    assert {number for number in confirmed if number % 7 == 0} <= {*left["work"], *left["dead"]}
