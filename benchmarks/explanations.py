"""Whether explanations hold on two real sets: deletion and insertion against random orders, additivity, and maps of a model with random weights.

    python benchmarks/explanations.py [--epochs 8] [--rows 300]   writes benchmarks/results/explanations.md

Through the commands: `mis run`, then `mis explain` for every way that suits the family.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import polars as pl

from _measure import MIS, run
from _real import HOME, SETS, write

WAYS: dict[str, dict[str, tuple[str, ...]]] = {
    "adult": {"trees": ("tree_shap", "permutation"), "linear": ("permutation",), "mlp": ("integrated_gradients", "permutation")},
    "pneumonia-mnist": {"network": ("grad_cam", "integrated_gradients")},
}
BY_ROW = ("grad_cam",)
"""Ways that explain rows of a file, not test rows together."""


def written(name: str, folder: Path, home: Path) -> tuple[Path, str]:
    """The set with its split as a column, and its target."""
    if name == "adult":
        one = next(one for one in SETS if one.name == name)
        return write(one, folder, home), one.target
    path = folder / f"{name}.parquet"
    table = pl.read_parquet(home / name / "data.parquet").with_columns(split=pl.col("split").replace("val", "valid"))
    table.select("image", "split", label=pl.col("label_name")).write_parquet(path)
    return path, "label"


def asked(name: str, family: str, ways: tuple[str, ...], given: argparse.Namespace, work: Path) -> list[dict[str, Any]]:
    folder = work / f"{name}-{family}"
    folder.mkdir()
    data, target = written(name, folder, given.home)
    model = {"type": family, **({"maps": 16, "epochs": given.epochs} if family == "network" else {})}
    spec = {"name": name, "data": {"source": str(data), "split": {"column": "split"}}, "target": target, "model": model}
    (folder / "model.yaml").write_text(json.dumps(spec))
    run([MIS, "run", "--quiet"], cwd=folder)
    some = folder / "some.parquet"
    table = pl.read_parquet(data).filter(pl.col("split") == "test")
    table.sample(min(len(table), given.rows), seed=7).drop("split").write_parquet(some)
    found = []
    for way in ways:
        rows = [str(some)] if way in BY_ROW else []
        cost = run([MIS, "explain", *rows, "--by", way, "--rows", str(given.rows), "--json"], cwd=folder)
        found.append({"set": name, "family": family, "cpu_s": cost.cpu_s, **json.loads(cost.output)})
    return found


def table(found: list[dict[str, Any]]) -> str:
    lines = [
        "# Explanations that are put to the test",
        "",
        "`python benchmarks/explanations.py`: `mis run`, then `mis explain`. Gap: mean score while features (or places of an image) come in, the weightiest",
        "first, less that while they go out, the weightiest first, in units of the score's spread; random orders beside it (mean and standard deviation of 8).",
        "Additivity: how far contributions miss the score, of its size. SSIM: likeness to the maps of a model with random weights (below 0.5: another).",
        "",
        "| set | model | way | rows | gap | random orders | additivity | SSIM | faithful | CPU s |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for one in found:
        check = one.get("check")
        gap, random = (f"{check['gap']:.2f}", f"{check['random']:.2f} ± {check['random_spread']:.2f}") if check else ("–", "–")
        error = "–" if one.get("error") is None else f"{one['error']:.1e}"
        alike = "–" if one.get("similarity") is None else f"{one['similarity']:.2f}"
        said = {True: "yes", False: "no", None: "not tried"}[one.get("faithful")]
        lines.append(f"| {one['set']} | {one['family']} | {one['by']} | {one['n_rows']} | {gap} | {random} | {error} | {alike} | {said} | {one['cpu_s']:.0f} |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--home", type=Path, default=HOME)
    given = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as work:
        for name, families in WAYS.items():
            for family, ways in families.items():
                found += asked(name, family, ways, given, Path(work))
                print("\n".join(table(found).splitlines()[-len(ways) :]), flush=True)
    (Path(__file__).parent / "results" / "explanations.md").write_text(table(found))


if __name__ == "__main__":
    main()
