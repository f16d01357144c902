"""Points of the plots of an evaluation report. N rows, at most about `N_POINTS` points a curve."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.seeds import generator
from modelinscale.metrics import Answers

N_POINTS, N_DOTS, N_BARS = 200, 1500, 40
MOST_CURVES = 3
"""Classes of many that get a curve of their own: the commonest."""
Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Curves:
    """What an evaluation report draws beside the facts."""

    roc: dict[str, Points] = field(default_factory=dict)
    """By class: (share of the others called so, share of its own)."""
    precision: dict[str, Points] = field(default_factory=dict)
    """By class: (recall, precision)."""
    share: dict[str, float] = field(default_factory=dict)
    """By class: its share of the rows, the precision of calling everything so."""
    dots: Points = field(default_factory=list)
    """Numbers: (answer, truth) of some rows."""
    off: Points = field(default_factory=list)
    """Numbers: (answer, truth less answer) of the same."""
    residuals: tuple[list[int], float, float] = ((), 0.0, 0.0)  # type: ignore[assignment]
    """Numbers: counts of truth less answer on bars of one width, and where they begin and end: 99 % of the rows."""


def curves(answers: Answers, labels: Sequence[str]) -> Curves:
    """Of test rows; ``labels`` are the classes as text, none for numbers."""
    if answers.probability is None:
        return _numbers(answers)
    truth, p = answers.truth.astype(np.int64), answers.probability
    several = truth.ndim == 2
    counts = truth.sum(0) if several else np.bincount(truth, minlength=len(labels))
    shown = [1] if len(labels) == 2 and not several else [int(c) for c in np.argsort(-counts, kind="stable")[:MOST_CURVES]]
    found = Curves()
    for c in shown:
        if not 0 < counts[c] < len(truth):
            continue
        own = truth[:, c] == 1 if several else truth == c
        found.roc[labels[c]], found.precision[labels[c]] = _of_class(own, p[:, c], answers.weights)
        found.share[labels[c]] = float(answers.weights[own].sum() / answers.weights.sum())
    return found


def _of_class(own: NDArray[np.bool_], p: NDArray[np.float64], weight: NDArray[np.float64]) -> tuple[Points, Points]:
    order = np.argsort(-p, kind="stable")
    last = np.append(p[order][1:] != p[order][:-1], True)  # a threshold never parts equal probabilities
    right = np.cumsum((weight * own)[order])[last]
    wrong = np.cumsum((weight * ~own)[order])[last]
    few = np.unique(np.linspace(0, len(right) - 1, N_POINTS).astype(np.int64))
    recall, false = right / right[-1], wrong / wrong[-1]
    roc = [(0.0, 0.0), *((float(false[k]), float(recall[k])) for k in few)]
    kept = [k for k in few if right[k] + wrong[k] > 0]
    return roc, [(float(recall[k]), float(right[k] / (right[k] + wrong[k]))) for k in kept]


def _numbers(answers: Answers) -> Curves:
    middle = answers.decision[:, len(answers.levels) // 2] if answers.levels else answers.decision
    decision, truth = middle.ravel(), answers.truth.ravel()  # of several numbers all together
    some = np.sort(generator(7, "dots").permutation(len(truth))[:N_DOTS])
    off = np.asarray(truth - decision, np.float64)
    said, came = decision[some], truth[some]
    low, high = (float(q) for q in np.quantile(off, [0.005, 0.995]))
    bars = np.histogram(off, N_BARS, (low, high))[0].tolist() if low < high else []
    return Curves(
        dots=[(float(a), float(b)) for a, b in zip(said, came, strict=True)],
        off=[(float(a), float(b)) for a, b in zip(said, off[some], strict=True)],
        residuals=(bars, low, high),
    )
