"""Folds: rows that belong together stay together; none where the split goes by time or a person drew it."""

import numpy as np
import polars as pl
import pytest

from modelinscale.data.folds import folds
from modelinscale.data.split import TRAIN, VALID, Split, assign, held_rows

N = 3_000
TABLE = pl.DataFrame(
    {
        "a": np.arange(N) // 3,  # each row three times
        "who": np.arange(N) % 300,
        "when": pl.Series(np.arange(N) * 60_000_000).cast(pl.Datetime("us")),
        "part": np.where(np.arange(N) % 5 == 0, "test", "train"),
        "y": np.arange(N) // 3 % 2,
    }
)


def made(split: Split, time: str | None = None) -> tuple[np.ndarray[tuple[int], np.dtype[np.int8]] | None, pl.DataFrame]:
    parts = assign(TABLE, split, target="y", content=["a"], time=time)
    rows = pl.concat([TABLE.filter(pl.Series(parts == part)) for part in (TRAIN, VALID)])
    found = folds(held_rows(TABLE, TABLE.columns), parts, split, time=time, content=["a"], target="y")
    return None if found is None else found.astype(np.int8), rows


@pytest.mark.parametrize(("split", "together"), [(Split(), "a"), (Split(group=("who",)), "who"), (Split(column="part"), "a")])
def test_equal_rows_and_rows_of_a_group_are_in_one_fold(split: Split, together: str) -> None:
    found, rows = made(split)
    assert found is not None
    assert len(found) == len(rows)
    assert set(found.tolist()) == {0, 1, 2, 3, 4}
    assert rows.with_columns(fold=pl.Series(found)).group_by(together).agg(pl.col("fold").n_unique())["fold"].max() == 1


def test_a_split_in_time_has_no_folds() -> None:
    assert made(Split(), time="when")[0] is None


def test_a_column_that_names_the_rows_that_choose_has_no_folds() -> None:
    parts = np.where(np.arange(N) % 5 == 0, VALID, TRAIN).astype(np.int8)
    table = TABLE.with_columns(part=pl.Series(np.where(parts == VALID, "valid", "train")))
    assert folds(held_rows(table, table.columns), parts, Split(column="part"), time=None, content=["a"], target="y") is None


def test_two_groups_are_too_few_to_fold() -> None:
    table = TABLE.with_columns(who=pl.col("who") % 2)
    parts = np.where(table["who"].to_numpy() == 0, TRAIN, VALID).astype(np.int8)
    assert folds(held_rows(table, table.columns), parts, Split(group=("who",)), time=None, content=["a"], target="y") is None
