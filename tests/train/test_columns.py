"""Several target columns: what they ask for, what cannot be predicted together, and the answers as numbers."""

from datetime import datetime
from typing import Any

import polars as pl
import pytest

from modelinscale.core.errors import DataError
from modelinscale.core.task import Task, TaskType
from modelinscale.train import encode_targets, find_task, see

NUMBERS: dict[str, list[Any]] = {"length": [1.5, 2.5, 4.0, None], "n": [3, 0, 1, 2]}
FLAGS: dict[str, list[Any]] = {"wet": [True, False, True, None], "cold": [0, 1, 1, 0]}


def task_of(columns: dict[str, list[Any]], declared: TaskType | None = None, pieces: int = 1) -> Task:
    frame, names = pl.DataFrame(columns, strict=False), tuple(columns)
    return find_task(see(frame.iter_slices(-(-len(frame) // pieces)), names), names, declared)


def test_columns_of_numbers_are_several_numbers_in_the_order_they_are_named() -> None:
    found = task_of(NUMBERS)
    assert (found.type, found.targets, found.width, found.target) == ("regression", ("length", "n"), 2, "length, n")
    assert found.columns == found.answer_keys == ("length", "n")
    assert encode_targets(pl.DataFrame(NUMBERS).head(2), found).tolist() == [[1.5, 3.0], [2.5, 0.0]]


def test_columns_of_flags_are_several_labels_with_the_names_of_the_columns() -> None:
    found = task_of(FLAGS)
    assert (found.type, found.labels, found.targets, found.answer_keys) == ("multilabel", ("wet", "cold"), ("wet", "cold"), ())
    assert encode_targets(pl.DataFrame(FLAGS).head(2), found).tolist() == [[1, 0], [0, 1]]


def test_columns_of_ones_and_noughts_are_numbers_where_that_is_said() -> None:
    counts = {"a": [0, 1, 1], "b": [1, 0, 1]}
    assert task_of(counts).type == "multilabel"
    assert task_of(counts, "regression").type == "regression"
    assert task_of({**counts, "c": [0, 1, 2]}).type == "regression"


@pytest.mark.parametrize("columns", [NUMBERS, FLAGS], ids=["numbers", "flags"])
def test_a_table_gone_through_in_pieces_asks_for_the_same(columns: dict[str, list[Any]]) -> None:
    assert task_of(columns, pieces=4) == task_of(columns, pieces=2) == task_of(columns)


def test_a_part_without_any_whole_row_changes_nothing() -> None:
    frame = pl.DataFrame(NUMBERS)
    assert find_task(see([frame.tail(1), frame.head(3)], ("length", "n")), ("length", "n")) == task_of(NUMBERS)


@pytest.mark.parametrize(
    ("columns", "declared", "said"),
    [
        ({"a": [1.0, 2.0], "b": ["x", "y"]}, None, "'b' holds words. Several targets are all numbers, or all flags"),
        ({"a": [1.0, 2.0], "b": [datetime(2026, 1, 1), datetime(2026, 1, 2)]}, None, "'b' holds moments"),
        ({"a": [1.0, 2.0], "b": [[1.0], [2.0]]}, None, "'b' holds lists"),
        ({"a": [True, False], "b": [1.5, 2.5]}, None, r"mixes flags \(a\) and numbers \(b\), which one answer cannot hold"),
        ({"a": [None, 2.0], "b": [1.5, None]}, None, "no row has a value in each of a, b"),
        ({"a": [1.0, 2.0], "b": [1.5, 1.5]}, None, r"the same in every row \(b is 1.5\)"),
        ({"a": [True, False], "b": [True, True]}, None, r"the same in every row \(b is 1\)"),
        ({"a": [1.0, 2.0], "b": [1.5, float("inf")]}, None, "b: some rows hold an infinite number"),
        ({"a": [True, False], "b": [False, True]}, "regression", "`task: regression` needs numbers, and a, b are flags"),
        ({"a": [1, 0], "b": [1, 3]}, "multilabel", "needs flags, and b holds other numbers than 0 and 1"),
    ],
)
def test_columns_that_cannot_be_predicted_together_are_named(columns: dict[str, list[Any]], declared: TaskType | None, said: str) -> None:
    with pytest.raises(DataError, match=said):
        task_of(columns, declared)


@pytest.mark.parametrize(
    ("columns", "cell", "said"),
    [(NUMBERS, None, "1 rows have no finite number as 'length'"), (FLAGS, None, "1 rows have no flag"), (FLAGS, 2, r"no flag \(true or false, 1 or 0\)")],
)
def test_cells_that_are_no_answer_are_refused_by_column(columns: dict[str, list[Any]], cell: Any, said: str) -> None:
    task, first = task_of(columns), next(iter(columns))
    frame = pl.DataFrame(columns).head(3).with_columns(pl.Series(first, [1, 0, cell], strict=False))
    with pytest.raises(DataError, match=said):
        encode_targets(frame, task)


def test_as_many_names_as_numbers() -> None:
    with pytest.raises(DataError, match="cannot have the 2 target columns"):
        Task(type="regression", target="a, b", targets=("a", "b"), width=3)
