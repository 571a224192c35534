"""schemathesis against the served API: generated requests never break it, and every answer is as documented."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from rtb.adapters.clock import SystemClock
from tests.support.dashboard_site import DashboardSite
from tests.unit.parts import Prompt, bid_request, campaign, offer, world

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


async def test_generated_requests_get_documented_answers(tmp_path: Path) -> None:
    """Of every operation, well-formed and not; the examples that found something are printed."""
    tool = shutil.which("schemathesis")
    if tool is None:
        pytest.skip("schemathesis is not installed: pip install schemathesis")
    made = world(
        str(tmp_path / "rtb.db"),
        Prompt("dsp", offer("dsp", 2.5)),
        campaigns=[campaign("a", 3.0), campaign("b", 2.0)],
        clock=SystemClock(),
    )
    site = DashboardSite(made)
    await site.start()
    await made.run(bid_request())
    options = ["-H", "Authorization: Bearer ops-token", "--phases", "coverage,fuzzing", "-n", "10", "--checks", CHECKS]
    process = await asyncio.create_subprocess_exec(
        tool,
        "run",
        f"{site.origin}/api/openapi.json",
        *options,
        "--no-color",
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    await site.stop()
    await made.profiles.close()
    await made.repository.close()
    assert process.returncode == 0, said.decode()[-5_000:]
