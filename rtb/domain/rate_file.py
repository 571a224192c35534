"""Conversion rates as others publish them: the currency file of Prebid, or a plain table.

{"dataAsOf": "2026-11-20", "conversions": {"USD": {"EUR": 0.92, "JPY": 151.2}}}     one USD is 0.92 EUR
{"EUR": 1.087, "JPY": 0.0066}                                                       one EUR is 1.087 of ours
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from rtb.errors import ConfigError

Code = Annotated[str, Meta(pattern="^[A-Z]{3}$")]


class RateTable(Struct, frozen=True):
    """What one unit of each currency is worth in ours; `as_of` is Unix seconds, 0 where the file does not say."""

    rates: Mapping[str, float]
    as_of: float = 0.0


class _Prebid(Struct, rename={"data_as_of": "dataAsOf", "generated_at": "generatedAt"}):
    conversions: dict[Code, dict[Code, float]]
    data_as_of: str = ""
    generated_at: str = ""


_prebid = msgspec.json.Decoder(_Prebid)
_plain = msgspec.json.Decoder(dict[Code, float])


def rate_table(body: bytes, currency: str) -> RateTable:
    """Read a file of rates.

    Args:
        body: JSON in one of the two shapes.
        currency: ours. Where a file has both directions of a pair, the one into ours counts.

    Raises:
        ConfigError: one line that says what is wrong, for nothing of it is to be used then.
    """
    try:
        if b'"conversions"' in body:
            table = _of_prebid(_prebid.decode(body), currency)
        else:
            table = RateTable(_plain.decode(body))
    except msgspec.DecodeError as error:
        raise ConfigError(f"not a file of rates: {error}"[:300]) from None
    for code, rate in table.rates.items():
        if not math.isfinite(rate) or not 1e-9 <= rate <= 1e9:
            raise ConfigError(f"rate of {code}: {rate} is not a positive number of use")
    if not table.rates:
        raise ConfigError(f"not a file of rates: it has none from or into {currency}")
    return table


def _of_prebid(file: _Prebid, currency: str) -> RateTable:
    rates: dict[str, float] = {}
    for code, worth in file.conversions.get(currency, {}).items():
        if code != currency and worth:
            rates[code] = 1 / worth
    for code, of_code in file.conversions.items():
        if code != currency and currency in of_code:
            rates[code] = of_code[currency]
    return RateTable(rates, _unix(file.data_as_of or file.generated_at))


def _unix(text: str) -> float:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return 0.0
    return (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp()
