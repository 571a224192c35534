"""schemathesis against the served API: generated requests never break it, and every answer is as documented."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from rtb.adapters.clock import SystemClock
from tests.support.dashboard_site import DashboardSite
from tests.unit.parts import Prompt, bid_request, campaign, offer, world

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
RUNS = (
    # To cover a campaign's many fields one by one would take a minute; that they are checked is seen elsewhere.
    ("--phases", "coverage", "--exclude-path", "/api/campaigns/{id}"),
    ("--phases", "fuzzing", "-n", "5"),
)


@pytest.mark.timeout(900)  # a minute on a fast machine
async def test_generated_requests_get_documented_answers(tmp_path: Path) -> None:
    """Of every operation, well-formed and not; the examples that found something are printed."""
    made = world(
        str(tmp_path / "rtb.db"),
        Prompt("dsp", offer("dsp", 2.5)),
        campaigns=[campaign("a", 3.0), campaign("b", 2.0)],
        clock=SystemClock(),
    )
    site = DashboardSite(made)
    await site.start()
    await made.run(bid_request())
    ended = await asyncio.gather(*(_run(site.origin, options, tmp_path) for options in RUNS))
    await site.stop()
    await made.profiles.close()
    await made.repository.close()
    for code, said in ended:
        assert code == 0, said[-5_000:]


async def _run(origin: str, options: tuple[str, ...], folder: Path) -> tuple[int | None, str]:
    """Exit code and output of schemathesis, as the operator."""
    process = await asyncio.create_subprocess_exec(
        Path(sys.executable).with_name("schemathesis"),
        *("run", f"{origin}/api/openapi.json", "-H", "Authorization: Bearer ops-token"),
        *(*options, "--checks", CHECKS, "--no-color"),
        *("--request-timeout", "60", "--suppress-health-check", "too_slow"),  # a busy machine is no finding
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    return process.returncode, said.decode()
