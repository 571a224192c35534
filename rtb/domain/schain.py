"""Whether the way a request came is complete and authorised: schain, sellers.json and ads.txt, from files at hand.

Nothing is fetched here. What is not at hand is not held against a request, unless it is asked for.

Sources: OpenRTB 2.6 3.2.25 and 3.2.26; IAB Tech Lab, SupplyChain object 1.0, sellers.json 1.0, ads.txt 1.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from rtb.errors import ConfigError
from rtb.openrtb import BidRequest, NoBid, SupplyChain

MAX_NODES = 32


class SchainPolicy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is asked of the supply chain.

    Attributes:
        on_fault: "ignore" looks at nothing, "mark" counts and says what is wrong, "refuse" answers with its reason.
        required: a request without schain is at fault.
        most_nodes: hops, ends included.
        blocked: ``asi`` domains that may not be among them.
    """

    on_fault: Literal["ignore", "mark", "refuse"] = "ignore"
    required: bool = False
    most_nodes: Annotated[int, Meta(ge=1, le=MAX_NODES)] = MAX_NODES
    blocked: tuple[str, ...] = ()


class Fault(Struct, frozen=True):
    """What is wrong with a supply chain: the reason to answer with, and one line that names the node."""

    nbr: NoBid
    why: str


class SellerType(StrEnum):
    """`seller_type` of sellers.json."""

    PUBLISHER = "PUBLISHER"
    INTERMEDIARY = "INTERMEDIARY"
    BOTH = "BOTH"


Sellers = Mapping[str, SellerType]
"""seller_id -> type, of one advertising system."""
Authorised = frozenset[tuple[str, str]]
"""(advertising system, seller id) of one ads.txt or app-ads.txt."""


class _Seller(Struct):
    seller_id: str | int
    seller_type: str = "PUBLISHER"


class _SellersFile(Struct):
    sellers: list[_Seller]


_sellers = msgspec.json.Decoder(_SellersFile)


def sellers_of(text: bytes) -> Sellers:
    """Read a sellers.json. Raises ConfigError: it is none."""
    try:
        found = _sellers.decode(text).sellers
        return {str(one.seller_id).strip(): SellerType(one.seller_type.strip().upper()) for one in found}
    except (msgspec.DecodeError, ValueError) as error:
        raise ConfigError(f"not a sellers.json: {error}"[:200]) from None


def authorised_by(text: str) -> Authorised:
    """Read an ads.txt: its records; variables, comments and what is neither are passed over, as the format asks."""
    found = set()
    for line in text.splitlines():
        fields = [field.strip() for field in line.partition("#")[0].partition(";")[0].split(",")]
        if len(fields) >= 3 and fields[0] and fields[1] and fields[2].upper() in ("DIRECT", "RESELLER"):
            found.add((fields[0].lower(), fields[1]))
    return frozenset(found)


class SupplyFiles(Struct, frozen=True, kw_only=True):
    """What is at hand: sellers.json by the domain of the system, ads.txt by that of the site or the app's bundle."""

    sellers: Mapping[str, Sellers] = {}
    ads_txt: Mapping[str, Authorised] = {}


class SupplyCheck:
    """Finds the first thing wrong with the way a request came."""

    def __init__(self, policy: SchainPolicy, files: SupplyFiles) -> None:
        """Check against these files."""
        self.policy = policy
        self._files = files
        self._blocked = frozenset(name.lower() for name in policy.blocked)

    def fault(self, request: BidRequest) -> Fault | None:
        """What is wrong; None when nothing is, or nobody asked."""
        if self.policy.on_fault == "ignore":
            return None
        chain = request.schain
        if chain is None:
            return Fault(NoBid.INCOMPLETE_SCHAIN, "schain: absent") if self.policy.required else None
        return self._incomplete(chain) or self._unknown(chain) or self._unauthorised(request, chain)

    def _incomplete(self, chain: SupplyChain) -> Fault | None:
        """Every hop must be there and say who it is, and take part in the payment."""
        nodes = chain.nodes or ()
        if chain.complete != 1:
            return Fault(NoBid.INCOMPLETE_SCHAIN, "schain.complete: is not 1")
        if not 1 <= len(nodes) <= self.policy.most_nodes:
            return Fault(
                NoBid.INCOMPLETE_SCHAIN, f"schain.nodes: {len(nodes)} hops, 1 to {self.policy.most_nodes} are taken"
            )
        for n, node in enumerate(nodes):
            if not node.asi or not node.sid:
                return Fault(NoBid.INCOMPLETE_SCHAIN, f"schain.nodes[{n}]: asi and sid are required")
            if node.hp not in (None, 1):
                return Fault(NoBid.INCOMPLETE_SCHAIN, f"schain.nodes[{n}].hp: is not 1")
            if node.asi.lower() in self._blocked:
                return Fault(NoBid.BLOCKED_SCHAIN_NODE, f"schain.nodes[{n}].asi: {node.asi[:100]} is blocked")
        return None

    def _unknown(self, chain: SupplyChain) -> Fault | None:
        """Each seller must be in the sellers.json of its system, where that is at hand: the first a publisher, the
        others intermediaries."""
        for n, node in enumerate(chain.nodes or ()):
            sellers = self._files.sellers.get((node.asi or "").lower())
            if sellers is None:
                continue
            kind = sellers.get(node.sid or "")
            if kind is None:
                why = f"schain.nodes[{n}].sid: {_shown(node.sid)} is not in the sellers.json of {_shown(node.asi)}"
                return Fault(NoBid.INCOMPLETE_SCHAIN, why)
            wrong = SellerType.PUBLISHER if n else SellerType.INTERMEDIARY
            if kind is wrong:
                why = f"schain.nodes[{n}].sid: {_shown(node.sid)} is {kind.value.lower()} in sellers.json"
                return Fault(NoBid.INCOMPLETE_SCHAIN, why)
        return None

    def _unauthorised(self, request: BidRequest, chain: SupplyChain) -> Fault | None:
        """Every hop must be in the ads.txt of the site or app, where that is at hand."""
        names = []
        if request.site is not None:
            names.append(request.site.domain)
        if request.app is not None:
            names += [request.app.bundle, request.app.domain]
        for name in names:
            listed = self._files.ads_txt.get((name or "").lower().removeprefix("www."))
            if listed is None:
                continue
            for n, node in enumerate(chain.nodes or ()):
                if ((node.asi or "").lower(), node.sid or "") not in listed:
                    why = f"schain.nodes[{n}]: {_shown(node.asi)}, {_shown(node.sid)} is not in the ads.txt of {name}"
                    return Fault(NoBid.ADS_TXT_VIOLATION, why[:300])
            return None
        return None


def _shown(text: str | None) -> str:
    return ascii((text or "")[:100])
