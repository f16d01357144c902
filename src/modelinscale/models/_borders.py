"""Borders of the bins that networks see numbers through. P columns with bins, T bins."""

import numpy as np
from numpy.typing import NDArray

BINNED_COLUMNS = 300
"""Beyond this many columns of numbers none is seen through bins: they are then pieces of a vector, and bins would cost more than they bring."""


def borders_of(numbers: NDArray[np.float32], n_bins: int) -> tuple[tuple[int, ...], NDArray[np.float32]]:
    """Columns with more than two values, and the borders of their bins (P, T + 1): quantiles, fewer where values repeat, the last border repeated."""
    if not n_bins or not 0 < numbers.shape[1] <= BINNED_COLUMNS:
        return (), np.zeros((0, 1), np.float32)
    binned, found = [], []
    for column in range(numbers.shape[1]):
        borders = np.unique(np.quantile(numbers[:, column], np.linspace(0, 1, n_bins + 1)).astype(np.float32))
        if len(np.unique(numbers[:, column])) > 2 and len(borders) > 1:
            binned.append(column)
            found.append(np.concatenate([borders, np.full(n_bins + 1 - len(borders), borders[-1])]))
    return tuple(binned), np.stack(found).astype(np.float32) if found else np.zeros((0, 1), np.float32)
