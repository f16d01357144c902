"""Separated values as they are found in the world."""

import bz2
import codecs
import csv as python_csv
import gzip
import io
import json
import lzma
import os
import random
import resource
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelinscale.core.errors import SourceError, SpecError
from modelinscale.core.schema import Column, Schema
from modelinscale.data.arrow import BROKEN
from modelinscale.data.clean import clean
from modelinscale.data.sources import Chunk
from modelinscale.data.sources._dialect import unique_names
from modelinscale.data.sources._records import all_ends, first_end, last_end
from modelinscale.data.sources.csv import Csv
from modelinscale.testing.examples import examples

NOISE = random.Random(7).randbytes(50_000)


def gz(content: bytes) -> bytes:
    """Packed, the same at every call: names of tests are made of it."""
    return gzip.compress(content, mtime=0)


def write(folder: Path, content: str | bytes, name: str = "x.csv") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def source(path: Path | str, **settings: Any) -> Csv:
    return Csv.model_validate({"path": str(path), **settings})


def rows(chunks: Iterable[Chunk], schema: Schema) -> list[dict[str, object]]:
    return [row for chunk in chunks for row in clean(chunk.batch, schema).batch.to_pylist()]


def read(path: Path, **settings: Any) -> list[dict[str, object]]:
    one = source(path, **settings)
    schema = one.columns()
    return rows(one.read(None, schema), schema)


def broken(path: Path, **settings: Any) -> list[str]:
    one = source(path, **settings)
    found = [c.batch.column(BROKEN).drop_null().to_pylist() for c in one.read(None, one.columns()) if BROKEN in c.batch.schema.names]
    return [reason for chunk in found for reason in chunk]


TWO = [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]


@pytest.mark.parametrize(
    "content",
    [
        "a,b\n1,x\n2,y\n",
        "a,b\n1,x\n2,y",
        "a,b\r\n1,x\r\n2,y\r\n",
        "a,b\r1,x\r2,y\r",
        "a;b\n1;x\n2;y\n",
        "a\tb\n1\tx\n2\ty\n",
        "a|b\n1|x\n2|y\n",
        "sep=;\na;b\n1;x\n2;y\n",
        '"a","b"\n"1","x"\n"2","y"\n',
        "'a','b'\n'1','x'\n'2','y'\n",
        "a, b\n1, x\n 2, y \n",
        "a,b\n\n1,x\n\n2,y\n\n\n",
        "\n\na,b\n1,x\n2,y\n",
        b"\xef\xbb\xbfa,b\n1,x\n2,y\n",
        "a,b\n1,x\n2,y\n".encode("utf-16"),
        "a,b\n1,x\n2,y\n".encode("utf-16-le"),
        "a,b\n1,x\n2,y\n".encode("utf-32"),
        gz(b"a,b\n1,x\n2,y\n"),
        gz(b"a,b\n1,x\n") + gz(b"2,y\n"),
        bz2.compress(b"a,b\n1,x\n2,y\n"),
        lzma.compress(b"a,b\n1,x\n2,y\n"),
        pa.compress(b"a,b\n1,x\n2,y\n", codec="zstd", asbytes=True),
        gz("a;b\r\n1;x\r\n2;y\r\n".encode("utf-16")),
    ],
    ids=repr,
)
def test_the_same_table_is_found_however_it_is_written(tmp_path: Path, content: str | bytes) -> None:
    path = write(tmp_path, content)
    assert read(path) == TWO
    one = source(path)
    schema = one.columns()
    for chunk in (small := list(source(path, block=64).read(None, schema))):
        assert chunk.where.startswith(str(path))
    assert rows(small, schema) == TWO


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ("a,a,b,a\n1,2,3,4\n", ("a", "a_2", "b", "a_3")),
        ("a,a_2,a\n1,2,3\n", ("a", "a_2", "a_3")),
        ("a,,\n1,2,3\n", ("a", "column_2", "column_3")),
        ("5.1,3.5,Iris-setosa\n4.9,3.0,Iris-setosa\n", ("column_1", "column_2", "column_3")),
        ("x,y\nx,z\nx,y\n", ("column_1", "column_2")),
        ("name,city\nAnn,Bonn\nBen,Rome\n", ("name", "city")),
        ("region,2019,2020\nnorth,1.5,2.5\n", ("region", "2019", "2020")),
        ("id,note\n1,\n2,\n", ("id", "note")),
        ("﻿id\n1\n2\n", ("id",)),
    ],
)
def test_names_are_told_from_values(tmp_path: Path, content: str, names: tuple[str, ...]) -> None:
    assert source(write(tmp_path, content)).columns().names == names


def test_header_and_names_can_be_declared(tmp_path: Path) -> None:
    path = write(tmp_path, "1,2\n3,4\n")
    assert source(path, header=True).columns().names == ("1", "2")
    assert read(path, names=["a", "b"]) == [{"a": 1, "b": 2}, {"a": 3, "b": 4}]
    assert read(path, names=["a", "b"], header=True) == [{"a": 3, "b": 4}]


@given(st.lists(st.text("ab _2", max_size=4), max_size=8))
def test_names_are_made_unique_and_keep_their_places(cells: list[str]) -> None:
    names = unique_names(cells)
    assert len(names) == len(set(names)) == len(cells)
    assert all(names)


def test_western_bytes_are_read_as_cp1252_and_others_as_declared(tmp_path: Path) -> None:
    assert read(write(tmp_path, "n,w\n1,Käse für 5 €\n".encode("cp1252"))) == [{"n": 1, "w": "Käse für 5 €"}]
    assert read(write(tmp_path, "n,w\n1,日本|語\n".encode("shift_jis")), encoding="shift_jis", separator=",") == [{"n": 1, "w": "日本|語"}]
    late = "n,w\n" + "1,plain\n" * 600_000 + "2,Käse\n"
    assert read(write(tmp_path, late.encode("cp1252")))[-1] == {"n": 2, "w": "Käse"}, "seen although it stands at the end"


def test_a_row_with_bytes_that_are_no_text_is_broken_and_says_which(tmp_path: Path) -> None:
    path = write(tmp_path, b'n,w\n1,ok\n2,"a\n\xff"\n3,"\xfe"\n4,\xef\xbf\xbd\n')
    assert broken(path, encoding="utf-8") == [
        'bytes that are not utf-8 (0xff): line 3: 2,"a',
        'bytes that are not utf-8 (0xfe): line 5: 3,"�"',
    ]
    assert [r["n"] for r in read(path, encoding="utf-8")] == [1, None, None, 4]


def test_ragged_rows_keep_their_places(tmp_path: Path) -> None:
    path = write(tmp_path, "a,b\n1\n2,x\n3,x,y\n\n4,x\n5,,,\n")
    assert broken(path) == ["1 cell, expected 2: line 2: 1", "3 cells, expected 2: line 4: 3,x,y", "4 cells, expected 2: line 7: 5,,,"]
    assert [r["a"] for r in read(path)] == [None, 2, None, 4, None]
    faults = [clean(c.batch, source(path).columns()).faults.table().to_pylist() for c in source(path).read(None, source(path).columns())]
    assert faults[0][0] == {"row": 0, "column": "", "reason": "1 cell, expected 2", "value": "line 2: 1"}


def test_a_quote_that_is_never_closed_costs_its_line_not_the_rest(tmp_path: Path) -> None:
    text = "a,b\n" + "".join(f"{i},x\n" for i in range(50)) + '50,"open\n' + "".join(f"{i},x\n" for i in range(51, 100))
    for block in (64, 1024, 1 << 20):
        path = write(tmp_path, text)
        assert broken(path, block=block) == ['a quote is opened and not closed: line 52: 50,"open']
        assert [r["a"] for r in read(path, block=block)] == [None if i == 50 else i for i in range(100)]


def test_stray_quotes_are_letters(tmp_path: Path) -> None:
    path = write(tmp_path, 'a,b\n1,5" pipe\n2,"q"r\n3,"a ""b"" c"\n4,"x\ny"\n')
    assert [r["b"] for r in read(path, block=64)] == ['5" pipe', "qr", 'a "b" c', "x\ny"]


def test_zero_bytes_after_a_crash_are_one_broken_row(tmp_path: Path) -> None:
    path = write(tmp_path, b"a,b\n1,x\n2,y\n" + b"\0" * 1000)
    assert [r["a"] for r in read(path)] == [1, 2, None]
    assert broken(path)[0].startswith("1 cell, expected 2: line 4")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b"PK\x03\x04rest", "zip archive or an Excel workbook"),
        (b"PAR1rest", "type: parquet"),
        (b"\n<!DOCTYPE html>\n<html>", "is an HTML page"),
        (b'{"a": 1}\n{"a": 2}\n', "holds JSON.*type: jsonl"),
        (bytes(range(1, 256)) * 40, "is no text"),
        (b"_mis_seq,b\n1,2\n", "must not start with '_mis_'"),
        (gz(b"a,b\n" + NOISE.hex().encode())[:20_000], r"gz compressed data ends too early after [\d,]+ bytes.*gzip -t x.csv"),
        (lzma.compress(NOISE)[:20_000], "xz compressed data ends too early"),
        (bz2.compress(NOISE)[:20_000], "bz2 compressed data ends too early"),
        (pa.compress(NOISE, codec="zstd", asbytes=True)[:20_000], "zst compressed data"),
        (gz(b"a,b\n1,2\n" * 100)[:30] + b"garbage" * 9, "gz compressed data is damaged"),
    ],
    ids=lambda v: repr(v)[:40],
)
def test_what_cannot_be_read_says_why_and_what_to_do(tmp_path: Path, content: bytes, match: str) -> None:
    one = source(write(tmp_path, content))
    with pytest.raises(SourceError, match=match) as caught:
        rows(one.read(None, one.columns()), one.columns())
    assert caught.value.fix


def test_a_line_beyond_a_block_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = write(tmp_path, "a,b\n1,x\n2," + "y" * 5000 + "\n")
    with pytest.raises(SourceError, match=r"line 3 is longer than a block of 1.0 KiB.*raise `block`"):
        read(path, block=1024)


def test_missing_files_name_what_is_there(tmp_path: Path) -> None:
    write(tmp_path, "a\n1\n", "orders.csv")
    with pytest.raises(SourceError, match=r"no file .*order.csv.*Did you mean 'orders.csv'"):
        source(tmp_path / "order.csv").columns()
    with pytest.raises(SourceError, match=r"no file matches .*x\*.*orders.csv"):
        source(tmp_path / "x*").columns()
    with pytest.raises(SourceError, match=r"is a folder.*\*.csv"):
        source(tmp_path).columns()
    with pytest.raises(SourceError, match="no folder"):
        source(tmp_path / "no" / "x.csv").columns()


def test_settings_that_cannot_work_are_refused() -> None:
    for wrong, match in (
        ({"separator": "§"}, "ASCII"),
        ({"encoding": "utf-99"}, "unknown encoding"),
        ({"separator": ";;"}, "at most 1"),
        ({"path": []}, "at least 1"),
    ):
        with pytest.raises(ValueError, match=match):
            Csv.model_validate({"path": "x", **wrong})


def test_columns_to_leave_out_are_left_out_and_must_be_there(tmp_path: Path) -> None:
    path = write(tmp_path, "a,b\n1,x\n")
    assert source(path, without=["b"]).columns().names == ("a",)
    with pytest.raises(SpecError, match=r"'bb', which .* does not have. Did you mean 'b'"):
        source(path, without="bb").columns()


def test_a_file_that_lacks_a_column_is_an_error_and_another_order_is_none(tmp_path: Path) -> None:
    write(tmp_path, "a,b\n1,x\n", "1.csv")
    write(tmp_path, "b;a\ny;2\n", "2.csv")
    assert read(tmp_path / "*.csv") == TWO, "each file has its own dialect and order"
    write(tmp_path, "a,c\n1,x\n", "3.csv")
    with pytest.raises(SourceError, match=r"3.csv has no column 'b'.* write `new_columns: add` under `data`"):
        read(tmp_path / "*.csv")


def test_a_file_that_shrank_or_changed_or_was_half_written_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "a,b\n1,x\n2,y\n")
    one = source(path)
    schema = one.columns()
    cursor = json.loads(json.dumps(list(one.read(None, schema))[-1].cursor))
    os.utime(path)
    assert list(one.read(cursor, schema)) == [], "only its time changed"
    write(tmp_path, "a,b\n1,x\n")
    with pytest.raises(SourceError, match=r"shrank: 12 bytes .* now it has 8.*new table"):
        list(one.read(cursor, schema))
    write(tmp_path, "a,b\n1,x\n2,z\n3,z\n")
    with pytest.raises(SourceError, match="changed within the part that was read before"):
        list(one.read(cursor, schema))
    write(tmp_path, "a,b\n1,x\n2,y\n3,z\n4")
    more = list(one.read(cursor, schema))
    assert rows(more, schema)[0] == {"a": 3, "b": "z"}
    write(tmp_path, "a,b\n1,x\n2,y\n3,z\n45,w\n")
    with pytest.raises(SourceError, match="line 5 was read before its writer had finished it"):
        list(one.read(more[-1].cursor, schema))
    write(tmp_path, "a,b\n1,x\n2,y\n3,z\n4\n5,w\n")
    assert rows(one.read(more[-1].cursor, schema), schema) == [{"a": 5, "b": "w"}]


def test_a_file_that_moved_is_not_read_again(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    path = write(tmp_path / "old", "a,b\n1,x\n2,y\n")
    schema = source(path).columns()
    cursor = list(source(path).read(None, schema))[-1].cursor
    moved = path.rename(tmp_path / "new" / "x.csv")
    assert list(source(moved).read(cursor, schema)) == []
    with moved.open("a") as file:
        file.write("3,z\n")
    assert rows(source(moved).read(cursor, schema), schema) == [{"a": 3, "b": "z"}]


@pytest.mark.parametrize("pack", [lambda b: b, gzip.compress, lambda b: b.decode().encode("utf-16")], ids=["plain", "gz", "utf-16"])
def test_every_kind_of_file_can_be_entered_again_anywhere(tmp_path: Path, pack: Any) -> None:
    path = write(tmp_path, pack("".join(["n,w\n", *(f'{i},"é\n{i}"\n' for i in range(100))]).encode()))
    one = source(path, block=200)
    schema = one.columns()
    chunks = list(one.read(None, schema))
    assert len(chunks) > 3
    for i, chunk in enumerate(chunks):
        assert rows(one.read(chunk.cursor, schema), schema) == rows(chunks[i + 1 :], schema)


CELL = st.one_of(
    st.integers(-(10**20), 10**20).map(str),
    st.floats().map(str),
    st.sampled_from(["", "NA", "nan", "-", " 5", "5 ", "0x1F", "1e400", "true", "False", "1", "0", "yes", "+5", "５"]),
    st.sampled_from(["2024-01-01", "2024-01-01T00:00:00Z", "0000-01-01"]),
    st.text('ab,"\n\r; é\0', max_size=6),
)  # fmt: skip
TYPED = Schema(
    columns=(
        Column(name="i", type="int"),
        Column(name="f", type="float"),
        Column(name="b", type="bool", true_words=("true", "yes"), false_words=("false", "no")),
        Column(name="t", type="time", format="iso"),
        Column(name="s", type="string", nulls=("NA",)),
    )
)
TEXT = Schema(columns=tuple(Column(name=n, type="string") for n in TYPED.names))


@given(st.lists(st.tuples(CELL, CELL, CELL, CELL, CELL), min_size=1, max_size=8), st.integers(64, 200))
@settings(max_examples=examples(40), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_fast_road_gives_what_the_text_gives(tmp_path: Path, table: list[tuple[str, ...]], block: int) -> None:
    out = io.StringIO(newline="")
    python_csv.writer(out, lineterminator="\n", quoting=python_csv.QUOTE_ALL).writerows([TYPED.names, *table])
    path = write(tmp_path, out.getvalue())
    one = source(path, block=block * 4, header=True, separator=",", quote='"', encoding="utf-8")
    fast, text = list(one.read(None, TYPED)), list(one.read(None, TEXT))
    a = [clean(c.batch, TYPED) for c in fast]
    b = [clean(c.batch, TYPED) for c in text]
    assert [r for c in a for r in c.batch.to_pylist()] == [r for c in b for r in c.batch.to_pylist()]
    assert [c.faults.table().to_pylist() for c in a] == [c.faults.table().to_pylist() for c in b]
    shown = [tuple(x.strip() if x is not None else "" for x in r.values()) for c in text for r in c.batch.to_pylist()]
    assert shown == [tuple(x.strip() for x in r) for r in table], "and the text is what was written"


def _machine(block: bytes, quote: str, separator: str) -> list[int]:
    """Ends of records by a plain machine, letter by letter."""
    ends, state, i = [], "start", 0
    while i < len(block):
        letter = chr(block[i])
        if state == "quoted":
            if letter == quote and block[i + 1 : i + 2] == quote.encode():
                i += 1
            elif letter == quote:
                state = "plain"
        elif letter == "\n":
            ends.append(i + 1)
            state = "start"
        elif letter in ("\r", separator):
            state = "start"
        else:
            state = "quoted" if letter == quote and state == "start" else "plain"
        i += 1
    return ends


@given(st.text('ab,"\n\r', max_size=60))
@settings(max_examples=examples(200), deadline=None)
def test_records_end_where_a_plain_machine_says(text: str) -> None:
    block = text.encode()
    ends = _machine(block, '"', ",")
    assert all_ends(block, '"', ",").tolist() == ends
    assert last_end(block, '"', ",") == (ends[-1] if ends else 0)
    filled = [e for s, e in zip([0, *ends], ends, strict=False) if block[s:e].strip(b"\r\n")]
    assert first_end(block, 0, '"', ",") == (filled[0] if filled else 0)


@pytest.mark.parametrize("window", [4, 16])
@given(text=st.text('ab,"\n', max_size=80))
@settings(max_examples=examples(100), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_last_end_is_found_from_any_window(window: int, text: str) -> None:
    from modelinscale.data.sources import _records

    usual, block = _records.WINDOW, text.encode()
    _records.WINDOW = window
    try:
        ends = _machine(block, '"', ",")
        assert last_end(block, '"', ",") == (ends[-1] if ends else 0)
    finally:
        _records.WINDOW = usual


def test_a_column_that_does_not_fit_in_one_block_changes_no_other(tmp_path: Path) -> None:
    lines = [f"{i},{i / 2},w{i}" for i in range(2000)]
    lines[1500] = "oops,750.0,w1500"
    path = write(tmp_path, "\n".join(["i,f,w", *lines]) + "\n")
    one = source(path, block=4096)
    schema = one.columns()
    assert [c.type for c in schema.columns] == ["int", "float", "string"]
    found = rows(one.read(None, schema), schema)
    assert [r["i"] for r in found] == [None if i == 1500 else i for i in range(2000)]
    faults = [f for c in one.read(None, schema) for f in clean(c.batch, schema).faults.table().to_pylist()]
    assert [(f["column"], f["reason"], f["value"]) for f in faults] == [("i", "not a whole number", "oops")]


def test_types_that_only_later_parts_show_are_seen(tmp_path: Path) -> None:
    body = [f"{i},{i if i < 300_000 else i / 4},{'' if i < 300_000 else 'x'}" for i in range(400_000)]
    schema = source(write(tmp_path, "\n".join(["a,b,c", *body]) + "\n")).columns()
    assert [c.type for c in schema.columns] == ["int", "float", "string"]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from modelinscale.data.sources.csv import Csv\nfrom modelinscale.data.clean import clean\n"
        "s = Csv(path=sys.argv[1]); schema = s.columns()\n"
        "for c in s.read(None, schema): clean(c.batch, schema)\n"
        "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))\n"
    )
    peaks = []
    for n in (1, 10):
        path = write(tmp_path, "id,word,share\n" + "".join(f"{i},word-{i},{i / 7:.6f}\n" for i in range(300_000)))
        with path.open("ab") as file:
            block = path.read_bytes().split(b"\n", 1)[1]
            for _ in range(n * 4 - 1):
                file.write(block)
        peaks.append(int(subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True).stdout))
    assert peaks[1] <= 1.2 * peaks[0], peaks
    assert resource.getpagesize() > 0


def test_the_byte_order_mark_counts_into_no_name(tmp_path: Path) -> None:
    assert source(write(tmp_path, codecs.BOM_UTF8 + b"id;x\n1;2\n")).columns().names == ("id", "x")
