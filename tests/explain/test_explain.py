"""Every explainer on a model of every family it suits, and where it must say that it does not hold."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from modelinscale.core.errors import DataError, UsageError
from modelinscale.core.task import TaskType
from modelinscale.explain import Explainer, about, usual
from modelinscale.explain.grad_cam import ssim
from modelinscale.models import Model, Weights
from modelinscale.testing import explain as suite

SMALL: dict[str, dict[str, Any]] = {
    "trees": {"type": "trees", "rounds": 60},
    "linear": {"type": "linear"},
    "mlp": {"type": "mlp", "width": 32, "members": 2, "epochs": 25},
    "network": {"type": "network", "maps": 8, "width": 32, "members": 2, "epochs": 12},
}
slow = pytest.mark.slow
CASES = [
    ("tree_shap", "trees", "binary"),
    pytest.param("tree_shap", "trees", "multiclass", marks=slow),
    pytest.param("tree_shap", "trees", "regression", marks=slow),
    ("permutation", "trees", "binary"),
    ("permutation", "linear", "multiclass"),
    pytest.param("permutation", "linear", "regression", marks=slow),
    pytest.param("permutation", "network", "binary", marks=slow),
    pytest.param("integrated_gradients", "mlp", "binary", marks=slow),
    pytest.param("integrated_gradients", "mlp", "regression", marks=slow),
    pytest.param("integrated_gradients", "network", "multiclass", marks=slow),
    ("counterfactual", "linear", "binary"),
    pytest.param("counterfactual", "trees", "multiclass", marks=slow),
]


def family(name: str) -> Model:
    return Model.parse(SMALL[name])


@pytest.mark.parametrize(("by", "model", "type"), CASES)
def test_an_explainer_finds_what_was_planted(by: str, model: str, type: TaskType) -> None:
    suite.all_of(Explainer.parse(by), family(model), type)


def test_contributions_of_trees_add_up_to_a_millionth() -> None:
    found = suite.explained(Explainer.parse("tree_shap"), family("trees"), "binary", local=True)
    assert found.error is not None
    assert found.error <= 1e-6
    assert found.faithful


@pytest.mark.slow
def test_rows_whose_contributions_miss_their_score_go_again_by_smaller_steps() -> None:
    subject, rows = suite.subject_of(family("mlp"), "binary")
    few, output = rows.take(np.arange(30)), subject.outputs(rows.take(np.arange(30)).encoded)
    said = subject.said(few.encoded, output)

    def misses(most_steps: int) -> float:
        found = Explainer.parse({"type": "integrated_gradients", "steps": 2, "most_steps": most_steps}).explain(subject, few, output, seed=7, overall=False)
        assert found.effects is not None
        assert found.base is not None
        return float(np.abs(found.base + found.effects.sum(1) - said).max() / max(1.0, float(np.abs(said).max())))

    assert misses(2) > 0.02, "two steps are too few here"
    assert misses(2048) <= 0.02


def test_contributions_of_another_model_are_told_to_be_unfaithful() -> None:
    subject, rows = suite.subject_of(family("trees"), "binary")
    few = rows.take(np.arange(30))

    class Wrong(type(Explainer.parse("tree_shap"))):  # type: ignore[misc]
        def explain(self, *given: Any, **more: Any) -> Any:
            found = super().explain(*given, **more)
            return replace(found, effects=-found.effects)

    Wrong.type = "tree_shap"
    found, _ = about(Wrong(), subject, few, local=True)
    assert found.faithful is False
    assert any("no more than in random order" in note for note in found.notes)
    assert any("miss the score" in note for note in found.notes)


@slow
def test_random_weights_change_the_heat_maps_of_a_network() -> None:
    subject, rows = suite.subject_of(family("network"), "binary")
    seen = rows.take(np.flatnonzero(np.asarray(rows.truth) == 1)[:40])
    found, made = about(Explainer.parse("grad_cam"), subject, seen, local=True)
    assert found.similarity is not None
    assert made.maps["picture"].shape == (len(seen), 8, 8)
    assert found.similarity < 0.5
    assert made.maps["picture"].max() == pytest.approx(1.0)


@slow
def test_maps_that_random_weights_do_not_change_are_called_unfaithful() -> None:
    subject, rows = suite.subject_of(family("network"), "binary")
    flat = {k: np.zeros_like(v) if k.startswith("parts.image") and k.endswith(("norm.weight", "norm.bias")) else v for k, v in subject.weights.arrays.items()}
    found, _ = about(Explainer.parse("grad_cam"), replace(subject, weights=Weights(flat, subject.weights.meta)), rows.take(np.arange(20)), local=True)
    assert found.similarity == pytest.approx(1.0)
    assert found.faithful is False
    assert any("random weights" in note for note in found.notes)


def test_a_counterfactual_changes_no_more_than_it_may() -> None:
    subject, rows = suite.subject_of(family("linear"), "binary")
    few = rows.take(np.arange(25))
    free, _ = about(Explainer.parse("counterfactual"), subject, few, local=True)
    answers = {row.row: row.answer for row in free.rows}
    assert sum(row.changes is not None for row in free.rows) >= 20
    assert all(row.would_be != answers[row.row] for row in free.rows if row.changes is not None)
    held, _ = about(Explainer.parse({"type": "counterfactual", "immutable": ["size", "colour"]}), subject, few, local=True)
    assert all(change.feature not in ("size", "colour") for row in held.rows for change in row.changes or ())
    up, _ = about(Explainer.parse({"type": "counterfactual", "monotone": {"noise": "up", "colour": "up"}}), subject, few, local=True)
    assert all(float(change.to) > float(change.was) for row in up.rows for change in row.changes or () if change.feature in ("noise", "colour"))
    none, _ = about(Explainer.parse({"type": "counterfactual", "immutable": ["size", "colour", "note"]}), subject, few, local=True)
    assert any(row.changes is None and row.would_be == "" for row in none.rows)


def test_a_counterfactual_of_numbers_reaches_what_is_wanted() -> None:
    subject, rows = suite.subject_of(family("linear"), "regression")
    found, _ = about(Explainer.parse({"type": "counterfactual", "above": 1050.0}), subject, rows.take(np.arange(10)), local=True)
    assert all(float(row.would_be) > 1050 for row in found.rows if row.changes is not None)
    assert any(row.changes for row in found.rows)
    with pytest.raises(UsageError, match="give `above` or `below`"):
        about(Explainer.parse("counterfactual"), subject, rows, local=True)


@pytest.mark.parametrize(
    ("by", "model", "local", "says"),
    [
        ("tree_shap", "linear", True, "the model is linear, not trees"),
        ("integrated_gradients", "trees", True, "not a network"),
        ("grad_cam", "trees", True, "not a network"),
        ("counterfactual", "trees", False, "it explains rows one by one"),
    ],
)
def test_an_explainer_that_does_not_suit_says_why(by: str, model: str, local: bool, says: str) -> None:
    subject, rows = suite.subject_of(family(model), "binary")
    with pytest.raises(UsageError, match=says):
        about(Explainer.parse(by), subject, rows, local=local)


def test_no_rows_and_rows_without_truth_are_refused() -> None:
    subject, rows = suite.subject_of(family("trees"), "binary")
    with pytest.raises(DataError, match="no rows to explain"):
        about(Explainer.parse("tree_shap"), subject, rows.take(np.arange(0)), local=True)
    with pytest.raises(DataError, match="truth is known"):
        about(Explainer.parse("permutation"), subject, replace(rows, truth=None), local=False)
    with pytest.raises(UsageError, match="no column 'sise'"):
        about(Explainer.parse({"type": "counterfactual", "immutable": ["sise"]}), subject, rows.take(np.arange(2)), local=True)


def test_the_usual_way_suits_the_model() -> None:
    trees, linear = (suite.subject_of(family(name), "binary")[0] for name in ("trees", "linear"))
    assert usual(trees, local=True).type == "tree_shap"
    assert usual(linear, local=True).type == "permutation"
    assert usual(trees, local=False).type == "permutation"


def test_ssim_is_one_for_equal_maps_and_small_for_others() -> None:
    chance = np.random.default_rng(7)
    a, b = chance.random((28, 28)), chance.random((28, 28))
    assert ssim(a, a) == pytest.approx(1.0)
    assert ssim(a, b) < 0.2
