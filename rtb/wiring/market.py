"""The exchange and its remote bidders, who come and go with their file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import structlog

from rtb import openrtb
from rtb.adapters.bidder_file import BidderFile
from rtb.domain import money
from rtb.domain.auction import Bid
from rtb.domain.privacy_tally import told
from rtb.errors import BadRequest, ConfigError, NotFound
from rtb.ports import Bidder, Clock
from rtb.services.bidder_health import BidderReport
from rtb.services.exchange import Exchange, Rules
from rtb.services.further_bids import FurtherBids
from rtb.services.supply import SupplyGate
from rtb.wiring.bidders import RemoteBidders

_log = structlog.get_logger(__name__)


class Market:
    """Keeps the exchange's bidders in step with their file.

    `problem` says why the file as it is now is not what is in use; "" when it is.
    """

    def __init__(
        self,
        exchange: Exchange,
        rules: Rules,
        own: Sequence[Bidder],
        remote: RemoteBidders,
        file: BidderFile | None,
        clock: Clock,
        alone: Callable[[Bidder], Exchange],
        *,
        code: str = "",
        gate: SupplyGate | None = None,
    ) -> None:
        """Nothing is read yet; `own` are the bidders that always take part, `alone` makes an exchange of one bidder.
        No bidder may be called `code`: that is the whole exchange."""
        self.exchange = exchange
        self.rules = rules
        self.remote = remote
        self.gate = gate
        self.problem = ""
        self.further: FurtherBids | None = None
        """Finds the bids beside the winner."""
        self._code = code
        self._own = tuple(own)
        self._file = file
        self._clock = clock
        self._alone = alone
        self._off: list[str] = []

    def start(self) -> None:
        """Read the file, on the event loop. Raises ConfigError."""
        self.remote.start()
        if self._file is not None:
            self._apply(self._file)

    def refresh(self) -> None:
        """Follow the file if it has changed; a file that is wrong changes nothing but `problem`."""
        if self._file is None or not self._file.changed():
            return
        try:
            self._apply(self._file)
        except ConfigError as error:
            self.problem = str(error)
            _log.warning("bidders_refused", reason=self.problem, in_use=[one.name for one in self.remote.bidders])
        else:
            _log.info("bidders_changed", bidders=[one.name for one in self.remote.bidders])

    async def close(self) -> None:
        """End the connections to bidders."""
        await self.remote.close()

    def reports(self) -> Sequence[BidderReport]:
        """The bidders in use, and how they do."""
        return [one.health.report() for one in self.remote.bidders]

    async def listed(self, _: Mapping[str, Any]) -> Any:
        """The admin command ``bidders.list``."""
        rows = []
        for one in self.remote.bidders:
            report = one.health.report()
            privacy = told(report.calls, report.stripped, report.skipped)
            row = {**msgspec.to_builtins(report), "privacy": msgspec.to_builtins(privacy)}
            rows.append({**row, "url": one.settings.url, "enabled": True})
        return {"bidders": rows + [{"name": name, "enabled": False} for name in self._off], "problem": self.problem}

    async def switched(self, arguments: Mapping[str, Any]) -> Any:
        """The admin command ``bidders.switch``: `bidder` and `enabled`. Raises NotFound, ConfigError."""
        if self._file is None:
            raise NotFound("bidders.file: there are no remote bidders; name their file in [bidders]")
        self._file.switch(str(arguments.get("bidder")), bool(arguments.get("enabled")))
        self.refresh()
        if self.problem:
            raise ConfigError(self.problem)
        return await self.listed({})

    async def tested(self, arguments: Mapping[str, Any]) -> Any:
        """The admin command ``bidders.test``: ask `bidder` alone for `request`, as a rehearsal.

        Raises:
            NotFound: it is not in use.
            BadRequest: what is wrong with the request.
        """
        name, text = str(arguments.get("bidder")), arguments.get("request")
        found = next((one for one in self.remote.bidders if one.name == name), None)
        if found is None:
            raise NotFound(f"bidder {name[:100]!r}: not in use; `rtb bidders list` shows who is")
        if not isinstance(text, str):
            raise BadRequest("request: an OpenRTB request as text is needed")
        body = text.encode()
        began_ns = self._clock.monotonic_ns()
        exchange = self._alone(found)
        auction = exchange.begin(openrtb.decode_request(body), began_ns, body=body, rehearsal=True)
        outcome = auction.outcome or await exchange.finish(auction)
        answered_ns = auction.answered_ns.get(name)
        return {
            "name": name,
            "outcome": "late" if name in auction.pending else outcome.status.value,
            "why": auction.failures.get(name) or auction.skipped.get(name) or "",
            "answered_ms": None if answered_ns is None else round((answered_ns - began_ns) / 1e6, 3),
            "bids": [_bid(bid) for bids in auction.bids.values() for bid in bids],
            "refused": [{**_bid(lost.bid), "reason": lost.reason.name.lower()} for lost in auction.rejected],
        }

    def _apply(self, file: BidderFile) -> None:
        wanted = file.read()
        if any(one.name == self._code for one in wanted):
            raise ConfigError(
                f"bidder {self._code}: this is what http.bidder_code calls the exchange; rename one of them"
            )
        self.exchange.set_bidders([*self._own, *self.remote.apply(wanted)])
        self._off = [one.name for one in wanted if not one.enabled]
        self.problem = ""


def _bid(bid: Bid) -> dict[str, Any]:
    return {"impid": bid.impid, "seat": bid.seat, "price": money.to_cpm(bid.price_micros)}
