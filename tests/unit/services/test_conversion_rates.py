"""Rates follow their source; what is wrong changes nothing, and shows."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rtb.adapters.clock import ManualClock
from rtb.domain.money import Rates
from rtb.domain.rate_file import RateTable, rate_table
from rtb.errors import ConfigError, HttpError
from rtb.services.conversion_rates import ConversionRates

START = 1_767_225_600.0
"""2026-01-01 00:00 UTC, where a clock set by hand begins."""


def prebid(conversions: dict[str, Any], **fields: Any) -> bytes:
    """A currency file of Prebid."""
    return json.dumps({"conversions": conversions, **fields}).encode()


@pytest.mark.parametrize(
    ("body", "table"),
    [
        (b'{"EUR": 1.25, "JPY": 0.0066}', RateTable({"EUR": 1.25, "JPY": 0.0066})),
        (prebid({"USD": {"EUR": 0.8, "USD": 1.0}}), RateTable({"EUR": 1.25})),
        (prebid({"EUR": {"USD": 1.3, "GBP": 0.9}, "USD": {"EUR": 0.8}}), RateTable({"EUR": 1.3})),
        (prebid({"USD": {"EUR": 0.8}}, dataAsOf="2026-01-01"), RateTable({"EUR": 1.25}, START)),
        (prebid({"USD": {"EUR": 0.8}}, generatedAt="2026-01-01T01:00:00Z"), RateTable({"EUR": 1.25}, START + 3_600)),
        (prebid({"USD": {"EUR": 0.8}}, dataAsOf="lately"), RateTable({"EUR": 1.25})),
    ],
)
def test_a_file_says_what_a_unit_is_worth(body: bytes, table: RateTable) -> None:
    """In dollars, whichever way round it has the pair; and of when that is."""
    assert rate_table(body, "USD") == table


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"EUR": 0}',
        b'{"EUR": -1}',
        b'{"EUR": "1"}',
        b'{"euro": 1.1}',
        b'{"EUR": 1e300}',
        prebid({}),
        prebid({"GBP": {"EUR": 1.1}}),
    ],
)
def test_a_file_that_is_wrong_is_wrong_as_a_whole(body: bytes) -> None:
    """One line says why."""
    with pytest.raises(ConfigError, match=r"^(rate of|not a file of rates)"):
        rate_table(body, "USD")


async def test_rates_follow_their_source_and_age() -> None:
    """Those of the settings stay where it has none; a failure keeps what was there, and tells."""
    clock, applied = ManualClock(), list[Rates]()
    source: list[bytes | Exception] = [
        b'{"EUR": 1.25}',
        HttpError("the server did not answer"),
        b"broken",
        prebid({"USD": {"EUR": 0.5}}, dataAsOf="2026-01-01"),
    ]

    async def fetch() -> bytes:
        found = source.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    fixed = {"KRW": 0.001, "EUR": 9.0}
    feed = ConversionRates(fetch, applied.append, clock, currency="USD", fixed=fixed, stale_s=3_600)
    assert (feed.report().age_s, feed.report().stale) == (None, True)
    assert await feed.refresh()
    assert [applied[0].inward_micros(1_000, code) for code in ("EUR", "KRW", "USD")] == [1_250, 1, 1_000]
    clock.advance(3_000)
    for why in ("the server did not answer", "not a file of rates"):
        assert not await feed.refresh()
        assert feed.problem.startswith(why)
    report = feed.report()
    assert (report.currencies, report.age_s, report.stale, len(applied)) == (3, 3_000, False, 1)
    clock.advance(1_000)
    assert feed.report().stale
    assert await feed.refresh()
    assert (applied[1].inward_micros(1_000, "EUR"), feed.report().age_s, feed.problem) == (2_000, 4_000, "")
