"""Calibration error: how far stated probabilities are from what happens."""

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from modelinscale.core.task import TaskType
from modelinscale.metrics import Answers, Metric, Parts, Table
from modelinscale.metrics._share import share


class CalibrationError(Metric):
    """Expected calibration error: rows in bins by probability; |mean probability - share that came true|, averaged over bins by weight.

    Two classes: of the positive class. More: of the class with the highest probability, against whether it is right (Guo et al. 2017).
    It is positive even for a perfect model, more so with few rows. Equals the sum over ``sklearn.calibration.calibration_curve``.
    """

    tasks: ClassVar[frozenset[TaskType]] = frozenset({"binary", "multiclass"})
    better: ClassVar[Literal["higher", "lower"]] = "lower"
    grows_with_noise: ClassVar[bool] = True

    n_bins: int = Field(15, ge=1, le=1000)
    """How many bins."""
    binning: Literal["mass", "width"] = "mass"
    """mass: the same number of rows in each bin (rare events stay visible) · width: the same range of probability in each (Guo et al. 2017)."""

    def parts(self, answers: Answers) -> Parts:
        stated, came_true = stated_probability(answers)
        weight = answers.weights
        if self.binning == "width":
            cells = np.searchsorted(np.linspace(0, 1, self.n_bins + 1)[1:-1], stated).astype(np.int64)
        else:
            cells = bins_of_equal_mass(stated, weight, self.n_bins)
        return Parts((Table(cells, self.n_bins, np.stack([weight * (stated - came_true), weight], axis=1)),), _finish)


def stated_probability(answers: Answers) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Each row's probability of the class in question, and whether it came true; both (N,)."""
    assert answers.probability is not None, "calibration needs probabilities"
    if answers.n_classes == 2:
        return answers.probability[:, 1], answers.truth == 1
    return answers.probability.max(1), answers.probability.argmax(1) == answers.truth


def bins_of_equal_mass(values: NDArray[np.float64], weight: NDArray[np.float64], n_bins: int) -> NDArray[np.int64]:
    """(N,) bins 0 … n_bins - 1 of about equal weight, rising with ``values``; equal values share a bin."""
    order = np.argsort(values)
    ordered = values[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    mass = np.add.reduceat(weight[order], starts)
    middle = share(np.cumsum(mass) - mass / 2, np.broadcast_to(mass.sum(), mass.shape), otherwise=0.0)
    bins = np.empty(len(values), np.int64)
    # A middle exactly on an edge belongs to the bin above, however the sum was rounded.
    of_score = np.minimum((middle * n_bins + 1e-9).astype(np.int64), n_bins - 1)
    bins[order] = np.repeat(of_score, np.diff(np.append(starts, len(values))))
    return bins


def _finish(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    return share(np.abs(sums[:, :, 0]).sum(1), sums[:, :, 1].sum(1))
