"""One family, or the best of all within a budget."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from modelinscale.core.encoded import Encoded, Form, Layout
from modelinscale.core.errors import DataError, ModelError
from modelinscale.core.task import TaskType
from modelinscale.models import Examples, Strategy
from modelinscale.models.linear import Linear
from modelinscale.models.trees import Trees
from modelinscale.testing.models import Planted, planted
from modelinscale.train import Fitted, Train, fit, loss


def learn(
    model: object,
    type: TaskType = "binary",
    settings: Train | None = None,
    change: Callable[[Examples], Examples] = lambda e: e,
    *,
    pictures: bool = False,
    **more: object,
) -> Fitted:
    def rows(part: Literal["train", "valid"], form: Form) -> Examples:
        given = planted(form, type)
        return change(given.train) if part == "train" else given.valid

    def layouts(form: Form) -> dict[str, Layout]:
        return planted(form if pictures or form != "deep" else "scaled", type).layouts

    return fit(model, rows, planted("plain", type).task, layouts, settings or Train(), **more)  # type: ignore[arg-type]


def judged(fitted: Fitted, type: TaskType = "binary") -> float:
    given: Planted = planted(fitted.chosen.model.form, type)
    return loss(fitted.chosen.model.predict(fitted.chosen.weights, given.test.rows), given.test.target, None, given.task)


def test_a_family_that_is_asked_for_is_fitted_alone() -> None:
    fitted = learn(Trees(rounds=20))
    assert [trial.model.type for trial in fitted.trials] == ["trees"]
    assert fitted.linear is None
    assert fitted.trials[0].loss == pytest.approx(judged(fitted), abs=0.2)


def test_linear_asked_for_is_its_own_baseline() -> None:
    fitted = learn(Linear())
    assert fitted.linear is fitted.chosen


@pytest.mark.parametrize(("strategy", "told"), [("auto", 0), ("fully_sharded", 1), ("data_parallel", 1)])
def test_a_strategy_for_weights_of_a_network_is_told_of_where_none_learns(strategy: Strategy, told: int) -> None:
    notes: list[str] = []
    learn(Linear(), settings=Train(strategy=strategy, workers=2), tell=notes.append)
    assert sum(f"`train.strategy: {strategy}` is for the weights of a network" in note and note.endswith("for linear.") for note in notes) == told


def test_auto_tries_the_network_of_parts_where_a_column_keeps_its_shape() -> None:
    fitted = learn("auto", settings=Train(budget=3), pictures=True)
    assert [trial.model.type for trial in fitted.trials if trial.model.type != "ensemble"] == ["linear", "trees", "network"]


def test_auto_keeps_the_family_with_the_least_validation_loss_and_tells_of_all() -> None:
    fitted = learn("auto", settings=Train(budget=5))
    assert [trial.model.type for trial in fitted.trials if trial.model.type != "ensemble"] == ["linear", "trees", "mlp"]
    losses = {trial.model.type: trial.loss for trial in fitted.trials}
    assert all(value is not None for value in losses.values()), [trial.plain() for trial in fitted.trials]
    assert fitted.chosen.model.type == min(losses, key=lambda name: losses[name] or 0.0)
    assert fitted.linear is not None


def test_without_time_auto_tells_which_families_had_no_turn() -> None:
    with pytest.raises(ModelError, match=r"linear: the budget of 0\.0 s was used up before its turn"):
        learn("auto", settings=Train(budget=0))


def test_progress_goes_from_nothing_to_all() -> None:
    seen: list[tuple[float, str]] = []
    learn(Trees(rounds=20), progress=lambda share, note: seen.append((share, note)))
    shares = [share for share, _ in seen]
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1.0)
    assert seen[-1][1].startswith("trees: round")


def test_each_family_has_a_folder_of_its_own_for_checkpoints(tmp_path: Path) -> None:
    learn(Linear(), checkpoints=tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["linear"]


def test_class_weights_move_the_answers() -> None:
    def mean_score(settings: Train) -> float:
        fitted = learn(Linear(), settings=settings)
        return float(fitted.chosen.model.predict(fitted.chosen.weights, planted("scaled", "binary").test.rows).mean())

    assert mean_score(Train(class_weight={"yes": 10.0})) > mean_score(Train()) + 0.5


def test_training_rows_of_one_class_are_refused() -> None:
    def only(e: Examples) -> Examples:
        index = np.flatnonzero(e.target == 0)
        return Examples(e.rows.rows(index), e.target[index])

    with pytest.raises(DataError, match=r"training rows have the same 'y': 'no'"):
        learn(Linear(), change=only)


def test_no_training_rows_are_refused() -> None:
    with pytest.raises(DataError, match="no training rows"):
        learn(Linear(), change=lambda e: Examples(e.rows.rows(np.empty(0, np.int64)), e.target[:0]))


def test_a_family_that_cannot_learn_this_says_why() -> None:
    empty = Encoded({"x": Layout("dense", 0, ())}, {"x": np.zeros((4, 0), np.float32)})
    with pytest.raises(ModelError, match="trees cannot learn this: there is no feature to split on"):
        fit(Trees(), lambda part, form: Examples(empty, np.array([0, 1, 0, 1])), planted("plain", "binary").task, lambda form: empty.layouts, Train())


def test_trials_are_plain_data() -> None:
    fitted = learn(Linear())
    plain = fitted.trials[0].plain()
    assert plain["model"]["type"] == "linear"
    assert set(plain) == {"model", "loss", "seconds", "note"}
