"""Columns that not all files have: those left out are told of, once and with where they came up; those taken in are taken in from the first collect on."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from modelinscale.api import Project
from modelinscale.cli import main
from modelinscale.data.lake import Table, open_table

SUFFIXES = ("csv", "jsonl", "parquet")


def write(project: Path, file: str, **columns: Any) -> Path:
    path = project / "rows" / file
    path.parent.mkdir(exist_ok=True)
    frame = pl.DataFrame(columns)
    {"csv": frame.write_csv, "jsonl": frame.write_ndjson, "parquet": frame.write_parquet}[path.suffix[1:]](path)
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
    write(tmp_path, "0.csv", id=[70], x=[1], y=[0], z=["tall"])
    _, notes = collect(tmp_path, "csv", "source: {type: csv, path: rows/*.csv, without: [z]}")
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
