"""Money: CPM floats on the wire, integer CPM micros and nanos inside.

1.00 CPM is 1_000_000 micros. One CPM micro is one nano of a currency unit per impression, so a budget kept in nanos is
debited by a clearing price without rounding. Nothing outside this file converts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction

from rtb.openrtb import MAX_PRICE_CPM

MICROS = 1_000_000
NANOS = 1_000_000_000
CENT_MICROS = 10_000
MAX_NANOS = 9 * 10**15


def to_micros(cpm: float) -> int:
    """CPM micros of a wire price, half-even at the micro.

    Raises:
        ValueError: NaN, infinite, negative, or above a million CPM.
    """
    if not 0.0 <= cpm <= MAX_PRICE_CPM:  # also false for NaN
        raise ValueError(f"price {cpm} is not between 0 and {MAX_PRICE_CPM:.0f} CPM")
    return round(cpm * MICROS)


def to_cpm(micros: int) -> float:
    """The wire float of CPM micros: exact to the micro up to a million CPM."""
    return micros / MICROS


def impression_nanos(price_micros: int, multiplier: float = 1.0) -> int:
    """What one sale costs, in nanos: price / 1000 per impression, times imp.qty.multiplier, half-even.

    Source: OpenRTB 2.6 3.2.31.
    """
    if multiplier == 1.0:
        return price_micros
    return round(price_micros * Fraction(str(multiplier)))  # the decimal that was sent, not its binary neighbour


def unit_nanos(amount: float) -> int:
    """Nanos of an amount in currency units, as budgets and CPC or CPA bids are written.

    Raises:
        ValueError: NaN, infinite, negative, or more than 9 * 10**15 nanos (exact in every store's numbers).
    """
    if not math.isfinite(amount) or amount < 0 or amount * NANOS > MAX_NANOS:
        raise ValueError(f"amount {amount} is not between 0 and {MAX_NANOS // NANOS}")
    return round(amount * NANOS)


class Rates:
    """Exchange rates to the exchange's own currency, held fixed for an auction."""

    def __init__(self, currency: str = "USD", rates: Mapping[str, float] | None = None) -> None:
        """Keep what one unit of each currency is worth in `currency`.

        Raises:
            ValueError: a rate that is not a positive finite number.
        """
        self.currency = currency
        self._rates: dict[str, Fraction] = {currency: Fraction(1)}
        for code, rate in (rates or {}).items():
            if not math.isfinite(rate) or rate <= 0:
                raise ValueError(f"rate of {code} is {rate}, not a positive number")
            self._rates.setdefault(code, Fraction(str(rate)))

    def take_over(self, other: Rates) -> None:
        """Have the rates of `other`, which are into the same currency, from now on. A currency that it does not have
        keeps its rate, so that an auction under way can always be answered.

        Raises:
            ValueError: they are into another currency.
        """
        if other.currency != self.currency:
            raise ValueError(f"rates into {other.currency} are none into {self.currency}")
        self._rates = {**self._rates, **other._rates}

    def knows(self, code: str) -> bool:
        """Whether there is a rate for the currency."""
        return code in self._rates

    def inward_micros(self, micros: int, code: str) -> int:
        """CPM micros of the exchange currency for micros of `code`, rounded up: a floor stays a floor.

        Raises:
            KeyError: no rate for `code`.
        """
        return micros if code == self.currency else math.ceil(micros * self._rates[code])

    def bid_micros(self, micros: int, code: str) -> int:
        """CPM micros of the exchange currency for a bid in `code`, rounded down: a bid is never raised.

        Raises:
            KeyError: no rate for `code`.
        """
        return micros if code == self.currency else math.floor(micros * self._rates[code])

    def outward_micros(self, micros: int, code: str) -> int:
        """CPM micros of `code` for micros of the exchange currency, rounded up, so that no floor is undercut.

        Raises:
            KeyError: no rate for `code`.
        """
        return micros if code == self.currency else math.ceil(micros / self._rates[code])
