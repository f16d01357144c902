"""Share of the target's variance that is explained."""

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.task import TaskType
from modelinscale.metrics import Answers, Metric, Parts, Table
from modelinscale.metrics._share import share


class R2(Metric):
    """1 - squared errors / squared distances from the mean: 1 perfect, 0 no better than the mean, below 0 worse.

    NaN when the truth does not vary. Equals ``sklearn.metrics.r2_score``.
    """

    tasks: ClassVar[frozenset[TaskType]] = frozenset({"regression"})
    better: ClassVar[Literal["higher", "lower"]] = "higher"

    def parts(self, answers: Answers) -> Parts:
        weight, truth = answers.weights, answers.truth
        centred = truth - np.average(truth, weights=weight) if weight.sum() > 0 else truth  # keeps the sums small: no cancellation
        terms = np.stack([weight, weight * centred, weight * centred**2, weight * (truth - answers.decision) ** 2], axis=1)
        constant = bool((truth == truth[0]).all())

        def finish(sums: NDArray[np.float64]) -> NDArray[np.float64]:
            n, total, squares, errors = np.moveaxis(sums[:, 0, :], -1, 0)
            spread = squares - share(total**2, n, otherwise=0.0)
            spread = np.where((spread > 1e-14 * squares) & (not constant), spread, 0.0)  # below rounding: one value only
            return 1 - share(errors, spread)

        return Parts((Table(None, 1, terms),), finish)
