"""The admin command ``audit``."""

from __future__ import annotations

from typing import Any

import msgspec

from rtb.edges.admin import Command, given
from rtb.services.audit import Audit
from rtb.services.campaigns import Campaigns


def audit_command(audit: Audit, catalogue: Campaigns, currency: str) -> Command:
    """``audit``: of the campaigns in `ids` (all), with what is uncovered since `since` (Unix seconds)."""

    async def run(arguments: dict[str, Any]) -> Any:
        ids = given(arguments, "ids", list[str], None)
        for campaign_id in ids or ():
            catalogue.get(campaign_id)  # the books of one that nobody knows would balance: there are none
        report = await audit.run(ids, since=given(arguments, "since", float, 0.0))
        return {**msgspec.to_builtins(report), "balanced": report.balanced, "currency": currency}

    return run
