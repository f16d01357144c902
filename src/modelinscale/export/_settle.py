"""A decision moved by a hair where validation rows lie on its border, so that rounding cannot flip them.

Training code and graph agree to about seven digits, so a row whose probability lies within the seventh digit of the threshold (or whose two most
likely classes are that close) could be decided either way. The border is moved to where no validation row is, if there is such a place near.
"""

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.decision import Decision
from modelinscale.core.seeds import generator
from modelinscale.core.task import Task

_STEPS = (1e-6, 3e-6, 1e-5, 3e-5, 1e-4)
"""How far class logits may be moved, at most; a probability moves by a quarter of it."""
_FARTHEST = 1e-3
"""How far a threshold may be moved, at most."""
_HALVINGS = 12
"""How often the margin is halved where no gap so near is wide enough: down to about a two-thousandth of it."""


def settled(decision: Decision, scores: NDArray[np.float64], task: Task, margin: float) -> Decision:
    """The decision, or one close to it with no row within ``margin`` of the border; where that cannot be had, as far from all rows as is found.

    A threshold moves by at most 0.001, class logits by at most 0.0001: only rows that near to the border are decided otherwise.
    ``scores`` (N,) or (N, C) are those of the validation rows.
    """
    if task.numbers or not len(scores):
        return decision
    if task.type == "binary":
        return _threshold_settled(decision, decision.probability(scores, task)[:, 1], margin)
    if task.type == "multilabel":
        return _each_settled(decision, decision.probability(scores, task), margin)
    if margin_of(decision.probability(scores, task), task, decision).min() >= margin:
        return decision
    shift = np.array(decision.shift or (0.0,) * len(task.labels))
    direction = generator(0, "settle").uniform(-1, 1, len(shift))
    best, widest = decision, 0.0
    for step in _STEPS:
        moved = decision.but(shift=tuple((shift + step * direction).tolist()))
        found = float(margin_of(moved.probability(scores, task), task, moved).min())
        if found >= margin:
            return moved
        if found > widest:
            best, widest = moved, found
    return best


def margin_of(probability: NDArray[np.float64], task: Task, decision: Decision) -> NDArray[np.float64]:
    """(N,): how far each row is from being decided otherwise, as a difference of probabilities; of several labels the least."""
    if task.type == "binary":
        return np.asarray(np.abs(probability[:, 1] - decision.threshold))
    if task.type == "multilabel":
        return np.asarray(margins_of(probability, decision).min(1))
    top = np.partition(probability, -2, axis=1)
    return np.asarray(top[:, -1] - top[:, -2])


def margins_of(probability: NDArray[np.float64], decision: Decision) -> NDArray[np.float64]:
    """(N, C): how far each label of each row is from its threshold."""
    return np.asarray(np.abs(probability - np.asarray(decision.thresholds or decision.threshold)))


def _each_settled(decision: Decision, probability: NDArray[np.float64], margin: float) -> Decision:
    """Each label's threshold by itself."""
    old = decision.thresholds or (decision.threshold,) * probability.shape[1]
    return decision.but(thresholds=tuple(_threshold_settled(Decision(threshold=t), probability[:, k], margin).threshold for k, t in enumerate(old)))


def _threshold_settled(decision: Decision, probability: NDArray[np.float64], margin: float) -> Decision:
    threshold = decision.threshold
    present = float(np.abs(probability - threshold).min())
    if present >= margin:
        return decision
    low, high = max(threshold - _FARTHEST, 0.0), min(threshold + _FARTHEST, 1.0)
    levels = np.unique(np.concatenate([[0.0], probability, [1.0]]))
    levels = levels[max(np.searchsorted(levels, low) - 1, 0) : np.searchsorted(levels, high) + 1]
    # With each margin the place nearest to the old threshold that keeps clear of both ends of its gap; half the margin where there is none so near.
    for clear in margin * 0.5 ** np.arange(_HALVINGS):
        if clear <= present:
            break
        wide = np.flatnonzero(np.diff(levels) >= 2.5 * clear)
        places = np.clip(threshold, levels[wide] + clear, levels[wide + 1] - clear)
        places = places[(places >= low) & (places <= high)]
        if len(places):
            return decision.but(threshold=float(places[np.abs(places - threshold).argmin()]))
    return decision
