"""The log of auctions that ``rtb replay`` runs again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rtb.adapters.replay_file import ReplayFile
from rtb.config import flatten
from rtb.domain.replay import Header
from rtb.errors import ConfigError, StoreError
from rtb.services.house_bidder import HouseBidder
from rtb.services.replay_log import ReplayLog, header
from rtb.wiring.ground import Ground
from rtb.wiring.market import Market

_MB = 1 << 20


@dataclass(frozen=True, slots=True)
class Recording:
    """A file that listens to an exchange, and what stands at its head; not open yet."""

    file: ReplayFile
    header: Header

    def start(self) -> None:
        """Open the file. Raises ConfigError."""
        try:
            self.file.open(self.header)
        except StoreError as error:
            raise ConfigError(f"log.replay: {error}") from None

    async def stop(self) -> None:
        """Write what waits, and close."""
        await self.file.close()


def recording(ground: Ground, market: Market, house: HouseBidder) -> Recording | None:
    """What keeps auctions as the settings say; None when they say nothing."""
    settings, clock, rates = ground.settings, ground.clock, ground.rates
    given = settings.log
    if not given.replay:
        return None
    file = ReplayFile(Path(given.replay), max_bytes=given.replay_max_mb * _MB)
    market.exchange.listen(
        ReplayLog(
            file,
            clock,
            rates,
            share=given.replay_share,
            house=house,
            bidders=lambda: [bidder.name for bidder in market.exchange.bidders],
        )
    )
    head = header(
        market.rules,
        clock,
        instance=ground.instance,
        share=given.replay_share,
        currency=rates.currency,
        rates=settings.currency.rates,
        advertisers=house.advertisers,
        settings=flatten(settings),
    )
    return Recording(file, head)
