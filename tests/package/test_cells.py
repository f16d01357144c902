"""What a client may send in a cell, and what it is told when it may not."""

import datetime as dt
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelinscale.core.encoded import MISSING_MOMENT, InputType
from modelinscale.core.errors import RequestError
from modelinscale.core.schema import Column, ColumnType
from modelinscale.package import InputColumn, Package, open_package
from modelinscale.package._cells import BadCell, Reader
from modelinscale.testing.examples import examples
from modelinscale.testing.packages import ROWS, write_package

NAN = math.nan


def reader(type: ColumnType, input: InputType, *, required: bool = False, **habits: Any) -> Reader:
    width = 2 if type in ("vector", "sequence") else None
    return Reader(InputColumn(column=Column(name="x", type=type, width=width, **habits), input=input, required=required))


def read(cell: Any, type: ColumnType, input: InputType, **habits: Any) -> Any:
    found = reader(type, input, **habits).read([cell])[0]
    return found.tolist() if isinstance(found, (np.ndarray, np.generic)) else found


def us(*moment: int) -> int:
    return (dt.datetime(*moment) - dt.datetime(1970, 1, 1)) // dt.timedelta(microseconds=1)  # type: ignore[arg-type]


GOOD: list[tuple[Any, ColumnType, InputType, dict[str, Any], Any]] = [
    (3, "float", "float64", {}, 3.0),
    (-0.5, "float", "float64", {}, -0.5),
    (None, "float", "float64", {}, NAN),
    (NAN, "float", "float64", {}, NAN),
    ("", "float", "float64", {}, NAN),
    (" n/a ", "float", "float64", {}, NAN),
    ("?", "float", "float64", {}, NAN),
    ("unbekannt", "float", "float64", {"nulls": ("unbekannt",)}, NAN),
    ("1e3", "float", "float64", {}, 1000.0),
    (" .5 ", "float", "float64", {}, 0.5),
    ("\u2212\uff13", "float", "float64", {}, -3.0),
    ("1.234,5", "float", "float64", {"decimal": ",", "thousands": "."}, 1234.5),
    ("12,34,567", "int", "float64", {"thousands": ","}, 1234567.0),
    ("1\u202f234", "int", "float64", {"thousands": " "}, 1234.0),
    ("$-5", "float", "float64", {"affixes": ("$",)}, -5.0),
    ("-$5", "float", "float64", {"affixes": ("$",)}, -5.0),
    ("7.5 Oz.", "float", "float64", {"affixes": ("oz", "oz.")}, 7.5),
    (5.0, "int", "float64", {}, 5.0),
    ("5.0", "int", "float64", {}, 5.0),
    ("0x1F", "int", "float64", {}, 31.0),
    (2**53 + 1, "int", "string", {}, "9007199254740993"),
    (2**63 - 1, "int", "int64", {}, 2**63 - 1),
    (None, "int", "int64", {}, MISSING_MOMENT),
    (2**53 + 1, "int", "float64", {}, float(2**53)),
    (True, "bool", "float64", {}, 1.0),
    (0, "bool", "float64", {}, 0.0),
    (1.0, "bool", "float64", {}, 1.0),
    ("TRUE", "bool", "float64", {}, 1.0),
    ("Nein", "bool", "float64", {"true_words": ("ja",), "false_words": ("nein",)}, 0.0),
    (None, "bool", "string", {}, ""),
    (False, "bool", "string", {}, "false"),
    ("a", "string", "string", {}, "a"),
    (" a ", "string", "string", {}, " a "),
    ("", "string", "string", {}, ""),
    ("NA", "string", "string", {}, "NA"),
    (" ? ", "string", "string", {"nulls": ("?",)}, ""),
    ("😀" * 1000, "string", "string", {}, "😀" * 1000),
    (12, "string", "string", {}, "12"),
    (12.0, "string", "string", {}, "12"),
    (0.1, "string", "string", {}, "0.1"),
    (True, "string", "string", {}, "true"),
    ("1.5", "string", "float64", {}, 1.5),
    ("one", "string", "float64", {}, NAN),
    (0.1, "float", "string", {}, "0.1"),
    (3.0, "float", "string", {}, "3"),
    ("2024-05-01T13:00:00", "time", "int64", {}, us(2024, 5, 1, 13)),
    ("2024-5-1 13:00", "time", "int64", {"format": "iso"}, us(2024, 5, 1, 13)),
    ("2024-05-01T13:00:00.1234567+02:00", "time", "int64", {}, us(2024, 5, 1, 11, 0, 0, 123456)),
    ("20240501", "time", "int64", {}, us(2024, 5, 1)),
    ("0001-01-01", "time", "int64", {}, us(1, 1, 1)),
    ("01/02/2024", "time", "int64", {"format": "%d/%m/%Y"}, us(2024, 2, 1)),
    ("2024-02-01", "time", "int64", {"format": "%d/%m/%Y"}, us(2024, 2, 1)),
    ("2024-02-01T10:00:00Z", "time", "int64", {"format": "%m/%d/%Y"}, us(2024, 2, 1, 10)),
    ("2024-02-01T10:00:00Z", "time", "int64", {"format": "epoch_s"}, us(2024, 2, 1, 10)),
    ("01/02/69", "time", "int64", {"format": "%d/%m/%y"}, us(2069, 2, 1)),
    ("3 Mar 2020 10:05", "time", "int64", {"format": "%d %B %Y %H:%M"}, us(2020, 3, 3, 10, 5)),
    ("2020-01-01 10:00:00", "time", "int64", {"format": "%Y-%m-%d %H:%M:%S.%f"}, us(2020, 1, 1, 10)),
    (1714568400, "time", "int64", {"format": "epoch_s"}, 1714568400_000_000),
    ("1714568400500", "time", "int64", {"format": "epoch_ms"}, 1714568400_500_000),
    (dt.datetime(2024, 5, 1, tzinfo=dt.timezone(dt.timedelta(hours=2))), "time", "int64", {}, us(2024, 4, 30, 22)),
    (dt.date(2024, 5, 1), "time", "int64", {}, us(2024, 5, 1)),
    (None, "time", "int64", {}, MISSING_MOMENT),
    ("2024-05-01", "time", "string", {}, "2024-05-01T00:00:00"),
    ("2024-05-01", "time", "float64", {}, float(us(2024, 5, 1))),
    ([1, 2.5], "vector", "vector", {}, [1.0, 2.5]),
    ("[1; 2.5]", "vector", "vector", {}, [1.0, 2.5]),
    (None, "vector", "vector", {}, [NAN, NAN]),
    ([[1, 2.5], [3, None]], "sequence", "sequence", {}, [[1.0, 2.5], [3.0, NAN]]),
    ([None, [1, 2]], "sequence", "sequence", {}, [[NAN, NAN], [1.0, 2.0]]),
    ("[[1, 2.5], [3, 4]]", "sequence", "sequence", {}, [[1.0, 2.5], [3.0, 4.0]]),
    (None, "sequence", "sequence", {}, []),
    ([], "sequence", "sequence", {}, []),
    (np.float32(0.5), "float", "float64", {}, 0.5),
    (np.int64(7), "int", "float64", {}, 7.0),
]


@pytest.mark.parametrize(("cell", "type", "input", "habits", "expected"), GOOD, ids=range(len(GOOD)))
def test_a_cell_is_read_by_the_habits_of_its_column(cell: Any, type: ColumnType, input: InputType, habits: dict[str, Any], expected: Any) -> None:
    np.testing.assert_equal(read(cell, type, input, **habits), expected)


BAD: list[tuple[Any, ColumnType, InputType, dict[str, Any], str]] = [
    ("abc", "float", "float64", {}, "a number"),
    ("1,5", "float", "float64", {}, "a number"),
    ("1.5", "float", "float64", {"decimal": ","}, "a number"),
    ("1,2345", "int", "float64", {"thousands": ","}, "a whole number"),
    ("1_000", "float", "float64", {}, "a number"),
    (True, "float", "float64", {}, "a number"),
    (False, "int", "float64", {}, "a whole number"),
    (math.inf, "float", "float64", {}, "a finite number"),
    (-math.inf, "float", "float64", {}, "a finite number"),
    ("inf", "float", "float64", {}, "a number"),
    ("1e999", "float", "float64", {}, "a finite number"),
    (10**400, "float", "float64", {}, "a finite number"),
    ([1], "float", "float64", {}, "a number"),
    ({"a": 1}, "float", "float64", {}, "a number"),
    ("9" * 100_000, "float", "float64", {}, "a number"),
    (3.5, "int", "float64", {}, "a whole number"),
    (1e300, "int", "float64", {}, "a whole number"),
    (math.inf, "int", "float64", {}, "a whole number"),
    (2**63, "int", "float64", {}, "a whole number of at most 64 bits"),
    ("9" * 30, "int", "float64", {}, "a whole number of at most 64 bits"),
    ("9" * 450, "int", "float64", {}, "a whole number of at most 64 bits"),
    (2, "bool", "float64", {}, "true or false"),
    ("perhaps", "bool", "float64", {}, "true or false"),
    ([], "bool", "float64", {}, "true or false"),
    (["a"], "string", "string", {}, "text"),
    ({}, "string", "string", {}, "text"),
    ("a\0b", "string", "string", {}, "NUL"),
    ("\ud800", "string", "string", {}, "text"),
    (10**5000, "string", "string", {}, "text"),
    ("yesterday", "time", "int64", {}, "ISO 8601"),
    ("2024-13-01", "time", "int64", {}, "ISO 8601"),
    ("0001-01-01T00:00:00+05:00", "time", "int64", {}, "years 1 to 9999"),
    (12345, "time", "int64", {}, "ISO 8601"),
    (True, "time", "int64", {"format": "epoch_s"}, "seconds since 1970"),
    (1e18, "time", "int64", {"format": "epoch_s"}, "years 1 to 9999"),
    (math.inf, "time", "int64", {"format": "epoch_s"}, "seconds since 1970"),
    ("2024-02-30", "time", "int64", {"format": "%Y-%m-%d"}, "%Y-%m-%d"),
    ("05-01-02", "time", "int64", {"format": "%Y-%m-%d"}, "%Y-%m-%d"),
    ([1.0], "vector", "vector", {}, "2 numbers, not of 1"),
    ([1.0, None], "vector", "vector", {}, "a list of 2 numbers"),
    ([1.0, NAN], "vector", "vector", {}, "finite"),
    ([1.0, 1e39], "vector", "vector", {}, "finite"),
    ([1.0, "2"], "vector", "vector", {}, "a list of 2 numbers"),
    ([1.0, [2]], "vector", "vector", {}, "a list of 2 numbers"),
    ([True, False], "vector", "vector", {}, "a list of 2 numbers"),
    (1.0, "vector", "vector", {}, "a list of 2 numbers"),
    ([[1.0]], "sequence", "sequence", {}, "2 numbers, not of 1"),
    ([[1.0, 1e39]], "sequence", "sequence", {}, "finite"),
    ([[1.0, "2"]], "sequence", "sequence", {}, "a list of steps"),
    ([1.0, 2.0], "sequence", "sequence", {}, "a list of steps"),
    ("1 2 3", "sequence", "sequence", {}, "a list of steps"),
]


@pytest.mark.parametrize(("cell", "type", "input", "habits", "expected"), BAD, ids=range(len(BAD)))
def test_a_cell_that_cannot_be_read_is_refused_with_what_was_expected(
    cell: Any, type: ColumnType, input: InputType, habits: dict[str, Any], expected: str
) -> None:
    with pytest.raises(BadCell) as found:
        reader(type, input, **habits).read([None, cell])
    assert found.value.row == 1
    assert expected in found.value.expected
    assert len(found.value.found) < 150


@pytest.mark.parametrize(
    ("type", "input", "missing"),
    [
        ("float", "float64", NAN),
        ("int", "float64", None),
        ("string", "string", ""),
        ("bool", "float64", None),
        ("time", "int64", ""),
        ("vector", "vector", None),
        ("sequence", "sequence", None),
    ],
)
def test_a_missing_cell_is_refused_where_there_must_be_one(type: ColumnType, input: InputType, missing: Any) -> None:
    with pytest.raises(BadCell, match="may not be missing"):
        reader(type, input, required=True).read([missing])


CELLS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=6), st.sampled_from(["1", "1.5", "NA", "?", "true", "2024-01-01", " 3 ", "\0"])
)
KINDS: list[tuple[ColumnType, InputType]] = [
    ("float", "float64"),
    ("int", "float64"),
    ("int", "string"),
    ("bool", "float64"),
    ("string", "string"),
    ("time", "int64"),
]


@settings(max_examples=examples(200), deadline=None)
@given(cells=st.lists(CELLS, max_size=12), kind=st.sampled_from(KINDS), required=st.booleans())
def test_a_column_is_read_as_its_cells_are_one_by_one(cells: list[Any], kind: tuple[ColumnType, InputType], required: bool) -> None:
    one = reader(*kind, required=required, nulls=("?",))
    singles: list[Any] = []
    bad: BadCell | None = None
    for cell in cells:
        try:
            singles.append(one.read([cell])[0])
        except BadCell as error:
            bad = error
            break
    if bad is None:
        np.testing.assert_equal(list(one.read(cells)), singles)
        return
    with pytest.raises(BadCell) as found:
        one.read(cells)
    assert (found.value.row, found.value.expected) == (len(singles), bad.expected)


# -- whole rows


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return open_package(write_package(tmp_path_factory.mktemp("cells") / "p", required=("amount",)))


def test_a_bad_cell_names_row_column_what_was_found_and_expected(package: Package) -> None:
    rows = [ROWS[0], {**ROWS[1], "amount": "lots", "count": 1.5}]
    words = r"""row 1, column 'amount': found "lots", expected a number; row 1, column 'count': found 1.5, expected a whole number"""
    with pytest.raises(RequestError, match=words) as found:
        package.predict(rows)
    assert found.value.status == 422


def test_a_missing_column_that_must_be_there_is_told(package: Package) -> None:
    with pytest.raises(RequestError, match=r"row 0, column 'amount': it is not there, expected a number"):
        package.predict([{"count": 3}])


def test_an_unknown_column_is_refused_with_the_nearest_known(package: Package) -> None:
    with pytest.raises(RequestError, match=r"row 1: there is no column 'amonut'. Did you mean 'amount'\?") as found:
        package.predict([ROWS[0], {"amonut": 1}])
    assert found.value.status == 422


def test_columns_of_the_table_that_are_no_input_change_nothing(package: Package) -> None:
    other = Package(package.manifest.but(ignored=("late", "id")), package._session)
    assert other.predict([{**ROWS[0], "late": True, "id": {"deep": [1]}}]) == package.predict([ROWS[0]])


@pytest.mark.parametrize("row", [None, 1, "text", [1, 2], [["amount", 1]]])
def test_a_row_that_is_no_object_is_refused(package: Package, row: Any) -> None:
    with pytest.raises(RequestError, match=r"row 1: found .*, expected an object"):
        package.predict([ROWS[0], row])


def test_columns_may_have_any_name(tmp_path: Path) -> None:
    from modelinscale.core.graph import Graph
    from modelinscale.core.task import Task
    from modelinscale.export.proto import to_bytes
    from modelinscale.package import Manifest, start

    names = ["a b", "ü", "\u202eodd", '"quoted"', "x" * 500, "keys", "__t1"]
    graph = Graph()
    total = graph.constant([0.0], np.float64)
    for name in names:
        total = graph.op("Add", total, graph.input(name, "float64"))
    graph.output("prediction", graph.op("Cast", total, to=1), "float32", ("N",))
    inputs = tuple(InputColumn(column=Column(name=n, type="float"), input="float64") for n in names)
    manifest = Manifest(name="odd", identity="0", task=Task(type="regression", target="y"), inputs=inputs)
    package = Package(manifest, start(to_bytes(graph, name="odd")))
    assert package.predict([dict.fromkeys(names, 1.0)]) == [{"prediction": float(len(names))}]
