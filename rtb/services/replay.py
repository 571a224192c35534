"""Runs recorded auctions again, offline, through the exchange itself, under the rules they had or under other ones.

What was decided outside the auction is as recorded: who was asked and what they answered, which requests were refused,
who could pay. Nothing else is taken from the record, so that an unchanged replay comes to the same outcomes, bit for
bit. A change that would have made somebody bid otherwise goes as far as the record does: a campaign bids what its
definition, the user's profile and the new floor make of it, where it bid or was kept out by the floor alone; a remote
bidder says what it said.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rtb import openrtb
from rtb.domain import money
from rtb.domain import replay as log
from rtb.domain.campaign import Campaign
from rtb.domain.replay import AuctionLine, CampaignLine, Header, RecordedBid
from rtb.domain.replay_changes import Changes, parse
from rtb.domain.replay_report import Comparison, Sale
from rtb.errors import BadRequest, Malformed
from rtb.services.exchange import Outcome
from rtb.services.replay_log import recorded_outcome
from rtb.services.replay_stage import Stage


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
        self._stage: Stage | None = None
        self._bidders: set[str] = set()

    async def feed(self, line: bytes) -> None:
        """One more line.

        Raises:
            Malformed: it is none, or does not belong there.
            InvalidCampaign: a change makes a campaign one that cannot be.
        """
        found = log.decode(line)
        if isinstance(found, Header):
            self._stage = Stage(found, self._changes)
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

    async def _run(self, stage: Stage, line: AuctionLine) -> None:
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
            _sales(outcome, costs),
            exact=again == log.encode(line.outcome),
        )


def _sales_recorded(line: AuctionLine, multipliers: Mapping[str, float]) -> dict[str, Sale]:
    return {
        result.impid: _sale(line.bids[result.winner], result.price_micros, multipliers)
        for result in line.outcome.results
        if result.winner is not None
    }


def _sales(outcome: Outcome, multipliers: Mapping[str, float]) -> dict[str, Sale]:
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
