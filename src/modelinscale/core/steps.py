"""Sequences as arrays: one row's steps, and rows of different lengths side by side. T steps, D channels, N rows."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Steps = NDArray[np.float32]
"""(T, D), NaN where a number is missing; T may be 0."""


def missing(width: int) -> Steps:
    """A sequence that is not there: no steps."""
    return np.zeros((0, width), np.float32)


def padded(rows: Sequence[Steps], width: int) -> NDArray[np.float32]:
    """(N, T, D) with NaN behind each row's end; T is that of the longest, at least 1."""
    found = np.full((len(rows), max([1, *map(len, rows)]), width), np.nan, np.float32)
    for to, row in zip(found, rows, strict=True):
        to[: len(row)] = row
    return found
