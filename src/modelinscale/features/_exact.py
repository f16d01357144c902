"""Sums of float32 that no order of the rows changes: mean and deviation of each column of a matrix, learned from parts. W columns."""

from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

_UNIT_BITS = 149
"""Every float32 is a whole multiple of 2**-149, so sums of them are whole numbers, and exact."""


def exact_sums(x: NDArray[np.float32]) -> tuple[list[int], list[int]]:
    """Sums and sums of squares of each column of finite numbers, exact, in units of 2**-149 and 2**-298."""
    width = x.shape[1]
    bits = np.ascontiguousarray(x).view(np.int32)
    exponent = (bits >> 23) & 0xFF
    digits = ((bits & 0x7FFFFF) | ((exponent > 0).astype(np.int32) << 23)).astype(np.int64)  # a float32 is ± digits * 2**(shift - 149)
    shift = np.maximum(exponent, 1) - 1
    place = (np.arange(width) * 256 + shift).ravel()

    def added(parts: NDArray[np.int64]) -> list[list[int]]:
        # Whole numbers below 2**24 added as float64: exact for up to 2**29 rows.
        return np.bincount(place, weights=parts.ravel(), minlength=width * 256).astype(np.int64).reshape(width, 256).tolist()

    square = digits * digits
    signed, high, low = (added(p) for p in (np.where(bits < 0, -digits, digits), square >> 24, square & 0xFFFFFF))
    sums = [sum(v << s for s, v in enumerate(row) if v) for row in signed]
    squares = [sum(((h << 24) + v) << 2 * s for s, (h, v) in enumerate(zip(*rows, strict=True)) if h or v) for rows in zip(high, low, strict=True)]
    return sums, squares


def seen(x: NDArray[np.float32]) -> dict[str, Any]:
    """What a state keeps of the finite numbers of a matrix."""
    finite = np.isfinite(x)
    sums, squares = exact_sums(np.where(finite, x, np.float32(0)))
    # Sums are written as text: JSON readers other than Python's cut whole numbers at 64 bits.
    return {"finite": finite.sum(axis=0).tolist(), "sums": [str(v) for v in sums], "squares": [str(v) for v in squares]}


def added(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    """Both samples together, of matrices of one width."""
    finite = [i + j for i, j in zip(a["finite"], b["finite"], strict=True)]
    return {"finite": finite, **{key: [str(int(i) + int(j)) for i, j in zip(a[key], b[key], strict=True)] for key in ("sums", "squares")}}


def learned(state: dict[str, Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and one over the standard deviation of each column, (W,); a constant column keeps its unit."""
    means, factors = [], []
    for n, text, text_of_squares in zip(state["finite"], state["sums"], state["squares"], strict=True):
        total, squares = int(text), int(text_of_squares)
        # Whole numbers divided by Python are rounded once, at the end.
        means.append(total / (n << _UNIT_BITS) if n else 0.0)
        deviation = sqrt((n * squares - total * total) / (n * n << 2 * _UNIT_BITS)) if n else 0.0
        factors.append(1.0 / deviation if deviation > 0 else 1.0)
    return np.array(means, np.float64), np.array(factors, np.float64)
