"""Columns that not all files have: those left out are told of, once and with where they came up; those taken in are taken in from the first collect on."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from modelinscale.api import Project
from modelinscale.cli import main
from modelinscale.core.errors import SourceError
from modelinscale.data.lake import Table, open_table

SUFFIXES = ("csv", "jsonl", "parquet")


def write(project: Path, file: str, **columns: Any) -> Path:
    path = project / "rows" / file
    path.parent.mkdir(exist_ok=True)
    frame = pl.DataFrame(columns)
    frame.write_csv(path) if path.suffix == ".csv" else frame.write_ndjson(path) if path.suffix == ".jsonl" else frame.write_parquet(path)
    return path


def first(project: Path, suffix: str, n: int = 60) -> None:
    write(project, f"a.{suffix}", id=list(range(n)), x=[i * 7 % 10 for i in range(n)], y=[i % 2 for i in range(n)])


def model(project: Path, suffix: str, *settings: str) -> None:
    source = [] if any(s.startswith("source:") for s in settings) else [f"  source: rows/*.{suffix}"]
    lines = ["name: m", "target: y", "model: linear", "data:", *source, "  key: id", *(f"  {s}" for s in settings)]
    (project / "model.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")


def collect(project: Path, suffix: str, *settings: str) -> tuple[Table, list[str]]:
    model(project, suffix, *settings)
    outcome = Project(project).run(until="collect")
    return open_table(Project(project).describe("lake").facts["uri"]), list(outcome.notes)


def mis(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What a command that succeeds writes to standard output."""
    monkeypatch.setattr("sys.argv", ["mis", *words])
    with pytest.raises(SystemExit) as stopped:
        main()
    said = capsys.readouterr()
    assert not stopped.value.code, said.err
    return said.out


def rows(table: Table) -> list[dict[str, Any]]:
    return sorted((row for block in table.blocks(table.schema.names) for row in block.to_pylist()), key=lambda row: row["id"])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_column_left_out_is_told_of_with_the_file_that_had_it_first(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first(tmp_path, suffix)
    _, notes = collect(tmp_path, suffix)
    assert notes == []
    path = write(tmp_path, f"b.{suffix}", id=[70, 71], x=[1, 2], y=[0, 1], z=["tall", "small"], w=[1, 2])
    write(tmp_path, f"c.{suffix}", id=[80], x=[1], y=[0], z=["wide"])
    names = "w, z" if suffix == "jsonl" else "z, w"
    told = f"the source has columns that the table does not have, left out: {names} (first in {path}, from "
    table, notes = collect(tmp_path, suffix)
    assert (table.schema.names, table.n_rows) == (("id", "x", "y"), 63)
    assert [note for note in notes if note.startswith(told)] == notes[:1]
    assert len(notes) == 1, "one note"
    assert Project(tmp_path).describe("collect").facts["report"]["warnings"] == notes
    write(tmp_path, f"d.{suffix}", id=[90], x=[1], y=[0], z=["wide"])
    monkeypatch.chdir(tmp_path)
    assert json.loads(mis(monkeypatch, capsys, "collect", "--json"))["notes"][0].partition(" (first in ")[2].startswith(str(tmp_path / "rows" / "d."))
    write(tmp_path, f"e.{suffix}", id=[91], x=[1], y=[0], z=["wide"])
    assert "left out: z (first in " in mis(monkeypatch, capsys, "collect")


def test_columns_that_the_source_leaves_out_itself_are_not_told_of(tmp_path: Path) -> None:
    first(tmp_path, "csv")
    write(tmp_path, "b.csv", id=[70], x=[1], y=[0], z=["tall"])
    _, notes = collect(tmp_path, "csv", "source: {type: csv, path: rows/*.csv, without: [z], sparse: true}")
    assert notes == []


def test_names_that_are_personal_or_hold_control_characters_are_told_as_such(tmp_path: Path) -> None:
    first(tmp_path, "jsonl")
    collect(tmp_path, "jsonl")
    (tmp_path / "rows" / "b.jsonl").write_text(
        '{"id": 70, "x": 1, "y": 0, "anna@mail.example.org": 1, "a\\u001b[31m": 1, "' + "q" * 300 + '": 1}\n', encoding="utf-8"
    )
    _, notes = collect(tmp_path, "jsonl")
    assert "anna" not in notes[0]
    assert "left out: a\\x1b[31m, (email), " + "q" * 60 + "... (first in" in notes[0]


def test_many_columns_left_out_make_a_short_note(tmp_path: Path) -> None:
    first(tmp_path, "csv")
    collect(tmp_path, "csv")
    write(tmp_path, "b.csv", id=[70], x=[1], y=[0], **{f"c{i}": [1] for i in range(30)})
    write(tmp_path, "c.csv", id=[71], x=[1], y=[0], **{f"c{i}": [1] for i in range(300)})
    _, notes = collect(tmp_path, "csv")
    assert "c18, c19 (first in " in notes[0]
    assert notes[0].endswith("from line 2); and 80 or more others.")


def test_joined_sources_tell_of_the_columns_of_the_first(tmp_path: Path) -> None:
    first(tmp_path, "csv")
    (tmp_path / "other.csv").write_text("x,name\n" + "".join(f"{i},n{i}\n" for i in range(10)), encoding="utf-8")
    source = "source: [{type: csv, path: 'rows/*.csv'}, {type: csv, path: other.csv, join: {on: x}}]"
    collect(tmp_path, "csv", source)
    write(tmp_path, "b.csv", id=[70], x=[1], y=[0], z=["tall"])
    table, notes = collect(tmp_path, "csv", source)
    assert table.schema.names == ("id", "x", "y", "name")
    assert "left out: z (first in " in notes[0]


def several(suffix: str) -> dict[str, dict[str, Any]]:
    """Files with columns of their own: in different orders, whole numbers that get a point, text, a moment, and one file that lacks most."""
    return {
        f"a.{suffix}": {"id": list(range(60)), "x": [i * 7 % 10 for i in range(60)], "y": [i % 2 for i in range(60)]},
        f"b.{suffix}": {"z": ["tall", "small"], "id": [70, 71], "y": [0, 1], "n": [4, 5], "x": [3, 4]},
        f"c.{suffix}": {"id": [80, 81], "x": [1.5, 2.5], "y": [1, 0], "n": [0.25, 3.0], "at": ["2026-01-05 10:00:00", "2026-02-06 11:30:00"]},
        f"d.{suffix}": {"id": [90], "y": [1], "z": ["wide"]},
    }


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_first_collect_takes_what_collects_one_after_the_other_take(tmp_path: Path, suffix: str) -> None:
    settings = ("new_columns: add", "widen: true")
    slow, fast = tmp_path / "slow", tmp_path / "fast"
    for folder in (slow, fast):
        folder.mkdir()
    for name, columns in several(suffix).items():
        write(slow, name, **columns)
        one_by_one, _ = collect(slow, suffix, *settings)
        write(fast, name, **columns)
    at_once, notes = collect(fast, suffix, *settings)
    assert notes == []
    assert at_once.schema.names == ("id", "x", "y", "z", "n", "at")
    assert [(c.name, c.type) for c in at_once.schema.columns] == [(c.name, c.type) for c in one_by_one.schema.columns]
    assert rows(at_once) == rows(one_by_one)
    assert at_once.n_rows == 65
    assert [column["name"] for column in Project(fast).check().columns] == list(at_once.schema.names), "a check takes what a run takes"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_of_many_files_the_columns_of_each_are_taken(tmp_path: Path, suffix: str) -> None:
    first(tmp_path, suffix)
    for i in range(40):
        more = {f"own_{i}": [i], "w": [0.5 if i == 33 else 1]} if i % 11 == 0 else {}
        write(tmp_path, f"b{i:02}.{suffix}", id=[100 + i], x=[1], y=[0], **more)
    table, notes = collect(tmp_path, suffix, "new_columns: add", "widen: true")
    assert (notes, table.n_rows) == ([], 100)
    assert table.schema.names == ("id", "x", "y", "own_0", "w", "own_11", "own_22", "own_33")
    assert [row["w"] for row in rows(table) if row["w"] is not None] == [1.0, 1.0, 1.0, 0.5]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_model_yaml_says_of_a_column_holds_whichever_file_has_it(tmp_path: Path, suffix: str) -> None:
    first(tmp_path, suffix)
    write(tmp_path, f"b.{suffix}", id=[70], x=[1], y=[0], zip=["01067"], who=["Ann"], w=[3])
    said = ("new_columns: add", "columns: {zip: string}", "personal: {who: drop}", f"source: {{type: {suffix}, path: rows/*.{suffix}, without: [w]}}")
    table, notes = collect(tmp_path, suffix, *said)
    assert (notes, table.schema.names, rows(table)[-1]["zip"]) == ([], ("id", "x", "y", "zip"), "01067")
    write(tmp_path, f"c.{suffix}", id=[80], x=[1], y=[0], v=[1])
    table, notes = collect(tmp_path, suffix, *said)
    assert (notes, table.schema.names) == ([], ("id", "x", "y", "zip", "v"))


def test_a_column_of_two_kinds_that_cannot_be_one_is_refused_naming_both_files(tmp_path: Path) -> None:
    first(tmp_path, "parquet")
    one = write(tmp_path, "b.parquet", id=[70], x=[1], y=[0], z=[4])
    two = write(tmp_path, "c.parquet", id=[71], x=[1], y=[0], z=pl.Series([1]).cast(pl.Datetime("us")))
    with pytest.raises(SourceError, match=rf"column 'z' is timestamp\[us\] in {two} and int64 in {one}\..*without: \[z\]"):
        collect(tmp_path, "parquet", "new_columns: add")
    collect(tmp_path, "parquet", "new_columns: add", "source: {type: parquet, path: rows/*.parquet, without: [z]}")


def test_empty_files_bring_nothing(tmp_path: Path) -> None:
    first(tmp_path, "csv")
    for suffix in ("csv", "jsonl"):
        (tmp_path / "rows" / f"b.{suffix}").write_text("", encoding="utf-8")
    first(tmp_path, "jsonl")
    for suffix in ("csv", "jsonl"):
        assert collect(tmp_path, suffix, "new_columns: add")[0].n_rows == 60
        (tmp_path / "rows" / f"c.{suffix}").write_text("", encoding="utf-8")
        assert collect(tmp_path, suffix, "new_columns: add")[0].n_rows == 60


def test_a_column_that_was_left_out_before_comes_with_the_next_file_that_has_it(tmp_path: Path) -> None:
    first(tmp_path, "csv")
    write(tmp_path, "b.csv", id=[70], x=[1], y=[0], z=["tall"])
    collect(tmp_path, "csv")
    write(tmp_path, "c.csv", id=[71], x=[1], y=[0])
    assert collect(tmp_path, "csv", "new_columns: add")[0].schema.names == ("id", "x", "y")
    write(tmp_path, "d.csv", id=[72], x=[1], y=[0], z=["small"])
    assert [row["z"] for row in rows(collect(tmp_path, "csv", "new_columns: add")[0])[-3:]] == [None, None, "small"]


def test_columns_come_up_in_joined_sources_as_well(tmp_path: Path) -> None:
    first(tmp_path, "csv")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.csv").write_text("x,name\n" + "".join(f"{i},n{i}\n" for i in range(9)), encoding="utf-8")
    said = ("new_columns: add", "source: [{type: csv, path: 'rows/*.csv'}, {type: csv, path: 'other/*.csv', join: {on: x}}]")
    collect(tmp_path, "csv", *said)
    write(tmp_path, "b.csv", id=[70, 71], x=[1, 9], y=[0, 1], z=["tall", "small"])
    (tmp_path / "other" / "b.csv").write_text("x,name,size\n9,n9,4\n", encoding="utf-8")
    table, notes = collect(tmp_path, "csv", *said)
    assert (notes, table.schema.names) == ([], ("id", "x", "y", "name", "z", "size"))
    assert [tuple(row.values()) for row in rows(table)[-2:]] == [(70, 1, 0, "n1", "tall", None), (71, 9, 1, "n9", "small", 4)]


def test_objects_may_lack_columns_that_others_have(tmp_path: Path) -> None:
    first(tmp_path, "csv")
    said = ("new_columns: add", f"source: {{type: objects, url: 'file://{tmp_path}/rows/*.csv'}}")
    collect(tmp_path, "csv", *said)
    write(tmp_path, "b.csv", id=[70], y=[0], z=["tall"])
    table, notes = collect(tmp_path, "csv", *said)
    assert (notes, rows(table)[-1]) == ([], {"id": 70, "x": None, "y": 0, "z": "tall"})


def test_objects_tell_of_columns_left_out_by_their_own_name(tmp_path: Path) -> None:
    first(tmp_path, "csv")
    said = f"source: {{type: objects, url: 'file://{tmp_path}/rows/*.csv'}}"
    collect(tmp_path, "csv", said)
    write(tmp_path, "b.csv", id=[70], x=[1], y=[0], z=["tall"])
    _, notes = collect(tmp_path, "csv", said)
    assert notes[0].endswith(f"left out: z (first in file://{tmp_path}/rows/b.csv, from line 2).")
