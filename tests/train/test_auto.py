"""``model: auto``: the portfolio within a budget, folds, the mixture at its end, and learning once more from all rows."""

from dataclasses import replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import pytest

from modelinscale.core.encoded import Encoded, Layout
from modelinscale.core.errors import ModelError
from modelinscale.core.task import Task
from modelinscale.models import Effort, Examples, Model
from modelinscale.models._mixture import Mixture
from modelinscale.models.ensemble import Ensemble
from modelinscale.models.trees import Trees, n_rounds
from modelinscale.testing.models import TASKS
from modelinscale.train import Fitted, Learned, Train, _auto, _end, fit, loss
from modelinscale.train._costs import Costs, probe
from modelinscale.train._end import as_good
from modelinscale.train._folds import All, crossed
from modelinscale.train._portfolio import Candidate, families, portfolio, variations
from modelinscale.train._student import softened
from modelinscale.train._trial import Trial, attempt

TASK: Task = TASKS["binary"]
Part = Literal["train", "valid"]


@lru_cache(maxsize=8)
def made(part: Part, n: int) -> Examples:
    chance = np.random.default_rng(1 if part == "train" else 2)
    X = chance.normal(size=(n, 3)).astype(np.float32)
    pull = X[:, 0] + np.sin(3 * X[:, 1]) + (X[:, 2] > 0.3) * X[:, 0]
    target = (pull + chance.normal(size=n) > 0).astype(np.int64)
    return Examples(Encoded({"x": Layout("dense", 3, ("a", "b", "c"))}, {"x": X}), target)


def layouts(form: Any) -> dict[str, Layout]:
    return made("valid", 300).layouts


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two families, three further settings, no variations: seconds instead of minutes."""
    steps: dict[str, Any] = {"leaves": 8, "learning_rate": 0.3, "patience": 8}
    quick: list[dict[str, Any]] = [{"rounds": 20, **steps, **more} for more in ({}, {"random_splits": True}, {"columns_share": 0.5})]
    monkeypatch.setattr(_auto, "families", lambda layouts, *, more, several: [Candidate(Model.parse("linear"), 0.3), Candidate(Trees(**steps), 0.3)])
    monkeypatch.setattr(_auto, "portfolio", lambda task, n, layouts: [Candidate(Trees(**one)) for one in quick])
    monkeypatch.setattr(_auto, "variations", lambda best, task, seed: iter(()))
    monkeypatch.setattr(_auto, "_FOLDED_SHARE", np.inf)


def learn(n_train: int, n_valid: int, settings: Train, *, folded: bool = False, told: list[str] | None = None) -> Fitted:
    return fit(
        "auto",
        lambda part, form: made(part, n_train if part == "train" else n_valid),
        TASK,
        layouts,
        settings,
        folds=lambda: np.arange(n_train + n_valid) % 5 if folded else None,
        tell=(told if told is not None else []).append,
    )


@pytest.mark.usefixtures("few")
def test_few_rows_to_tell_by_compare_only_families() -> None:
    fitted = learn(600, 300, Train(budget=60), folded=True)
    assert {t.model.plain()["rounds"] for t in fitted.trials if t.model.type == "trees"} == {None}


@pytest.mark.usefixtures("few")
def test_where_folds_are_refused_few_validation_rows_compare_only_families(monkeypatch: pytest.MonkeyPatch) -> None:
    def some(layouts: Any, *, more: bool, several: bool) -> list[Candidate]:
        return [Candidate(Model.parse(one), 0.3) for one in ("linear", "trees", *([] if more else [{"type": "mlp", "epochs": 1, "members": 1}]))]

    monkeypatch.setattr(_auto, "families", some)
    fitted = learn(900, 300, Train(budget=60))
    assert [t.model.type for t in fitted.trials if t.model.type != "ensemble"] == ["linear", "trees", "mlp"]


@pytest.mark.usefixtures("few")
def test_without_validation_rows_folds_tell_models_apart_and_all_rows_are_learned_from(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    fitted = learn(1200, 0, Train(budget=60, student=True), folded=True, told=told)
    assert sum("5 folds" in t.note for t in fitted.trials) == 5
    assert fitted.chosen.valid_scores is None
    assert not fitted.chosen.saw_valid
    assert any("from all 1,200 rows." in one for one in told)
    monkeypatch.setattr(Trees, "without_valid", lambda model, learned, task: None)
    learn(1200, 0, Train(budget=60), folded=True, told=told)
    assert "trees from all 1,200 rows but one fold" in told[-1]  # never without rows that say when to stop


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("n_train", [900, 10_500])
def test_where_nothing_tells_models_apart_trees_are_taken_and_it_is_told(n_train: int) -> None:
    told: list[str] = []
    fitted = learn(n_train, 0, Train(budget=60), told=told)
    assert fitted.chosen.model.type == "trees"
    assert [t.model.type for t in fitted.trials] == ["linear", "trees"]
    assert any("nothing was compared, and trees taken unseen" in one for one in told)


@pytest.mark.usefixtures("few")
def test_many_validation_rows_let_a_portfolio_be_tried_and_the_best_be_mixed() -> None:
    fitted = learn(3000, 2000, Train(budget=60))
    assert sum(t.model.type == "trees" for t in fitted.trials) == 4
    singles = [t.loss for t in fitted.trials if t.model.type != "ensemble" and t.loss is not None]
    mixture = next(t for t in fitted.trials if t.model.type == "ensemble")
    assert mixture.loss is not None
    assert mixture.loss < min(singles)
    assert isinstance(fitted.chosen.model, Ensemble)
    assert "trees" in mixture.note
    assert "%" in mixture.note
    assert fitted.linear is not None


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("folded", [False, True])
def test_the_same_seed_gives_the_same_model(folded: bool) -> None:
    a, b = (learn(1500, 1200, Train(budget=60), folded=folded) for _ in range(2))
    assert a.chosen.model == b.chosen.model
    assert a.chosen.weights.meta == b.chosen.weights.meta
    assert all(np.array_equal(array, b.chosen.weights.arrays[name]) for name, array in a.chosen.weights.arrays.items())


@pytest.mark.usefixtures("few")
def test_a_latency_that_only_one_can_keep_leaves_a_single_model() -> None:
    assert not isinstance(learn(3000, 2000, Train(budget=60, latency=0.0)).chosen.model, Ensemble)


@pytest.mark.usefixtures("few")
def test_small_tables_tell_by_all_rows_in_folds_and_the_chosen_learns_from_all() -> None:
    told: list[str] = []
    fitted = learn(900, 300, Train(budget=60), folded=True, told=told)
    assert sum("5 folds" in t.note for t in fitted.trials) == 5
    assert fitted.chosen.saw_valid
    assert fitted.chosen.valid_scores is not None
    assert len(fitted.chosen.valid_scores) == 300
    # What it says of the validation rows now that it knows them is not what calibration is given.
    assert not np.array_equal(fitted.chosen.model.predict(fitted.chosen.weights, made("valid", 300).rows), fitted.chosen.valid_scores)
    assert any("all 1,200 rows" in one for one in told)


@pytest.mark.usefixtures("few")
def test_without_refit_the_validation_rows_are_never_learned_from() -> None:
    fitted = learn(900, 1200, Train(budget=60, refit=False), folded=True)
    assert not fitted.chosen.saw_valid
    assert not any("folds" in t.note for t in fitted.trials)
    np.testing.assert_array_equal(fitted.chosen.model.predict(fitted.chosen.weights, made("valid", 1200).rows), fitted.chosen.valid_scores)


def test_each_row_of_folds_is_answered_by_a_model_that_did_not_see_it() -> None:
    every = All(lambda part, form: made(part, 300 if part == "train" else 100))
    model, fold = Trees(rounds=5), np.arange(400) % 4
    done = crossed(model, every, fold, TASK, layouts, Train(), Effort(n_threads=1))
    assert done.scores is not None
    for number in range(4):
        rows = every.without(fold, number)
        again = model.fit(rows("train", "plain"), rows("valid", "plain"), TASK, Effort(n_threads=1))
        np.testing.assert_array_equal(done.scores[fold == number], model.predict(again, rows("valid", "plain").rows))


def test_losses_in_folds_count_classes_by_their_weights() -> None:
    every = All(lambda part, form: made(part, 300 if part == "train" else 100))
    done = crossed(Trees(rounds=5), every, np.arange(400) % 4, TASK, layouts, Train(class_weight={"yes": 3.0}), Effort(n_threads=1))
    target = every.examples("plain").target
    assert done.scores is not None
    assert done.trial.loss == pytest.approx(loss(done.scores, target, np.where(target == 1, 3.0, 1.0), TASK))


@pytest.mark.parametrize("name", ["linear", "trees", "catboost"])
def test_settings_for_all_rows_give_a_tenth_more_rounds_and_the_steps_that_were_taken(name: str) -> None:
    if name == "catboost":
        pytest.importorskip("catboost")
    model = Model.parse({"type": name, **({} if name == "linear" else {"rounds": 200})})
    weights = model.fit(made("train", 900), made("valid", 300), TASK, Effort(n_threads=1))
    again = model.without_valid([weights], TASK)
    assert again is not None
    if name == "linear":
        assert again.plain()["strength"] == pytest.approx(weights.meta["strength"])
        return
    rounds = len(weights.arrays["feature"]) if name == "catboost" else n_rounds(weights)
    assert again.plain()["rounds"] == round(1.1 * rounds)
    assert again.plain()["learning_rate"] > 0
    whole = again.fit(made("train", 900), None, TASK, Effort(n_threads=1))
    assert (len(whole.arrays["feature"]) if name == "catboost" else n_rounds(whole)) == again.plain()["rounds"]


def test_networks_need_rows_held_out_to_know_when_to_stop() -> None:
    assert Model.parse("mlp").without_valid([], TASK) is None


def test_a_probe_tells_what_rows_cost_and_how_far_chance_goes() -> None:
    told: list[str] = []
    models = [Model.parse("linear"), Model.parse("trees")]
    costs = probe(lambda part, form: made(part, 6000), models, TASK, 7, 1, 5.0, told.append)
    assert costs.noise is not None
    assert 0 < costs.noise < 0.05
    assert "probe: linear" in told[0]
    small, large = (costs.seconds(Trees(rounds=100), n) for n in (10_000, 1_000_000))
    assert small is not None
    assert large is not None
    assert small < large
    assert costs.seconds(Model.parse("network"), 1000) is None


def test_what_does_not_fit_gets_fewer_and_larger_steps_or_is_left_out_with_the_reason() -> None:
    costs = Costs(TASK, unit={"trees": 1e-6, "mlp": 1e-4})
    model = Trees(rounds=1000, learning_rate=0.05, leaves=31)
    as_it_is, note = costs.made_to_fit(model, 10_000, 100.0)
    assert (as_it_is, note) == (model, "")
    fewer, note = costs.made_to_fit(model, 100_000, 50.0)
    assert fewer is not None
    assert fewer.plain()["rounds"] == 500
    assert fewer.plain()["learning_rate"] == pytest.approx(0.1)
    assert "500 rounds" in note
    none, why = costs.made_to_fit(model, 100_000, 1.0)
    assert none is None
    assert "it would take about 1 min 40 s, and has 1.0 s" in why
    assert costs.made_to_fit(Model.parse("mlp"), 100_000, 10.0)[0] is None


def test_rounds_are_planned_by_where_the_family_itself_stopped() -> None:
    costs = replace(Costs(TASK, unit={"trees": 1e-6}), reach=4.0)
    assert costs.rounds(Trees(rounds=2000, learning_rate=0.04, patience=60)) == pytest.approx(1.3 * 100 + 60)


@pytest.mark.usefixtures("few")
def test_a_budget_that_is_used_up_says_which_settings_had_no_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_auto, "_LEAST_S", 1e6)
    fitted = learn(3000, 2000, Train(budget=60))
    assert sum("used up before its turn" in t.note for t in fitted.trials) == 3


@pytest.mark.usefixtures("few")
def test_a_student_is_taught_by_the_mixture_and_told_beside_it() -> None:
    told: list[str] = []
    fitted = learn(1500, 1200, Train(budget=60, student=True), folded=True, told=told)
    assert any("student of the mixture" in t.note for t in fitted.trials)
    assert any(one.startswith("student: trees taught by the mixture") for one in told)


@pytest.fixture
def halves(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mixture of two settings of trees, always."""
    settings: list[dict[str, Any]] = [{"rounds": 20, "leaves": 8}, {"rounds": 20, "columns_share": 0.5}]
    monkeypatch.setattr(_auto, "families", lambda layouts, *, more, several: [Candidate(Trees(**one), 0.3) for one in settings])
    monkeypatch.setattr(_auto, "portfolio", lambda task, n, layouts: [])
    monkeypatch.setattr(_auto, "_FOLDED_SHARE", np.inf)
    monkeypatch.setattr(_auto.Search, "mixture", lambda search: Mixture((0.5,) * len(search.found), 0.0, 0.0))
    monkeypatch.setattr(_auto.Search, "loss", lambda search, scores: -1.0)


def taught_with(monkeypatch: pytest.MonkeyPatch, valid: Examples, settings: Train, told: list[str] | None = None) -> tuple[Examples, Examples, Any]:
    """The training rows, validation rows and answers that a student is given."""
    given: list[tuple[Examples, Examples, Any]] = []

    def taught(train: Examples, judged: Examples, scores: Any, task: Task, effort: Effort) -> Learned:
        given.append((train, judged, scores))
        raise ModelError("there is no chalk", fix="Buy some.")

    monkeypatch.setattr(_end, "taught", taught)
    fitted = fit(
        "auto",
        lambda part, form: made("train", 300) if part == "train" else valid,
        TASK,
        layouts,
        settings,
        folds=lambda: np.arange(300 + len(valid)) % 5,
        tell=(told if told is not None else []).append,
    )
    assert isinstance(fitted.chosen.model, Ensemble)
    return given[0]


@pytest.mark.usefixtures("halves")
def test_no_answer_of_a_validation_row_reaches_what_a_student_is_taught(monkeypatch: pytest.MonkeyPatch) -> None:
    valid, settings = made("valid", 100), Train(budget=60, student=True)
    other = Examples(valid.rows, 1 - valid.target)
    (_, _, one), (_, _, two) = (taught_with(monkeypatch, rows, settings) for rows in (valid, other))
    np.testing.assert_array_equal(one, two)


@pytest.mark.usefixtures("halves")
def test_a_student_learns_and_is_judged_with_the_weights_of_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    train, judged, _ = taught_with(monkeypatch, made("valid", 100), Train(budget=60, student=True, class_weight={"yes": 3.0}))
    for rows in (train, judged):
        assert rows.weight is not None
        assert rows.weight.tolist() == np.where(rows.target == 1, 3.0, 1.0).tolist()


@pytest.mark.usefixtures("halves")
def test_where_a_student_cannot_be_taught_the_mixture_is_kept_and_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    taught_with(monkeypatch, made("valid", 100), Train(budget=60, student=True), told)
    assert any("student: it could not be taught (there is no chalk); the mixture is kept." in one for one in told)


@pytest.mark.usefixtures("halves")
@pytest.mark.parametrize("folded", [False, True])
def test_a_member_that_the_budget_ends_while_it_learns_once_more_stays_as_it_was(monkeypatch: pytest.MonkeyPatch, folded: bool) -> None:
    before = learn(900, 300, Train(budget=60), folded=folded).chosen.weights

    def short(*given: Any, **more: Any) -> tuple[Trial, Learned | None]:
        trial, one = attempt(*given, **more)
        return replace(trial, note="stopped by the budget"), one

    monkeypatch.setattr(_end, "attempt", short)
    told: list[str] = []
    fitted = learn(900, 300, Train(budget=60), folded=folded, told=told)
    assert sum("the budget ended it while it learned once more in the end; it stays as it was" in one for one in told) == 2
    assert not any("from all 1,200 rows;" in one for one in told)
    assert fitted.chosen.saw_valid == folded
    assert any("trees from all 1,200 rows but one fold" in one for one in told) == folded
    assert fitted.chosen.weights.arrays.keys() == before.arrays.keys()
    assert any(not np.array_equal(array, fitted.chosen.weights.arrays[name]) for name, array in before.arrays.items())


@pytest.mark.usefixtures("halves")
def test_a_member_without_half_as_much_time_again_is_not_begun_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_end, "AGAIN", 1e9)
    told: list[str] = []
    assert not learn(900, 300, Train(budget=60), told=told).chosen.saw_valid
    assert told == ["trees: no time was left to learn once more in the end; it stays as it was."] * 2


@pytest.mark.usefixtures("few")
def test_each_member_is_told_with_the_rows_that_it_learned_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that needs rows held out learns in the end from those of training: what it says of validation rows is then its own."""
    monkeypatch.setattr(Trees, "without_valid", lambda model, learned, task: None)
    monkeypatch.setattr(_auto.Search, "mixture", lambda search: Mixture(tuple(1 / len(search.found) for _ in search.found), 0.0, 0.0))
    monkeypatch.setattr(_auto.Search, "loss", lambda search, scores: -1.0)
    told: list[str] = []
    assert learn(600, 300, Train(budget=60), folded=True, told=told).chosen.saw_valid
    assert any("linear from all 900 rows" in one and "trees from the 600 rows of training" in one for one in told)
    monkeypatch.setattr(_auto, "families", lambda layouts, *, more, several: [Candidate(Trees(rounds=20), 0.3)])
    told.clear()
    fitted = learn(600, 300, Train(budget=60), folded=True, told=told)
    assert not any("rows" in one for one in told)
    assert not fitted.chosen.saw_valid
    np.testing.assert_array_equal(fitted.chosen.model.predict(fitted.chosen.weights, made("valid", 300).rows), fitted.chosen.valid_scores)


def test_rows_that_weigh_nothing_do_not_speak_against_a_student() -> None:
    rows = made("valid", 200)
    good = np.where(rows.target == 1, 2.0, -2.0)
    bad = np.where(np.arange(200) < 100, good, -good)
    assert not as_good(bad, good, rows, TASK)
    assert as_good(bad, good, replace(rows, weight=(np.arange(200) < 100).astype(float)), TASK)


def test_a_row_is_shown_to_a_student_with_each_likely_class_weighed_by_how_likely() -> None:
    rows = made("train", 50)
    soft = softened(rows, np.full(50, np.log(3.0)), TASK)
    assert len(soft) == 100
    assert soft.weight is not None
    assert soft.weight[soft.target == 1] == pytest.approx(0.75)
    assert soft.weight[soft.target == 0] == pytest.approx(0.25)


def test_the_portfolio_holds_leaves_back_and_puts_deep_trees_first_where_there_are_many_rows() -> None:
    for n in (5_000, 100_000):
        found = [c.model.plain() for c in portfolio(TASK, n, layouts) if c.model.type == "trees"]
        assert len(found) >= 4
        assert all(one["l2"] >= 1 and one["min_leaf_weight"] >= 0.1 for one in found)
        assert (found[0]["leaves"] > 100) == (n == 100_000)


def test_a_column_that_keeps_its_shape_gets_networks() -> None:
    def shaped(form: Any) -> dict[str, Layout]:
        return {"photo": Layout("image", 64, (), (8, 8, 1))}

    assert [one.model.type for one in families(shaped, more=True)] == ["linear", "trees", "network"]
    assert {one.model.type for one in portfolio(TASK, 5000, shaped)} == {"network"}


def test_variations_follow_from_the_seed_and_stay_within_what_settings_allow() -> None:
    def drawn(seed: int) -> list[Model]:
        found = variations([Trees(), Model.parse("catboost"), Model.parse("linear")], TASK, seed)
        return [next(found).model for _ in range(20)]

    assert drawn(7) == drawn(7)
    assert drawn(7) != drawn(8)
    assert {one.type for one in drawn(7)} == {"trees", "catboost"}
    assert list(variations([Model.parse("linear")], TASK, 7)) == []
