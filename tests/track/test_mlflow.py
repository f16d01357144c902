"""MLflow's database written without MLflow: what it holds, what it survives, and that MLflow itself reads and changes it."""

import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from modelinscale.core.errors import StoreError
from modelinscale.testing.trackers import NAME, SUITE, register, run_of, writer
from modelinscale.track import Main, Tracker, open_tracker
from modelinscale.track.trackers import _rows, _schema, mlflow
from modelinscale.track.trackers.mlflow import Mlflow


@pytest.fixture
def tracker(tmp_path: Path) -> Mlflow:
    return Mlflow(root=tmp_path / "store" / "track")


def test_opening_a_tracker_touches_nothing(tmp_path: Path) -> None:
    open_tracker(tmp_path / "track")
    assert list(tmp_path.iterdir()) == []


def test_neither_registering_nor_resolving_imports_mlflow(tmp_path: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from modelinscale.testing.trackers import NAME, register
from modelinscale.track import open_tracker
tracker = open_tracker(Path({str(tmp_path / "track")!r}))
register(tracker, "a1", 0.9)
tracker.resolve(NAME, "champion")
heavy = {{"mlflow", "sqlalchemy", "alembic", "pyarrow", "polars", "onnx", "numpy"}} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_a_project_may_be_moved(tracker: Mlflow, tmp_path: Path) -> None:
    register(tracker, "a1", 0.9)
    (tmp_path / "store").rename(tmp_path / "elsewhere")
    moved = Mlflow(root=tmp_path / "elsewhere" / "track")
    assert (moved.resolve(NAME, "champion") / "model.onnx").read_text() == "a1"
    assert register(moved, "b2", 0.9).version.number == 2


def test_writers_at_the_same_time_get_numbers_of_their_own(tracker: Mlflow) -> None:
    with ThreadPoolExecutor(6) as pool:
        made = list(pool.map(lambda i: register(tracker, f"id{i}", float(i)), range(12)))
    assert sorted(m.version.number for m in made) == list(range(1, 13))
    assert [v.number for v in tracker.versions(NAME)] == list(range(1, 13))
    for m in made:
        assert (m.version.folder / "model.onnx").read_text() == m.version.identity


# -- killed at any moment


KILL = """
import os, sys
from pathlib import Path
from modelinscale.track.trackers import _rows, _schema, mlflow
from modelinscale.testing.trackers import register
from modelinscale.track import open_tracker

def killed(*args, **kwargs):
    os.kill(os.getpid(), 9)

def killing_after(function):
    def run(*args, **kwargs):
        function(*args, **kwargs)
        killed()
    return run

exec(sys.argv[2])
register(open_tracker(Path(sys.argv[1])), "b2", 0.95)
"""
MOMENTS = {
    "while the folder is written": "mlflow.new_folder = lambda folder: killed()",
    "before the folder appears": "Path.rename = killed",
    "between publishing and registering": "_rows.Rows.write_version = killed",
    "inside the transaction": "_rows.Rows._move = killing_after(_rows.Rows._move)",
    "after the commit": "_rows.Rows.write_version = killing_after(_rows.Rows.write_version)",
    "while a run is recorded": "_rows.Rows._experiment = killing_after(_rows.Rows._experiment)",
}


def _killed(tracker: Mlflow, moment: str) -> None:
    done = subprocess.run([sys.executable, "-c", KILL, str(tracker.root), moment], check=False)
    assert done.returncode == -signal.SIGKILL


@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
def test_a_registration_killed_is_invisible_or_whole_and_the_next_run_finishes_it(tracker: Mlflow, moment: str) -> None:
    register(tracker, "a1", 0.9)
    _killed(tracker, moment)
    between = tracker.versions(NAME)
    assert [v.number for v in between] in ([1], [1, 2])
    for version in between:
        assert (version.folder / "model.onnx").read_text() == version.identity
    assert tracker.aliases(NAME) == {"champion": len(between)}
    made = register(tracker, "b2", 0.95)
    assert made.version.number == 2
    assert made.version.aliases == ("champion",)
    assert [v.identity for v in tracker.versions(NAME)] == ["a1", "b2"]
    assert sorted(p.name for p in tracker.packages.joinpath(NAME).iterdir() if not p.name.startswith(".")) == ["1", "2"]


def test_a_kill_while_an_orphan_is_removed_leaves_no_half_package(tracker: Mlflow) -> None:
    register(tracker, "a1", 0.9)
    _killed(tracker, MOMENTS["between publishing and registering"])
    orphan = tracker.packages / NAME / "2"
    whole = sorted(p.name for p in orphan.iterdir())
    _killed(tracker, "mlflow.shutil.rmtree = lambda path, **how: (next(p for p in Path(path).iterdir() if p.is_file()).unlink(), killed())")
    assert not orphan.exists() or sorted(p.name for p in orphan.iterdir()) == whole
    assert register(tracker, "b2", 0.95).version.folder == orphan
    assert sorted(p.name for p in orphan.iterdir()) == whole


def test_a_database_killed_while_it_is_made_is_not_there(tracker: Mlflow) -> None:
    _killed(tracker, "_schema._filled = killing_after(_schema._filled)")
    assert not tracker.database.exists()
    assert tracker.versions(NAME) == ()
    assert register(tracker, "b2", 0.95).version.number == 1


# -- files that refuse


def test_a_locked_database_is_waited_for_and_then_told(tracker: Mlflow, monkeypatch: pytest.MonkeyPatch) -> None:
    register(tracker, "a1", 0.9)
    other = sqlite3.connect(tracker.database, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    monkeypatch.setattr(mlflow, "WAIT_S", 0.1)
    with pytest.raises(StoreError, match=r"mlflow\.db is locked by another program"):
        tracker.versions(NAME)
    monkeypatch.setattr(mlflow, "WAIT_S", 10.0)
    threading.Timer(0.2, lambda: other.execute("ROLLBACK")).start()
    assert len(tracker.versions(NAME)) == 1
    other.close()


def test_two_writers_wait_for_each_other_and_then_say_so(tracker: Mlflow, monkeypatch: pytest.MonkeyPatch) -> None:
    from modelinscale.core.files import held

    monkeypatch.setattr(mlflow, "WAIT_S", 0.1)
    with held(tracker.root / "lock"), pytest.raises(StoreError, match="in use by process"):
        register(tracker, "a1", 0.9)


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"not a database, but long enough to look like a file of some kind" * 40, "damaged or no SQLite database"), (b"", "does not hold what was expected")],
)
def test_a_foreign_file_is_told(tracker: Mlflow, content: bytes, words: str) -> None:
    tracker.root.mkdir(parents=True)
    tracker.database.write_bytes(content)
    for call in (lambda: tracker.versions(NAME), lambda: register(tracker, "a1", 0.9)):
        with pytest.raises(StoreError, match=words):
            call()
    assert tracker.database.read_bytes() == content, "what is not ours must not be changed"


def test_a_damaged_database_is_told_with_what_stays_usable(tracker: Mlflow) -> None:
    register(tracker, "a1", 0.9)
    content = bytearray(tracker.database.read_bytes())
    for at in range(4096, len(content), 512):
        content[at : at + 64] = b"\xff" * 64
    tracker.database.write_bytes(content)
    with pytest.raises(StoreError, match=r"can be served by folder"):
        tracker.versions(NAME)


def test_a_database_that_may_only_be_read_is_read_and_refuses_to_be_written(tracker: Mlflow, tmp_path: Path) -> None:
    register(tracker, "a1", 0.9)
    connection = sqlite3.connect(f"file:{tracker.database}?mode=ro", uri=True, isolation_level=None)
    connection.row_factory = sqlite3.Row
    rows = _rows.Rows(connection, tracker.root)
    assert rows.aliases(NAME) == {"champion": 1}
    with pytest.raises(sqlite3.OperationalError) as found:
        rows.write_alias(NAME, "champion", 1, "[]")
    connection.close()
    assert "Give this user the right to write" in str(mlflow._told(tracker.database, found.value))


# -- the form of the database


def test_the_installed_mlflow_has_the_form_this_code_writes() -> None:
    assert _schema.installed_head() == _schema.HEAD
    assert f"VALUES('{_schema.HEAD}')" in _schema.FILE.read_text()


def test_a_database_of_another_form_is_left_to_mlflow(tracker: Mlflow, monkeypatch: pytest.MonkeyPatch) -> None:
    register(tracker, "a1", 0.9)
    with sqlite3.connect(tracker.database) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'f00f00f00f00'")
    connection.close()
    assert tracker.aliases(NAME) == {"champion": 1}, "reading needs only a few columns, which every form had so far"
    from modelinscale.track.trackers import _client

    asked: list[str] = []
    monkeypatch.setattr(_client.Client, "write_alias", lambda self, *args: asked.append(self._uri))
    tracker.alias(NAME, "champion", 1)
    assert asked == [f"sqlite:///{tracker.database}"]


def _tables(database: Path) -> dict[str, list[dict[str, Any]]]:
    """All rows of all tables, without moments and random names."""
    random = {"run_uuid", "run_id", "artifact_uri", "creation_time", "last_update_time", "last_updated_time", "artifact_location", "source", "storage_location"}
    connection = sqlite3.connect(database)
    connection.row_factory = sqlite3.Row
    names = [r[0] for r in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
    found = {n: [{k: r[k] for k in r.keys() if k not in random} for r in connection.execute(f"SELECT * FROM {n}")] for n in names}  # noqa: SIM118
    connection.close()
    for rows in found.values():
        for row in rows:
            if str(row.get("key", "")).startswith("mis.history"):
                row["value"] = "moves"
        rows.sort(key=lambda row: sorted((k, str(v)) for k, v in row.items()))
    return found


def _lines(database: Path) -> list[str]:
    """The dump of a database; the order of a table's constraints is chance in MLflow's migrations."""
    return sorted(line.strip(" ,") for line in _schema.dump(database).splitlines())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # MLflow's own: it uses what the SQLAlchemy it asks for calls outdated
class TestBesideMlflow:
    """With MLflow imported: seconds, so not among the fast tests."""

    def test_the_dump_is_what_mlflow_makes(self, tmp_path: Path) -> None:
        from modelinscale.track.trackers._client import Client

        Client(tmp_path / "mlflow.db", tmp_path).create()
        _schema.create(tmp_path / "ours.db", artifacts=tmp_path)
        assert _lines(tmp_path / "mlflow.db") == _lines(tmp_path / "ours.db")

    def test_both_roads_write_the_same_rows(self, tracker: Mlflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def work(tracker: Tracker) -> None:
            register(tracker, "a1", 0.9)
            tracker.record(NAME, run_of("n", nan=float("nan"), inf=float("inf"), minus=float("-inf"), **{"a(b)": 1.0}))
            register(tracker, "b2", 0.8)
            tracker.alias(NAME, "champion", 2)

        work(tracker)
        other = Mlflow(root=tmp_path / "client" / "track")
        monkeypatch.setattr(_rows.Rows, "known", lambda self: False)
        monkeypatch.setattr(_schema, "installed_head", lambda: "another")
        work(other)
        ours, theirs = _tables(tracker.database), _tables(other.database)
        assert ours.keys() == theirs.keys()
        for name in ours:
            assert ours[name] == theirs[name], name

    @pytest.mark.parametrize("demand", SUITE, ids=lambda f: f.__name__)
    def test_the_road_through_mlflow_does_what_trackers_must(self, demand: Callable[[Tracker], None], tracker: Mlflow, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_rows.Rows, "known", lambda self: False)
        demand(tracker)

    def test_a_registration_through_mlflow_cut_off_before_its_alias_is_finished(self, tracker: Mlflow, monkeypatch: pytest.MonkeyPatch) -> None:
        from modelinscale.track.trackers._client import Client

        monkeypatch.setattr(_rows.Rows, "known", lambda self: False)
        register(tracker, "a1", 0.9)
        with monkeypatch.context() as patch:
            patch.setattr(Client, "finish", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                register(tracker, "b2", 0.95)
        assert tracker.aliases(NAME) == {"champion": 1}
        made = register(tracker, "b2", 0.95)
        assert not made.fresh
        assert made.version.aliases == ("champion",)
        assert [v.number for v in tracker.versions(NAME)] == [1, 2]
        assert tracker.before(NAME, "champion") == 1

    def test_mlflow_reads_all_that_was_written(self, tracker: Mlflow) -> None:
        from mlflow import MlflowClient

        run_id = tracker.record(NAME, run_of("a1", roc_auc=0.9, log_loss=float("nan")))
        tracker.register(NAME, identity="a1", write=writer(), main=Main("roc_auc", 0.9, "higher"), run=run_id, tags={"mis.table_version": "3"})
        register(tracker, "b2", 0.8)
        client: Any = MlflowClient(f"sqlite:///{tracker.database}")

        run = client.get_run(run_id)
        assert run.info.status == "FINISHED"
        assert run.info.end_time - run.info.start_time == 5000
        assert run.data.params == {"model.type": "trees", "features.a b/ü.type": "number"}
        assert run.data.metrics["roc_auc"] == 0.9
        assert run.data.metrics["log_loss"] != run.data.metrics["log_loss"]
        assert [m.value for m in client.get_metric_history(run_id, "roc_auc")] == [0.9]
        assert run.data.tags["mis.identity"] == "a1"
        assert run.data.tags["table_version"] == "3"
        assert run.data.tags["mlflow.note.content"] == "two *words*"
        experiment = client.get_experiment_by_name(NAME)
        found = client.search_runs([experiment.experiment_id], "metrics.roc_auc > 0.85 and params.`model.type` = 'trees' and tags.`mis.identity` = 'a1'")
        assert [r.info.run_id for r in found] == [run_id]

        model = client.get_registered_model(NAME)
        assert model.aliases == {"champion": 1, "challenger": 2}
        version = client.get_model_version_by_alias(NAME, "champion")
        assert (version.version, version.run_id, version.status) == (1, run_id, "READY")
        assert version.source == str(tracker.resolve(NAME, "1"))
        assert version.tags["mis.identity"] == "a1"
        assert version.tags["mis.table_version"] == "3"
        assert version.tags["mis.because"] == "the first version"
        assert [v.version for v in client.search_model_versions(f"name = '{NAME}' and tags.`mis.identity` = 'b2'")] == [2]

    def test_what_is_changed_in_mlflow_is_what_is_served(self, tracker: Mlflow) -> None:
        from mlflow import MlflowClient

        for identity, value in (("a1", 0.9), ("b2", 0.8), ("c3", 0.7)):
            register(tracker, identity, value)
        client: Any = MlflowClient(f"sqlite:///{tracker.database}")
        client.set_registered_model_alias(NAME, "champion", "2")
        assert tracker.number(NAME, "champion") == 2
        assert tracker.before(NAME, "champion") == 1
        tracker.alias(NAME, "champion", tracker.before(NAME, "champion"))
        assert client.get_model_version_by_alias(NAME, "champion").version == 1
        client.delete_model_version(NAME, "3")
        assert [v.number for v in tracker.versions(NAME)] == [1, 2]
        assert register(tracker, "d4", 0.95).version.number == 4, "numbers are never given twice, as in MLflow"
        client.create_model_version(NAME, source=(tracker.root / "by hand").as_uri())
        assert tracker.versions(NAME)[-1].folder == tracker.root / "by hand"
        run = client.create_run(client.get_experiment_by_name(NAME).experiment_id)
        client.log_metric(run.info.run_id, "roc_auc", 1.0)
        client.delete_experiment(client.get_experiment_by_name(NAME).experiment_id)
        register(tracker, "e5", 0.95)
        assert client.get_experiment_by_name(NAME).lifecycle_stage == "active"
