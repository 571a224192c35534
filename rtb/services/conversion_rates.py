"""Conversion rates from a file or a URL: followed, never half, and their age for everybody to see.

Rates that cannot be read leave those before in use. Rates of the settings stay for currencies that the source has not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import structlog
from msgspec import Struct

from rtb.domain.money import Rates
from rtb.domain.rate_file import rate_table
from rtb.errors import RtbError
from rtb.ports import Clock

_log = structlog.get_logger(__name__)


class RatesReport(Struct, frozen=True, kw_only=True):
    """What is in use: `age_s` since the rates were made, or read where they do not say; None before the first.

    `problem` says why the last attempt failed; "" when it did not.
    """

    currencies: int
    age_s: float | None
    stale: bool
    problem: str


class ConversionRates:
    """Keeps the exchange's rates in step with their source."""

    def __init__(
        self,
        fetch: Callable[[], Awaitable[bytes]],
        apply: Callable[[Rates], None],
        clock: Clock,
        *,
        currency: str,
        fixed: Mapping[str, float],
        stale_s: float,
    ) -> None:
        """Nothing is fetched yet.

        Args:
            fetch: the bytes of the source; it may raise RtbError or OSError.
            apply: takes the rates into use, for the auctions that begin from then on.
            clock: whose time the age is told by.
            currency: the exchange's own.
            fixed: rates of the settings.
            stale_s: the age from which rates are stale.
        """
        self._fetch = fetch
        self._apply = apply
        self._clock = clock
        self._currency = currency
        self._fixed = dict(fixed)
        self._stale_s = stale_s
        self._as_of: float | None = None
        self._currencies = len(self._fixed) + 1
        self.problem = ""

    async def run(self, every_s: float) -> None:
        """Follow the source until cancelled."""
        while True:
            await self.refresh()
            await asyncio.sleep(every_s)

    async def refresh(self) -> bool:
        """Fetch the rates and take them into use; False leaves everything as it was, with `problem` saying why."""
        try:
            table = rate_table(await self._fetch(), self._currency)
            rates = Rates(self._currency, {**self._fixed, **table.rates})
        except (RtbError, OSError, ValueError) as error:
            if not self.problem:
                _log.warning("rates_not_refreshed", reason=str(error), age_s=self.report().age_s)
            self.problem = str(error) or type(error).__name__
            return False
        self.problem = ""
        self._as_of = table.as_of or self._clock.time()
        self._currencies = len({**self._fixed, **table.rates, self._currency: 1.0})
        self._apply(rates)
        return True

    def report(self) -> RatesReport:
        """How they stand."""
        age_s = None if self._as_of is None else max(self._clock.time() - self._as_of, 0.0)
        return RatesReport(
            currencies=self._currencies,
            age_s=age_s,
            stale=age_s is None or age_s > self._stale_s,
            problem=self.problem,
        )
