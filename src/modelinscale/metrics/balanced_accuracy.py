"""Share of right decisions, every class counting the same."""

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.task import TaskType
from modelinscale.metrics import Answers, Metric, Parts
from modelinscale.metrics._confusion import confusion, counts
from modelinscale.metrics._share import mean_of_defined, share


class BalancedAccuracy(Metric):
    """Recall of each class, averaged over the classes that occur. Equals ``sklearn.metrics.balanced_accuracy_score``."""

    tasks: ClassVar[frozenset[TaskType]] = frozenset({"binary", "multiclass"})
    better: ClassVar[Literal["higher", "lower"]] = "higher"
    sets_threshold: ClassVar[bool] = True

    def parts(self, answers: Answers) -> Parts:
        return Parts((answers.once(confusion),), _finish)


def _finish(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    found = counts(sums)
    return mean_of_defined(share(found.right, found.there))
