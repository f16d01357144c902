"""Real files through real sources, read as the server reads the same cells."""

import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from modelinscale.core.errors import DataError, SourceError
from modelinscale.data.sources import Source
from modelinscale.package import Package, open_package
from modelinscale.score import score
from modelinscale.testing.packages import write_package

NAMES = ("amount", "count", "paid", "city", "at")
LINES = """at,extra,city,amount,count,paid
2024-05-01T13:00:00,x,Paris,12.5,3,true
2023-12-31 23:59:59,"a, b","Oslo, Norway",1e2,,false
,,,,,
1999-01-01T00:00:00,y,Paris,-0.5,40,True
"""
ROWS = [
    {"at": "2024-05-01T13:00:00", "city": "Paris", "amount": 12.5, "count": 3, "paid": True},
    {"at": "2023-12-31 23:59:59", "city": "Oslo, Norway", "amount": 100.0, "paid": False},
    {},
    {"at": "1999-01-01T00:00:00", "city": "Paris", "amount": -0.5, "count": 40, "paid": True},
]


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return open_package(write_package(tmp_path_factory.mktemp("p") / "package", columns=NAMES))


def answers(opened: Package, file: Path, **settings: object) -> list[bool]:
    out = file.parent / "answers.parquet"
    kind = {".csv": "csv", ".jsonl": "jsonl", ".parquet": "parquet", ".gz": "csv"}[file.suffix]
    done = score(opened, Source.parse({"type": kind, "path": str(file), **settings}), out)
    assert done.n_faults == 0
    table = pl.read_parquet(out)
    assert len(table) == done.n_rows
    return table["probability_true"].to_list()


def test_files_of_every_kind_are_answered_as_the_server_answers_the_same_cells(opened: Package, tmp_path: Path) -> None:
    expected = pytest.approx([one["probabilities"]["true"] for one in opened.predict(ROWS)], abs=1e-7)
    (tmp_path / "rows.csv").write_text(LINES)
    assert answers(opened, tmp_path / "rows.csv") == expected
    assert answers(opened, tmp_path / "rows.csv", block=64) == expected
    frame = pl.DataFrame(ROWS, schema={"at": pl.String, "city": pl.String, "amount": pl.Float64, "count": pl.Int64, "paid": pl.Boolean})
    frame.write_ndjson(tmp_path / "rows.jsonl")
    assert answers(opened, tmp_path / "rows.jsonl") == expected
    frame.write_parquet(tmp_path / "rows.parquet")
    assert answers(opened, tmp_path / "rows.parquet") == expected
    frame.with_columns(pl.col("at").str.to_datetime(strict=False)).write_parquet(tmp_path / "rows.parquet")
    assert answers(opened, tmp_path / "rows.parquet") == expected


def test_rows_stay_in_order_over_many_parts(opened: Package, tmp_path: Path) -> None:
    n_rows = 30_000
    amounts = [round(i / 7 - 2000, 3) for i in range(n_rows)]
    frame = pl.DataFrame(
        {"amount": amounts, "count": [0] * n_rows, "paid": [False] * n_rows, "city": ["Oslo"] * n_rows, "at": ["2000-01-01T00:00:00"] * n_rows}
    )
    frame.write_csv(tmp_path / "rows.csv")
    found = answers(opened, tmp_path / "rows.csv", block="16KiB")
    assert len(found) == n_rows
    assert found == sorted(found), "the probability rises with the amount, and so does the amount with the row"


def test_a_row_with_too_few_cells_keeps_its_place_and_is_counted(opened: Package, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(LINES + "2024-05-01T13:00:00,x\n2024-05-01T13:00:00,x,Paris,12.5,3,true\n")
    source = Source.parse({"type": "csv", "path": str(tmp_path / "rows.csv")})
    done = score(opened, source, tmp_path / "a.csv")
    assert (done.n_rows, done.n_faults) == (6, 1)
    found = pl.read_csv(tmp_path / "a.csv")["probability_true"].to_list()
    assert (found[4], found[5]) == (found[2], found[0])
    with pytest.raises(DataError, match=r"rows\.csv, from line 2, row 5 of this part"):
        score(opened, source, tmp_path / "b.csv", strict=True)


def test_a_header_without_rows_gives_no_answers_and_an_empty_file_an_error(opened: Package, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(LINES.splitlines()[0] + "\n")
    assert answers(opened, tmp_path / "rows.csv") == []
    (tmp_path / "rows.csv").write_text("")
    with pytest.raises(SourceError):
        answers(opened, tmp_path / "rows.csv")


PROGRAM = """
import sys
from pathlib import Path
from modelinscale.data.sources import Source
from modelinscale.package import open_package
from modelinscale.score import score
done = score(open_package(sys.argv[1]), Source.parse({"type": "csv", "path": sys.argv[2]}), Path(sys.argv[3]))
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))  # getrusage tells the parent's if that was more
print(done.n_rows, int(peak.split()[1]) * 1024)
"""


@pytest.mark.slow
def test_ten_times_the_rows_cost_hardly_more_memory(opened: Package, tmp_path: Path) -> None:
    assert opened.folder is not None
    line = "2024-05-01T13:00:00,x,Paris,12.5,3,true\n"
    used = []
    for n_rows in (2_000_000, 20_000_000):
        with (tmp_path / "rows.csv").open("w") as file:
            file.write(LINES.splitlines()[0] + "\n")
            for _ in range(n_rows // 10_000):
                file.write(line * 10_000)
        command = [sys.executable, "-c", PROGRAM, str(opened.folder), str(tmp_path / "rows.csv"), str(tmp_path / "a.parquet")]
        told = subprocess.run(command, capture_output=True, check=True, text=True).stdout.split()
        assert int(told[0]) == n_rows
        used.append(int(told[1]))
        (tmp_path / "rows.csv").unlink()
    assert used[1] < 1.2 * used[0]
    assert used[1] < 1_500_000_000
