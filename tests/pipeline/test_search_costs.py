"""`mis plan` says what a search will cost before its first trial: fits, time as far as it is known, memory."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from modelinscale.api import Project
from modelinscale.cli import _show
from modelinscale.core import memory
from modelinscale.core.errors import DataError
from modelinscale.pipeline import _needs
from modelinscale.pipeline._place import Place
from modelinscale.pipeline._search_costs import Search
from modelinscale.spec import ModelSpec

SPEC = "data: {source: rows.csv}\ntarget: y\nmodel: {type: trees, rounds: 10}\nfeatures: {a: number, b: number}\n"
TUNE = "tune: {trials: %d, workers: %d, searcher: random, prune: {least_rows: 30}, space: {trees.leaves: [4, 16]}}\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    chance = np.random.default_rng(7)
    a, b = chance.normal(size=(2, 600)).round(3)
    pl.DataFrame({"a": a, "b": b, "y": (10 * a * b + chance.normal(size=600)).round(3)}).write_csv(tmp_path / "rows.csv")
    (tmp_path / "model.yaml").write_text(SPEC + TUNE % (9, 2))
    return tmp_path / "model.yaml"


def search(project: Path) -> Search:
    found = Project(project).plan().search
    assert found is not None
    return found


def test_before_anything_is_done_it_says_how_many_fits_and_what_it_does_not_know(project: Path) -> None:
    found = search(project)
    assert dict(found.fits) == {1 / 9: 9, 1.0: 4}
    assert found.whole_fits == pytest.approx(5)
    assert found.seconds is None
    assert str(found).startswith("9 settings, 2 at once: fits still to do are 9 on 11% of them and 4 on all rows, the work of 5 on all; how long one takes")
    assert not (project.parent / ".mis").exists(), "a plan changes nothing"
    project.write_text(SPEC + (TUNE % (9, 2)).replace("tune: {", "tune: {budget: 20s, "))
    assert search(project).seconds == 20.0
    assert "at most 20.0 s (`tune.budget`)" in str(search(project))
    project.write_text(SPEC)
    assert Project(project).plan().search is None


def test_a_training_tells_the_time_and_the_prepared_rows_how_many(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project.write_text(SPEC)
    n_train = next(step.facts["n_train"] for step in Project(project).run(until="train").steps if step.step == "prepare")
    project.write_text(SPEC + TUNE % (9, 1))
    found = search(project)
    assert found.known_from == "earlier trainings"
    assert found.n_rows == n_train == 403
    assert dict(found.fits) == {1 / 9: 9, 1.0: 4}
    assert found.whole_s is not None
    assert found.seconds == pytest.approx(found.whole_s * 5)
    _show.plan(Project(project).plan(), as_json=False)
    assert "search    9 settings, 1 at once: fits still to do are 9 on 45 and 4 on all 403 rows" in capsys.readouterr().out
    _show.plan(Project(project).plan(), as_json=True)
    assert json.loads(capsys.readouterr().out)["search"]["fits"] == [{"share": 0.1111, "n": 9}, {"share": 1.0, "n": 4}]


@pytest.mark.slow
def test_an_earlier_search_tells_it_better_and_what_it_did_is_not_to_do(project: Path) -> None:
    project.write_text(SPEC + TUNE % (3, 1))
    Project(project).tune()
    assert Project(project).plan().search is None, "it is done"
    project.write_text(SPEC + TUNE % (12, 1))
    found = search(project)
    assert found.known_from == "its 6 trials so far"
    assert found.n_done == 6
    assert dict(found.fits) == {1 / 9: 9, 1.0: 1}
    project.write_text((SPEC + TUNE % (12, 1)).replace("[4, 16]", "[4, 32]"))
    other = search(project)
    assert other.known_from == "the 6 trials of the last search"
    assert other.n_done == 0


def test_too_little_memory_for_the_trials_is_said_before_the_first_row_is_read(project: Path) -> None:
    project.write_text(SPEC + TUNE % (9, 8) + "compute: {type: local, memory: 1GiB}\n")
    plan = Project(project).plan()
    refused = next(one for one in plan.estimates if one.of == "memory")
    assert "8 processes of trials" in refused.refusal
    assert "tune.workers: 1" in refused.fix
    with pytest.raises(DataError, match=r"tune needs about .*: 8 processes of trials"):
        Project(project).run()
    assert not (project.parent / ".mis" / "lake").exists()
    project.write_text(SPEC + TUNE % (9, 1) + "compute: {type: local, memory: 1GiB}\n")
    assert not any(one.refusal for one in Project(project).plan().estimates)


def test_processes_that_the_file_leaves_open_are_as_many_as_fit(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec: ModelSpec = Project(project).spec
    assert spec.tune is not None
    free = spec.but(tune=spec.tune.but(workers=0))
    monkeypatch.setattr(memory, "cores", lambda: 16)
    monkeypatch.setattr(memory, "room", lambda limit: 1 << 30)
    assert _needs.n_trials_at_once(free, 300 << 20) == 3
    assert _needs.n_trials_at_once(free, 3 << 30) == 1
    assert _needs.n_trials_at_once(free, 1 << 20) == 16
    assert _needs.n_trials_at_once(spec, 300 << 20) == 2, "what the file says stays"
    assert Place.of(free, project.parent).spec.tune is not None
    monkeypatch.setattr(_needs, "trial_bytes", lambda spec, n_columns: 2 << 30)
    size = _needs.Size(1000, 2, 16.0)
    assert _needs.whole(free, size) == _needs.whole(spec.but(tune=spec.tune.but(workers=1)), size), "one trial at a time is the least"
    assert _needs.whole(free, size) != _needs.whole(spec, size)
