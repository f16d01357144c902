"""Rows of a source through a package into a file."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import polars as pl
import pyarrow as pa
import pytest

from modelinscale.compute.local import Local
from modelinscale.core import memory
from modelinscale.core.errors import DataError, MisError, SourceError, StoreError, UsageError
from modelinscale.core.schema import Column, Schema
from modelinscale.core.task import TaskType
from modelinscale.data.sources import Chunk, Cursor, Source
from modelinscale.package import Package, open_package
from modelinscale.score import score
from modelinscale.testing.packages import COLUMNS, ROWS, write_package


class Text(Source):
    """Rows as text, some at a time: what a file of text gives, without the file."""

    cells: tuple[tuple[str | None, ...], ...]
    names: tuple[str, ...] = COLUMNS[:5]
    part: int = 2
    broken: tuple[int, ...] = ()

    def columns(self) -> Schema:
        return Schema(columns=tuple(Column(name=n, type="string") for n in self.names))

    def read(self, after: Cursor | None, schema: Schema) -> Iterator[Chunk]:
        for start in range(0, len(self.cells), self.part):
            rows = self.cells[start : start + self.part]
            arrays = [pa.array([r[i] for r in rows], pa.string()) for i in range(len(self.names))]
            why = pa.array(["3 cells, expected 5" if start + i in self.broken else None for i in range(len(rows))], pa.string())
            yield Chunk(pa.record_batch([*arrays, why], [*self.names, "_mis_broken"]), {"row": start + len(rows)}, f"rows, from line {start + 1}")

    def fingerprint(self) -> Any:
        return None


def package(folder: Path, **settings: Any) -> Package:
    settings = {"columns": COLUMNS[:5], **settings}
    return open_package(write_package(folder / "package", **settings))


GOOD = (("12.5", "3", "true", "Paris", "2024-05-01T13:00:00"), ("250", "1", "false", "Oslo", "2023-12-31T23:59:59"), (None, "", None, None, None))


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_file_holds_one_answer_for_each_row_in_order(tmp_path: Path, task: TaskType, suffix: str) -> None:
    opened = package(tmp_path, task=task)
    out = tmp_path / f"answers{suffix}"
    done = score(opened, Text(cells=GOOD * 50, part=7), out)
    assert (done.n_rows, done.n_faults, done.out) == (150, 0, out)
    found = pl.read_csv(out) if suffix == ".csv" else pl.read_ndjson(out) if suffix == ".jsonl" else pl.read_parquet(out)
    assert found.columns == ["prediction", *(f"probability_{k}" for k in opened.label_keys)]
    expected = opened.predict([{k: r[k] for k in COLUMNS[:5]} for r in ROWS[:3]] * 50)
    assert len(found) == 150
    for row, one in zip(found.iter_rows(named=True), expected, strict=True):
        if task == "regression":
            assert row["prediction"] == pytest.approx(one["prediction"], abs=1e-6)
        else:
            assert row["prediction"] == one["prediction"]
            assert [row[f"probability_{k}"] for k in opened.label_keys] == pytest.approx(list(one["probabilities"].values()), abs=1e-6)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_no_rows_give_a_file_of_no_answers(tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"answers{suffix}"
    assert score(package(tmp_path), Text(cells=()), out).n_rows == 0
    if suffix == ".jsonl":
        assert out.read_bytes() == b""
    else:
        assert (pl.read_csv if suffix == ".csv" else pl.read_parquet)(out).columns == ["prediction", "probability_false", "probability_true"]


def test_cells_and_rows_that_cannot_be_read_are_answered_as_missing_and_counted(tmp_path: Path) -> None:
    cells = (("12.5", "three", "true", "Paris", "2024-05-01T13:00:00"), (None,) * 5, ("1", "2", "true", "Oslo", "yesterday"))
    opened = package(tmp_path)
    done = score(opened, Text(cells=cells, broken=(1,)), tmp_path / "a.parquet")
    assert (done.n_rows, done.n_faults) == (3, 3)
    expected = opened.predict(
        [{"amount": 12.5, "paid": True, "city": "Paris", "at": "2024-05-01T13:00:00"}, {}, {"amount": 1, "count": 2, "paid": True, "city": "Oslo"}]
    )
    assert pl.read_parquet(tmp_path / "a.parquet")["prediction"].to_list() == [one["prediction"] for one in expected]


def test_strict_stops_at_a_cell_and_names_place_column_and_value(tmp_path: Path) -> None:
    cells = (*GOOD, ("1", "three", "true", "Oslo", None))
    with pytest.raises(DataError, match=r"rows, from line 3, row 2 of this part, column 'count': found 'three'"):
        score(package(tmp_path), Text(cells=cells), tmp_path / "a.csv", strict=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["package"]


def test_strict_stops_at_a_row_that_cannot_be_taken_apart(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"rows, from line 1, row 2 of this part: 3 cells, expected 5"):
        score(package(tmp_path), Text(cells=GOOD, broken=(1,)), tmp_path / "a.csv", strict=True)


def test_a_missing_cell_where_a_value_must_be_is_a_fault(tmp_path: Path) -> None:
    opened = package(tmp_path, required=("count",))
    assert score(opened, Text(cells=GOOD), tmp_path / "a.csv").n_faults == 1
    with pytest.raises(DataError, match=r"column 'count': nothing is there"):
        score(opened, Text(cells=GOOD), tmp_path / "b.csv", strict=True)


def test_missing_columns_are_told_before_any_work(tmp_path: Path) -> None:
    source = Text(cells=(("1", "2"),), names=("amuont", "count"))
    with pytest.raises(SourceError, match=r"lack 4 of the model's 5 columns: 'amount' Did you mean 'amuont'\?.*Columns there: amuont, count"):
        score(package(tmp_path), source, tmp_path / "a.csv")
    assert not (tmp_path / "a.csv").exists()


@pytest.mark.parametrize("name", ["answers", "answers.xlsx", "answers.cvs"])
def test_a_suffix_that_is_not_known_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"cannot be written as .*Known: \.csv, \.jsonl"):
        score(package(tmp_path), Text(cells=GOOD), tmp_path / name)


def test_a_failing_run_leaves_the_old_file_as_it_was(tmp_path: Path) -> None:
    out = tmp_path / "a.csv"
    out.write_text("old")
    with pytest.raises(DataError):
        score(package(tmp_path), Text(cells=(*GOOD * 10, ("x", None, None, None, None))), out, strict=True)
    assert out.read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.csv", "package"]


def test_the_file_read_is_never_written_over(tmp_path: Path) -> None:
    class Named(Text):
        path: tuple[str, ...]

    out = tmp_path / "rows.csv"
    out.write_text("rows")
    with pytest.raises(UsageError, match="one of the files to read"):
        score(package(tmp_path), Named(cells=GOOD, path=(str(tmp_path / "*.csv"),)), out)
    assert out.read_text() == "rows"


def test_a_new_file_has_the_rights_files_usually_have(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    score(package(tmp_path), Text(cells=GOOD), tmp_path / "a.csv")
    assert (tmp_path / "a.csv").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_progress_counts_rows(tmp_path: Path) -> None:
    seen: list[int] = []
    score(package(tmp_path), Text(cells=GOOD), tmp_path / "a.csv", progress=lambda n_rows, note: seen.append(n_rows))
    assert seen == [2, 3]


def test_what_is_read_at_a_time_follows_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    class Watched(Text):
        def within(self, n_bytes: int, schema: Schema) -> Self:
            asked.append(n_bytes)
            return self

    monkeypatch.setattr(memory, "MARGIN", 100)  # this process runs other tests too
    opened = package(tmp_path)
    for n_bytes in (4 << 30, 1 << 30, 512 << 20):
        score(opened, Watched(cells=GOOD), tmp_path / "a.csv", compute=Local(memory=n_bytes))
    assert asked == [memory.block(4 << 30), memory.block(1 << 30), memory.block(512 << 20)]
    assert asked[2] < asked[1] < asked[0]


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", str(small)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("a small disk cannot be made here: mounting needs rights")
    try:
        for suffix in (".csv", ".jsonl", ".parquet"):
            rows = tuple((str(i * 0.0037), str(i % 97), "true", "Oslo", None) for i in range(20_000))
            with pytest.raises(StoreError, match="No space left on device"):
                score(package(tmp_path / suffix), Text(cells=rows, part=4000), small / f"a{suffix}")
            assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_killed_run_leaves_no_file_and_the_next_run_clears_up(tmp_path: Path) -> None:
    opened = package(tmp_path)
    program = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from modelinscale.package import open_package
        from modelinscale.score._write import writer
        import pyarrow as pa
        begin = writer(Path(sys.argv[1]))
        with begin(pa.schema([("prediction", pa.int64())])) as write:
            write(pa.table({"prediction": [1]}))
            print("writing", flush=True)
            sys.stdin.read()
        """
    )
    out = tmp_path / "a.csv"
    with subprocess.Popen([sys.executable, "-c", program, str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        process.send_signal(signal.SIGKILL)
    assert not out.exists()
    (left,) = tmp_path.glob(".a.csv.*.part")
    score(opened, Text(cells=GOOD), out)
    assert left.exists(), "it might belong to a run that still writes"
    os.utime(left, (time.time() - 7200,) * 2)
    score(opened, Text(cells=GOOD), out)
    assert [p.name for p in tmp_path.glob(".*")] == []


def test_an_error_of_the_source_comes_through_and_leaves_nothing(tmp_path: Path) -> None:
    class Torn(Text):
        def read(self, after: Cursor | None, schema: Schema) -> Iterator[Chunk]:
            yield next(super().read(after, schema))
            raise SourceError("rows.csv.gz ends too early.")

    with pytest.raises(MisError, match="ends too early"):
        score(package(tmp_path), Torn(cells=GOOD), tmp_path / "a.parquet")
    assert not (tmp_path / "a.parquet").exists()
