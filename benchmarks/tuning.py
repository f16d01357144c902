"""Is the best of 50 whole random trials matched with at most 30 % of their compute? And do two workers do 1.7 times the work of one?

python benchmarks/tuning.py [--trials 50] [--seeds 3] [NAME ...]   writes benchmarks/results/tuning.md

Both sides search the same space of `trees` on the same rows; compute is the CPU time of all trials. Matched: the tuned best, on the validation rows, is
no worse than the random best by more than half a percent. What the test rows say of both is beside it.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _real import HOME, SETS, Set, write
from modelinscale.api import Project, init

NAMES = ("adult", "california-housing", "bike-sharing")
WORSE = 0.005


def searched(file: Path, seed: int, tune: dict[str, Any], *, judge: bool = True) -> dict[str, Any]:
    """One search, and what the test rows say of the model trained with its best settings."""
    project = Project(file)
    project.spec = project.spec.but(train=project.spec.train.but(seed=seed), tune=tune, model="trees")
    start = time.monotonic()
    facts = project.tune().facts
    seconds = time.monotonic() - start
    outcome = project.run(until="evaluate") if judge else None
    metric, value = next(iter(outcome.metrics.items())) if outcome is not None else ("", {"value": None})
    return {**facts, "seconds": seconds, "metric": metric, "test": value["value"]}


def compare(one: Set, n_trials: int, seeds: int, work: Path) -> list[str]:
    """Rows of the table: one a seed."""
    file = work / one.name / "model.yaml"
    file.parent.mkdir()
    init([str(write(one, work))], target=one.target, out=file, model="trees")
    rows = []
    for seed in range(seeds):
        random = searched(file, seed, {"trials": n_trials, "searcher": "random", "prune": "none", "warm": 0})
        tuned = searched(file, seed, {"trials": n_trials, "searcher": "tpe", "prune": "top", "warm": 0})
        share, away = tuned["cpu_seconds"] / random["cpu_seconds"], tuned["loss"] / random["loss"] - 1
        matched = "yes" if away <= WORSE else "no"
        rows.append(
            f"| {one.name} | {seed} | {random['loss']:.5f} | {tuned['loss']:.5f} | {away:+.2%} | {matched} | {share:.0%} | {random['cpu_seconds']:.0f} "
            f"| {tuned['cpu_seconds']:.0f} | {tuned['metric']} | {random['test']:.4f} | {tuned['test']:.4f} |"
        )
        print(rows[-1], flush=True)
    return rows


def speed_up(one: Set, n_trials: int, repeats: int, work: Path) -> str:
    """Wall times of one worker and of two, in turn."""
    ratios = []
    for i in range(repeats):
        took = []
        for workers in (1, 2):
            file = work / f"speed-{i}-{workers}" / "model.yaml"
            file.parent.mkdir()
            init([str(work / f"{one.name}.parquet")], target=one.target, out=file, model="trees")
            Project(file).run(until="train")  # so that only the search is measured
            took.append(searched(file, 7, {"trials": n_trials, "searcher": "random", "prune": "none", "workers": workers, "warm": 0}, judge=False)["seconds"])
        ratios.append(took[0] / took[1])
    shown = ", ".join(f"{ratio:.2f}" for ratio in sorted(ratios))
    return f"Two workers against one ({one.name}, {n_trials} whole random trials, {os.cpu_count()} cores): {statistics.median(ratios):.2f} times ({shown})."


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", default=NAMES)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--no-write", action="store_true", help="print only")
    arguments = parser.parse_args()
    if not HOME.is_dir():
        sys.exit(f"The real data sets are not here (looked for {HOME.name}/ beside the project): see CONTRIBUTING.md.")
    with tempfile.TemporaryDirectory() as folder:
        chosen = [one for one in SETS if one.name in arguments.names]
        rows = [row for one in chosen for row in compare(one, arguments.trials, arguments.seeds, Path(folder))]
        speed = speed_up(chosen[-1], min(20, arguments.trials), min(3, arguments.seeds), Path(folder))
    print(speed)
    lines = [
        f"# Tuning: TPE with `prune: top` beside {arguments.trials} whole random trials",
        "",
        "The same space of trees, rows and seeds on both sides; loss on the validation rows (log loss; squared error as a share of the variance).",
        "Share: CPU time of all trials, tuned to random. Matched: no more than 0.5 % worse. The test columns are of the model trained with each best.",
        "",
        "| set | seed | random | tuned | away | matched | share | random CPU s | tuned CPU s | metric | random on test | tuned on test |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
        *rows,
        "",
        speed,
    ]
    if not arguments.no_write:
        (Path(__file__).parent / "results" / "tuning.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
