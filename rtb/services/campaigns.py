"""The catalogue under change, on every daemon: the repository first, then the index, then a word to the others.

What is seen is kept, and what is kept is soon seen everywhere: a change that the repository has taken is applied here
and announced; a daemon applies what is newer than what it has. Announcements may be lost, doubled or late, because
everyone also follows the repository's changes, at once when told to and every few seconds anyway. Where two daemons
change a campaign at the same moment the repository takes one, and the other is made again on top of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import msgspec
import structlog

from rtb.domain import campaign_change
from rtb.domain.campaign import Campaign, Status, validated
from rtb.domain.campaign_change import Change, newer
from rtb.errors import NotFound, StoreError
from rtb.ports import Repository
from rtb.services.house_bidder import HouseBidder

SLICE = 64
"""Campaigns put into the index before auctions have their turn, at about 10 us each."""
CHUNK = 256
MAX_RACES = 20

_T = TypeVar("_T")
_log = structlog.get_logger(__name__)
Announce = Callable[[Sequence[Campaign]], None]
Watch = Callable[[Campaign], None]
Record = Callable[[Campaign | None, Campaign, str, str], None]
"""Of a change: what was (None for a new campaign), what is, who changed it, and why."""
MANY = 64
"""New campaigns of an import that are recorded one by one; of more only the changes of known ones are."""


def _not_recorded(old: Campaign | None, new: Campaign, actor: str, cause: str) -> None:
    """Nobody keeps a history."""


class Campaigns:
    """Loads and changes house campaigns; a change is whole when the call returns, and a failure changes nothing."""

    def __init__(self, repository: Repository, house: HouseBidder, *, announce: Announce | None = None) -> None:
        """Keep `house` in step with `repository`; `announce` tells the other daemons what was written, without
        waiting (see rtb.services.announcements)."""
        self.watchers: list[Watch] = []
        """Called with every campaign that is loaded or replaced here, right after the index has it; must not block."""
        self.record: Record = _not_recorded
        """Called with every change that this daemon wrote (`Recorder.changed`)."""
        self._repository = repository
        self._house = house
        self._announce = announce
        self._changing = asyncio.Lock()
        self._catching_up = asyncio.Lock()
        self._seen = 0
        self._told = asyncio.Event()
        self._follower: asyncio.Task[None] | None = None
        self._following = False

    async def load(self) -> int:
        """Fill the index from the repository, at start; how many campaigns there are."""
        self._seen = await self._repository.last_change()
        campaigns = [campaign async for chunk in self._repository.campaigns() for campaign in chunk]
        self._house.load(campaigns)
        for watch in self.watchers:
            for campaign in campaigns:
                watch(campaign)
        return len(campaigns)

    def follow(self, interval_s: float = 2.0) -> None:
        """Begin to catch up with the repository: every `interval_s`, and whenever `look` says so."""
        if self._follower is None:
            self._following = True
            self._follower = asyncio.create_task(self._follow(interval_s))

    async def stop(self) -> None:
        """End following; what is being read is read to its end."""
        if self._follower is None:
            return
        self._following = False
        self._told.set()
        try:
            await asyncio.wait({self._follower})
        finally:
            self._follower.cancel()
            self._follower = None

    async def put(self, campaigns: Sequence[Campaign], *, actor: str = "admin") -> int:
        """Insert new campaigns and replace known ones, each with a version above the one it replaces.

        Returns:
            How many were written.

        Raises:
            InvalidCampaign, StoreError: nothing was written.
        """
        async with self._changing:
            written, wanted = 0, campaigns
            for _ in range(MAX_RACES):
                fresh = [self._next(campaign) for campaign in wanted]
                count = await self._repository.put_campaigns(fresh)
                written += count
                lost = [] if count == len(fresh) else await self._overtaken(fresh)
                won = [campaign for campaign in fresh if campaign.id not in lost]
                self._note(won, actor)
                await self._publish(won)
                if not lost:
                    return written
                wanted = [campaign for campaign in wanted if campaign.id in lost]
            raise StoreError(f"campaign {wanted[0].id!r} keeps being changed by others; try again")

    async def set_status(self, campaign_id: str, status: Status, *, actor: str = "admin") -> Campaign:
        """Pause or resume. Raises NotFound, StoreError."""
        return await self._replace(campaign_id, actor, status=status)

    async def set_bid(self, campaign_id: str, bid: float, *, actor: str = "admin") -> Campaign:
        """Give it another bid, in its own pricing's unit. Raises NotFound, InvalidCampaign, StoreError."""
        return await self._replace(campaign_id, actor, bid=bid)

    async def end(self, campaign_id: str, now: float, *, actor: str) -> Campaign | None:
        """Give it the status `ended` when its flight is over by now (Unix seconds); None when it is not, or was ended
        before. Raises NotFound, StoreError."""

        def edit(current: Campaign | None) -> Campaign | None:
            if current is None or current.status is Status.ENDED or current.end is None:
                return None
            if current.end.timestamp() > now:
                return None
            return newer(msgspec.structs.replace(current, status=Status.ENDED), current)

        async with self._changing:
            current = self.get(campaign_id)
            cause = f"flight ended: {current.end.isoformat()}" if current.end is not None else ""
            return await self._write(current, edit, actor, cause)

    async def update(self, change: Change, *, actor: str = "queue") -> Campaign | None:
        """Make a change that came from outside; the campaign as written, None when there was nothing to change.

        Raises:
            NotFound, InvalidCampaign, StoreError: nothing was changed.
        """
        async with self._changing:
            current = await self._repository.campaign(change.campaign_id)
            return await self._write(current, lambda current: campaign_change.changed(current, change), actor)

    def apply(self, campaign: Campaign) -> bool:
        """Take over what the repository has, in place, when it is newer than what is known here; whether it was."""
        known = self._house.index.get(campaign.id)
        if known is not None and known.version >= campaign.version:
            return False
        self._house.put(campaign)
        for watch in self.watchers:
            watch(campaign)
        return True

    async def catch_up(self) -> int:
        """Apply what the repository has got since the last time; how many campaigns changed. Raises StoreError."""
        async with self._catching_up:
            last = await self._repository.last_change()
            if last <= self._seen:
                return 0
            applied = 0
            async for chunk in self._repository.changes(self._seen, CHUNK):
                for part in _slices(chunk):
                    applied += sum([self.apply(campaign) for _, campaign in part])
                    await asyncio.sleep(0)
                last = max(last, chunk[-1][0])
            self._seen = last
            return applied

    def look(self) -> None:
        """There are changes to catch up with."""
        self._told.set()

    async def check(self) -> None:
        """Raises StoreError while the repository is away."""
        await self._repository.last_change()

    def get(self, campaign_id: str) -> Campaign:
        """Raises NotFound."""
        campaign = self._house.index.get(campaign_id)
        if campaign is None:
            raise NotFound(f"campaign {campaign_id!r}: unknown; `rtb campaigns list` names them all")
        return campaign

    def all(self, status: Status | None = None) -> list[Campaign]:
        """Every campaign by id, or those of one status."""
        found = (campaign for campaign in self._house.campaigns() if status is None or campaign.status is status)
        return sorted(found, key=lambda campaign: campaign.id)

    async def _replace(self, campaign_id: str, actor: str, **fields: object) -> Campaign:
        def edit(current: Campaign | None) -> Campaign:
            assert current is not None
            return newer(validated(msgspec.structs.replace(current, **fields)), current)

        async with self._changing:
            new = await self._write(self.get(campaign_id), edit, actor)
            assert new is not None
            return new

    async def _write(
        self, current: Campaign | None, edit: Callable[[Campaign | None], Campaign | None], actor: str, cause: str = ""
    ) -> Campaign | None:
        """Write what `edit` makes of the current campaign, again on top of whatever others wrote meanwhile."""
        new: Campaign | None = None
        for _ in range(MAX_RACES):
            new = edit(current)
            if current is not None:
                self.apply(current)
            if new is None:
                return None
            if await self._repository.put_campaigns([new]):
                self.record(current, new, actor, cause)
                await self._publish([new])
                return new
            current = await self._repository.campaign(new.id)
        raise StoreError(f"campaign {new and new.id!r} keeps being changed by others; try again")

    async def _overtaken(self, fresh: Sequence[Campaign]) -> set[str]:
        """The ids of those that another daemon's change kept from being written; that change is applied.

        One whose stored version is higher still was written and then replaced: the later change stands.
        """
        lost = set()
        for campaign in fresh:
            stored = await self._repository.campaign(campaign.id)
            if stored is not None and stored != campaign:
                self.apply(stored)
                if stored.version == campaign.version:
                    lost.add(campaign.id)
        return lost

    def _note(self, written: Sequence[Campaign], actor: str) -> None:
        """Record an import, before the index has it."""
        few = len(written) <= MANY
        for campaign in written:
            known = self._house.index.get(campaign.id)
            if known is not None or few:
                self.record(known, campaign, actor, "")

    async def _publish(self, campaigns: Sequence[Campaign]) -> None:
        for part in _slices(campaigns):
            for campaign in part:
                self.apply(campaign)
            if len(campaigns) > SLICE:
                await asyncio.sleep(0)
        if campaigns and self._announce is not None:
            self._announce(campaigns)

    def _next(self, campaign: Campaign) -> Campaign:
        known = self._house.index.get(campaign.id)
        return campaign if known is None else newer(campaign, known)

    async def _follow(self, interval_s: float) -> None:
        away = False
        while self._following:
            try:
                await asyncio.wait_for(self._told.wait(), interval_s)
            except TimeoutError:
                pass
            self._told.clear()
            try:
                if self._following:
                    await self.catch_up()
            except StoreError as error:
                if not away:
                    _log.warning("catalogue_not_followed", reason=str(error))
                away = True
            except Exception:
                _log.exception("catalogue_not_followed")
            else:
                away = False


def _slices(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    for start in range(0, len(items), SLICE):
        yield items[start : start + SLICE]
