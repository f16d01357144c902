"""Recall: how many of the positive rows are found."""

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.task import TaskType
from modelinscale.metrics import Answers, Metric, Parts
from modelinscale.metrics._confusion import confusion, counts
from modelinscale.metrics._share import mean_of_defined, share


class Recall(Metric):
    """Share of the positive rows that are called positive; more than two classes: the mean over classes (macro).

    NaN for two classes without a positive row; of many classes, one that is called but never occurs counts 0, as in ``sklearn.metrics.recall_score``.
    """

    tasks: ClassVar[frozenset[TaskType]] = frozenset({"binary", "multiclass"})
    better: ClassVar[Literal["higher", "lower"]] = "higher"

    def parts(self, answers: Answers) -> Parts:
        return Parts((answers.once(confusion),), _finish)


def _finish(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    found = counts(sums)
    each = share(found.right, found.there)  # (R, C)
    if each.shape[1] == 2:
        return each[:, 1]
    return mean_of_defined(np.where((found.there == 0) & (found.called > 0), 0.0, each))
