"""rtb.services.dead_letters and rtb.services.topology over every broker."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from rtb.errors import NotFound
from rtb.messages import MessageType
from rtb.ports import ERROR, Broker, Message, QueueSpec, Topology
from rtb.services import topology as table
from rtb.services.dead_letters import DeadLetters
from tests.contract.brokers import Inbox


@pytest_asyncio.fixture
async def declared(broker: Broker) -> AsyncIterator[Broker]:
    """A broker with the topology, and nothing in the queues used here."""
    await broker.declare(table.topology())
    for name in (table.CLICKS, table.WINS, table.DEAD):
        await broker.purge(name)
    yield broker
    for name in (table.CLICKS, table.WINS, table.DEAD):
        await broker.purge(name)


async def bury(broker: Broker, kind: MessageType, queue: str, *ids: str) -> None:
    """Publish events and have their consumer reject them."""
    for id_ in ids:
        message = Message(body=id_.encode(), message_id=id_, timestamp=7.0, headers={"kept": 1, "x-rtb-attempt": 3})
        await broker.publish(*table.ROUTES[kind], message)
        delivery = await (inbox := await Inbox(ack=False).open(broker, queue)).next()
        delivery.nack(requeue=False)
        await inbox.subscription.cancel()
        await arrived(broker, id_)


async def arrived(broker: Broker, id_: str) -> None:
    """Wait until the newest dead letter is this one."""
    letters = DeadLetters(broker)
    while id_ not in [letter.message_id for letter in await letters.oldest()]:
        pass


async def test_the_topology_is_what_was_declared(declared: Broker) -> None:
    """check finds nothing on a broker that has it, and names what is missing elsewhere."""
    assert list(await table.check(declared)) == []


async def test_dead_letters_are_listed_and_stay(declared: Broker) -> None:
    """Oldest first, with the queue they died in and the reason; looking changes nothing."""
    await bury(declared, MessageType.CLICK, table.CLICKS, "c1", "c2")
    await bury(declared, MessageType.WIN, table.WINS, "w1")
    letters = DeadLetters(declared)
    for _ in range(2):
        listed = await letters.oldest()
        assert [(x.message_id, x.queue, x.reason, x.deaths, x.body) for x in listed] == [
            ("c1", "ad.clicks", "rejected", 1, b"c1"),
            ("c2", "ad.clicks", "rejected", 1, b"c2"),
            ("w1", "ad.wins", "rejected", 1, b"w1"),
        ]
    assert [letter.message_id for letter in await letters.oldest(limit=2)] == ["c1", "c2"]
    assert (await letters.show("c2")).timestamp == 7.0
    with pytest.raises(NotFound, match=r"c9.*; `rtb dead-letters list` names them"):
        await letters.show("c9")
    assert (await declared.depth(table.DEAD)).ready == 3


async def test_a_dead_letter_goes_back_to_its_queue_afresh(declared: Broker) -> None:
    """Nothing of its death and attempts is left on it, the others stay, and it is no dead letter any more."""
    await bury(declared, MessageType.CLICK, table.CLICKS, "c1", "c2", "c3")
    letters = DeadLetters(declared)
    done = await letters.requeue(["c2"])
    assert (done.count, done.kept) == (1, ())
    again = await (await Inbox().open(declared, table.CLICKS)).next()
    assert (again.message.message_id, dict(again.message.headers), again.redelivered) == ("c2", {"kept": 1}, False)
    assert [letter.message_id for letter in await letters.oldest()] == ["c1", "c3"]
    with pytest.raises(NotFound, match="`rtb dead-letters list` names them"):
        await letters.requeue(["c2"])


async def test_all_dead_letters_go_back(declared: Broker) -> None:
    """Each to the queue that it died in."""
    await bury(declared, MessageType.CLICK, table.CLICKS, "c1")
    await bury(declared, MessageType.WIN, table.WINS, "w1")
    assert (await DeadLetters(declared).requeue()).count == 2
    assert await (await Inbox().open(declared, table.CLICKS)).bodies(1) == [b"c1"]
    assert await (await Inbox().open(declared, table.WINS)).bodies(1) == [b"w1"]
    assert (await DeadLetters(declared).requeue()).count == 0


async def test_what_has_no_queue_any_more_stays(declared: Broker, prefix: str) -> None:
    """A dead letter whose queue is gone is kept, and named."""
    await declared.publish(table.DEAD_LETTERS, prefix, Message(body=b"1", message_id="lost", headers={ERROR: "why"}))
    letters = DeadLetters(declared)
    done = await letters.requeue()
    assert done.count == 0
    assert done.kept == (f"lost: there is no queue {prefix} any more",)
    (letter,) = await letters.oldest()
    assert (letter.queue, letter.error, letter.reason, letter.deaths) == (prefix, "why", "", 0)
    await declared.declare(Topology({}, [QueueSpec(prefix)], []))
    assert (await letters.requeue()).count == 1
    assert await (await Inbox().open(declared, prefix)).bodies(1) == [b"1"]


async def test_dead_letters_are_dropped(declared: Broker) -> None:
    """Those named, or all."""
    await bury(declared, MessageType.CLICK, table.CLICKS, "c1", "c2", "c3")
    letters = DeadLetters(declared)
    assert await letters.purge(["c1", "c3"]) == 2
    assert [letter.message_id for letter in await letters.oldest()] == ["c2"]
    with pytest.raises(NotFound, match="`rtb dead-letters list` names them"):
        await letters.purge(["c1"])
    assert await letters.purge() == 1
    assert await letters.oldest() == []


async def test_a_retry_comes_back(declared: Broker) -> None:
    """A message on a retry exchange returns to the queue named by its key, and is still no dead letter."""
    inbox = await Inbox().open(declared, table.CLICKS)
    await declared.publish(table.retry_exchange(1), table.CLICKS, Message(body=b"again"))
    assert await inbox.bodies(1) == [b"again"]
    assert (await declared.depth(table.DEAD)).ready == 0
