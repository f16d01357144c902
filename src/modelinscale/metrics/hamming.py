"""Share of wrong flags among all labels of all rows."""

from typing import ClassVar, Literal

import numpy as np

from modelinscale.core.task import TaskType
from modelinscale.metrics import Answers, Metric, Parts
from modelinscale.metrics._means import mean_parts


class Hamming(Metric):
    """Several labels: of all pairs of a row and a label, the share that is decided wrongly. Equals ``sklearn.metrics.hamming_loss``."""

    tasks: ClassVar[frozenset[TaskType]] = frozenset({"multilabel"})
    better: ClassVar[Literal["higher", "lower"]] = "lower"

    def parts(self, answers: Answers) -> Parts:
        return mean_parts((answers.truth != answers.decision).astype(np.float64), answers)
