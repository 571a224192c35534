"""The admin command ``audit``."""

from __future__ import annotations

from typing import Any

import msgspec

from rtb.edges.admin import Command, given
from rtb.services.audit import Audit


def audit_command(audit: Audit, currency: str) -> Command:
    """``audit``: of the campaigns in `ids` (all), with what is uncovered since `since` (Unix seconds)."""

    async def run(arguments: dict[str, Any]) -> Any:
        report = await audit.run(given(arguments, "ids", list[str], None), since=given(arguments, "since", float, 0.0))
        return {**msgspec.to_builtins(report), "balanced": report.balanced, "currency": currency}

    return run
