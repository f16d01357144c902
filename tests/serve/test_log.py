"""The prediction log of a running server: every answered row once, whatever road it came by, and never at the price of an answer."""

import json
import os
import resource
import signal
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from modelinscale.core.clock import fixed
from modelinscale.core.predictions import folder_of, is_open, read_head, segment_name, segments
from modelinscale.package import open_package
from modelinscale.serve import Log
from modelinscale.serve import _log as writer
from modelinscale.serve._log import PredictionLog
from modelinscale.testing import waits
from modelinscale.testing.packages import ROWS, write_package
from modelinscale.testing.servers import Running

pytestmark = pytest.mark.slow

Start = Callable[..., AbstractContextManager[Running]]


def logged(root: Path, model: str = "tiny") -> list[dict[str, Any]]:
    """The rows of all segments, in the order in which they were written."""
    found = []
    for segment in segments(folder_of(root, model)):
        head, *lines = segment.read_bytes().split(b"\n")
        assert json.loads(head)["mis_predictions"] == 1
        found += [json.loads(line) for line in lines[:-1] if line.strip()]
    return found


def metric(server: Running, name: str) -> float:
    return sum(float(line.split()[-1]) for line in server.get("/metrics").text.splitlines() if line.startswith(f"{name}{{"))


def _written(server: Running, n_rows: int) -> None:
    waits.until(lambda: metric(server, "mis_log_rows_total") == n_rows)


def _closed(log: PredictionLog, n_rows: int) -> None:
    waits.until(lambda: log.written_rows == n_rows and log._segment is None)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_package(tmp_path / "tiny")


def test_what_is_asked_and_answered_is_logged_once_by_either_road(start: Start, tiny: Path, tmp_path: Path) -> None:
    with start(tiny, log={"folder": str(tmp_path / "log")}) as server:
        answers = server.post("/predict", {"rows": ROWS}, **{"X-Request-Id": "first"}).json()["predictions"]
        tensor = {"name": "amount", "shape": [2], "datatype": "FP64", "data": [1.5, 2.5]}
        assert server.post("/v2/models/tiny/infer", {"inputs": [tensor]}, **{"X-Request-Id": "second"}).status_code == 200
        assert server.post("/predict", {"rows": [{"amount": "much"}]}).status_code == 422
        _written(server, len(ROWS) + 2)
        assert is_open(segments(folder_of(tmp_path / "log", "tiny"))[0])
        code, modules = server.stop()
    rows = logged(tmp_path / "log")
    assert (code, [row["id"] for row in rows]) == (0, [*(f"first/{i}" for i in range(len(ROWS))), "second/0", "second/1"])
    assert [{k: row[k] for k in ("prediction", "probabilities")} for row in rows[: len(ROWS)]] == answers
    assert [row["inputs"]["amount"] for row in rows[-2:]] == [1.5, 2.5]
    assert all(row["version"] == "3" and abs(datetime.fromisoformat(row["time"]) - datetime.now(UTC)) < timedelta(minutes=5) for row in rows)
    # What the model was fed is what is logged: asked again with it, it answers the same.
    again = open_package(tiny).predict([row["inputs"] for row in rows])
    assert again == [{k: row[k] for k in ("prediction", "probabilities")} for row in rows]
    assert not {"pyarrow", "polars", "lance", "torch"} & set(modules)


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_each_task_and_each_type_of_column_is_logged_as_it_was_read(tmp_path: Path, task: Any) -> None:
    package = open_package(write_package(tmp_path / "p", task=task, name=f"../{task}"))
    log = PredictionLog(tmp_path / "log", package, Log(), fixed(datetime(2026, 11, 26, tzinfo=UTC)))
    rows = [*ROWS, {}, {"at": "2024-05-01T13:00:00.000007", "paid": True, "place": [0.5, None]}]
    rows = [row for row in rows if None not in (row.get("place") or [])]
    tensors = package.tensors(rows)
    log.put([("a", 1), ("b", len(rows) - 1)], tensors, package.run(tensors))
    log.close()
    assert log.folder.parent == tmp_path / "log", "a name cannot lead out of the folder"
    found = logged(tmp_path / "log", package.name)
    assert [row["id"] for row in found] == ["a/0", *(f"b/{i}" for i in range(len(rows) - 1))]
    assert found[0]["time"] == "2026-11-26T00:00:00Z"
    assert package.predict([row["inputs"] for row in found]) == package.predict(rows)
    for before, after in zip(rows, found, strict=True):
        kept = {k: v for k, v in before.items() if k != "at" and v != ""}
        assert {k: after["inputs"][k] for k in kept} == kept
    head = read_head(segments(log.folder)[0])
    assert head is not None
    assert [c["type"] for c in head[0].columns] == [c.column.type for c in package.inputs]


def test_a_killed_server_loses_no_row_that_is_older_than_the_flush(start: Start, tiny: Path, tmp_path: Path) -> None:
    for run in range(3):
        with start(tiny, log={"folder": str(tmp_path / "log")}) as server:
            for i in range(20):
                assert server.post("/predict", {"rows": ROWS[:2]}, **{"X-Request-Id": f"{run}-{i}"}).status_code == 200
            _written(server, 40)
            os.kill(server.process.pid, signal.SIGKILL)
            server.process.wait(10)
    rows = logged(tmp_path / "log")
    assert [row["id"] for row in rows] == [f"{run}-{i}/{k}" for run in range(3) for i in range(20) for k in range(2)]
    assert not any(map(is_open, segments(folder_of(tmp_path / "log", "tiny"))))


def test_nothing_is_logged_where_no_folder_is_named_or_rows_are_off(start: Start, tiny: Path, tmp_path: Path) -> None:
    with start(tiny, log={"folder": str(tmp_path / "log"), "rows": False}) as server:
        assert server.healthy()
        assert "mis_log_rows_total{" not in server.get("/metrics").text
    assert not (tmp_path / "log").exists()


def test_a_share_of_the_requests_is_chosen_by_id(tmp_path: Path, tiny: Path) -> None:
    package = open_package(tiny)
    log = PredictionLog(tmp_path / "log", package, Log(rows=0.25))
    tensors = package.tensors(ROWS[:3])
    answer = package.run(tensors)
    for i in range(200):
        log.put([(f"r{i}", 1), (f"s{i}", 2)], tensors, answer)
    log.close()
    expected = {f"{name}{i}" for i in range(200) for name in "rs" if zlib.crc32(f"{name}{i}".encode()) < 2**30}
    found = logged(tmp_path / "log")
    assert {row["id"].split("/")[0] for row in found} == expected
    assert 60 < len(expected) < 140
    assert [row["inputs"] for row in found if row["id"].startswith("s")][:2] == [
        row["inputs"] for row in found if row["id"] in (f"{min(expected & {f's{i}' for i in range(200)}, key=lambda s: int(s[1:]))}/{k}" for k in range(2))
    ]


def test_a_full_queue_drops_rows_and_says_so(tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(writer, "QUEUE_BYTES", 20_000)
    release, write = threading.Event(), PredictionLog._write

    def held(log: PredictionLog, text: Any, n_rows: int) -> None:
        assert release.wait(waits.LONG_S)
        write(log, text, n_rows)

    monkeypatch.setattr(PredictionLog, "_write", held)
    package = open_package(tiny)
    log = PredictionLog(tmp_path / "log", package, Log())
    tensors = package.tensors(ROWS[:1])
    answer = package.run(tensors)
    for i in range(500):
        log.put([(f"r{i}", 1)], tensors, answer)
    release.set()  # nothing was written before: putting never waits
    log.close()
    assert log.dropped_rows > 0
    assert (log.written_rows + log.dropped_rows, len(logged(tmp_path / "log"))) == (500, log.written_rows)
    assert len([r for r in caplog.records if "faster than the prediction log" in r.message]) == 1


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may grow past 20 kB: what a full disk does, without one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_costs_rows_of_the_log_and_leaves_no_half_line_in_the_middle(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch, small_files: None
) -> None:
    monkeypatch.setattr(writer, "AGAIN_S", 0.0)
    package = open_package(tiny)
    log = PredictionLog(tmp_path / "log", package, Log())
    tensors = package.tensors(ROWS)
    answer = package.run(tensors)
    for i in range(100):
        log.put([(f"r{i}", len(ROWS))], tensors, answer)
    log.close()
    found = logged(tmp_path / "log")
    assert 0 < log.dropped_rows < 100 * len(ROWS)
    assert len(found) == log.written_rows == 100 * len(ROWS) - log.dropped_rows
    assert len({row["id"] for row in found}) == len(found)
    assert len(segments(log.folder)) > 1


def test_answers_go_on_when_the_log_cannot_be_written(start: Start, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "log").write_text("a file where the folder should be")
    with start(tiny, log={"folder": str(tmp_path / "log")}) as server:
        assert all(server.healthy() for _ in range(5))
        waits.until(lambda: metric(server, "mis_log_dropped_rows_total") == 5)
        assert server.healthy()
        assert server.stop()[0] == 0


def test_segments_are_closed_by_size_and_removed_by_age_but_not_under_a_writer(tmp_path: Path, tiny: Path) -> None:
    package = open_package(tiny)
    folder = folder_of(tmp_path / "log", "tiny")
    folder.mkdir(parents=True)
    old = folder / segment_name(datetime(2026, 1, 1, tzinfo=UTC), 1, 0)
    old.write_text("{}\n")
    os.utime(old, (0, 0))
    log = PredictionLog(tmp_path / "log", package, Log(segment=500, keep="1d"))
    tensors = package.tensors(ROWS)
    answer = package.run(tensors)
    for i in range(4):
        log.put([(f"r{i}", len(ROWS))], tensors, answer)
        _closed(log, (i + 1) * len(ROWS))
    waits.until(lambda: not old.exists())
    log.close()
    assert len(segments(folder)) == 4
    assert [row["id"] for row in logged(tmp_path / "log")] == [f"r{i}/{k}" for i in range(4) for k in range(len(ROWS))]


def test_many_rows_at_once_are_all_there(tmp_path: Path, tiny: Path) -> None:
    package = open_package(tiny)
    log = PredictionLog(tmp_path / "log", package, Log())
    rows = [{"amount": i / 4, "city": f"c{i}"} for i in range(1000)]
    tensors = package.tensors(rows)
    log.put([("a", 300), ("b", 0), ("c", 700)], tensors, package.run(tensors))
    log.close()
    found = logged(tmp_path / "log")
    assert [row["id"] for row in found] == [*(f"a/{i}" for i in range(300)), *(f"c/{i}" for i in range(700))]
    assert [row["inputs"]["amount"] for row in found] == np.arange(0, 250, 0.25).tolist()


def test_columns_of_any_name_are_logged(tmp_path: Path) -> None:
    names = ['a "b"', "c\\d", "class", "ü\n", "x"]
    for some in (names, ["class", "x 1", "é"]):
        line = msgspec.json.encode(writer._fields(some)(*range(len(some))))
        assert json.loads(line) == dict(zip(some, range(len(some)), strict=True))


def test_a_bare_package_is_logged_only_where_a_folder_is_named(tiny: Path, tmp_path: Path) -> None:
    from modelinscale.api import served

    assert served(None, tiny, None, None, None)[1].log.folder is None
    assert served(None, tiny, None, None, None, tmp_path)[1].log.folder == tmp_path
    (tmp_path / "model.yaml").write_text("name: tiny\ndata: {source: rows.csv}\ntarget: y\n")
    assert served(tmp_path, tiny, None, None, None)[1].log.folder == tmp_path / ".mis" / "predictions"
    (tmp_path / "model.yaml").write_text("name: tiny\ndata: {source: rows.csv}\ntarget: y\nserve: {log: {folder: logs, rows: 0.5, keep: 7d, segment: 1MiB}}\n")
    log = served(tmp_path, tiny, None, None, None)[1].log
    assert (log.folder, log.rows, log.keep) == (tmp_path / "logs", 0.5, 7 * 86400)
    (tmp_path / "model.yaml").write_text("name: tiny\ndata: {source: rows.csv}\ntarget: y\nserve: {log: {rows: false}}\n")
    assert served(tmp_path, tiny, None, None, None)[1].log.folder is None
