"""Kills `mis run` at random moments and looks at what is left: nothing lost, nothing doubled, nothing half-visible, and the rerun finishes.

python benchmarks/faults.py [--kills 100] [--seed 7]   writes benchmarks/results/faults.md
"""

import argparse
import collections
import json
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from _measure import MIS, run

HERE = Path(__file__).parent
ROWS = 60_000
WORDS = 950
"""Words in a note: together about 240 MB, which collect commits in three parts (one each 96 MiB)."""
BROKEN = 700
DOUBLED = 400
COMMITS = 3
EARLY = "collect"
"""The step that early kills fall into, once its first commit is there."""
LATE = "evaluate"
"""The step whose end starts the clock of late kills: only export and register come after it."""

KINDS = ("any", "early", "late")
"""Where kills fall, in turn."""


@dataclass(frozen=True)
class State:
    """What is visible in a project."""

    ids: tuple[str, ...]
    lines: tuple[tuple[object, ...], ...]
    """Of the quarantine: row, column, reason, value."""
    n_commits: int
    n_versions: int

    def __str__(self) -> str:
        return f"{self.n_commits} commits, {len(self.ids):,} rows, {len(self.lines):,} lines in quarantine, {self.n_versions} versions"


@dataclass(frozen=True)
class Length:
    """How long an undisturbed run takes, and when ``EARLY`` and ``LATE`` ended."""

    whole_s: float
    early_s: float
    late_s: float


def write_rows(path: Path) -> None:
    """A CSV with a key, a signal, a wide text column, about 1% broken cells and some keys that come again."""
    generator = np.random.default_rng(7)
    x = generator.normal(size=ROWS)
    cells, ids = [f"{v:.4f}" for v in x], [f"r{i:06d}" for i in range(ROWS)]
    # Odd rows break, even rows of the second half take keys of even rows of the first: every fault written is one line in quarantine.
    for i in generator.choice(np.arange(1, ROWS, 2), BROKEN, replace=False):
        cells[i] = "?!"
    for i in generator.choice(np.arange(ROWS // 2, ROWS, 2), DOUBLED, replace=False):
        ids[i] = ids[2 * generator.integers(0, ROWS // 4)]
    notes = [" ".join(generator.choice(["some", "words", "of", "a", "long", "note"], WORDS)) for _ in range(50)]
    pl.DataFrame(
        {
            "id": ids,
            "x": cells,
            "shop": generator.choice(["a", "b", "c"], ROWS),
            "note": [notes[i] for i in generator.integers(0, 50, ROWS)],
            "y": (x + generator.normal(size=ROWS) > 0).astype(np.int8),
        }
    ).write_csv(path)


def prepare(project: Path) -> None:
    """Rows and a model.yaml that names the key and learns from the narrow columns only."""
    write_rows(project / "data.csv")
    run([MIS, "init", "data.csv", "--target", "y", "--model", "trees"], cwd=project)
    file = project / "model.yaml"
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if not line.startswith(("  note:", "  key:"))]
    at = next(i for i, line in enumerate(lines) if line.startswith("  source:"))
    file.write_text("\n".join([*lines[: at + 1], "  key: id", *lines[at + 1 :]]) + "\n", encoding="utf-8")


def look(project: Path) -> State:
    """What is visible now; raises `AssertionError` when anything is doubled or half there."""
    from modelinscale.data.collect import open_quarantine
    from modelinscale.data.lake import open_table, table_exists
    from modelinscale.package import open_package

    lake = project / ".mis" / "lake"
    tables = [t for t in sorted(lake.glob("*")) if not t.name.startswith(".") and not t.name.endswith(".quarantine") and table_exists(str(t))]
    assert len(tables) <= 1, f"several tables: {tables}"
    ids: list[str] = []
    lines: list[tuple[object, ...]] = []
    n_commits = 0
    for table in tables:
        n_commits = open_table(str(table)).last.seq
        for batch in open_table(str(table)).blocks(columns=["id"]):
            ids += batch.column("id").to_pylist()
        for batch in open_quarantine(f"{table}.quarantine", str(table)):
            lines += [(one["row"], one["column"], one["reason"], one["value"]) for one in batch.to_pylist()]
    assert len(ids) == len(set(ids)), f"{len(ids) - len(set(ids))} rows are doubled in the lake"
    assert len(lines) == len(set(lines)), f"{len(lines) - len(set(lines))} lines are doubled in quarantine"
    visible = [
        p.parent for p in project.glob(".mis/packages/*/*/*") if not any(part.startswith(".") and part != ".mis" for part in p.relative_to(project).parts)
    ]
    for package in sorted(set(visible)):
        open_package(package)
    versions = json.loads(run([MIS, "show", "--json"], cwd=project).output).get("versions", [])
    for version in versions:
        open_package(Path(version["package"]))
    return State(tuple(ids), tuple(lines), n_commits, len(versions))


def run_until_killed(project: Path, *, after: str, wait_s: float) -> bool:
    """Starts `mis run`, waits for the line of the step ``after`` and ``wait_s`` more, kills it. Whether it had ended by itself.

    ``after`` may be "", to wait for nothing, or ``EARLY``, to wait for its first commit.
    """
    process = subprocess.Popen([MIS, "run"], cwd=project, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stderr is not None
    if after == EARLY:
        while process.poll() is None and not any(".quarantine/" not in str(v) for v in project.glob(".mis/lake/*/_versions/*")):
            time.sleep(0.01)
    elif after:
        next((line for line in process.stderr if line.startswith(after)), None)
    try:
        process.wait(wait_s)
        return True
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return False
    finally:
        process.stderr.close()


def undisturbed(project: Path) -> Length:
    """A whole run, timed by the lines it says."""
    start, ended = time.monotonic(), {}
    process = subprocess.Popen([MIS, "run"], cwd=project, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    with process.stderr as said:
        for line in said:
            ended[line.split()[0]] = time.monotonic() - start
    assert process.wait() == 0, "the undisturbed run failed"
    return Length(time.monotonic() - start, ended[EARLY], ended[LATE])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    seen: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory() as name:
        project = Path(name)
        prepare(project)
        length = undisturbed(project)
        expected = look(project)
        assert expected.n_commits >= COMMITS, f"{expected}: rows are too few for {COMMITS} commits"
        assert len(expected.lines) == BROKEN + DOUBLED, f"{expected}: {BROKEN} broken cells and {DOUBLED} doubled keys were written"
        print(f"undisturbed: {length.whole_s:.1f} s, {EARLY} done at {length.early_s:.1f} s, {LATE} at {length.late_s:.1f} s, {expected}", flush=True)
        for i in range(arguments.kills):
            shutil.rmtree(project / ".mis", ignore_errors=True)
            kind = KINDS[i % len(KINDS)]
            ranges = {"any": (0.1, length.whole_s), "early": (0.0, 0.3 * length.early_s), "late": (0.0, length.whole_s - length.late_s)}
            ended = run_until_killed(project, after={"early": EARLY, "late": LATE}.get(kind, ""), wait_s=chance.uniform(*ranges[kind]))
            state = look(project)
            assert set(state.ids) <= set(expected.ids), f"kill {i}: rows that an undisturbed run does not have"
            assert state.lines == expected.lines[: len(state.lines)], f"kill {i}: the quarantine is no beginning of the whole one"
            seen["all, finished before the kill" if ended else str(state)] += 1
            run([MIS, "run", "--json"], cwd=project)
            after = look(project)
            assert after == expected, f"kill {i}: after the rerun {after}"
            print(f"{i + 1}/{arguments.kills} {kind}: {state} -> as undisturbed", flush=True)
    lines = [
        "# Kills at random moments",
        "",
        f"`mis run` on {ROWS:,} rows with a key, {BROKEN:,} broken cells and {DOUBLED:,} doubled keys (collect in {expected.n_commits} commits, train,",
        f"evaluate, export, register; {length.whole_s:.1f} s) was killed with SIGKILL, its whole process group, {arguments.kills} times, each from an",
        f"empty store (seed {arguments.seed}): in turn at a moment drawn evenly over its length, over the commits of collect, and over export and",
        "register. After every kill lake, quarantine and every visible package were opened (keys and lines compared, hashes checked,",
        "golden rows replayed), then `mis run` was repeated: every rerun left exactly the rows, the quarantine lines and the one version of an",
        "undisturbed run.",
        "",
        "| what was visible after the kill | times |",
        "|---|---|",
        *(f"| {state} | {n} |" for state, n in sorted(seen.items())),
    ]
    (HERE / "results" / "faults.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
