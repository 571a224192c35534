"""Real parts wired small, on a clock that is set by hand, and bidders that do one thing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rtb.adapters.clock import ManualClock, SystemClock
from rtb.adapters.memory_state import MemoryState
from rtb.adapters.sql import SqlRepository
from rtb.domain.auction import Bid, Lost
from rtb.domain.campaign import Campaign, Creative
from rtb.domain.money import Rates
from rtb.domain.privacy import Reason, Treatment
from rtb.domain.tracking import Signer
from rtb.openrtb import Banner, BidRequest, Imp, User
from rtb.openrtb import Bid as WireBid
from rtb.ports import Bidder, OpenAuction, Report, StateStore
from rtb.services.admission import Admission
from rtb.services.budgets import Budgets
from rtb.services.exchange import Exchange, Outcome, Rules
from rtb.services.house_bidder import HouseBidder
from rtb.services.metrics import Metrics
from rtb.services.profiles import Profiles

MS = 1_000_000


@dataclass
class World:
    """An exchange and what it stands on."""

    clock: Any
    metrics: Metrics
    rates: Rates
    state: StateStore
    repository: SqlRepository
    profiles: Profiles
    house: HouseBidder
    exchange: Exchange

    async def run(self, request: BidRequest, *, age_ms: float = 0, rehearsal: bool = False) -> Outcome:
        """One auction of a request that arrived `age_ms` ago."""
        received_ns = self.clock.monotonic_ns() - round(age_ms * MS)
        return await self.exchange.run(request, received_ns, rehearsal=rehearsal)


Build = Callable[..., World]
"""``build(*bidders, **options)``: see `world`."""


def world(
    database: str,
    *bidders: Bidder,
    campaigns: Sequence[Campaign] = (),
    state: StateStore | None = None,
    time: float = 1_767_225_600.0,
    clock: ManualClock | SystemClock | None = None,
    currency: str = "USD",
    rates: dict[str, float] | None = None,
    deadline_ms: int = 100,
    network_margin_ms: int = 10,
    minimum_ms: int = 1,
    max_in_flight: int = 512,
    wait_s: float = 5.0,
    cached: int = 1_000,
    fresh_s: float = 60.0,
    rules: Rules | None = None,
    signer: Signer | None = None,
    budgets: Budgets | None = None,
    bills_wins: bool = False,
) -> World:
    """The house with these campaigns, and these bidders besides. The profile wait is for a lookup that hangs."""
    clock = clock or ManualClock(time)
    metrics = Metrics("test", clock)
    money = Rates(currency, rates)
    store = state or MemoryState(clock)
    repository = SqlRepository(database)
    profiles = Profiles(store, repository, clock, metrics, wait_s=wait_s, cached=cached, fresh_s=fresh_s, ttl_s=3_600.0)
    house = HouseBidder(profiles, clock, money, signer=signer, budgets=budgets, bills_wins=bills_wins)
    house.load(campaigns)
    admission = Admission(
        deadline_ms=deadline_ms,
        network_margin_ms=network_margin_ms,
        minimum_ms=minimum_ms,
        max_in_flight=max_in_flight,
    )
    exchange = Exchange(
        [house, *bidders], profiles, admission, metrics, clock, rates=money, rules=rules or Rules(tie_key=b"test")
    )
    return World(clock, metrics, money, store, repository, profiles, house, exchange)


def campaign(name: str, /, bid: float = 2.0, **fields: Any) -> Campaign:
    """A campaign of its own advertiser with one 300 x 250 banner; `bid` is CPM."""
    creative = Creative(
        id=f"{name}-ad", w=300, h=250, image_url=f"https://cdn.test/{name}.png", landing_page=f"https://{name}.test/"
    )
    return Campaign(
        **{"id": name, "advertiser": name, "adomain": (f"{name}.test",), "creatives": (creative,), "bid": bid, **fields}
    )


def imp(name: str = "1", **fields: Any) -> Imp:
    """A 300 x 250 banner."""
    return Imp(id=name, banner=Banner(w=300, h=250), **fields)


def bid_request(*imps: Imp, user: str = "", **fields: Any) -> BidRequest:
    """A request for these imps, one by default."""
    return BidRequest(id="r", imp=list(imps) or [imp()], user=User(id=user) if user else None, **fields)


def offer(bidder: str, price: float, impid: str = "1", **fields: Any) -> Bid:
    """A valid bid of a bidder who is its own seat; `price` is CPM."""
    wire = WireBid(id=f"{bidder}-{impid}", impid=impid, price=price, adm="<b>ad</b>", adomain=[f"{bidder}.test"])
    return Bid(
        **{
            "impid": impid,
            "seat": bidder,
            "price_micros": round(price * 1_000_000),
            "bidder": bidder,
            "adomain": (f"{bidder}.test",),
            "content": wire,
            **fields,
        }
    )


class _Payer:
    """What the bidders below have in common: a name, the auctions they saw, and that they pay for what they win."""

    secondary = False

    def __init__(self, name: str) -> None:
        self.name = name
        self.seen: list[OpenAuction] = []
        self.costs: list[int] = []

    def claim(self, auction: OpenAuction, bid: Bid, cost_nanos: int) -> bool:
        """Pay."""
        self.costs.append(cost_nanos)
        return True


class Prompt(_Payer):
    """Bids at once."""

    def __init__(self, name: str, *bids: Bid, rejected: Sequence[Lost] = ()) -> None:
        super().__init__(name)
        self.bids = bids
        self.rejected = rejected

    def bid(self, auction: OpenAuction) -> None:
        """Report."""
        self.seen.append(auction)
        auction.report(self, self.bids, self.rejected)


class Discreet(Prompt):
    """Is told as much of a user as privacy allows, and bids at once if it is asked."""

    def __init__(self, name: str, *bids: Bid, told: tuple[Treatment, Reason | None] = (Treatment.WHOLE, None)) -> None:
        super().__init__(name, *bids)
        self.told = told

    def bid(self, auction: OpenAuction) -> None:
        """Report."""
        treatment, reason = self.told
        if treatment is Treatment.NONE:
            auction.report(self, skipped=str(reason))
        else:
            super().bid(auction)

    def privacy(self, request: BidRequest) -> tuple[Treatment, Reason | None]:
        """What it is told, and why not more."""
        return self.told

    def read(self, answer: Any) -> Report:
        """It hands nothing in."""
        raise AssertionError(answer)


class Silent(_Payer):
    """Reports when a test has it report."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._asked = asyncio.Event()

    def bid(self, auction: OpenAuction) -> None:
        """Keep the auction."""
        self.seen.append(auction)
        self._asked.set()

    async def asked(self, times: int = 1) -> None:
        """Wait until it has seen so many auctions."""
        while len(self.seen) < times:
            self._asked.clear()
            await self._asked.wait()


class Broken(_Payer):
    """Raises, which a bidder must not."""

    def bid(self, auction: OpenAuction) -> None:
        """Raise."""
        raise RuntimeError("the model is not loaded")


class Pauper(Prompt):
    """Bids at once and cannot pay."""

    def claim(self, auction: OpenAuction, bid: Bid, cost_nanos: int) -> bool:
        """Refuse."""
        return False
