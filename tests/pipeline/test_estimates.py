"""`mis plan` says what memory and disk the work to come will take, and refuses where `mis run` would, in the same words."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from modelinscale.api import Project
from modelinscale.cli import _show
from modelinscale.core.errors import DataError
from modelinscale.pipeline import _context
from modelinscale.pipeline._estimates import Estimate

N = 3_000


@pytest.fixture
def project(tmp_path: Path) -> Path:
    chance = np.random.default_rng(5)
    frame = pl.DataFrame({f"x{i}": chance.normal(size=N) for i in range(6)}).with_columns(shop=pl.Series(chance.choice(["a", "b"], N)))
    frame.with_columns(y=pl.Series(np.where(frame["x0"].to_numpy() > 0, "yes", "no"))).write_parquet(tmp_path / "rows.parquet")
    (tmp_path / "model.yaml").write_text("data: {source: rows.parquet}\ntarget: y\nmodel: {type: trees, rounds: 3}\n")
    return tmp_path


def of(folder: Path, what: str) -> Estimate:
    return next(one for one in Project(folder).plan().estimates if one.of == what)


def limit(folder: Path, memory: str) -> None:
    with (folder / "model.yaml").open("a") as file:
        file.write(f"compute: {{type: local, memory: {memory}}}\n")


@pytest.mark.parametrize("collected", [False, True])
def test_a_plan_says_that_a_budget_would_be_refused_as_the_run_says_it(project: Path, collected: bool, capsys: pytest.CaptureFixture[str]) -> None:
    if collected:
        Project(project).run(until="collect")
    limit(project, "256MiB")
    plan = Project(project).plan()
    found = of(project, "memory")
    assert found.needed_bytes > found.there_bytes == 256 << 20
    with pytest.raises(DataError) as raised:
        Project(project).run()
    assert (found.refusal, found.fix) == (raised.value.message, raised.value.fix)
    _show.plan(plan, as_json=False)
    said = capsys.readouterr().out
    assert "✗ memory" in said
    assert "`mis run` would be refused: train needs about" in said
    assert "Or set `compute.memory` to at least 3" in said
    _show.plan(plan, as_json=True)
    memory, disk = json.loads(capsys.readouterr().out)["estimates"]
    assert memory["refused"]
    assert not disk["refused"]


def test_a_plan_within_its_budget_refuses_nothing(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    limit(project, "2GiB")
    plan = Project(project).plan()
    assert not any(one.refusal for one in plan.estimates)
    assert of(project, "disk").needed_bytes == (project / "rows.parquet").stat().st_size, "files to read take about as much in the table"
    assert "the rest is known once rows are collected" in of(project, "disk").why
    _show.plan(plan, as_json=False)
    assert "`mis run` does what is marked •." in capsys.readouterr().out
    assert not (project / ".mis").exists(), "a plan changes nothing"


def test_a_plan_knows_the_disk_that_encoded_rows_will_take(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_context, "HELD_ENCODED", 1e12)  # nothing encoded is held, however small
    Project(project).run(until="collect")
    before = of(project, "disk").needed_bytes
    Project(project).run(until="prepare")
    after = of(project, "disk").needed_bytes
    forget, lay = _context.Context.forget_examples, list[int]()

    def weighed(self: _context.Context) -> None:
        lay.append(sum(file.stat().st_size for file in (project / ".mis" / "work").glob("rows-*/**/*") if file.is_file()))
        forget(self)

    monkeypatch.setattr(_context.Context, "forget_examples", weighed)
    Project(project).run(until="train")
    assert max(lay) <= after < 1.5 * max(lay)
    assert after < before < 4 * max(lay), "before the features are learned it is said with room to spare"
    assert [one.of for one in Project(project).plan().estimates] == ["memory"], "judging takes no disk"


def test_a_plan_says_that_the_disk_is_too_full(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=100))
    found = of(project, "disk")
    assert found.refusal.startswith("what is still to do takes about")
    assert "100 B are free" in found.refusal
    assert found.fix == "Free some space, or put `store` on another disk."


def test_nothing_to_do_takes_nothing(project: Path) -> None:
    Project(project).run()
    assert Project(project).plan().estimates == ()
