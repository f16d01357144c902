"""What a follower leaves in a project: lineage, audit lines, a report; and sources that are empty at first."""

import json
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from modelinscale.api import Project
from modelinscale.core.errors import NothingYet
from modelinscale.data.lake import open_table
from modelinscale.pipeline._collect import table_name
from modelinscale.pipeline._followed_news import Followed
from modelinscale.pipeline._place import Place
from modelinscale.testing import waits

pytestmark = pytest.mark.slow
MIS = str(Path(sys.executable).parent / "mis")


def write(folder: Path, source: str, data: str = "", follow: str = "every: 200ms, pause: 500ms") -> Path:
    (folder / "model.yaml").write_text(f"name: o\ntarget: y\nmodel: linear\ndata:\n  source: {source}\n  follow: {{{follow}}}\n{data}")
    return folder


def send(client: Any, start: int, end: int) -> None:
    """They are there at once or not at all."""
    with client.pipeline(transaction=True) as together:
        for i in range(start, end):
            together.xadd("orders", {"id": f"r{i}", "n": str(i % 7), "y": "yes" if i % 2 else "no"})
        together.execute()


def test_who_waits_for_the_table_says_at_once_for_whom_and_how_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from modelinscale.core.errors import StoreError
    from modelinscale.core.logs import to_stderr
    from modelinscale.pipeline import _follow
    from modelinscale.pipeline._followed import bringing

    assert _follow.WAIT_S <= 60
    monkeypatch.setattr(_follow, "WAIT_S", 0.6)
    (tmp_path / "rows.csv").write_text("x,y\n" + "".join(f"{i},{i % 2}\n" for i in range(60)))
    project = Project(write(tmp_path, "rows.csv"))
    to_stderr()
    place = Place.of(project.spec, project.base)
    with bringing(place, table_name(place)), pytest.raises(StoreError, match="is in use by process"):
        project.follow(stop=threading.Event())
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1, said
    assert said[0].startswith("warning waiting for the table, up to 0.6 s")
    assert "is in use by process" in said[0]
    stop = threading.Event()
    stop.set()
    project.follow(stop=stop)
    assert capsys.readouterr().err == "", "nobody holds it: nothing is said"


class Following:
    """A follower of a project, on a thread."""

    def __init__(self, folder: Path) -> None:
        self.stop, self.news, self.error, self.done = threading.Event(), list[Followed](), list[BaseException](), list[Followed]()
        self.project = Project(folder)
        self._thread = threading.Thread(target=self._go)
        self._thread.start()

    def _go(self) -> None:
        try:
            self.done.append(self.project.follow(stop=self.stop, news=self.news.append))
        except BaseException as error:  # noqa: BLE001  told to the test
            self.error.append(error)

    def until(self, what: Callable[[Followed], bool]) -> Followed:
        end = time.monotonic() + waits.LONG_S
        while not self.error:
            for one in list(self.news):
                if what(one):
                    return one
            assert time.monotonic() < end, f"not told in {waits.LONG_S:g} s: {self.news[-3:]}"
            time.sleep(0.02)
        raise self.error[0]

    def end(self) -> Followed:
        self.stop.set()
        self._thread.join(waits.LONG_S)
        assert not self.error, self.error
        return self.done[0]


@contextmanager
def following(folder: Path) -> Iterator[Following]:
    found = Following(folder)
    try:
        yield found
    finally:
        found.stop.set()
        found._thread.join(waits.LONG_S)


def events(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / ".mis" / "lineage" / "events.jsonl").read_text().splitlines()]


def lines(folder: Path) -> list[dict[str, Any]]:
    return [{"action": e.action, **e.facts} for e in Project(folder).audit.entries()]


def table_of(folder: Path) -> str:
    project = Project(folder)
    place = Place.of(project.spec, project.base)
    return str(place.store.uri("lake", table_name(place)))


@pytest.mark.parametrize("columns", ["", ", columns: {id: string, n: int, y: string}"], ids=["told by messages", "declared"])
@pytest.mark.parametrize("start", ["earliest", "latest"])
def test_a_stream_with_nothing_in_it_is_waited_for_and_its_first_row_comes_in(redis_client: Any, tmp_path: Path, start: str, columns: str) -> None:
    write(tmp_path, f"{{type: redis, url: '{redis_client.address}', stream: orders, start: {start}{columns}}}")
    with following(tmp_path) as follower:
        said = follower.until(lambda one: one.state == "waiting")
        assert said.note == "there is no redis stream orders."
        send(redis_client, 0, 3)
        follower.until(lambda one: one.n_rows == 3)
        send(redis_client, 3, 5)
        assert follower.until(lambda one: one.n_rows == 5).behind == 0
        assert follower.end().n_added == 5


def test_a_source_that_stays_empty_for_too_long_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, "'rows/*.csv'", follow="every: 100ms, give_up: 300ms")
    with pytest.raises(NothingYet, match=r"no file matches .*rows/\*.csv"):
        Project(tmp_path).follow(stop=threading.Event())


def test_files_that_come_later_into_an_empty_folder_are_followed(tmp_path: Path) -> None:
    write(tmp_path, "'rows/*.csv'")
    with following(tmp_path) as follower:
        assert "no file matches" in follower.until(lambda one: one.state == "waiting").note
        (tmp_path / "rows").mkdir()
        (tmp_path / "rows" / "1.csv").write_text("x,y\n1,yes\n2,no\n")
        follower.until(lambda one: one.n_rows == 2)
        (tmp_path / "rows" / "2.csv").write_text("x,y\n3,yes\n")
        follower.until(lambda one: one.n_rows == 3)


def test_a_report_is_held_against_the_one_before_the_follower_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelinscale.data._follower.REPORT_S", 0.1)
    (tmp_path / "rows.csv").write_text("x,y\n1,yes\n2,no\n")
    write(tmp_path, "rows.csv")
    report = tmp_path / ".mis" / "follow" / "o.report" / "report.md"
    with following(tmp_path) as follower:
        waits.until(report.exists, "a report")
        with (tmp_path / "rows.csv").open("a") as file:
            file.write("3,yes\n")
        follower.until(lambda one: one.n_rows == 3)
        follower.end()
    assert "Compared with" not in report.read_text(), "there was none before"
    with (tmp_path / "rows.csv").open("a") as file:
        file.write("4,no\n")
    with following(tmp_path) as follower:
        follower.until(lambda one: one.n_rows == 4)
        follower.end()
    assert "Compared with" in report.read_text()


def test_lineage_and_audit_tell_of_one_run_from_start_to_end(redis_client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelinscale.pipeline._followed_told.RUNNING_S", 0.0)
    write(tmp_path, f"{{type: redis, url: '{redis_client.address}', stream: orders}}")
    send(redis_client, 0, 10)
    with following(tmp_path) as follower:
        follower.until(lambda one: one.n_rows == 10)
        send(redis_client, 10, 15)
        follower.until(lambda one: one.n_rows == 15)
        follower.end()
    found = events(tmp_path)
    assert [e["eventType"] for e in found] == ["START", "RUNNING", "RUNNING", "COMPLETE"]
    (run,) = {e["run"]["runId"] for e in found}
    assert {e["job"]["name"] for e in found} == {"o.follow"}
    assert found[0]["job"]["facets"]["jobType"]["processingType"] == "STREAMING"
    assert [e["outputs"][0]["outputFacets"]["outputStatistics"]["rowCount"] for e in found[1:]] == [10, 15, 15]
    table = open_table(table_of(tmp_path))
    assert found[-1]["outputs"][0]["facets"]["version"]["datasetVersion"] == str(table.rows_version)
    assert table.last.run == run
    assert [line for line in lines(tmp_path) if line["action"] == "follow"] == [
        {"action": "follow", "run": run, "started": True},
        *({"action": "follow", "run": run, "version": v, "n_added": n, "n_quarantined": 0} for v, n in ((1, 10), (2, 15))),
        {"action": "follow", "run": run, "stopped": True, "version": 2, "n_added": 15, "n_quarantined": 0},
    ]
    assert Project(tmp_path).audit.verify().whole


def test_a_check_that_stops_it_fails_the_run_and_leaves_a_report(redis_client: Any, tmp_path: Path) -> None:
    checks = '  checks: {n: [{at_most: {bound: 3, severity: quarantine}}], "*": {rows: {min: 1}}}\n'
    write(tmp_path, f"{{type: redis, url: '{redis_client.address}', stream: orders}}", checks, follow="every: 200ms, window: 1s")
    send(redis_client, 0, 14)
    with pytest.raises(Exception, match="0 rows are fewer than 1"):
        Project(tmp_path).follow(stop=threading.Event())
    assert [e["eventType"] for e in events(tmp_path)] == ["START", "FAIL"]
    assert lines(tmp_path)[-1]["failed"] == "DataError"
    status = json.loads((tmp_path / ".mis" / "follow" / "o.json").read_text())
    assert (status["state"], status["n_rows"], status["n_quarantined"]) == ("failed", 8, 6)
    found = json.loads((tmp_path / ".mis" / "follow" / "o.report" / "report.json").read_text())
    assert (found["n_read"], found["n_added"], found["n_quarantined"]) == (14, 8, 6)
    assert found["reasons"] == [{"column": "n", "reason": "not at most 3", "n": 6, "examples": ["4", "5", "6"]}]
    shown = subprocess.run([MIS, "show", "collect", "-f", str(tmp_path)], capture_output=True, text=True, check=False)
    assert "14 read, 8 added" in shown.stdout, shown.stderr


def test_a_follower_that_was_killed_is_told_of_by_the_next_one_and_nothing_is_lost(redis_client: Any, tmp_path: Path) -> None:
    write(tmp_path, f"{{type: redis, url: '{redis_client.address}', stream: orders}}")
    send(redis_client, 0, 100)
    with subprocess.Popen([MIS, "collect", "--follow", "--json", "-f", str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while json.loads(process.stdout.readline())["n_rows"] < 100:
            pass
        send(redis_client, 100, 150)
        process.send_signal(signal.SIGKILL)
    with following(tmp_path) as follower:
        follower.until(lambda one: one.n_rows == 150)
        follower.end()
    found = events(tmp_path)
    assert [e["eventType"] for e in found] == ["START", "ABORT", "START", "COMPLETE"]
    assert found[0]["run"] == found[1]["run"]
    assert {"action": "follow", "run": found[0]["run"]["runId"], "killed": True} in lines(tmp_path)
    rows = [v for b in open_table(table_of(tmp_path)).blocks(["id"]) for v in b.column("id").to_pylist()]
    assert rows == [f"r{i}" for i in range(150)]


def test_old_versions_leave_but_not_while_a_run_is_at_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelinscale.data._follower.AGAIN_S", 0.2)
    write(tmp_path, "'rows/*.csv'", follow="every: 100ms, keep: 200ms")
    (tmp_path / "rows").mkdir()

    def add(n: int) -> None:
        (tmp_path / "rows" / f"{n:03}.csv").write_text(f"x,y\n{n},{'yes' if n % 2 else 'no'}\n")

    add(0)
    with following(tmp_path) as follower:
        follower.until(lambda one: one.n_rows == 1)
        place = Place.of(follower.project.spec, follower.project.base)
        with place.store.lock("lock", wait_s=waits.LONG_S):
            held = {v.number for v in open_table(table_of(tmp_path)).versions()}
            for n in range(1, 8):
                add(n)
                follower.until(lambda one, n=n: one.n_rows == n + 1)  # type: ignore[misc]
            time.sleep(0.5)
            assert held <= {v.number for v in open_table(table_of(tmp_path)).versions()}
            open_table(table_of(tmp_path), max(held)).tag("model-o-1")
        waits.until(lambda: len(open_table(table_of(tmp_path)).versions()) <= 6, "the end of old versions")
        follower.end()
    assert max(held) in {v.number for v in open_table(table_of(tmp_path)).versions()}
    vacuums = [line for line in lines(tmp_path) if line["action"] == "vacuum"]
    assert sum(sum(line["removed"].values()) for line in vacuums) > 4


def test_how_old_rows_are_is_told_by_the_column_of_time(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "shop.db") as db:
        db.execute("create table orders (id integer primary key, at timestamp, y text)")
        moment = datetime.now(UTC) - timedelta(hours=2)
        db.executemany("insert into orders values (?, ?, ?)", [(i, f"{moment:%Y-%m-%d %H:%M:%S}", "yes" if i % 2 else "no") for i in range(20)])
    db.close()
    write(tmp_path, "{type: sql, url: 'sqlite:///shop.db', table: orders}", "  time: at\n")
    with following(tmp_path) as follower:
        found = follower.until(lambda one: one.committed)
        assert found.newest_age_s is not None
        assert 7199 < found.newest_age_s < 7300
        assert found.words.startswith("+20 rows, 20 in all")
        assert "the newest 2 h 0 min old" in found.words
