"""F1 of all labels of all rows together."""

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.task import TaskType
from modelinscale.metrics import Answers, Metric, Parts
from modelinscale.metrics._labels import flags
from modelinscale.metrics._share import share


class MicroF1(Metric):
    """Several labels: precision and recall in one, over all pairs of a row and a label. Equals ``sklearn.metrics.f1_score`` (``average="micro"``)."""

    tasks: ClassVar[frozenset[TaskType]] = frozenset({"multilabel"})
    better: ClassVar[Literal["higher", "lower"]] = "higher"

    def parts(self, answers: Answers) -> Parts:
        return Parts((answers.once(flags),), _finish)


def _finish(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    right, called, there = (part.sum(1) for part in np.split(sums[:, 0], 3, axis=1))
    return share(2 * right, called + there)
