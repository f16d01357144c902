"""The evaluation as facts: beside baselines, by slice, with costs; odd test rows give reasons, not failures."""

import json
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from modelinscale.core.decision import Decision, sigmoid, softmax
from modelinscale.core.errors import DataError, MisError
from modelinscale.core.task import Task
from modelinscale.evaluate import (
    Cost,
    Costs,
    Evaluate,
    Evaluation,
    answers_of,
    constant_of,
    costs_of,
    evaluate,
    fit_decision,
    metrics_of,
)
from modelinscale.metrics import Metric

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

BINARY = Task(type="binary", target="y", labels=("no", "yes"))
MANY = Task(type="multiclass", target="y", labels=("a", "b", "c"))
NUMBER = Task(type="regression", target="y")


def _rows(task: Task, n: int, seed: int = 0) -> tuple[Floats, Floats | Ints]:
    chance = np.random.default_rng(seed)
    if task.type == "regression":
        scores = chance.normal(0, 2, n)
        return scores, scores + chance.normal(0, 1, n)
    if task.type == "multiclass":
        logits = chance.normal(0, 2, (n, 3))
        return logits, (softmax(logits).cumsum(1) > chance.random((n, 1))).argmax(1)
    logits = chance.normal(0, 2, n)
    return logits, (chance.random(n) < sigmoid(logits)).astype(np.int64)


def _evaluated(task: Task, settings: Evaluate | None = None, n: int = 2000, *, columns: pl.DataFrame | None = None, **more: Any) -> Evaluation:
    settings = settings or Evaluate(n_bootstrap=60)
    scores, truth = _rows(task, n)
    noise = np.random.default_rng(1).normal(0, 2, scores.shape)
    decision = Decision()
    answers = answers_of(decision, scores, truth, task)
    linear = answers_of(decision, scores + noise, truth, task)
    constant = constant_of(truth, task)
    return evaluate(answers, task, settings, decision=decision, constant=constant, baselines={"linear": linear}, columns=columns, **more)


@pytest.mark.parametrize("task", [BINARY, MANY, NUMBER], ids=lambda t: t.type)
def test_a_model_is_shown_beside_two_baselines_with_intervals(task: Task) -> None:
    found = _evaluated(task)
    assert list(found.baselines) == ["constant", "linear"]
    assert list(found.metrics) == [m.type for m in metrics_of(Evaluate(), task)]
    assert found.main == next(iter(found.metrics))
    for name, estimate in found.metrics.items():
        assert estimate.value is not None
        assert estimate.low is not None
        assert estimate.high is not None
        assert estimate.low <= estimate.value <= estimate.high, name
    difference = found.differences["linear"][found.main]
    assert difference.low is not None
    assert difference.high is not None
    assert (difference.low > 0) if Metric.parse(found.main).better == "higher" else (difference.high < 0)
    assert found.notes == ()


@pytest.mark.parametrize("task", [BINARY, MANY, NUMBER], ids=lambda t: t.type)
def test_an_evaluation_is_json_without_nan_and_survives_it(task: Task) -> None:
    found = _evaluated(task, Evaluate(slices=("g",)), columns=pl.DataFrame({"g": ["u", "v"] * 1000}))
    text = json.dumps(found.plain(), allow_nan=False)
    assert Evaluation.model_validate(json.loads(text)) == found
    assert found.plain()["metrics"][found.main].keys() == {"value", "low", "high"}


def test_a_difference_on_the_same_resamples_is_surer_than_two_intervals_apart() -> None:
    scores, truth = _rows(BINARY, 3000)
    near = answers_of(Decision(), scores + np.random.default_rng(1).normal(0, 0.3, 3000), truth, BINARY)
    found = evaluate(
        answers_of(Decision(), scores, truth, BINARY), BINARY, Evaluate(), decision=Decision(), constant=constant_of(truth, BINARY), baselines={"near": near}
    )
    own, difference = found.metrics["roc_auc"], found.differences["near"]["roc_auc"]
    assert own.low is not None
    assert own.high is not None
    assert difference.low is not None
    assert difference.high is not None
    assert difference.high - difference.low < 0.4 * (own.high - own.low)


def test_the_constant_baseline_says_the_training_shares() -> None:
    truth = np.array([0, 0, 0, 1])
    assert constant_of(truth, BINARY) == (0.75, 0.25)
    assert constant_of(truth, BINARY, np.array([1.0, 1.0, 1.0, 3.0])) == (0.5, 0.5)
    assert constant_of(np.array([1.0, 3.0]), NUMBER) == (2.0,)
    found = _evaluated(BINARY)
    assert found.baselines["constant"]["roc_auc"].value == 0.5


def test_a_slice_where_the_model_is_blind_is_flagged_and_comes_first() -> None:
    scores, truth = _rows(BINARY, 3000)
    group = np.random.default_rng(2).choice(["north", "south", "east", "west"], 3000, p=[0.4, 0.3, 0.2, 0.1])
    scores = np.where(group == "west", np.random.default_rng(3).normal(0, 2, 3000), scores)
    columns = pl.DataFrame({"region": group})
    found = evaluate(
        answers_of(Decision(), scores, truth, BINARY),
        BINARY,
        Evaluate(slices=("region",)),
        decision=Decision(),
        constant=constant_of(truth, BINARY),
        columns=columns,
    )
    assert [s.value for s in found.slices if s.worse] == ["west"]
    assert found.slices[0].value == "west"
    assert sum(s.n_rows for s in found.slices) == 3000


@pytest.mark.slow
def test_slices_of_an_even_model_are_rarely_flagged() -> None:
    flags = 0
    for seed in range(40):
        scores, truth = _rows(BINARY, 1500, seed)
        columns = pl.DataFrame({"g": np.random.default_rng(seed).integers(0, 10, 1500)})
        answers = answers_of(Decision(), scores, truth, BINARY)
        found = evaluate(answers, BINARY, Evaluate(slices=("g",), n_bootstrap=100), decision=Decision(), constant=constant_of(truth, BINARY), columns=columns)
        flags += any(s.worse for s in found.slices)
    assert flags <= 6  # promised: 5 % of evaluations, 2 of 40


def test_slices_of_every_type_of_column() -> None:
    n = 2000
    chance = np.random.default_rng(0)
    columns = pl.DataFrame(
        {
            "word": pl.Series(chance.choice(["a", "b", "", "c"], n)).replace("c", None),
            "many": [f"w{i}" for i in (chance.zipf(1.3, n) % 500)],
            "flag": pl.Series(chance.integers(0, 2, n)).cast(pl.Boolean),
            "few": chance.integers(0, 4, n),
            "number": pl.Series(np.where(chance.random(n) < 0.1, np.nan, chance.normal(0, 1, n))),
            "mostly_zero": np.where(chance.random(n) < 0.9, 0.0, chance.random(n)),
            "moment": pl.Series(chance.integers(0, 10**15, n)).cast(pl.Datetime("us")),
            "empty": pl.Series([None] * n, dtype=pl.Float64),
            "list": pl.Series([[1.0, 2.0]] * n, dtype=pl.Array(pl.Float32, 2)),
        }
    )
    found = _evaluated(BINARY, Evaluate(n_bootstrap=50, slices=("word", "many", "flag", "few", "number", "mostly_zero", "moment", "empty")), n, columns=columns)
    by: dict[str, dict[str, int]] = {}
    for one in found.slices:
        by.setdefault(one.column, {})[one.value] = one.n_rows
    assert set(by["word"]) == {"a", "b", "(missing)"}
    assert by["word"]["(missing)"] == len(columns.filter(pl.col("word").is_null() | (pl.col("word") == "")))
    assert "(other)" in by["many"]
    assert set(by["flag"]) == {"true", "false"}
    assert set(by["few"]) == {"0", "1", "2", "3"}
    assert len(by["number"]) == 6
    assert all(v == "(missing)" or v.startswith(("from ", "below ")) for v in by["number"])
    assert sum(by["number"].values()) == n
    assert sum(by["mostly_zero"].values()) == n
    assert len(by["moment"]) == 5
    assert by["empty"] == {"(missing)": n}
    with pytest.raises(DataError, match="holds vectors"):
        _evaluated(BINARY, Evaluate(slices=("list",)), n, columns=columns)


def test_slices_with_few_rows_are_left_out() -> None:
    columns = pl.DataFrame({"g": ["big"] * 1990 + ["small"] * 10})
    assert [s.value for s in _evaluated(BINARY, Evaluate(slices=("g",)), columns=columns).slices] == ["big"]


def test_a_missing_slice_column_names_the_nearest() -> None:
    with pytest.raises(DataError, match=r"no column 'regoin'\. Did you mean 'region'"):
        _evaluated(BINARY, Evaluate(slices=("regoin",)), columns=pl.DataFrame({"region": ["a"] * 2000}))


def test_costs_are_reported_against_the_two_trivial_decisions() -> None:
    n = 4000
    scores, truth = _rows(BINARY, n)
    truth = truth.astype(np.int64)
    settings = Evaluate(cost=Cost(false_positive=1, false_negative="amount"))
    amount = np.random.default_rng(0).exponential(5, n)
    costs = costs_of(settings, pl.DataFrame({"amount": amount}), n)
    assert costs is not None
    decision = fit_decision(scores, truth, BINARY, settings, costs=costs)
    answers = answers_of(decision, scores, truth, BINARY)
    found = evaluate(answers, BINARY, settings, decision=decision, constant=constant_of(truth, BINARY), costs=costs)
    assert found.cost is not None
    missed, wrong = (truth == 1) & (answers.decision == 0), (truth == 0) & (answers.decision == 1)
    assert found.cost.model.value == pytest.approx((amount[missed].sum() + wrong.sum()) / n)
    assert found.cost.always_no == pytest.approx(amount[truth == 1].sum() / n)
    assert found.cost.always_yes == pytest.approx((truth == 0).mean())
    assert found.cost.saving.low is not None
    assert found.cost.saving.low > 0
    assert found.threshold == decision.threshold < 0.35
    at = {round(o.called, 2): o for o in found.thresholds}
    assert at[0.0].cost == pytest.approx(found.cost.always_no)
    assert at[1.0].cost == pytest.approx(found.cost.always_yes)
    thresholds = [o.threshold for o in found.thresholds]
    assert thresholds == sorted(thresholds)


def test_the_threshold_table_tells_what_each_threshold_does() -> None:
    scores, truth = _rows(BINARY, 3000)
    answers = answers_of(Decision(), scores, truth, BINARY)
    assert answers.probability is not None
    for row in _evaluated(BINARY, n=3000).thresholds:
        called = answers.probability[:, 1] > row.threshold
        assert row.called == pytest.approx(called.mean())
        assert row.precision == (pytest.approx(truth[called].mean()) if called.any() else None)
        assert row.recall == pytest.approx(called[truth == 1].mean())
        assert row.cost == pytest.approx((called != truth).mean())


@pytest.mark.parametrize(
    ("amount", "says"),
    [
        ([1.0, None, 2.0], r"column 'amount' gives no usable cost for 1 of 3 rows \(the first: missing\)"),
        ([1.0, float("nan"), 2.0], r"1 of 3 rows \(the first: missing\)"),
        ([1.0, -5.0, float("inf")], r"2 of 3 rows \(the first: -5\)"),
        (["1", "2", "3"], "holds no numbers"),
    ],
)
def test_cells_without_a_usable_cost_are_an_error_that_counts_them(amount: list[Any], says: str) -> None:
    with pytest.raises(DataError, match=says):
        costs_of(Evaluate(cost=Cost(false_negative="amount")), pl.DataFrame({"amount": amount}), 3)


def test_a_missing_cost_column_is_an_error() -> None:
    with pytest.raises(DataError, match="there is no column 'amount'"):
        costs_of(Evaluate(cost=Cost(false_negative="amount")), pl.DataFrame({"x": [1]}), 1)
    assert costs_of(Evaluate(), None, 1) is None


@pytest.mark.parametrize("task", [BINARY, MANY, NUMBER], ids=lambda t: t.type)
@pytest.mark.parametrize("n", [1, 2, 9])
def test_very_few_test_rows_have_values_but_no_intervals(task: Task, n: int) -> None:
    found = _evaluated(task, n=n)
    assert all(e.low is None for e in found.metrics.values())
    assert f"Only {n} test row" in found.notes[0]
    json.dumps(found.plain(), allow_nan=False)


def test_no_test_rows_are_an_error() -> None:
    nothing = answers_of(Decision(), np.array([]), np.array([], np.int64), BINARY)
    with pytest.raises(DataError, match="no test rows"):
        evaluate(nothing, BINARY, Evaluate(), decision=Decision(), constant=(0.5, 0.5))


def test_test_rows_of_one_class_say_what_is_not_defined() -> None:
    scores = np.linspace(-2, 2, 100)
    answers = answers_of(Decision(), scores, np.zeros(100, np.int64), BINARY)
    costs = Costs(np.ones(100), np.ones(100))
    found = evaluate(answers, BINARY, Evaluate(), decision=Decision(), constant=(0.9, 0.1), costs=costs)
    assert found.metrics["roc_auc"].value is None
    assert found.metrics["log_loss"].value is not None
    assert found.notes == ("All test rows are of one class ('no').", "Not defined on these test rows: roc_auc, pr_auc.")
    assert all(o.recall is None for o in found.thresholds)


def test_a_class_absent_from_the_test_rows_is_told() -> None:
    scores, truth = _rows(MANY, 500)
    answers = answers_of(Decision(), scores, np.where(truth == 2, 1, truth), MANY)
    found = evaluate(answers, MANY, Evaluate(), decision=Decision(), constant=(0.4, 0.3, 0.3))
    assert found.notes == ("1 of 3 classes do not occur in the test rows: c.",)
    assert found.metrics["roc_auc"].value is not None


def test_a_constant_target_is_told() -> None:
    answers = answers_of(Decision(), np.linspace(0, 1, 50), np.ones(50), NUMBER)
    found = evaluate(answers, NUMBER, Evaluate(), decision=Decision(), constant=(1.0,))
    assert found.metrics["r2"].value is None
    assert found.baselines["constant"]["rmse"].value == 0
    assert "All test rows have the same target value." in found.notes


def test_a_target_that_is_not_finite_is_an_error() -> None:
    with pytest.raises(DataError, match=r"the target 'y' is not a finite number for 1 of 2 rows"):
        answers_of(Decision(), np.zeros(2), np.array([1.0, np.nan]), NUMBER)


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
def test_weights_must_be_weights(bad: float) -> None:
    with pytest.raises(DataError, match="row weights must be finite and not negative"):
        answers_of(Decision(), np.zeros(2), np.array([0, 1]), BINARY, np.array([1.0, bad]))


def test_row_weights_count_everywhere() -> None:
    scores, truth = _rows(BINARY, 1000)
    weight = np.random.default_rng(0).integers(1, 4, 1000)
    many = np.repeat(np.arange(1000), weight)

    def facts(scores: Floats, truth: Floats | Ints, weight: Floats | None) -> Evaluation:
        answers = answers_of(Decision(), scores, truth, BINARY, weight)
        costs = Costs(np.ones(len(truth)), np.full(len(truth), 3.0))
        return evaluate(answers, BINARY, Evaluate(n_bootstrap=50), decision=Decision(), constant=constant_of(truth, BINARY, weight), costs=costs)

    a, b = facts(scores, truth, weight.astype(np.float64)), facts(scores[many], truth[many], None)
    for name in a.metrics:
        assert a.metrics[name].value == pytest.approx(b.metrics[name].value), name
        assert a.baselines["constant"][name].value == pytest.approx(b.baselines["constant"][name].value), name
    assert a.cost is not None
    assert b.cost is not None
    assert a.cost.model.value == pytest.approx(b.cost.model.value)
    assert [o.recall for o in a.thresholds] == pytest.approx([o.recall for o in b.thresholds])
    assert [x.came for x in a.reliability] == pytest.approx([x.came for x in b.reliability])


def test_reliability_of_an_honest_model_lies_on_the_line() -> None:
    for one in _evaluated(BINARY, n=20_000).reliability:
        assert one.low is not None
        assert one.high is not None
        assert one.low - 0.02 <= one.said <= one.high + 0.02
    assert len(_evaluated(NUMBER, n=3000).reliability) == 15


def test_residuals_of_a_regression_are_quantiles() -> None:
    found = _evaluated(NUMBER, n=5000)
    assert found.residuals is not None
    assert found.residuals["0.5"] == pytest.approx(0, abs=0.1)
    assert found.residuals["0.95"] == pytest.approx(1.645, abs=0.15)
    assert found.confusion is None


def test_confusion_counts_rows() -> None:
    found = _evaluated(MANY)
    assert found.confusion is not None
    assert found.confusion.labels == ("a", "b", "c")
    assert sum(map(sum, found.confusion.counts)) == 2000


# -- settings


def test_the_main_metric_comes_first_and_is_added_to_the_others() -> None:
    settings = Evaluate.model_validate({"main": "pr_auc", "metrics": ["accuracy", {"type": "calibration_error", "n_bins": 5}]})
    assert [m.type for m in metrics_of(settings, BINARY)] == ["pr_auc", "accuracy", "calibration_error"]
    assert [m.type for m in metrics_of(Evaluate.model_validate({"metrics": "mcc"}), BINARY)] == ["mcc"]
    assert Evaluate.model_validate(settings.plain()) == settings


def test_a_metric_for_another_task_is_refused_with_those_that_suit() -> None:
    with pytest.raises(MisError, match="rmse: not for a binary task") as caught:
        metrics_of(Evaluate.model_validate({"main": "rmse"}), BINARY)
    assert "roc_auc" in caught.value.fix
    assert "r2" not in caught.value.fix


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"main": "roc_acu"}, "Did you mean 'roc_auc'"),
        ({"metrics": ["f1", "f1"]}, "metrics named twice: f1"),
        ({"cost": {"false_positive": 0, "false_negative": 0}}, "both costs are 0"),
        ({"cost": {"false_positive": -1}}, "greater than or equal to 0"),
        ({"clip": [2, 1]}, "`clip` must rise"),
        ({"calibrate": "platt"}, "Input should be 'auto'"),
        ({"confidence": 1.0}, "less than 1"),
        ({"threshhold": 0.5}, "Extra inputs are not permitted"),
    ],
)
def test_settings_that_make_no_sense_are_refused(value: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Evaluate.model_validate(value)


def test_one_name_may_stand_for_a_list_and_columns_of_costs_are_known() -> None:
    settings = Evaluate.model_validate({"slices": "country", "cost": {"false_positive": 2.5, "false_negative": "amount"}})
    assert settings.slices == ("country",)
    assert settings.cost_columns == ("amount",)
    assert Evaluate().cost_columns == ()
