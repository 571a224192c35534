"""A market for the recorder: lab traffic made more varied, the house, and bidders who do all that bidders may do."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from typing import Any
from zlib import crc32

import orjson
from msgspec.structs import replace

from rtb import openrtb
from rtb.domain import prebid, replay
from rtb.domain.auction import Bid, Lost
from rtb.domain.campaign import Campaign, FrequencyCap, Optimise
from rtb.domain.intake import take_in
from rtb.domain.money import Rates
from rtb.domain.profile import Profile
from rtb.lab import catalogue
from rtb.lab.traffic import DEAL_IDS, INTERESTS, Traffic
from rtb.openrtb import Bid as WireBid
from rtb.openrtb import BidRequest, BidResponse, SeatBid
from rtb.ports import OpenAuction
from rtb.services.replay_log import ReplayLog
from tests.unit.parts import World

RATES = {"EUR": 1.25, "KRW": 0.00072}
USERS = 300
DIFFERENT = 2_000
CODES = ("house", "north", "south", "west.1", "rtb", "nobody")
"""Bidder codes that a page names."""
MS = 1_000_000


class Tape:
    """Keeps lines as a replay reads them."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, bytes]] = []
        self._campaigns: set[tuple[str, int]] = set()

    def put(self, record: bytes, campaigns: Sequence[Campaign] = ()) -> bool:
        """Keep it."""
        for campaign in campaigns:
            if (campaign.id, campaign.version) not in self._campaigns:
                self._campaigns.add((campaign.id, campaign.version))
                self.lines.append(("tape", replay.encode(replay.CampaignLine(campaign))))
        self.lines.append(("tape", record))
        return True


class Trader:
    """Bids as a remote bidder does, through the real intake. What it does with a request is drawn from its name and the
    request's id: few prices, so that many are equal; deals, groups, currencies; bids that are refused; failures and
    silence; and now and then it cannot pay."""

    secondary = False

    def __init__(self, name: str, rates: Rates, clock: Any, *, adjustment: float = 1.0, at: int = 0) -> None:
        self.name = name
        self._rates = rates
        self._clock = clock
        self._adjustment = adjustment
        self._at = at

    def bid(self, auction: OpenAuction) -> None:
        """Report, or do not."""
        draw = self._drawing(auction.request.id)
        fate = draw.random()
        if fate < 0.05:
            return
        if fate < 0.10:
            auction.report(self, failure="status-500: HTTP status 500 instead of 200 or 204")
        elif fate < 0.20:
            auction.report(self, skipped="over its requests a second")
        elif fate < 0.35:
            auction.report(self)
        else:
            answered_ns = self._clock.monotonic_ns() + draw.randrange(5, 80) * MS
            bids, rejected = self._bids(auction.request, draw)
            auction.report(self, bids, rejected, answered_ns=answered_ns)

    def claim(self, auction: OpenAuction, bid: Bid, cost_nanos: int) -> bool:
        """Pay, but for one in twenty."""
        return self._drawing(f"{auction.request.id}/{bid.impid}").random() > 0.05

    def _drawing(self, key: str | None) -> random.Random:
        return random.Random(crc32(f"{self.name}/{key}".encode()))

    def _bids(self, request: BidRequest, draw: random.Random) -> tuple[list[Bid], list[Lost]]:
        group = 1 if draw.random() < 0.3 else None
        seatbids = [
            SeatBid(seat=seat, group=group, bid=[self._bid(imp, draw) for imp in request.imp or ()])
            for seat in draw.sample(("", "north", "south"), draw.choice((1, 1, 2)))
        ]
        cur = draw.choice(("USD", "USD", "EUR", "XTS"))
        bids, rejected = take_in(BidResponse(id=request.id, cur=cur, seatbid=seatbids), request, self.name, self._rates)
        if self._adjustment != 1.0:
            for bid in bids:
                bid.price_micros = max(int(bid.price_micros * self._adjustment), 1)
        for bid in bids:
            bid.at = self._at
        return bids, rejected

    def _bid(self, imp: openrtb.Imp, draw: random.Random) -> WireBid:
        deals = [deal.id for deal in (imp.pmp.deals if imp.pmp is not None else None) or ()]
        return WireBid(
            id=f"{self.name}-{imp.id}",
            impid=imp.id,
            price=draw.choice((0.2, 0.5, 0.5, 1.0, 1.0, 2.0, 2.5, 4.0, 8.0)),
            adm=draw.choice(("<b>ad</b>", "<b>ad</b>", "<b>ad</b>", "")),
            adomain=[draw.choice((f"{self.name}.test", "everyone.test"))],
            crid="c",
            dealid=draw.choice((*deals, *deals, None, "unknown")) if deals else None,
            dur=draw.choice((None, 15, 30)) if imp.video is not None else None,
        )


def bodies(seed: int) -> Iterator[bytes]:
    """Requests as they come in, without end; after some they come again, with other ids."""
    draw = random.Random(seed)
    requests = list(islice(Traffic(seed, users=USERS).requests(), DIFFERENT))
    for request in requests:
        _vary(request, draw)
    for number, request in enumerate(cycle(requests)):
        body = {**request, "id": f"{request['id']}-{number}"}
        yield orjson.dumps(body, option=orjson.OPT_INDENT_2 if draw.random() < 0.1 else 0)


def campaigns(count: int, seed: int) -> list[Campaign]:
    """House campaigns: some optimise, some are capped, some have next to no money."""
    found = []
    draw = random.Random(seed)
    for campaign in catalogue.campaigns(count, seed):
        what = draw.random()
        if what < 0.2:
            campaign = replace(campaign, optimise=Optimise(), max_bid=None)
        elif what < 0.4:
            campaign = replace(campaign, frequency_cap=FrequencyCap(2))
        elif what < 0.5:
            campaign = replace(campaign, daily_budget=0.01)
        found.append(campaign)
    return found


def profiles() -> list[Profile]:
    """Of half of the users."""
    draw = random.Random(1)
    traffic = Traffic(0, users=USERS)
    return [
        Profile(traffic.user(rank).id, tuple(draw.sample(INTERESTS, 3)), value=draw.choice((-0.5, 0.0, 0.5)))
        for rank in range(0, USERS, 2)
    ]


async def hold(world: World, log: ReplayLog, auctions: int, *, seed: int = 1) -> None:
    """Hold auctions on a clock set by hand, until each is settled; `log` hears of them. Imps are offered to the bidders
    that a page names."""
    world.exchange.listen(log)
    source = bodies(seed)
    draw = random.Random(seed)
    for _ in range(auctions):
        body = next(source)
        world.clock.advance(0.01)
        age_ns = draw.choice((0,) * 50 + (200 * MS,))
        request = openrtb.decode_request(body)
        asked = prebid.read(request, [bidder.name for bidder in world.exchange.bidders], "rtb")
        auction = world.exchange.begin(
            request,
            world.clock.monotonic_ns() - age_ns,
            body=body if draw.random() < 0.9 else b"",
            offered=None if asked is None else asked.offers,
        )
        if auction.outcome is None:
            if auction.fanned_out_ns:
                world.clock.advance(0.3)
            await world.exchange.finish(auction)


def _vary(request: dict[str, Any], draw: random.Random) -> None:
    """What traffic has rarely or never."""
    if draw.random() < 0.02:
        request["device"]["ua"] = "Googlebot/2.1 (+http://www.google.com/bot.html)"
    if draw.random() < 0.02:
        request["tmax"] = 10
    if draw.random() < 0.1:
        request["cur"] = draw.choice((["EUR"], ["EUR", "USD"], ["XTS"]))
    if draw.random() < 0.1:
        request["at"] = 501
    page = draw.random() < 0.15
    for imp in request["imp"]:
        if draw.random() < 0.15:
            deals = [
                {"id": deal, "bidfloor": draw.choice((0.5, 2.0)), "at": draw.choice((1, 2, 3))}
                for deal in draw.sample(DEAL_IDS, 2)
            ]
            if draw.random() < 0.3:
                deals[0]["wseat"] = ["north"]
            imp["pmp"] = {"private_auction": int(draw.random() < 0.2), "deals": deals}
        if "video" in imp and draw.random() < 0.3:
            imp["video"]["mincpmpersec"] = 0.05
        if draw.random() < 0.05:
            imp["qty"] = {"multiplier": draw.choice((1.5, 12.34))}
        if draw.random() < 0.1:
            imp["bidfloor"], imp["bidfloorcur"] = 0.7, draw.choice(("EUR", "KRW", "XTS"))
        if page:
            names = draw.sample(CODES, draw.randrange(1, 4))
            imp.setdefault("ext", {})["prebid"] = {"bidder": {name: {} for name in names}}
