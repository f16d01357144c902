"""Area under the precision-recall curve, as average precision."""

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.task import TaskType
from modelinscale.metrics import Answers, Metric, Parts
from modelinscale.metrics._ranks import ranks
from modelinscale.metrics._share import mean_of_defined, share


class PrAuc(Metric):
    """Average precision: precision at each positive row's score, averaged; the share of positives is what guessing gives.

    The step sum, not the trapezoid, which is too hopeful. More than two classes: each against the rest, the mean over the classes that occur; several
    labels: the mean over those that occur.
    NaN when there is no positive row. Equals ``sklearn.metrics.average_precision_score`` (``average="macro"``).
    """

    tasks: ClassVar[frozenset[TaskType]] = frozenset({"binary", "multiclass", "multilabel"})
    better: ClassVar[Literal["higher", "lower"]] = "higher"

    def parts(self, answers: Answers) -> Parts:
        tables = answers.once(ranks)

        def finish(*sums: NDArray[np.float64]) -> NDArray[np.float64]:
            return mean_of_defined(np.stack([_average(s, table.kept) for s, table in zip(sums, tables, strict=True)], axis=1))

        return Parts(tables, finish)


def _average(sums: NDArray[np.float64], kept: NDArray[np.float64]) -> NDArray[np.float64]:
    positive = sums[:, :, 0]  # (R, B)
    found = np.cumsum(positive, 1)
    precision = share(found, np.cumsum(sums.sum(2), 1), otherwise=0.0)
    return share((positive * kept * precision).sum(1), found[:, -1])
