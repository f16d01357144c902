"""How well networks do on real sets within so many CPU minutes, from scratch: test accuracy and AUC, a line a seed, then the mean.

    python benchmarks/quality.py --set pneumonia-mnist --seeds 7 8 9 --minutes 20

The budget is wall time of one thread, so on a busy machine fewer CPU minutes go into it: the CPU minutes that were used are in the table.
"""

import argparse
import io
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from PIL import Image

from _real import HOME
from modelinscale.core.encoded import Encoded, Layout
from modelinscale.core.task import Task
from modelinscale.models import Effort, Examples
from modelinscale.models.network import Network

SETTINGS: dict[str, dict[str, Any]] = {
    "pneumonia-mnist": {"maps": 32, "epochs": 15},
    # An epoch with 16 maps takes about 130 CPU s on an AVX2 core, with 32 about 450: 12 epochs of those would be an hour and a half.
    "fashion-mnist": {"maps": 16, "epochs": 9, "flip": True, "smoothing": 0.05, "shift": 0.07, "batch_rows": 256},
}


@dataclass(frozen=True)
class Split:
    train: Examples
    valid: Examples | None
    test: Examples
    task: Task


def read(name: str, home: Path) -> Split:
    """The set's own parts; of fashion-mnist, which has no validation part, all training rows are learned from."""
    folder = home / name
    whole = folder / "data.parquet"
    tables = (
        pl.read_parquet(whole).partition_by("split", as_dict=True) if whole.is_file() else {(p.stem,): pl.read_parquet(p) for p in folder.glob("*.parquet")}
    )
    n_classes = int(tables[("train",)]["label"].max()) + 1  # type: ignore[arg-type]
    task = Task(type="binary" if n_classes == 2 else "multiclass", target="label", labels=tuple(str(i) for i in range(n_classes)))

    def part(which: str) -> Examples:
        table = tables[(which,)]
        pixels = np.stack([np.asarray(Image.open(io.BytesIO(data)).convert("L")) for data in table["image"]])[..., None]
        layout = Layout("image", int(np.prod(pixels.shape[1:])), (), pixels.shape[1:])
        return Examples(Encoded({"image": layout}, {"image": pixels}), table["label"].to_numpy().astype(np.int64))

    return Split(part("train"), part("val") if ("val",) in tables else None, part("test"), task)


def auc(scores: NDArray[Any], target: NDArray[Any]) -> float:
    """Area under the ROC curve, ties counted half."""
    from scipy.stats import rankdata

    ranks, n = rankdata(scores), int((target == 1).sum())
    return float((ranks[target == 1].sum() - n * (n + 1) / 2) / (n * (len(target) - n)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", choices=[*SETTINGS], action="append", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[7, 8, 9])
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--epochs", type=int, help="instead of the set's own")
    parser.add_argument("--home", type=Path, default=HOME)
    given = parser.parse_args()
    print("| set | seed | CPU minutes | accuracy | AUC |\n|---|---|---|---|---|")
    for name in given.set:
        split, found = read(name, given.home), []
        model = Network(**{**SETTINGS[name], **({"epochs": given.epochs} if given.epochs else {})})
        for seed in given.seeds:
            since = time.process_time()
            weights = model.fit(split.train, split.valid, split.task, Effort(seed=seed, budget_s=60 * given.minutes, n_threads=1))
            minutes = (time.process_time() - since) / 60
            scores = model.predict(weights, split.test.rows)
            chosen = (scores > 0).astype(np.int64) if scores.ndim == 1 else scores.argmax(1)
            accuracy = float((chosen == split.test.target).mean())
            found.append((minutes, accuracy, auc(scores, split.test.target) if scores.ndim == 1 else float("nan")))
            print(f"| {name} | {seed} | {minutes:.1f} | {accuracy:.4f} | {found[-1][2]:.4f} |", flush=True)
        means = [fmean(column) for column in zip(*found, strict=True)]
        print(f"| {name} | mean of {len(found)} | {means[0]:.1f} | {means[1]:.4f} | {means[2]:.4f} |", flush=True)


if __name__ == "__main__":
    main()
