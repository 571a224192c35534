"""Names are resolved once, then refreshed aside."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from rtb.adapters.clock import ManualClock
from rtb.adapters.http_dns import Names


class Server:
    """A name server that answers when it is told to: with the addresses, or with an error."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answers: dict[str, Sequence[str] | OSError] = {}
        self.open = asyncio.Event()
        self.open.set()

    async def resolve(self, host: str) -> Sequence[str]:
        """Answer."""
        self.asked.append(host)
        await self.open.wait()
        answer = self.answers[host]
        if isinstance(answer, OSError):
            raise answer
        return answer


async def turns() -> None:
    """Let what is ready run: a few turns of the loop."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_name_is_looked_up_once_however_many_ask() -> None:
    """All get the answer of the one lookup; later ones do not wait."""
    server, clock = Server(), ManualClock()
    server.answers["dsp.test"] = ["192.0.2.1", "192.0.2.2"]
    names = Names(clock, server.resolve)
    found = await asyncio.gather(*(names.addresses("dsp.test") for _ in range(5)))
    assert {tuple(each) for each in found} == {("192.0.2.1", "192.0.2.2")}
    server.open.clear()
    assert await names.addresses("dsp.test") == names.known("dsp.test") == ("192.0.2.1", "192.0.2.2")
    assert server.asked == ["dsp.test"]


async def test_a_refresh_replaces_the_addresses_when_it_succeeds() -> None:
    """Nobody waits for it; while the name server is broken the old ones serve on, and it is not asked in a hurry."""
    server, clock = Server(), ManualClock()
    server.answers["dsp.test"] = ["192.0.2.1"]
    names = Names(clock, server.resolve, fresh_s=30)
    await names.addresses("dsp.test")
    names.refresh("dsp.test")
    assert len(server.asked) == 1
    clock.advance(31)
    server.answers["dsp.test"] = OSError("the name server is away")
    for _ in range(3):
        names.refresh("dsp.test")
        await turns()
    assert (len(server.asked), names.known("dsp.test")) == (2, ("192.0.2.1",))
    clock.advance(31)
    server.answers["dsp.test"] = ["192.0.2.9"]
    names.refresh("dsp.test")
    await turns()
    assert names.known("dsp.test") == ("192.0.2.9",)


async def test_a_name_without_an_address_is_an_error_until_it_has_one() -> None:
    """The first lookup failed: whoever asks next asks the name server again."""
    server, clock = Server(), ManualClock()
    names = Names(clock, server.resolve)
    server.answers["dsp.test"] = []
    with pytest.raises(OSError, match=r"dsp\.test has no address"):
        await names.addresses("dsp.test")
    server.answers["dsp.test"] = OSError("no such host")
    with pytest.raises(OSError, match="no such host"):
        await names.addresses("dsp.test")
    server.answers["dsp.test"] = ["192.0.2.1"]
    assert await names.addresses("dsp.test") == ("192.0.2.1",)


async def test_closing_ends_a_lookup_that_hangs() -> None:
    """Whoever waits for it is cancelled."""
    server = Server()
    server.open.clear()
    names = Names(ManualClock(), server.resolve)
    waiting = asyncio.create_task(names.addresses("dsp.test"))
    await turns()
    await names.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
