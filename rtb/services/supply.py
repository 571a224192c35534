"""The supply chain of every request, judged before anybody bids: counted, and refused where that is wanted."""

from __future__ import annotations

from collections import Counter

import structlog

from rtb.domain.schain import SupplyCheck
from rtb.openrtb import BidRequest, NoBid

_log = structlog.get_logger(__name__)


class SupplyGate:
    """Asked by the exchange of each request. `faults` counts them by reason, whether refused or only marked; those of
    rehearsals are not counted."""

    def __init__(self, check: SupplyCheck) -> None:
        """Judge by `check`; each kind of fault is logged once."""
        self._check = check
        self._refuses = check.policy.on_fault == "refuse"
        self.faults: Counter[NoBid] = Counter()

    def why(self, request: BidRequest, nbr: int | None) -> str:
        """What of the request is at fault, "" when that is not what `nbr` says; nothing is counted."""
        fault = self._check.fault(request) if self._refuses else None
        return "" if fault is None or fault.nbr != nbr else fault.why

    def __call__(self, request: BidRequest, rehearsal: bool) -> NoBid | None:
        """Why the request is not auctioned; None when it is."""
        fault = self._check.fault(request)
        if fault is None:
            return None
        if not rehearsal:
            if not self.faults[fault.nbr]:
                _log.warning("supply_chain_fault", reason=fault.nbr.name.lower(), why=fault.why, refused=self._refuses)
            self.faults[fault.nbr] += 1
        return fault.nbr if self._refuses else None
