"""Books are put back once, though many ask at the same moment.

When shared accounts are lost every consumer of every daemon finds the same books missing. Each rebuild raises the epoch
and so makes what the others have just billed stale: many at once would keep each other from ever getting done.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Awaitable, Callable, Collection
from itertools import count

from rtb.domain.budget import LIFE, NO_LIMIT, Sync, SyncStatus
from rtb.ports import Accounts, Ledger
from rtb.services.rebuild import Find

OVERTAKEN_S = 0.1
"""How long, at most, whoever overtook our rebuild is given to finish his."""


class Restoring:
    """``restore = Restoring(rebuild.restore, accounts, ledger).restore``, for billing and leases of one process."""

    def __init__(
        self, restore: Callable[[Collection[str]], Awaitable[None]], accounts: Accounts, ledger: Ledger, find: Find
    ) -> None:
        """Put back with `restore` what neither this process nor another has put back meanwhile; `find` knows every
        campaign."""
        self._restore = restore
        self._find = find
        self._accounts = accounts
        self._ledger = ledger
        self._turn = asyncio.Lock()
        self._name = f"looks:{secrets.token_hex(4)}"
        self._seqs = count(1)

    async def restore(self, campaign_ids: Collection[str]) -> None:
        """Return once the books of these campaigns are there, or most likely so.

        Raises:
            NotFound: nobody knows one of the campaigns.
            StoreError: the ledger or the accounts are away.
        """
        async with self._turn:
            missing = await self._missing(campaign_ids)
            if not missing:
                return
            await self._restore(missing)
            if await self._missing(missing):
                await asyncio.sleep(random.uniform(0, OVERTAKEN_S))

    async def _missing(self, campaign_ids: Collection[str]) -> list[str]:
        """Those without a book, or whose book is behind the epoch of the ledger or lacks the account of a life."""
        names = list(dict.fromkeys(campaign_ids))
        fences = {name: self._accounts.fence(name) for name in names}
        replies = await self._accounts.sync([await self._look(name) for name in names])
        epochs = await self._ledger.epochs(set(fences.values()))
        return [
            name
            for name, reply in zip(names, replies, strict=True)
            if reply.status is SyncStatus.MISSING or reply.epoch < epochs[fences[name]]
        ]

    async def _look(self, campaign_id: str) -> Sync:
        """The sync of one who holds nothing, wants nothing, and whose limits are too old to count."""
        campaign = await self._find(campaign_id)
        has_life = campaign is not None and campaign.lifetime_budget is not None
        return Sync(
            campaign_id=campaign_id,
            instance=self._name,
            seq=next(self._seqs),
            epoch=0,
            version=0,
            limits={LIFE: NO_LIMIT} if has_life else {},
            moves={},
        )
