"""Root mean squared error."""

from collections.abc import Iterator
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.task import TaskType
from modelinscale.metrics import Answers, Metric, Parts, Table, Terms
from modelinscale.metrics._share import share


class Rmse(Metric):
    """Square root of the mean squared error, in the target's unit; of several numbers the mean over them. Equals
    ``sklearn.metrics.root_mean_squared_error``."""

    tasks: ClassVar[frozenset[TaskType]] = frozenset({"regression"})
    better: ClassVar[Literal["higher", "lower"]] = "lower"

    def parts(self, answers: Answers) -> Parts:
        weight, truth, decision = answers.weights, answers.truth.reshape(len(answers), -1), answers.decision.reshape(len(answers), -1)  # (N,), (N, W) twice

        def terms() -> Iterator[NDArray[np.float64]]:
            yield weight
            for k in range(truth.shape[1]):
                yield weight * (truth[:, k] - decision[:, k]) ** 2

        return Parts((Table(None, 1, Terms(1 + truth.shape[1], terms)),), _finish)


def _finish(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.sqrt(share(sums[:, 0, 1:], sums[:, 0, :1])).mean(1))
