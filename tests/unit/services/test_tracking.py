"""Tracked events: which count, what they cost, and what becomes of the others."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from rtb.adapters.memory_state import MemoryState
from rtb.domain.attribution import Refused, Windows
from rtb.domain.campaign import Pricing
from rtb.domain.tracking import Flaw, Keys, Signer, event_id
from rtb.ports import LedgerKind, LedgerRow
from rtb.services.audit import Audit
from rtb.services.billing import BillingEvent
from rtb.services.wins import win_of, win_row
from tests.unit.parts import campaign
from tests.unit.services.tracked import CLICK, CONVERSION, DAY, HOUR, IMPRESSION, NOW, SIGNER, Tracked

CRAWLER = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"


@pytest.mark.parametrize(
    ("campaign_id", "costs"),
    [("cpm", (2_000_000, 0, 0)), ("cpc", (0, 500_000_000, 0)), ("cpa", (0, 0, 3_000_000_000))],
)
async def test_a_campaign_pays_at_the_event_of_its_pricing(campaign_id: str, costs: tuple[int, int, int]) -> None:
    """CPM at the impression, CPC at the click, CPA at the conversion; the others are rows that cost nothing."""
    world = Tracked()
    ticket = world.ticket(campaign_id)
    for kind in (IMPRESSION, CLICK, CONVERSION):
        assert await world.happens(kind, ticket) == ""
    rows = await world.rows()
    assert sorted((row.key, row.price_nanos, row.charged_nanos) for row in rows) == sorted(
        (f"a:1:{kind}", cost, cost) for kind, cost in zip(("impression", "click", "conversion"), costs, strict=True)
    )
    assert {(row.day, row.date, row.creative_id, row.user) for row in rows} == {
        (DAY, DAY, f"{campaign_id}-ad", ticket.user)
    }
    assert await world.ledger.spent() == {(campaign_id, DAY): sum(costs)}
    await world.win(ticket)
    assert (await Audit(world.accounts, world.ledger).run()).balanced


async def test_an_event_that_comes_again_is_the_same_and_another_is_refused() -> None:
    """The same message, in one batch or later, changes nothing; another one of the same kind and win is kept as seen
    before, and charges nobody."""
    world = Tracked()
    ticket = world.ticket()
    first, second, third = (world.arrival(IMPRESSION, ticket) for _ in range(3))
    click, again = (world.arrival(CLICK, ticket) for _ in range(2))
    assert await world.handle(first, first, second) == ["", "", ""]
    assert await world.handle(click, click, again) == ["", "", ""]
    assert await world.handle(third, first) == ["", ""]
    assert await world.handle(again, click) == ["", ""]
    assert await world.charged() == {"a:1:impression": 2_000_000, "a:1:click": 0}
    assert await world.refused() == [Refused.DUPLICATE] * 3


async def test_what_is_not_signed_is_refused() -> None:
    """Altered, of an unknown key, of another house, no token at all: each with its reason, and a true event of the same
    win is counted afterwards."""
    world = Tracked()
    ticket = world.ticket()
    token = SIGNER.token(ticket)
    stranger = Signer(Keys({1: b"another secret, as long"}, 1), b"the secret of its digests").token(ticket)
    rotated = Signer(Keys({9: b"a secret of the test"}, 9), b"the secret of its digests").token(ticket)
    tokens = [token[:40] + ("A" if token[40] != "A" else "B") + token[41:], stranger, rotated, "x", ""]
    for forged in tokens:
        assert await world.happens(IMPRESSION, token=forged) == ""
    assert await world.refused() == [Flaw.FORGED, Flaw.FORGED, Flaw.UNKNOWN_KEY, Flaw.MALFORMED, Refused.NO_TOKEN]
    assert await world.rows() == []
    await world.happens(IMPRESSION, ticket)
    assert await world.charged() == {"a:1:impression": 2_000_000}


@pytest.mark.parametrize(
    ("kind", "after_s", "reason"),
    [
        (IMPRESSION, 60.0, ""),
        (IMPRESSION, 60.01, Refused.LATE),
        (IMPRESSION, -60.0, ""),
        (IMPRESSION, -61.0, Refused.EARLY),
        (CLICK, 24 * HOUR, ""),
        (CLICK, 24 * HOUR + 1, Refused.LATE),
        (CONVERSION, 24 * HOUR, ""),
        (CONVERSION, 24 * HOUR + 1, Refused.LATE),
    ],
)
async def test_the_time_of_receipt_decides(kind: LedgerKind, after_s: float, reason: str) -> None:
    """An impression is in time until its expiry, a click a day after the win, a conversion a day after a view. When it
    is processed does not matter."""
    world = Tracked()
    ticket = world.ticket()
    if kind is not IMPRESSION:
        await world.happens(IMPRESSION, ticket)
    assert await world.happens(kind, ticket, received_at=NOW + after_s) == ""
    assert await world.refused() == ([reason] if reason else [])
    assert (f"a:1:{kind}" in await world.charged()) is not bool(reason)


async def test_a_crawler_is_refused_and_a_server_is_none() -> None:
    """By its user agent; that of a server which tells of an event is not that of the visitor."""
    world = Tracked()
    await world.happens(IMPRESSION, world.ticket(), ua=CRAWLER)
    await world.happens(IMPRESSION, world.ticket(auction_id="b"), ua="python-requests/2.32", source="burl")
    assert await world.refused() == [Refused.CRAWLER]
    assert await world.charged() == {"b:1:impression": 2_000_000}


async def test_what_the_edge_refused_is_only_kept() -> None:
    """With the edge's reason and where it came from, although its token is good."""
    world = Tracked()
    await world.happens(IMPRESSION, world.ticket(), refused="too many from one address", ip="192.0.2.1", ua="x")
    [refusal] = await world.ledger.refusals()
    assert (refusal.reason, refusal.campaign_id) == ("too many from one address", "cpm")
    assert "192.0.2.1" in refusal.detail
    assert await world.rows() == []


async def test_a_click_waits_for_its_impression() -> None:
    """It comes again while the impression may be on its way; the last time it is refused."""
    world = Tracked()
    ticket, other = world.ticket("cpc"), world.ticket("cpc", "b", user="")
    click = world.arrival(CLICK, ticket)
    assert await world.handle(click) == [Refused.NO_IMPRESSION]
    assert await world.refused() == []
    await world.happens(IMPRESSION, ticket)
    assert await world.handle(click) == [""]
    assert await world.happens(CLICK, other, last=True) == ""
    assert await world.refused() == [Refused.NO_IMPRESSION]
    assert await world.charged() == {"a:1:impression": 0, "a:1:click": 500_000_000}


async def test_one_user_clicks_a_creative_once_an_hour() -> None:
    """Whatever the auction; an hour later it is a click again. Users that are not known are told apart by the win."""
    world = Tracked()
    named = [world.ticket("cpc", name) for name in "abc"]
    nameless = [world.ticket("cpc", name, user="") for name in "de"]
    for ticket in (*named, *nameless):
        await world.happens(IMPRESSION, ticket)
    for ticket in (named[0], named[1], *nameless):
        assert await world.happens(CLICK, ticket) == ""
    assert await world.refused() == [Refused.SAME_CLICK]
    world.clock.advance(HOUR + 1)
    await world.happens(CLICK, named[2])
    assert sorted(key for key in await world.charged() if "click" in key) == [
        "a:1:click",
        "c:1:click",
        "d:1:click",
        "e:1:click",
    ]


async def test_a_click_without_impression_claims_nothing() -> None:
    """Who fires a click that is refused does not take the place of the user's true click."""
    world = Tracked()
    seen, unseen = world.ticket("cpc"), world.ticket("cpc", "b")
    await world.happens(CLICK, unseen, last=True)
    await world.happens(IMPRESSION, seen)
    await world.happens(CLICK, seen)
    assert (await world.charged())["a:1:click"] == 500_000_000


@pytest.mark.parametrize(
    ("click_after_s", "converts_after_s", "owed"),
    [
        (10.0, 20.0, "click"),
        (10.0, 10.0 + 30 * 24 * HOUR, "click"),
        (10.0, 11.0 + 30 * 24 * HOUR, Refused.LATE),
        (None, 24 * HOUR, "view"),
        (None, 24 * HOUR + 1, Refused.LATE),
    ],
)
async def test_a_conversion_is_owed_to_its_click_or_view(
    click_after_s: float | None, converts_after_s: float, owed: str
) -> None:
    """With a token: that click within 30 days, else that impression within a day."""
    world = Tracked()
    ticket = world.ticket("cpa")
    await world.happens(IMPRESSION, ticket)
    if click_after_s is not None:
        await world.happens(CLICK, ticket, received_at=NOW + click_after_s)
    await world.happens(CONVERSION, ticket, received_at=NOW + converts_after_s, value=25.5)
    rows = [row for row in await world.rows() if row.kind is CONVERSION]
    if owed in ("click", "view"):
        assert [(row.attributed, row.value_nanos) for row in rows] == [(owed, 25_500_000_000)]
    else:
        assert (rows, await world.refused()) == ([], [owed])


async def test_a_conversion_without_a_token_goes_by_the_user() -> None:
    """The last click in 30 days before it, else the last view of a day; what came after it, of another user or another
    campaign does not count. It costs what the campaign bids for a conversion."""
    world = Tracked()
    for n, name in enumerate("abcd"):
        at = NOW + n * HOUR
        ticket = world.ticket("cpa", name, user=SIGNER.user_digest("bob" if name == "d" else "ann"))
        await world.happens(IMPRESSION, replace(ticket, won_at=at, expires_at=at + 60), received_at=at)
    await world.happens(CLICK, world.ticket("cpa", "a"), received_at=NOW + 60)
    told: dict[str, Any] = {"campaign_id": "cpa", "source": "postback", "received_at": NOW + 3 * HOUR + 1}
    await world.happens(CONVERSION, user_id="ann", value=8.0, currency="EUR", **told)
    await world.happens(CONVERSION, user_id="bob", **told)
    await world.happens(CONVERSION, user_id="eve", **told, last=True)
    await world.happens(CONVERSION, user_id="ann", campaign_id="cpc", received_at=NOW, last=True)
    await world.happens(CONVERSION, user_id="ann", campaign_id="gone", received_at=NOW)
    rows = {row.key: row for row in await world.rows() if row.kind is CONVERSION}
    assert {key: (row.attributed, row.charged_nanos, row.value_nanos) for key, row in rows.items()} == {
        "a:1:conversion": ("click", 3_000_000_000, 10_000_000_000),
        "d:1:conversion": ("view", 3_000_000_000, 0),
    }
    assert await world.refused() == [Refused.NO_TOUCH, Refused.NO_TOUCH, Refused.NO_CAMPAIGN]


async def test_a_conversion_told_twice_counts_once() -> None:
    """By pixel with its token and by the advertiser's server without one; and one order, owed to two wins, too."""
    world = Tracked()
    first, second = world.ticket("cpa"), world.ticket("cpa", "b", user="")
    for ticket in (first, second):
        await world.happens(IMPRESSION, ticket)
    await world.happens(CONVERSION, first, order_id="4711")
    await world.happens(CONVERSION, campaign_id="cpa", user_id="ann", source="postback", order_id="4711")
    await world.happens(CONVERSION, second, order_id="4711")
    assert await world.ledger.spent() == {("cpa", DAY): 3_000_000_000}
    assert await world.refused() == [Refused.DUPLICATE] * 2


async def test_a_known_server_tells_every_order() -> None:
    """Of one click it may tell several, each paid for; a token brings one conversion, whatever orders are put to it.
    An order that both told counts once, also when the claims are lost."""
    world = Tracked()
    ticket = world.ticket("cpa")
    await world.happens(IMPRESSION, ticket)
    for order in ("1", "2", "1"):
        await world.happens(CONVERSION, campaign_id="cpa", user_id="ann", source="postback", order_id=order)
    world.state = world.tracking._state = MemoryState(world.clock)
    name = event_id(ticket, "conversion", "1")
    await world.happens(CONVERSION, ticket, order_id="1", message_id=name)
    await world.happens(CONVERSION, ticket, order_id="3", message_id=event_id(ticket, "conversion", "3"))
    await world.happens(CONVERSION, ticket, order_id="4", message_id=event_id(ticket, "conversion", "4"))
    world.tracking._state = MemoryState(world.clock)
    await world.happens(CONVERSION, campaign_id="cpa", user_id="ann", source="postback", order_id="3")
    keys = {row.key for row in await world.rows() if row.kind is CONVERSION}
    assert keys == {"a:1:conversion", *(event_id(ticket, "conversion", order) for order in "12")}
    assert await world.refused() == [Refused.DUPLICATE] * 4


@pytest.mark.parametrize(("after_s", "rows"), [(3_600.0, 1), (3_600.5, 0)])
async def test_a_campaign_has_windows_of_its_own(after_s: float, rows: int) -> None:
    """An hour after the click, and a view alone is not enough."""
    world = Tracked(campaign("cpa", 3.0, pricing=Pricing.CPA, click_window_s=3_600, view_window_s=0))
    clicked, viewed = world.ticket("cpa"), world.ticket("cpa", "b", user="")
    for ticket in (clicked, viewed):
        await world.happens(IMPRESSION, ticket)
    await world.happens(CLICK, clicked)
    await world.happens(CONVERSION, clicked, received_at=NOW + after_s)
    await world.happens(CONVERSION, viewed, received_at=NOW + 1)
    assert len([row for row in await world.rows() if row.kind is CONVERSION]) == rows


@pytest.mark.parametrize("fields", [{"value": 5.0, "currency": "XXX"}, {"value": 9e8}])
async def test_a_value_that_cannot_be_converted(fields: dict[str, Any]) -> None:
    """No rate, or beyond what amounts can be: refused, and seen to be so."""
    world = Tracked()
    ticket = world.ticket("cpa")
    await world.happens(IMPRESSION, ticket)
    await world.happens(CONVERSION, ticket, **fields)
    assert await world.refused() == [Refused.BAD_VALUE]


async def test_clicks_are_paid_on_the_day_they_arrive() -> None:
    """Also on one on which the campaign never won: its account is opened with the budget of a day."""
    world = Tracked(*Tracked().campaigns.values(), windows=Windows(click_s=10 * 24 * HOUR))
    ticket = world.ticket("cpc")
    later = [("2026-11-23", 25 * HOUR), ("2026-11-24", 49 * HOUR), ("2026-11-27", 5 * 24 * HOUR)]
    for n, (day, after_s) in enumerate(later):
        world.clock.advance(NOW + after_s - world.clock.time())
        clicked = replace(ticket, auction_id=f"b{n}")
        await world.win(clicked)
        await world.happens(IMPRESSION, clicked, received_at=NOW)
        await world.happens(CLICK, clicked)
        assert (await world.ledger.spent())["cpc", day] == 500_000_000
    assert (await Audit(world.accounts, world.ledger).run()).balanced


async def test_a_campaign_without_a_budget_is_dated_in_its_time_zone() -> None:
    """00:00 UTC is 09:00 of the same day in Tokyo, 15:00 midnight of the next."""
    world = Tracked()
    await world.happens(IMPRESSION, world.ticket("free", "a"))
    world.clock.advance(15 * HOUR)
    await world.happens(IMPRESSION, world.ticket("free", "b"))
    assert [(row.day, row.date, row.charged_nanos) for row in await world.rows()] == [
        ("", "2026-11-22", 2_000_000),
        ("", "2026-11-23", 2_000_000),
    ]


async def test_a_campaign_that_nobody_knows() -> None:
    """Its events are refused with that reason; those of the same batch are not concerned."""
    world = Tracked()
    good, bad = world.ticket(), world.ticket(auction_id="b", campaign_id="cpm")
    await world.handle(world.arrival(IMPRESSION, replace(bad, campaign_id="gone")), world.arrival(IMPRESSION, good))
    assert await world.refused() == [Refused.NO_CAMPAIGN]
    assert await world.charged() == {"a:1:impression": 2_000_000}


async def test_no_more_is_charged_than_the_budget_has() -> None:
    """Five impressions fit; the sixth is a row that says why it was charged nothing."""
    world = Tracked()
    await world.handle(*(world.arrival(IMPRESSION, world.ticket(auction_id=f"a{n}")) for n in range(6)))
    assert await world.ledger.spent() == {("cpm", DAY): 10_000_000}
    assert [row.reason for row in await world.rows() if row.reason] == ["the limit was reached"]


@pytest.mark.parametrize("name", ["cpm", "cpc", "free"])
async def test_a_win_whose_message_was_lost_is_told_by_its_impression(name: str) -> None:
    """The ticket has all of its row: what was held is its price, and nothing is charged. The message that comes later
    after all, or came before, is the same; it counts once."""
    world = Tracked()
    written: list[LedgerRow] = []
    world.billing.on_written = written.extend
    lost, kept = (world.ticket(name, one, day="life" if name == "cpc" else DAY) for one in ("lost", "kept"))
    await world.win(kept)
    await world.handle(*(world.arrival(IMPRESSION, ticket) for ticket in (lost, kept)))
    await world.happens(IMPRESSION, lost)
    made = LedgerRow(
        key="lost:1:win",
        kind=LedgerKind.WIN,
        campaign_id=name,
        day=lost.day,
        auction_id="lost",
        impid="1",
        instance="i",
        price_nanos=2_000_000,
        charged_nanos=0,
        expires_at=NOW + 60.0,
        received_at=NOW,
        date=DAY,
        event_id="lost:1:win",
        creative_id=f"{name}-ad",
        user=lost.user,
    )
    assert [row for row in await world.rows(wins=True) if row.auction_id == "lost"] == [made]
    await world.win(lost, kept)
    assert sorted(row.key for row in written if row.kind is LedgerKind.WIN) == ["kept:1:win", "lost:1:win"]
    assert (await Audit(world.accounts, world.ledger).run()).balanced


async def test_a_win_that_is_billed_itself_is_not_made_up() -> None:
    """Its ticket has nothing left to pay: when its message comes, the win is charged, once."""
    world = Tracked()
    ticket = world.ticket(price_nanos=0)
    await world.happens(IMPRESSION, ticket)
    assert await world.rows(wins=True) == []
    row = win_row(win_of(ticket), DAY, "m")
    await world.billing.bill([BillingEvent(row, ticket.held_nanos)] * 2)
    await world.happens(CLICK, ticket)
    assert await world.ledger.spent() == {("cpm", DAY): 2_000_000}
    assert (await Audit(world.accounts, world.ledger).run()).balanced


async def test_nothing_that_follows_a_billed_win_costs_anything() -> None:
    """Neither with a ticket of before, nor a conversion that an advertiser's server tells without one."""
    world = Tracked(bills_wins=True)
    for name in ("cpm", "cpc", "cpa"):
        for kind in (IMPRESSION, CLICK):
            await world.happens(kind, world.ticket(name, f"auction of {name}"))
    told: dict[str, Any] = {"campaign_id": "cpa", "user_id": "ann", "order_id": "1", "source": "postback"}
    assert await world.happens(CONVERSION, **told) == ""
    assert [(row.kind, row.price_nanos) for row in await world.rows() if row.kind is CONVERSION] == [(CONVERSION, 0)]
    assert sum((await world.charged()).values()) == 0
