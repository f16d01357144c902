"""Pinball loss: how far quantiles are from the truth, each side weighted by the level."""

from typing import ClassVar, Literal

import numpy as np

from modelinscale.core.task import TaskType
from modelinscale.metrics import Answers, Metric, Parts
from modelinscale.metrics._means import mean_parts


class Pinball(Metric):
    """Quantiles: q times the distance where the truth is above the level q, 1 - q times where it is below; the mean over levels, in the target's unit.

    Least in expectation at the true quantiles. Equals the mean of ``sklearn.metrics.mean_pinball_loss`` over the levels.
    """

    tasks: ClassVar[frozenset[TaskType]] = frozenset({"quantiles"})
    better: ClassVar[Literal["higher", "lower"]] = "lower"

    def parts(self, answers: Answers) -> Parts:
        level, off = np.asarray(answers.levels), answers.truth[:, None] - answers.decision  # (N, Q)
        return mean_parts(np.maximum(level * off, (level - 1) * off), answers)
