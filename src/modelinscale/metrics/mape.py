"""Mean absolute error relative to the truth."""

from typing import ClassVar, Literal

import numpy as np

from modelinscale.core.task import TaskType
from modelinscale.metrics import Answers, Metric, Parts
from modelinscale.metrics._means import mean_parts
from modelinscale.metrics._share import share


class Mape(Metric):
    """Mean of |answer - truth| / |truth|: 0.1 is ten percent. NaN when some truth is 0.

    Equals ``sklearn.metrics.mean_absolute_percentage_error`` elsewhere.
    """

    tasks: ClassVar[frozenset[TaskType]] = frozenset({"regression"})
    better: ClassVar[Literal["higher", "lower"]] = "lower"

    def parts(self, answers: Answers) -> Parts:
        size = np.abs(answers.truth).astype(np.float64)
        return mean_parts(share(np.abs(answers.truth - answers.decision), size), answers)
