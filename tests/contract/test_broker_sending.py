"""Contract of ports.Broker: sending without a task, where a callback hears the broker's answer."""

from __future__ import annotations

import asyncio

from rtb.errors import BrokerError, Unroutable
from rtb.ports import DIRECT_REPLY_TO, Binding, Broker, ExchangeType, Message, Overflow, QueueSpec, Topology
from tests.contract.brokers import PATIENCE_S, Connect, Inbox


class Answers:
    """What the broker said to each message, by the name it was sent under."""

    def __init__(self) -> None:
        self.by_name: dict[str, list[BrokerError | None]] = {}
        self._came = asyncio.Event()

    def send(self, broker: Broker, exchange: str, key: str, name: str, *, mandatory: bool = True, **more: str) -> None:
        """Send a message of that name and body."""

        def done(error: BrokerError | None) -> None:
            self.by_name.setdefault(name, []).append(error)
            self._came.set()

        broker.send(exchange, key, Message(body=name.encode(), message_id=name, **more), done, mandatory=mandatory)

    async def all(self, count: int) -> dict[str, BrokerError | None]:
        """The answers to so many messages, one each."""
        async with asyncio.timeout(PATIENCE_S):
            while len(self.by_name) < count:
                self._came.clear()
                await self._came.wait()
        assert all(len(answers) == 1 for answers in self.by_name.values())
        return {name: answers[0] for name, answers in self.by_name.items()}


async def test_what_is_sent_is_confirmed_once_and_in_order(broker: Broker, prefix: str) -> None:
    """Many within one step of the loop: each is answered, and they arrive as sent."""
    await broker.declare(Topology({}, [QueueSpec(prefix)], []))
    answers = Answers()
    names = [str(n) for n in range(300)]
    for name in names:
        answers.send(broker, "", prefix, name)
    assert await answers.all(300) == dict.fromkeys(names)
    assert await (await Inbox().open(broker, prefix)).bodies(300) == [name.encode() for name in names]


async def test_only_what_is_unroutable_is_told_so(broker: Broker, prefix: str) -> None:
    """Among routed messages; one that is not mandatory vanishes without an error."""
    ex = f"{prefix}.ex"
    await broker.declare(Topology({ex: ExchangeType.DIRECT}, [QueueSpec(prefix)], [Binding(ex, prefix, "k")]))
    answers = Answers()
    answers.send(broker, ex, "k", "routed")
    answers.send(broker, ex, "nowhere", "lost")
    answers.send(broker, ex, "nowhere", "dropped", mandatory=False)
    answers.send(broker, "", f"{prefix}.none", "nobody")
    answers.send(broker, ex, "k", "routed too")
    said = await answers.all(5)
    assert {name: type(error) for name, error in said.items()} == {
        "routed": type(None),
        "lost": Unroutable,
        "dropped": type(None),
        "nobody": Unroutable,
        "routed too": type(None),
    }
    assert "nowhere" in str(said["lost"])


async def test_a_full_queue_refuses_only_what_is_too_much(broker: Broker, prefix: str) -> None:
    """Of three that are confirmed one by one the third does not fit; what stands in the queue stays."""
    await broker.declare(Topology({}, [QueueSpec(prefix, max_length=2, overflow=Overflow.REJECT_PUBLISH)], []))
    answers = Answers()
    for n in range(3):
        answers.send(broker, "", prefix, str(n))
        await answers.all(n + 1)
    said = await answers.all(3)
    assert [said[str(n)] is None for n in range(3)] == [True, True, False]
    assert await (await Inbox().open(broker, prefix)).bodies(2) == [b"0", b"1"]


async def test_an_exchange_of_somebody_else_is_found(connect: Connect, prefix: str) -> None:
    """What this connection did not declare is published to once the broker says it is there, in order; to what is not
    there nothing is published, and the connection stays usable."""
    owner, broker = await connect(), await connect()
    ex = f"{prefix}.ex"
    await owner.declare(Topology({ex: ExchangeType.FANOUT}, [QueueSpec(prefix)], [Binding(ex, prefix)]))
    answers = Answers()
    for n in range(20):
        answers.send(broker, ex, "", str(n))
        answers.send(broker, f"{prefix}.none", "", f"lost {n}")
    said = await answers.all(40)
    assert [name for name, error in said.items() if error is None] == [str(n) for n in range(20)]
    assert all(f"{prefix}.none" in str(said[f"lost {n}"]) for n in range(20))
    assert await (await Inbox().open(broker, prefix)).bodies(20) == [b"%d" % n for n in range(20)]


async def test_what_cannot_be_sent_is_answered_at_once(connect: Connect, prefix: str) -> None:
    """A request for a direct reply that nobody waits for, and anything over a closed connection."""
    broker = await connect()
    await broker.declare(Topology({}, [QueueSpec(prefix)], []))
    answers = Answers()
    answers.send(broker, "", prefix, "asked", reply_to=DIRECT_REPLY_TO)
    await broker.close()
    answers.send(broker, "", prefix, "late")
    said = await answers.all(2)
    assert "nobody here consumes it" in str(said["asked"])
    assert "start() first" in str(said["late"])


async def test_an_answer_may_send_again(broker: Broker, prefix: str) -> None:
    """Each confirm sends the next message, two hundred times over."""
    await broker.declare(Topology({}, [QueueSpec(prefix)], []))
    sent = 0
    finished = asyncio.get_running_loop().create_future()

    def go_on(error: BrokerError | None) -> None:
        nonlocal sent
        if error is not None:
            finished.set_exception(error)
        elif sent == 200:
            finished.set_result(None)
        else:
            sent += 1
            broker.send("", prefix, Message(body=b"%d" % sent), go_on)

    go_on(None)
    await asyncio.wait_for(finished, PATIENCE_S)
    assert await (await Inbox().open(broker, prefix)).bodies(200) == [b"%d" % n for n in range(1, 201)]
