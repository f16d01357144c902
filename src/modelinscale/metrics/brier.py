"""Brier score."""

from typing import ClassVar, Literal

import numpy as np

from modelinscale.core.task import TaskType
from modelinscale.metrics import Answers, Metric, Parts
from modelinscale.metrics._means import mean_parts


class Brier(Metric):
    """Mean squared distance between probability and truth. Two classes: of the positive one, 0 to 1; more: summed over classes, 0 to 2.

    Equals ``sklearn.metrics.brier_score_loss``. Source: Brier 1950.
    """

    tasks: ClassVar[frozenset[TaskType]] = frozenset({"binary", "multiclass"})
    better: ClassVar[Literal["higher", "lower"]] = "lower"

    def parts(self, answers: Answers) -> Parts:
        assert answers.probability is not None, "the Brier score needs probabilities"
        if answers.n_classes == 2:
            return mean_parts((answers.probability[:, 1] - answers.truth) ** 2, answers)
        given = answers.probability[np.arange(len(answers)), answers.truth.astype(np.int64)]
        return mean_parts(np.einsum("nc,nc->n", answers.probability, answers.probability) - 2 * given + 1, answers)
