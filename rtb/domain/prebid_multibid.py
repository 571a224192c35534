"""``ext.prebid.multibid``: how many bids of a bidder code a page takes on an imp, and under which codes it knows them.

Source: Prebid Server, endpoint /openrtb2/auction, "MultiBid"; its openrtb_ext/multibid.go for limits and what is wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct

FEWEST, MOST = 1, 9
"""Bids of a code on an imp; what lies outside is taken for the nearer of the two."""


class MultiBid(Struct, frozen=True):
    """An entry: for one `bidder`, or alike for several `bidders`, whose further bids then go to no ad server."""

    bidder: str = ""
    bidders: tuple[str, ...] | None = None
    maxbids: int | None = None
    targetbiddercodeprefix: str = ""


class BidLimit(Struct, frozen=True):
    """Of a code: bids on an imp, and what those after the first are called, less their number; "" for nothing."""

    maxbids: int
    prefix: str = ""

    def target(self, code: str, place: int) -> str:
        """What the ad server is to call the bid at a place, from 1; "" when it is not to hear of it."""
        if place == 1:
            return code
        return f"{self.prefix}{place}" if self.prefix else ""


ONE = BidLimit(FEWEST)
"""Of a code that no entry names."""


def limits(entries: Iterable[MultiBid]) -> tuple[dict[str, BidLimit], list[str]]:
    """The limits by code in small letters, of which the first entry counts, and a line for all that is wrong."""
    found: dict[str, BidLimit] = {}
    flaws: list[str] = []
    for i, entry in enumerate(entries):
        where = f"ext.prebid.multibid[{i}]"
        if entry.maxbids is None:
            flaws.append(f"{where}: ignored, maxbids is missing")
            continue
        maxbids = min(max(entry.maxbids, FEWEST), MOST)
        if maxbids != entry.maxbids:
            flaws.append(f"{where}.maxbids: {entry.maxbids} is taken for {maxbids}; send {FEWEST} to {MOST}")
        codes, prefix = _codes(entry, where, flaws)
        for code in codes:
            if code.lower() in found:
                flaws.append(f"{where}: ignored for {code[:64]!r}, which an entry before it names")
            else:
                found[code.lower()] = BidLimit(maxbids, prefix)
    return found, flaws


def _codes(entry: MultiBid, where: str, flaws: list[str]) -> tuple[Sequence[str], str]:
    """Whom an entry is for, and the prefix it gives them."""
    if entry.bidder:
        if entry.bidders is not None:
            flaws.append(f"{where}.bidders: ignored beside bidder")
        return (entry.bidder,), entry.targetbiddercodeprefix
    if not entry.bidders:
        flaws.append(f"{where}: ignored, it names no bidder")
    elif entry.targetbiddercodeprefix:
        flaws.append(f"{where}.targetbiddercodeprefix: ignored beside bidders; give each an entry of its own")
    return entry.bidders or (), ""
