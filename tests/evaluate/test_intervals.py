"""Intervals from resamples: right, repeatable, and cheap."""

import time
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from modelinscale.core.decision import sigmoid
from modelinscale.evaluate._bootstrap import EXACT_ROWS, Resamples, wilson
from modelinscale.metrics import Answers, Metric

CLASSES = ("roc_auc", "pr_auc", "log_loss", "brier", "accuracy", "f1", "mcc")


def _binary(chance: np.random.Generator, n: int, shift: float = 0.0) -> Answers:
    logits = chance.normal(0, 1.5, n) + shift
    truth = (chance.random(n) < sigmoid(logits)).astype(np.int64)
    p = sigmoid(logits)
    return Answers(truth, (p > 0.5).astype(np.int64), np.stack([1 - p, p], axis=1))


def _numbers(chance: np.random.Generator, n: int) -> Answers:
    truth = chance.normal(2, 2, n)
    return Answers(truth, truth + chance.standard_t(6, n), None)


def test_a_resample_is_worth_what_its_rows_are_worth() -> None:
    answers = _binary(np.random.default_rng(0), 400)
    resamples = Resamples(400, n_resamples=20, seed=1)
    for name in CLASSES:
        metric = Metric.parse(name)
        found = resamples.values(metric, answers).resampled
        for r in range(20):
            rows = np.repeat(np.arange(400), resamples.counts[r].astype(np.int64))
            assert found[r] == pytest.approx(metric.value(answers.rows(rows)), abs=1e-9), name


@pytest.mark.parametrize("name", ["roc_auc", "pr_auc"])
@pytest.mark.parametrize("shift", [0.0, -4.0])
def test_cells_shared_by_scores_leave_a_resample_exact_to_a_small_part_of_its_noise(name: str, shift: float) -> None:
    answers = _binary(np.random.default_rng(0), 6000, shift)
    resamples = Resamples(6000, n_resamples=60, seed=1)
    metric = Metric.parse(name)
    sampled = resamples.values(metric, answers)
    exact = []
    for r in range(60):
        weight = resamples.counts[r][resamples.group]
        exact.append(metric.value(Answers(answers.truth, answers.decision, answers.probability, weight)))
    assert np.abs(sampled.resampled - exact).max() < 0.05 * sampled.error


@pytest.mark.parametrize("n_cells", [3, 50_000])
def test_all_ways_to_sum_give_the_same(n_cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from modelinscale.evaluate import _bootstrap
    from modelinscale.metrics import Table

    chance = np.random.default_rng(0)
    table = Table(chance.integers(0, n_cells, 3000), n_cells, chance.random((3000, 2)))
    resamples = Resamples(3000, n_resamples=7, seed=0)
    found = resamples.sums(table)
    monkeypatch.setattr(_bootstrap, "MAX_GROUP_CELLS", 0)
    np.testing.assert_allclose(found, Resamples(3000, n_resamples=7, seed=0).sums(table), atol=1e-9)
    np.testing.assert_allclose(found.sum((1, 2)), (resamples.counts[:, resamples.group] * sum(table.each())).sum(1))


def test_every_resample_has_about_as_many_rows_as_there_are() -> None:
    for n in (1, 10, EXACT_ROWS, EXACT_ROWS + 1, 12_345):
        resamples = Resamples(n, n_resamples=50, seed=3)
        sizes = resamples.counts[:, resamples.group].sum(1)
        assert np.abs(sizes - n).max() <= 0.02 * n, n
        assert len(np.unique(resamples.group)) == resamples.counts.shape[1]


def test_the_same_seed_gives_the_same_interval_and_another_seed_another() -> None:
    answers = _binary(np.random.default_rng(0), 3000)
    a, b, c = (Resamples(3000, n_resamples=100, seed=s).values(Metric.parse("roc_auc"), answers).estimate(0.95) for s in (1, 1, 2))
    assert a == b
    assert a != c
    assert a.value == c.value


def test_undefined_values_and_few_rows_have_no_interval() -> None:
    answers = _binary(np.random.default_rng(0), 400)
    negatives = answers.rows(np.flatnonzero(answers.truth == 0))
    sampled = Resamples(len(negatives), n_resamples=100, seed=1).values(Metric.parse("roc_auc"), negatives)
    assert sampled.estimate(0.95).plain() == {"value": None, "low": None, "high": None}
    few = answers.rows(np.arange(9))
    sampled = Resamples(9, n_resamples=100, seed=1).values(Metric.parse("log_loss"), few)
    assert sampled.estimate(0.95).low is None
    assert sampled.estimate(0.95).value is not None


def test_one_positive_row_gives_a_value_but_no_interval() -> None:
    answers = _binary(np.random.default_rng(0), 400)
    one = np.concatenate([np.flatnonzero(answers.truth == 0), np.flatnonzero(answers.truth == 1)[:1]])
    estimate = Resamples(len(one), n_resamples=200, seed=1).values(Metric.parse("roc_auc"), answers.rows(one)).estimate(0.95)
    assert estimate.value is not None
    assert estimate.low is None


def test_the_interval_of_a_share_is_that_of_the_reference() -> None:
    from scipy.stats import binomtest

    for successes, n in ((0, 10), (3, 10), (10, 10), (450, 1000)):
        reference = binomtest(successes, n).proportion_ci(0.9, method="wilson")
        assert wilson(successes, n, 0.9) == pytest.approx((reference.low, reference.high), abs=1e-12)


def test_seven_metrics_on_sixteen_thousand_rows_cost_little() -> None:
    answers = _binary(np.random.default_rng(0), 16_000)
    start = time.process_time()
    resamples = Resamples(16_000, n_resamples=200, seed=1)
    for name in CLASSES:
        resamples.values(Metric.parse(name), answers)
    assert time.process_time() - start < 0.5  # measured 0.03 s; the limit leaves room for a busy machine


# -- coverage: how often the interval holds the value of a very large sample. 200 trials leave ±3 % (two standard errors) to chance.


def _covers(make: Callable[[np.random.Generator, int], Answers], metric: Metric, n: int, *, trials: int, n_resamples: int = 200) -> tuple[float, float]:
    """Share of 95 % intervals that hold the truth, and the mean width over that of plain resamples (1.96 standard deviations of the value either side)."""
    truth = metric.value(make(np.random.default_rng(10**6), 500_000))
    held, widths, values = [], [], []
    for trial in range(trials):
        answers = make(np.random.default_rng(trial), n)
        found = Resamples(n, n_resamples=n_resamples, seed=trial).values(metric, answers).estimate(0.95, mirrored=metric.grows_with_noise)
        assert found.low is not None
        assert found.high is not None
        assert found.value is not None
        held.append(found.low <= truth <= found.high)
        widths.append(found.high - found.low)
        values.append(found.value)
    return float(np.mean(held)), float(np.mean(widths) / (2 * 1.96 * np.std(values)))


@pytest.mark.slow
@pytest.mark.parametrize("n", [300, 2500])
@pytest.mark.parametrize("name", CLASSES)
def test_intervals_of_class_metrics_cover_as_promised(name: str, n: int) -> None:
    share, width = _covers(_binary, Metric.parse(name), n, trials=200)
    assert 0.88 <= share <= 0.99, (name, n, share)
    assert 0.85 <= width <= 1.15, (name, n, width)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["roc_auc", "pr_auc"])
def test_intervals_of_rare_positives_cover_nearly_as_promised(name: str) -> None:
    def rare(chance: np.random.Generator, n: int) -> Answers:
        return _binary(chance, n, -5.0)

    share, _ = _covers(rare, Metric.parse(name), 5000, trials=200)  # about 90 positives
    assert 0.89 <= share <= 0.98, (name, share)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rmse", "mae", "r2"])
def test_intervals_of_number_metrics_cover_as_promised(name: str) -> None:
    share, width = _covers(_numbers, Metric.parse(name), 1500, trials=200)
    assert 0.88 <= share <= 0.99, (name, share)
    assert 0.85 <= width <= 1.15, (name, width)


@pytest.mark.slow
@pytest.mark.parametrize("bend", [1.0, 2.0])
def test_the_mirrored_interval_of_a_calibration_error_covers_at_least_as_promised(bend: float) -> None:
    def bent(chance: np.random.Generator, n: int) -> Answers:
        honest = _binary(chance, n)
        assert honest.probability is not None
        p: NDArray[np.float64] = honest.probability[:, 1]
        p = p**bend / (p**bend + (1 - p) ** bend)
        return Answers(honest.truth, honest.decision, np.stack([1 - p, p], axis=1))

    share, _ = _covers(bent, Metric.parse("calibration_error"), 1000, trials=200)
    assert share >= 0.9, share
