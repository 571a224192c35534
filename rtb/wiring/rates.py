"""Conversion rates from the file or the URL that the settings name."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from rtb.adapters.outgoing_http import OutgoingHttp
from rtb.errors import ConfigError
from rtb.services.conversion_rates import ConversionRates
from rtb.services.waiting import ended
from rtb.wiring.ground import Ground

TIMEOUT_S = 10.0


@dataclass(slots=True)
class FollowedRates:
    """What keeps the rates in step with their source; not started."""

    conversion: ConversionRates
    http: OutgoingHttp
    every_s: float
    _task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read them once, then follow. A source that cannot be read is no reason not to start: it is told and tried
        again."""
        await self.conversion.refresh()
        self._task = asyncio.create_task(self.conversion.run(self.every_s))

    async def stop(self) -> None:
        """Follow no more."""
        if self._task is not None:
            await ended(self._task)
            self._task = None
        await self.http.close()


def followed_rates(ground: Ground) -> FollowedRates | None:
    """What follows the source of the rates; None where the settings have all of them."""
    given, rates = ground.settings.currency, ground.rates
    if not given.source:
        return None
    http = OutgoingHttp(allow=given.allow)

    async def fetch() -> bytes:
        if not given.source.startswith(("http://", "https://")):
            try:
                return await asyncio.to_thread(Path(given.source).read_bytes)
            except OSError as error:
                reason = error.strerror or error
                raise ConfigError(f"currency.source: {given.source} cannot be read: {reason}") from None
        response = await http.send("GET", given.source, timeout_s=TIMEOUT_S)
        if response.status != 200:
            raise ConfigError(f"currency.source: {given.source} answered {response.status}")
        return response.body

    conversion = ConversionRates(
        fetch, rates.take_over, ground.clock, currency=rates.currency, fixed=given.rates, stale_s=given.stale_s
    )
    return FollowedRates(conversion, http, given.refresh_s)
