"""Leaks: splits that let test rows be known, and columns that give the target away."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modelinscale.core.errors import DataError
from modelinscale.core.schema import Column, Schema
from modelinscale.data.arrow import column_of
from modelinscale.data.leaks import Leak, find_leaks, guard, honest, suspects
from modelinscale.data.split import TEST, TRAIN, Split, assign

N = 2000
GENERATOR = np.random.default_rng(7)
ROWS = pa.table(
    {
        "a": GENERATOR.normal(size=N),
        "b": GENERATOR.choice(["x", "y"], N),
        "g": GENERATOR.integers(0, 100, N),
        "t": pa.array([datetime(2024, 1, 1) + timedelta(hours=i) for i in range(N)], pa.timestamp("us")),
        "y": GENERATOR.integers(0, 2, N),
    }
)


def leaks_of(rows: pa.Table, time: str | None = None, **settings: Any) -> tuple[Leak, ...]:
    split = Split(**settings)
    parts = assign(rows, split, target="y", content=("a", "b"), time=time)
    return find_leaks(rows, parts, split, target="y", content=("a", "b"), time=time)


def test_a_plain_table_may_be_split_at_random() -> None:
    assert leaks_of(ROWS, type="random") == ()
    assert leaks_of(ROWS) == ()


def test_equal_rows_in_two_parts_are_counted() -> None:
    rows = pa.concat_tables([ROWS, ROWS.slice(0, 500)])
    (leak,) = leaks_of(rows, type="random")
    split = Split(type="random")
    parts = assign(rows, split, target="y", content=("a", "b"))
    pairs = [(parts[i], parts[N + i]) for i in range(500)]
    assert leak.kind == "duplicates"
    assert leak.n_rows == sum(int(p != TRAIN) + int(q != TRAIN) for p, q in pairs if p != q)
    assert leak.n_held_out == int((parts != TRAIN).sum())
    assert leaks_of(rows, type="hash") == ()


def test_a_group_in_two_parts_is_counted() -> None:
    (leak,) = leaks_of(ROWS, type="random", group="g")
    assert (leak.kind, leak.n_rows) == ("group", leak.n_held_out)
    assert "Write `split: {type: group, group: g}`" in leak.fix
    assert leaks_of(ROWS, type="group", group="g") == ()


def test_a_draw_over_time_is_counted() -> None:
    (leak,) = leaks_of(ROWS, time="t", type="hash")
    assert leak.kind == "time"
    assert leak.n_rows >= leak.n_held_out - 5
    assert leaks_of(ROWS, time="t") == ()
    assert leaks_of(ROWS, time="t", type="group", group="g") == ()


def test_a_leaking_split_is_refused_with_what_to_write_instead() -> None:
    rows = pa.concat_tables([ROWS, ROWS.slice(0, 500)])
    split = Split(type="random", group="g")
    parts = assign(rows, split, target="y", content=("a", "b"))
    with pytest.raises(DataError) as caught:
        guard(rows, parts, split, target="y", content=("a", "b"), time="t")
    message = str(caught.value)
    assert message.startswith("This split leaks in 3 ways:\n")
    for words in (
        "rows held out have an equal row",
        "{type: hash}",
        "belong to a g that is in another part",
        "{type: group, group: g}",
        "{type: time}",
        "`force: true`",
    ):
        assert words in message


def test_a_forced_split_passes_and_says_what_to_compare_with() -> None:
    split = Split(type="random", group="g", valid=0.1, test=0.2, seed=3, force=True)
    parts = assign(ROWS, split, target="y", content=("a", "b"))
    leaks = guard(ROWS, parts, split, target="y", content=("a", "b"), time="t")
    assert [leak.kind for leak in leaks] == ["group", "time"]
    fair = honest(split, leaks)
    assert (fair.type, fair.valid, fair.test, fair.seed, fair.force) == ("time", 0.1, 0.2, 3, False)
    again = assign(ROWS, fair, target="y", content=("a", "b"), time="t")
    assert guard(ROWS, again, fair, target="y", content=("a", "b"), time="t") == ()
    assert np.mean(again == TEST) == pytest.approx(0.2, abs=0.01)
    assert honest(split, leaks[:1]).group == ("g",)
    assert honest(Split(type="random", force=True), [Leak("duplicates", 1, 2, "", "")]).type == "hash"


# Columns.


def told(target: str = "y", **columns: Any) -> dict[str, str]:
    rows = pa.table(columns)
    schema = Schema(columns=tuple(column_of(n, rows.schema.field(n).type) for n in rows.column_names))
    found = suspects(rows, target, schema)
    frame = pl.from_arrow(rows)
    assert isinstance(frame, pl.DataFrame)
    assert suspects(frame, target, schema) == found
    return found


def noise(seed: int = 1) -> Any:
    return np.random.default_rng(seed).normal(size=N)


CLASS = np.arange(N) % 3 == 0


def test_nothing_is_told_of_plain_columns() -> None:
    generator = np.random.default_rng(3)
    assert (
        told(
            y=CLASS,
            a=noise(),
            money=generator.integers(100, 10**6, N),
            word=generator.choice(["a", "b", "c"], N),
            text=[f"some words about thing {i} and more" for i in range(N)],
            flag=generator.integers(0, 2, N).astype(bool),
            rare=np.where(np.arange(N) == 7, 1, 0),
        )
        == {}
    )


def test_columns_that_never_change_are_told() -> None:
    found = told(y=CLASS, one=[1] * N, word=["same"] * N, none=pa.nulls(N, pa.string()), nearly=[1] * (N - 1) + [2], some=pa.array([1] * (N - 1) + [None]))
    assert found == {"one": "always 1", "word": "always 'same'", "none": "always missing"}


def test_constant_is_checked_over_all_rows() -> None:
    n_rows = 60_001
    assert told(y=np.arange(n_rows) % 2 == 0, x=[0] * 5 + [1] + [0] * (n_rows - 6)) == {}


def test_counters_and_identifiers_are_told() -> None:
    generator = np.random.default_rng(3)
    found = told(
        y=CLASS,
        row=np.arange(10, N + 10),
        back=np.arange(N, 0, -1) * 5,
        shuffled=generator.permutation(N),
        account_id=generator.choice(10**9, N, replace=False),
        uuid=[f"{i:032x}" for i in generator.choice(10**9, N, replace=False)],
        counted=np.arange(N) / 1.0,
    )
    assert found == {
        "row": "a row counter",
        "back": "a row counter",
        "shuffled": "an identifier: every row has a number of its own",
        "account_id": "an identifier: every row has a number of its own",
        "uuid": "an identifier: nearly every row has a value of its own",
        "counted": "a row counter",
    }


def test_a_class_told_by_each_value_is_told() -> None:
    generator = np.random.default_rng(3)
    code = generator.integers(0, 40, N)
    found = told(y=np.where(code < 13, "yes", "no"), code=code, noisy=np.where(np.arange(N) == 5, 99, code) % 39, a=noise())
    assert found == {"code": "gives y away: each of its 40 values goes with one value of y only"}


def test_a_copy_of_the_target_is_told_for_classes_and_numbers() -> None:
    y = noise(5)
    assert set(told(y=CLASS, copy=CLASS, words=np.where(CLASS, "sick", "well"))) == {"copy", "words"}
    assert set(told(y=y, scaled=y * 3 + 1, logged=np.exp(y), negative=-y, near=y + 1e-3 * noise())) == {"scaled", "logged", "negative"}


def test_a_column_filled_in_for_one_class_only_is_told() -> None:
    left = pa.array([None if c else float(i) for i, c in enumerate(CLASS)])
    assert told(y=CLASS, left_on=left) == {"left_on": "gives y away: it is missing for exactly one of its values"}


def test_a_range_for_each_class_is_told() -> None:
    found = told(y=np.arange(N) % 4, x=(np.arange(N) % 4) * 10 + np.abs(noise()).clip(0, 9), z=noise())
    assert found == {"x": "gives y away: each value of y has a range of its own"}


def test_sums_and_differences_are_told() -> None:
    a, b, c = (np.round(np.abs(noise(i)) * 100, 2) for i in (1, 2, 3))
    assert told(y=a + b, a=a, b=b, c=c) == {"a": "gives y away: a + b = y", "b": "gives y away: a + b = y"}
    assert told(y=a - b, a=a, b=b, c=c)["b"] == "gives y away: a - b = y"
    assert set(told(y=a + b - c, a=a, b=b, c=c, d=noise(9))) == {"a", "b", "c"}
    assert told(y=a + b + 0.01 * c, a=a, b=b, d=noise(9)) == {}


def test_a_few_rows_prove_nothing() -> None:
    assert told(y=[True, False] * 10, copy=[True, False] * 10, row=list(range(20)), one=[1] * 20) == {"one": "always 1"}


def test_vectors_and_missing_cells_are_passed_over() -> None:
    rows = pa.table(
        {
            "v": pa.array([[1.0, 2.0]] * N, pa.list_(pa.float32(), 2)),
            "half": pa.array([None if i % 2 else float(i) for i in range(N)]),
            "y": pa.array([None if i % 5 == 0 else bool(c) for i, c in enumerate(CLASS)]),
        }
    )
    schema = Schema(columns=(Column(name="v", type="vector", width=2), Column(name="half", type="float"), Column(name="y", type="bool")))
    assert suspects(rows, "y", schema) == {}
    assert suspects(rows.slice(0, 0), "y", schema) == {}


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "target", "expected"),
    [
        ("bike-sharing/hour.parquet", "cnt", {"instant", "casual", "registered"}),
        ("california-housing/data.parquet", "median_house_value", set()),
        ("diamonds/data.parquet", "price", set()),
        ("covertype/data.parquet", "cover_type", set()),
        ("adult/data.parquet", "income", set()),
        ("sms-spam/data.parquet", "label", set()),
    ],
)
def test_real_sets(real_data: Path, name: str, target: str, expected: set[str]) -> None:
    rows = pq.read_table(real_data / name)
    schema = Schema(columns=tuple(column_of(n, rows.schema.field(n).type) for n in rows.column_names))
    assert set(suspects(rows, target, schema)) == expected
