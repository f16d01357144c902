"""Decisions of tasks whose answers hold several things: a calibration and a threshold for each label, a shift for each level of quantiles.

N rows, C labels, Q levels.

Source of the shifts: Romano, Patterson, Candès, Conformalized Quantile Regression, 2019, each side by itself (its theorem 2).
"""

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.decision import Decision
from modelinscale.core.task import Task
from modelinscale.evaluate import Evaluate, _calibrate, _threshold
from modelinscale.evaluate._bootstrap import wilson
from modelinscale.evaluate._facts import Bin
from modelinscale.metrics import Answers, Metric

MIN_ROWS = 20
"""With fewer validation rows levels stay as they are; with fewer rows that have a label, or lack it, the label does."""
_PLAIN = 0.5


def fit_labels(scores: NDArray[np.float64], truth: NDArray[np.int64], weight: NDArray[np.float64], task: Task, settings: Evaluate) -> Decision:
    """Each label by itself: its logits divided and shifted (Platt), then the threshold of the best F1, or the one that was asked for."""
    temperatures, shifts, thresholds = [], [], []
    main = settings.main if settings.main is not None and settings.main.sets_threshold else Metric.parse("f1")
    n_plain = 0
    for k in range(len(task.labels)):
        one = Task(type="binary", target=task.target, labels=("no", "yes"))
        own, n_yes = truth[:, k], int(truth[:, k].sum())
        enough = min(n_yes, len(own) - n_yes) >= MIN_ROWS and weight.sum() > 0
        n_plain += not enough
        asked = "temperature" if enough and settings.calibrate != "none" else "none"
        found = _calibrate.fit(scores[:, k], own, weight, one, settings.but(calibrate=asked), None)
        chosen = settings.but(main=main, metrics=(), cost=None, threshold=settings.threshold if settings.threshold is not None or enough else _PLAIN)
        decided = _threshold.choose(found, scores[:, k], own, weight, one, chosen, None)
        temperatures.append(decided.temperature)
        shifts.append(decided.shift[0] if decided.shift else 0.0)
        thresholds.append(decided.threshold)
    said = "labels as the model gives them" if settings.calibrate == "none" else "each label calibrated by itself"
    why = f"{said}; its threshold " + ("as asked" if settings.threshold is not None else f"gives the highest {main.type} on validation rows")
    few = f"; {n_plain} of {len(task.labels)} labels stay as they are and have the threshold 0.5: fewer than {MIN_ROWS} validation rows with or without them"
    return Decision(
        calibration="none" if settings.calibrate == "none" else "temperature",
        temperatures=tuple(temperatures),
        shift=tuple(shifts),
        thresholds=tuple(thresholds),
        because=why + (few if n_plain else ""),
    )


def fit_levels(scores: NDArray[np.float64], truth: NDArray[np.float64], task: Task, settings: Evaluate) -> Decision:
    """Each level moved so that as many validation rows stay below it as it says, a further row counted against it: if new rows come as these came, they stay
    below an upper level at least as often, and below one under 0.5 at most as often (as far as so few rows can say), so that what lies between holds."""
    low, high = settings.clip or (None, None)
    if settings.calibrate == "none" or len(truth) < MIN_ROWS:
        why = "levels as the model gives them" if settings.calibrate == "none" else f"levels as the model gives them: {len(truth)} validation rows are too few"
        return Decision(low=low, high=high, because=why)
    off = np.sort(truth[:, None] - np.sort(scores, axis=1), axis=0)  # (N, Q)
    n = len(truth)
    ranks = [np.ceil((n + 1) * q - 1e-9) if q >= 0.5 else np.floor((n + 1) * q + 1e-9) for q in task.levels]
    places = [min(n - 1, max(0, int(rank) - 1)) for rank in ranks]
    shift = tuple(float(off[place, k]) for k, place in enumerate(places))
    return Decision(calibration="conformal", shift=shift, low=low, high=high, because=f"each level moved on {n:,} validation rows")


def level_bins(answers: Answers, confidence: float) -> tuple[Bin, ...]:
    """For each level how often the truth stayed at or below it."""
    result = []
    for k, level in enumerate(answers.levels):
        below = (answers.truth <= answers.decision[:, k]).astype(np.float64)
        came = float(np.average(below, weights=answers.weights))
        low, high = wilson(came * len(below), len(below), confidence)
        result.append(Bin(n_rows=len(below), said=level, came=came, low=low, high=high))
    return tuple(result)


def labels_apart(answers: Answers) -> Answers:
    """A row for each row and label: whether it has it, and how probable that was said to be."""
    assert answers.probability is not None
    p, weight = answers.probability.ravel(), np.repeat(answers.weights, answers.probability.shape[1])
    return Answers(answers.truth.ravel(), answers.decision.ravel(), np.stack([1 - p, p], axis=1), weight)
