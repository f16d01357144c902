"""F1: precision and recall in one."""

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.task import TaskType
from modelinscale.metrics import Answers, Metric, Parts
from modelinscale.metrics._confusion import confusion, counts
from modelinscale.metrics._labels import flags
from modelinscale.metrics._share import mean_of_defined, share


class F1(Metric):
    """Harmonic mean of precision and recall of the positive class; more than two classes, or several labels: the mean over them (macro).

    0 when nothing is found; a class that neither occurs nor is called is left out (NaN if that leaves none). Equals ``sklearn.metrics.f1_score``.
    """

    tasks: ClassVar[frozenset[TaskType]] = frozenset({"binary", "multiclass", "multilabel"})
    better: ClassVar[Literal["higher", "lower"]] = "higher"
    sets_threshold: ClassVar[bool] = True

    def parts(self, answers: Answers) -> Parts:
        if answers.truth.ndim == 2:
            return Parts((answers.once(flags),), _of_labels)
        return Parts((answers.once(confusion),), _finish)


def _of_labels(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    right, called, there = np.split(sums[:, 0], 3, axis=1)  # (R, C) each
    return mean_of_defined(share(2 * right, called + there))


def _finish(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    found = counts(sums)
    each = share(2 * found.right, found.called + found.there)  # (R, C)
    return each[:, 1] if each.shape[1] == 2 else mean_of_defined(each)
