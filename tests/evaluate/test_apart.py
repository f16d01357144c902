"""Test rows that are unlike the validation rows are told of; those that differ by chance are not."""

import numpy as np
import pytest

from modelinscale.core.decision import Decision
from modelinscale.core.seeds import generator
from modelinscale.core.task import Task
from modelinscale.evaluate import Evaluate, evaluate
from modelinscale.metrics import Answers

BINARY = Task(type="binary", target="y", labels=("no", "yes"))
NUMBER = Task(type="regression", target="y")


def answered(accuracy: float, n_rows: int, seed: int) -> Answers:
    """Two classes, so many of them told apart."""
    chance = generator(seed, "answered")
    truth = chance.integers(0, 2, n_rows)
    said = np.where(chance.random(n_rows) < accuracy, truth, 1 - truth)
    likely = np.where(said == 1, 0.5, 0.1) + 0.4 * chance.random(n_rows)
    return Answers(truth, said, np.stack([1 - likely, likely], axis=1))


def notes(test: Answers, valid: Answers | None, task: Task = BINARY) -> list[str]:
    found = evaluate(test, task, Evaluate(), decision=Decision(), constant=[0.5, 0.5] if task is BINARY else [0.0], valid=valid)
    return [note for note in found.notes if "on the validation rows and" in note]


def test_a_metric_that_is_worse_on_test_rows_is_told_with_both_numbers() -> None:
    (note,) = notes(answered(0.75, 400, 1), answered(0.95, 400, 2))
    assert note.startswith("roc_auc is 0.9")
    assert "come from somewhere else" in note


@pytest.mark.parametrize("seed", range(5))
def test_what_chance_explains_is_not_told_nor_a_test_that_is_better(seed: int) -> None:
    assert notes(answered(0.9, 300, seed), answered(0.9, 300, 100 + seed)) == []
    assert notes(answered(0.95, 400, seed), answered(0.75, 400, 100 + seed)) == []


def test_an_error_is_worse_where_it_is_larger() -> None:
    chance = generator(7, "numbers")
    truth, noise = chance.normal(size=300), chance.normal(size=300)
    small, large = (Answers(truth, truth + scale * noise, None) for scale in (0.5, 1.5))
    assert len(notes(large, small, NUMBER)) == 1
    assert notes(small, large, NUMBER) == []


def test_without_validation_rows_or_with_few_nothing_is_said() -> None:
    assert notes(answered(0.6, 400, 1), None) == []
    assert notes(answered(0.6, 400, 1), answered(1.0, 5, 2)) == []
