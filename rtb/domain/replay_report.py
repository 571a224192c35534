"""What a replay came to beside what was recorded: who won, at what price, and the revenue by bidder and campaign."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct, field

MOST_EXAMPLES = 20


class Sale(Struct, frozen=True, kw_only=True, gc=False):
    """An imp that was sold. `campaign` is "" for a bidder outside; `nanos` is what it brings."""

    impid: str
    bidder: str
    seat: str
    campaign: str
    price_micros: int
    nanos: int

    @property
    def buyer(self) -> str:
        """The campaign, or bidder and seat."""
        return self.campaign or (self.bidder if self.seat in ("", self.bidder) else f"{self.bidder}/{self.seat}")


class Share(Struct, kw_only=True):
    """What somebody won."""

    wins: int = 0
    nanos: int = 0

    def add(self, sale: Sale) -> None:
        """One more."""
        self.wins += 1
        self.nanos += sale.nanos


class Side(Struct, kw_only=True):
    """One of the two: as recorded, or as replayed. `micros` is the sum of all clearing prices."""

    auctions_won: int = 0
    total: Share = field(default_factory=Share)
    micros: int = 0
    bidders: dict[str, Share] = {}
    campaigns: dict[str, Share] = {}

    def add(self, sales: Mapping[str, Sale]) -> None:
        """One more auction."""
        self.auctions_won += bool(sales)
        for sale in sales.values():
            self.total.add(sale)
            self.micros += sale.price_micros
            self.bidders.setdefault(sale.bidder, Share()).add(sale)
            if sale.campaign:
                self.campaigns.setdefault(sale.campaign, Share()).add(sale)


class Example(Struct, frozen=True, kw_only=True):
    """An imp that went otherwise; a buyer "" is nobody. Prices are CPM micros."""

    auction_id: str
    impid: str
    before: str
    after: str
    before_micros: int
    after_micros: int


class Comparison(Struct, kw_only=True):
    """The difference, imp by imp.

    Attributes:
        auctions, imps: that were replayed.
        exact: auctions whose outcome, losses and all, is the recorded one bit for bit.
        same: imps sold to the same buyer at the same price, or unsold in both.
        repriced: sold to the same buyer at another price.
        rewon: sold to another buyer.
        gained, lost: sold in the replay only, or in the record only.
        examples: the first few imps that went otherwise.
        deviations: ids of the first few auctions that are not exact.
    """

    changes: list[str] = []
    currency: str = ""
    first_at: float = 0.0
    last_at: float = 0.0
    auctions: int = 0
    imps: int = 0
    exact: int = 0
    same: int = 0
    repriced: int = 0
    rewon: int = 0
    gained: int = 0
    lost: int = 0
    before: Side = field(default_factory=Side)
    after: Side = field(default_factory=Side)
    examples: list[Example] = []
    deviations: list[str] = []

    def add(
        self,
        auction_id: str,
        received_at: float,
        imps: int,
        before: Mapping[str, Sale],
        after: Mapping[str, Sale],
        *,
        exact: bool,
    ) -> None:
        """One more auction of so many imps: its sales by impid."""
        self.first_at = min(self.first_at or received_at, received_at)
        self.last_at = max(self.last_at, received_at)
        self.auctions += 1
        self.imps += imps
        self.exact += exact
        if not exact and len(self.deviations) < MOST_EXAMPLES:
            self.deviations.append(auction_id)
        self.before.add(before)
        self.after.add(after)
        touched = {**before, **after}
        self.same += imps - len(touched)
        for impid in touched:
            self._compare(auction_id, impid, before.get(impid), after.get(impid))

    def _compare(self, auction_id: str, impid: str, before: Sale | None, after: Sale | None) -> None:
        if before is not None and after is not None and before.buyer == after.buyer:
            if before.price_micros == after.price_micros:
                self.same += 1
                return
            self.repriced += 1
        elif before is None:
            self.gained += 1
        elif after is None:
            self.lost += 1
        else:
            self.rewon += 1
        if len(self.examples) < MOST_EXAMPLES:
            self.examples.append(
                Example(
                    auction_id=auction_id,
                    impid=impid,
                    before="" if before is None else before.buyer,
                    after="" if after is None else after.buyer,
                    before_micros=0 if before is None else before.price_micros,
                    after_micros=0 if after is None else after.price_micros,
                )
            )
