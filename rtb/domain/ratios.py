"""What is made of counts and amounts: ratios of sums, never of other ratios, None where the divisor is 0.

Amounts are integer nanos, their ratios units of the currency.
"""

from __future__ import annotations

from rtb.domain.money import NANOS


def ratio(dividend: int, divisor: int) -> float | None:
    """A part of a whole."""
    return dividend / divisor if divisor else None


def cost_of(nanos: int, count: int, each: int = 1) -> float | None:
    """What `each` so many of them cost: a click (CPC), a conversion (CPA), a thousand impressions (CPM)."""
    return nanos * each / (count * NANOS) if count else None
