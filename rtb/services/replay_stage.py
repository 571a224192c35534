"""The exchange of a replay: the real one, with recorded bidders, on a clock that stands where an auction needs it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import cast

from rtb.domain import facts, pricing
from rtb.domain.auction import HOUSE, Bid, Lost
from rtb.domain.campaign import Campaign
from rtb.domain.money import Rates
from rtb.domain.replay import AuctionLine, Header, RecordedBid
from rtb.domain.replay_changes import Changes
from rtb.domain.terms import Terms, floor_micros
from rtb.openrtb import BidRequest, Loss, NoBid
from rtb.ports import OpenAuction
from rtb.services.admission import Admission
from rtb.services.exchange import Auction, Exchange, Rules, Status
from rtb.services.metrics import Metrics
from rtb.services.profiles import Profiles, User

Campaigns = Mapping[tuple[str, int], Campaign]
"""By id and version."""

_ADMISSION = frozenset({NoBid.INSUFFICIENT_TIME, NoBid.SHED, NoBid.KNOWN_CRAWLER})
_ARRIVAL_NS = 1 << 62  # on the replay's clock; deadlines may lie before it


class _Clock:
    """It stands where an auction needs it."""

    def __init__(self) -> None:
        self.now_ns = _ARRIVAL_NS
        self.now_s = 0.0

    def monotonic_ns(self) -> int:
        return self.now_ns

    def time(self) -> float:
        return self.now_s


class _Gate(Admission):
    """Refuses what was refused."""

    def __init__(self) -> None:
        super().__init__(deadline_ms=1, network_margin_ms=0, minimum_ms=1, max_in_flight=1)
        self.left_ns = 0
        self.refused: NoBid | None = None

    def deadline_ns(self, tmax: int | None, received_ns: int) -> int:
        return received_ns + self.left_ns

    def refusal(self, request: BidRequest, remaining_ns: int, in_flight: int) -> NoBid | None:
        return self.refused


class _Users:
    """Knows of the user what was known."""

    def __init__(self) -> None:
        self.user = User()

    def peek(self, user_id: str, now_ns: int) -> User:
        return self.user


class Cue:
    """One auction as it is to be played: its bids, made anew, and where they come from."""

    def __init__(self, line: AuctionLine) -> None:
        self.line = line
        self.bids: dict[str, list[Bid]] = defaultdict(list)
        self.rejected = [Lost(_bid(bid, bid.price_micros), Loss(reason)) for bid, reason in line.rejected]
        self.late: set[str] = {*line.late}
        self._places: dict[int, int] = {}
        self._made: list[Bid] = []

    def add(self, recorded: RecordedBid, place: int, price_micros: int, at: int) -> None:
        """A bid that takes part; `at` is agreed with its bidder."""
        bid = _bid(recorded, price_micros)
        bid.at = at
        self._made.append(bid)  # which keeps its identity its own
        self._places[id(bid)] = place
        self.bids[bid.impid].append(bid)

    def place(self, bid: Bid) -> int:
        """Among the bids of the record; those that were kept out come after them."""
        return self._places[id(bid)]


class _Player:
    """A bidder, as it was."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.secondary = False
        self.cue: Cue | None = None

    def bid(self, auction: OpenAuction) -> None:
        """Report what was reported; not at all where it was late. The bids themselves are in the auction already."""
        assert self.cue is not None
        line = self.cue.line
        if self.name not in self.cue.late:
            auction.report(self, failure=line.failures.get(self.name), skipped=line.skipped.get(self.name))

    def claim(self, auction: OpenAuction, bid: Bid, cost_nanos: int) -> bool:
        """Whether it could pay; whoever was not asked for it then can."""
        recorded: RecordedBid = bid.content
        return not recorded.unpaid


class _Opener(_Player):
    """Is handed the auction first, and sets it up: its id, its terms, and all the bids in their order."""

    def __init__(self) -> None:
        super().__init__("")
        self.changes = Changes()
        self.campaigns: Campaigns = {}
        self.advertisers = 0

    def bid(self, auction: OpenAuction) -> None:
        """Set up, and report nothing."""
        assert isinstance(auction, Auction)
        assert self.cue is not None
        auction.id = self.cue.line.id
        auction.terms = [self.changes.terms(terms) for terms in auction.terms]
        _choose(auction, self.cue, self.changes, self.campaigns, self.advertisers)
        auction.bids = self.cue.bids
        auction.rejected = self.cue.rejected
        auction.report(self)


class Stage:
    """An exchange under the rules of a header, and of the changes."""

    def __init__(self, header: Header, changes: Changes) -> None:
        self._changes = changes
        self._clock, self._gate, self._users = _Clock(), _Gate(), _Users()
        self._players: dict[str, _Player] = {}
        self._opener = _Opener()
        self._opener.changes = changes
        self._opener.advertisers = changes.advertisers or header.advertisers
        increment, deals_first = changes.increment_micros, changes.deals_first
        rules = Rules(
            increment_micros=header.increment_micros if increment is None else increment,
            deals_first=header.deals_first if deals_first is None else deals_first,
            first_price_types=frozenset(header.first_price_types),
            tie_key=bytes.fromhex(header.tie_key),
        )
        self._exchange = Exchange(
            (),
            cast(Profiles, self._users),
            self._gate,
            Metrics("replay", self._clock),
            self._clock,
            rates=Rates(header.currency, header.rates),
            rules=rules,
        )

    async def run(self, line: AuctionLine, request: BidRequest, campaigns: Campaigns) -> tuple[Auction, Cue]:
        """One auction again, and its cue."""
        clock, gate, outcome = self._clock, self._gate, line.outcome
        cue = Cue(line)
        deadline_ns = _ARRIVAL_NS + line.deadline_ns
        expired = line.asked_ns is None and outcome.status == Status.TIMEOUT
        clock.now_ns, clock.now_s = deadline_ns if expired else _ARRIVAL_NS, line.received_at
        gate.left_ns = line.deadline_ns
        gate.refused = _refusal(line, expired=expired)
        self._users.user = User(line.profile, line.frequency)
        self._set_players(line, cue, campaigns)
        auction = self._exchange.begin(request, _ARRIVAL_NS, body=bytes(line.request))
        auction.id = line.id
        if auction.outcome is None:
            clock.now_ns = deadline_ns
            await self._exchange.finish(auction)
        return auction, cue

    def _set_players(self, line: AuctionLine, cue: Cue, campaigns: Campaigns) -> None:
        names = dict.fromkeys([*line.bidders, *(bid.bidder for bid in line.bids), *line.late, *line.failures])
        names |= dict.fromkeys(line.skipped)
        playing = []
        for name in filter(self._changes.takes_part, names):
            player = self._players.get(name) or self._players.setdefault(name, _Player(name))
            player.cue = cue
            playing.append(player)
        cue.late.update(self._changes.late(line))
        self._opener.cue, self._opener.campaigns = cue, campaigns
        self._exchange.set_bidders([self._opener, *playing])


def _refusal(line: AuctionLine, *, expired: bool) -> NoBid | None:
    """Why it was not let in; what waited past its deadline had too little time, too."""
    if expired:
        return NoBid.INSUFFICIENT_TIME
    nbr = line.outcome.nbr
    refused = NoBid(nbr) if line.asked_ns is None and nbr is not None else None
    return refused if refused in _ADMISSION else None


def _choose(auction: Auction, cue: Cue, changes: Changes, campaigns: Campaigns, advertisers: int) -> None:
    """Choose the bids that take part, at the prices that they have now."""
    line, terms = cue.line, {of_imp.impid: of_imp for of_imp in auction.terms}
    prices = _Prices(auction, changes, campaigns)
    playing = [
        (place, recorded, prices.of(recorded, terms[recorded.impid]))
        for place, recorded in enumerate((*line.bids, *line.kept_out))
        if changes.takes_part(recorded.bidder) and recorded.bidder not in cue.late
    ]
    broken = {recorded.group for _, recorded, price in playing if recorded.group and not price}
    house: dict[str, list[tuple[int, RecordedBid, int]]] = defaultdict(list)
    for place, recorded, price in playing:
        kept_out = place >= len(line.bids)
        if not price or recorded.group in broken:
            continue
        if kept_out and not _reaches(recorded, price, terms[recorded.impid]):
            continue
        if kept_out or (prices.changed and recorded.bidder == HOUSE):
            house[recorded.impid].append((place, recorded, price))
        else:
            cue.add(recorded, place, price, changes.auction_type(recorded.bidder, recorded.at))
    for bids in house.values():
        bids.sort(key=lambda bid: (-bid[2], bid[0]))
        for place, recorded, price in bids[: pricing.entering([price for *_, price in bids], advertisers)]:
            cue.add(recorded, place, price, changes.auction_type(HOUSE, recorded.at))


class _Prices:
    """What bids are worth in an auction, under changes."""

    def __init__(self, auction: Auction, changes: Changes, campaigns: Campaigns) -> None:
        self._auction = auction
        self._changes = changes
        self._campaigns = campaigns
        self._context: facts.Context | None = None
        self.changed = bool(changes)

    def of(self, recorded: RecordedBid, terms: Terms) -> int:
        """CPM micros; 0 where it does not take part."""
        changes, price = self._changes, recorded.price_micros
        if not self.changed:
            return price
        if recorded.campaign:
            campaign = self._campaigns[recorded.campaign, recorded.version]
            changed = changes.campaign(campaign)
            if changed is None:
                return 0
            if changed is not campaign or (changes.floors and campaign.optimises):
                price = self._priced(changed, terms)
        return changes.price_micros(recorded.bidder, price, recorded.sent_micros)

    def _priced(self, campaign: Campaign, terms: Terms) -> int:
        auction = self._auction
        if self._context is None:
            self._context = facts.context(auction.request, auction.profile, auction.frequency)
        return pricing.price_micros(campaign, self._context, terms.floor_micros)


def _reaches(recorded: RecordedBid, price_micros: int, terms: Terms) -> bool:
    return price_micros >= floor_micros(_bid(recorded, price_micros), terms)


def _bid(recorded: RecordedBid, price_micros: int) -> Bid:
    return Bid(
        impid=recorded.impid,
        seat=recorded.seat,
        price_micros=price_micros,
        bidder=recorded.bidder,
        dealid=recorded.dealid,
        adomain=recorded.adomain,
        mtype=recorded.mtype,
        dur=recorded.dur,
        group=recorded.group,
        content=recorded,
    )
