"""A table that is read in partitions, its encoded rows on disk, gives what the same table held in memory gives."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from modelinscale.api import Project
from modelinscale.data import partitions
from modelinscale.pipeline import _context

N = 3_000


def write(folder: Path, model: str) -> Path:
    """A project over mixed columns, some cells missing, one row of weights, classes that are not even."""
    chance = np.random.default_rng(11)
    x, shop = chance.normal(size=N), chance.choice([f"s{i}" for i in range(40)], N)
    good = chance.random(N) < 0.5
    frame = pl.DataFrame(
        {
            "x": pl.Series(np.where(chance.random(N) < 0.1, np.nan, x.round(3))).fill_nan(None),
            "size": chance.lognormal(2, 1, N).round(2),
            "shop": shop,
            "note": np.where(good, "quick and friendly service today", "slow and late delivery again"),
            "at": (np.datetime64("2025-01-01", "us") + np.arange(N) * 3_600_000_000),
            "w": chance.integers(1, 4, N) / 2,
            "y": np.where(x + (shop < "s2") + 2 * good + chance.normal(size=N) > 2, "yes", "no"),
        }
    )
    folder.mkdir()
    frame.write_parquet(folder / "rows.parquet")
    (folder / "model.yaml").write_text(
        f"data: {{source: rows.parquet}}\ntarget: y\nmodel: {model}\ntrain: {{weight: w, class_weight: balanced, budget: 60}}\n"
        "features: {x: number, size: number, shop: category, at: moment%s}\n"
        % (", note: text" if "words" in folder.name else "")
        + "evaluate: {slices: [shop], cost: {false_negative: size}}\n"
    )
    return folder


def out_of_core(patch: pytest.MonkeyPatch, n_rows: int = 700) -> None:
    """Nothing is held, however small."""
    patch.setattr(partitions, "HELD", 1e9)
    patch.setattr(partitions, "MOST_ROWS", n_rows)
    patch.setattr(_context, "HELD_ENCODED", 1e12)


def left(folder: Path) -> dict[str, Path]:
    """The folders of the steps."""
    steps = folder / ".mis" / "steps"
    return {step.name: next(one for one in step.iterdir() if one.is_dir()) for step in steps.iterdir()}


@pytest.mark.parametrize("model", ["{type: trees, rounds: 20}", "linear", "{type: trees, rounds: 10} # words"])
def test_both_roads_give_the_same_parts_states_weights_and_answers(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = "words" if "words" in model else ""
    held, cut = (write(tmp_path / f"{name}-{words}", model) for name in ("held", "cut"))
    first = Project(held).run(until="evaluate")
    with monkeypatch.context() as patch:
        out_of_core(patch)
        second = Project(cut).run(until="evaluate")
    a, b = left(held), left(cut)
    assert (a["prepare"] / "parts.npy").read_bytes() == (b["prepare"] / "parts.npy").read_bytes()
    assert json.loads((a["prepare"] / "states.json").read_text()) == json.loads((b["prepare"] / "states.json").read_text())
    for which in ("model", "linear"):
        ours, theirs = (np.load(place["train"] / which / "weights.npz") for place in (a, b))
        assert list(ours) == list(theirs)
        for name in ours:
            np.testing.assert_array_equal(ours[name], theirs[name], err_msg=f"{which}: {name}")
    np.testing.assert_array_equal(np.load(a["evaluate"] / "valid_scores.npy"), np.load(b["evaluate"] / "valid_scores.npy"))
    assert first.metrics == second.metrics
    assert first.baselines == second.baselines
    assert not list((cut / ".mis" / "work").glob("rows-*")), "encoded rows are removed when training is done"
