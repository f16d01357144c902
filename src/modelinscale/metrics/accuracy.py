"""Share of right decisions."""

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.task import TaskType
from modelinscale.metrics import Answers, Metric, Parts
from modelinscale.metrics._confusion import confusion, counts
from modelinscale.metrics._means import mean_parts
from modelinscale.metrics._share import share


class Accuracy(Metric):
    """Share of rows whose decision is right; of several labels all of them. Equals ``sklearn.metrics.accuracy_score``."""

    tasks: ClassVar[frozenset[TaskType]] = frozenset({"binary", "multiclass", "multilabel"})
    better: ClassVar[Literal["higher", "lower"]] = "higher"

    def parts(self, answers: Answers) -> Parts:
        if answers.truth.ndim == 2:
            return mean_parts((answers.truth == answers.decision).all(1), answers)
        return Parts((answers.once(confusion),), _finish)


def _finish(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    found = counts(sums)
    return share(found.right.sum(1), found.total)
