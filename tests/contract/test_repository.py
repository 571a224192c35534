"""Contract of ports.Repository."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec
import pytest

from rtb.domain.campaign import Campaign, Circle, Creative, FrequencyCap, Media, Pricing, Status, Targeting
from rtb.domain.profile import Profile
from rtb.errors import StoreError
from rtb.ports import Repository


def campaign(id_: str, version: int = 1, bid: float = 1.0) -> Campaign:
    """A small campaign."""
    return Campaign(id=id_, advertiser="acme", creatives=(Creative(id="c"),), bid=bid, version=version)


async def everything(repository: Repository, chunk: int = 10_000) -> list[Campaign]:
    """All campaigns in one list."""
    return [campaign async for part in repository.campaigns(chunk) for campaign in part]


RICH = Campaign(
    id="rich-Ünïcode-☂",
    advertiser="acme",
    creatives=(
        Creative(id="a", w=300, h=250, adm="<a href='x'>\u0000\n</a>", attr=(1, 2)),
        Creative(id="b", media=Media.VIDEO, dur=15, mime="video/mp4", protocol=3, landing_page="https://example.com"),
    ),
    name="Everything set",
    adomain=("acme.example",),
    cat=("IAB3", "IAB3-1"),
    status=Status.PAUSED,
    pricing=Pricing.CPC,
    bid=0.35,
    daily_budget=1_000.5,
    start=datetime(2026, 1, 1, tzinfo=UTC),
    end=datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC),
    timezone="Asia/Seoul",
    frequency_cap=FrequencyCap(3, 3_600),
    deals=("deal-1",),
    targeting=Targeting(interests=("tea",), geo=(Circle(37.5, 127.0, 5.0),), country=("KOR",), hours=(0, 167)),
    version=7,
)


async def test_a_campaign_comes_back_as_it_was_written(repository: Repository) -> None:
    """Every field survives, whatever it holds."""
    assert await repository.put_campaigns([RICH]) == 1
    assert await repository.campaign(RICH.id) == RICH
    assert await everything(repository) == [RICH]


async def test_an_unknown_campaign_is_none(repository: Repository) -> None:
    """Nothing there is a value, not an error."""
    assert await repository.campaign("nobody") is None
    assert await everything(repository) == []


@pytest.mark.parametrize("chunk", [1, 2, 3, 100])
async def test_campaigns_come_by_id_in_chunks(repository: Repository, chunk: int) -> None:
    """Each campaign comes once, in the order of ids, in lists of at most the asked size and never an empty one."""
    ids = ["c-10", "c-07", "c-01", "c-99", "c-50"]
    await repository.put_campaigns([campaign(id_) for id_ in ids])
    parts = [part async for part in repository.campaigns(chunk)]
    assert [c.id for part in parts for c in part] == sorted(ids)
    assert all(0 < len(part) <= chunk for part in parts)


async def test_equal_values_of_campaigns_stay_equal(repository: Repository) -> None:
    """Loading may share values between campaigns but changes none, whatever they have in common."""
    wanted = [
        msgspec.structs.replace(
            RICH,
            id=f"c-{n}",
            cat=("IAB1",) * (n % 3),
            targeting=Targeting(interests=("tea", f"i-{n % 2}"), devicetype=(1, 2), hours=(1, 2)),
        )
        for n in range(9)
    ]
    await repository.put_campaigns(wanted)
    loaded = await everything(repository)
    assert loaded == wanted
    assert [type(c.creatives[0].w) for c in loaded] == [int] * 9


async def test_only_a_newer_version_replaces(repository: Repository) -> None:
    """An older or equal version is not written, and not counted."""
    await repository.put_campaigns([campaign("a", version=2), campaign("b", version=2)])
    written = await repository.put_campaigns(
        [campaign("a", version=1, bid=9.0), campaign("b", version=3, bid=9.0), campaign("c")]
    )
    assert written == 2
    assert [(c.id, c.version, c.bid) for c in await everything(repository)] == [
        ("a", 2, 1.0),
        ("b", 3, 9.0),
        ("c", 1, 1.0),
    ]
    assert await repository.put_campaigns([campaign("b", version=3, bid=5.0)]) == 0


async def test_of_two_versions_in_one_call_the_newest_counts(repository: Repository) -> None:
    """One campaign may stand several times in a call, in any order."""
    assert await repository.put_campaigns([campaign("a", 1), campaign("a", 3, bid=3.0), campaign("a", 2)]) == 1
    stored = await repository.campaign("a")
    assert stored is not None
    assert (stored.version, stored.bid) == (3, 3.0)


async def test_many_campaigns_in_one_call(repository: Repository) -> None:
    """More campaigns than a database takes in one statement are one call, and counted."""
    assert await repository.put_campaigns([campaign(f"c-{n:05d}") for n in range(10_001)]) == 10_001
    assert len(await everything(repository, chunk=4_000)) == 10_001
    assert await repository.put_campaigns([]) == 0


async def test_a_failed_call_writes_nothing(repository: Repository) -> None:
    """When one campaign cannot be written, none of the call is."""
    broken = msgspec.structs.replace(campaign("z"), version=2**70)  # beyond a 64-bit column
    with pytest.raises(StoreError):
        await repository.put_campaigns([*(campaign(f"c-{n:05d}") for n in range(5_000)), broken])
    assert await everything(repository) == []


async def test_writers_do_not_disturb_each_other(repositories: Callable[[], Repository]) -> None:
    """Of several daemons that write versions of a campaign at once, the newest version stays, and each new campaign."""
    daemons = [repositories() for _ in range(3)]
    for daemon in daemons:
        await daemon.start()
    await asyncio.gather(
        *(d.put_campaigns([campaign("a", v), campaign(f"own-{v}")]) for v in range(1, 13) for d in daemons[v % 3 :][:1])
    )
    stored = await everything(daemons[0])
    assert [(c.id, c.version) for c in stored if c.id == "a"] == [("a", 12)]
    assert len(stored) == 13


async def changed(repository: Repository, after: int, chunk: int = 10_000) -> list[tuple[int, str, int]]:
    """The changes after a number: number, campaign id and version."""
    return [(n, c.id, c.version) async for part in repository.changes(after, chunk) for n, c in part]


@pytest.mark.parametrize("chunk", [1, 2, 100])
async def test_changes_tell_what_was_written_since(repository: Repository, chunk: int) -> None:
    """Each campaign comes once, with its newest version, in the order of the last changes; what was not written, being
    of an old version, is no change."""
    assert await repository.last_change() == 0
    await repository.put_campaigns([campaign("b"), campaign("a"), campaign("c")])
    start = await repository.last_change()
    first = await changed(repository, 0, chunk)
    assert [id_ for _, id_, _ in first] == ["b", "a", "c"]
    assert 0 < first[0][0] < first[1][0] < first[2][0] <= start
    assert await changed(repository, first[0][0], chunk) == first[1:]
    assert await changed(repository, start, chunk) == []
    await repository.put_campaigns([campaign("c", 2), campaign("d", 5), campaign("a", 1)])
    await repository.put_campaigns([campaign("b", 1)])
    await repository.put_campaigns([campaign("b", 4)])
    later = await changed(repository, start, chunk)
    assert [(id_, version) for _, id_, version in later] == [("c", 2), ("d", 5), ("b", 4)]
    assert start < later[0][0] < later[1][0] < later[2][0] <= await repository.last_change()
    assert [id_ for _, id_, _ in await changed(repository, 0, chunk)] == ["a", "c", "d", "b"]
    parts = [part async for part in repository.changes(0, chunk)]
    assert all(0 < len(part) <= chunk for part in parts)


async def test_a_change_is_a_whole_campaign(repository: Repository) -> None:
    """What comes with the number is the campaign as it was written."""
    await repository.put_campaigns([RICH])
    assert [c async for part in repository.changes(0) for _, c in part] == [RICH]


async def test_a_failed_call_is_no_change(repository: Repository) -> None:
    """Changes that were undone are never seen, and those after them are."""
    broken = msgspec.structs.replace(campaign("z"), version=2**70)
    with pytest.raises(StoreError):
        await repository.put_campaigns([campaign("a"), broken])
    before = await repository.last_change()
    assert await changed(repository, 0) == []
    await repository.put_campaigns([campaign("a")])
    assert [id_ for _, id_, _ in await changed(repository, before)] == ["a"]


async def test_who_follows_the_changes_misses_nothing(repositories: Callable[[], Repository]) -> None:
    """While several daemons write at once, a reader that always goes on after the last number it saw ends with what the
    database holds: no change becomes visible behind a number that was seen."""
    writers, reader = [repositories() for _ in range(3)], repositories()
    for daemon in (*writers, reader):
        await daemon.start()
    seen: dict[str, int] = {}
    at, numbers = 0, itertools.count()

    async def write_much() -> None:
        for version in range(1, 5):
            own = [campaign(f"much-{version}-{n}") for n in range(1_500)]
            await writers[0].put_campaigns([*own, campaign("shared", version)])

    async def write_often(daemon: Repository, number: int) -> None:
        while not much.done():
            await daemon.put_campaigns([campaign(f"often-{number}-{next(numbers)}")])

    async def follow() -> None:
        nonlocal at
        async for part in reader.changes(at, 500):
            for number, got in part:
                at, seen[got.id] = number, got.version

    much = asyncio.ensure_future(write_much())
    often = [asyncio.ensure_future(write_often(daemon, number)) for number, daemon in enumerate(writers[1:])]
    while not much.done():
        await follow()
    await asyncio.gather(much, *often)
    await follow()
    assert seen == {c.id: c.version for c in await everything(reader)}
    assert len(seen) == 4 * 1_500 + next(numbers) + 1


async def test_profiles_come_in_the_order_asked(repository: Repository) -> None:
    """An unknown user is None, a user asked twice comes twice, and the last of two written counts."""
    tea, old = Profile("u1", interests=("tea",), segments=("s",)), Profile("u2", interests=("old",))
    await repository.put_profiles([tea, old, Profile("u2", interests=("new",))])
    await repository.put_profiles([Profile("u3")])
    await repository.put_profiles([Profile("u3", segments=("x",))])
    assert await repository.profiles(["u2", "nobody", "u1", "u2", "u3"]) == [
        Profile("u2", interests=("new",)),
        None,
        tea,
        Profile("u2", interests=("new",)),
        Profile("u3", segments=("x",)),
    ]
    assert await repository.profiles([]) == []


async def test_a_name_with_a_nul_is_nobody(repository: Repository) -> None:
    """An id that no database can hold hides no other user's profile."""
    await repository.put_profiles([Profile("u")])
    assert await repository.profiles(["a\0b", "u"]) == [None, Profile("u")]


async def test_ids_are_ordered_by_their_characters(repository: Repository) -> None:
    """The order of ids is that of their code points, not of a language."""
    ids = ["B", "a", "_", "é", "Z9", "z", "-", "☂"]
    await repository.put_campaigns([campaign(id_) for id_ in ids])
    assert [c.id for c in await everything(repository, chunk=3)] == sorted(ids)


async def test_what_is_written_outlives_the_connection(repositories: Callable[[], Repository]) -> None:
    """A second repository, opened after the first was closed, finds everything."""
    first = repositories()
    await first.start()
    await first.put_campaigns([RICH])
    await first.put_profiles([Profile("u")])
    await first.close()
    second = repositories()
    await second.start()
    assert await second.campaign(RICH.id) == RICH
    assert await second.profiles(["u"]) == [Profile("u")]


async def test_a_closed_repository_says_so(repositories: Callable[[], Repository]) -> None:
    """Before start and after close every call is a StoreError that tells what to do; closing again does nothing."""
    repository = repositories()
    with pytest.raises(StoreError, match=r"start\(\)"):
        await repository.campaign("a")
    await repository.start()
    await repository.close()
    await repository.close()
    with pytest.raises(StoreError, match=r"start\(\)"):
        await repository.put_campaigns([campaign("a")])
