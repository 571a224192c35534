"""The admin API: the commands that act on a running daemon, over HTTP on a local socket.

``POST /{command}`` with a JSON object of arguments answers ``{"result": ...}`` or ``{"error": one line}``. The socket
is readable by its owner alone; who can open it may command the daemon.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import structlog
from aiohttp import web
from msgspec import Meta

from rtb import openrtb
from rtb.domain import campaign as campaigns
from rtb.domain import money, prebid
from rtb.domain.budget import budget_day
from rtb.domain.campaign import Campaign, Status
from rtb.domain.money import Rates
from rtb.domain.prebid import Asked
from rtb.edges.prebid_http import OWN
from rtb.errors import BadRequest, ConfigError, RtbError, StoreError
from rtb.openrtb import BidRequest
from rtb.ports import Clock, Ledger
from rtb.services.answers import bid_response
from rtb.services.answers_prebid import prebid_response
from rtb.services.campaigns import Campaigns
from rtb.services.exchange import Exchange
from rtb.services.explain import explain
from rtb.services.further_bids import FurtherBids
from rtb.services.house_bidder import HouseBidder
from rtb.services.links import Links
from rtb.services.supply import SupplyGate

MAX_BODY_BYTES = 1 << 30

_log = structlog.get_logger(__name__)
_REQUIRED: Any = object()
_Count = Annotated[int, Meta(ge=1)]
Command = Callable[[dict[str, Any]], Awaitable[Any]]


class Admin:
    """The commands, by name; each takes decoded JSON arguments and returns plain values."""

    def __init__(
        self,
        catalogue: Campaigns,
        exchange: Exchange,
        house: HouseBidder,
        clock: Clock,
        rates: Rates,
        *,
        ledger: Ledger | None = None,
        bidder_code: str = OWN,
        further: FurtherBids | None = None,
        links: Links | None = None,
        supply: SupplyGate | None = None,
    ) -> None:
        """Act on these services.

        With shared accounts `ledger` knows what other daemons spent, too; `bidder_code` stands for all bidders,
        `further` finds the bids beside the winner for a request that takes them, `links` the URLs of answers, `supply`
        what is wrong with the way a request came.
        """
        self._bidder_code = bidder_code
        self._further = further
        self._links = links
        self._supply = supply
        self._ledger = ledger
        self._catalogue = catalogue
        self._exchange = exchange
        self._house = house
        self._clock = clock
        self._rates = rates
        self.commands: dict[str, Command] = {
            "campaigns.import": self._import,
            "campaigns.list": self._list,
            "campaigns.show": self._show,
            "campaigns.pause": self._pause,
            "campaigns.resume": self._resume,
            "campaigns.set-bid": self._set_bid,
            "auction": self._auction,
            "explain": self._explain,
        }

    async def run(self, command: str, arguments: dict[str, Any]) -> Any:
        """Run one command.

        Raises:
            RtbError: it is unknown, or refused; one line.
        """
        found = self.commands.get(command)
        if found is None:
            raise BadRequest(f"{command}: no such command")
        try:
            return await found(arguments)
        except _Misfit as error:
            raise BadRequest(f"{command}: {error}") from None

    async def _import(self, arguments: dict[str, Any]) -> Any:
        wanted = [campaigns.convert(item) for item in given(arguments, "campaigns", list[Any])]
        names = {campaign.id for campaign in wanted}
        if len(names) < len(wanted):
            raise BadRequest("campaigns: two have the same id; give each its own")
        return {"written": await self._catalogue.put(wanted)}

    async def _list(self, arguments: dict[str, Any]) -> Any:
        found = self._catalogue.all(given(arguments, "status", Status, None))
        return await self._rows(found[: given(arguments, "limit", _Count, None)])

    async def _show(self, arguments: dict[str, Any]) -> Any:
        campaign = self._catalogue.get(given(arguments, "id", str))
        [row] = await self._rows([campaign])
        return {**row, "campaign": msgspec.to_builtins(campaign)}

    async def _pause(self, arguments: dict[str, Any]) -> Any:
        return self._row(await self._catalogue.set_status(given(arguments, "id", str), Status.PAUSED))

    async def _resume(self, arguments: dict[str, Any]) -> Any:
        return self._row(await self._catalogue.set_status(given(arguments, "id", str), Status.ACTIVE))

    async def _set_bid(self, arguments: dict[str, Any]) -> Any:
        return self._row(await self._catalogue.set_bid(given(arguments, "id", str), given(arguments, "bid", float)))

    async def _auction(self, arguments: dict[str, Any]) -> Any:
        body, request, asked = self._request(arguments)
        offered = None if asked is None else asked.offers
        auction = self._exchange.begin(request, self._clock.monotonic_ns(), body=body, offered=offered)
        outcome = auction.outcome or await self._exchange.finish(auction)
        if asked is not None:
            further = () if self._further is None else self._further.of(asked, auction, outcome)
            answer = prebid_response(asked, auction, outcome, self._rates, self._links, further)
            return msgspec.json.decode(openrtb.encode(answer))
        return msgspec.to_builtins(bid_response(request, outcome, self._rates, self._links))

    async def _explain(self, arguments: dict[str, Any]) -> Any:
        body, request, asked = self._request(arguments)
        offered = None if asked is None else asked.offers
        found = await explain(
            self._exchange, self._house, request, self._clock, self._rates, body=body, offered=offered
        )
        if self._supply is not None:
            found.why = self._supply.why(request, found.nbr)
        return msgspec.to_builtins(found)

    def _request(self, arguments: dict[str, Any]) -> tuple[bytes, BidRequest, Asked | None]:
        """The request given, and what it asks of Prebid, as over HTTP."""
        body = given(arguments, "request", str).encode()
        request = openrtb.decode_request(body)
        bidders = [bidder.name for bidder in self._exchange.bidders]
        return body, request, prebid.read(request, bidders, self._bidder_code)

    async def _rows(self, found: Sequence[Campaign]) -> list[dict[str, Any]]:
        """A daemon hears what the others spent only of campaigns that it leases money for itself: the ledger knows."""
        now = self._clock.time()
        days = {campaign.id: budget_day(now, campaign.zone) for campaign in found if campaign.daily_budget is not None}
        spent: Mapping[tuple[str, str], int] = {}
        if self._ledger is not None and days:
            try:
                spent = await self._ledger.spent(list(days), since_day=min(days.values()))
            except StoreError as error:
                _log.info("spending_not_read", reason=str(error))
        return [self._row(campaign, spent.get((campaign.id, days.get(campaign.id, "")), 0)) for campaign in found]

    def _row(self, campaign: Campaign, booked_nanos: int = 0) -> dict[str, Any]:
        """A campaign; `booked_nanos` of today stand in the ledger."""
        account = self._house.budgets.account(campaign.id)
        return {
            "id": campaign.id,
            "name": campaign.name,
            "advertiser": campaign.advertiser,
            "status": campaign.status.value,
            "pricing": campaign.pricing.value,
            "bid": campaign.bid,
            "ecpm": money.to_cpm(campaign.bid_micros),
            "daily_budget": campaign.daily_budget,
            "spent_today": None if account is None else max(account.billed_nanos, booked_nanos) / money.NANOS,
            "held": None if account is None else (account.spent_nanos - account.billed_nanos) / money.NANOS,
            "funded": self._house.is_funded(campaign.id),
            "version": campaign.version,
        }


class _Misfit(BadRequest):
    """An argument is missing or of the wrong type."""


def given(arguments: dict[str, Any], name: str, kind: Any, default: Any = _REQUIRED) -> Any:
    """An argument of a type; `default` where it is absent."""
    value = arguments.get(name, default)
    if value is _REQUIRED:
        raise _Misfit(f"argument {name!r} is missing")
    if value is default:
        return value
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        what = str(error)
        raise _Misfit(f"argument {name!r}: {what[:1].lower()}{what[1:]}") from None


def application(admin: Admin) -> web.Application:
    """The aiohttp application around the commands."""

    async def handle(request: web.Request) -> web.Response:
        try:
            arguments = msgspec.json.decode(await request.read() or b"{}", type=dict[str, Any])
            result = await admin.run(request.match_info["command"], arguments)
        except (RtbError, msgspec.MsgspecError, ValueError) as error:
            return _json({"error": " ".join(str(error).split())}, 400)
        except Exception as error:
            _log.exception("admin_command_failed", command=request.match_info["command"])
            return _json({"error": f"the daemon failed: {type(error).__name__}; see its log"}, 500)
        return _json({"result": result}, 200)

    app = web.Application(client_max_size=MAX_BODY_BYTES)
    app.router.add_post("/{command}", handle)
    return app


def _json(value: dict[str, Any], status: int) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), status=status, content_type="application/json")


async def listen(admin: Admin, path: Path, *, limit_s: float = 10.0) -> web.AppRunner:
    """Serve on a unix socket at `path`, replacing one that a dead daemon left behind; at the end commands under way
    have `limit_s` to finish.

    Raises:
        ConfigError: the path cannot be made or bound, or something else stands there.
    """
    runner = web.AppRunner(application(admin), access_log=None, shutdown_timeout=limit_s)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_socket():
            path.unlink()
        elif path.exists():
            raise FileExistsError(0, "something that is no socket stands there")
        await runner.setup()
        await web.UnixSite(runner, str(path)).start()
        path.chmod(0o600)
    except OSError as error:
        await runner.cleanup()
        reason = error.strerror or error
        raise ConfigError(f"admin.socket: cannot listen on {path}: {reason}; set another admin.socket") from None
    return runner
