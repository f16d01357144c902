"""Cleaning: exactly the schema's columns, and every fault with its row, column, reason and value."""

import pyarrow as pa
import pytest

from modelinscale.core.errors import NotSupportedYet
from modelinscale.core.schema import Column, Schema
from modelinscale.data.arrow import BROKEN, arrow_schema, column_of
from modelinscale.data.clean import clean

SCHEMA = Schema(columns=(Column(name="n", type="int"), Column(name="w", type="string"), Column(name="v", type="vector", width=2)))


def test_columns_come_in_the_order_of_the_schema_lacking_ones_all_missing_others_left_out() -> None:
    batch = pa.record_batch({"other": ["x", "y"], "w": ["a", ""], "n": ["1", "2"]})
    cleaned = clean(batch, SCHEMA)
    assert cleaned.batch.schema == arrow_schema(SCHEMA)
    assert cleaned.batch.to_pylist() == [{"n": 1, "w": "a", "v": None}, {"n": 2, "w": None, "v": None}]
    assert len(cleaned.faults) == 0
    assert cleaned.faults.table().schema == pa.schema({"row": pa.int64(), "column": pa.string(), "reason": pa.string(), "value": pa.string()})


def test_faults_are_ordered_by_column_then_row_broken_rows_first_and_long_values_are_cut() -> None:
    broken = pa.array([None, "3 cells, expected 2: line 7: a: b", None, "no reason given"])
    batch = pa.record_batch([pa.array(["1", None, "x" * 500, None]), pa.array(["a\0", None, "b", None]), broken], names=["n", "w", BROKEN])
    assert clean(batch, SCHEMA).faults.table().to_pylist() == [
        {"row": 1, "column": "", "reason": "3 cells, expected 2", "value": "line 7: a: b"},
        {"row": 3, "column": "", "reason": "no reason given", "value": ""},
        {"row": 2, "column": "n", "reason": "not a whole number", "value": "x" * 200},
        {"row": 0, "column": "w", "reason": "text with a NUL character", "value": "a\0"},
    ]


def test_no_rows_are_cleaned_too() -> None:
    cleaned = clean(pa.record_batch({"n": pa.array([], pa.string())}), SCHEMA)
    assert cleaned.batch.num_rows == 0
    assert cleaned.batch.schema == arrow_schema(SCHEMA)


@pytest.mark.parametrize(
    ("kind", "type"),
    [
        (pa.uint16(), "int"),
        (pa.float16(), "float"),
        (pa.decimal128(9, 2), "float"),
        (pa.duration("ms"), "float"),
        (pa.bool_(), "bool"),
        (pa.large_string(), "string"),
        (pa.dictionary(pa.int8(), pa.string()), "string"),
        (pa.dictionary(pa.int8(), pa.int64()), "int"),
        (pa.time64("us"), "string"),
        (pa.null(), "string"),
        (pa.date32(), "time"),
        (pa.timestamp("ns", "Europe/Rome"), "time"),
        (pa.list_(pa.int8(), 3), "vector"),
        (pa.binary(), "binary"),
        (pa.binary(4), "binary"),
        (pa.binary_view(), "binary"),
    ],
    ids=str,
)
def test_every_usual_arrow_type_has_a_type_of_ours(kind: pa.DataType, type: str) -> None:
    assert column_of("x", kind).type == type


@pytest.mark.parametrize(("kind", "words"), [(pa.struct({"a": pa.int64()}), "nested cells"), (pa.list_(pa.bool_()), "nested cells")], ids=str)
def test_what_no_type_holds_is_refused_with_a_way_out(kind: pa.DataType, words: str) -> None:
    with pytest.raises(NotSupportedYet, match=rf"'x' holds {words}.*without: \[x\]"):
        column_of("x", kind)


def test_raw_bytes_stay_as_they_are_and_nothing_else_becomes_raw_bytes() -> None:
    cells = [b"\x89PNG\xff", None, b""]
    column = Column(name="x", type="binary")
    found = clean(pa.record_batch([pa.array(cells, pa.binary())], names=["x"]), Schema(columns=(column,)))
    assert found.batch.column(0).to_pylist() == cells
    assert not len(found.faults)
    text = clean(pa.record_batch([pa.array(["a", None])], names=["x"]), Schema(columns=(column,)))
    assert text.batch.column(0).to_pylist() == [None, None]
    assert text.faults.reason.to_pylist() == ["not raw bytes (string)"]
