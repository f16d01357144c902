"""How far two rows of a series that follow each other are apart, what is usual there, and what is a hole."""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import polars as pl

_HOLE = 1.5
"""Usual steps; a step that is longer is a hole, since a row lacks there."""
_ROUNDED = 1e-3
"""Of a step, by which decimals may make it longer."""
_HELD_STEPS = 1 << 20
"""Steps whose median is found in memory."""
_BITS = 16


def holes_before(moments: "pl.Series", longest: float) -> NDArray[np.int64]:
    """(n,) how many of the steps that lead to each of the moments, ascending, are longer than that."""
    return np.concatenate([[0], np.cumsum(_apart(moments) > longest * (1 + _ROUNDED))])


def usual_step(moments: "Callable[[], Iterable[pl.Series]]", n: int) -> float:
    """The longest step that is no hole: one and a half times the median of those between ``n`` moments, which come in stretches that overlap by one."""

    def steps() -> Iterator[NDArray[np.float64]]:
        return (_apart(part) for part in moments())

    if n <= _HELD_STEPS:
        return _HOLE * float(np.median(np.concatenate(list(steps()))))
    n_steps = n - 1
    middle = {ranked(steps, (n_steps - 1) // 2), ranked(steps, n_steps // 2)}
    return _HOLE * float(np.mean(sorted(middle)))


def ranked(blocks: Callable[[], Iterable[NDArray[np.float64]]], rank: int) -> float:
    """The number with ``rank`` others before it in order, found 16 bits a pass; none is below 0. Bits of such numbers are in the order of the numbers."""
    found = 0
    for shift in range(64 - _BITS, -1, -_BITS):
        counts = np.zeros(1 << _BITS, np.int64)
        for block in blocks():
            bits = (block + 0.0).view(np.uint64)  # minus zero becomes zero
            if shift < 64 - _BITS:
                bits = bits[bits >> np.uint64(shift + _BITS) == np.uint64(found)]
            counts += np.bincount(((bits >> np.uint64(shift)) & np.uint64((1 << _BITS) - 1)).astype(np.int64), minlength=1 << _BITS)
        ends = np.cumsum(counts)
        digit = int(np.searchsorted(ends, rank, side="right"))
        rank -= int(ends[digit] - counts[digit])
        found = found << _BITS | digit
    return float(np.array([found], np.uint64).view(np.float64)[0])


def _apart(moments: "pl.Series") -> NDArray[np.float64]:
    import polars as pl

    physical = np.diff(moments.to_physical().to_numpy())
    return np.asarray(physical / (1e6 if moments.dtype == pl.Datetime else 1.0), np.float64)  # moments count microseconds
