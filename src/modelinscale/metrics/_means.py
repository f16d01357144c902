"""Metrics that are a weighted mean of one term a row."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelinscale.metrics import Answers, Parts, Table
from modelinscale.metrics._share import share


def mean_parts(term: NDArray[Any], answers: Answers) -> Parts:
    """The mean of ``term``, (N,) or (N, W), by the rows' weights; of several numbers the mean over them."""
    weight, term = answers.weights, term if term.ndim == 1 else term.mean(1)
    return Parts((Table(None, 1, np.stack([term * weight, weight], axis=1)),), mean)


def mean(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """(R, 1, 2) to (R,)."""
    return share(sums[:, 0, 0], sums[:, 0, 1])
