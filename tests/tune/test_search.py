"""A search finds good settings, loses no trial that is done, and its random draws do not depend on who does them."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelinscale.core.errors import ModelError, StoreError, UsageError
from modelinscale.models import Model
from modelinscale.testing import databases, waits
from modelinscale.testing.models import planted
from modelinscale.tune import Entry, Space, Tune, search
from modelinscale.tune._fit import Fitter, Job, chosen_rows
from modelinscale.tune._search import Found
from modelinscale.tune._study import About, Study, open_storage

SPACE = Space.of((Model.parse({"type": "trees", "rounds": 20}),), {})
ABOUT = About("shop", "y", {"x": {"type": "number"}})
QUICK: dict[str, Any] = {"trials": 6, "workers": 1, "searcher": "random", "prune": {"least_rows": 40}}


def fitter(space: Space = SPACE) -> Fitter:
    given = planted("plain", "binary")
    return Fitter({"plain": (given.train, given.valid)}, given.task, 7)


def look(at: Path, *, name: str = "s", space: Space = SPACE, news: Callable[[Sequence[Entry]], None] = lambda entries: None, **more: Any) -> Found:
    settings = Tune.model_validate({**QUICK, **more})
    return search(settings, space, fitter(), name=name, about=ABOUT, folder=at / "rows", file=at / "studies.db", news=news)


def told(found: Found) -> list[tuple[int, float, float | None, str]]:
    return sorted((e.draw, e.share, e.loss, json.dumps(e.point, sort_keys=True)) for e in found.entries if e.state == "done")


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """A search that nobody disturbed."""
    return look(tmp_path_factory.mktemp("straight"))


@pytest.mark.slow
def test_one_worker_two_workers_and_no_worker_find_the_same(straight: Found, tmp_path: Path) -> None:
    assert told(look(tmp_path, workers=2)) == told(straight)
    fit = fitter()
    best = straight.best
    again = fit(Job(0, best.draw, SPACE.model(best.point).plain(), 1.0))
    assert again.loss == best.loss == straight.loss
    assert len({e.draw for e in straight.entries if e.share == 1.0}) >= 3, "the best three go on, and the first"


@pytest.mark.slow
def test_a_search_that_is_done_is_not_done_again_and_more_trials_go_on(straight: Found, tmp_path: Path) -> None:
    first = look(tmp_path)
    assert told(first) == told(straight)
    begun: list[int] = []
    assert look(tmp_path, news=lambda entries: begun.append(len(entries))).entries == first.entries
    assert begun == []
    more = look(tmp_path, trials=8)
    assert {e.draw for e in more.entries} == set(range(8))
    assert more.entries[: len(first.entries)] == first.entries


SCRIPT = """
import sys
from pathlib import Path
from tests_of_tuning import look
look(Path(sys.argv[1]), workers=int(sys.argv[2]), news=lambda entries: print(sum(e.state == "done" for e in entries), flush=True))
"""


@pytest.mark.slow
@pytest.mark.parametrize("n_done", [0, 3])
def test_a_kill_loses_at_most_the_trial_in_work(straight: Found, tmp_path: Path, n_done: int) -> None:
    (tmp_path / "tests_of_tuning.py").write_text(Path(__file__).read_text(encoding="utf-8"))
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(tmp_path), "1"], stdout=subprocess.PIPE, text=True, env=env)
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) == n_done:
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    found = look(tmp_path)
    assert found.n_lost <= 1
    assert sum(e.state == "lost" for e in found.entries) <= 1
    assert told(found) == told(straight), "as if nothing had happened"


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_its_trial_alone_and_is_replaced(straight: Found, tmp_path: Path) -> None:
    killed: list[int] = []

    def news(entries: Sequence[Entry]) -> None:
        if not killed and sum(e.state == "done" for e in entries) == 2 and any(e.state == "running" for e in entries):
            mine = [int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit() and _is_worker(p)]
            os.kill(mine[0], signal.SIGKILL)
            killed.extend(mine)

    found = look(tmp_path, news=news)
    assert killed
    assert sum(e.state == "lost" for e in found.entries) <= 1
    assert told(found) == told(straight)
    waits.until(lambda: not any(_is_worker(Path(f"/proc/{pid}")) for pid in killed), "the end of the workers")


def _is_worker(process: Path) -> bool:
    try:
        parent = process.joinpath("stat").read_text().rpartition(")")[2].split()[1]
        return parent == str(os.getpid()) and b"modelinscale.tune._worker" in process.joinpath("cmdline").read_bytes()
    except OSError:
        return False


@pytest.mark.slow
def test_settings_that_cannot_learn_are_noted_and_the_search_goes_on(tmp_path: Path) -> None:
    wild = Space.of((Model.parse("linear"), Model.parse({"type": "trees", "rounds": 20})), {})
    found = look(tmp_path, space=wild, trials=4)  # the rows are encoded for trees alone
    failed = [e for e in found.entries if e.state == "failed"]
    assert failed
    assert all(wild.family(e.point) == "linear" and "KeyError" in e.note for e in failed)
    assert found.model.type == "trees"


@pytest.mark.slow
def test_when_no_settings_can_learn_the_reason_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"No settings could be chosen: KeyError.*tune.space"):
        look(tmp_path, space=Space.of((Model.parse("linear"),), {}), trials=2)


@pytest.mark.slow
def test_the_best_of_an_earlier_search_for_the_same_is_tried_first(tmp_path: Path) -> None:
    first = look(tmp_path, name="monday")
    second = look(tmp_path, name="tuesday", trials=3)
    assert second.n_warm == 1
    assert second.entries[1].point == first.best.point
    about = replace(ABOUT, target="z")
    settings = Tune.model_validate({**QUICK, "trials": 1})
    other = search(settings, SPACE, fitter(), name="z", about=about, folder=tmp_path / "r", file=tmp_path / "studies.db")
    assert other.n_warm == 0


def test_a_budget_ends_a_search_with_what_it_has(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="No settings could be chosen"):
        look(tmp_path, budget=1e-9)


def test_a_share_of_the_rows_lies_within_a_larger_one_and_keeps_rare_classes() -> None:
    target = np.r_[np.zeros(5000, np.int64), np.ones(25, np.int64)]
    small, large = (chosen_rows(target, share, 5, classes=True) for share in (1 / 9, 1 / 3))
    assert set(small) <= set(large)
    assert (target[small] == 1).sum() == 20
    assert abs(len(large) - len(target) / 3) < 20
    assert list(small) == sorted(small)
    assert len(chosen_rows(target, 1.0, 5, classes=False)) == len(target)


def test_fewer_passes_instead_of_fewer_rows() -> None:
    given = planted("plain", "binary")
    fit = Fitter({"plain": (given.train, given.valid)}, given.task, 7, by="passes")
    part = fit(Job(0, 0, {"type": "trees", "rounds": 90}, 1 / 9))
    assert part.loss == fit(Job(0, 0, {"type": "trees", "rounds": 10}, 1.0)).loss
    assert part.loss != fit(Job(0, 0, {"type": "trees", "rounds": 90}, 1.0)).loss


@pytest.mark.slow
def test_trials_lie_in_postgresql_for_many_machines(straight: Found, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("psycopg", reason="needs `pip install 'modelinscale[postgres]'`")
    monkeypatch.setenv("MIS_TEST_PASSWORD", databases.PASSWORD)
    with ExitStack() as stack:
        try:
            server = stack.enter_context(databases.postgres())
        except databases.NoServer as reason:
            pytest.skip(f"no server to test with: {reason}")
        found = look(tmp_path, storage=server.url())
        assert told(found) == told(straight)
        assert server.run("SELECT count(*) FROM trials").strip() == str(len(found.entries))
        assert not (tmp_path / "studies.db").exists()
        monkeypatch.setenv("MIS_TEST_PASSWORD", "wrong-password")
        with pytest.raises(StoreError, match="cannot be opened") as error:
            open_storage(server.url(), tmp_path / "x")
        assert "wrong-password" not in str(error.value)


@pytest.mark.slow
def test_trials_lie_in_redis_for_many_machines(straight: Found, tmp_path: Path, redis_client: Any) -> None:
    found = look(tmp_path, storage=redis_client.address)
    assert told(found) == told(straight)
    assert look(tmp_path, storage=redis_client.address).entries == found.entries


def test_a_storage_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="mysql:// is no storage"):
        open_storage("mysql://h/db", tmp_path / "x")


def test_a_trial_is_written_as_optuna_writes_it_in_few_statements(tmp_path: Path) -> None:
    import optuna
    from sqlalchemy import event

    storage, statements = open_storage(None, tmp_path / "studies.db"), list[str]()
    event.listen(storage.engine, "before_cursor_execute", lambda connection, cursor, statement, *more: statements.append(statement))
    study, point = Study(storage, "ours", SPACE, ABOUT), SPACE.starts()[0]
    statements.clear()
    first = study.begin(0, point, 1 / 9)
    assert first is not None
    study.end(first, 0.25, note="", seconds=1.0, cpu_seconds=0.5)
    assert len(statements) <= 12, "two or three for each setting were most of what a trial cost"
    second = study.begin(1, point, 1.0)
    assert second is not None
    study.end(second, None, note="bad")
    theirs = optuna.load_study(study_name="ours", storage=storage)
    added = optuna.create_study(study_name="theirs", storage=storage)
    added.add_trials(theirs.trials)
    for ours, again in zip(theirs.trials, added.trials, strict=True):
        assert (ours.number, ours.params, ours.distributions, ours.user_attrs) == (again.number, again.params, again.distributions, again.user_attrs)
        assert (ours.state, ours.values, ours.datetime_start) == (again.state, again.values, again.datetime_start)
    assert [t.state.name for t in theirs.trials] == ["PRUNED", "FAIL"]
    read = Study(storage, "ours", SPACE, ABOUT)
    assert read.entries() == study.latest(), "what is known here is what lies there"
    study.close()


def test_a_trial_that_another_machine_gave_up_meanwhile_is_lost_here_too(tmp_path: Path) -> None:
    import optuna

    storage = open_storage(None, tmp_path / "studies.db")
    study, point = Study(storage, "ours", SPACE, ABOUT), SPACE.starts()[0]
    asleep, late = study.begin(0, point, 1.0), study.begin(1, point, 1.0)
    assert asleep is not None
    assert late is not None
    first, second = (one._trial_id for one in optuna.load_study(study_name="ours", storage=storage).trials)
    storage.set_trial_user_attr(first, "result", {"note": "its process was lost", "lost": True})
    storage.set_trial_state_values(first, optuna.trial.TrialState.FAIL)
    storage.set_trial_user_attr(second, "result", {"note": "its process was lost", "lost": True})  # and no further, yet
    study.end(asleep, 0.25)
    study.end(late, 0.5)
    assert [(e.state, e.loss, e.note) for e in study.latest()] == [("lost", None, "given up by another machine"), ("done", 0.5, "")]
    assert [t.state.name for t in optuna.load_study(study_name="ours", storage=storage).trials] == ["FAIL", "COMPLETE"]
    study.close()
