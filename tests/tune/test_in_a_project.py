"""`mis tune` and what `mis run` makes of it."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from modelinscale.api import Project
from modelinscale.cli._app import app
from modelinscale.tune import Tune

SPEC = "data: {source: rows.csv}\ntarget: y\nmodel: {type: trees, rounds: 20}\nfeatures: {a: number, b: number}\n"
TUNE = "tune: {trials: 4, workers: 1, searcher: random, prune: {least_rows: 30}, space: {trees.leaves: [4, 16]}}\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    chance = np.random.default_rng(7)
    a, b = chance.normal(size=(2, 600)).round(3)
    pl.DataFrame({"a": a, "b": b, "y": (10 * a * b + chance.normal(size=600)).round(3)}).write_csv(tmp_path / "rows.csv")
    (tmp_path / "model.yaml").write_text(SPEC + TUNE)
    return tmp_path / "model.yaml"


@pytest.mark.slow
def test_what_is_found_is_trained_with_and_searched_once(project: Path) -> None:
    done = CliRunner().invoke(app, ["tune", "-f", str(project), "--json"])
    assert done.exit_code == 0, done.output
    facts = json.loads(done.output)
    assert 4 <= facts["model"]["leaves"] <= 16
    assert facts["model"]["rounds"] == 20
    page = Path(facts["report"]).read_text(encoding="utf-8")
    assert page.count("<svg") == 4
    assert "<script" not in page
    assert "http" not in page
    assert json.loads(Path(facts["trials_file"]).read_text())["format"] == 1
    outcome = Project(project).run()
    assert [s.step for s in outcome.steps] == ["collect", "prepare", "tune", "train", "evaluate", "export", "register"]
    assert [s.step for s in outcome.steps if not s.fresh] == ["collect", "prepare", "tune"]
    trained = next(s for s in outcome.steps if s.step == "train")
    assert trained.facts["model"] == facts["model"]
    assert all(step.done for step in Project(project).plan().steps)
    project.write_text(SPEC)
    assert [s.step for s in Project(project).run(until="train").steps] == ["collect", "prepare", "train"]


@pytest.mark.slow
def test_without_a_search_in_the_file_it_says_what_to_write(project: Path) -> None:
    project.write_text(SPEC.replace("{type: trees, rounds: 20}", "trees"))
    tuned = Project(project).tune(trials=1, workers=1)
    assert not tuned.in_file
    assert tuned.facts["n_settings"] == 1
    assert Tune().trials == 50
