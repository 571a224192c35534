"""Several caps of a campaign at once, from the auction to the state store, and margins on what is won."""

from __future__ import annotations

from rtb.domain.campaign import FrequencyCap, Per
from rtb.services.exchange import Outcome
from tests.unit.parts import Build, bid_request, campaign

HOUR_S = 3_600


def winners(outcome: Outcome) -> list[str | None]:
    """The seat that won each imp."""
    return [result.winner.seat if result.winner else None for result in outcome.results]


async def test_every_cap_of_a_campaign_holds(build: Build) -> None:
    """One an hour and two a day: shown, then not for an hour, shown again, then not before the next day."""
    several = (FrequencyCap(1, per=Per.HOUR), FrequencyCap(2, per=Per.DAY))
    world = build(campaigns=[campaign("a", 3.0, frequency_caps=several), campaign("b", 1.0)])
    await world.repository.start()

    async def shown() -> list[str | None]:
        outcome = await world.run(bid_request(user="u"))
        await world.profiles.close()
        return winners(outcome)

    assert [await shown(), await shown()] == [["a"], ["b"]]
    world.clock.advance(HOUR_S)
    assert [await shown(), await shown()] == [["a"], ["b"]]
    world.clock.advance(HOUR_S)
    assert await shown() == ["b"]
    world.clock.advance(22 * HOUR_S)
    assert await shown() == ["a"]


async def test_a_lifetime_cap_outlives_days(build: Build) -> None:
    """Once and, within 400 days, never again; another user still sees it."""
    once = (FrequencyCap(1, per=Per.LIFETIME),)
    world = build(campaigns=[campaign("a", 3.0, frequency_caps=once), campaign("b", 1.0)])
    await world.repository.start()
    assert winners(await world.run(bid_request(user="u"))) == ["a"]
    for _ in range(3):
        await world.profiles.close()
        world.clock.advance(100 * 24 * HOUR_S)
        assert winners(await world.run(bid_request(user="u"))) == ["b"]
    assert winners(await world.run(bid_request(user="v"))) == ["a"]


async def test_the_margin_is_charged_to_the_budget(build: Build) -> None:
    """A bid of 4.00 with a quarter for the house enters as 3.00; the impression that clears at 1.50 is charged 2.00."""
    world = build(campaigns=[campaign("a", 4.0, margin=0.25, daily_budget=1.0), campaign("b", 1.49)])
    outcome = await world.run(bid_request())
    assert (winners(outcome), outcome.results[0].price_micros) == (["a"], 1_500_000)
    account = world.house.budgets.account("a")
    assert account is not None
    assert account.spent_nanos == 2_000_000
