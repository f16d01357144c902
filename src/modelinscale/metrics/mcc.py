"""Matthews correlation of decisions with the truth."""

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.task import TaskType
from modelinscale.metrics import Answers, Metric, Parts
from modelinscale.metrics._confusion import confusion, counts
from modelinscale.metrics._share import share


class Mcc(Metric):
    """Matthews correlation: 1 all right, 0 as good as guessing, below 0 worse; for any number of classes (Gorodkin 2004, R_K).

    0 when all decisions are one class; NaN when all truth is. Equals ``sklearn.metrics.matthews_corrcoef``.
    """

    tasks: ClassVar[frozenset[TaskType]] = frozenset({"binary", "multiclass"})
    better: ClassVar[Literal["higher", "lower"]] = "higher"
    sets_threshold: ClassVar[bool] = True

    def parts(self, answers: Answers) -> Parts:
        return Parts((answers.once(confusion),), _finish)


def _finish(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    found = counts(sums)
    n = found.total
    along = found.right.sum(1) * n - (found.called * found.there).sum(1)
    spread_called = n**2 - (found.called**2).sum(1)
    spread_there = n**2 - (found.there**2).sum(1)
    # A spread is a difference of large sums: below rounding it is zero (one class only).
    spread_called, spread_there = (np.where(s > 1e-12 * n**2, s, 0.0) for s in (spread_called, spread_there))
    return np.where(spread_there > 0, share(along, np.sqrt(spread_called * spread_there), otherwise=0.0), np.nan)
