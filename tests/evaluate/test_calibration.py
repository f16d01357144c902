"""Calibration and threshold, fitted on validation rows."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import f1_score, log_loss, roc_auc_score

from modelinscale.core.decision import MAX_STEEPNESS, Decision, sigmoid, softmax
from modelinscale.core.errors import SpecError
from modelinscale.core.task import Task
from modelinscale.evaluate import Cost, Costs, Evaluate, check, fit_decision
from modelinscale.metrics.f1 import F1

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

BINARY = Task(type="binary", target="y", labels=(0, 1))
MANY = Task(type="multiclass", target="y", labels=("a", "b", "c", "d"))
NUMBER = Task(type="regression", target="y")


def _binary(n: int, seed: int = 0, shift: float = 0.0) -> tuple[Floats, Ints]:
    """True logits and classes."""
    chance = np.random.default_rng(seed)
    logits = chance.normal(0, 2, n) + shift
    return logits, (chance.random(n) < sigmoid(logits)).astype(np.int64)


def _many(n: int, seed: int = 0) -> tuple[Floats, Ints]:
    chance = np.random.default_rng(seed)
    logits = chance.normal(0, 2, (n, 4))
    return logits, (softmax(logits).cumsum(1) > chance.random((n, 1))).argmax(1)


def test_honest_scores_are_left_alone() -> None:
    logits, truth = _binary(5000)
    decision = fit_decision(logits, truth, BINARY, Evaluate())
    assert decision.calibration == "none"
    assert decision.shift == ()
    assert decision.because.startswith("calibration none: log loss on validation rows left out: none ")


def test_scores_that_are_too_sure_get_a_temperature() -> None:
    logits, truth = _binary(5000)
    decision = fit_decision(3 * logits + 1, truth, BINARY, Evaluate())
    assert decision.calibration == "temperature"
    assert decision.temperature == pytest.approx(3, rel=0.1)
    assert decision.shift[0] == pytest.approx(-1 / 3, abs=0.1)


def test_temperature_for_two_classes_is_logistic_regression_on_the_score() -> None:
    from sklearn.linear_model import LogisticRegression

    logits, truth = _binary(2000, seed=4)
    scores = 2 * logits - 0.5
    weight = np.random.default_rng(0).integers(0, 3, 2000).astype(np.float64)
    decision = fit_decision(scores, truth, BINARY, Evaluate(calibrate="temperature"), weight=weight)
    reference = LogisticRegression(C=1e6, tol=1e-10, max_iter=1000).fit(scores[:, None], truth, sample_weight=weight)
    assert 1 / decision.temperature == pytest.approx(reference.coef_[0, 0], rel=5e-3)
    assert decision.shift[0] == pytest.approx(reference.intercept_[0], abs=1e-2)


def test_many_classes_get_a_temperature_and_a_shift_each() -> None:
    logits, truth = _many(8000)
    bent = 0.4 * logits + np.array([1.0, 0.0, 0.0, -1.0])
    decision = fit_decision(bent, truth, MANY, Evaluate())
    assert decision.calibration == "temperature"
    assert decision.temperature == pytest.approx(0.4, rel=0.06)
    np.testing.assert_allclose(decision.probability(bent, MANY), softmax(logits), atol=0.06)


@pytest.mark.parametrize("class_weight", [(1.0, 20.0), (0.3, 6.0)])
def test_class_weights_in_training_are_taken_out_again_even_with_few_validation_rows(class_weight: tuple[float, float]) -> None:
    logits, truth = _binary(60, shift=-2)
    scores = logits + np.log(20.0)  # what training with such weights gives
    decision = fit_decision(scores, truth, BINARY, Evaluate(), class_weight=class_weight)
    assert decision.calibration == "none"
    assert "too few validation rows" in decision.because
    np.testing.assert_allclose(decision.probability(scores, BINARY)[:, 1], sigmoid(logits), atol=1e-12)


def test_class_weights_of_many_classes_are_taken_out_again() -> None:
    logits, truth = _many(5000)
    class_weight = (1.0, 5.0, 0.5, 2.0)
    scores = logits + np.log(class_weight)
    decision = fit_decision(scores, truth, MANY, Evaluate(), class_weight=class_weight)
    np.testing.assert_allclose(decision.probability(scores, MANY), softmax(logits), atol=0.03)


def test_weighted_rows_count_as_repeated_ones() -> None:
    logits, truth = _binary(1500, seed=9)
    weight = np.random.default_rng(1).integers(1, 4, 1500)
    a = fit_decision(logits * 2, truth, BINARY, Evaluate(calibrate="temperature"), weight=weight.astype(np.float64))
    b = fit_decision(np.repeat(logits * 2, weight), np.repeat(truth, weight), BINARY, Evaluate(calibrate="temperature"))
    assert a.temperature == pytest.approx(b.temperature, rel=2e-3)
    assert a.shift[0] == pytest.approx(b.shift[0], abs=2e-3)


def _bent(n: int, seed: int = 0) -> tuple[Floats, Ints]:
    """Scores whose relation to the truth no sigmoid describes."""
    logits, truth = _binary(n, seed)
    return np.where(logits > 0, 0.5 * logits, 2 * logits), truth


def test_scores_bent_out_of_shape_get_an_isotonic_map() -> None:
    scores, truth = _bent(20_000)
    decision = fit_decision(scores, truth, BINARY, Evaluate())
    assert decision.calibration == "isotonic"
    fresh, answer = _bent(20_000, seed=1)
    best = log_loss(answer, sigmoid(np.where(fresh > 0, 2 * fresh, fresh / 2)))
    ours = log_loss(answer, decision.probability(fresh, BINARY))
    plain = log_loss(answer, fit_decision(scores, truth, BINARY, Evaluate(calibrate="temperature")).probability(fresh, BINARY))
    assert ours < best + 0.3 * (plain - best)


def test_an_isotonic_map_is_as_good_as_the_reference_and_keeps_the_ranking() -> None:
    from sklearn.isotonic import IsotonicRegression

    scores, truth = _bent(5000)
    fresh, answer = _bent(20_000, seed=1)
    decision = fit_decision(scores, truth, BINARY, Evaluate(calibrate="isotonic"))
    p = decision.probability(fresh, BINARY)[:, 1]
    reference = IsotonicRegression(y_min=1e-3, y_max=1 - 1e-3, out_of_bounds="clip").fit(scores, truth).predict(fresh)
    assert log_loss(answer, p) <= log_loss(answer, reference) + 1e-3
    assert roc_auc_score(answer, p) == roc_auc_score(answer, fresh)
    assert p.min() > 0
    assert p.max() < 1


@pytest.mark.parametrize("seed", range(5))
def test_an_isotonic_map_is_never_steep(seed: int) -> None:
    chance = np.random.default_rng(seed)
    scores = chance.choice([chance.normal(0, 1, 400), chance.normal(0, 1, 400).round(1)])
    truth = (scores + chance.normal(0, 0.02, 400) > 0.3).astype(np.int64)  # a cliff
    decision = fit_decision(scores, truth, BINARY, Evaluate(calibrate="isotonic"))
    if decision.knots:
        assert (np.diff(decision.levels) <= np.diff(decision.knots) * MAX_STEEPNESS * (1 + 1e-9)).all()
    moved = np.abs(decision.probability(scores, BINARY) - decision.probability(scores + 1e-6, BINARY)).max()
    assert moved <= 1.001e-6 / min(1.0, decision.temperature)


@pytest.mark.parametrize("calibrate", ["auto", "temperature", "isotonic"])
@pytest.mark.parametrize(
    ("scores", "truth"),
    [
        (np.linspace(-1, 1, 200), (np.linspace(-1, 1, 200) > 0).astype(np.int64)),  # parted without error
        (np.linspace(1, -1, 200), (np.linspace(-1, 1, 200) > 0).astype(np.int64)),  # upside down
        (np.zeros(200), np.arange(200) % 2),  # scores that say nothing
        (np.array([1e6, -1e6] * 100), np.arange(200) % 2),  # enormous scores
        (np.array([1.0, 2.0]), np.array([0, 1])),
        (np.array([5.0]), np.array([1])),
        (np.array([]), np.array([], np.int64)),
        (np.linspace(-1, 1, 30), np.ones(30, np.int64)),
    ],
)
def test_odd_validation_rows_still_give_a_decision(calibrate: str, scores: Floats, truth: Ints) -> None:
    decision = fit_decision(scores, truth, BINARY, Evaluate.model_validate({"calibrate": calibrate}))
    probability = decision.probability(np.linspace(-3, 3, 11), BINARY)
    assert np.isfinite(probability).all()
    assert decision.because


def test_few_rows_of_many_classes_still_give_a_decision() -> None:
    logits, truth = _many(7)
    assert fit_decision(logits, truth, MANY, Evaluate()).calibration == "none"
    assert np.isfinite(fit_decision(logits, truth, MANY, Evaluate(calibrate="temperature")).probability(logits, MANY)).all()


def test_a_class_absent_from_validation_keeps_a_probability() -> None:
    logits, truth = _many(3000)
    kept = truth != 3
    decision = fit_decision(logits[kept] * 2, truth[kept], MANY, Evaluate(calibrate="temperature"))
    assert (decision.probability(logits, MANY)[:, 3] > 0).all()


def test_more_classes_than_can_be_shifted_get_a_temperature_alone() -> None:
    chance = np.random.default_rng(0)
    logits = chance.normal(0, 2, (600, 300))
    truth = (softmax(logits).cumsum(1) > chance.random((600, 1))).argmax(1)
    task = Task(type="multiclass", target="y", labels=tuple(range(300)))
    decision = fit_decision(logits * 3, truth, task, Evaluate(calibrate="temperature"))
    assert decision.temperature == pytest.approx(3, rel=0.15)
    assert set(decision.shift) <= {0.0}


# -- thresholds


def test_costs_of_ten_to_one_put_the_threshold_near_one_eleventh() -> None:
    logits, truth = _binary(20_000)
    settings = Evaluate(cost=Cost(false_positive=1, false_negative=10))
    decision = fit_decision(logits, truth, BINARY, settings, costs=Costs(np.ones(20_000), np.full(20_000, 10.0)))
    assert decision.threshold == pytest.approx(1 / 11, abs=0.03)
    assert "least cost" in decision.because


def test_without_costs_the_threshold_of_honest_scores_is_one_half() -> None:
    logits, truth = _binary(2000)
    assert fit_decision(logits, truth, BINARY, Evaluate()).threshold == pytest.approx(0.5, abs=0.01)


def test_costs_by_row_are_minimised_by_brute_force_standards() -> None:
    chance = np.random.default_rng(0)
    logits, truth = _binary(3000, seed=2, shift=-2)
    amount = np.exp(chance.normal(0, 1, 3000)) * np.where(logits > -2, 0.2, 5.0)  # large amounts are hard to see
    costs = Costs(np.full(3000, 1.0), amount)
    settings = Evaluate(cost=Cost(false_positive=1, false_negative="amount"), calibrate="none")
    decision = fit_decision(logits, truth, BINARY, settings, costs=costs)
    p = decision.probability(logits, BINARY)[:, 1]

    def cost(threshold: float) -> float:
        called = p > threshold
        return float(costs.false_negative[(truth == 1) & ~called].sum() + costs.false_positive[(truth == 0) & called].sum())

    best = min(cost(t) for t in np.concatenate([[0, 1], np.unique(p)]))
    assert cost(decision.threshold) <= best * 1.1


def test_a_threshold_lies_in_the_middle_half_of_a_gap_between_probabilities() -> None:
    for seed in range(20):
        logits, truth = _binary(300, seed)
        decision = fit_decision(logits, truth, BINARY, Evaluate(main=F1()))
        p = np.sort(np.concatenate([[0.0, 1.0], decision.probability(logits, BINARY)[:, 1]]))
        at = int(np.searchsorted(p, decision.threshold))
        low, high = p[at - 1], p[at]
        assert low + (high - low) * 0.249 <= decision.threshold <= high - (high - low) * 0.249


def test_a_gap_as_narrow_as_rounding_is_left_for_a_wider_one_next_to_it() -> None:
    p = np.concatenate([np.linspace(0.01, 0.49, 200), 0.5 + np.arange(-5, 6) * 1e-9, np.linspace(0.503, 0.99, 200)])
    truth = (np.random.default_rng(0).random(len(p)) < p).astype(np.int64)
    decision = fit_decision(np.log(p / (1 - p)), truth, BINARY, Evaluate(calibrate="none"))
    assert np.abs(p - decision.threshold).min() > 2e-4


def test_a_main_metric_of_decisions_sets_the_threshold_when_no_cost_is_given() -> None:
    logits, truth = _binary(2000, shift=-2)
    decision = fit_decision(logits, truth, BINARY, Evaluate(main=F1()))
    p = decision.probability(logits, BINARY)[:, 1]
    best = max(f1_score(truth, p > t) for t in np.linspace(0.05, 0.6, 111))
    assert f1_score(truth, p > decision.threshold) >= best - 0.003
    assert "the highest f1" in decision.because


def test_a_threshold_asked_for_is_kept() -> None:
    logits, truth = _binary(500)
    assert fit_decision(logits, truth, BINARY, Evaluate(threshold=0.17)).threshold == 0.17


def test_validation_rows_of_one_class_leave_the_threshold_at_one_half() -> None:
    decision = fit_decision(np.linspace(-2, 2, 50), np.zeros(50, np.int64), BINARY, Evaluate())
    assert decision.calibration == "none"
    assert "1 of 2 classes" in decision.because


def test_a_regression_is_held_inside_the_limits_asked_for() -> None:
    scores = np.array([-1.0, 5.0, 99.0])
    decision = fit_decision(scores, scores, NUMBER, Evaluate(clip=(0, None)))
    assert decision == Decision(low=0.0)
    assert decision.answer(scores, NUMBER)[0].tolist() == [0.0, 5.0, 99.0]


@pytest.mark.parametrize(
    ("task", "settings", "says"),
    [
        (NUMBER, Evaluate(cost=Cost()), "`cost` is for two classes, and 'y' holds numbers"),
        (NUMBER, Evaluate(threshold=0.3), "`threshold` is for two classes"),
        (BINARY, Evaluate(clip=(0, 1)), "`clip` is for numbers, and 'y' holds 2 classes"),
        (MANY, Evaluate(cost=Cost(), threshold=0.3), "`cost` is for two classes, `threshold` is for two classes or several labels, and 'y' holds 4 classes"),
        (MANY, Evaluate(calibrate="isotonic"), "`calibrate: isotonic` is for two classes"),
        (NUMBER, Evaluate(main=F1()), "f1: not for a regression task"),
    ],
)
def test_settings_for_another_task_are_refused(task: Task, settings: Evaluate, says: str) -> None:
    with pytest.raises(SpecError, match=says):
        check(settings, task)
    truth = np.arange(40) % max(2, len(task.labels))
    scores = np.zeros((40, 4)) if task is MANY else np.zeros(40)
    with pytest.raises(SpecError, match=says):
        fit_decision(scores, truth if task is not NUMBER else truth.astype(np.float64), task, settings)


def test_the_same_seed_gives_the_same_decision() -> None:
    logits, truth = _binary(3000)
    assert fit_decision(logits * 1.05, truth, BINARY, Evaluate()) == fit_decision(logits * 1.05, truth, BINARY, Evaluate())
