"""Runs recorded auctions again, offline, through the exchange itself, under the rules they had or under other ones.

What was decided outside the auction is as recorded: who was asked and what they answered, which requests were refused,
who could pay. Nothing else is taken from the record, so that an unchanged replay comes to the same outcomes, bit for
bit. A change that would have made somebody bid otherwise goes as far as the record does: a campaign bids what its
definition, the user's profile and the new floor make of it, where it bid or was kept out by the floor alone; a remote
bidder says what it said.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import cast

from rtb import openrtb
from rtb.domain import facts, money, pricing
from rtb.domain import replay as log
from rtb.domain.auction import HOUSE, Bid, Lost, Terms, floor_micros
from rtb.domain.campaign import Campaign
from rtb.domain.money import Rates
from rtb.domain.replay import AuctionLine, CampaignLine, Header, RecordedBid
from rtb.domain.replay_changes import Changes, parse
from rtb.domain.replay_report import Comparison, Sale
from rtb.errors import BadRequest, Malformed
from rtb.openrtb import BidRequest, Loss, NoBid
from rtb.ports import OpenAuction
from rtb.services.admission import Admission
from rtb.services.exchange import Auction, Exchange, Outcome, Rules, Status
from rtb.services.metrics import Metrics
from rtb.services.profiles import Profiles, User
from rtb.services.replay_log import recorded_outcome

_ADMISSION = frozenset({NoBid.INSUFFICIENT_TIME, NoBid.SHED, NoBid.KNOWN_CRAWLER})
_ARRIVAL_NS = 1 << 62  # on the replay's clock; deadlines may lie before it


async def replay(lines: Iterable[tuple[str, bytes]], settings: Sequence[str] = ()) -> Comparison:
    """Run the auctions of a log again.

    Args:
        lines: of the log, each with where it stands.
        settings: what is changed, as rtb.domain.replay_changes.KNOWN has it; nothing for an unchanged replay.

    Raises:
        ConfigError: a setting is wrong, or names a bidder or a campaign that is not in the log.
        Malformed: a line of the log is.
        InvalidCampaign: a change makes a campaign one that cannot be.
    """
    run = Replay(parse(settings), settings)
    for where, line in lines:
        try:
            await run.feed(line)
        except Malformed as error:
            raise Malformed(f"{where}: {error}") from None
    run.check_names()
    return run.comparison


class Replay:
    """Feed it the lines of a log; `comparison` is what came of them."""

    def __init__(self, changes: Changes, described: Sequence[str] = ()) -> None:
        """Replay under changes, `described` as they were given."""
        self.comparison = Comparison(changes=[*described])
        self._changes = changes
        self._campaigns: dict[tuple[str, int], Campaign] = {}
        self._stage: _Stage | None = None
        self._bidders: set[str] = set()

    async def feed(self, line: bytes) -> None:
        """One more line.

        Raises:
            Malformed: it is none, or does not belong there.
            InvalidCampaign: a change makes a campaign one that cannot be.
        """
        found = log.decode(line)
        if isinstance(found, Header):
            self._stage = _Stage(found, self._changes)
            if self.comparison.currency not in ("", found.currency):
                raise Malformed(
                    f"auctions in {found.currency} after some in {self.comparison.currency}; replay one log"
                )
            self.comparison.currency = found.currency
        elif isinstance(found, CampaignLine):
            self._campaigns[found.campaign.id, found.campaign.version] = found.campaign
        elif self._stage is None:
            raise Malformed("an auction before any header: the beginning of the log is missing")
        else:
            await self._run(self._stage, found)

    def check_names(self) -> None:
        """At the end: whether the changes named somebody.

        Raises:
            ConfigError: they did not.
        """
        self._changes.check_names(self._bidders, {campaign_id for campaign_id, _ in self._campaigns})

    async def _run(self, stage: _Stage, line: AuctionLine) -> None:
        self._bidders.update(line.bidders, (bid.bidder for bid in line.bids))
        try:
            request = openrtb.decode_request(bytes(line.request))
            auction, cue = await stage.run(line, request, self._campaigns)
        except BadRequest as error:
            raise Malformed(f"auction {line.id}: its request does not decode: {error}") from None
        except KeyError as error:
            raise Malformed(f"auction {line.id}: the log has not what it names: {error}") from None
        outcome = auction.outcome
        assert outcome is not None
        again = log.encode(recorded_outcome(outcome, cue.place))
        costs = {terms.impid: terms.multiplier for terms in auction.terms}
        self.comparison.add(
            line.id,
            line.received_at,
            len(request.imp or ()),
            _sales_recorded(line, costs),
            _sales(outcome, cue, costs),
            exact=again == log.encode(line.outcome),
        )


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


class _Cue:
    """One auction as it is to be played: its bids, made anew, and where they come from."""

    def __init__(self, line: AuctionLine) -> None:
        self.line = line
        self.bids: dict[str, list[Bid]] = defaultdict(list)
        self.rejected = [Lost(_bid(bid, bid.price_micros), Loss(reason)) for bid, reason in line.rejected]
        self.late: set[str] = {*line.late}
        self._recorded: list[RecordedBid] = []
        self._places: dict[int, int] = {}
        self._made: list[Bid] = []

    def add(self, recorded: RecordedBid, place: int, price_micros: int) -> None:
        """A bid that takes part."""
        bid = _bid(recorded, price_micros)
        self._made.append(bid)  # which keeps its identity its own
        self._recorded.append(recorded)
        self._places[id(bid)] = place
        bid.content = recorded
        self.bids[bid.impid].append(bid)

    def place(self, bid: Bid) -> int:
        """Among the bids of the record; those that were kept out come after them."""
        return self._places[id(bid)]


class _Player:
    """A bidder, as it was."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.secondary = False
        self.cue: _Cue | None = None

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
        self.campaigns: Mapping[tuple[str, int], Campaign] = {}
        self.advertisers = 0

    def bid(self, auction: OpenAuction) -> None:
        """Set up, and report nothing."""
        assert isinstance(auction, Auction)
        assert self.cue is not None
        auction.id = self.cue.line.id
        auction.terms = [self.changes.terms(terms) for terms in auction.terms]
        _cast(auction, self.cue, self.changes, self.campaigns, self.advertisers)
        auction.bids = self.cue.bids
        auction.rejected = self.cue.rejected
        auction.report(self)


class _Stage:
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

    async def run(
        self, line: AuctionLine, request: BidRequest, campaigns: Mapping[tuple[str, int], Campaign]
    ) -> tuple[Auction, _Cue]:
        """One auction again, and its cue."""
        clock, gate, outcome = self._clock, self._gate, line.outcome
        cue = _Cue(line)
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

    def _set_players(self, line: AuctionLine, cue: _Cue, campaigns: Mapping[tuple[str, int], Campaign]) -> None:
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


def _cast(
    auction: Auction,
    cue: _Cue,
    changes: Changes,
    campaigns: Mapping[tuple[str, int], Campaign],
    advertisers: int,
) -> None:
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
        if kept_out or (changes and recorded.bidder == HOUSE):
            house[recorded.impid].append((place, recorded, price))
        else:
            cue.add(recorded, place, price)
    for bids in house.values():
        bids.sort(key=lambda bid: (-bid[2], bid[0]))
        for place, recorded, price in bids[:advertisers]:
            cue.add(recorded, place, price)


class _Prices:
    """What bids are worth in an auction, under changes."""

    def __init__(self, auction: Auction, changes: Changes, campaigns: Mapping[tuple[str, int], Campaign]) -> None:
        self._auction = auction
        self._changes = changes
        self._campaigns = campaigns
        self._context: facts.Context | None = None

    def of(self, recorded: RecordedBid, terms: Terms) -> int:
        """CPM micros; 0 where it does not take part."""
        changes, price = self._changes, recorded.price_micros
        if not changes:
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


def _sales_recorded(line: AuctionLine, multipliers: Mapping[str, float]) -> dict[str, Sale]:
    return {
        result.impid: _sale(line.bids[result.winner], result.price_micros, multipliers)
        for result in line.outcome.results
        if result.winner is not None
    }


def _sales(outcome: Outcome, cue: _Cue, multipliers: Mapping[str, float]) -> dict[str, Sale]:
    return {
        result.impid: _sale(result.winner.content, result.price_micros, multipliers)
        for result in outcome.results
        if result.winner is not None
    }


def _sale(bid: RecordedBid, price_micros: int, multipliers: Mapping[str, float]) -> Sale:
    return Sale(
        impid=bid.impid,
        bidder=bid.bidder,
        seat=bid.seat,
        campaign=bid.campaign,
        price_micros=price_micros,
        nanos=money.impression_nanos(price_micros, multipliers[bid.impid]),
    )
