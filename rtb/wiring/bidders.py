"""The remote bidders of an exchange, from their settings; changed as a whole, or not at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rtb.adapters.dsp import DspBidder
from rtb.adapters.dsp_request import Bodies
from rtb.adapters.http_client import Endpoint, FanoutClient, Limits
from rtb.domain.auction import HOUSE
from rtb.domain.bidder_policy import BidderSettings
from rtb.domain.money import Rates
from rtb.domain.validation import CridRule
from rtb.errors import ConfigError
from rtb.ports.clock import TimerClock

ENVIRONMENT = "env:"


class RemoteBidders:
    """Holds the bidders in use. One that is not changed keeps its connections and its health."""

    def __init__(
        self,
        clock: TimerClock,
        rates: Rates,
        environ: Mapping[str, str],
        *,
        allow: Sequence[str] = (),
        crid: CridRule = CridRule.OPTIONAL,
        adomain: bool = False,
    ) -> None:
        """None yet.

        Args:
            clock: the event loop's.
            rates: of the exchange.
            environ: where ``env:NAME`` in headers is looked up.
            allow: hosts and networks that bidders may be at besides public ones, for development.
            crid: whether a bid without crid is refused; `adomain`: without adomain.
        """
        self.client = FanoutClient(clock, allow=allow)
        self.bidders: tuple[DspBidder, ...] = ()
        self._bodies = Bodies(rates)
        self._clock = clock
        self._rates = rates
        self._environ = environ
        self._crid = crid
        self._adomain = adomain

    def start(self) -> None:
        """Begin to keep connections warm; on the event loop."""
        self.client.start()

    async def close(self) -> None:
        """Close all connections."""
        await self.client.close()

    def apply(self, wanted: Sequence[BidderSettings]) -> tuple[DspBidder, ...]:
        """Have these bidders, the enabled ones of them, in place of those before.

        Raises:
            ConfigError: one of them is wrong; nothing has changed.
        """
        _check_names(wanted)
        running = {bidder.name: bidder for bidder in self.bidders}
        made: list[DspBidder] = []
        following: list[DspBidder] = []
        try:
            for settings in wanted:
                if not settings.enabled:
                    continue
                bidder = running.get(settings.name)
                if bidder is None or bidder.settings != settings:
                    bidder = self._make(settings)
                    made.append(bidder)
                following.append(bidder)
        except ConfigError:
            for bidder in made:
                self.client.retire(bidder.endpoint)
            raise
        for bidder in self.bidders:
            if bidder not in following:
                self.client.retire(bidder.endpoint)
        self.bidders = tuple(following)
        return self.bidders

    def _make(self, settings: BidderSettings) -> DspBidder:
        return DspBidder(
            settings,
            self._endpoint(settings),
            self.client,
            self._bodies,
            self._clock,
            self._rates,
            crid=self._crid,
            adomain=self._adomain,
        )

    def _endpoint(self, settings: BidderSettings) -> Endpoint:
        headers: dict[str, str] = {"x-openrtb-version": settings.version}
        headers["accept-encoding"] = "gzip" if settings.accept_gzip else "identity"
        if settings.gzip:
            headers["content-encoding"] = "gzip"
        for name, value in settings.headers.items():
            if value.startswith(ENVIRONMENT):
                variable = value.removeprefix(ENVIRONMENT)
                if variable not in self._environ:
                    raise ConfigError(
                        f"bidder {settings.name}: headers.{name}: the environment has no variable {variable}; export it"
                    )
                value = self._environ[variable]
            headers[name.lower()] = value
        limits = Limits(
            connections=settings.max_in_flight,
            warm=min(settings.warm, settings.max_in_flight),
            waiting=settings.max_in_flight,
            connect_s=settings.connect_s,
            keep_alive_s=settings.keep_alive_s,
            max_body=settings.max_response_bytes,
        )
        try:
            return self.client.endpoint(settings.url, headers=headers, limits=limits)
        except ConfigError as error:
            raise ConfigError(f"bidder {settings.name}: {error}") from None


def _check_names(wanted: Sequence[BidderSettings]) -> None:
    names = [settings.name for settings in wanted]
    for name in names:
        if name == HOUSE or names.count(name) > 1:
            raise ConfigError(f"bidder {name}: this name is taken; names must be unique, and {HOUSE} is the house's")
