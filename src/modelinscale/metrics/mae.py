"""Mean absolute error."""

from typing import ClassVar, Literal

import numpy as np

from modelinscale.core.task import TaskType
from modelinscale.metrics import Answers, Metric, Parts
from modelinscale.metrics._means import mean_parts


class Mae(Metric):
    """Mean distance between answer and truth, in the target's unit; of several numbers the mean over them. Equals ``sklearn.metrics.mean_absolute_error``."""

    tasks: ClassVar[frozenset[TaskType]] = frozenset({"regression"})
    better: ClassVar[Literal["higher", "lower"]] = "lower"

    def parts(self, answers: Answers) -> Parts:
        return mean_parts(np.abs(answers.truth - answers.decision), answers)
