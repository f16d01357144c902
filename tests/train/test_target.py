"""From a target column to a task."""

import math
from typing import Any

import numpy as np
import polars as pl
import pytest

from modelinscale.core.encoded import Encoded, Layout
from modelinscale.core.errors import DataError
from modelinscale.core.task import Label, Task
from modelinscale.models import Examples
from modelinscale.train import encode_target, find_task, row_weights
from modelinscale.train._target import Totals, class_factors


@pytest.mark.parametrize(
    ("cells", "type", "labels"),
    [
        ([True, False, None], "binary", (False, True)),
        (["ham", "spam", "ham"], "binary", ("ham", "spam")),
        (["yes", "no"], "binary", ("no", "yes")),
        (["<=50K", "<=50K", ">50K"], "binary", ("<=50K", ">50K")),
        ([">50K", ">50K", "<=50K"], "binary", (">50K", "<=50K")),
        ([0, 1, 1, 1], "binary", (0, 1)),
        ([-1, 1, 1], "binary", (-1, 1)),
        ([1.0, 2.0, 2.0, None], "binary", (2, 1)),
        (["good", "fraud", "good"], "binary", ("good", "fraud")),
        (["a", "b", "c"], "multiclass", ("a", "b", "c")),
        ([3, 1, 2] * 8, "multiclass", (1, 2, 3)),
        ([1, 2, 3, 4], "regression", ()),
        (list(range(200)), "regression", ()),
        ([0.5, 0.25, 0.5], "regression", ()),
        ([0.5, 0.25, float("nan")], "regression", ()),
        (["", "x", "y"], "binary", ("x", "y")),
    ],
)
def test_the_task_follows_from_the_values(cells: list[Any], type: str, labels: tuple[Label, ...]) -> None:
    found = find_task(pl.Series("y", cells), "y")
    assert (found.type, found.labels) == (type, labels)


def test_a_declared_task_wins() -> None:
    assert find_task(pl.Series([0, 1, 1]), "y", "regression").type == "regression"
    assert find_task(pl.Series(range(30)), "y", "multiclass").labels == tuple(range(30))


@pytest.mark.parametrize("declared", ["no", "No", False])
def test_the_declared_positive_class_wins_however_it_is_written(declared: Label) -> None:
    assert find_task(pl.Series(["no", "yes", "yes"]), "y", None, declared).labels == ("yes", "no")


@pytest.mark.parametrize(
    ("cells", "declared", "positive", "words"),
    [
        ([1, 1, 1], None, None, "same 'y': 1"),
        (["a", None], None, None, "same 'y': 'a'"),
        ([None, None], None, None, "no row has a value"),
        ([float("nan")], None, None, "no row has a value"),
        ([], None, None, "no row has a value"),
        (["a", "b"], "regression", None, "needs numbers"),
        (["a", "b", "c"], "binary", None, "needs 2 different values of 'y', found 3"),
        (["a", "b"], "multiclass", None, "needs more than 2"),
        ([0.5, 0.25, 0.75], "multiclass", None, "a fraction"),
        ([f"id{i}" for i in range(1500)], None, None, "1,500 different values in 1,500 rows"),
        (["yes", "no"], None, "yse", "Did you mean 'yes'"),
        (["a", "b", "c"], None, "a", "has 3 classes"),
        ([0.5, 0.25, 0.75], None, 1, "a number to predict"),
        ([1.5, math.inf], None, None, "infinite in 1 rows"),
        ([[1.0], [2.0]], None, None, "lists of one number"),
        ([[[1.0]], [[2.0]]], None, None, "lists of lists"),
        ([[1.0, 2.0], None, [3.0, None]], None, None, r"in row 2 \(counted from 0\) its number 2 of 2 is missing"),
        ([[1.0, 2.0], [3.0, math.inf]], None, None, "in row 1 .* its number 2 of 2 is infinite"),
        ([[1.0, 2.0], [3.0]], "regression", None, "in row 1 .* has 1 numbers, that of row 0 has 2"),
        ([[1.0, 2.0], [3.0, 5.0]], "multiclass", None, "is not for lists of numbers"),
    ],
)
def test_what_cannot_be_learned_says_why(cells: list[Any], declared: Any, positive: Label | None, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        find_task(pl.Series("y", cells), "y", declared, positive)
    assert caught.value.fix


def test_classes_become_their_index_and_numbers_stay() -> None:
    task = Task(type="multiclass", target="y", labels=(3, 5, 8))
    assert encode_target(pl.Series([8.0, 3.0, 5.0]), task).tolist() == [2, 0, 1]
    assert encode_target(pl.Series([True, False]), Task(type="binary", target="y", labels=(False, True))).tolist() == [1, 0]
    numbers = encode_target(pl.Series([1, 2]), Task(type="regression", target="y"))
    assert numbers.dtype == np.float64


def test_a_class_never_seen_or_missing_is_named() -> None:
    task = Task(type="binary", target="y", labels=("no", "yes"))
    with pytest.raises(DataError, match=r"2 rows .* none of the classes"):
        encode_target(pl.Series(["yes", "maybe", None]), task)
    with pytest.raises(DataError, match="no finite number"):
        encode_target(pl.Series([1.0, None]), Task(type="regression", target="y"))


@pytest.mark.parametrize("cells", [[1.0, -1.0], [1.0, None], [float("nan"), 1.0], [math.inf, 1.0], [0, 0]])
def test_odd_row_weights_are_refused(cells: list[Any]) -> None:
    with pytest.raises(DataError, match="cannot be a row weight"):
        row_weights(pl.Series("w", cells))


def test_text_is_no_row_weight() -> None:
    with pytest.raises(DataError, match="cannot be a row weight"):
        row_weights(pl.Series("w", ["1"]))


def examples(target: list[int], weight: list[float] | None = None) -> Examples:
    n = len(target)
    rows = Encoded({"x": Layout("dense", 1, ("x",))}, {"x": np.zeros((n, 1), np.float32)})
    return Examples(rows, np.array(target), None if weight is None else np.array(weight))


def totals(train: Examples) -> Totals:
    return Totals.of([(train.target, train.weight)], BINARY)


BINARY = Task(type="binary", target="y", labels=(0, 1))


def test_balanced_classes_weigh_the_same_and_a_row_one_on_average() -> None:
    train = examples([0, 0, 0, 1], [1.0, 1.0, 2.0, 2.0])
    balanced = train.weighed(class_factors(totals(train), BINARY, "balanced"))
    assert balanced.weight is not None
    assert np.bincount(train.target, balanced.weight).tolist() == [3.0, 3.0]


def test_class_weights_are_found_by_label_as_text_or_as_it_is() -> None:
    for wanted in ({"1": 5.0}, {1: 5.0}):
        found = class_factors(totals(examples([0, 1])), BINARY, wanted)  # type: ignore[arg-type]
        assert found is not None
        assert found.tolist() == [1.0, 5.0]


def test_a_class_weight_for_no_class_is_refused() -> None:
    with pytest.raises(DataError, match="names 'yes', which is no class"):
        class_factors(totals(examples([0, 1])), BINARY, {"yes": 2.0})
    with pytest.raises(DataError, match="a number to predict"):
        class_factors(totals(examples([0, 1])), Task(type="regression", target="y"), "balanced")
