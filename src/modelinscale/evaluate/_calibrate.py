"""From scores to honest probabilities, fitted on validation rows; the kind chosen by rows left out.

N rows, C classes.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from modelinscale.core import seeds
from modelinscale.core.decision import MAX_STEEPNESS, Decision, sigmoid, softmax
from modelinscale.core.task import Task
from modelinscale.evaluate import Evaluate

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

N_FOLDS = 5
MIN_ROWS, MIN_OF_CLASS = 100, 20
"""Below, two numbers cannot be told from chance: scores stay as they are."""
MIN_ROWS_ISOTONIC, MIN_OF_CLASS_ISOTONIC = 1000, 100
CHOICE_ROWS = 20_000
"""More rows than these are not needed to see which kind is better; the chosen one is then fitted on all."""
MAX_CLASSES_SHIFTED = 200
"""With more classes only the temperature is fitted: a shift for each would need more rows than there are, and C² memory."""
MAX_BLOCKS = 1000
PRIOR_ROWS = 2.0
"""How many rows' worth of the plain sigmoid each step of an isotonic map is drawn towards: no step says 0 or 1."""


def fit(scores: Floats, truth: Ints, weight: Floats, task: Task, settings: Evaluate, class_weight: Sequence[float] | None) -> Decision:
    """The calibration the settings ask for, or the best; says why in ``because``."""
    n_classes = len(task.labels)
    start = _undone(class_weight, task)
    n_each = np.bincount(truth[weight > 0], minlength=n_classes)
    if settings.calibrate == "none":
        return Decision(because="probabilities as the model gives them")
    n_there = int((n_each > 0).sum())
    if n_there < 2:
        return Decision(shift=start, because=f"not calibrated: the validation rows hold {n_there} of {n_classes} classes")
    if len(truth) == 0 or weight.sum() == 0:
        return Decision(shift=start, because="not calibrated: no validation rows")
    weight = weight * (len(weight) / weight.sum())
    if settings.calibrate != "auto":
        return _fitted(settings.calibrate, scores, truth, weight, task, start).but(because=f"{settings.calibrate}, as asked")
    return _best(scores, truth, weight, task, settings, start, n_each)


def _undone(class_weight: Sequence[float] | None, task: Task) -> tuple[float, ...]:
    """The shift that takes class weights out of logits again: training with weight w multiplies a class's odds by w."""
    if class_weight is None:
        return ()
    logs = -np.log(np.asarray(class_weight, np.float64))
    if np.ptp(logs) == 0:
        return ()
    return (float(logs[1] - logs[0]),) if task.type == "binary" else tuple(float(x) for x in logs - logs.mean())


def _best(scores: Floats, truth: Ints, weight: Floats, task: Task, settings: Evaluate, start: tuple[float, ...], n_each: Ints) -> Decision:
    """The simplest kind that no more elaborate one beats by more than a standard error, on rows left out."""
    n, least = len(truth), int(n_each[n_each > 0].min())
    enough = n >= max(MIN_ROWS, 5 * len(task.labels)) and (least >= MIN_OF_CLASS or task.type == "multiclass")
    kinds = ["none", *(["temperature"] if enough else [])]
    if enough and task.type == "binary" and n >= MIN_ROWS_ISOTONIC and least >= MIN_OF_CLASS_ISOTONIC:
        kinds.append("isotonic")
    if len(kinds) == 1:
        return Decision(shift=start, because=f"not calibrated: too few validation rows to tell ({n:,}, {least:,} of the rarest class)")
    mixed = seeds.generator(settings.seed, "calibrate").permutation(n)
    if n > CHOICE_ROWS:
        some = mixed[:CHOICE_ROWS]
        chosen = _chosen(kinds, scores[some], truth[some], weight[some], task, start, np.arange(CHOICE_ROWS) % N_FOLDS)
    else:
        chosen = _chosen(kinds, scores, truth, weight, task, start, mixed % N_FOLDS)
    return _fitted(chosen.kind, scores, truth, weight, task, start).but(
        because=f"calibration {chosen.kind}: log loss on validation rows left out: {chosen.words}"
    )


class _Choice(NamedTuple):
    kind: str
    words: str


def _chosen(kinds: list[str], scores: Floats, truth: Ints, weight: Floats, task: Task, start: tuple[float, ...], fold: Ints) -> _Choice:
    n = len(truth)
    losses = {kind: np.empty(n) for kind in kinds}
    for f in range(N_FOLDS):
        learn, left_out = fold != f, fold == f
        for kind in kinds:
            fitted = _fitted(kind, scores[learn], truth[learn], weight[learn], task, start)
            losses[kind][left_out] = _loss(fitted, scores[left_out], truth[left_out], task)
    chosen = kinds[0]
    for kind in kinds[1:]:
        gain = (losses[chosen] - losses[kind]) * weight
        if gain.sum() > gain.std() * n**0.5:
            chosen = kind
    means = ", ".join(f"{kind} {np.average(losses[kind], weights=weight):.4f}" for kind in kinds)
    return _Choice(chosen, means)


def _loss(decision: Decision, scores: Floats, truth: Ints, task: Task) -> Floats:
    """(N,) log loss of each row, from logits: exact however sure the model is."""
    z = decision.logits(scores, task)
    if task.type == "binary":
        return np.logaddexp(0.0, np.where(truth == 1, -z, z))
    highest = z.max(1)
    return np.asarray(highest + np.log(np.exp(z - highest[:, None]).sum(1)) - z[np.arange(len(z)), truth])


def _fitted(kind: str, scores: Floats, truth: Ints, weight: Floats, task: Task, start: tuple[float, ...]) -> Decision:
    if kind == "none":
        return Decision(shift=start)
    if task.type == "multiclass":
        return _multiclass(scores, truth, weight, start)
    plain = _binary(scores, truth, weight, start[0] if start else 0.0)
    return _isotonic(plain, scores, truth, weight, task) if kind == "isotonic" else plain


# -- temperature and shift, by Newton's method on the log loss plus a prior worth about one row that says "leave it as it is"

SLOPES = (0.02, 50.0)
"""Smallest and largest slope (1 / temperature): a model whose scores say nothing, or are far too timid."""


def _binary(scores: Floats, truth: Ints, weight: Floats, start: float) -> Decision:
    y = truth.astype(np.float64)

    def loss(x: Floats) -> float:
        z = x[0] * scores + x[1]
        return float((weight * (np.logaddexp(0.0, z) - y * z)).sum() + 0.5 * ((x[0] - 1) ** 2 + (x[1] - start) ** 2))

    def slopes(x: Floats) -> tuple[Floats, Floats]:
        p = sigmoid(x[0] * scores + x[1])
        off, bend = weight * (p - y), weight * p * (1 - p)
        gradient = np.array([(off * scores).sum() + x[0] - 1, off.sum() + x[1] - start])
        cross = (bend * scores).sum()
        return gradient, np.array([[(bend * scores**2).sum() + 1, cross], [cross, bend.sum() + 1]])

    slope, shift = _newton(np.array([1.0, start]), loss, slopes)
    return Decision(calibration="temperature", temperature=float(1 / slope), shift=(float(shift),))


def _multiclass(scores: Floats, truth: Ints, weight: Floats, start: tuple[float, ...]) -> Decision:
    n, n_classes = scores.shape
    b0 = np.asarray(start) if start else np.zeros(n_classes)
    shifted = n_classes <= MAX_CLASSES_SHIFTED
    rows = np.arange(n)

    def loss(x: Floats) -> float:
        z = x[0] * scores + (x[1:] if shifted else b0)
        highest = z.max(1)
        each = highest + np.log(np.exp(z - highest[:, None]).sum(1)) - z[rows, truth]
        return float((weight * each).sum() + 0.5 * ((x[0] - 1) ** 2 + (((x[1:] - b0) ** 2).sum() if shifted else 0.0)))

    def slopes(x: Floats) -> tuple[Floats, Floats]:
        p = softmax(x[0] * scores + (x[1:] if shifted else b0))  # (N, C)
        mean = (p * scores).sum(1)
        by_slope = np.array([(weight * (mean - scores[rows, truth])).sum() + x[0] - 1])
        bend = np.array([[(weight * ((p * scores**2).sum(1) - mean**2)).sum() + 1]])
        if not shifted:
            return by_slope, bend
        wp = p * weight[:, None]
        by_shift = wp.sum(0) - np.bincount(truth, weight, n_classes) + x[1:] - b0
        cross = (wp * (scores - mean[:, None])).sum(0)
        square = np.diag(wp.sum(0) + 1) - wp.T @ p
        return np.concatenate([by_slope, by_shift]), np.block([[bend, cross[None]], [cross[:, None], square]])

    x = _newton(np.concatenate([[1.0], b0]) if shifted else np.array([1.0]), loss, slopes)
    shift = x[1:] - x[1:].mean() if shifted else b0
    return Decision(calibration="temperature", temperature=float(1 / x[0]), shift=tuple(float(s) for s in shift))


def _newton(x: Floats, loss: Callable[[Floats], float], slopes: Callable[[Floats], tuple[Floats, Floats]], *, n_steps: int = 50) -> Floats:
    """The minimum of a convex function; the first coordinate, a slope, is held inside `SLOPES`."""
    now = loss(x)
    for _ in range(n_steps):
        gradient, bend = slopes(x)
        free = np.ones(len(x), bool)
        if (x[0] <= SLOPES[0] and gradient[0] > 0) or (x[0] >= SLOPES[1] and gradient[0] < 0):
            free[0] = False  # at its limit, and wanting beyond it
        step = np.zeros(len(x))
        step[free] = np.linalg.solve(bend[np.ix_(free, free)], gradient[free])
        length = 1.0
        while True:
            tried = x - length * step
            tried[0] = np.clip(tried[0], *SLOPES)
            then = loss(tried)
            if then <= now or length < 1e-6:
                break
            length /= 2
        if then > now:
            return x
        gained, x, now = now - then, tried, then
        if gained <= 1e-10 * (1 + abs(now)):
            return x
    return x


# -- isotonic


def _isotonic(plain: Decision, scores: Floats, truth: Ints, weight: Floats, task: Task) -> Decision:
    """A rising piecewise linear map of the logit on top of ``plain``: pooled neighbours (Ayer et al. 1955) joined through their centres."""
    z = plain.logits(scores, task)
    z, y, p, w = _few(z, truth.astype(np.float64), sigmoid(z), weight)
    at, came, mass, prior = _pooled(z, y, w, p)
    came = (came * mass + PRIOR_ROWS * prior) / (mass + PRIOR_ROWS)
    at, came, mass, _ = _pooled(at, came, mass, prior)  # the prior may have put neighbours out of order
    levels = np.log(came) - np.log1p(-came)
    while len(at) > 1:
        steep = np.diff(levels) / np.diff(at)
        worst = int(steep.argmax())
        if steep[worst] <= MAX_STEEPNESS:
            break
        both = slice(worst, worst + 2)
        share = mass[both] / mass[both].sum()
        at[worst], levels[worst], mass[worst] = share @ at[both], share @ levels[both], mass[both].sum()
        at, levels, mass = (np.delete(x, worst + 1) for x in (at, levels, mass))
    if len(at) < 2:
        return plain
    return plain.but(calibration="isotonic", knots=tuple(map(float, at)), levels=tuple(map(float, levels)))


def _few(z: Floats, y: Floats, p: Floats, w: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Rows by rising logit, equal ones as one, at most about `MAX_BLOCKS` of them: means, and weight."""
    order = np.argsort(z)
    z, y, p, w = z[order], y[order], p[order], w[order]
    z, y, p, w = z[w > 0], y[w > 0], p[w > 0], w[w > 0]
    new = np.concatenate([[True], z[1:] != z[:-1]])
    if new.sum() > MAX_BLOCKS:
        piece = (np.cumsum(w) / w.sum() * MAX_BLOCKS * (1 - 1e-12)).astype(np.int64)
        firsts = np.where(new, np.arange(len(z)), 0)
        np.maximum.accumulate(firsts, out=firsts)
        piece = piece[firsts]  # equal logits stay together
        new = np.concatenate([[True], piece[1:] != piece[:-1]])
    starts = np.flatnonzero(new)
    mass = np.add.reduceat(w, starts)
    return (*(np.add.reduceat(x * w, starts) / mass for x in (z, y, p)), mass)  # type: ignore[return-value]


def _pooled(x: Floats, y: Floats, w: Floats, p: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Neighbours out of order put together until ``y`` rises strictly: means of x, y, sums of w, means of p."""
    blocks: list[list[float]] = []  # x, y, w, p
    for one in zip(x.tolist(), y.tolist(), w.tolist(), p.tolist(), strict=True):
        new = [one[0], one[1], one[2], one[3]]
        while blocks and blocks[-1][1] >= new[1]:
            last = blocks.pop()
            total = last[2] + new[2]
            new = [*((last[i] * last[2] + new[i] * new[2]) / total for i in (0, 1)), total, (last[3] * last[2] + new[3] * new[2]) / total]
        blocks.append(new)
    a = np.asarray(blocks)
    return a[:, 0].copy(), a[:, 1].copy(), a[:, 2].copy(), a[:, 3].copy()
