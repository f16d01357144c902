"""JSON and Parquet as they are found in the world."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelinscale.core.errors import NotSupportedYet, SourceError
from modelinscale.data.arrow import BROKEN
from modelinscale.data.clean import clean
from modelinscale.data.sources import Source
from modelinscale.data.sources._json import elements, separators
from modelinscale.testing.examples import examples


def gz(content: bytes) -> bytes:
    """Packed, the same at every call: names of tests are made of it."""
    return gzip.compress(content, mtime=0)


def source(path: Path, kind: str = "jsonl", **settings: Any) -> Source:
    return Source.parse({"type": kind, "path": str(path), **settings})


def read(one: Source) -> list[dict[str, object]]:
    schema = one.columns()
    return [row for chunk in one.read(None, schema) for row in clean(chunk.batch, schema).batch.to_pylist()]


def broken(one: Source) -> list[str]:
    schema = one.columns()
    found = [c.batch.column(BROKEN).drop_null().to_pylist() for c in one.read(None, schema) if BROKEN in c.batch.schema.names]
    return [reason for chunk in found for reason in chunk]


@pytest.mark.parametrize(
    "content",
    [
        b'{"a": 1, "b": "x"}\n{"a": 2, "b": "y"}\n',
        b'\xef\xbb\xbf{"a": 1, "b": "x"}\r\n\r\n{"a": 2, "b": "y"}',
        b'[{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]',
        b' [\n {"a": 1,\n "b": "x"},\n\n {"a": 2, "b": "y"}\n]\n\n',
        '{"a": 1, "b": "x"}\n{"a": 2, "b": "y"}\n'.encode("utf-16"),
        gz(b'{"a": 1, "b": "x"}\n{"a": 2, "b": "y"}\n'),
    ],
    ids=repr,
)
def test_the_same_rows_are_found_however_they_are_written(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.json").write_bytes(content)
    assert read(source(tmp_path / "x.json")) == [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]


def test_kinds_that_differ_become_text_and_nested_values_become_json(tmp_path: Path) -> None:
    rows = [
        {"t": "Jaws", "m": 1, "o": {"a": [1, "é"]}, "l": [1, 2], "v": [1, 2.5], "big": 10**30, "f": 1, "n": None},
        {"t": 300, "m": "NA", "o": None, "l": [1], "v": [3, 4], "big": 1, "f": 2.5},
        {"t": True, "m": 3, "o": [], "l": [], "v": None, "big": 2, "f": None, "late": "x"},
    ]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    one = source(tmp_path / "x.jsonl")
    types = {c.name: c.type for c in one.columns().columns}
    assert types == {"t": "string", "m": "int", "o": "string", "l": "sequence", "v": "vector", "big": "string", "f": "float", "n": "string", "late": "string"}
    found = read(one)
    assert [r["t"] for r in found] == ["Jaws", "300", "true"]
    assert [r["m"] for r in found] == [1, None, 3]
    assert [r["o"] for r in found] == ['{"a":[1,"é"]}', None, "[]"]
    assert [r["l"] for r in found] == [[1.0, 2.0], [1.0], []]
    assert [r["v"] for r in found] == [[1.0, 2.5], [3.0, 4.0], None]
    assert [r["late"] for r in found] == [None, None, "x"]


def test_odd_numbers_are_missing_or_faults_and_never_stop_the_reading(tmp_path: Path) -> None:
    lines = [*(json.dumps({"a": i}) for i in range(200)), '{"a": NaN}', '{"a": 1e999}', '{"a": -Infinity}', '{"a": 1.5}']
    (tmp_path / "x.jsonl").write_text("\n".join(lines))
    one = source(tmp_path / "x.jsonl")
    schema = one.columns()
    cleaned = [clean(c.batch, schema) for c in one.read(None, schema)]
    assert schema["a"].type == "float"
    assert [f["row"] for f in cleaned[0].faults.table().to_pylist()] == [201, 202]
    assert broken(one) == []


def test_lines_that_are_no_objects_are_broken_rows(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes(b'{"a": 1}\nnull\n{"a": \n\n[]\n{"a": "\xff"}\n{"a": 2} {"a": 3}\n{"a": 4}\n')
    found = broken(source(tmp_path / "x.jsonl"))
    assert [f.split(": ")[1] for f in found] == ["line 2", "line 3", "line 5", "line 6", "line 7"]
    assert found[0].startswith("null where an object with named values was expected")
    assert found[1].startswith("not JSON")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("hello\nworld\n", "none of the first 2 rows is a JSON object"),
        ('[{"a": 1}, {"a": 2}', "the array is not closed.*element 2"),
        ('[{"a": 1}] [{"a": 2}]', "something follows the array"),
        ('{"_mis_x": 1}', "must not be empty or start with '_mis_'"),
        ("[]", "there is no row in it"),
    ],
)
def test_json_that_is_no_table_says_why(tmp_path: Path, content: str, match: str) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(SourceError, match=match) as caught:
        read(source(tmp_path / "x.json"))
    assert caught.value.fix


VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text('ab"\\[]{},:\n é', max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('ab",]', max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(st.lists(VALUE, max_size=6), st.sampled_from([None, 1]), st.booleans())
@settings(max_examples=examples(150), deadline=None)
def test_an_array_is_cut_between_its_elements(values: list[Any], indent: int | None, ascii: bool) -> None:
    text = json.dumps(values, indent=indent, ensure_ascii=ascii).encode("utf-8", "surrogatepass")
    block = text[text.index(b"[") + 1 :]
    commas, closed = separators(block)
    assert closed == block.rindex(b"]")
    parts = [p for p in elements(block[:closed], commas) if p.strip()]
    assert [json.loads(p) for p in parts] == values
    if values:
        assert separators(block[: commas[-1] if commas else 1])[1] is None


@given(
    st.lists(st.fixed_dictionaries({"a": st.integers(-(2**40), 2**40), "w": st.text(max_size=8)}), min_size=1, max_size=40),
    st.booleans(),
    st.integers(256, 600),
)
@settings(max_examples=examples(40), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_lines_and_arrays_give_their_rows_in_any_blocks(tmp_path: Path, rows: list[dict[str, Any]], array: bool, block: int) -> None:
    for row in rows:
        row["w"] = row["w"].encode("utf-8", "ignore").decode().replace("\0", "")
    path = tmp_path / "x.json"
    path.write_text(json.dumps(rows, ensure_ascii=False) if array else "".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    one = source(path, block=block)
    schema = one.columns().but(columns=[{"name": "a", "type": "int"}, {"name": "w", "type": "string"}])
    chunks = list(one.read(None, schema))
    found = [row for c in chunks for row in clean(c.batch, schema).batch.to_pylist()]
    assert found == [{"a": r["a"], "w": r["w"] or None} for r in rows]


def test_parquet_that_moved_once_it_was_read_stays_read_when_another_file_comes(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    pq.write_table(pa.table({"a": [1, 2]}), tmp_path / "old" / "x.parquet")
    one = source(tmp_path / "old" / "*.parquet", "parquet")
    schema = one.columns()
    cursor = list(one.read(None, schema))[-1].cursor
    (tmp_path / "old").rename(tmp_path / "new")
    pq.write_table(pa.table({"a": [3]}), tmp_path / "new" / "y.parquet")
    moved = source(tmp_path / "new" / "*.parquet", "parquet")
    came = list(moved.read(cursor, schema))
    assert [c.batch.to_pylist() for c in came] == [[{"a": 3}]]
    assert list(moved.read(came[-1].cursor, schema)) == []


def test_parquet_that_is_damaged_or_was_replaced_or_lacks_columns_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"a": [1, 2, 3], "b": ["x", "y", "z"]}), path)
    one = source(path, "parquet", rows=2)
    schema = one.columns()
    cursor = next(iter(one.read(None, schema))).cursor
    moved = path.rename(tmp_path / "y.parquet")
    (tmp_path / "sub").mkdir()
    again = moved.rename(tmp_path / "sub" / "x.parquet")
    assert [c.batch.num_rows for c in source(again, "parquet").read(cursor, schema)] == [1], "it moved, it is the same"
    pq.write_table(pa.table({"a": [1, 2, 4], "b": ["x", "y", "zz"]}), path)
    with pytest.raises(SourceError, match="is not the file that was read before"):
        list(one.read(cursor, schema))
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(SourceError, match=r"has no column 'b'.* write `new_columns: add` under `data`"):
        list(one.read(None, schema))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(SourceError, match=r"cannot be read as Parquet.*complete"):
        one.columns()


def test_parquet_columns_that_no_type_holds_are_named_together_and_can_be_left_out(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"a": [1], "parts": [[{"n": 1}]], "s": [{"a": 1}], "__index_level_0__": [0]}), path)
    with pytest.raises(NotSupportedYet, match=r"(?s)'parts'.*'s'.*without: \[parts, s\]"):
        source(path, "parquet").columns()
    assert source(path, "parquet", without=["parts", "s"]).columns().names == ("a",)


def test_a_field_name_that_is_no_text_is_told(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"kind\\ud800": 1, "y": 2}\n')
    with pytest.raises(SourceError, match=r"x\.jsonl: the field name 'kind\\ud800' holds half of a pair"):
        Source.parse({"type": "jsonl", "path": str(path)}).columns()
