"""Sets of classes and intervals of numbers that hold the truth as often as asked, and what leaving out unsure rows saves.

Split conformal prediction: how unlike the answer the truth was on the validation rows says how wide sets and intervals have to be. Rows count alike, whatever
their weight. Sources: Vovk, Gammerman, Shafer, Algorithmic Learning in a Random World, 2005 (and by class: Vovk 2012); Sadinle, Lei, Wasserman, Least
Ambiguous Set-Valued Classifiers, 2019 (lac); Romano, Sesia, Candès, Classification with Valid and Adaptive Coverage, 2020 (aps); Angelopoulos, Bates,
Malik, Jordan, Uncertainty Sets for Image Classifiers, 2021 (raps).

N rows, C classes, G groups.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.decision import Decision
from modelinscale.core.seeds import generator
from modelinscale.core.task import Task
from modelinscale.evaluate import Evaluate
from modelinscale.evaluate._bootstrap import wilson
from modelinscale.evaluate._facts import Abstention, Conformal, Covered, Estimate
from modelinscale.evaluate._slices import Group
from modelinscale.metrics import Answers

MIN_ROWS = 20
"""With fewer validation rows nothing is said."""
N_RANGES = 5
"""Of answers, each with a width of its own, where numbers are covered group by group."""
RAPS_PENALTY, RAPS_FREE = 0.05, 2
"""What each class after the first two costs a set: enough to keep out the long tail of hardly likely classes."""
N_POINTS = 21


@dataclass(frozen=True)
class Rule:
    """How far the truth may be from the answer, by group."""

    method: Literal["lac", "aps", "raps", "residual"]
    limits: NDArray[np.float64]
    """(G,); infinity where a group has too few rows to say."""
    edges: NDArray[np.float64]
    """(G - 1,) where one group of answers ends and the next begins; numbers only."""
    by_class: bool
    seed: int

    def sets(self, answers: Answers) -> NDArray[np.bool_]:
        """(N, C): which classes are in the set of each row; the likeliest one always is."""
        assert answers.probability is not None
        found = scores(answers.probability, self.method, self.seed) <= self.limits
        found[np.arange(len(answers)), answers.probability.argmax(1)] = True
        return found

    def half(self, answers: Answers) -> NDArray[np.float64]:
        """(N,): the interval reaches as far to either side of the answer."""
        return np.asarray(self.limits[np.searchsorted(self.edges, answers.decision, side="right")])


def fit(valid: Answers, settings: Evaluate) -> Rule | None:
    """The rule that these rows, which the model did not learn from, ask for; None where they are too few."""
    if len(valid) < MIN_ROWS or settings.coverage is None:
        return None
    level, by_class = settings.coverage, settings.coverage_by_class
    if valid.probability is None:
        off = np.abs(valid.truth - valid.decision)
        cuts = np.quantile(valid.decision, np.arange(1, N_RANGES) / N_RANGES) if by_class else np.empty(0)
        edges = np.unique(cuts)
        group = np.searchsorted(edges, valid.decision, side="right")
        limits = np.array([quantile(off[group == g], level) for g in range(len(edges) + 1)])
        return Rule("residual", limits, edges, by_class, settings.seed)
    C = valid.probability.shape[1]
    method = settings.sets if settings.sets != "auto" else "lac" if C == 2 else "aps"
    own = scores(valid.probability, method, settings.seed)[np.arange(len(valid)), valid.truth.astype(np.int64)]
    limits = np.array([quantile(own[valid.truth == c], level) for c in range(C)]) if by_class else np.full(C, quantile(own, level))
    return Rule(method, limits, np.empty(0), by_class, settings.seed)


def quantile(values: NDArray[np.float64], level: float) -> float:
    """The smallest limit that holds a further value of the same kind with this probability, at least; infinity where there are too few values.

    >>> quantile(np.arange(1.0, 10.0), 0.9), quantile(np.arange(1.0, 9.0), 0.9)
    (9.0, inf)
    """
    place = int(np.ceil((len(values) + 1) * level - 1e-9))
    return float(np.sort(values)[place - 1]) if place <= len(values) else float("inf")


def scores(probability: NDArray[np.float64], method: str, seed: int) -> NDArray[np.float64]:
    """(N, C): how unlikely each class is, given the probabilities of all. For aps and raps a part, by chance, of the class's own counts: without it sets
    would hold more than was asked. The same rows in the same order get the same chance."""
    if method == "lac":
        return 1 - probability
    order = np.argsort(-probability, axis=1, kind="stable")
    ranked = np.take_along_axis(probability, order, axis=1)
    chance = generator(seed, "conformal").random(len(probability))
    total = ranked.cumsum(1) - ranked * chance[:, None]
    if method == "raps":
        total = total + RAPS_PENALTY * np.maximum(0, np.arange(1, ranked.shape[1] + 1) - RAPS_FREE)
    found = np.empty_like(total)
    np.put_along_axis(found, order, total, axis=1)
    return found


def facts(answers: Answers, valid: Answers, task: Task, settings: Evaluate, decision: Decision, groups: list[Group]) -> Conformal | None:
    """What the rule of the validation rows does on the test rows."""
    if task.levels:
        return _between(answers, len(valid), task, settings, groups)
    rule = fit(valid, settings) if not task.several else None
    if rule is None or settings.coverage is None:
        return None
    labels = task.labels
    if answers.probability is None:
        half = rule.half(answers)
        covered, size = np.abs(answers.truth - answers.decision) <= half, 2 * half
    else:
        sets = rule.sets(answers)
        covered, size = sets[np.arange(len(answers)), answers.truth.astype(np.int64)], sets.sum(1).astype(np.float64)
    parts = [(str(g.column), g.value, g.rows) for g in groups]
    parts += [
        (task.target, str(label).lower() if isinstance(label, bool) else str(label), np.flatnonzero(answers.truth == c)) for c, label in enumerate(labels)
    ]
    counts = np.bincount(size.astype(np.int64), minlength=len(labels) + 1) if labels else np.empty(0, np.int64)
    single = size == 1
    wrong = answers.truth != answers.decision
    return Conformal(
        method=rule.method,
        by_class=rule.by_class,
        coverage=settings.coverage,
        n_valid=len(valid),
        limits=tuple(float(x) if np.isfinite(x) else None for x in (rule.limits if rule.by_class else rule.limits[:1])),
        edges=tuple(map(float, rule.edges)),
        covered=_share(covered, settings.confidence),
        mean_size=float(size.mean()) if np.isfinite(size).all() else None,
        sizes=tuple(int(n) for n in counts),
        single_error=float(wrong[single].mean()) if labels and single.any() else None,
        slices=tuple(_part(column, value, covered[rows], size[rows], settings.coverage, settings.confidence) for column, value, rows in parts if len(rows)),
        abstention=_abstention(answers, valid, decision, task) if labels else None,
    )


def _between(answers: Answers, n_valid: int, task: Task, settings: Evaluate, groups: list[Group]) -> Conformal | None:
    """How often the truth lies between the lowest and the highest quantile."""
    low, high = np.asarray(answers.decision[:, 0], np.float64), np.asarray(answers.decision[:, -1], np.float64)
    covered, size = (low <= answers.truth) & (answers.truth <= high), high - low
    if len(task.levels) < 2:
        return None
    asked = task.levels[-1] - task.levels[0]
    return Conformal(
        method="levels",
        by_class=False,
        coverage=asked,
        n_valid=n_valid,
        limits=(),
        covered=_share(covered, settings.confidence),
        mean_size=float(size.mean()),
        slices=tuple(_part(str(g.column), g.value, covered[g.rows], size[g.rows], asked, settings.confidence) for g in groups if len(g.rows)),
    )


def _share(covered: NDArray[np.bool_], confidence: float) -> Estimate:
    low, high = wilson(float(covered.sum()), len(covered), confidence)
    return Estimate(value=float(covered.mean()), low=low, high=high)


def _part(column: str, value: str, covered: NDArray[np.bool_], size: NDArray[np.float64], asked: float | None, confidence: float) -> Covered:
    share = _share(covered, confidence)
    mean = float(size.mean()) if np.isfinite(size).all() else None
    short = share.high is not None and asked is not None and share.high < asked
    return Covered(column=column, value=value, n_rows=len(covered), covered=share, mean_size=mean, short=short)


def sureness(answers: Answers, decision: Decision, task: Task) -> NDArray[np.float64]:
    """(N,): how far each decision is from another one: of two classes the logits between probability and threshold, of more the largest probability."""
    p = answers.probability
    assert p is not None
    if task.type != "binary":
        return np.asarray(p.max(1))
    few = 1e-12
    logit, border = (np.log(np.clip(x, few, 1 - few)) - np.log1p(-np.clip(x, few, 1 - few)) for x in (p[:, 1], decision.threshold))
    return np.asarray(np.abs(logit - border))


def _abstention(answers: Answers, valid: Answers, decision: Decision, task: Task) -> Abstention | None:
    """The border of sureness is found on the validation rows, and what it brings is counted on the test rows."""
    sure, wrong = sureness(answers, decision, task), answers.truth != answers.decision
    shares = np.linspace(0, 1, N_POINTS)[:-1]
    order = np.argsort(-sure, kind="stable")
    error = np.cumsum(wrong[order]) / np.arange(1, len(order) + 1)
    points = tuple((float(a), float(error[max(0, round((1 - a) * len(order)) - 1)])) for a in shares)
    border = _border(sureness(valid, decision, task), valid.truth != valid.decision)
    left = None if border is None else sure >= border
    return Abstention(
        error=float(wrong.mean()),
        points=points,
        sureness=border,
        share=None if left is None else float(1 - left.mean()),
        error_left=None if left is None or not left.any() else float(wrong[left].mean()),
    )


def _border(sure: NDArray[np.float64], wrong: NDArray[np.bool_]) -> float | None:
    """The lowest border above which no more than half the errors' share is left; None where there is none."""
    if not wrong.any():
        return None
    order = np.argsort(-sure, kind="stable")
    error = np.cumsum(wrong[order]) / np.arange(1, len(order) + 1)
    last = np.append(sure[order][1:] != sure[order][:-1], True)  # equally sure rows stay or go together
    good = np.flatnonzero((error <= wrong.mean() / 2) & last)
    return float(sure[order][good[-1]]) if len(good) else None
