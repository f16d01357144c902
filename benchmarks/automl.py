"""`model: auto` beside plain LightGBM and CatBoost, and AutoGluon and FLAML where they are installed: same rows, same budget, same test.

python benchmarks/automl.py [--budget 300] [--peers] [--write] [NAME ...]   one line of JSON a set and side; with --write benchmarks/results/automl.md

Of pneumonia-mnist the peers get the 784 pixels as columns: none of them reads images without weights from a hub. Each side runs in a process of its
own, on as many threads as OMP_NUM_THREADS says (0 or unset: all cores). The peers lie in a virtual environment of their own, made by `make bench-peers`.
"""

import argparse
import base64
import io
import json
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from PIL import Image

from _measure import MIS, run
from _real import HOME, SETS, Set, write
from modelinscale.package import open_package

HERE = Path(__file__).parent
PEERS = HERE / ".peers" / "bin" / "python"
IMAGES = Set("pneumonia-mnist", "label_name", "binary", leaks=("label",))
TABLES = (*(one for one in SETS if one.name != "sms-spam"), Set("diamonds", "price", "regression"), IMAGES)
MAIN = {"binary": "roc_auc", "multiclass": "log_loss", "regression": "rmse"}
_MOST_ROWS = 100_000


def fewer(one: Set, work: Path) -> Path:
    """The set with its split; covertype cut to 100,000 rows by a fixed draw; the images' own validation rows learned from."""
    path = write(one, work)
    table = pl.read_parquet(path)
    if one == IMAGES:
        table.drop(one.leaks).with_columns(pl.col("split").replace("val", "train")).write_parquet(path)
    if len(table) > _MOST_ROWS:
        index = np.sort(np.random.default_rng(42).permutation(len(table))[:_MOST_ROWS])
        table[index].write_parquet(path)
    return path


def ours(one: Set, data: Path, budget: float, work: Path) -> dict[str, object]:
    """`mis init` and `mis run` with nothing changed but the budget."""
    folder = work / f"{one.name}-ours"
    folder.mkdir()
    run([MIS, "init", str(data), "--target", one.target, "--model", "auto"], cwd=folder)
    spec = folder / "model.yaml"
    lines = [line for line in spec.read_text(encoding="utf-8").splitlines() if not line.startswith("train:")]
    spec.write_text("\n".join([*lines, f"train: {{budget: {budget:g}s}}", ""]), encoding="utf-8")
    began = run([MIS, "run", "--json"], cwd=folder)
    answer = json.loads(began.output)
    package = Path(answer["package"]) if answer.get("package") else next((folder / ".mis/packages/model").iterdir())
    return {
        "metrics": {name: value["value"] for name, value in answer["metrics"].items()},
        "seconds": began.wall_s,
        "artefact_bytes": sum(p.stat().st_size for p in package.rglob("*") if p.is_file()),
        "model_bytes": (package / "model.onnx").stat().st_size,
        **row_us(package, data),
    }


def row_us(package: Path, data: Path) -> dict[str, float]:
    """Median and 99th percentile, microseconds, of one raw row through the whole package, warm, on one thread, until the answer is there."""
    opened, row = open_package(package), pl.read_parquet(data).head(1).to_dicts()[0]
    given = {one.name: plain(row[one.name]) for one in opened.inputs}
    times = []
    for i in range(5 + 100):
        began = time.perf_counter()
        opened.predict([given])
        if i >= 5:
            times.append((time.perf_counter() - began) * 1e6)
    return {"row_us": statistics.median(times), "row_us_p99": float(np.quantile(times, 0.99))}


def plain(value: Any) -> Any:
    """A cell as JSON would have it."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value.isoformat() if isinstance(value, datetime) else value


def pixels(data: Path) -> Path:
    """The same rows for those who know no images: a column for each pixel."""
    table = pl.read_parquet(data)
    flat = np.stack([np.asarray(Image.open(io.BytesIO(one)).convert("L")).ravel() for one in table["image"]])
    path = data.with_name(f"{data.stem}-pixels.parquet")
    pl.concat([table.drop("image"), pl.from_numpy(flat, [f"p{i}" for i in range(flat.shape[1])])], how="horizontal").write_parquet(path)
    return path


def peer(side: str, one: Set, data: Path, budget: float, work: Path) -> dict[str, object]:
    """What `automl_peer.py` says, run where the side is installed."""
    python = str(PEERS) if side.startswith(("autogluon", "flaml")) else sys.executable
    begun = time.monotonic()
    words = [python, str(HERE / "automl_peer.py"), side, str(data), one.target, one.task, str(budget), str(work / f"{one.name}-{side}")]
    words += [name for name in one.leaks if one != IMAGES]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"error": done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit {done.returncode}"}
    return {**json.loads(done.stdout.splitlines()[-1]), "seconds": time.monotonic() - begun}


def table(found: list[dict[str, object]], budget: float) -> str:
    """The results as a page."""
    lines = [
        "# AutoML: `model: auto` beside its peers",
        "",
        f"Budget {budget:g} s each; the same training and test rows; `mis run` keeps a part of the training rows to choose with, as the AutoML peers do.",
        "LightGBM and CatBoost are plain defaults on all training rows, with no budget. One run each.",
        "",
        "| set | metric | side | value | wall s | artefact KiB | one row µs, median | 99 % |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in found:
        metric = MAIN[str(one["task"])]
        value = one["metrics"][metric] if "metrics" in one else one["error"]  # type: ignore[index]
        shown = f"{value:.4f}" if isinstance(value, float) else value
        size, row, late = (f"{one[key] / scale:,.0f}" if key in one else "" for key, scale in (("artefact_bytes", 1024), ("row_us", 1), ("row_us_p99", 1)))  # type: ignore[operator]
        lines.append(f"| {one['set']} | {metric} | {one['side']} | {shown} | {one.get('seconds', 0):.1f} | {size} | {row} | {late} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*")
    parser.add_argument("--budget", type=float, default=300.0)
    parser.add_argument("--peers", action="store_true", help="AutoGluon and FLAML too (make bench-peers first)")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    if not HOME.is_dir():
        sys.exit(f"The real data sets are not here (looked for {HOME.name}/ beside the project): see CONTRIBUTING.md.")
    if arguments.peers and not PEERS.exists():
        sys.exit("The peers are not installed: run `make bench-peers`.")
    sides = ["lightgbm", "catboost", *(["autogluon-medium_quality", "autogluon-good_quality", "flaml"] if arguments.peers else [])]
    found = []
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        for one in TABLES:
            if arguments.names and one.name not in arguments.names:
                continue
            data = fewer(one, work)
            theirs = pixels(data) if one == IMAGES else data
            for side in ["ours", *sides]:
                answer = ours(one, data, arguments.budget, work) if side == "ours" else peer(side, one, theirs, arguments.budget, work)
                found.append({"set": one.name, "task": one.task, "side": side, **answer})
                print(json.dumps(found[-1]), flush=True)
    if arguments.write:
        (HERE / "results" / "automl.md").write_text(table(found, arguments.budget), encoding="utf-8")


if __name__ == "__main__":
    main()
