"""Log loss."""

from typing import ClassVar, Literal

import numpy as np

from modelinscale.core.task import TaskType
from modelinscale.metrics import Answers, Metric, Parts
from modelinscale.metrics._means import mean_parts


class LogLoss(Metric):
    """Mean of -log(probability given to the true class), in nats; a probability of 0 counts as 2.2e-16.

    Equals ``sklearn.metrics.log_loss``.
    """

    tasks: ClassVar[frozenset[TaskType]] = frozenset({"binary", "multiclass"})
    better: ClassVar[Literal["higher", "lower"]] = "lower"

    def parts(self, answers: Answers) -> Parts:
        assert answers.probability is not None, "log loss needs probabilities"
        given = answers.probability[np.arange(len(answers)), answers.truth.astype(np.int64)]
        tiny = np.finfo(np.float64).eps
        return mean_parts(-np.log(np.clip(given, tiny, 1 - tiny)), answers)
