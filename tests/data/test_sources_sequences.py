"""Long tables as sequences: rows grouped by key and ordered by time, and windows to forecast what comes next."""

import json
import math
import random
import sqlite3
import subprocess
import sys
import tempfile
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from modelinscale.api import Project
from modelinscale.core.errors import SourceError, SpecError, StoreError
from modelinscale.core.schema import Schema
from modelinscale.data.clean import clean
from modelinscale.data.sources import Cursor, Source
from modelinscale.data.sources._sequences import Wanted
from modelinscale.data.sources._sequences.sorting import Sorter
from modelinscale.data.sources._sequences.steps import ranked
from modelinscale.data.sources._sequences.stored import Stored
from modelinscale.data.sources.sequences import Sequences
from modelinscale.spec import loads
from modelinscale.spec._source import settings_of
from modelinscale.testing import sources as suite

READINGS = [(f"s{key}", at, key + at / 10, -at, "ab"[key % 2]) for key in range(5) for at in range(3 + key)]
HEAD = "sensor,at,value,pressure,label\n"


def written(path: Path, rows: list[tuple[Any, ...]] = READINGS) -> Path:
    path.write_text(HEAD + "".join(",".join(map(str, row)) + "\n" for row in rows))
    return path


def sequences(source: Any, **more: Any) -> Source:
    settings = {"by": ["sensor"], "order_by": "at", "values": ["value", "pressure"], **more}
    return Source.parse(settings_of({"type": "sequences", "source": source, **settings}))


def rows(source: Source, after: Cursor | None = None) -> tuple[list[dict[str, Any]], Cursor | None]:
    schema, found = source.columns(), []
    for chunk in source.read(after, schema):
        found += clean(chunk.batch, schema).batch.to_pylist()
        after = chunk.cursor
    return found, after


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    shuffled = list(READINGS)
    random.Random(7).shuffle(shuffled)
    return written(tmp_path / "readings.csv", shuffled)


def test_rows_of_a_key_become_lists_in_the_order_of_time_however_they_came(mixed: Path) -> None:
    found, _ = rows(sequences(str(mixed), keep=["label"]))
    assert [row["sensor"] for row in found] == ["s0", "s1", "s2", "s3", "s4"]
    assert found[1] == {"sensor": "s1", "at": 3, "label": "b", "value": pytest.approx([1.0, 1.1, 1.2, 1.3]), "pressure": [0, -1, -2, -3]}


def test_a_database_gives_the_same_sequences_as_a_file(mixed: Path) -> None:
    with sqlite3.connect(mixed.parent / "plant.db") as db:
        db.execute("CREATE TABLE readings (id integer PRIMARY KEY, sensor text, at integer, value real, pressure integer, label text)")
        db.executemany("INSERT INTO readings (sensor, at, value, pressure, label) VALUES (?, ?, ?, ?, ?)", READINGS)
    db.close()
    table = {"type": "sql", "url": f"sqlite:///{mixed.parent / 'plant.db'}", "table": "readings", "cursor": "id"}
    assert rows(sequences(table, keep=["label"]))[0] == rows(sequences(str(mixed), keep=["label"]))[0]


@pytest.mark.parametrize(
    "more",
    [{"keep": ["label"], "rows": 2}, pytest.param({"history": 2, "horizon": 1, "rows": 10}, marks=pytest.mark.slow)],
    ids=["keys", "windows"],
)
def test_they_are_read_as_every_source_is(mixed: Path, more: dict[str, Any]) -> None:
    source = sequences(str(mixed), **more)
    for check in (
        suite.from_every_cursor_the_rest_comes_once,
        suite.reading_twice_gives_the_same_chunks,
        suite.chunks_match_the_schema,
        suite.only_asked_columns_come,
        suite.at_the_end_nothing_comes,
        suite.the_fingerprint_is_plain_and_still,
        suite.settings_round_trip,
    ):
        check(source)


def test_keys_with_new_rows_come_again_whole_and_no_others(tmp_path: Path) -> None:
    file = written(tmp_path / "readings.csv")
    source = sequences(str(file))
    _, end = rows(source)
    with file.open("a") as out:
        out.write("s2,99,7.5,0,a\ns9,1,1.0,0,b\n")
    found, end = rows(source, end)
    assert {row["sensor"]: len(row["value"]) for row in found} == {"s2": 6, "s9": 1}
    assert rows(source, end)[0] == []


@pytest.mark.parametrize("more", [{}, {"history": 2, "horizon": 1}], ids=["keys", "windows"])
def test_what_is_new_does_not_depend_on_the_order_of_files(tmp_path: Path, more: dict[str, Any]) -> None:
    old = written(tmp_path / "b.csv", [("old", at, 1.0, 0, "a") for at in range(4)])
    source = sequences(str(tmp_path / "*.csv"), **more)
    first, end = rows(source)
    written(tmp_path / "a.csv", [("new", at, 2.0, 0, "a") for at in range(3)])
    written(tmp_path / "c.csv", [("last", 0, 3.0, 0, "a")])
    second, end = rows(source, end)
    with old.open("a") as out:
        out.write("old,4,1.0,0,a\n")
    third, end = rows(source, end)
    assert [sorted({row["sensor"] for row in part}) for part in (first, second, third)] == [["old"], ["last", "new"] if not more else ["new"], ["old"]]
    assert rows(source, end)[0] == []
    if more:
        assert sorted(map(str, [*first, *second, *third])) == sorted(map(str, rows(source)[0]))


@pytest.mark.parametrize("more", [{}, {"history": 2, "horizon": 1}], ids=["keys", "windows"])
def test_rows_that_come_while_the_source_is_read_again_are_brought_by_the_next_collect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any]
) -> None:
    file = written(tmp_path / "readings.csv", [("s1", at, 1.0, 0, "a") for at in range(3)])
    source, late = sequences(str(file), **more), ["s1,4,1.0,0,a\n", "s2,0,2.0,0,a\ns2,1,2.0,0,a\ns2,2,2.0,0,a\n"]
    read = type(source.source).read  # type: ignore[attr-defined]

    def busy(self: Source, after: Cursor | None, schema: Schema) -> Any:
        if after is None and late and file.read_text().count("\n") > 4:
            with file.open("a") as out:
                out.write(late.pop())
        return read(self, after, schema)

    monkeypatch.setattr(type(source.source), "read", busy)  # type: ignore[attr-defined]
    first, end = rows(source)
    with file.open("a") as out:
        out.write("s1,3,1.0,0,a\n")
    second, end = rows(source, end)
    third, end = rows(source, end)
    fourth, _ = rows(source, end)
    assert [sorted({row["sensor"] for row in part}) for part in (first, second, third, fourth)] == [["s1"], ["s1"], ["s2"], ["s1"]]


@pytest.mark.parametrize("more", [{"rows": 2}, {"history": 2, "horizon": 1, "rows": 3}], ids=["keys", "windows"])
def test_a_collect_broken_off_goes_on_with_the_rows_of_then(tmp_path: Path, more: dict[str, Any]) -> None:
    file = written(tmp_path / "b.csv")
    source = sequences(str(tmp_path / "*.csv"), **more)
    whole, (first, *_) = rows(source)[0], source.read(None, source.columns())
    written(tmp_path / "a.csv", [("aa", at, 1.0, 0, "a") for at in range(3)])
    rest, _ = rows(source, first.cursor)
    n = len(whole) - first.batch.num_rows
    assert rest[:n] == whole[first.batch.num_rows :]
    assert {row["sensor"] for row in rest[n:]} == {"aa"}
    file.write_text(file.read_text().replace("s4,0,4.0", "s4,0,9.0"))
    with pytest.raises(SourceError):
        rows(source, first.cursor)


@pytest.mark.parametrize(("change", "said"), [("DELETE FROM readings", "changed or removed while"), ("UPDATE readings SET value = 7", "have changed")])
def test_a_collect_broken_off_does_not_go_on_with_other_rows(tmp_path: Path, change: str, said: str) -> None:
    source, db = table(tmp_path, rows=1)
    first = next(source.read(None, source.columns()))
    db.execute(change)
    db.commit()
    db.close()
    with pytest.raises(SourceError, match=said):
        rows(source, first.cursor)


def table(folder: Path, **more: Any) -> tuple[Source, sqlite3.Connection]:
    db = sqlite3.connect(folder / "plant.db")
    db.execute("CREATE TABLE readings (id integer PRIMARY KEY, changed integer, sensor text, at integer, value real, pressure integer)")
    db.executemany("INSERT INTO readings (changed, sensor, at, value, pressure) VALUES (?, ?, ?, ?, 0)", [(i, f"s{i % 2}", i, i / 10) for i in range(8)])
    db.commit()
    return sequences({"type": "sql", "url": f"sqlite:///{folder / 'plant.db'}", "table": "readings", "cursor": "changed", "key": "id", "lag": 0}, **more), db


@pytest.mark.parametrize("more", [{}, {"history": 2, "horizon": 1}], ids=["keys", "windows"])
@pytest.mark.parametrize("change", ["UPDATE readings SET value = 7 WHERE at = 2", "DELETE FROM readings WHERE at < 4"])
def test_rows_that_changed_behind_the_cursor_are_told(tmp_path: Path, more: dict[str, Any], change: str) -> None:
    source, db = table(tmp_path, **more)
    _, end = rows(source)
    db.execute(change)
    db.execute("INSERT INTO readings (changed, sensor, at, value, pressure) VALUES (8, 's0', 8, 0.8, 0)")
    db.commit()
    db.close()
    with pytest.raises(SourceError, match="rows that were read before have changed: of 8 rows then"):
        rows(source, end)


def test_a_row_that_comes_again_brings_its_key_again_and_no_window(tmp_path: Path) -> None:
    source, db = table(tmp_path)
    windows = source.but(history=2, horizon=1)
    (_, end), (_, of_windows) = rows(source), rows(windows)
    db.execute("UPDATE readings SET value = 7, changed = 8 WHERE at = 2")
    db.commit()
    db.close()
    found, end = rows(source, end)
    assert [(row["sensor"], row["value"]) for row in found] == [("s0", pytest.approx([0.0, 7.0, 0.4, 0.6]))]
    assert rows(source, end)[0] == []
    with pytest.raises(SourceError, match="have changed"):
        rows(windows, of_windows)


def test_windows_hold_what_was_known_and_what_came_next_for_each_value(tmp_path: Path) -> None:
    found, _ = rows(sequences(str(written(tmp_path / "readings.csv")), history=3, horizon=2))
    one = next(row for row in found if row["sensor"] == "s2" and row["series"] == "value")
    assert one["at"] == 2
    assert one["history"] == pytest.approx([2.0, 2.1, 2.2])
    assert one["future"] == pytest.approx([2.3, 2.4])
    assert len(found) == 2 * (1 + 2 + 3)


def test_new_rows_bring_the_windows_that_they_complete_and_no_others(tmp_path: Path) -> None:
    file = written(tmp_path / "readings.csv")
    source, whole = sequences(str(file), history=3, horizon=2), []
    part, end = rows(source)
    whole += part
    with file.open("a") as out:
        out.write("s2,5,7.5,0,a\ns2,6,7.5,0,a\n")
    part, _ = rows(source, end)
    assert [row["at"] for row in part] == [3, 4, 3, 4]
    key = str
    assert sorted([*whole, *part], key=key) == sorted(rows(source)[0], key=key)


def test_no_window_reaches_over_a_hole_in_time(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = written(tmp_path / "a.csv", [("s1", at, at, 0, "a") for at in (0, 1, 2, 3, 1000, 1001, 1002, 1003)])
    found, _ = rows(sequences(str(file), history=2, horizon=2, values=["value"]))
    assert [(row["at"], row["future"]) for row in found] == [(1, [2, 3]), (1001, [1002, 1003])]
    (record,) = caplog.records
    assert "reach over a hole in time" in record.message
    assert (record.windows, record.of) == (3, 5)  # type: ignore[attr-defined]


@pytest.mark.parametrize(("step", "n"), [(None, 8), ("3d", 17), ("2d", 8)])
def test_moments_that_are_apart_by_nature_are_said_with_a_step(tmp_path: Path, step: str | None, n: int) -> None:
    days = [day for day in range(1, 27) if day % 7 not in (6, 0)]  # four weeks from a Monday on
    file = tmp_path / "prices.csv"
    file.write_text("day,price\n" + "".join(f"2026-06-{day:02},{day}\n" for day in days))
    more = {"step": step} if step else {}
    found, _ = rows(sequences(str(file), by=[], order_by="day", values=["price"], history=2, horizon=2, **more))
    assert len(found) == n


def test_each_series_has_its_own_usual_step(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = written(tmp_path / "a.csv", [(f"s{k}", at * k, 1.0, 0, "a") for k in (1, 60) for at in range(5)])
    assert len(rows(sequences(str(file), history=2, horizon=2, values=["value"]))[0]) == 4
    assert not caplog.records


def test_windows_do_not_take_rows_that_came_late(tmp_path: Path) -> None:
    file = written(tmp_path / "readings.csv")
    source = sequences(str(file), history=3, horizon=2)
    _, end = rows(source)
    with file.open("a") as out:
        out.write("s2,-1,7.5,0,a\n")
    with pytest.raises(SourceError, match="came later than others of their series"):
        rows(source, end)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("s1,2,0,0,b\n", "1 rows have the same sensor and at as another"),
        (",2,0,0,b\n", "1 rows have no 'sensor'"),
        ("s1,,0,0,b\n", "1 rows have no 'at'"),
        ("s1,9,0,0,a\n", "1 keys have several 'label'"),
    ],
)
def test_rows_without_a_place_in_a_sequence_are_told(tmp_path: Path, row: str, said: str) -> None:
    file = written(tmp_path / "readings.csv")
    with file.open("a") as out:
        out.write(row)
    with pytest.raises(SourceError, match=said):
        rows(sequences(str(file), keep=["label"]))


def test_a_key_of_too_many_rows_is_told(mixed: Path) -> None:
    with pytest.raises(SourceError, match="a key has 7 rows, more than `longest` \\(5\\)"):
        rows(sequences(str(mixed), longest=5))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"values": ["valeu"]}, "no column 'valeu'.*value"),
        ({"values": ["label"]}, "'label' is string, and lists are made of numbers"),
        ({"by": []}, "grouped `by` nothing"),
        ({"history": 3}, "a window needs `history` and `horizon`"),
        ({"step": 3}, "`step` is for windows"),
        ({"past": ["pressure"]}, "`past` and `ahead` are for windows"),
        ({"history": 2, "horizon": 1, "values": ["value"], "ahead": ["label"]}, "'label' is string, and lists are made of numbers and flags"),
        ({"history": 2, "horizon": 1, "values": ["value"], "ahead": ["pressure"], "past": ["pressure"]}, "a column is named twice"),
        ({"history": 2, "horizon": 1, "ahead": ["holiday"]}, "no column 'holiday'"),
        ({"memory": "1KiB"}, "memory"),
    ],
)
def test_settings_that_cannot_be_are_told(mixed: Path, more: dict[str, Any], said: str) -> None:
    with pytest.raises((SpecError, ValidationError), match=f"(?s){said}"):
        sequences(str(mixed), **more).columns()


def test_windows_have_what_is_known_ahead_whole_and_of_other_columns_only_what_was(tmp_path: Path) -> None:
    rows_of = [(f"s{k}", at, 10 * k + at, 100 + at, "ab"[k]) for k in range(2) for at in range(7)]
    file = tmp_path / "shops.csv"
    file.write_text(
        "shop,day,sales,visitors,kind,holiday\n"
        + "".join(f"{shop},{day},{sales},{n},{kind},{str(day % 3 == 0).lower()}\n" for shop, day, sales, n, kind in rows_of)
    )
    more = {"by": ["shop"], "order_by": "day", "values": ["sales"], "keep": ["kind"], "past": ["visitors"], "ahead": ["holiday"], "history": 3, "horizon": 2}
    source = sequences(str(file), **more)
    assert [(c.name, c.type, c.width) for c in source.columns().columns] == [
        ("shop", "string", None),
        ("day", "int", None),
        ("kind", "string", None),
        ("history", "vector", 3),
        ("visitors", "vector", 3),
        ("holiday", "vector", 5),
        ("future", "vector", 2),
    ]
    found, _ = rows(source)
    assert len(found) == 2 * 3
    assert found[4] == {
        "shop": "s1",
        "day": 3,
        "kind": "b",
        "history": [11, 12, 13],
        "visitors": [101, 102, 103],
        "holiday": [0, 0, 1, 0, 0],
        "future": [14, 15],
    }


def test_what_comes_in_a_column_that_is_not_known_ahead_changes_no_window(tmp_path: Path) -> None:
    """The truth of the future is in no column but the one to be forecast, and those that are said to be known."""

    def windows(last: int) -> list[dict[str, Any]]:
        file = tmp_path / "shops.csv"
        file.write_text("day,sales,visitors,price\n" + "".join(f"{day},{day},{last if day == 5 else day},{last if day == 5 else day}\n" for day in range(6)))
        more = {"by": [], "order_by": "day", "values": ["sales"], "past": ["visitors"], "ahead": ["price"], "history": 3, "horizon": 3}
        return rows(sequences(str(file), **more))[0]

    (one,), (other,) = windows(5), windows(99)
    assert one["visitors"] == other["visitors"] == [0, 1, 2]
    assert (one["price"][-1], other["price"][-1]) == (5, 99)
    assert {**one, "price": None} == {**other, "price": None}


def test_a_value_that_a_series_does_not_keep_is_told(tmp_path: Path) -> None:
    file = written(tmp_path / "readings.csv", [("s1", at, at, 0, "ab"[at == 4]) for at in range(6)])
    with pytest.raises(SourceError, match="1 keys have several 'label'"):
        rows(sequences(str(file), history=2, horizon=1, keep=["label"]))


def many(folder: Path, n_keys: int = 13, seed: int = 5) -> Path:
    """Rows in any order, of keys of very different lengths, one of them longer than all others together."""
    chance = random.Random(seed)
    found = [
        (f"s{key}", at, round(chance.gauss(0, 1), 3), at % 7, "ab"[key % 2])
        for key in range(n_keys)
        for at in range(500 if key == 3 else chance.randrange(1, 60))
    ]
    chance.shuffle(found)
    return written(folder / "many.csv", found)


class Small(Sequences):
    """So little memory that a few rows fill it."""

    @classmethod
    def of(cls, source: Source) -> "Small":
        return cls.model_validate({name: getattr(source, name) for name in type(source).model_fields})

    @property
    def _wanted(self) -> Wanted:
        return replace(super()._wanted, memory=32_000)


@pytest.mark.parametrize("more", [{"keep": ["label"]}, {"history": 5, "horizon": 2, "keep": ["label"], "every": 3}], ids=["keys", "windows"])
def test_rows_that_do_not_fit_give_the_same_sequences_in_the_same_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any]) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    held = sequences({"type": "csv", "path": str(many(tmp_path)), "block": 4096}, **more)
    small = Small.of(held)
    (whole, end), (cut, other) = rows(held), rows(small)
    assert len(whole) > 10
    assert list(map(str, cut)) == list(map(str, whole))  # numbers that are missing are equal as words
    assert other == end
    assert not list(temporary.iterdir())
    with (tmp_path / "many.csv").open("a") as out:
        out.write("s3,500,1.5,0,b\ns99,1,1.0,0,b\n")
    assert list(map(str, rows(small, end)[0])) == list(map(str, rows(held, end)[0]))
    first = next(held.but(rows=3).read(None, held.columns()))  # broken off, and gone on with in less memory
    assert list(map(str, rows(small, first.cursor)[0])) == list(map(str, rows(held, first.cursor)[0]))


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("s3,5,0,0,b\n", "1 rows have the same sensor and at as another"),
        (",2,0,0,b\n", "1 rows have no 'sensor'"),
        ("s3,-9,0,0,a\n", "1 keys have several 'label'"),
    ],
)
def test_rows_without_a_place_are_told_also_where_they_do_not_fit(tmp_path: Path, row: str, said: str) -> None:
    file = many(tmp_path)
    with file.open("a") as out:
        out.write(row)
    small = Small.of(sequences({"type": "csv", "path": str(file), "block": 4096}, keep=["label"]))
    with pytest.raises(SourceError, match=said):
        rows(small)


def test_the_budget_of_a_collect_bounds_the_rows_that_are_held(mixed: Path) -> None:
    source = sequences(str(mixed))
    less = source.within(1 << 18, source.columns())
    assert less.memory == 4 << 20  # type: ignore[attr-defined]
    assert less.feed() == source.feed()
    text = f"data: {{source: {{type: sequences, source: '{mixed}', by: [sensor], order_by: at, values: [value]}}}}\ntarget: label\n"
    assert loads(text + "compute: {type: local, memory: 1GiB}").source_at(mixed.parent).memory == 256 << 20  # type: ignore[attr-defined]


def test_more_runs_than_are_merged_at_once_come_out_in_order_and_leave_no_file(tmp_path: Path) -> None:
    at = np.random.default_rng(3).permutation(700)
    frames = pl.DataFrame({"key": at // 100, "at": at % 100, "word": [f"w{i}" if i % 3 else None for i in at]}).iter_slices(10)
    sorter = Sorter(["key", "at"], 1_000, tmp_path)
    for frame in frames:
        sorter.add(frame)
    found = pl.concat(list(sorter.blocks()))
    assert sorter.n_runs > 32
    assert found["key"].to_list() == sorted((at // 100).tolist())
    assert found["at"].to_list() == list(range(100)) * 7
    assert found["word"].to_list() == [f"w{i}" if i % 3 else None for i in range(700)]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("n", [1, 2, 3, 8, 1001])
def test_the_middle_step_of_a_long_series_is_that_of_a_sorted_list(n: int) -> None:
    apart = np.random.default_rng(n).exponential(size=n)
    apart[: n // 3] = apart[-1]
    for rank in {0, (n - 1) // 2, n // 2, n - 1}:
        assert ranked(lambda: np.array_split(apart, 3), rank) == np.sort(apart)[rank]


@pytest.mark.slow
def test_what_is_held_follows_the_memory_and_not_the_rows(tmp_path: Path) -> None:
    code = """
import sys, threading
import numpy as np, polars as pl
from modelinscale.core import memory
from modelinscale.data.sources import Source
n, path = int(sys.argv[1]), sys.argv[2]
chance = np.random.default_rng(1)
at = chance.permutation(n)
pl.DataFrame({"key": at // 4000, "at": at % 4000, "x": chance.normal(size=n), "y": chance.normal(size=n)}).write_parquet(path, row_group_size=50_000)
del at
inner = {"type": "parquet", "path": path}
source = Source.parse({"type": "sequences", "source": inner, "by": ["key"], "order_by": "at", "values": ["x", "y"]})
schema = source.columns()
source = source.within(2 << 20, schema)
assert source.memory == 32 << 20
memory.give_back()
guard = memory.Guard(1 << 60)
before = memory.held()
threading.Thread(target=guard.watch, daemon=True).start()
total = sum(len(v) for chunk in source.read(None, schema) for v in chunk.batch.column("x").to_numpy(zero_copy_only=False))
print(total, guard.peak - before)
"""
    peaks = {}
    for n in (300_000, 1_500_000):
        done = subprocess.run([sys.executable, "-c", code, str(n), str(tmp_path / "rows.parquet")], capture_output=True, text=True, check=True)
        total, peaks[n] = map(int, done.stdout.split())
        assert total == n
    assert max(peaks.values()) < 96 << 20, peaks  # measured 64: the budget, and what reading and Arrow's pool keep
    assert peaks[1_500_000] < 1.5 * peaks[300_000] + (16 << 20), peaks


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no device that is always full")
def test_a_full_disk_of_temporary_files_is_told_with_what_moves_them() -> None:
    with pytest.raises(StoreError, match="No space left") as caught:
        Stored.write(Path("/dev/full"), iter([pl.DataFrame({"x": np.arange(100_000)})]), 1 << 20, 64)
    assert caught.value.fix == "Free some space, or set TMPDIR to a folder on a larger file system."


def test_windows_are_not_split_by_hash_without_a_word(tmp_path: Path) -> None:
    (tmp_path / "load.csv").write_text("hour,load\n" + "".join(f"{at},{math.sin(at)}\n" for at in range(200)))

    def checked(more: str) -> tuple[str, ...]:
        (tmp_path / "model.yaml").write_text(
            "version: 1\nname: load\ndata:\n  source: {type: sequences, source: load.csv, order_by: hour, values: [load], history: 8, horizon: 2}\n"
            f"{more}features: {{history: vector}}\ntarget: future\nmodel: {{type: forecast}}\n"
        )
        return Project(tmp_path).check().notes

    with pytest.raises(SpecError, match="windows overlap") as caught:
        checked("")
    assert "`time: hour`" in str(caught.value.fix)
    assert [note for note in checked("  split: {type: hash}\n") if "windows overlap" in note]
    assert not [note for note in checked("  time: hour\n") if "windows overlap" in note]


@pytest.mark.slow
def test_a_long_table_becomes_a_model_that_forecasts(tmp_path: Path) -> None:
    lines = [f"{at},{10 + math.sin(at * math.pi / 6) + 0.01 * (at % 7)}\n" for at in range(900)]
    (tmp_path / "load.csv").write_text("hour,load\n" + "".join(lines))
    (tmp_path / "model.yaml").write_text(
        "version: 1\nname: load\n"
        "data:\n  source: {type: sequences, source: load.csv, order_by: hour, values: [load], history: 24, horizon: 6}\n  time: hour\n"
        "features: {history: vector}\ntarget: future\nmodel: {type: forecast}\n"
    )
    Project(tmp_path).run()
    history = [10 + math.sin(at * math.pi / 6) for at in range(1000, 1024)]
    (answer,) = Project(tmp_path).package().predict([{"history": history}])
    assert answer["prediction"] == pytest.approx([10 + math.sin(at * math.pi / 6) for at in range(1024, 1030)], abs=0.1)


def shops(folder: Path, more: str, features: str) -> Path:
    """Sales of two shops by the day: a week's wave, the shop's size, and days off that are drawn, on which hardly anybody comes."""
    chance, lines = random.Random(7), []
    for shop, size in (("north", 10.0), ("south", 200.0)):
        for day in range(700):
            off = chance.random() < 0.08
            sales = size * (3 + math.sin(day * math.tau / 7) - 2 * off + 0.1 * chance.gauss(0, 1))
            lines.append(f"{shop},{date(2024, 1, 1) + timedelta(days=day)},{sales:.4f},{'small' if shop == 'north' else 'large'},{off},{sales * 1.5:.3f}\n")
    folder.mkdir()
    (folder / "sales.csv").write_text("shop,day,sales,kind,off,visitors\n" + "".join(lines))
    (folder / "model.yaml").write_text(
        "version: 1\nname: sales\n"
        f"data:\n  source: {{type: sequences, source: sales.csv, by: [shop], order_by: day, values: [sales], history: 21, horizon: 7{more}}}\n"
        f"  time: day\n  label_delay: 7d\nfeatures: {{history: vector{features}}}\ntarget: future\nmodel: {{type: forecast}}\n"
    )
    return folder


@pytest.mark.slow
def test_days_off_that_are_known_ahead_make_forecasts_better_and_visitors_of_the_past_do_not_tell_the_future(tmp_path: Path) -> None:
    found = {}
    for name, more, features in (
        ("without", "", ""),
        ("past", ", past: [off, visitors]", ", off: vector, visitors: vector"),
        ("ahead", ", keep: [kind], ahead: [off], past: [visitors]", ", off: vector, visitors: vector, kind: category"),
    ):
        project = Project(shops(tmp_path / name, more, features))
        project.run()
        found[name] = json.loads((project.base / ".mis/packages/sales/1/manifest.json").read_text())["metrics"]["rmse"]["value"]
    assert found["ahead"] < 0.5 * min(found["without"], found["past"])
    assert found["past"] > 0.8 * found["without"]  # what visitors are to come is not in it
    row = {"kind": "large", "history": [600.0 + 200 * math.sin(day * math.tau / 7) for day in range(21)], "visitors": [900.0] * 21}
    none, last = (Project(tmp_path / "ahead").package().predict([{**row, "off": [0] * 27 + [off]}])[0]["prediction"] for off in (0, 1))
    assert none[:6] == pytest.approx(last[:6], rel=1e-4)
    assert last[6] < none[6] - 100


@pytest.mark.slow
def test_a_long_table_becomes_a_model_that_tells_sequences_apart_and_takes_later_rows(tmp_path: Path) -> None:
    chance = random.Random(7)

    def lines(key: int, first: int, n: int) -> str:
        bump = key % 2 * 3
        return "".join(f"m{key},{at},{chance.gauss(0, 1) + bump * math.sin(at * 2)},{'ok' if key % 2 else 'bad'}\n" for at in range(first, first + n))

    (tmp_path / "long.csv").write_text("machine,at,value,state\n" + "".join(lines(key, 0, 20 + key % 7) for key in range(120)))
    (tmp_path / "model.yaml").write_text(
        "version: 1\nname: machines\n"
        "data:\n  source: {type: sequences, source: long.csv, by: [machine], order_by: at, values: [value], keep: [state]}\n"
        "  key: machine\n  write: upsert\n"
        "features: {value: {type: sequence, longest: 25}}\ntarget: state\nmodel: {type: random_convolutions, features: 500, groups: 4}\n"
    )
    outcome = Project(tmp_path).run()
    assert [note for note in outcome.notes if note.startswith("value: ") and "are cut to their first 25 steps; the longest has 26" in note]
    package = Project(tmp_path).package()
    wave = [3 * math.sin(at * 2) for at in range(25)]
    assert [answer["prediction"] for answer in package.predict([{"value": wave}, {"value": [0.1, -0.2] * 12}])] == ["ok", "bad"]
    assert package.predict([{"value": []}, {"value": None}])[0] == package.predict([{"value": None}])[0]
    with (tmp_path / "long.csv").open("a") as out:
        out.write(lines(3, 40, 10))
    Project(tmp_path).run(until="collect")
    assert Project(tmp_path).describe("project").facts["table"]["n_rows"] == 120
