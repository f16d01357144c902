"""The facts of an evaluation, put together."""

from collections.abc import Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from modelinscale.core.decision import Decision
from modelinscale.core.task import Task
from modelinscale.evaluate import Costs, Evaluate
from modelinscale.evaluate._apart import worse_than_valid
from modelinscale.evaluate._bootstrap import MIN_ROWS, Resamples, Sampled, wilson
from modelinscale.evaluate._conformal import facts as conformal_facts
from modelinscale.evaluate._facts import Bin, Conformal, Confusion, CostFacts, Estimate, Evaluation, Operating, Slice
from modelinscale.evaluate._several import labels_apart, level_bins
from modelinscale.evaluate._slices import Group, groups
from modelinscale.metrics import Answers, Metric
from modelinscale.metrics._means import mean_parts
from modelinscale.metrics.calibration_error import bins_of_equal_mass, stated_probability

if TYPE_CHECKING:
    import polars as pl

MAX_CLASSES_SHOWN = 100
N_BINS = 15
N_THRESHOLDS = 20
RESIDUAL_SHARES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


def evaluate(
    answers: Answers,
    task: Task,
    settings: Evaluate,
    metrics: tuple[Metric, ...],
    decision: Decision,
    constant: Sequence[float],
    baselines: dict[str, Answers],
    columns: "pl.DataFrame | None",
    costs: Costs | None,
    valid: Answers | None,
) -> Evaluation:
    """See `modelinscale.evaluate.evaluate`."""
    resamples = Resamples(len(answers), n_resamples=settings.n_bootstrap, seed=settings.seed)
    beside = {"constant": _constant(answers, constant), **baselines}
    own = {m.type: resamples.values(m, answers) for m in metrics}
    others = {name: {m.type: resamples.values(m, other) for m in metrics} for name, other in beside.items()}
    mirrored = {m.type: m.grows_with_noise for m in metrics}

    def estimates(sampled: dict[str, Sampled]) -> dict[str, Estimate]:
        return {name: s.estimate(settings.confidence, mirrored=mirrored[name]) for name, s in sampled.items()}

    binary, regression = task.type == "binary", task.numbers
    found = list(groups(settings.slices, columns, least=settings.slice_rows))
    apart = worse_than_valid(metrics[0], own[metrics[0].type], valid, n_resamples=settings.n_bootstrap, seed=settings.seed)
    conformal = None if valid is None else conformal_facts(answers, valid, task, settings, decision, found)
    return Evaluation(
        main=metrics[0].type,
        n_rows=len(answers),
        confidence=settings.confidence,
        metrics=estimates(own),
        baselines={name: estimates(sampled) for name, sampled in others.items()},
        differences={name: {m: (own[m] - s).estimate(settings.confidence) for m, s in sampled.items()} for name, sampled in others.items()},
        targets={name: estimates({m.type: resamples.values(m, one) for m in metrics}) for name, one in _each(answers, task)},
        slices=_slices(answers, settings, metrics[0], own[metrics[0].type].value, found),
        confusion=None if not task.one_class or len(task.labels) > MAX_CLASSES_SHOWN else _confusion(answers, task),
        reliability=_bins(answers, task, settings.confidence),
        threshold=decision.threshold if binary else None,
        thresholds=_thresholds(answers, costs) if binary else (),
        cost=_cost(answers, costs, resamples, settings.confidence) if binary and costs else None,
        residuals=_residuals(answers) if regression and not task.levels else {},
        conformal=conformal,
        notes=(*_notes(answers, task, metrics, own), *_uncovered(conformal), *apart, *_without(task, settings)),
    )


def _each(answers: Answers, task: Task) -> list[tuple[str, Answers]]:
    """Of several target columns of numbers each by itself."""
    if not (task.targets and task.numbers):
        return []
    return [(name, Answers(answers.truth[:, k], answers.decision[:, k], None, answers.weight)) for k, name in enumerate(task.targets)]


def _constant(answers: Answers, constant: Sequence[float]) -> Answers:
    """The same answer for every row: the most frequent class with the shares as probabilities, or the mean."""
    n = len(answers)
    if answers.truth.ndim == 2 and answers.probability is not None:
        likely = np.tile(np.asarray(constant, np.float64), (n, 1))
        return Answers(answers.truth, (likely > 0.5).astype(np.int64), likely, answers.weight)
    if answers.probability is None:
        mean = np.asarray(constant, np.float64)
        return Answers(answers.truth, np.tile(mean, (n, 1)) if len(mean) > 1 else np.full(n, mean[0]), None, answers.weight, answers.levels)
    shares = np.asarray(constant, np.float64)
    return Answers(answers.truth, np.full(n, shares.argmax(), np.int64), np.tile(shares, (n, 1)), answers.weight)


def _slices(answers: Answers, settings: Evaluate, main: Metric, overall: float, found: list[Group]) -> tuple[Slice, ...]:
    # As many chances to look bad as there are slices (Bonferroni): the promise of `confidence` holds for all together.
    limit = NormalDist().inv_cdf(1 - (1 - settings.confidence) / max(1, len(found)))
    sign = 1 if main.better == "lower" else -1

    def one(group: Group) -> tuple[float, Slice]:
        rows = answers.rows(group.rows)
        sampled = Resamples(len(rows), n_resamples=settings.n_bootstrap, seed=settings.seed).values(main, rows)
        estimate = sampled.estimate(settings.confidence, mirrored=main.grows_with_noise)
        # The slice is part of the whole, so their difference varies less than the slice alone.
        error = sampled.error * max(0.0, 1 - len(rows) / len(answers)) ** 0.5
        behind = sign * (sampled.value - overall)
        # A spread of exactly 0 (all rows alike) says that resamples cannot tell, not that all is certain.
        worse = bool(behind > limit * error > 0)
        return (behind if np.isfinite(behind) else -np.inf), Slice(column=group.column, value=group.value, n_rows=len(rows), main=estimate, worse=worse)

    return tuple(slice_ for _, slice_ in sorted((one(group) for group in found), key=lambda pair: (not pair[1].worse, -pair[0])))


def _confusion(answers: Answers, task: Task) -> Confusion:
    n = len(task.labels)
    counts = np.bincount(answers.truth.astype(np.int64) * n + answers.decision.astype(np.int64), minlength=n * n).reshape(n, n)
    return Confusion(labels=task.labels, counts=tuple(tuple(int(c) for c in row) for row in counts))


def _bins(answers: Answers, task: Task, confidence: float) -> tuple[Bin, ...]:
    if task.levels:
        return level_bins(answers, confidence)
    if task.type == "multilabel":
        return _reliability(labels_apart(answers), confidence)
    return () if task.several else _reliability(answers, confidence)


def _reliability(answers: Answers, confidence: float) -> tuple[Bin, ...]:
    weight = answers.weights
    if answers.probability is None:
        said, came = answers.decision.astype(np.float64), answers.truth.astype(np.float64)
    else:
        said, happened = stated_probability(answers)
        came = happened.astype(np.float64)
    bins = bins_of_equal_mass(said, weight, N_BINS)
    result = []
    for b in np.unique(bins[weight > 0]):
        rows = (bins == b) & (weight > 0)
        n, w = int(rows.sum()), weight[rows]
        average = float(np.average(came[rows], weights=w))
        if answers.probability is not None:
            # Unequal weights tell as much as this many equal ones (Kish 1965).
            low, high = wilson(average * (effective := float(w.sum() ** 2 / (w**2).sum())), effective, confidence)
        else:
            half = NormalDist().inv_cdf((1 + confidence) / 2) * float(came[rows].std()) / n**0.5
            low, high = average - half, average + half
        result.append(Bin(n_rows=n, said=float(np.average(said[rows], weights=w)), came=average, low=low, high=high))
    return tuple(result)


def _thresholds(answers: Answers, costs: Costs | None) -> tuple[Operating, ...]:
    """At thresholds that call about 0, 5, 10 … 100 % of the rows positive."""
    assert answers.probability is not None
    p, weight = answers.probability[:, 1], answers.weights
    order = np.argsort(-p, kind="stable")
    p, weight, positive = p[order], weight[order], answers.truth[order] == 1
    yes = np.ones(len(p)) if costs is None else costs.false_positive[order]
    no = np.ones(len(p)) if costs is None else costs.false_negative[order]
    last = np.flatnonzero(np.concatenate([p[1:] != p[:-1], [True]]))  # a threshold never parts equal probabilities
    called, found, wrong = (np.concatenate([[0.0], np.cumsum(x)[last]]) for x in (weight, weight * positive, weight * ~positive * yes))
    missed = (weight * positive * no).sum() - np.concatenate([[0.0], np.cumsum(weight * positive * no)[last]])
    between = -np.diff(np.concatenate([[1.0], p[last], [0.0]])) / 2 + np.concatenate([p[last], [0.0]])
    total, n_positive = called[-1], found[-1]
    if total == 0:
        return ()
    wanted = np.unique(np.searchsorted(called / total, np.linspace(0, 1, N_THRESHOLDS + 1) - 1e-12).clip(0, len(called) - 1))
    return tuple(
        Operating(
            threshold=float(between[k]),
            called=float(called[k] / total),
            precision=float(found[k] / called[k]) if called[k] > 0 else None,
            recall=float(found[k] / n_positive) if n_positive > 0 else None,
            cost=float((wrong[k] + missed[k]) / total),
        )
        for k in wanted[::-1]
    )


def _cost(answers: Answers, costs: Costs, resamples: Resamples, confidence: float) -> CostFacts:
    """The chosen decisions against the two that need no model, on the same resamples."""
    positive, called = answers.truth == 1, answers.decision == 1
    terms = [
        np.where(positive & ~called, costs.false_negative, 0.0) + np.where(~positive & called, costs.false_positive, 0.0),
        np.where(positive, costs.false_negative, 0.0),
        np.where(positive, 0.0, costs.false_positive),
    ]
    model, no, yes = (resamples.of(mean_parts(term, answers)) for term in terms)
    trivial = no if no.value <= yes.value else yes
    return CostFacts(
        model=model.estimate(confidence),
        always_no=no.value,
        always_yes=yes.value,
        saving=(trivial - model).estimate(confidence),
    )


def _residuals(answers: Answers) -> dict[str, float]:
    off = np.asarray(answers.truth - answers.decision, np.float64)  # of several numbers all together
    return {f"{share:g}": float(q) for share, q in zip(RESIDUAL_SHARES, np.quantile(off, RESIDUAL_SHARES), strict=True)}


def _uncovered(found: Conformal | None) -> list[str]:
    """A note when sets or intervals hold the truth less often than asked by more than chance explains."""
    if found is None or found.covered.high is None or found.covered.high >= found.coverage:
        return []
    what = "Intervals" if found.method in ("residual", "levels") else "Sets of classes"
    return [
        f"{what} made to hold the truth for {found.coverage:.0%} of the rows hold it for {found.covered.value:.1%} of the test rows: these differ from the"
        " validation rows by more than chance."
    ]


def _without(task: Task, settings: Evaluate) -> list[str]:
    """A note where intervals were asked for that are not made."""
    if task.type == "multilabel" and settings.coverage is not None:
        return ["Sets of classes are made where each row is of one class: there are none for several labels."]
    if task.width is None or settings.coverage is None:
        return []
    return [f"Intervals are made for one number: there are none for answers of {task.width} numbers."]


def _notes(answers: Answers, task: Task, metrics: tuple[Metric, ...], own: dict[str, Sampled]) -> tuple[str, ...]:
    notes = []
    n = len(answers)
    if n < MIN_ROWS:
        notes.append(f"Only {n} test row{'s' * (n != 1)}: too few for intervals.")
    if task.numbers:
        if (answers.truth == answers.truth[0]).all():
            notes.append("All test rows have the same target value.")
    elif task.type == "multilabel":
        absent = [str(task.labels[c]) for c in np.flatnonzero(answers.truth.sum(0) == 0)]
        if absent:
            notes.append(f"{len(absent)} of {len(task.labels)} labels do not occur in the test rows: {', '.join(absent[:5])}{', …' * (len(absent) > 5)}.")
    else:
        there = np.bincount(answers.truth.astype(np.int64), minlength=len(task.labels)) > 0
        if there.sum() == 1:
            notes.append(f"All test rows are of one class ({task.labels[int(there.argmax())]!r}).")
        elif not there.all():
            absent = [str(task.labels[c]) for c in np.flatnonzero(~there)]
            notes.append(f"{len(absent)} of {len(there)} classes do not occur in the test rows: {', '.join(absent[:5])}{', …' * (len(absent) > 5)}.")
    undefined = [m.type for m in metrics if not np.isfinite(own[m.type].value)]
    if undefined:
        notes.append(f"Not defined on these test rows: {', '.join(undefined)}.")
    unsure = [m.type for m in metrics if n >= MIN_ROWS and np.isfinite(own[m.type].value) and not own[m.type].tells]
    if unsure:
        notes.append(f"Too few rows of a class for an interval: {', '.join(unsure)}.")
    return tuple(notes)
