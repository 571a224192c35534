"""The house: in-process campaigns as a bidder, and the catalogue they stand in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import islice

from rtb.domain import facts, money, pricing
from rtb.domain.auction import HOUSE, Bid
from rtb.domain.campaign import Campaign, Pricing, Status
from rtb.domain.facts import Context, Placement
from rtb.domain.frequency import reached
from rtb.domain.money import Rates
from rtb.domain.pricing import charge_nanos
from rtb.domain.remembered import Remembered
from rtb.domain.targeting import Candidate, Index
from rtb.domain.tracking import Signer, Ticket, impid_in_ledger
from rtb.domain.windows import Windows
from rtb.ports import Clock, OpenAuction
from rtb.services.budgets import Budgets, Hold
from rtb.services.profiles import Profiles
from rtb.services.purse import NS

_Hope = tuple[OpenAuction, Collection[str], asyncio.TimerHandle]
"""An auction that waits, for which campaigns, and what ends that."""
_CPM = Pricing.CPM
_MOST_PAGES = 8_192
_TIED = 16
"""Advertisers that enter when all that would enter bid the same, so that the draw is not among those of low ids."""


class HouseBidder:
    """Bids for up to `advertisers` campaigns an imp, one bid each, at once and in process."""

    name = HOUSE
    secondary = False

    def __init__(
        self,
        profiles: Profiles,
        clock: Clock,
        rates: Rates,
        *,
        advertisers: int = 4,
        budgets: Budgets | None = None,
        signer: Signer | None = None,
        windows: Windows | None = None,
        bills_wins: bool = False,
    ) -> None:
        """Start with an empty catalogue; `load` fills it.

        Second price needs two bids, and a spare or two for when a budget cannot pay the win after all.

        Without `budgets` they are those of this process; without a `signer` tickets tell neither user nor destination.
        `windows` say how long a win is held, by format, the budgets' own window at most. With `bills_wins` the win is
        what a campaign pays for: tickets cost nothing any more.
        """
        self.index = Index()
        self.budgets = budgets or Budgets(clock)
        self.budgets.on_change = self._fund
        self.budgets.on_leased = self._look_again
        self.hope = 0.8
        """The share of an auction's time that it waits for a lease where nobody who would bid can pay,"""
        self.patience = 0.2
        """and where somebody can, but not the best for an imp."""
        self._hopeful: dict[str, _Hope] = {}
        self._looking = False
        self.on_win: Callable[[Ticket], None] | None = None
        """Called in the step of a win."""
        self.admits: Callable[[str], bool] | None = None
        """Asked, by id, of a campaign that would bid: whether it may just now."""
        self.objection: Callable[[str], str] = _unsaid
        """Why it may not always, in words, "" when it may; asked by explanations."""
        self._profiles = profiles
        self._clock = clock
        self._rates = rates
        self.advertisers = advertisers
        self._windows = windows or Windows()
        self._bills_wins = bills_wins
        self._user_digest = signer.user_digest if signer is not None else _unsaid
        self._destinations = Remembered(signer.destination if signer is not None else _unsaid, _MOST_PAGES)

    def load(self, campaigns: Iterable[Campaign]) -> None:
        """Replace the whole catalogue, at start."""
        self.index = Index(campaigns)
        for campaign in self.index.campaigns():
            if not self.budgets.watch(campaign):
                self.index.set_live(campaign.id, False)

    def put(self, campaign: Campaign) -> None:
        """Insert or replace one campaign, in place; an auction in flight keeps the value it holds."""
        self.index.put(campaign)
        self.index.set_live(campaign.id, self.budgets.watch(campaign))

    def bid(self, auction: OpenAuction) -> None:
        """Report the best campaigns for each imp; where the first has no money leased, once that has come: else one
        that seldom matches would lose every time, its lease gone back before the next."""
        bids, budgets = self._bids(auction), self.budgets
        if budgets.is_shared and not budgets.is_away and (unready := self._unready(bids)):
            self._hope(auction, unready, self.patience if self._any_ready(bids) else self.hope)
        else:
            auction.report(self, bids)

    def warm(self, most: int) -> None:
        """Lease ahead for so many of the campaigns that bid most."""
        for campaign in islice(self.index.campaigns(), most):
            self.budgets.warm(campaign.id)

    def _bids(self, auction: OpenAuction) -> list[Candidate]:
        imps, all_terms = auction.request.imp or (), auction.terms
        match, now = self._match, self._clock.time()
        context = facts.context(auction.request, auction.profile, auction.frequency, now=now)
        if len(imps) == 1:
            placement = facts.placement(imps[0], self._rates, all_terms[0])
            return match(context, placement)
        bids: list[Candidate] = []
        for imp, terms in zip(imps, all_terms, strict=True):
            placement = facts.placement(imp, self._rates, terms)
            bids += match(context, placement)
        return bids

    def _match(self, context: Context, placement: Placement) -> list[Candidate]:
        most = self.advertisers
        bids = self.index.match(context, placement, limit=most, admits=self.admits)
        if len(bids) < most or bids[-1].price_micros != bids[0].price_micros:
            return bids
        bids = self.index.match(context, placement, limit=max(most, _TIED), admits=self.admits)
        return bids[: pricing.entering([bid.price_micros for bid in bids], most)]

    def _unready(self, bids: Sequence[Candidate]) -> list[str]:
        """The campaigns that are first for an imp and cannot pay at once; they are leased for."""
        budgets, impid, found = self.budgets, None, []
        for bid in bids:
            if bid.impid != impid:
                impid = bid.impid
                if not budgets.is_ready(bid.campaign.id):
                    budgets.warm(bid.campaign.id)
                    found.append(bid.campaign.id)
        return found

    def _any_ready(self, bids: Sequence[Candidate]) -> bool:
        """Whether one could pay at once; those before it in rank are leased for."""
        budgets = self.budgets
        for bid in bids:
            if budgets.is_ready(bid.campaign.id):
                return True
            budgets.warm(bid.campaign.id)
        return False

    def _hope(self, auction: OpenAuction, campaign_ids: Collection[str], share: float) -> None:
        left_s = (auction.deadline_ns - self._clock.monotonic_ns()) / NS
        timer = asyncio.get_running_loop().call_later(left_s * share, self._give_up_hope, auction.id)
        self._hopeful[auction.id] = auction, campaign_ids, timer

    def _give_up_hope(self, auction_id: str) -> None:
        auction, _, _ = self._hopeful.pop(auction_id)
        auction.report(self, self._bids(auction))

    def _look_again(self) -> None:
        """Leases have come: once all of this moment are in, see who can bid now."""
        if self._hopeful and not self._looking:
            self._looking = True
            asyncio.get_running_loop().call_soon(self._report_hopeful)

    def _report_hopeful(self) -> None:
        """A campaign whose account is yet to be made is dry for a moment, and does not bid, but its lease is coming."""
        self._looking, is_coming = False, self.budgets.is_coming
        for auction, campaign_ids, timer in list(self._hopeful.values()):
            if any(map(is_coming, campaign_ids)):
                continue
            bids = self._bids(auction)
            if unready := self._unready(bids):  # what came was not enough, or the next in rank has none
                self._hopeful[auction.id] = auction, unready, timer
                continue
            timer.cancel()
            del self._hopeful[auction.id]
            auction.report(self, bids)

    def context(self, auction: OpenAuction) -> Context:
        """The facts of the auction's request, as of now."""
        return facts.context(auction.request, auction.profile, auction.frequency, now=self._clock.time())

    def claim(self, auction: OpenAuction, bid: Bid, cost_nanos: int) -> Ticket | None:
        """Hold the cost, with the margin on it, on the campaign's budget and count its frequency caps; the ticket.

        None when the budget cannot pay, or a cap was reached since the bid: by another imp or auction of the user.
        """
        assert isinstance(bid, Candidate)
        campaign, capped = bid.campaign, bid.caps
        if capped and reached(capped, auction.frequency):
            return None
        if campaign.margin:
            cost_nanos = charge_nanos(campaign, cost_nanos)
        window_ms = self._windows.window_ms(auction.request, bid.impid, bid.creative.media)
        hold = self.budgets.hold(campaign.id, cost_nanos, window_ms)
        if hold is None:
            return None
        ticket = self._ticket(auction, bid, cost_nanos, hold)
        if self.on_win is not None:
            self.on_win(ticket)
        if capped and auction.user_id:
            for cap in capped:
                self._profiles.count(auction.user_id, cap.counter, cap.window_s)
        return ticket

    def _ticket(self, auction: OpenAuction, bid: Candidate, cost_nanos: int, hold: Hold) -> Ticket:
        campaign, creative = bid.campaign, bid.creative
        pricing, impid = campaign.pricing, bid.impid
        price_nanos = cost_nanos if pricing is _CPM else money.unit_nanos(campaign.bid)
        return Ticket(
            auction.id,
            impid_in_ledger(impid),
            campaign.id,
            creative.id,
            hold.day,
            self.budgets.instance,
            pricing,
            0 if self._bills_wins else price_nanos,
            cost_nanos,
            self._clock.time(),
            hold.expires_at,
            self._user_digest(auction.user_id),
            self._destinations[creative.landing_page],
        )

    def is_funded(self, campaign_id: str) -> bool:
        """Whether its budget can pay one more impression at its bid."""
        return self.budgets.funded(campaign_id)

    def refresh(self) -> None:
        """Once a second: begin new budget days."""
        self.budgets.refresh()

    def campaigns(self) -> Iterator[Campaign]:
        """Every campaign of the catalogue."""
        return self.index.campaigns()

    def _fund(self, campaign_id: str, funded: bool) -> None:
        campaign = self.index.get(campaign_id)
        if campaign is not None and campaign.status is Status.ACTIVE:
            self.index.set_live(campaign_id, funded)


def _unsaid(text: str) -> str:
    """What a ticket says of it where nobody could verify it."""
    return ""
