"""Memory and time of `mis collect` and `mis predict` on a large CSV, beside Polars' own streaming CSV to Parquet of the same file; and of whole runs
(`mis run`, collect to register) on tables of several times what `compute.memory` lets the process hold.

python benchmarks/memory.py [csv] [--gigabytes 5]                       writes its part of benchmarks/results/memory.md; needs four times that much disk
python benchmarks/memory.py [run] [--budget 512MiB] [--times 1 3]       the same; about ten minutes of CPU time; `--times 10` takes twenty more
"""

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from _measure import MIS, Cost, run
from modelinscale.core.units import show_bytes, size_bytes

HERE = Path(__file__).parent
POLARS = "import sys, polars as pl; pl.scan_csv(sys.argv[1]).sink_parquet(sys.argv[2])"
TITLES = {"csv": "## Collect and predict of a large CSV", "run": "## Whole runs within a budget"}
NUMBERS = 40
FAMILIES = {"trees": "{type: trees, rounds: 100}", "mlp": "{type: mlp, epochs: 2}"}
TRAIN_S = 60


def generate(path: Path, size_bytes: int) -> int:
    """Writes a CSV of payments-like rows (numbers, words, moments, flags) of about ``size_bytes``; returns its rows."""
    n, generator, rows = 500_000, np.random.default_rng(7), 0
    words = np.array([f"shop-{i:05d}" for i in range(20_000)])
    with path.open("wb") as file:
        while file.tell() < size_bytes:
            amount = generator.lognormal(3, 1, n).round(2)
            block = pl.DataFrame(
                {
                    "id": np.arange(rows, rows + n),
                    "at": (np.datetime64("2025-01-01", "s") + np.sort(generator.integers(0, 86_400, n)) + rows // n * 86_400).astype("datetime64[us]"),
                    "shop": words[generator.integers(0, len(words), n)],
                    "amount": amount,
                    "score": generator.normal(size=n).round(6),
                    "country": generator.choice(["DE", "FR", "IT", "PL", "ES"], n),
                    "note": np.where(generator.random(n) < 0.5, "", "left at the door"),
                    "online": generator.random(n) < 0.3,
                    "distance_km": generator.exponential(20, n).round(3),
                    "late": (generator.random(n) < 0.05 + 0.1 * (amount > 60)).astype(np.int8),
                }
            )
            block.write_csv(file, include_header=rows == 0)
            rows += n
    return rows


def generate_wide(path: Path, held_bytes: int) -> tuple[int, int]:
    """Writes Parquet of 40 numbers, two words and a moment, in the order of time, its answers in bursts; returns its rows and their bytes in Polars."""
    n, chance, rows, held, writer = 250_000, np.random.default_rng(7), 0, 0, None
    while held < held_bytes:
        x = chance.normal(size=(n, NUMBERS))
        burst = np.where((np.arange(rows, rows + n) // 50_000) % 4 == 0, 1.5, -1.5)
        block = pl.DataFrame(
            {
                **{f"x{i}": x[:, i] for i in range(NUMBERS)},
                "shop": pl.Series(chance.integers(0, 5_000, n)).cast(pl.String),
                "country": chance.choice(["DE", "FR", "IT", "PL", "ES"], n),
                "at": np.datetime64("2025-01-01", "us") + np.arange(rows, rows + n) * 1_000_000,
                "y": chance.random(n) < 1 / (1 + np.exp(-(x[:, 0] + x[:, 1] * x[:, 2] + burst))),
            }
        )
        rows, held = rows + n, held + int(block.estimated_size())
        table = block.to_arrow()
        if writer is None:
            import pyarrow.parquet as pq

            writer = pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    assert writer is not None
    writer.close()
    return rows, held


def of_csv(gigabytes: float, work: Path) -> list[str]:
    """A CSV and one of a tenth of its size."""
    lines = [
        "One generated CSV and one of a tenth of its size. Peak resident memory of the whole process tree.",
        "The peer is Polars' streaming CSV to Parquet of the same file.",
        "`mis predict` runs a model on every row (trees over numbers, categories, moments and text) besides reading and writing; its time is the model's.",
        "",
        "| command | CSV | rows | peak RSS | wall s | against Polars |",
        "|---|---|---|---|---|---|",
    ]
    package = None
    peaks: dict[tuple[str, str], int] = {}
    for label, size in (("small", gigabytes / 10), ("large", gigabytes)):
        data = work / f"{label}.csv"
        rows = generate(data, int(size * 1e9))
        peer = run([sys.executable, "-c", POLARS, str(data), str(work / "peer.parquet")])
        (work / "peer.parquet").unlink()
        project = work / label
        project.mkdir()
        run([MIS, "init", str(data), "--target", "late", "--model", "trees"], cwd=project)
        collected = run([MIS, "collect", "--json"], cwd=project)
        if package is None:
            package = json.loads(run([MIS, "run", "--json"], cwd=project).output)["package"]
        scored = run([MIS, "predict", str(data), "--out", str(work / "out.csv"), "--package", str(package)], cwd=project)
        (work / "out.csv").unlink()
        for what, cost in (("mis collect", collected), ("mis predict", scored), ("Polars CSV to Parquet", peer)):
            peaks[what, label] = cost.peak_bytes
            lines.append(_line(what, data, rows, cost, peer))
            print(lines[-1], flush=True)
        data.unlink()
    lines += ["", *(f"{w}: ten times the rows cost {peaks[w, 'large'] / peaks[w, 'small']:.2f} times the memory." for w in ("mis collect", "mis predict"))]
    return lines


def of_run(times: list[float], budget: str, work: Path) -> list[str]:
    """`mis run` from collect to register on each size, each family a process of its own, then `mis predict` of every row."""
    most = size_bytes(budget)
    lines = [
        f"Generated rows x {NUMBERS + 3} columns in the order of time, `compute.memory` {show_bytes(most)}; the rows, held, are so many times that.",
        f"Each family a `mis run` of its own from collect to register (training {TRAIN_S} s at most), then `mis predict` of every row within the same budget.",
        "Held: the most anonymous memory of all processes at once, what the budget bounds; RSS counts pages of files too.",
        "",
        "| command | model | rows | of the budget | held | of the budget | peak RSS | wall s | CPU s | ROC AUC (test) |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for share in times:
        data = work / "rows.parquet"
        rows, size = generate_wide(data, int(share * most))
        for name, family in FAMILIES.items():
            project = work / name
            project.mkdir()
            features = ", ".join([*(f"x{i}: number" for i in range(NUMBERS)), "shop: category", "country: category", "at: moment"])
            (project / "model.yaml").write_text(
                f"data: {{source: {data}, split: {{type: random}}}}\ntarget: y\nmodel: {family}\ntrain: {{budget: {TRAIN_S}}}\n"
                f"features: {{{features}}}\ncompute: {{type: local, memory: {budget}}}\n"
            )
            table = f"{name} | {rows:,} | {size / most:.1f} x"
            done = run([MIS, "run", "--json"], cwd=project)
            found: dict[str, Any] = json.loads(done.output)
            lines.append(_run_line("mis run", table, done, most, f"{found['metrics']['roc_auc']['value']:.3f}"))
            print(lines[-1], *found.get("notes", ()), sep="\n", flush=True)
            scored = run([MIS, "predict", str(data), "--out", str(work / "out.parquet")], cwd=project)
            lines.append(_run_line("mis predict", table, scored, most, ""))
            print(lines[-1], flush=True)
            (work / "out.parquet").unlink()
            shutil.rmtree(project)
    return lines


def _line(what: str, data: Path, rows: int, cost: Cost, peer: Cost) -> str:
    size = data.stat().st_size / 1e9
    return f"| {what} | {size:.2f} GB | {rows:,} | {cost.peak_bytes / 1e9:.2f} GB | {cost.wall_s:.1f} | {cost.wall_s / peer.wall_s:.2f} |"


def _run_line(what: str, table: str, cost: Cost, budget: int, quality: str) -> str:
    sizes = f"{show_bytes(cost.held_bytes)} | {cost.held_bytes / budget:.0%} | {show_bytes(cost.peak_bytes)}"
    return f"| {what} | {table} | {sizes} | {cost.wall_s:.0f} | {cost.cpu_s:.0f} | {quality} |"


def _keep(part: str, lines: list[str]) -> None:
    """Writes one part of the results; the other stays as it was."""
    file = HERE / "results" / "memory.md"
    kept = dict.fromkeys(TITLES, "")
    for section in file.read_text(encoding="utf-8").split("\n## ")[1:]:
        title, _, text = section.partition("\n")
        kept |= {name: text.strip("\n") for name, known in TITLES.items() if known == f"## {title}"}
    kept[part] = "\n".join(lines)
    sections = [f"{TITLES[name]}\n\n{text}" for name, text in kept.items() if text]
    file.write_text("\n\n".join(["# Memory and time, and a budget kept", *sections]) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="*", choices=tuple(TITLES), default=[])
    parser.add_argument("--gigabytes", type=float, default=5.0)
    parser.add_argument("--budget", default="512MiB")
    parser.add_argument("--times", type=float, nargs="+", default=[1.0, 3.0])
    parser.add_argument("--place", type=Path, default=None)
    given = parser.parse_args()
    for part in given.parts or TITLES:
        with tempfile.TemporaryDirectory(dir=given.place) as name:
            work = Path(name)
            _keep(part, of_csv(given.gigabytes, work) if part == "csv" else of_run(given.times, given.budget, work))


if __name__ == "__main__":
    main()
