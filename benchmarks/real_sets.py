"""Five real tables: `mis init` + `mis run` with no hand editing, beside a plain LightGBM script on the same rows.

python benchmarks/real_sets.py [--repeats 3] [NAME ...]   writes benchmarks/results/real_sets.md
"""

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

from _measure import MIS, run
from _real import HOME, SETS, Set, write

HERE = Path(__file__).parent
MAIN = {"binary": ("roc_auc", "log_loss", "accuracy"), "multiclass": ("log_loss", "accuracy"), "regression": ("rmse", "mae", "r2")}


def compare(one: Set, repeats: int, work: Path) -> dict[str, object]:
    """Metrics of both sides and the median of the ratios of wall times, the two measured in turn."""
    data = write(one, work)
    ratios, ours_s, plain_s, cpu = [], [], [], []
    for i in range(repeats):
        plain = run([sys.executable, str(HERE / "plain_script.py"), str(data), one.target, one.task, *one.leaks])
        folder = work / f"{one.name}-{i}"
        folder.mkdir()
        run([MIS, "init", str(data), "--target", one.target, "--model", "trees"], cwd=folder)
        ours = run([MIS, "run", "--json"], cwd=folder)
        ratios.append(ours.wall_s / plain.wall_s)
        cpu.append(ours.cpu_s / plain.cpu_s)
        ours_s.append(ours.wall_s)
        plain_s.append(plain.wall_s)
    answer = json.loads(ours.output)
    return {
        "name": one.name,
        "task": one.task,
        "plain": json.loads(plain.output),
        "ours": {k: v["value"] for k, v in answer["metrics"].items()},
        "ratio": statistics.median(ratios),
        "ratios": sorted(ratios),
        "cpu": statistics.median(cpu),
        "ours_s": statistics.median(ours_s),
        "plain_s": statistics.median(plain_s),
    }


def table(found: list[dict]) -> str:  # type: ignore[type-arg]
    lines = [
        "# Five real tables: `mis init` + `mis run` beside a plain LightGBM script",
        "",
        "Trees, no hand editing, the recommended split of each set. The script (`benchmarks/plain_script.py`) loads, fits LightGBM with its defaults,",
        "predicts and computes the metrics. `mis run` does that and also collects into the lake, fits a linear baseline, calibrates, bootstraps intervals,",
        "proves parity, packages and registers.",
        "",
        "Two cores; wall times are medians, the ratio is the median of the ratios of pairs run one after the other (all of them in brackets).",
        "",
        "| set | metric | script | mis run | difference | script s | mis run s | ratio |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in found:
        for i, metric in enumerate(MAIN[one["task"]]):
            a, b = one["plain"][metric], one["ours"][metric]
            difference = f"{(b - a) / a:+.2%}" if one["task"] == "regression" else f"{b - a:+.4f}"
            spread = f"{one['ratio']:.2f} ({', '.join(f'{r:.2f}' for r in one['ratios'])})"
            times = f"{one['plain_s']:.2f} | {one['ours_s']:.2f} | {spread}" if i == 0 else "| |"
            lines.append(f"| {one['name'] if i == 0 else ''} | {metric} | {a:.4f} | {b:.4f} | {difference} | {times} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    if not HOME.is_dir():
        sys.exit(f"The real data sets are not here (looked for {HOME.name}/ beside the project): see CONTRIBUTING.md.")
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for one in SETS:
            if arguments.names and one.name not in arguments.names:
                continue
            found.append(compare(one, arguments.repeats, Path(folder)))
            print(json.dumps(found[-1]), flush=True)
    if not arguments.names:
        (HERE / "results" / "real_sets.md").write_text(table(found), encoding="utf-8")


if __name__ == "__main__":
    main()
