"""A mergeable log-linear histogram of durations in nanoseconds.

Below 64 ns every value has its own bucket; above, each power of two is cut into 32 equal buckets, so that a bucket is
never wider than 1/32 of the values in it. The layout is the same in every process: histograms merge by adding counts,
and percentiles come from the merged counts; percentiles themselves are never averaged.

Source: the layout is that of HdrHistogram (Gil Tene) with sub-bucket half count 32.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence

from rtb.errors import Malformed

_SUB_BITS = 5
_SUB = 1 << _SUB_BITS
_EXACT = _SUB << 1
_MAX_BITS = 40
BUCKETS = (_MAX_BITS - _SUB_BITS) * _SUB + _SUB
MAX_NS = (1 << _MAX_BITS) - 1
"""The highest duration told apart, 18.3 minutes; a longer one counts as this."""


def upper_ns(index: int) -> int:
    """The highest duration that falls into bucket `index`."""
    if index < _EXACT:
        return index
    shift = (index >> _SUB_BITS) - 1
    return ((index & (_SUB - 1)) + _SUB + 1 << shift) - 1


_UPPER_NS = [upper_ns(index) for index in range(BUCKETS)]


class Histogram:
    """Counts by bucket, and the exact sum."""

    __slots__ = ("counts", "sum_ns")

    def __init__(self) -> None:
        """Start empty."""
        self.counts = [0] * BUCKETS
        self.sum_ns = 0

    def record(self, ns: int) -> None:
        """Count one duration; a negative one counts as 0, one above MAX_NS into the last bucket."""
        if ns < _EXACT:
            if ns < 0:
                ns = 0
            index = ns
        else:
            shift = ns.bit_length() - 6
            index = (shift << 5) + (ns >> shift)
        try:
            self.counts[index] += 1
        except IndexError:
            self.counts[-1] += 1
        self.sum_ns += ns

    def record_all(self, durations_ns: Iterable[int]) -> None:
        """Count many, each as `record` does: in order, so that those of a bucket are found together."""
        counts, ordered = self.counts, sorted(durations_ns)
        counted = bisect_left(ordered, 0)
        counts[0] += counted
        self.sum_ns += sum(ordered[counted:] if counted else ordered)
        while counted < len(ordered):
            ns = ordered[counted]
            shift = ns.bit_length() - _SUB_BITS - 1
            index = ns if ns < _EXACT else (shift << _SUB_BITS) + (ns >> shift)
            if index >= BUCKETS - 1:
                counts[-1] += len(ordered) - counted
                return
            end = bisect_right(ordered, _UPPER_NS[index], counted)
            counts[index] += end - counted
            counted = end

    @property
    def count(self) -> int:
        """How many durations were recorded."""
        return sum(self.counts)

    @property
    def max_ns(self) -> int:
        """The upper edge of the highest bucket in use, 0 when empty: at most 1/32 above the longest duration."""
        for index in range(BUCKETS - 1, -1, -1):
            if self.counts[index]:
                return _UPPER_NS[index]
        return 0

    def percentile(self, q: float) -> int:
        """The `q`-th percentile (0 to 100, nearest rank) in ns; 0 when empty.

        It is the upper edge of the bucket the rank falls into: never below the true value, at most 1/32 above it.

        Raises:
            ValueError: q is not between 0 and 100.
        """
        if not 0 <= q <= 100:
            raise ValueError(f"percentile {q} is not between 0 and 100")
        # 1e-9: 99.9 % of 1,000 is rank 999, not the 1,000 that binary fractions would round up to.
        rank = max(1, math.ceil(q * self.count / 100 - 1e-9))
        for index, seen in self._cumulative():
            if seen >= rank:
                return _UPPER_NS[index]
        return 0

    def at_most(self, bounds_ns: Sequence[int]) -> list[int]:
        """For each of the ascending bounds, how many durations are surely at or below it.

        A bucket that a bound cuts through counts above it, so no duration is flattered; at most the 1/32 just below a
        bound is counted late.
        """
        counts, index, seen, found = self.counts, 0, 0, []
        for bound in bounds_ns:
            while index < BUCKETS and _UPPER_NS[index] <= bound:
                seen += counts[index]
                index += 1
            found.append(seen)
        return found

    def copy(self) -> Histogram:
        """An independent histogram with the same counts."""
        other = Histogram()
        other.counts[:] = self.counts
        other.sum_ns = self.sum_ns
        return other

    def add(self, other: Histogram) -> None:
        """Merge another histogram into this one."""
        self.counts[:] = [a + b for a, b in zip(self.counts, other.counts, strict=True)]
        self.sum_ns += other.sum_ns

    def since(self, earlier: Histogram) -> Histogram:
        """What was recorded after `earlier`, a copy of this histogram, was taken."""
        delta = Histogram()
        delta.counts[:] = [a - b for a, b in zip(self.counts, earlier.counts, strict=True)]
        delta.sum_ns = self.sum_ns - earlier.sum_ns
        return delta

    def packed_since(self, earlier: Histogram) -> tuple[int, ...]:
        """The wire form of `since`, in one pass; of nothing it is empty."""
        if self.counts == earlier.counts:
            return ()
        flat = [self.sum_ns - earlier.sum_ns]
        for index, (now, before) in enumerate(zip(self.counts, earlier.counts, strict=True)):
            if now != before:
                flat += (index, now - before)
        return tuple(flat)

    def pack(self) -> tuple[int, ...]:
        """The compact wire form: the sum in ns, then bucket and count of every bucket in use, ascending."""
        flat = [self.sum_ns]
        for index, count in enumerate(self.counts):
            if count:
                flat += (index, count)
        return tuple(flat)

    @classmethod
    def unpack(cls, packed: Sequence[int]) -> Histogram:
        """The histogram of a wire form; an empty one is an empty histogram.

        Raises:
            Malformed: no wire form of this layout.
        """
        histogram = cls()
        if not packed:
            return histogram
        if len(packed) % 2 == 0 or packed[0] < 0:
            raise Malformed("histogram: a sum and pairs of bucket and count are expected")
        last = -1
        for index, count in zip(packed[1::2], packed[2::2], strict=True):
            if not last < index < BUCKETS or count <= 0:
                raise Malformed(f"histogram: bucket {index} with count {count} is out of order or range")
            histogram.counts[index] = count
            last = index
        histogram.sum_ns = packed[0]
        return histogram

    def _cumulative(self) -> Iterator[tuple[int, int]]:
        seen = 0
        for index, count in enumerate(self.counts):
            if count:
                seen += count
                yield index, seen


class PackedSum:
    """Adds up wire forms, at the price of the buckets in use."""

    __slots__ = ("_counts", "_sum_ns")

    def __init__(self) -> None:
        """Empty."""
        self._counts: dict[int, int] = {}
        self._sum_ns = 0

    def add(self, packed: Sequence[int]) -> None:
        """Take in what it has recorded."""
        if not packed:
            return
        counts = self._counts
        self._sum_ns += packed[0]
        for index, count in zip(packed[1::2], packed[2::2], strict=True):
            counts[index] = counts[index] + count if index in counts else count

    def pack(self) -> tuple[int, ...]:
        """The wire form of everything; of nothing it is empty."""
        if not self._counts:
            return ()
        flat = [self._sum_ns]
        for index in sorted(self._counts):
            flat += (index, self._counts[index])
        return tuple(flat)


def merge_packed(parts: Iterable[Sequence[int]]) -> tuple[int, ...]:
    """The wire form of everything that these wire forms have recorded."""
    total = PackedSum()
    for part in parts:
        total.add(part)
    return total.pack()


def packed_percentiles(packed: Sequence[int], qs: Sequence[float]) -> list[int]:
    """`Histogram.percentile` for each of the ascending `qs`, read from the wire form in one pass."""
    total = sum(packed[2::2])
    found: list[int] = []
    seen, at = 0, -1
    for q in qs:
        rank = max(1, math.ceil(q * total / 100 - 1e-9))
        while seen < rank and at + 2 < len(packed):
            at += 2
            seen += packed[at + 1]
        found.append(_UPPER_NS[packed[at]] if total else 0)
    return found


def merged(histograms: Iterable[Histogram]) -> Histogram:
    """A new histogram of everything the given ones recorded."""
    total = Histogram()
    for histogram in histograms:
        total.add(histogram)
    return total
