"""The highest rate that passes."""

from __future__ import annotations

from collections.abc import Callable


def find_max(measure: Callable[[float], bool], start: float, *, resolution: float = 0.05, limit: float = 1e6) -> float:
    """The highest rate found that passes, or 0.0 when none does down to 1 a second.

    Doubles (or halves) from `start` until one rate passes and a higher one fails, then halves the gap until the two are
    within `resolution` of each other. A rate that fails is tried a second time before it counts as failed, because one
    hiccup of a shared machine must not end the climb.

    Args:
        measure: whether a rate, in requests a second, passes.
        start: the first rate to try.
        resolution: relative width of the answer.
        limit: never try above it.
    """

    def passes(rate: float) -> bool:
        return measure(rate) or measure(rate)

    low, high = 0.0, 0.0
    rate = min(start, limit)
    while True:
        if passes(rate):
            low = rate
            if high or rate >= limit:
                break
            rate = min(rate * 2, limit)
        else:
            high = rate
            if low or rate <= 1:
                break
            rate = max(rate / 2, 1.0)
    while low and high and high / low > 1 + resolution:
        rate = (low + high) / 2
        if passes(rate):
            low = rate
        else:
            high = rate
    return low
