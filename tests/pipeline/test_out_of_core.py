"""A table that is read in partitions, its encoded rows on disk, gives what the same table held in memory gives."""

import json
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from modelinscale.api import Project
from modelinscale.core import memory
from modelinscale.core.errors import DataError
from modelinscale.data import partitions
from modelinscale.pipeline import _context

pytestmark = pytest.mark.slow

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


@pytest.mark.parametrize(
    "model", ["{type: trees, rounds: 20}", "linear", "{type: trees, rounds: 10} # words", "{type: mlp, epochs: 2, width: 16, members: 2} # words"]
)
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


def test_a_plan_says_whether_rows_are_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "p", "linear")
    Project(folder).run(until="collect")
    assert "rows are held in memory" in Project(folder).plan().steps[1].why
    monkeypatch.setattr(partitions, "HELD", 1e9)
    assert "rows are read in partitions" in Project(folder).plan().steps[1].why


def test_a_step_that_cannot_fit_is_refused_with_what_would_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "p", "linear")
    monkeypatch.setattr(memory, "BASE_BYTES", 255 << 20)
    monkeypatch.setattr(memory, "MARGIN", 100)  # this process runs other tests too
    with (folder / "model.yaml").open("a") as file:
        file.write("compute: {type: local, memory: 256MiB}\n")
    with pytest.raises(DataError, match=r"train needs about .* `compute.memory` is 256.0 MiB.*Or set `compute.memory` to at least"):
        Project(folder).run()


@pytest.mark.parametrize(("model", "least"), [("linear", "357.0 MiB"), ("{type: mlp, epochs: 2}", "462.0 MiB"), ("auto", "462.0 MiB")])
def test_a_budget_too_small_for_any_table_is_refused_before_a_row_is_read(tmp_path: Path, model: str, least: str) -> None:
    folder = write(tmp_path / "p", model)
    with (folder / "model.yaml").open("a") as file:
        file.write("compute: {type: local, memory: 256MiB}\n")
    with pytest.raises(DataError, match=rf"train needs about .* of any table: .* `compute.memory` is 256.0 MiB.*Or set `compute.memory` to at least {least}"):
        Project(folder).run()
    assert not (folder / ".mis" / "lake").exists()


SMALL = "import sys; from pathlib import Path; from modelinscale.api import Project; Project(Path(sys.argv[1])).run()"


def most_held(command: list[str]) -> int:
    """Runs a command to its end; the most anonymous memory of it and all its children at once, looked at from outside."""
    most = 0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            tree = [process.pid]
            for pid in tree:
                for children in Path(f"/proc/{pid}/task").glob("*/children"):
                    with suppress(OSError):  # it ended while we looked
                        tree += [int(child) for child in children.read_text().split()]
            most = max(most, sum(memory.held(Path(f"/proc/{pid}/status")) for pid in tree))
            time.sleep(0.01)
        assert process.stderr is not None
        assert process.returncode == 0, process.stderr.read()[-2000:]
    return most


@pytest.mark.slow
@pytest.mark.parametrize(("model", "mebibytes"), [("{type: trees, rounds: 5}", 420), ("{type: mlp, epochs: 1}", 500)])
def test_a_table_of_several_budgets_stays_within_it_from_collect_to_register(tmp_path: Path, model: str, mebibytes: int) -> None:
    n, chance = 700_000, np.random.default_rng(3)
    columns = {f"x{i}": chance.normal(size=n) for i in range(20)}
    pl.DataFrame({**columns, "y": columns["x0"] + chance.normal(size=n) > 0}).write_parquet(tmp_path / "rows.parquet")
    budget = mebibytes << 20  # of it 180 MiB, or 160 beside torch, are for rows, which are 110 MiB, three times that when held
    (tmp_path / "model.yaml").write_text(
        f"data: {{source: rows.parquet, split: {{type: random}}}}\ntarget: y\nmodel: {model}\ntrain: {{budget: 4}}\n"
        f"features: {{{', '.join(f'{name}: number' for name in columns)}}}\ncompute: {{type: local, memory: {budget}}}\n"
    )
    held = most_held([sys.executable, "-c", SMALL, str(tmp_path)])
    assert held <= budget, f"{held / budget:.0%} of the budget"


def test_a_network_too_large_for_the_budget_is_refused_before_a_row_is_read(tmp_path: Path) -> None:
    folder = write(tmp_path / "p", "{type: mlp, width: 2048, layers: 4}")
    with (folder / "model.yaml").open("a") as file:
        file.write("compute: {type: local, memory: 600MiB}\n")
    with pytest.raises(DataError, match=r"what a network needs.* `compute.memory` is 600.0 MiB.*Or set `compute.memory` to at least 1.8 GiB"):
        Project(folder).run()


def test_an_encoder_of_images_too_large_for_the_budget_is_refused_before_a_row_is_read(tmp_path: Path) -> None:
    pl.DataFrame({"photo": [b"no image"] * 40, "y": [0, 1] * 20}).write_parquet(tmp_path / "rows.parquet")
    (tmp_path / "model.yaml").write_text(
        "data: {source: rows.parquet}\ntarget: y\nfeatures: {photo: {type: image, size: 64}}\nmodel: {type: network, maps: 256}\n"
        "compute: {type: local, memory: 600MiB}\n"
    )
    says = r"what a network needs.* `compute.memory` is 600.0 MiB.*a smaller network.*Or set `compute.memory` to at least 4\.0 GiB"
    with pytest.raises(DataError, match=says):
        Project(tmp_path).run()
    assert not (tmp_path / ".mis" / "lake").exists()
