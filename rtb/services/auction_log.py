"""One log line an auction, for a share of them."""

from __future__ import annotations

import random

import structlog

from rtb.domain import money
from rtb.services.exchange import Auction, Outcome

_log = structlog.get_logger(__name__)


class AuctionLog:
    """A listener of `Exchange.listen`: the whole story of an auction on one line."""

    def __init__(self, share: float) -> None:
        """Log this share of the auctions, 0 to 1."""
        self._share = share

    def __call__(self, auction: Auction, outcome: Outcome) -> None:
        """Log it, or not; rehearsals never. Prices are CPM of the exchange currency."""
        if auction.rehearsal or random.random() >= self._share:
            return
        sold = [result for result in outcome.results if result.winner is not None]
        _log.info(
            "auction",
            auction_id=auction.id,
            request_id=auction.request.id,
            outcome=outcome.status.value,
            nbr=None if outcome.nbr is None else int(outcome.nbr),
            imps=len(auction.terms),
            bids=sum(map(len, auction.bids.values())),
            late=sorted(auction.pending),
            failed=sorted(auction.failures),
            won={result.impid: result.winner.seat for result in sold if result.winner is not None},
            paid={result.impid: money.to_cpm(result.price_micros) for result in sold},
        )
