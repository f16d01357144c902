"""What every metric must do: order of rows does not matter, a weight is a repetition, better answers are better, resamples agree."""

import warnings
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.task import LEVELS, TaskType
from modelinscale.metrics import Answers, Metric


def check(metric: Metric) -> None:
    """Everything below that needs no reference implementation."""
    for demand in (order_does_not_matter, a_weight_is_a_repetition, resamples_agree, better_is_better, oddities_are_quiet, settings_survive):
        demand(metric)


def examples(task: TaskType, *, n_rows: int = 300, seed: int = 0, ties: bool = False, weighted: bool = False) -> Answers:
    """Answers that are right more often than not. ``ties``: probabilities and numbers take few values."""
    chance = np.random.default_rng(seed)
    weight = chance.integers(0, 4, n_rows).astype(np.float64) if weighted else None
    if task == "multilabel":
        z = chance.normal(0.0, 1.5, (n_rows, 4))
        likely = 1 / (1 + np.exp(-(z.round() if ties else z)))
        flags = (chance.random((n_rows, 4)) < likely).astype(np.int64)
        flags[0], flags[1] = 1, 0  # each label occurs, and lacks
        return Answers(flags, (likely > 0.4).astype(np.int64), likely, weight)
    if task == "quantiles":
        truth = chance.normal(3.0, 2.0, n_rows)
        answers = np.sort(truth[:, None] + chance.normal(0.0, 1.0, (n_rows, 1)) + [-1.6, 0.0, 1.6], axis=1)
        return Answers(truth.round() if ties else truth, answers.round() if ties else answers, None, weight, LEVELS)
    if task == "regression":
        truth = chance.normal(3.0, 2.0, n_rows)
        answer = truth + chance.normal(0.0, 1.0, n_rows)
        if ties:
            truth, answer = truth.round(), answer.round() + 0.25
            truth[truth == 0] = 1.0
        return Answers(truth, answer, None, weight)
    n_classes = 2 if task == "binary" else 4
    z = chance.normal(0.0, 1.5, (n_rows, n_classes))
    if ties:
        z = z.round()
    probability = np.exp(z)
    probability /= probability.sum(1, keepdims=True)
    classes = (probability.cumsum(1) > chance.random((n_rows, 1))).argmax(1)
    classes[:n_classes] = np.arange(n_classes)  # each class occurs
    decision = (probability[:, 1] > 0.4).astype(np.int64) if task == "binary" else probability.argmax(1)
    return Answers(classes, decision, probability, weight)


def order_does_not_matter(metric: Metric) -> None:
    """Shuffled rows give the same value."""
    for task in sorted(metric.tasks):
        for ties in (False, True):
            answers = examples(task, ties=ties, weighted=True)
            shuffled = answers.rows(np.random.default_rng(1).permutation(len(answers)))
            _same(metric.value(answers), metric.value(shuffled), f"{metric.type}, {task}: the order of rows changes the value")


def a_weight_is_a_repetition(metric: Metric) -> None:
    """A row of weight 3 counts as three rows, one of weight 0 as none; a common factor changes nothing."""
    for task in sorted(metric.tasks):
        for ties in (False, True):
            answers = examples(task, ties=ties, weighted=True)
            assert answers.weight is not None
            repeated = answers.rows(np.repeat(np.arange(len(answers)), answers.weight.astype(np.int64)))
            each_once, scaled = replace(repeated, weight=None), replace(answers, weight=answers.weight * 0.37)
            _same(metric.value(answers), metric.value(each_once), f"{metric.type}, {task}: a weight is not a repetition")
            _same(metric.value(answers), metric.value(scaled), f"{metric.type}, {task}: a common factor of all weights changes the value")


def resamples_agree(metric: Metric) -> None:
    """The finishing step, given the sums of several resamples at once, says what `value` says of each one's rows."""
    chance = np.random.default_rng(2)
    for task in sorted(metric.tasks):
        answers = examples(task)
        draws = [chance.integers(0, len(answers), len(answers)) for _ in range(5)]
        parts = metric.parts(answers)
        sums = []
        for table in parts.tables:
            cells = np.zeros(len(answers), np.int64) if table.cells is None else table.cells
            each = [[np.bincount(cells[draw], term[draw], table.n_cells) for term in table.each()] for draw in draws]
            sums.append(np.moveaxis(np.asarray(each, np.float64), 1, 2))  # (R, B, K)
        together = parts.finish(*sums)
        assert together.shape == (len(draws),), f"{metric.type}, {task}: finish gives {together.shape} for {len(draws)} resamples"
        if metric.grows_with_noise:
            continue  # its cells are drawn from the rows at hand, so other rows have other cells
        for value, draw in zip(together, draws, strict=True):
            _same(float(value), metric.value(answers.rows(draw)), f"{metric.type}, {task}: a resample's value differs from that of its rows")


def better_is_better(metric: Metric) -> None:
    """Perfect answers beat good ones, and those beat the worst, in the direction `better` says."""
    sign = 1 if metric.better == "higher" else -1
    for task in sorted(metric.tasks):
        good = examples(task)
        if task == "quantiles":
            truth = np.asarray(good.truth, np.float64)
            perfect = replace(good, decision=np.tile(truth[:, None], (1, len(LEVELS))))
            worst = replace(perfect, decision=np.asarray(perfect.decision + 10 * np.sign(truth - truth.mean())[:, None], np.float64))
        elif task == "multilabel":
            perfect = replace(good, decision=good.truth, probability=good.truth.astype(np.float64))
            worst = replace(good, decision=1 - good.truth, probability=np.asarray(1.0 - good.truth, np.float64))
        elif good.probability is None:
            perfect = Answers(good.truth, good.truth, None)
            worst = Answers(good.truth, good.truth + 10 * np.sign(good.truth - good.truth.mean()), None)
        else:
            n_classes = good.n_classes
            certain = np.eye(n_classes)
            off = (good.truth + 1) % n_classes
            perfect = Answers(good.truth, good.truth, certain[good.truth.astype(np.int64)])
            worst = Answers(good.truth, off, certain[off.astype(np.int64)])
        values = [metric.value(a) * sign for a in (perfect, good, worst)]
        assert values[0] > values[1] > values[2], f"{metric.type}, {task}: perfect, good and worst answers give {[v * sign for v in values]}"


def oddities_are_quiet(metric: Metric) -> None:
    """No rows: NaN. One row, one class, one value, no weight at all: a number or NaN, never a warning or an error."""
    for task in sorted(metric.tasks):
        answers = examples(task)
        one_class = answers.rows(np.flatnonzero((answers.truth == answers.truth[0]).reshape(len(answers), -1).all(1)))
        odd = {
            "one row": answers.rows(np.array([0])),
            "one class or value": one_class,
            "no weight": replace(answers, weight=np.zeros(len(answers))),
            "one answer": answers.rows(np.zeros(20, np.int64)),
        }
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert np.isnan(metric.value(answers.rows(np.array([], np.int64)))), f"{metric.type}, {task}: no rows must give NaN"
            for name, some in odd.items():
                value = metric.value(some)
                assert not np.isinf(value), f"{metric.type}, {task}: {name} gives {value}"


def settings_survive(metric: Metric) -> None:
    """Settings written as plain data and read again are equal."""
    assert Metric.parse(metric.plain()) == metric, f"{metric.type}: settings change when written and read again"


def equals_reference(metric: Metric, reference: "Callable[[Answers], float]", task: TaskType) -> None:
    """The public implementation says the same: with and without ties and weights, on few rows and on more than a rank table has cells."""
    for n_rows in (40, 300, 5000):
        for ties in (False, True):
            for weighted in (False, True):
                answers = examples(task, n_rows=n_rows, seed=n_rows, ties=ties, weighted=weighted)
                where = f"{metric.type}, {task}, {n_rows} rows{', ties' * ties}{', weights' * weighted}"
                _same(metric.value(answers), reference(answers), f"{where}: another value than the reference")


def one_hot(truth: NDArray[np.int64], n_classes: int) -> NDArray[np.int64]:
    """(N, C): 1 where the row is of the class; for references that want it."""
    return np.eye(n_classes, dtype=np.int64)[truth]


def _same(a: float, b: float, message: str) -> None:
    assert (np.isnan(a) and np.isnan(b)) or abs(a - b) <= 1e-9 * max(1.0, abs(a)), f"{message}: {a!r} and {b!r}"
