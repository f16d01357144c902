"""Sums over examples, block by block: the same bits whether rows are in memory or on disk. C classes."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.task import Task
from modelinscale.models import Examples

Middle = Any
"""Of a number to predict a float, of several (W,)."""


def centre_and_spread(train: Examples, task: Task) -> tuple[Middle, Middle]:
    """Weighted mean and deviation (1 where there is none) of a number to predict, of several each by itself; 0 and 1 for classes."""
    if not task.numbers:
        return 0.0, 1.0
    total: Any = 0.0
    plain: Any = 0.0
    weight = 0.0
    for block in train.blocks():
        plain += block.target.sum(0)
        total += block.target.sum(0) if block.weight is None else block.weight @ block.target
        weight += len(block) if block.weight is None else float(block.weight.sum())
    mean = plain / len(train)
    spread = np.sqrt(sum(((block.target - mean) ** 2).sum(0) for block in train.blocks()) / len(train))
    if task.width is None:
        return float(total / weight), float(spread) or 1.0
    return total / weight, np.where(spread > 0, spread, 1.0)


def said(middle: Middle) -> Any:
    """The same as JSON has it."""
    return np.asarray(middle).tolist()


def class_weights(train: Examples, task: Task) -> NDArray[np.float64]:
    """(C,): the weight of each class."""
    total = np.zeros(len(task.labels))
    for block in train.blocks():
        if task.type == "multilabel":
            total += block.target.sum(0) if block.weight is None else block.weight @ block.target
            continue
        total += np.bincount(block.target.astype(np.int64, copy=False), block.weight, len(task.labels))
    return total


def base_scores(train: Examples, task: Task) -> NDArray[np.float64]:
    """(C,) logits that say how common each class is; (1,) for two classes."""
    if task.type == "multilabel":
        rows = sum(float(len(block) if block.weight is None else block.weight.sum()) for block in train.blocks())
        likely = (class_weights(train, task) + 0.5) / (rows + 1)
        return np.asarray(np.log(likely / (1 - likely)), np.float64)
    share = class_weights(train, task) + 0.5
    logs: NDArray[np.float64] = np.log(share / share.sum())
    return logs if task.type == "multiclass" else logs[1:] - logs[:1]


def mean_weight(examples: Examples) -> float:
    """1 where rows have no weights."""
    sums = [float(block.weight.sum()) for block in examples.blocks() if block.weight is not None]
    return max(sum(sums) / max(1, len(examples)), 1e-300) if sums else 1.0


def n_with(train: Examples, feature: str, width: int) -> NDArray[Any]:
    """(width,): rows that have each word of a sparse block."""
    total = np.zeros(width, np.int64)
    for block in train.blocks():
        total += np.bincount(block.rows[feature].columns, minlength=width)  # type: ignore[union-attr]
    return total
