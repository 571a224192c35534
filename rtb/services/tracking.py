"""Impressions, clicks and conversions: checked, attributed, priced, billed, and written to the ledger.

The checks come in this order: what the edge says of it, the signature, the time of its receipt, crawlers, what was seen
before, that a click has its impression and a conversion its touch. The campaign pays at the event that its pricing
names: the impression (CPM), the click (CPC) or the conversion (CPA); the other events are rows that cost nothing. What
is refused is kept with its reason and charged to nobody; it never takes the place of a true event, whose key in the
ledger is made of what was signed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

from crawleruseragents import is_crawler
from msgspec.structs import replace

from rtb.domain import attribution
from rtb.domain.attribution import Attribution, Refused, Windows
from rtb.domain.budget import LIFE, budget_day
from rtb.domain.campaign import Campaign, Pricing
from rtb.domain.money import MAX_NANOS, Rates, unit_nanos
from rtb.domain.tracking import Ticket, event_id
from rtb.errors import NotFound, RtbError, Transient
from rtb.ports import Ledger, LedgerKind, LedgerRow, StateStore, Touch
from rtb.services.arrival import (
    Arrival,
    Work,
    click_claim,
    is_same_order,
    order_claim,
    other_names,
    refusal,
    ticket_of,
    touched,
)
from rtb.services.billing import Billing, BillingEvent
from rtb.services.rebuild import UTC_ZONE
from rtb.services.wins import win_of, win_row

__all__ = ["BILLED_AT", "FROM_SERVERS", "Arrival", "Tracking"]

BILLED_AT = {
    Pricing.CPM: LedgerKind.IMPRESSION,
    Pricing.CPC: LedgerKind.CLICK,
    Pricing.CPA: LedgerKind.CONVERSION,
}
_PAYING = {kind: pricing for pricing, kind in BILLED_AT.items()}
FROM_SERVERS = frozenset(("burl", "postback"))
"""Sources whose user agent is that of a server, not of a visitor."""
_OBJECTIONS = {
    LedgerKind.IMPRESSION: attribution.impression_objection,
    LedgerKind.CLICK: attribution.click_objection,
    LedgerKind.CONVERSION: attribution.conversion_objection,
}

_IMPRESSION, _CLICK, _CONVERSION = LedgerKind.IMPRESSION, LedgerKind.CLICK, LedgerKind.CONVERSION
"""An enum's member is looked up by Python code at every mention; these are not."""
_is_crawler = lru_cache(maxsize=20_000)(is_crawler)


class Tracking:
    """Handles batches of arrivals; all is repeatable, so at-least-once delivery has exactly-once effect."""

    def __init__(
        self,
        read: Callable[[str], Ticket],
        digest: Callable[[str], str],
        billing: Billing,
        ledger: Ledger,
        state: StateStore,
        *,
        campaign: Callable[[str], Campaign | None],
        rates: Rates,
        windows: Windows | None = None,
        bills_wins: bool = False,
    ) -> None:
        """`read` gives the ticket in a token (RtbError: it is not believed), `digest` what stands for a user's id in
        it; `campaign` knows those that run, without I/O. With `bills_wins` the win is paid for, and nothing else."""
        self._read = read
        self._digest = digest
        self._billing = billing
        self._ledger = ledger
        self._state = state
        self._campaign = campaign
        self._rates = rates
        self._windows = windows or Windows()
        self._bills_wins = bills_wins
        self.refused: dict[str, int] = {}
        """How many, by reason; one that is handled again counts again."""

    async def handle(self, arrivals: Sequence[Arrival]) -> list[RtbError | None]:
        """Take events into the ledger; for each None once it is there or its refusal is kept, Transient when it shall
        come again later.

        Raises:
            StoreError: ledger, accounts or state are away; repeat the whole call.
        """
        works = [Work(arrival) for arrival in arrivals]
        for work in works:
            self._admit(work)
        going = [work for work in works if not work.refused]
        later = [work for work in going if work.arrival.kind is not _IMPRESSION]
        if later:
            await self._relate(later)
            await self._claim(later)
            going = [work for work in going if work.open]
        await self._promise([work for work in going if work.arrival.kind is _IMPRESSION])
        if going:
            await self._bill(going)
        refused = {work.arrival.message_id: refusal(work) for work in works if work.refused}
        if refused:
            await self._ledger.refuse(list(refused.values()))
        for kept in refused.values():
            self.refused[kept.reason] = self.refused.get(kept.reason, 0) + 1
        return [Transient(work.postponed) if work.postponed else None for work in works]

    async def check(self) -> None:
        """Raise StoreError while something that is needed is away."""
        await self._billing.check()
        await self._state.get_users([])

    def _admit(self, work: Work) -> None:
        """What can be told without asking anybody."""
        event, kind = work.arrival.event, work.arrival.kind
        refused = event.refused
        if event.token:
            try:
                work.ticket = ticket = self._read(event.token)
            except RtbError as error:
                work.campaign_id, work.refused = event.campaign_id, refused or str(error)
                return
            work.campaign_id = ticket.campaign_id
            work.key = event_id(ticket, kind)
            if not refused:
                windows = self._windows
                if kind is _CONVERSION:
                    windows = windows.of(self._campaign(ticket.campaign_id))
                refused = _OBJECTIONS[kind](ticket, event.received_at, windows) or ""
            if not ticket.campaign_id:
                refused = refused or Refused.NO_CAMPAIGN
        else:
            work.campaign_id = event.campaign_id
            if kind is not _CONVERSION or not (event.campaign_id and event.user_id):
                refused = refused or Refused.NO_TOKEN
        if not refused and event.ua and event.source not in FROM_SERVERS and _is_crawler(event.ua):
            refused = Refused.CRAWLER
        if refused:
            work.refused = refused
        elif event.value and kind is _CONVERSION:
            self._value(work)

    def _value(self, work: Work) -> None:
        event = work.arrival.event
        currency = event.currency or self._rates.currency
        try:
            work.value_nanos = self._rates.bid_micros(unit_nanos(event.value), currency)
        except (KeyError, ValueError):
            work.refused = Refused.BAD_VALUE
        if work.value_nanos > MAX_NANOS:
            work.refused = Refused.BAD_VALUE

    async def _relate(self, works: Sequence[Work]) -> None:
        """Find the impression of each click, and what each conversion is owed to."""
        untold = [work for work in works if work.ticket is None]
        found: dict[str, LedgerRow] = {}
        if untold:
            found = await self._touches(untold)
        keys = {key for work in works if work.open for key in (work.key, *touched(work), *other_names(work))}
        found |= await self._ledger.find(keys - found.keys())
        for work in works:
            if not work.open:
                continue
            standing = found.get(work.key)
            if standing is not None:
                self._meet(work, standing)
            elif any(is_same_order(work, found.get(key)) for key in other_names(work)):
                work.refused = Refused.DUPLICATE
            elif work.arrival.kind is _CLICK:
                if touched(work)[0] not in found:
                    self._postpone(work, Refused.NO_IMPRESSION)
            else:
                self._attribute(work, *(found.get(key) for key in touched(work)))

    async def _touches(self, works: Sequence[Work]) -> dict[str, LedgerRow]:
        """The last click and impression of the users of conversions that came without a token; each gets the ticket of
        the one that it is owed to."""
        asked: list[Touch] = []
        for work in works:
            event = work.arrival.event
            windows = self._windows.of(self._campaign(event.campaign_id))
            name, user, at = event.campaign_id, self._digest(event.user_id), event.received_at
            asked.append(Touch(name, user, _CLICK, at - windows.click_through_s, at))
            asked.append(Touch(name, user, _IMPRESSION, at - windows.view_through_s, at))
        rows = await self._ledger.last_touches(asked)
        found: dict[str, LedgerRow] = {}
        for work, click, view in zip(works, rows[::2], rows[1::2], strict=True):
            touch = click or view
            campaign = self._campaign(work.campaign_id)
            if campaign is None:
                work.refused = Refused.NO_CAMPAIGN
            elif touch is None:
                self._postpone(work, Refused.NO_TOUCH)
            else:
                work.ticket = ticket_of(touch, campaign)
                work.key = event_id(work.ticket, _CONVERSION, work.arrival.event.order_id)
                found[touch.key] = touch
        return found

    def _attribute(self, work: Work, view: LedgerRow | None, click: LedgerRow | None) -> None:
        clicked_at = None if click is None else click.received_at
        viewed_at = None if view is None else view.received_at
        windows = self._windows.of(self._campaign(work.campaign_id))
        owed = attribution.attribute(clicked_at, viewed_at, work.arrival.event.received_at, windows)
        if owed is Refused.NO_TOUCH:
            self._postpone(work, owed)
        elif isinstance(owed, Refused):
            work.refused = owed
        else:
            work.attributed = owed.value
            touch = click if owed is Attribution.CLICK else view
            assert touch is not None
            window_s = windows.click_through_s if owed is Attribution.CLICK else windows.view_through_s
            work.expires_at = touch.received_at + window_s
            if view is not None and work.ticket is not None:  # the key of its bill is filed by this, whoever tells it
                work.ticket = replace(work.ticket, expires_at=view.expires_at)

    def _postpone(self, work: Work, reason: Refused) -> None:
        """What it needs may be on its way."""
        if work.arrival.last:
            work.refused = reason
        else:
            work.postponed = reason

    async def _claim(self, works: Sequence[Work]) -> None:
        """Of one user's clicks on a creative, and of the conversions of one order, the first."""
        clicks = [work for work in works if work.open and work.arrival.kind is _CLICK]
        orders = [work for work in works if work.open and work.arrival.event.order_id and work.attributed]
        await self._claim_once(clicks, click_claim, self._windows.same_click_s, Refused.SAME_CLICK)
        await self._claim_once(orders, order_claim, self._windows.click_through_s, Refused.DUPLICATE)

    async def _claim_once(
        self, works: Sequence[Work], name: Callable[[Work], str], ttl_s: float, reason: Refused
    ) -> None:
        if not works:
            return
        claims = [(name(work), work.key) for work in works]
        for work, seen in zip(works, await self._state.seen(claims, ttl_s), strict=True):
            if seen:
                work.refused = reason

    async def _promise(self, works: Sequence[Work]) -> None:
        """See that each impression has its win in the ledger: a daemon that was killed may have posted it too late, and
        the ticket proves it. A win that is billed itself is not made up; its ticket has nothing left to pay."""
        wins: dict[str, Ticket] = {}
        for work in works:
            ticket = work.ticket
            assert ticket is not None
            if ticket.price_nanos or not ticket.held_nanos:
                wins[f"{ticket.auction_id}:{ticket.impid}:win"] = ticket
        if not wins:
            return
        missing = [(key, wins[key]) for key in await self._billing.unrecorded(wins)]
        if missing:
            await self._billing.record([self._win(key, ticket) for key, ticket in missing])

    async def _bill(self, works: Sequence[Work]) -> None:
        for work in works:
            work.bill = self._event(work)
        results = await self._billing.bill([work.bill for work in works if work.bill is not None])
        for work, result in zip(works, results, strict=True):
            if isinstance(result, LedgerRow):
                if result.event_id != work.arrival.message_id:
                    work.refused = Refused.DUPLICATE
            elif isinstance(result, NotFound):
                work.refused = Refused.NO_CAMPAIGN
            else:
                raise result

    def _meet(self, work: Work, standing: LedgerRow) -> None:
        """What stands in the ledger under its key is itself, come again, or another event."""
        if standing.event_id == work.arrival.message_id:
            work.repeated = True
        else:
            work.refused = Refused.DUPLICATE

    def _event(self, work: Work) -> BillingEvent:
        ticket, arrival = work.ticket, work.arrival
        assert ticket is not None
        kind, received_at = arrival.kind, arrival.event.received_at
        is_billed = _PAYING[kind] is ticket.pricing and not self._bills_wins
        price_nanos = ticket.price_nanos if is_billed else 0
        if kind is _IMPRESSION:
            day, expires_at = ticket.day, ticket.expires_at
        elif kind is _CLICK:
            day, expires_at = self._day(ticket, received_at), ticket.won_at + self._windows.click_s
        else:
            day, expires_at = self._day(ticket, received_at), work.expires_at
        row = LedgerRow(
            key=work.key,
            kind=kind,
            campaign_id=ticket.campaign_id,
            day=day,
            auction_id=ticket.auction_id,
            impid=ticket.impid,
            instance=ticket.instance,
            price_nanos=price_nanos,
            charged_nanos=price_nanos,
            expires_at=expires_at,
            received_at=received_at,
            date=self._date(day, ticket, received_at),
            event_id=arrival.message_id,
            creative_id=ticket.creative_id,
            user=ticket.user,
            value_nanos=work.value_nanos,
            attributed=work.attributed,
        )
        return BillingEvent(row, ticket.held_nanos if is_billed else 0, ticket.expires_at)

    def _win(self, key: str, ticket: Ticket) -> LedgerRow:
        return win_row(win_of(ticket), self._date(ticket.day, ticket, ticket.won_at), key)

    def _day(self, ticket: Ticket, received_at: float) -> str:
        """Clicks and conversions are paid by the budget of the day on which they arrive."""
        if not ticket.day or ticket.day == LIFE:
            return ticket.day
        return max(ticket.day, self.date(ticket.campaign_id, received_at))

    def _date(self, day: str, ticket: Ticket, at: float) -> str:
        """Which date a row counts for: its budget day, if it has one."""
        return day if day and day != LIFE else self.date(ticket.campaign_id, at)

    def date(self, campaign_id: str, at: float) -> str:
        """The date then (Unix seconds) in the campaign's time zone; in UTC for one that does not run."""
        campaign = self._campaign(campaign_id)
        return budget_day(at, UTC_ZONE if campaign is None else campaign.zone)
