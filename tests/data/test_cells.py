"""Cells to the lake's types: by habit, by value, never by accident."""

import math
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelinscale.core.schema import Column, ColumnType
from modelinscale.data._cells import read_cells
from modelinscale.data.arrow import arrow_type
from modelinscale.testing.examples import examples


def read(cells: Sequence[object] | pa.Array, type: ColumnType, **habits: Any) -> tuple[list[object], dict[int, tuple[str, str]]]:
    """The cells read, and the faults as {row: (value, reason)}; checks what holds for every column."""
    column = Column(name="x", type=type, **habits)
    array = cells if isinstance(cells, pa.Array) else pa.array(cells, pa.string())
    found, bad = read_cells(array, column)
    assert found.type == arrow_type(column)
    assert len(found) == len(array)
    faults = {} if bad is None else dict(zip(bad.rows.to_pylist(), zip(bad.values.to_pylist(), bad.reason.to_pylist(), strict=True), strict=True))
    if bad is not None:
        assert bad.rows.to_pylist() == sorted(faults)
        assert bad.rows.type == pa.int64()
        assert found.take(bad.rows).null_count == len(bad.rows), "what cannot be read is missing"
    return found.to_pylist(), faults


@pytest.mark.parametrize(
    ("type", "cell", "value"),
    [
        ("int", "42", 42),
        ("int", "9223372036854775807", 2**63 - 1),
        ("int", "-9223372036854775808", -(2**63)),
        ("int", "+7", 7),
        ("int", "007", 7),
        ("int", "5.0", 5),
        ("int", "1e3", 1000),
        ("int", "0x1F", 31),
        ("int", "４２", 42),
        ("int", "\u00a042\u3000", 42),
        ("int", "−42", -42),
        ("float", "1e-400", 0.0),
        ("float", ".5", 0.5),
        ("float", "5.", 5.0),
        ("float", "NaN", None),
        ("float", "-nan", None),
        ("bool", "TRUE", True),
        ("bool", " 0 ", False),
        ("time", "2024-02-29", datetime(2024, 2, 29)),
        ("time", "2024-02-29 10", datetime(2024, 2, 29, 10)),
        ("time", "2024-2-9T1:02", datetime(2024, 2, 9, 1, 2)),
        ("time", "2024-02-29T10:00:00.123456789Z", datetime(2024, 2, 29, 10, 0, 0, 123456)),
        ("time", "2024-02-29 10:00:00,5 +0530", datetime(2024, 2, 29, 4, 30, 0, 500000)),
        ("time", "20240229T100000Z", datetime(2024, 2, 29, 10)),
        ("time", "0001-01-01", datetime(1, 1, 1)),
        ("time", "9999-12-31 23:59:59.999999", datetime(9999, 12, 31, 23, 59, 59, 999999)),
        ("string", "", None),
        ("string", " kept as it is ", " kept as it is "),
        *((type, word, None) for type in ("int", "float", "bool", "time") for word in ("", " ", "NA", "n/a", "null", "None", "?", "-", "#N/A")),
    ],
)
def test_a_cell_that_can_be_read_is(type: ColumnType, cell: str, value: object) -> None:
    assert read([cell], type) == ([value], {})
    assert read([cell, "never", cell], type)[0][::2] == [value, value], "a bad neighbour changes nothing"


@pytest.mark.parametrize(
    ("type", "cell", "reason"),
    [
        ("int", "9223372036854775808", "beyond 64 bits"),
        ("int", "5.5", "not a whole number"),
        ("int", "1_000", "not a whole number"),
        ("int", "12 34", "not a whole number"),
        ("int", "1e400", "not a whole number"),
        ("float", "1e400", "infinite"),
        ("float", "-inf", "infinite"),
        ("float", "1.2.3", "not a number"),
        ("float", "1,5", "not a number"),
        ("bool", "2", "neither true nor false"),
        ("time", "2024-02-30", "not a moment"),
        ("time", "2024-13-01", "not a moment"),
        ("time", "2024-01-01 24:00", "not a moment"),
        ("time", "0000-01-01", "not a moment"),
        ("time", "10000-01-01", "not a moment"),
        ("time", "0001-01-01T00:00:00+02:00", "not a moment"),
        ("time", "1700000000", "not a moment"),
        ("string", "a\0b", "NUL"),
    ],
)
def test_a_cell_that_cannot_be_read_is_missing_and_a_fault_with_its_value(type: ColumnType, cell: str, reason: str) -> None:
    good = {"int": "1", "float": "1", "bool": "1", "time": "2024-01-01", "string": "a"}[type]
    cells, faults = read([good, cell, None], type)
    assert list(faults) == [1]
    assert faults[1][0] == cell
    assert reason in faults[1][1]
    assert cells[0] is not None
    assert cells[2] is None


@pytest.mark.parametrize(
    ("type", "habits", "cell", "value"),
    [
        ("float", {"decimal": ",", "thousands": "."}, "1.234,5", 1234.5),
        ("float", {"decimal": ",", "thousands": "."}, "1.23,5", None),
        ("int", {"thousands": ","}, "1,234", 1234),
        ("int", {"thousands": ","}, "1,2", None),
        ("int", {"thousands": " "}, "1\u202f234", 1234),
        ("float", {"affixes": ("$", "USD")}, "-$ 5.5", -5.5),
        ("float", {"affixes": ("$", "USD")}, "5.5usd", 5.5),
        ("float", {"affixes": ("oz", "oz.")}, "12 OZ.", 12.0),
        ("float", {"affixes": ("$",)}, "€5", None),
        ("bool", {"true_words": ("ja",), "false_words": ("nein",)}, "Ja", True),
        ("bool", {"true_words": ("ja",), "false_words": ("nein",)}, "1", None),
        ("int", {"nulls": ("unknown",)}, "Unknown", None),
        ("string", {"nulls": ("?",)}, " ? ", None),
        ("time", {"format": "%d.%m.%Y"}, "1.2.2024", datetime(2024, 2, 1)),
        ("time", {"format": "%d.%m.%Y"}, "31.02.2024", None),
        ("time", {"format": "%d.%m.%Y"}, "31.12.24", None),
        ("time", {"format": "%d/%m/%Y"}, "2026-03-04", datetime(2026, 3, 4)),
        ("time", {"format": "%d/%m/%Y"}, "2026-03-04T10:00:00Z", datetime(2026, 3, 4, 10)),
        ("time", {"format": "%d/%m/%Y"}, "2026-03-04 12:00+02:00", datetime(2026, 3, 4, 10)),
        ("time", {"format": "%d/%m/%Y"}, "2026-3-4", None),
        ("time", {"format": "%Y-%d-%m"}, "2026-03-04", datetime(2026, 4, 3)),
        ("time", {"format": "%Y-%d-%m"}, "2026-03-14", None),
        ("time", {"format": "epoch_ms"}, "2026-03-04T10:00:00Z", datetime(2026, 3, 4, 10)),
        ("time", {"format": "%d/%m/%y %H:%M:%S.%f"}, "31/12/24 10:00:00.25", datetime(2024, 12, 31, 10, 0, 0, 250000)),
        ("time", {"format": "%Y-%m-%d %H:%M %z"}, "2024-01-01 10:00 +0200", datetime(2024, 1, 1, 8)),
        ("time", {"format": "epoch_s"}, "1700000000.5", datetime(2023, 11, 14, 22, 13, 20, 500000)),
        ("time", {"format": "epoch_ms"}, "1700000000000", datetime(2023, 11, 14, 22, 13, 20)),
        ("time", {"format": "epoch_s"}, "1e15", None),
        ("vector", {"width": 2}, "[1, 2.5]", [1.0, 2.5]),
        ("vector", {"width": 2}, "1 2 3", None),
        ("vector", {"width": 2}, "1;nan", None),
        ("sequence", {"width": 2}, "[[1, 2.5], [3, 4]]", [[1.0, 2.5], [3.0, 4.0]]),
        ("sequence", {"width": 1}, "1; 2 3", [1.0, 2.0, 3.0]),
        ("sequence", {"width": 2}, "[]", []),
        ("sequence", {"width": 2}, "1 2 3", None),
        ("sequence", {"width": 2}, "1;nan", None),
    ],
)
def test_habits_are_followed(type: ColumnType, habits: dict[str, Any], cell: str, value: object) -> None:
    cells, faults = read([cell], type, **habits)
    assert cells == [value]
    assert (value is None) == (0 in faults) or cell.strip().lower() in ("unknown", "?")


def test_a_two_digit_year_is_not_a_year_of_the_first_century() -> None:
    assert read(["01.02.20", "01.02.2020"], "time", format="%d.%m.%Y")[1] == {0: ("01.02.20", "not a moment written as %d.%m.%Y")}


UTC = UTC


@pytest.mark.parametrize(
    ("array", "type", "values", "bad"),
    [
        (pa.array([1, None], pa.int8()), "int", [1, None], {}),
        (pa.array([1, 2**63], pa.uint64()), "int", [1, None], {1: "beyond 64 bits"}),
        (pa.array([1.0, 1.5, math.nan, None, 1e300]), "int", [1, None, None, None, None], {1: "whole", 4: "whole"}),
        (pa.array([True, None]), "int", [1, None], {}),
        (pa.array([1.0, math.nan, math.inf, None]), "float", [1.0, None, None, None], {2: "infinite"}),
        (pa.array([1.5, None], pa.float16()), "float", [1.5, None], {}),
        (pa.array([Decimal("1.25"), None]), "float", [1.25, None], {}),
        (pa.array([timedelta(seconds=1.5), None]), "float", [1.5, None], {}),
        (pa.array([2**62 + 1]), "float", [float(2**62)], {}),
        (pa.array([0, 1, 2, None]), "bool", [False, True, None, None], {2: "neither 0 nor 1"}),
        (pa.array([True, None]), "bool", [True, None], {}),
        (pa.array([1, None]), "string", ["1", None], {}),
        (pa.array([True]), "string", ["true"], {}),
        (pa.array(["a", "", None]).dictionary_encode(), "string", ["a", None, None], {}),
        (pa.array(["1", "x"]).dictionary_encode(), "int", [1, None], {1: "whole"}),
        (pa.array(["1"], pa.large_string()), "int", [1], {}),
        (pa.array([b"1", b"\xff", None]), "int", [1, None, None], {1: "UTF-8"}),
        (pa.nulls(2), "time", [None, None], {}),
        (pa.array([date(2024, 1, 1), None]), "time", [datetime(2024, 1, 1), None], {}),
        (pa.array([datetime(2024, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))]), "time", [datetime(2024, 1, 1)], {}),
        (pa.array([1, -(2**62)], pa.timestamp("s")), "time", [datetime(1970, 1, 1, 0, 0, 1), None], {1: "outside the years"}),
        (pa.array([1999], pa.timestamp("ns")), "time", [datetime(1970, 1, 1, 0, 0, 0, 1)], {}),
        (pa.array([1, 2]), "time", [None, None], {0: "int64", 1: "int64"}),
        (pa.array([[1.0, 2.0], [1.0], None, [1.0, None]]), "vector", [[1.0, 2.0], None, None, None], {1: "2 finite", 3: "2 finite"}),
        (pa.array([[1.0, math.inf], [math.nan, 1.0]]), "vector", [None, None], {0: "2 finite", 1: "2 finite"}),
        (pa.array([[1, 2]], pa.list_(pa.int64(), 2)), "vector", [[1.0, 2.0]], {}),
        (pa.array([[[1.0, 2.0]], [], None, [[1.0]], [[math.inf, 1.0]]]), "sequence", [[[1.0, 2.0]], [], None, None, None], {3: "2 finite", 4: "2 finite"}),
        (pa.array([[[1, 2]], [[3, 4], [5, 6]]], pa.list_(pa.list_(pa.int8(), 2))), "sequence", [[[1.0, 2.0]], [[3.0, 4.0], [5.0, 6.0]]], {}),
        (pa.array([[1.0], []]), "sequence", [None, None], {0: "not a sequence", 1: "not a sequence"}),
        (pa.array([{"a": 1}]), "int", [None], {0: "struct"}),
    ],
    ids=str,
)  # fmt: skip
def test_typed_cells_are_held_by_value(array: pa.Array, type: ColumnType, values: list[object], bad: dict[int, str]) -> None:
    cells, faults = read(array, type, **({"width": 2} if type in ("vector", "sequence") else {}))
    assert cells == values
    assert list(faults) == list(bad)
    assert all(word in faults[row][1] for row, word in bad.items())
    sliced = pa.concat_arrays([array, array]).slice(len(array))
    assert read(sliced, type, **({"width": 2} if type in ("vector", "sequence") else {}))[0] == values, "a slice reads like the whole"


@pytest.mark.parametrize("type", ["int", "float", "bool", "string", "time", "vector", "sequence"])
def test_no_cells_and_missing_cells_are_read(type: ColumnType) -> None:
    habits = {"width": 3} if type in ("vector", "sequence") else {}
    assert read([], type, **habits) == ([], {})
    assert read([None, ""], type, **habits) == ([None, None], {})


def test_a_number_that_is_missing_within_a_sequence_stays_a_step() -> None:
    cells, faults = read(pa.array([[[1.0, None], None, [2.0, 3.0]]]), "sequence", width=2)
    assert (str(cells), faults) == ("[[[1.0, nan], [nan, nan], [2.0, 3.0]]]", {})


ODD = st.one_of(
    st.none(),
    st.text(max_size=20),
    st.text("0123456789.,-+eE $%:/TZ_'\u00a0\u0660", max_size=20),
    st.floats().map(str),
    st.integers().map(str),
    st.datetimes().map(str),
    st.sampled_from(["NA", "1e999", "0x", "-", "--5", "1.", "[]", "[1,", "2024-02-30T25:61:61", "\ufeff1", "\u200b", "\0", "١٢"]),
)


@given(st.lists(ODD, max_size=10), st.sampled_from(["int", "float", "bool", "string", "time", "vector", "sequence"]), st.booleans())
@settings(max_examples=examples(100), deadline=None)
def test_no_text_makes_it_stumble_and_neighbours_change_nothing(cells: list[str | None], type: ColumnType, habits: bool) -> None:
    cells = [c if c is None else c.encode("utf-8", "ignore").decode() for c in cells]
    extra: dict[str, Any] = {"width": 2} if type in ("vector", "sequence") else {}
    if habits and type in ("int", "float"):
        extra |= {"decimal": ",", "thousands": ".", "affixes": ("$", "%")}
    if habits and type == "time":
        extra |= {"format": "%d/%m/%Y"}
    together, faults = read(cells, type, **extra)
    alone = [read([c], type, **extra) for c in cells]
    assert together == [values[0] for values, _ in alone]
    assert faults == {i: bad[0] for i, (_, bad) in enumerate(alone) if bad}


@given(st.lists(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)), max_size=30))
@settings(deadline=None)
def test_whole_numbers_survive_as_text(numbers: list[int | None]) -> None:
    assert read([None if n is None else str(n) for n in numbers], "int") == (numbers, {})


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=30))
@settings(deadline=None)
def test_numbers_survive_as_text(numbers: list[float]) -> None:
    assert read([repr(n) for n in numbers], "float") == (numbers, {})


@given(st.lists(st.datetimes(), max_size=30))
@settings(deadline=None)
def test_moments_survive_as_text(moments: list[datetime]) -> None:
    assert read([m.isoformat() for m in moments], "time") == (moments, {})
    assert read([m.replace(tzinfo=UTC).isoformat() for m in moments], "time") == (moments, {})
