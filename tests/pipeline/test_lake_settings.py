"""What model.yaml says of the table: rows replaced by key, columns that come up, numbers that get a point, and what a vacuum leaves."""

from pathlib import Path
from typing import Any

import pytest

from modelinscale.api import Project
from modelinscale.core.errors import NotSupportedYet, SourceError, SpecError
from modelinscale.data.lake import Table, open_table


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "rows").mkdir()
    write(tmp_path, "a", "id,x,y", [f"{i},{i * 7 % 10},{i % 2}" for i in range(60)])
    return tmp_path


def write(project: Path, name: str, header: str, lines: list[str]) -> None:
    (project / "rows" / f"{name}.csv").write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")


def collect(project: Path, *settings: str) -> tuple[Table, list[str]]:
    source = [] if any(s.startswith("source:") for s in settings) else ["  source: rows/*.csv"]
    lines = ["name: m", "target: y", "model: linear", "data:", *source, "  key: id", *(f"  {s}" for s in settings)]
    (project / "model.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    outcome = Project(project).run(until="collect")
    return open_table(Project(project).describe("lake").facts["uri"]), list(outcome.notes)


def cells(table: Table, *names: str) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for block in table.blocks(names) for row in block.to_pylist()]


def test_a_row_that_comes_again_takes_the_place_of_the_first(project: Path) -> None:
    collect(project, "write: upsert")
    write(project, "b", "id,x,y", ["3,9,1", "70,1,0", "3,8,0"])
    table, _ = collect(project, "write: upsert")
    assert (table.n_rows, [row for row in cells(table, "id", "x", "y") if row[0] in (3, 70)]) == (61, [(70, 1, 0), (3, 8, 0)])
    assert Project(project).describe("quarantine").facts["n_rows"] == 0


def test_without_it_the_row_goes_to_quarantine(project: Path) -> None:
    collect(project)
    write(project, "b", "id,x,y", ["3,9,1", "70,1,0"])
    table, _ = collect(project)
    assert (table.n_rows, Project(project).describe("quarantine").facts["n_rows"]) == (61, 1)


def test_replacing_needs_a_key_and_no_other_unique_values(project: Path) -> None:
    (project / "model.yaml").write_text("target: y\ndata: {source: rows/a.csv, write: upsert}\n", encoding="utf-8")
    with pytest.raises(SpecError, match=r"replaces rows by key, and `key` is not given"):
        Project(project)
    with pytest.raises(NotSupportedYet, match="rows are replaced by key, and values must differ"):
        collect(project, "write: upsert", "checks: {x: unique}")


def test_a_column_that_comes_up_is_taken_in_where_asked_for(project: Path) -> None:
    before, _ = collect(project, "new_columns: add")
    write(project, "b", "id,x,y,z", ["70,1,0,tall", "71,2,1,small"])
    table, _ = collect(project, "new_columns: add")
    assert (before.schema.names, table.schema.names, table.uri) == (("id", "x", "y"), ("id", "x", "y", "z"), before.uri)
    assert cells(table, "id", "z")[-3:] == [(59, None), (70, "tall"), (71, "small")]
    write(project, "c", "id,x,y", ["80,1,0"])
    table, _ = collect(project, "new_columns: add")
    assert cells(table, "id", "z")[-1] == (80, None)


@pytest.mark.parametrize("more", ["new_columns: add", "source: {type: csv, path: rows/*.csv, sparse: true}"])
def test_a_file_that_lacks_a_column_is_taken_in_once_what_its_refusal_names_is_done(project: Path, more: str) -> None:
    before, _ = collect(project)
    write(project, "b", "id,y", ["70,1"])
    with pytest.raises(SourceError, match=r"b.csv has no column 'x'.*`new_columns: add` under `data` \(or `sparse: true` for the source\)"):
        collect(project)
    table, _ = collect(project, more)
    assert (table.uri, cells(table, "id", "x", "y")[-1]) == (before.uri, (70, None, 1))
    with (project / "model.yaml").open("a") as file:
        file.write("features: {x: number}\n")
    assert [c["name"] for c in Project(project).check().columns] == ["id", "x", "y"], "a check takes what a run takes"


def test_a_column_that_comes_up_is_left_out_otherwise(project: Path) -> None:
    collect(project)
    write(project, "b", "id,x,y,z", ["70,1,0,tall"])
    table, _ = collect(project)
    assert (table.schema.names, table.n_rows) == (("id", "x", "y"), 61)


def test_whole_numbers_get_a_point_where_asked_for(project: Path) -> None:
    collect(project, "widen: true")
    write(project, "b", "id,x,y", ["70,1.5,0"])
    table, _ = collect(project, "widen: true")
    assert (table.schema["x"].type, cells(table, "x")[-2:]) == ("float", [(3.0,), (1.5,)])


def test_otherwise_numbers_with_a_point_go_to_quarantine(project: Path) -> None:
    collect(project)
    write(project, "b", "id,x,y", ["70,1.5,0"])
    table, _ = collect(project)
    assert (table.schema["x"].type, table.n_rows, Project(project).describe("quarantine").facts["n_rows"]) == ("int", 60, 1)


def test_a_vacuum_leaves_what_a_model_was_trained_on(project: Path) -> None:
    table, _ = collect(project)
    for i in range(3):
        write(project, f"b{i}", "id,x,y", [f"{70 + i},1,0"])
        table, _ = collect(project)
    table.tag("model-m-1", 2)
    planned = Project(project).vacuum("0s", dry_run=True)
    assert planned.dry_run
    assert planned.tables[0].removed == (1, 3)
    done = Project(project).vacuum("0s")
    assert done.tables[0].removed == (1, 3)
    assert done.tables[0].kept[2] == "named model-m-1"
    shown = Project(project).describe("lake").facts
    assert {v["version"]: (v["what"], v["tags"]) for v in shown["versions"]} == {2: ("append", ["model-m-1"]), 4: ("append", []), 5: ("vacuum", [])}
    assert all("@" in v["by"] for v in shown["versions"])


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_path_is_told_without_its_way_back_and_rows_kept_under_the_long_one_are_not_read_again(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import polars as pl

    for name in ("rows", "p", "elsewhere/deep"):
        (tmp_path / name).mkdir(parents=True)
    frame = pl.DataFrame({"id": range(60), "x": [i % 7 for i in range(60)], "y": [i % 2 for i in range(60)]})
    frame.write_csv(tmp_path / "rows" / "a.csv") if suffix == "csv" else frame.write_parquet(tmp_path / "rows" / "a.parquet")
    (tmp_path / "p" / "model.yaml").write_text(f"target: y\ndata: {{source: ../rows/*.{suffix}}}\n", encoding="utf-8")
    with monkeypatch.context() as before:
        before.setattr("modelinscale.spec._source._at", lambda base, path: str(base / path))
        Project(tmp_path / "p").run(until="collect")
    uri = Project(tmp_path / "p").describe("lake").facts["uri"]
    assert list(open_table(uri).cursor["files"]) == [str(tmp_path / "p" / ".." / "rows" / f"a.{suffix}")]  # type: ignore[index]
    frame = frame.with_columns(id=pl.col("id") + 100)
    frame.write_csv(tmp_path / "rows" / "b.csv") if suffix == "csv" else frame.write_parquet(tmp_path / "rows" / "b.parquet")
    Project(tmp_path / "p").run(until="collect")
    assert open_table(uri).n_rows == 120
    assert set(open_table(uri).cursor["files"]) == {str(tmp_path / "rows" / f"{name}.{suffix}") for name in "ab"}  # type: ignore[index]
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere" / "deep")
    (tmp_path / "p" / "model.yaml").write_text(f"target: y\ndata: {{source: [gone/../no.{suffix}, ../link/../no.{suffix}]}}\n", encoding="utf-8")
    told = Project(tmp_path / "p")
    assert told.spec.source_at(told.base).plain()["path"] == [str(tmp_path / "p" / f"no.{suffix}"), f"{tmp_path}/p/../link/../no.{suffix}"]
