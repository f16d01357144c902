"""Sets and intervals hold the truth as often as asked, on rows that set no limit."""

from typing import Literal

import numpy as np
import pytest

from modelinscale.core.decision import Decision
from modelinscale.core.errors import SpecError
from modelinscale.core.seeds import generator
from modelinscale.core.task import Task
from modelinscale.evaluate import Evaluate, check, evaluate
from modelinscale.evaluate._conformal import fit, quantile
from modelinscale.metrics import Answers

BINARY = Task(type="binary", target="y", labels=("no", "yes"))
MANY = Task(type="multiclass", target="y", labels=("a", "b", "c", "d", "e"))
NUMBER = Task(type="regression", target="y")
N = 4000


def classes(n_classes: int, n_rows: int = N, seed: int = 1, sharp: float = 2.0) -> Answers:
    """Honest probabilities: truth is drawn from them."""
    chance = generator(seed, "rows", n_classes)
    z = sharp * chance.normal(size=(n_rows, n_classes))
    z[:, 0] += 1.0  # one class is common
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    truth = (chance.random((n_rows, 1)) > p.cumsum(1)).sum(1).clip(0, n_classes - 1).astype(np.int64)
    return Answers(truth, p.argmax(1).astype(np.int64), p)


def numbers(n_rows: int = N, seed: int = 1) -> Answers:
    """Large answers are further off."""
    chance = generator(seed, "numbers")
    answer = chance.random(n_rows) * 10
    return Answers(answer + (0.1 + answer) * chance.normal(size=n_rows), answer, None)


@pytest.mark.parametrize("sets", ["lac", "aps", "raps"])
@pytest.mark.parametrize("coverage", [0.8, 0.95])
def test_sets_hold_the_truth_as_often_as_asked(sets: Literal["lac", "aps", "raps"], coverage: float) -> None:
    settings = Evaluate(coverage=coverage, sets=sets, n_bootstrap=50)
    found = evaluate(classes(5, seed=2), MANY, settings, decision=Decision(), constant=[0.2] * 5, valid=classes(5)).conformal
    assert found is not None
    assert found.covered.value == pytest.approx(coverage, abs=0.025)
    assert sum(found.sizes) == N
    assert found.sizes[0] == 0


def test_lac_gives_the_smallest_sets() -> None:
    size = {}
    for sets in ("lac", "aps", "raps"):
        settings = Evaluate.model_validate({"sets": sets, "n_bootstrap": 50})
        found = evaluate(classes(5, seed=2), MANY, settings, decision=Decision(), constant=[0.2] * 5, valid=classes(5)).conformal
        assert found is not None
        size[sets] = found.mean_size or 0
    assert size["lac"] < size["raps"] <= size["aps"] + 0.02


def test_rare_classes_are_covered_as_often_only_when_each_class_has_its_own_limit() -> None:
    lowest = {}
    for by_class in (False, True):
        settings = Evaluate(coverage=0.9, coverage_by_class=by_class, n_bootstrap=50)
        found = evaluate(classes(5, seed=2), MANY, settings, decision=Decision(), constant=[0.2] * 5, valid=classes(5)).conformal
        assert found is not None
        of_classes = [s for s in found.slices if s.column == "y"]
        assert len(of_classes) == 5
        lowest[by_class] = min(s.covered.value or 0.0 for s in of_classes)
    assert lowest[True] > 0.87
    assert lowest[False] < lowest[True]


def test_intervals_hold_the_truth_as_often_as_asked_and_by_fifths_everywhere() -> None:
    test, valid = numbers(seed=2), numbers()
    for by_class in (False, True):
        rule = fit(valid, Evaluate(coverage=0.9, coverage_by_class=by_class, n_bootstrap=50))
        assert rule is not None
        inside = np.abs(test.truth - test.decision) <= rule.half(test)
        assert inside.mean() == pytest.approx(0.9, abs=0.02)
        large = test.decision > 8
        assert (inside[large].mean() > 0.87) == by_class


def test_a_class_with_too_few_rows_is_always_in_the_set() -> None:
    valid = classes(5)
    rare = Answers(np.where(valid.truth == 4, 3, valid.truth), valid.decision, valid.probability)
    rule = fit(rare, Evaluate(coverage_by_class=True, n_bootstrap=50))
    assert rule is not None
    assert np.isinf(rule.limits[4])
    assert rule.sets(classes(5, seed=2))[:, 4].all()


def test_leaving_out_the_least_sure_rows_halves_the_errors() -> None:
    answers = classes(2, seed=2)
    found = evaluate(answers, BINARY, Evaluate(n_bootstrap=50), decision=Decision(), constant=[0.5, 0.5], valid=classes(2)).conformal
    assert found is not None
    left = found.abstention
    assert left is not None
    assert left.share is not None
    assert left.error_left is not None
    assert 0.05 < left.share < 0.9
    assert left.error_left == pytest.approx(left.error / 2, rel=0.2)
    assert list(left.points[0]) == pytest.approx([0.0, left.error])


def test_a_test_split_unlike_the_validation_rows_is_told() -> None:
    shifted = numbers(seed=2)
    found = evaluate(Answers(shifted.truth + 5, shifted.decision, None), NUMBER, Evaluate(n_bootstrap=50), decision=Decision(), constant=[0.0], valid=numbers())
    assert any("hold it for" in note for note in found.notes)


def test_few_validation_rows_or_no_wish_give_no_sets() -> None:
    few = evaluate(classes(2), BINARY, Evaluate(n_bootstrap=50), decision=Decision(), constant=[0.5, 0.5], valid=classes(2, 10))
    none = evaluate(classes(2), BINARY, Evaluate(coverage=None, n_bootstrap=50), decision=Decision(), constant=[0.5, 0.5], valid=classes(2))
    assert few.conformal is None
    assert none.conformal is None


def test_a_limit_needs_enough_rows() -> None:
    assert quantile(np.arange(1.0, 10.0), 0.9) == 9.0
    assert quantile(np.arange(1.0, 9.0), 0.9) == float("inf")


def test_sets_of_numbers_are_refused() -> None:
    with pytest.raises(SpecError, match="`sets` is for classes"):
        check(Evaluate(sets="aps", n_bootstrap=50), NUMBER)
