"""A cell means the same whether it was collected from a file or sent in a request."""

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelinscale.core.encoded import InputType
from modelinscale.core.schema import Column
from modelinscale.data._cells import EPOCHS, FALSE_WORDS, FIRST_MOMENT, LAST_MOMENT, NULL_WORDS, TRUE_WORDS, read_cells
from modelinscale.encode.tensors import to_input, to_numpy
from modelinscale.encode.tensors import written_float as written_in_training
from modelinscale.package import InputColumn, _cell_moments, _cell_words
from modelinscale.package._cells import BadCell, Reader
from modelinscale.testing.examples import examples

COLUMNS: list[tuple[Column, tuple[InputType, ...]]] = [
    (Column(name="x", type="float"), ("float64", "string")),
    (Column(name="x", type="float", decimal=",", thousands="."), ("float64",)),
    (Column(name="x", type="float", thousands=",", affixes=("$", "USD", "%")), ("float64",)),
    (Column(name="x", type="float", thousands=" ", nulls=("keine",)), ("float64",)),
    (Column(name="x", type="int"), ("float64", "string", "int64")),
    (Column(name="x", type="int", thousands="'", affixes=("oz", "oz.")), ("float64",)),
    (Column(name="x", type="bool"), ("float64", "string")),
    (Column(name="x", type="bool", true_words=("ja", "j"), false_words=("nein",)), ("float64",)),
    (Column(name="x", type="string"), ("string",)),
    (Column(name="x", type="string", nulls=("NA", "?")), ("string",)),
    (Column(name="x", type="time"), ("int64", "string", "float64")),
    (Column(name="x", type="time", format="iso"), ("int64",)),
    (Column(name="x", type="time", format="%d/%m/%Y"), ("int64",)),
    (Column(name="x", type="time", format="%m/%d/%y %H:%M"), ("int64",)),
    (Column(name="x", type="time", format="%d %B %Y"), ("int64",)),
    (Column(name="x", type="time", format="%Y-%m-%d %H:%M:%S.%f"), ("int64",)),
    (Column(name="x", type="time", format="%I:%M %p, %b %d %Y"), ("int64",)),
    (Column(name="x", type="time", format="%Y-%d-%m"), ("int64",)),
    (Column(name="x", type="time", format="%Y/%m/%d %H:%M"), ("int64",)),
    (Column(name="x", type="time", format="epoch_s"), ("int64",)),
    (Column(name="x", type="time", format="epoch_ms"), ("int64",)),
    (Column(name="x", type="vector", width=2), ("vector",)),
]
TEXTS = [
    "", " ", "0", "-0", "1", " 1 ", "+1", "1.0", "1.", ".5", "1e3", "1E-3", "1e999", "-1e999", "nan", "NaN", "inf", "-Infinity", "1,5",
    "1.5", "1.234,5", "1,234.5", "1,23,456", "1,2345", "12,34", ",5", "1 234", "1\u202f234", "1\xa0234", "1'234", "$5", "-$5", "$-5",
    "5 USD", "5%", "5 usd", "USD 1,234", "7oz", "7 oz.", "7 OZ", "0x1F", "0xZZ", "007", "9007199254740993", "9223372036854775807",
    "9223372036854775808", "-9223372036854775808", "99999999999999999999", "1_000", "１２", "−3", "3−", "\ufeff4", "5\u200b", "½", "NA", "na",
    "N/A", "?", "-", "--", "null", "None", "keine", "KEINE", "true", "TRUE", "False", "ja", "J", "nein", "yes", "t", "a", "é", "a b",
    "a\tb", "2024-05-01", "2024-5-1", "20240501", "2024-05-01T13:00", "2024-05-01 13:00:01", "2024-05-01t13:00:01.5Z",
    "2024-05-01T13:00:00,25", "2024-05-01T13:00:00.123456789", "2024-05-01T13:00:00+02:00", "2024-05-01 13:00:00 UTC", "2024-05-01T13",
    "2024-13-01", "2024-02-30", "0001-01-01", "9999-12-31T23:59:59.999999", "10000-01-01", "0000-01-01", "2024-05-01T24:00",
    "2024-05-01T13:60", "2024-13-05", "2024-05-13", "2026-03-04T10:00:00Z", "２０２４-05-13", "2026-03-04Z", "2026-03-04 10", "2026-03-04T",
    "01/02/2024", "1/2/2024", "31/02/2024", "01/02/24", "01/02/0024", "01/02/24 10:30", "1/2/69 1:05", "12/31/70 23:59",
    "1 May 2024", "01 september 2024", "1 Sept 2024", "3 Mar 2020", "2020-01-01 10:00:00.5", "2020-01-01 10:00:00",
    "2020-01-01 10:00:00.1234567", "01:05 PM, Jan 02 2024", "13:05 PM, Jan 02 2024", "1714568400", "1714568400.5", "1e9", "-62135596800",
    "1e18", "[1, 2]", "1 2", "(1;2)", "[1,2,3]", "[1]", "[1, x]", "1,2", "[1, nan]", "[1e39, 1]", "\x00", "a\x00", "x" * 600,
]  # fmt: skip


def typed(cells: "pa.Array", column: Column, input: InputType) -> tuple[list[Any], set[int]]:
    """Graph inputs by way of the lake, and the rows that were faults."""
    import polars as pl

    found, bad = read_cells(cells, column)
    series = pl.from_arrow(found)
    assert isinstance(series, pl.Series)
    if column.type == "vector":
        series = series.cast(pl.Array(pl.Float32, column.width or 0))
    tensor = to_numpy(to_input(series.alias("x"), input), input)
    return tensor.tolist(), set() if bad is None else set(bad.rows.to_pylist())


def served(cells: list[Any], column: Column, input: InputType) -> tuple[list[Any], set[int]]:
    """Graph inputs by way of a request, a cell at a time."""
    reader = Reader(InputColumn(column=column, input=input))
    values: list[Any] = []
    bad: set[int] = set()
    for row, cell in enumerate(cells):
        try:
            values.append(reader.read([cell]).tolist()[0])
        except BadCell:
            values.append(reader.read([None]).tolist()[0])
            bad.add(row)
    return values, bad


def the_same(cells: list[Any], array: "pa.Array", column: Column, input: InputType) -> None:
    values, bad = typed(array, column, input)
    others, refused = served(cells, column, input)
    assert bad == refused, {cells[i]: "only collected" if i in refused else "only served" for i in bad ^ refused}
    for cell, a, b in zip(cells, values, others, strict=True):
        assert repr(a) == repr(b), f"{cell!r}: collected as {a!r}, served as {b!r}"


@pytest.mark.parametrize("column", [c for c, _ in COLUMNS], ids=[f"{c.type}-{i}" for i, (c, _) in enumerate(COLUMNS)])
def test_text_is_read_alike(column: Column) -> None:
    inputs = next(inputs for c, inputs in COLUMNS if c is column)
    for input in inputs:
        the_same(TEXTS, pa.array(TEXTS, pa.string()), column, input)
    for start in range(0, len(TEXTS), 7):  # and in small companies, so that no cell decides how all the others are read
        few = TEXTS[start : start + 7]
        the_same(few, pa.array(few, pa.string()), column, inputs[0])


ODD_TEXTS = st.lists(st.text(st.sampled_from("0123456789.,-+eE /:'$ %xTZ"), max_size=12), min_size=1, max_size=20)


@settings(max_examples=examples(40), deadline=None)
@given(texts=ODD_TEXTS, column=st.sampled_from([c for c, _ in COLUMNS]))
def test_any_text_is_read_alike(texts: list[str], column: Column) -> None:
    for input in next(inputs for c, inputs in COLUMNS if c is column):
        the_same(texts, pa.array(texts, pa.string()), column, input)


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        ([0.0, -0.0, 1.5, 3.0, 1e16, 2.0**53, math.nan, None, math.inf, 1e300], pa.float64()),
        ([0, 1, -1, 2**53 + 1, 2**63 - 1, -(2**63), None], pa.int64()),
    ],
    ids=["floats", "ints"],
)
def test_numbers_are_read_alike(cells: list[Any], kind: "pa.DataType") -> None:
    for column, inputs in COLUMNS:
        if column.type in ("float", "int", "bool") or (column.format or "").startswith("epoch"):
            for input in inputs:
                the_same(cells, pa.array(cells, kind), column, input)


def test_vectors_are_read_alike() -> None:
    cells = [[1.0, 2.0], [1e39, 0.0], [0.1, -0.0], [1.0], [1.0, 2.0, 3.0], None, [math.nan, 1.0]]
    the_same(cells, pa.array(cells, pa.list_(pa.float64())), COLUMNS[-1][0], "vector")


def test_both_sides_know_the_same_words() -> None:
    assert frozenset(w.lower() for w in NULL_WORDS) == _cell_words.NULL_WORDS
    assert (TRUE_WORDS, FALSE_WORDS, EPOCHS) == (_cell_words.TRUE_WORDS, _cell_words.FALSE_WORDS, _cell_words.EPOCHS)
    assert (FIRST_MOMENT, LAST_MOMENT) == (_cell_moments.FIRST_MOMENT, _cell_moments.LAST_MOMENT)


@given(st.floats(allow_nan=False))
def test_floats_are_written_alike(value: float) -> None:
    assert written_in_training(value) == _cell_words.written_float(value)


def test_a_missing_cell_is_fed_alike() -> None:
    for column, inputs in COLUMNS:
        for input in inputs:
            np.testing.assert_equal(typed(pa.array([None], pa.null()), column, input)[0], served([None], column, input)[0])
