"""The proper loss families are compared by."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.task import Task
from modelinscale.models import Scores


def loss(scores: Scores, target: NDArray[Any], weight: NDArray[np.float64] | None, task: Task) -> float:
    """Weighted mean log loss of logits; for numbers the mean squared error divided by the target's variance (1: no better than the mean), of several the
    mean over them; of labels the mean over these; of quantiles the pinball loss divided by that of the target's own.

    >>> loss(np.zeros(2), np.array([0, 1]), None, Task(type="binary", target="y", labels=("no", "yes")))
    0.6931471805599453
    """
    if task.levels:
        return _pinball(np.sort(scores, axis=1), target, weight, task.levels) / _pinball(
            np.tile(np.quantile(target, task.levels, weights=weight, method="inverted_cdf"), (len(target), 1)), target, weight, task.levels, 1e-300
        )
    share = np.full(len(target), 1.0 / len(target)) if weight is None else weight / weight.sum()
    if task.type == "regression":
        mean = share @ target
        variance = np.asarray(share @ (target - mean) ** 2)
        return float(np.mean((share @ (scores - target) ** 2) / np.where(variance > 0, variance, 1.0)))
    if task.type == "multilabel":
        return float((share @ np.logaddexp(0.0, np.where(target == 1, -scores, scores))).mean())
    if task.type == "binary":
        return float(share @ np.logaddexp(0.0, np.where(target == 1, -scores, scores)))
    highest = scores.max(axis=1)
    total = np.log(np.exp(scores - highest[:, None]).sum(axis=1)) + highest
    return float(share @ (total - scores[np.arange(len(target)), target]))


def _pinball(answer: NDArray[np.float64], target: NDArray[Any], weight: NDArray[np.float64] | None, levels: tuple[float, ...], least: float = 0.0) -> float:
    """Weighted mean over rows and levels."""
    off, level = target[:, None] - answer, np.asarray(levels)
    return max(least, float(np.average(np.maximum(level * off, (level - 1) * off).mean(1), weights=weight)))
