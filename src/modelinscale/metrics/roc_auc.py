"""Area under the ROC curve."""

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.task import TaskType
from modelinscale.metrics import Answers, Metric, Parts
from modelinscale.metrics._ranks import ranks
from modelinscale.metrics._share import mean_of_defined, share


class RocAuc(Metric):
    """Area under the ROC curve: the chance that a positive row scores above a negative one, a tie counting one half.

    More than two classes: each class against the rest, the mean over the classes that occur. NaN when only one class occurs.
    Equals ``sklearn.metrics.roc_auc_score`` (``multi_class="ovr", average="macro"``).
    """

    tasks: ClassVar[frozenset[TaskType]] = frozenset({"binary", "multiclass"})
    better: ClassVar[Literal["higher", "lower"]] = "higher"

    def parts(self, answers: Answers) -> Parts:
        tables = answers.once(ranks)

        def finish(*sums: NDArray[np.float64]) -> NDArray[np.float64]:
            return mean_of_defined(np.stack([_area(s, table.won) for s, table in zip(sums, tables, strict=True)], axis=1))

        return Parts(tables, finish)


def _area(sums: NDArray[np.float64], won: NDArray[np.float64]) -> NDArray[np.float64]:
    positive, negative = sums[:, :, 0], sums[:, :, 1]  # (R, B)
    until = np.cumsum(negative, 1)
    below = until[:, -1:] - until  # negatives in lower cells
    pairs = (positive * (below + won * negative)).sum(1)
    return share(pairs, positive.sum(1) * until[:, -1])
