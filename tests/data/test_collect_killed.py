"""Kills at random moments: whatever the moment, nothing is lost, doubled or half there, and the next collect finishes."""

import random
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest

from modelinscale.core.schema import Column, Schema
from modelinscale.data._keys import keys_of
from modelinscale.data.collect import collect, open_quarantine
from modelinscale.data.contract import contract, open_indexes, parse_checks
from modelinscale.data.lake import open_table, table_exists
from modelinscale.testing.lists import Lists

pytestmark = pytest.mark.slow

N_ROWS = 4000
SCHEMA = Schema(columns=(Column(name="id", type="string"), Column(name="n", type="int")))
RULES = contract(SCHEMA, parse_checks({"n": {"at_most": 90}}), ("id",))


def source() -> Lists:
    """Rows of which some are bad and some come again."""
    ids = [f"r{i}" if i % 17 else f"r{i // 2}" for i in range(N_ROWS)]
    return Lists(rows={"id": tuple(ids), "n": tuple("?!" if i % 91 == 0 else str(i % 97) for i in range(N_ROWS))}, chunk_rows=50)


def go(folder: Path) -> None:
    collect(source(), lake=str(folder / "lake"), quarantine=str(folder / "quarantine"), contract=RULES, commit_rows=100)


def found(folder: Path) -> tuple[list[str], list[tuple[int, str, str]]]:
    """Everything that is visible: ids in the lake, lines in quarantine."""
    lake, quarantine = str(folder / "lake"), str(folder / "quarantine")
    ids = [v for b in open_table(lake).blocks(["id"]) for v in b.column("id").to_pylist()] if table_exists(lake) else []
    lines = [(line["row"], line["column"], line["reason"]) for b in open_quarantine(quarantine, lake) for line in b.to_pylist()]
    return ids, lines


SCRIPT = f"""
import json, sys, time
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_collect_killed as t
import lance
print("ready", flush=True)
t.go(Path(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], list[tuple[int, str, str]], float]:
    """What an undisturbed collect leaves, and how long it takes."""
    folder = tmp_path_factory.mktemp("whole")
    start = time.monotonic()
    go(folder)
    return *found(folder), time.monotonic() - start


def kill_and_look(folder: Path, whole: tuple[list[str], list[tuple[int, str, str]], float], chance: random.Random) -> bool:
    """One kill; whether it came before the end."""
    ids, lines, seconds = whole
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(folder)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    try:
        process.wait(chance.uniform(0.0, seconds * 1.2))
    except subprocess.TimeoutExpired:
        process.kill()
    process.wait()
    process.stdout.close()
    got_ids, got_lines = found(folder)
    assert got_ids == ids[: len(got_ids)], "the lake holds something else than the first rows"
    assert got_lines == lines[: len(got_lines)], "the quarantine holds something else than the first lines"
    if table_exists(str(folder / "lake")):
        n_read = dict(open_table(str(folder / "lake")).last.facts)["n_read"]
        assert got_lines == [line for line in lines if line[0] <= n_read]
        assert len(got_ids) == n_read - len({line[0] for line in got_lines})
    return len(got_ids) < len(ids)


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 22))])
def test_a_collect_killed_again_and_again_ends_as_an_undisturbed_one(
    tmp_path: Path, whole: tuple[list[str], list[tuple[int, str, str]], float], seed: int
) -> None:
    chance = random.Random(seed)
    for _ in range(2 if seed == 1 else 5):
        kill_and_look(tmp_path, whole, chance)
    go(tmp_path)
    assert found(tmp_path) == whole[:2]
    table = open_table(str(tmp_path / "lake"))
    assert table.cursor == {"row": N_ROWS}
    assert dict(table.last.facts) == {"n_read": N_ROWS, "n_quarantined": len({line[0] for line in whole[1]})}
    assert table.sweep() == 0, "files of killed writers are left"
    quarantine = open_table(str(tmp_path / "quarantine"))
    assert quarantine.n_rows == len(whole[1]), "lines of commits that never happened are left"
    # A kill between the last commit and the writing of its keys leaves the index behind, and there was nothing more to collect: it catches up when opened.
    (index,) = open_indexes(RULES, tmp_path / "lake" / "_mis_keys", table).values()
    assert (index.seq, index.n_rows) == (table.last.seq, table.n_rows)
    ids = pa.table({"id": whole[0]})
    assert index.find(keys_of(ids, index.columns)).all(), "keys of the table are missing from its index"
    assert not index.find(keys_of(pa.table({"id": ["other"]}), index.columns)).any()
