"""Mean squared error."""

from typing import ClassVar, Literal

from modelinscale.core.task import TaskType
from modelinscale.metrics import Answers, Metric, Parts
from modelinscale.metrics._means import mean_parts


class Mse(Metric):
    """Mean squared distance between answer and truth; of several numbers the mean over them. Equals ``sklearn.metrics.mean_squared_error``."""

    tasks: ClassVar[frozenset[TaskType]] = frozenset({"regression"})
    better: ClassVar[Literal["higher", "lower"]] = "lower"

    def parts(self, answers: Answers) -> Parts:
        return mean_parts((answers.truth - answers.decision) ** 2, answers)
