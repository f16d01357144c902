"""Root mean squared error."""

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.task import TaskType
from modelinscale.metrics import Answers, Metric, Parts
from modelinscale.metrics._means import mean, mean_parts


class Rmse(Metric):
    """Square root of the mean squared error, in the target's unit. Equals ``sklearn.metrics.root_mean_squared_error``."""

    tasks: ClassVar[frozenset[TaskType]] = frozenset({"regression"})
    better: ClassVar[Literal["higher", "lower"]] = "lower"

    def parts(self, answers: Answers) -> Parts:
        squares = mean_parts((answers.truth - answers.decision) ** 2, answers)
        return Parts(squares.tables, _finish)


def _finish(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.sqrt(mean(sums))
