"""Precision: how many of the rows called positive are."""

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.task import TaskType
from modelinscale.metrics import Answers, Metric, Parts
from modelinscale.metrics._confusion import confusion, counts
from modelinscale.metrics._share import mean_of_defined, share


class Precision(Metric):
    """Share of right ones among the rows called positive; more than two classes: the mean over classes (macro).

    0 when a class occurs and is never called; a class that neither occurs nor is called is left out (NaN if that leaves none).
    Equals ``sklearn.metrics.precision_score``.
    """

    tasks: ClassVar[frozenset[TaskType]] = frozenset({"binary", "multiclass"})
    better: ClassVar[Literal["higher", "lower"]] = "higher"

    def parts(self, answers: Answers) -> Parts:
        return Parts((answers.once(confusion),), _finish)


def _finish(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    found = counts(sums)
    never = np.where(found.there > 0, 0.0, np.nan)
    each = np.where(found.called > 0, share(found.right, found.called), never)  # (R, C)
    return each[:, 1] if each.shape[1] == 2 else mean_of_defined(each)
