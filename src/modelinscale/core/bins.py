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
_SAMPLE, _COUNTERS = 4_096, 1 << 16
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
    Whole numbers end with zeros: what those bits hide is nothing. Counters go by the bits as they stand, those of negative values behind the others.
    """
    bits = np.ascontiguousarray(values).view(np.uint64)
    cleared = Bins.of(values[:: len(values) // _SAMPLE]).cleared
    shift = cleared or _zeros(int(np.bitwise_or.reduce(bits)))
    most, keys, low = max(_COUNTERS, len(values)), bits >> np.uint64(shift), 0
    if 1 << (64 - shift) > most:
        low = int(keys.min())
        if int(keys.max()) - low >= most:
            return _sides(values, cleared, most) if cleared else None
        keys -= np.uint64(low)
    counts = np.bincount(keys.view(np.int64))
    there = np.flatnonzero(counts != 0)  # several times faster than of the counts themselves
    at = ((there.astype(np.uint64) + np.uint64(low)) << np.uint64(shift)).view(np.float64)
    return _fit(cleared, at + 0.0, counts[there])


def _sides(values: NDArray[np.float64], cleared: int, most: int) -> Bins | None:
    """Bins of values above and below zero, counted apart, since their bits are far apart; None where either takes too many counters."""
    found = []
    for one in (values[values >= 0], values[values < 0]):
        keys = np.abs(one).view(np.int64) >> cleared
        low = int(keys.min()) if len(keys) else 0
        if len(keys) and int(keys.max()) - low >= most:
            return None
        counts = np.bincount(keys - low)
        there = np.flatnonzero(counts != 0)
        found.append((((there + low) << cleared).view(np.float64), counts[there]))
    (above, n_above), (below, n_below) = found
    return _fit(cleared, np.concatenate([above, -below]) + 0.0, np.concatenate([n_above, n_below]))


def _zeros(bits: int) -> int:
    """How many zeros 64 bits end with."""
    return ((bits & -bits).bit_length() - 1) if bits else 63


def _fit(cleared: int, at: NDArray[np.float64], counts: NDArray[np.int64]) -> Bins:
    """As few bits cleared as `LIMIT` allows, but at least ``cleared``."""
    order = np.argsort(at, kind="stable")
    at, counts = at[order], counts[order]
    # Cutting keeps the order, and cutting more never makes more bins: so one sort, and a search by halves.
    if len(_starts(_cut(at, cleared))) > LIMIT:
        few, many = 63, cleared
        while few - many > 1:
            middle = (few + many) // 2
            few, many = (middle, many) if len(_starts(_cut(at, middle))) <= LIMIT else (few, middle)
        cleared = few
    cut = _cut(at, cleared)
    starts = _starts(cut)
    return Bins(cleared, cut[starts], np.add.reduceat(counts, starts) if len(starts) else counts)


def _cut(at: NDArray[np.float64], cleared: int) -> NDArray[np.float64]:
    """With the lowest bits cleared, towards zero; minus zero is zero."""
    return (at.view(np.int64) & np.int64(-1 << cleared)).view(np.float64) + 0.0


def _starts(ascending: NDArray[np.float64]) -> NDArray[np.int64]:
    """Where each run of equal values starts."""
    return np.flatnonzero(np.concatenate([[True], ascending[1:] != ascending[:-1]])) if len(ascending) else np.zeros(0, np.int64)
