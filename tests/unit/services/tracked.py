"""A house whose events are tracked: real parts on memory adapters, a clock set by hand, and tickets to make events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from rtb.adapters.clock import ManualClock
from rtb.adapters.memory_accounts import MemoryAccounts
from rtb.adapters.memory_ledger import MemoryLedger
from rtb.adapters.memory_state import MemoryState
from rtb.domain.attribution import Windows
from rtb.domain.budget import Timing
from rtb.domain.campaign import Campaign, Pricing
from rtb.domain.money import Rates
from rtb.domain.tracking import Keys, Signer, Ticket
from rtb.messages import TrackedEvent
from rtb.ports import LedgerKind, LedgerRow, Refusal
from rtb.services.arrival import Arrival
from rtb.services.billing import Billing
from rtb.services.rebuild import Days, Rebuild
from rtb.services.tracking import Tracking
from tests.unit.parts import campaign

NOW = 1_795_305_600.0  # 2026-11-22 00:00 UTC
DAY = "2026-11-22"
HOUR = 3_600.0
IMPRESSION, CLICK, CONVERSION = LedgerKind.IMPRESSION, LedgerKind.CLICK, LedgerKind.CONVERSION
SIGNER = Signer(Keys({1: b"a secret of the test"}, 1), b"the secret of its digests")
CAMPAIGNS = (
    campaign("cpm", 2.0, daily_budget=0.01),
    campaign("cpc", 0.5, pricing=Pricing.CPC, daily_budget=10.0),
    campaign("cpa", 3.0, pricing=Pricing.CPA, daily_budget=10.0),
    campaign("free", 2.0, timezone="Asia/Tokyo"),
)


class Tracked:
    """What happens goes through `handle`; ids and tickets are made up as needed."""

    def __init__(self, *campaigns: Campaign, windows: Windows | None = None, bills_wins: bool = False) -> None:
        self.clock = ManualClock(NOW)
        self.timing = Timing()
        self.accounts = MemoryAccounts(self.clock, self.timing)
        self.ledger = MemoryLedger()
        self.state = MemoryState(self.clock)
        self.campaigns = {one.id: one for one in campaigns or CAMPAIGNS}
        self.rebuild = Rebuild(self.accounts, self.ledger, self.find, self.clock, timing=self.timing)
        days = Days(self.accounts, self.find, instance="tracker")
        self.billing = Billing(self.accounts, self.ledger, self.rebuild.restore, timing=self.timing, days=days)
        self.tracking = Tracking(
            SIGNER.read,
            SIGNER.user_digest,
            self.billing,
            self.ledger,
            self.state,
            campaign=self.campaigns.get,
            rates=Rates("USD", {"EUR": 1.25}),
            windows=windows,
            bills_wins=bills_wins,
        )
        self._ids = 0

    async def find(self, campaign_id: str) -> Campaign | None:
        """The catalogue."""
        return self.campaigns.get(campaign_id)

    def ticket(self, campaign_id: str = "cpm", auction_id: str = "a", **fields: Any) -> Ticket:
        """Of a win of now: an impression is in time for a minute and costs 2,000,000 nanos, a click 0.5."""
        pricing = self.campaigns[campaign_id].pricing
        now = self.clock.time()
        made = Ticket(
            auction_id=auction_id,
            impid="1",
            campaign_id=campaign_id,
            creative_id=f"{campaign_id}-ad",
            day="" if campaign_id == "free" else DAY,
            instance="i",
            pricing=pricing,
            price_nanos={"cpm": 2_000_000, "cpc": 500_000_000, "cpa": 3_000_000_000}[pricing],
            held_nanos=2_000_000,
            won_at=now,
            expires_at=now + 60.0,
            user=SIGNER.user_digest("ann"),
        )
        return replace(made, **fields)

    def arrival(self, kind: LedgerKind, ticket: Ticket | None = None, **fields: Any) -> Arrival:
        """An event of now, with an id of its own."""
        self._ids += 1
        name, last = fields.pop("message_id", f"m{self._ids:05d}"), fields.pop("last", False)
        token = "" if ticket is None else SIGNER.token(ticket)
        event = TrackedEvent(**{"received_at": self.clock.time(), "token": token, **fields})
        return Arrival(name, kind, event, last)

    async def handle(self, *arrivals: Arrival) -> list[str]:
        """What becomes of each: "" or why it comes again."""
        return [str(error or "") for error in await self.tracking.handle(arrivals)]

    async def happens(self, kind: LedgerKind, ticket: Ticket | None = None, **fields: Any) -> str:
        """One event of now."""
        [result] = await self.handle(self.arrival(kind, ticket, **fields))
        return result

    async def win(self, *tickets: Ticket) -> None:
        """The promises that the tickets speak of stand in the ledger; an impression is sold at 2,000,000 nanos."""
        rows = [
            LedgerRow(
                key=f"{ticket.auction_id}:{ticket.impid}:win",
                kind=LedgerKind.WIN,
                campaign_id=ticket.campaign_id,
                day=ticket.day,
                auction_id=ticket.auction_id,
                impid=ticket.impid,
                instance=ticket.instance,
                price_nanos=2_000_000,
                charged_nanos=0,
                expires_at=ticket.expires_at,
                received_at=ticket.won_at,
                date=ticket.day or DAY,
            )
            for ticket in tickets
        ]
        await self.billing.record(rows)

    async def rows(self, *, wins: bool = False) -> Sequence[LedgerRow]:
        """What followed the wins in the ledger, or the wins."""
        rows = [row async for part in self.ledger.rows() for row in part]
        return [row for row in rows if (row.kind is LedgerKind.WIN) is wins]

    async def charged(self) -> dict[str, int]:
        """What each row was charged, in nanos."""
        return {row.key: row.charged_nanos for row in await self.rows()}

    async def refused(self) -> list[str]:
        """The reasons, by message id."""
        return [one.reason for one in sorted(await self.ledger.refusals(limit=1_000), key=_id)]


def _id(refusal: Refusal) -> str:
    return refusal.id
