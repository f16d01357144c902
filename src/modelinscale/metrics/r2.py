"""Share of the target's variance that is explained."""

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.task import TaskType
from modelinscale.metrics import Answers, Metric, Parts, Table
from modelinscale.metrics._share import share


class R2(Metric):
    """1 - squared errors / squared distances from the mean: 1 perfect, 0 no better than the mean, below 0 worse.

    Of several numbers the mean over them. NaN when the truth (one of them) does not vary. Equals ``sklearn.metrics.r2_score``.
    """

    tasks: ClassVar[frozenset[TaskType]] = frozenset({"regression"})
    better: ClassVar[Literal["higher", "lower"]] = "higher"

    def parts(self, answers: Answers) -> Parts:
        weight, truth, decision = answers.weights[:, None], answers.truth.reshape(len(answers), -1), answers.decision.reshape(len(answers), -1)  # (N, W)
        centred = truth - np.average(truth, axis=0, weights=weight[:, 0]) if weight.sum() > 0 else truth  # keeps the sums small: no cancellation
        terms = np.concatenate([weight, weight * centred, weight * centred**2, weight * (truth - decision) ** 2], axis=1)
        constant = (truth == truth[0]).all(0)

        def finish(sums: NDArray[np.float64]) -> NDArray[np.float64]:
            n, (total, squares, errors) = sums[:, 0, :1], np.split(sums[:, 0, 1:], 3, axis=1)  # (R, 1), (R, W) each
            spread = squares - share(total**2, n, otherwise=0.0)
            spread = np.where((spread > 1e-14 * squares) & ~constant, spread, 0.0)  # below rounding: one value only
            return np.asarray((1 - share(errors, spread)).mean(1))

        return Parts((Table(None, 1, terms),), finish)
