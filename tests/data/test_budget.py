"""What is read at a time follows the memory a process may hold, and what it holds follows that."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from modelinscale.core.memory import block
from modelinscale.data.sources import Source

N = 40_000


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same rows in four formats, about 4 MB."""
    folder = tmp_path_factory.mktemp("files")
    chance = np.random.default_rng(5)
    frame = pl.DataFrame({"x": chance.normal(size=N), "note": np.arange(N).astype(str), "long": ["what was written about it, and by whom " * 2] * N})
    frame.write_csv(folder / "rows.csv")
    frame.write_ndjson(folder / "rows.jsonl")
    frame.write_parquet(folder / "rows.parquet", row_group_size=N, use_pyarrow=True, pyarrow_options={"use_dictionary": False})
    return folder


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_small_budget_gives_smaller_chunks_of_the_same_rows(files: Path, suffix: str) -> None:
    source = Source.parse({"type": suffix, "path": str(files / f"rows.{suffix}")})
    schema = source.columns()
    least = 1 << 19
    whole, cut = list(source.read(None, schema)), list(source.within(least, schema).read(None, schema))
    assert len(whole) == 1
    assert len(cut) > 5
    assert max(chunk.batch.nbytes for chunk in cut) < 3 * least
    assert [v for chunk in cut for v in chunk.batch.column("note").to_pylist()] == whole[0].batch.column("note").to_pylist()
    assert source.within(least, schema).feed() == source.feed()
    first, *rest = cut
    resumed = source.read(first.cursor, schema)  # by another budget: a cursor does not depend on it
    assert sum(c.batch.num_rows for c in resumed) == sum(c.batch.num_rows for c in rest)


def test_what_the_user_said_is_not_changed(files: Path) -> None:
    said = Source.parse({"type": "csv", "path": str(files / "rows.csv"), "block": "3MiB"})
    assert said.within(1 << 20, said.columns()) == said


def test_sources_of_sources_hand_it_on(files: Path) -> None:
    one = Source.parse({"type": "objects", "url": f"file://{files}/rows.csv"})
    schema = one.columns()
    assert len(list(one.read(None, schema))) == 1
    assert len(list(one.within(1 << 19, schema).read(None, schema))) > 5
    both = Source.parse({"type": "joined", "main": one, "others": [{"source": {"type": "csv", "path": str(files / "rows.csv")}, "join": {"on": "note"}}]})
    less = both.within(1 << 19, schema)
    assert less.others[0].source.block == 1 << 19  # type: ignore[attr-defined]


def test_a_block_is_a_small_share_of_the_memory_there_is_and_never_too_small_for_a_row() -> None:
    assert block(2 << 30) > 16 << 20
    assert block(512 << 20) < 8 << 20
    assert block(256 << 20) == 1 << 20


COLLECT = """
import sys
from pathlib import Path
from threading import Thread
from modelinscale.core import memory
from modelinscale.compute.local import Local
from modelinscale.data.collect import collect
from modelinscale.data.contract import contract
from modelinscale.data.sources import Source
path, place, budget = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]) or None
source = Source.parse({"type": "csv", "path": path})
schema = source.columns()
guard = memory.Guard(1 << 60)
Thread(target=guard.watch, daemon=True).start()
before = memory.held()
found = collect(source, lake=str(place / "lake"), quarantine=str(place / "bad"), contract=contract(schema, {}, (), {}), compute=Local(memory=budget))
print(found.n_rows, guard.peak - before)
"""


@pytest.mark.slow
def test_what_a_collect_holds_follows_the_budget(files: Path, tmp_path: Path) -> None:
    rows = (files / "rows.csv").read_text().splitlines(keepends=True)
    with (tmp_path / "large.csv").open("w") as file:
        file.write(rows[0])
        for _ in range(30):
            file.writelines(rows[1:])
    peaks = {}
    for budget in (300 << 20, 0):
        place = tmp_path / str(budget)
        place.mkdir()
        done = subprocess.run(
            [sys.executable, "-c", COLLECT, str(tmp_path / "large.csv"), str(place), str(budget)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        n_rows, peaks[budget] = map(int, done.stdout.split())
        assert n_rows == 30 * N
    assert peaks[300 << 20] < 150 << 20, f"{peaks[300 << 20] >> 20} MiB"
    assert peaks[300 << 20] < 0.6 * peaks[0], peaks
