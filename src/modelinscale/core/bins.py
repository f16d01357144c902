"""A histogram of floats that merges exactly: bounded in size, as fine as it can be, the same whatever the order of the values.

A bin is named by its value nearest zero: a float64 whose lowest ``cleared`` bits are zero. When there are more than `LIMIT` bins, one more bit is
cleared and neighbours join. How many bits are cleared in the end depends on the set of values alone (the smallest number that fits), so parts merged
equal the whole seen at once, bit for bit. Up to `LIMIT` distinct values are kept exactly; beyond that a bin is about as wide, relative to its
value, as the data need: 1 to 3 % for numbers spread over a few powers of two.
"""

from math import fsum, isfinite, sqrt
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

LIMIT = 1024
"""Bins at most: 12 to 25 KB of JSON."""
_SAMPLE, _COUNTERS, _SIGN = 4_096, 1 << 16, 1 << 63
_LARGEST = float(np.finfo(np.float64).max)


class Bins(NamedTuple):
    """The bins, ascending. B bins."""

    cleared: int
    at: NDArray[np.float64]  # (B,)
    counts: NDArray[np.int64]  # (B,)

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> "Bins":
        """Bins of finite values."""
        found = _counted(values) if len(values) > 4 * _SAMPLE else None
        if found is not None:
            return found
        ascending = np.sort(values) + 0.0
        starts = _starts(ascending)
        return _fit(0, ascending[starts], np.diff(starts, append=len(ascending)))

    @classmethod
    def load(cls, plain: dict[str, Any]) -> "Bins":
        """From what `plain` gave."""
        return cls(plain["cleared"], np.array(plain["at"], np.float64), np.array(plain["counts"], np.int64))

    def plain(self) -> dict[str, Any]:
        """As JSON-ready data; floats read back exactly."""
        return {"cleared": self.cleared, "at": self.at.tolist(), "counts": self.counts.tolist()}

    def merged(self, other: "Bins") -> "Bins":
        """Both samples together."""
        return _fit(max(self.cleared, other.cleared), np.concatenate([self.at, other.at]), np.concatenate([self.counts, other.counts]))

    def middles(self) -> NDArray[np.float64]:
        """(B,) a value to stand for each bin: its middle, or the value itself while no bit is cleared."""
        if not self.cleared:
            return self.at
        middle = (self.at.view(np.int64) | (1 << (self.cleared - 1))).view(np.float64)
        # The bin at zero holds both signs, so zero stands for it.
        return np.where(self.at == 0.0, 0.0, np.where(np.isfinite(middle), middle, np.copysign(_LARGEST, self.at)))

    def quantile(self, share: float) -> float:
        """The smallest stand-in with at least ``share`` of the values at or below it; no bins: 0."""
        if not len(self.at):
            return 0.0
        rank = max(1, int(np.ceil(share * int(self.counts.sum()))))
        return float(self.middles()[np.searchsorted(np.cumsum(self.counts), rank)])

    def moments(self) -> tuple[float, float]:
        """Mean and standard deviation of the stand-ins; no bins: (0, 0)."""
        return moments(self.middles(), self.counts)


def moments(values: NDArray[np.float64], counts: NDArray[np.int64]) -> tuple[float, float]:
    """Mean and standard deviation of values that occur so often, summed without rounding: independent of any order; no values: (0, 0)."""
    n = int(counts.sum())
    if not n:
        return 0.0, 0.0
    # Scaled by a power of two, which is exact: squares of 1e300 must not overflow, nor those of 1e-300 vanish.
    unit = 2.0 ** min(1000, int(np.frexp(np.abs(values).max())[1]))
    shares = (counts / n).tolist()
    small = (values / unit).tolist()
    mean = fsum(v * s for v, s in zip(small, shares, strict=True))
    deviation = sqrt(fsum((v - mean) ** 2 * s for v, s in zip(small, shares, strict=True)))
    return mean * unit, deviation * unit if isfinite(deviation * unit) else _LARGEST


def _counted(values: NDArray[np.float64]) -> Bins | None:
    """The same bins by counting, without sorting; None where counters would be too many.

    A part of the values needs some bits cleared to fit, and all of them together need at least as many: with those cleared, few counters are left.
    Whole numbers end with zeros: what those bits hide is nothing. Where neither helps, the values of the part are looked up, and the others sorted.
    """
    values = np.ascontiguousarray(values)
    bits, most = values.view(np.uint64), max(_COUNTERS, len(values))
    part = np.sort(values[:: len(values) // _SAMPLE]) + 0.0
    cleared = _fewest(part, 0)
    shift = np.uint64(cleared or _zeros(int(np.bitwise_or.reduce(bits))))
    low, high = bits.min() >> shift, bits.max() >> shift
    if int(high - low) >= most:
        return _sides(bits, cleared, most) if cleared else _looked_up(values, part[_starts(part)])
    keys = bits >> shift
    keys -= low
    counts = np.bincount(keys.view(np.int64))
    there = np.flatnonzero(counts != 0)  # several times faster than of the counts themselves
    return _fit(cleared, ((there.astype(np.uint64) + low) << shift).view(np.float64) + 0.0, counts[there])


def _sides(bits: NDArray[np.uint64], cleared: int, most: int) -> Bins | None:
    """As `_counted`, of values above and below zero, whose bits are far apart: the counters of those below come behind the others'."""
    keys = (bits & np.uint64(_SIGN - 1)) >> np.uint64(cleared)
    low = keys.min()
    span = int(keys.max()) - int(low) + 1
    if span > most:
        return None
    keys -= low
    keys += (bits >> np.uint64(63)) * np.uint64(span)
    counts = np.bincount(keys.view(np.int64), minlength=2 * span)
    there = np.flatnonzero(counts != 0)
    size = ((there.astype(np.uint64) % np.uint64(span) + low) << np.uint64(cleared)).view(np.float64)
    return _fit(cleared, np.where(there < span, size, -size) + 0.0, counts[there])


def _looked_up(values: NDArray[np.float64], known: NDArray[np.float64]) -> Bins:
    """Bins of values of which most are among the ``known``, each of these once: a table by a hash of the bits counts those, and sorting the rest."""
    n_bits = min(16, 6 + len(known).bit_length())  # of a place's number: few of the known at one place
    table = np.zeros(1 << n_bits, np.uint64)  # an empty place holds 0.0, whose place is the first
    table[_places(known, n_bits)] = known.view(np.uint64)  # of two at one place the one is looked up, the other sorted
    places = _places(values, n_bits)
    counts = np.bincount(places, minlength=len(table))
    missed = np.flatnonzero(table.take(places) != values.view(np.uint64))
    counts -= np.bincount(places[missed], minlength=len(table))
    rest, there = np.sort(values[missed]) + 0.0, np.flatnonzero(counts != 0)
    starts = _starts(rest)
    at = np.concatenate([table[there].view(np.float64) + 0.0, rest[starts]])
    return _fit(0, at, np.concatenate([counts[there], np.diff(starts, append=len(rest))]))


def _places(values: NDArray[np.float64], n_bits: int) -> NDArray[np.int64]:
    """Where in a table of ``1 << n_bits`` places: Fibonacci hashing (Knuth, The Art of Computer Programming 3, 6.4)."""
    places = values.view(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    places >>= np.uint64(64 - n_bits)
    return places.view(np.int64)


def _zeros(bits: int) -> int:
    """How many zeros 64 bits end with."""
    return ((bits & -bits).bit_length() - 1) if bits else 63


def _fit(cleared: int, at: NDArray[np.float64], counts: NDArray[np.int64]) -> Bins:
    """As few bits cleared as `LIMIT` allows, but at least ``cleared``."""
    order = np.argsort(at, kind="stable")
    at, counts = at[order], counts[order]
    cleared = _fewest(at, cleared)
    cut = _cut(at, cleared)
    starts = _starts(cut)
    return Bins(cleared, cut[starts], np.add.reduceat(counts, starts) if len(starts) else counts)


def _fewest(ascending: NDArray[np.float64], cleared: int) -> int:
    """The fewest bits, from ``cleared`` on, that leave at most `LIMIT` bins of these values, which have no minus zero."""
    if len(ascending) <= LIMIT:
        return cleared
    # Cutting keeps the order, and neighbours join when the highest bit in which they differ is cleared; on two sides of zero, when both are zero.
    bits = ascending.view(np.uint64)
    differ = bits[1:] ^ bits[:-1]
    above = int(np.searchsorted(ascending, 0.0))
    if 0 < above < len(ascending):
        differ[above - 1] = (bits[above] | bits[above - 1]) & np.uint64(_SIGN - 1)
    # Without the bit below the highest, a float64 is not rounded up to one bit more.
    highest = np.frexp((differ & ~(differ >> np.uint64(1))).astype(np.float64))[1]
    n_bins = 1 + np.cumsum(np.bincount(highest, minlength=65)[:0:-1])[::-1]  # n_bins[c]: with c bits cleared
    return max(cleared, int(np.argmax(n_bins <= LIMIT)))


def _cut(at: NDArray[np.float64], cleared: int) -> NDArray[np.float64]:
    """With the lowest bits cleared, towards zero; minus zero is zero."""
    return (at.view(np.int64) & np.int64(-1 << cleared)).view(np.float64) + 0.0


def _starts(ascending: NDArray[np.float64]) -> NDArray[np.int64]:
    """Where each run of equal values starts."""
    return np.flatnonzero(np.concatenate([[True], ascending[1:] != ascending[:-1]])) if len(ascending) else np.zeros(0, np.int64)
