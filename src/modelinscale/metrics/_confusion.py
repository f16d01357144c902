"""The confusion table: what decision-based metrics are made of."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from modelinscale.metrics import Answers, Table


def confusion(answers: Answers) -> Table:
    """One cell for each pair of truth and decision, numbered ``truth * C + decision``; the term is the row's weight."""
    n = answers.n_classes
    cells = answers.truth.astype(np.int64) * n + answers.decision.astype(np.int64)
    return Table(cells, n * n, answers.weights[:, None])


class Counts(NamedTuple):
    """Weights of rows by class, each (R, C)."""

    right: NDArray[np.float64]
    """Of the class and called so."""
    called: NDArray[np.float64]
    """Called so, rightly or not."""
    there: NDArray[np.float64]
    """Of the class, found or not."""

    @property
    def total(self) -> NDArray[np.float64]:
        """(R,)"""
        return np.asarray(self.there.sum(1))


def counts(sums: NDArray[np.float64]) -> Counts:
    """From the sums (R, C * C, 1) of `confusion`."""
    n = round(sums.shape[1] ** 0.5)
    matrix = sums[:, :, 0].reshape(-1, n, n)  # (R, truth, decision)
    return Counts(np.diagonal(matrix, axis1=1, axis2=2), matrix.sum(1), matrix.sum(2))
