"""``model: auto``: the portfolio within a budget, and the mixture at its end."""

from functools import lru_cache
from typing import Any, Literal

import numpy as np
import pytest

from modelinscale.core.encoded import Encoded, Layout
from modelinscale.core.task import Task
from modelinscale.models import Examples, Model
from modelinscale.models.ensemble import Ensemble
from modelinscale.testing.models import TASKS
from modelinscale.train import Fitted, Train, _auto, fit

TASK: Task = TASKS["binary"]


@lru_cache(maxsize=4)
def made(part: Literal["train", "valid"], n: int) -> Examples:
    chance = np.random.default_rng(1 if part == "train" else 2)
    X = chance.normal(size=(n, 3)).astype(np.float32)
    pull = X[:, 0] + np.sin(3 * X[:, 1]) + (X[:, 2] > 0.3) * X[:, 0]
    target = (pull + chance.normal(size=n) > 0).astype(np.int64)
    return Examples(Encoded({"x": Layout("dense", 3, ("a", "b", "c"))}, {"x": X}), target)


def learn(n_train: int, n_valid: int, settings: Train, monkeypatch: pytest.MonkeyPatch, price: float = 1.0) -> Fitted:
    monkeypatch.setattr(_auto, "families", lambda layouts, *, more, several=False: [_auto.Candidate(Model.parse(name), 0.3) for name in ("linear", "trees")])
    quick: list[dict[str, Any]] = [{"rounds": 60, "leaves": 8}, {"rounds": 60, "random_splits": True}, {"rounds": 60, "columns_share": 0.5}]
    monkeypatch.setattr(_auto, "portfolio", lambda task: [_auto.Candidate(Model.parse({"type": "trees", **one}), 0.5, price) for one in quick])
    return fit(
        "auto",
        lambda part, form: made(part, n_train if part == "train" else n_valid),
        TASK,
        lambda form: made("valid", n_valid).layouts,
        settings,
    )


def test_few_validation_rows_compare_only_families(monkeypatch: pytest.MonkeyPatch) -> None:
    fitted = learn(2000, 300, Train(budget=60), monkeypatch)
    assert [t.model.type for t in fitted.trials if t.model.type != "ensemble"] == ["linear", "trees"]


def test_many_validation_rows_let_a_portfolio_be_tried_and_the_best_be_mixed(monkeypatch: pytest.MonkeyPatch) -> None:
    fitted = learn(3000, 2000, Train(budget=60), monkeypatch)
    assert sum(t.model.type == "trees" for t in fitted.trials) == 4
    singles = [t.loss for t in fitted.trials if t.model.type != "ensemble" and t.loss is not None]
    mixture = next(t for t in fitted.trials if t.model.type == "ensemble")
    assert mixture.loss is not None
    assert mixture.loss < min(singles)
    assert isinstance(fitted.chosen.model, Ensemble)
    assert "trees" in mixture.note
    assert "%" in mixture.note
    assert fitted.linear is not None


def test_the_same_seed_gives_the_same_model(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = (learn(3000, 2000, Train(budget=60), monkeypatch) for _ in range(2))
    assert a.chosen.model == b.chosen.model
    assert a.chosen.weights.meta == b.chosen.weights.meta
    assert all(np.array_equal(array, b.chosen.weights.arrays[name]) for name, array in a.chosen.weights.arrays.items())


def test_a_latency_that_only_one_can_keep_leaves_a_single_model(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not isinstance(learn(3000, 2000, Train(budget=60, latency=0.0), monkeypatch).chosen.model, Ensemble)


def test_where_all_rows_take_too_long_a_part_of_them_chooses_what_is_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_auto, "_MANY_ROWS", 2000)
    fitted = learn(3000, 2000, Train(budget=60), monkeypatch, price=1e6)
    notes = [t.note for t in fitted.trials if t.model.type == "trees"]
    assert sum("1/9 of the rows" in note for note in notes) == 3
    assert sum("rows" not in note for note in notes) == 3  # the family by itself, and the two that were kept


def test_a_budget_that_is_used_up_says_which_settings_had_no_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_auto, "_LEAST_S", 1e6)
    fitted = learn(3000, 2000, Train(budget=60), monkeypatch)
    assert sum("used up before its turn" in t.note for t in fitted.trials) == 3


def test_the_portfolio_holds_leaves_back() -> None:
    found = [c.model.plain() for c in _auto.portfolio(TASK) if c.model.type == "trees"]
    assert len(found) >= 5
    assert all(one["l2"] >= 1 and one["min_leaf_weight"] >= 0.1 for one in found)
