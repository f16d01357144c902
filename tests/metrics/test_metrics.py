"""Every metric: the shared suite, and equality with scikit-learn."""

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

from modelinscale.core.errors import SpecError
from modelinscale.core.kinds import load, names
from modelinscale.core.task import TaskType
from modelinscale.evaluate._bootstrap import Resamples
from modelinscale.metrics import Answers, Metric
from modelinscale.metrics.calibration_error import CalibrationError
from modelinscale.testing import metrics as suite

Reference = Callable[[Answers], float]


def _ours() -> list[Metric]:
    return [Metric.parse(name) for name in names(Metric.folder)]


def _score(a: Answers) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    assert a.probability is not None
    return a.probability[:, 1] if a.n_classes == 2 else a.probability


def _on_decisions(function: Callable[..., float], **more: object) -> Reference:
    def reference(a: Answers) -> float:
        average = (
            {} if function in (sk.accuracy_score, sk.balanced_accuracy_score, sk.matthews_corrcoef) else {"average": "binary" if a.n_classes == 2 else "macro"}
        )
        return float(function(a.truth, a.decision, sample_weight=a.weight, **average, **more))

    return reference


def _on_numbers(function: Callable[..., float]) -> Reference:
    return lambda a: float(function(a.truth, a.decision, sample_weight=a.weight))


def _pr_auc(a: Answers) -> float:
    truth = a.truth if a.n_classes == 2 or a.truth.ndim == 2 else suite.one_hot(a.truth.astype(np.int64), a.n_classes)
    return float(sk.average_precision_score(truth, _score(a), average="macro", sample_weight=a.weight))


REFERENCES: dict[str, Reference] = {
    "roc_auc": lambda a: float(sk.roc_auc_score(a.truth, _score(a), multi_class="ovr", average="macro", sample_weight=a.weight)),
    "pr_auc": _pr_auc,
    "log_loss": lambda a: float(sk.log_loss(a.truth, a.probability, sample_weight=a.weight)),
    "brier": lambda a: float(sk.brier_score_loss(a.truth, _score(a), sample_weight=a.weight)),
    "accuracy": _on_decisions(sk.accuracy_score),
    "balanced_accuracy": _on_decisions(sk.balanced_accuracy_score),
    "f1": _on_decisions(sk.f1_score),
    "micro_f1": lambda a: float(sk.f1_score(a.truth, a.decision, average="micro", sample_weight=a.weight)),
    "hamming": _on_numbers(sk.hamming_loss),
    "pinball": lambda a: float(np.mean([sk.mean_pinball_loss(a.truth, a.decision[:, k], alpha=q, sample_weight=a.weight) for k, q in enumerate(a.levels)])),
    "precision": _on_decisions(sk.precision_score),
    "recall": _on_decisions(sk.recall_score),
    "mcc": _on_decisions(sk.matthews_corrcoef),
    "rmse": _on_numbers(sk.root_mean_squared_error),
    "mse": _on_numbers(sk.mean_squared_error),
    "mae": _on_numbers(sk.mean_absolute_error),
    "mape": _on_numbers(sk.mean_absolute_percentage_error),
    "r2": _on_numbers(sk.r2_score),
}


@pytest.mark.parametrize("metric", _ours(), ids=lambda m: m.type)
def test_every_metric_holds_the_contract(metric: Metric) -> None:
    suite.check(metric)


@pytest.mark.parametrize(("name", "task"), [(n, t) for n in names(Metric.folder) for t in sorted(load(Metric.folder, n).tasks) if n != "calibration_error"])  # type: ignore[attr-defined]
def test_every_metric_equals_the_public_reference(name: str, task: TaskType) -> None:
    suite.equals_reference(Metric.parse(name), REFERENCES[name], task)


@pytest.mark.parametrize(("binning", "strategy"), [("mass", "quantile"), ("width", "uniform")])
@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_calibration_error_is_the_weighted_sum_over_the_reference_curve(task: TaskType, binning: str, strategy: str) -> None:
    answers = suite.examples(task, n_rows=1500, seed=3)
    assert answers.probability is not None
    said = answers.probability[:, 1] if task == "binary" else answers.probability.max(1)
    came = answers.truth if task == "binary" else answers.probability.argmax(1) == answers.truth
    share_true, mean_said = calibration_curve(came, said, n_bins=15, strategy=strategy)
    if binning == "mass":
        sizes = np.full(15, 100)
    else:
        sizes = np.bincount(np.searchsorted(np.linspace(0, 1, 16)[1:-1], said), minlength=15)
        sizes = sizes[sizes > 0]
    expected = float((sizes * np.abs(share_true - mean_said)).sum() / 1500)
    found = CalibrationError.model_validate({"binning": binning}).value(answers)
    assert found == pytest.approx(expected, abs=1e-12)


def test_precision_and_f1_of_a_model_that_never_says_yes_are_zero_as_in_the_reference() -> None:
    truth = np.array([0, 1, 0, 1])
    answers = Answers(truth, np.zeros(4, np.int64), None)
    assert Metric.parse("precision").value(answers) == 0.0 == sk.precision_score(truth, answers.decision, zero_division=0)
    assert Metric.parse("f1").value(answers) == 0.0
    assert Metric.parse("mcc").value(answers) == 0.0 == sk.matthews_corrcoef(truth, answers.decision)


def test_macro_averages_leave_out_classes_that_neither_occur_nor_are_called() -> None:
    truth, decision = np.array([0, 1, 1, 3, 3]), np.array([0, 1, 3, 3, 4])
    probability = np.full((5, 6), 1 / 6)
    answers = Answers(truth, decision, probability)
    for name, function in (("f1", sk.f1_score), ("precision", sk.precision_score), ("recall", sk.recall_score)):
        assert Metric.parse(name).value(answers) == pytest.approx(function(truth, decision, average="macro", zero_division=0)), name


@pytest.mark.parametrize("name", ["roc_auc", "pr_auc", "recall", "mcc"])
def test_one_class_only_gives_nan_where_a_metric_is_not_defined(name: str) -> None:
    answers = suite.examples("binary")
    negatives = answers.rows(np.flatnonzero(answers.truth == 0))
    assert np.isnan(Metric.parse(name).value(negatives))


def test_a_rank_metric_of_rare_positives_stays_exact_above_the_number_of_cells() -> None:
    chance = np.random.default_rng(5)
    truth = np.zeros(20_000, np.int64)
    truth[:7] = 1
    score = chance.random(20_000) * 0.5 + truth * 0.3
    answers = Answers(truth, truth, np.stack([1 - score, score], axis=1))
    assert Metric.parse("roc_auc").value(answers) == pytest.approx(sk.roc_auc_score(truth, score), abs=1e-12)
    assert Metric.parse("pr_auc").value(answers) == pytest.approx(sk.average_precision_score(truth, score), abs=1e-12)


def test_log_loss_of_a_certain_and_wrong_answer_is_large_and_finite() -> None:
    answers = Answers(np.array([1, 0]), np.array([0, 0]), np.array([[1.0, 0.0], [1.0, 0.0]]))
    assert Metric.parse("log_loss").value(answers) == pytest.approx(sk.log_loss([1, 0], answers.probability))


def test_relative_error_is_not_defined_when_some_truth_is_zero() -> None:
    assert np.isnan(Metric.parse("mape").value(Answers(np.array([0.0, 1.0]), np.array([1.0, 1.0]), None)))


def test_an_unknown_metric_names_the_nearest_one() -> None:
    with pytest.raises(SpecError, match=r"unknown metric type 'roc_acu'\. Did you mean 'roc_auc'"):
        Metric.parse("roc_acu")


def test_a_metric_that_is_no_function_of_few_sums_can_read_the_weights() -> None:
    from modelinscale.evaluate._bootstrap import Resamples
    from modelinscale.metrics import Parts, Table

    class _Largest(Metric):  # the largest error of any row drawn
        tasks = frozenset({"regression"})
        better = "lower"

        def parts(self, answers: Answers) -> Parts:
            errors = np.abs(answers.truth - answers.decision)
            table = Table(np.arange(len(answers)), len(answers), answers.weights[:, None])
            return Parts((table,), lambda sums: np.where(sums[:, :, 0] > 0, errors, 0.0).max(1))

    answers = suite.examples("regression", n_rows=50)
    sampled = Resamples(50, n_resamples=100, seed=1).values(_Largest(), answers)
    assert sampled.value == np.abs(answers.truth - answers.decision).max()
    assert (sampled.resampled <= sampled.value).all()
    assert 0.3 < (sampled.resampled < sampled.value).mean() < 0.45  # 1/e of resamples lack a given row


@pytest.mark.parametrize(("name", "reference"), [("r2", sk.r2_score), ("rmse", sk.root_mean_squared_error)])
def test_of_many_numbers_it_is_their_mean_and_takes_little_memory_beside_them(name: str, reference: Callable[..., float]) -> None:
    chance = np.random.default_rng(4)
    truth = 1e6 + chance.normal(size=(4000, 48)) * np.geomspace(1e-2, 1e2, 48)
    weight = chance.integers(0, 3, 4000).astype(np.float64)
    answers, metric = Answers(truth, truth + chance.normal(size=truth.shape), None, weight), Metric.parse(name)
    tracemalloc.start()
    try:
        found, resampled = metric.value(answers), Resamples(4000, n_resamples=50, seed=1).values(metric, answers).value
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found == resampled == pytest.approx(reference(truth, answers.decision, sample_weight=weight), rel=1e-9)
    assert peak < truth.nbytes, f"{peak / truth.nbytes:.1f} times the truth"
