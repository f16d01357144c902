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
from pathlib import Path

import numpy as np
import polars as pl

from _measure import MIS, run

HERE = Path(__file__).parent
ROWS = 60_000


def write_rows(path: Path) -> None:
    """A CSV with a key, a signal and a few broken cells, read in several chunks."""
    generator = np.random.default_rng(7)
    x = generator.normal(size=ROWS)
    pl.DataFrame(
        {
            "id": [f"r{i:06d}" for i in range(ROWS)],
            "x": x.round(4),
            "shop": generator.choice(["a", "b", "c"], ROWS),
            "note": [f"row number {i} of a file with some text in it to make it longer" for i in generator.integers(0, 50, ROWS)],
            "y": (x + generator.normal(size=ROWS) > 0).astype(np.int8),
        }
    ).write_csv(path)


def check(project: Path) -> str:
    """What is visible now, in a word; raises `AssertionError` when anything is half there."""
    from modelinscale.data.lake import open_table, table_exists
    from modelinscale.package import open_package

    n_rows = 0
    for uri in (project / ".mis" / "lake").glob("*"):
        if uri.name.startswith(".") or "quarantine" in uri.name or not table_exists(str(uri)):
            continue
        ids: list[str] = []
        for batch in open_table(str(uri)).blocks(columns=["id"]):
            ids += batch.column("id").to_pylist()
        assert len(ids) == len(set(ids)), f"{len(ids) - len(set(ids))} rows are doubled in {uri}"
        n_rows = len(ids)
    packages = [
        p.parent for p in project.glob(".mis/**/manifest.json") if not any(part.startswith(".") and part != ".mis" for part in p.relative_to(project).parts)
    ]
    for package in packages:
        open_package(package)
    shown = json.loads(run([MIS, "show", "--json"], cwd=project).output)
    for version in shown.get("versions", []):
        open_package(Path(version["package"]))
    return f"{n_rows} rows, {len(shown.get('versions', []))} versions"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    seen: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory() as name:
        project = Path(name)
        write_rows(project / "data.csv")
        run([MIS, "init", "data.csv", "--target", "y", "--model", "trees"], cwd=project)
        whole = run([MIS, "run", "--json"], cwd=project).wall_s
        for i in range(arguments.kills):
            shutil.rmtree(project / ".mis", ignore_errors=True)
            process = subprocess.Popen([MIS, "run", "--json"], cwd=project, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
            time.sleep(chance.uniform(0.1, whole))
            done = process.poll() is not None
            os.killpg(process.pid, signal.SIGKILL) if not done else None
            process.wait()
            state = check(project)
            seen["finished before the kill" if done else state] += 1
            run([MIS, "run", "--json"], cwd=project)
            after = check(project)
            assert after == f"{ROWS} rows, 1 versions", f"kill {i}: after the rerun {after}"
            print(f"{i + 1}/{arguments.kills} {state} -> {after}", flush=True)
    lines = [
        "# Kills at random moments",
        "",
        f"`mis run` on {ROWS:,} rows (collect, train, evaluate, export, register; {whole:.1f} s) was killed with SIGKILL, its whole process group,",
        f"{arguments.kills} times, each at a moment drawn evenly over its length (seed {arguments.seed}), each from an empty store. After every kill the lake",
        "and every visible package were opened (hashes checked, golden rows replayed), then `mis run` was repeated: every rerun finished with all rows",
        "once and exactly one version.",
        "",
        "| what was visible after the kill | times |",
        "|---|---|",
        *(f"| {state} | {n} |" for state, n in sorted(seen.items())),
    ]
    (HERE / "results" / "faults.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
