"""Memory and time of `mis collect` and `mis predict` on a large CSV, beside Polars' own streaming CSV to Parquet of the same file.

python benchmarks/memory.py [--gigabytes 5]   writes benchmarks/results/memory.md; needs about four times that much disk
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import polars as pl

from _measure import MIS, Cost, run

HERE = Path(__file__).parent
POLARS = "import sys, polars as pl; pl.scan_csv(sys.argv[1]).sink_parquet(sys.argv[2])"


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


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--gigabytes", type=float, default=5.0)
    arguments = parser.parse_args()
    lines = [
        "# Memory and time on a large CSV",
        "",
        "One generated CSV and one of a tenth of its size. Peak resident memory of the whole process tree.",
        "The peer is Polars' streaming CSV to Parquet of the same file.",
        "`mis predict` runs a model on every row (trees over numbers, categories, moments and text) besides reading and writing; its time is the model's.",
        "",
        "| command | CSV | rows | peak RSS | wall s | against Polars |",
        "|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        package = None
        peaks: dict[tuple[str, str], int] = {}
        for label, size in (("small", arguments.gigabytes / 10), ("large", arguments.gigabytes)):
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
    (HERE / "results" / "memory.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines[-2:]))


def _line(what: str, data: Path, rows: int, cost: Cost, peer: Cost) -> str:
    size = data.stat().st_size / 1e9
    return f"| {what} | {size:.2f} GB | {rows:,} | {cost.peak_bytes / 1e9:.2f} GB | {cost.wall_s:.1f} | {cost.wall_s / peer.wall_s:.2f} |"


if __name__ == "__main__":
    main()
