"""The demo: campaigns, users and steady traffic for a daemon that has none."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import structlog

from rtb.domain import campaign as campaigns
from rtb.domain.campaign import Campaign
from rtb.domain.profile import Profile
from rtb.errors import ConfigError
from rtb.lab.audience import Audience, Behaviour
from rtb.lab.drive import drive
from rtb.lab.traffic import Traffic
from rtb.lab.vocabulary import SEGMENTS

USERS = 20_000
PROFILES = 2_000
BEHAVIOUR = Behaviour(click=0.05, conversion=0.2)
"""More eager than people are, so that a minute of it shows everything."""

_log = structlog.get_logger(__name__)


class Demonstration:
    """Fills a daemon with demo campaigns and user profiles, then sends it traffic until `end`; an audience sees the ads
    that win."""

    def __init__(self, path: Path, *, rate: float, seed: int) -> None:
        """Campaigns from the JSON file at `path`; `rate` requests a second, none when 0."""
        self._path = path
        self._rate = rate
        self._traffic = Traffic(seed, users=USERS)
        self._audience = Audience(BEHAVIOUR, seed=seed)
        self._stop = asyncio.Event()
        self._driving: asyncio.Task[int] | None = None

    def campaigns(self) -> list[Campaign]:
        """The demo campaigns.

        Raises:
            ConfigError: the file cannot be read.
            InvalidCampaign: a campaign in it is wrong.
        """
        try:
            found: dict[str, list[Any]] = msgspec.json.decode(self._path.read_bytes())
        except (OSError, msgspec.DecodeError) as error:
            raise ConfigError(f"{self._path}: cannot be read as demo campaigns: {error}") from None
        return [campaigns.convert(item) for item in found["campaigns"]]

    def profiles(self) -> list[Profile]:
        """Profiles of the most frequent users: what they like, beside what their requests say."""
        found = []
        for rank in range(PROFILES):
            user = self._traffic.user(rank)
            found.append(
                Profile(
                    user_id=user.id,
                    interests=user.interests,
                    segments=(SEGMENTS[rank % 50], SEGMENTS[rank * 7 % len(SEGMENTS)]),
                )
            )
        return found

    async def begin(
        self,
        url: str,
        put_campaigns: Callable[[Sequence[Campaign]], Awaitable[int]],
        put_profiles: Callable[[Sequence[Profile]], Awaitable[None]],
    ) -> None:
        """Fill the daemon and start the traffic to `url`."""
        await put_campaigns(self.campaigns())
        await put_profiles(self.profiles())
        if self._rate > 0:
            auction = f"{url}/openrtb2/auction"
            self._driving = asyncio.create_task(
                drive(auction, self._traffic, self._rate, self._stop, on_won=self._audience.watch)
            )
            _log.info("demo_traffic", requests_per_second=self._rate)

    async def end(self) -> None:
        """Stop the traffic."""
        self._stop.set()
        if self._driving is not None:
            await asyncio.gather(self._driving, return_exceptions=True)
        await self._audience.end(at_once=True)
