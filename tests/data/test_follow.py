"""Following a source: commits in time, in bounded pieces, through outages and kills; and other commands beside it."""

import json
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from modelinscale.core.errors import DataError, MisError, SourceError, StoreError, Unreachable
from modelinscale.core.schema import Column, Schema
from modelinscale.data.collect import Brought, Collected, collect
from modelinscale.data.contract import Contract, contract, parse_checks
from modelinscale.data.lake import open_table, table_exists
from modelinscale.data.sources import Chunk, Cursor, Source
from modelinscale.data.sources._sql import dead
from modelinscale.data.tail import Follow, Step, tail
from modelinscale.testing import waits
from modelinscale.testing.lists import Lists

pytestmark = pytest.mark.slow

MIS = str(Path(sys.executable).parent / "mis")
SCHEMA = Schema(columns=(Column(name="id", type="string"), Column(name="n", type="int")))
RULES = contract(SCHEMA, parse_checks({"n": {"at_most": 90}}), ())


class Feed(Lists):
    """Rows that arrive while they are followed: a few more at every look, with outages where asked."""

    outages: tuple[int, ...] = ()
    """Looks at which it cannot be reached."""
    told: list[Cursor] = []
    looks: list[int] = []

    def follow(self, after: Cursor | None, schema: Schema, *, every_s: float, stop: threading.Event) -> Iterator[Chunk | None]:
        while not stop.is_set():
            self.looks.append(1)
            if len(self.looks) in self.outages:
                raise Unreachable("the feed is away.")
            chunk = next(self.read(after, schema), None)
            if chunk is None:
                yield None
                stop.wait(0.01)
                continue
            after = chunk.cursor
            yield chunk

    def committed(self, cursor: Cursor) -> None:
        self.told.append(cursor)


def feed(n: int, **settings: Any) -> Feed:
    rows = {"id": tuple(f"r{i}" for i in range(n)), "n": tuple(str(i % 50) for i in range(n))}
    return Feed(rows=rows, chunk_rows=settings.pop("chunk_rows", 10), told=[], looks=[], **settings)


class Follower:
    """A follower on a thread, with its news."""

    def __init__(self, source: Source, folder: Path, *, rules: Contract = RULES, more: dict[str, Any] | None = None, **settings: Any) -> None:
        self.stop, self.steps, self.error = threading.Event(), list[Step](), list[BaseException]()
        self.rules, self.more = rules, more or {}
        self.source: Any = source
        self.folder, self.how = folder, Follow.model_validate({"every": 0.1, "pause": 0.1, **settings})
        self._thread = threading.Thread(target=self._go)
        self._thread.start()

    def _go(self) -> None:
        try:
            tail(
                self.source,
                lake=str(self.folder / "lake"),
                quarantine=str(self.folder / "quarantine"),
                contract=self.rules,
                stop=self.stop,
                settings=self.how,
                news=self.steps.append,
                **self.more,
            )
        except BaseException as error:  # noqa: BLE001  told to the test
            self.error.append(error)

    def until(self, n_rows: int) -> None:
        waits.until(lambda: self.n_rows >= n_rows or self.error, f"the commit of {n_rows} rows")

    def until_it_says(self, words: str) -> Step:
        def said() -> list[Step]:
            return [step for step in list(self.steps) if words in step.note]

        waits.until(lambda: said() or self.error, f"a word of {words!r}")
        assert said(), self.error
        return said()[0]

    def failed(self) -> str:
        self._thread.join(waits.LONG_S)
        (error,) = self.error
        assert isinstance(error, MisError)
        return str(error)

    def end(self) -> list[Step]:
        self.stop.set()
        self._thread.join(waits.LONG_S)
        assert not self._thread.is_alive()
        return [step for step in self.steps if step.what == "committed"]

    @property
    def n_rows(self) -> int:
        return max((step.n_rows for step in list(self.steps)), default=0)


def ids(folder: Path) -> list[Any]:
    lake = str(folder / "lake")
    return [v for b in open_table(lake).blocks(["id"]) for v in b.column("id").to_pylist()] if table_exists(lake) else []


def test_following_brings_what_a_collect_brings(tmp_path: Path) -> None:
    follower = Follower(feed(95), tmp_path / "a")
    follower.until(95)
    follower.end()
    collect(feed(95), lake=str(tmp_path / "b" / "lake"), quarantine=str(tmp_path / "b" / "q"), contract=RULES)
    assert ids(tmp_path / "a") == ids(tmp_path / "b")
    assert open_table(str(tmp_path / "a" / "lake")).cursor == open_table(str(tmp_path / "b" / "lake")).cursor


def test_a_commit_is_bounded_in_rows_however_much_there_is(tmp_path: Path) -> None:
    follower = Follower(feed(95), tmp_path, every=60, rows=20)
    follower.until(80)
    steps = follower.end()
    assert [step.n_added for step in steps[:4]] == [20] * 4
    assert ids(tmp_path) == [f"r{i}" for i in range(95)], "what was read before the stop is committed"


def test_the_source_is_told_after_every_commit_and_again_after_a_start(tmp_path: Path) -> None:
    source = feed(40)
    follower = Follower(source, tmp_path, rows=20)
    follower.until(40)
    follower.end()
    assert source.told[-1] == {"row": 40}
    again = feed(40)
    follower = Follower(again, tmp_path)
    waits.until(lambda: again.told or follower.error, "telling the source")
    follower.end()
    assert again.told == [{"row": 40}]


def test_a_source_out_of_reach_is_tried_again_and_what_came_before_is_committed(tmp_path: Path) -> None:
    follower = Follower(feed(60, outages=(3, 4)), tmp_path, every=60)
    follower.until(20)
    assert [s.note for s in follower.steps if s.what == "waiting"][:1] == ["the feed is away."]
    waits.until(lambda: len(follower.source.looks) >= 10, "ten looks")
    follower.end()
    whats = [step.what for step in follower.steps]
    first, second = (i for i, what in enumerate(whats) if what == "waiting")
    assert whats[first : second + 1] in (["waiting", "waiting"], ["waiting", "committed", "waiting"]), "away is away until it answers"
    assert ids(tmp_path) == [f"r{i}" for i in range(60)]


def test_a_file_that_is_not_there_when_its_rows_are_measured_is_waited_for(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    follower = Follower(Source.parse({"type": "parquet", "path": str(tmp_path / "*.parquet")}), tmp_path)
    follower.until_it_says("no file matches")
    pq.write_table(pa.table({"id": ["a", "b"], "n": [1, 2]}), tmp_path / "part")
    (tmp_path / "part").rename(tmp_path / "rows.parquet")
    follower.until(2)
    follower.end()
    assert not follower.error
    assert ids(tmp_path) == ["a", "b"]


def test_a_database_that_cannot_be_read_for_a_while_is_waited_for(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "shop.db", isolation_level=None)) as db:
        db.executescript("CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER); INSERT INTO t VALUES (1, 1)")
        source = Source.parse({"type": "sql", "url": f"sqlite:///{tmp_path / 'shop.db'}", "table": "t", "cursor": "id", "timeout": "100ms"})
        follower = Follower(source, tmp_path, rules=contract(source.columns(), {}, ()))
        follower.until(1)
        db.execute("BEGIN EXCLUSIVE")
        assert "database is locked" in follower.until_it_says("cannot").note
        db.execute("INSERT INTO t VALUES (2, 2)")
        db.execute("COMMIT")
        follower.until(2)
        follower.end()
    assert ids(tmp_path) == [1, 2]


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ('connection to server at "127.0.0.1", port 5432 failed: Connection refused', Unreachable),
        ("server closed the connection unexpectedly", Unreachable),
        ("SSL connection has been closed unexpectedly", Unreachable),
        ("FATAL:  the database system is starting up", Unreachable),
        ("MySQL server has gone away (2006)", Unreachable),
        ("Can't connect to MySQL server on '127.0.0.1' ([Errno 111] Connect call failed ('127.0.0.1', 44135)) (2003)", Unreachable),
        ("Can't connect to MySQL server on 'db' ([SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed) (2003)", SourceError),
        ('FATAL:  password authentication failed for user "mis"', SourceError),
        ('FATAL:  database "nosuch" does not exist', SourceError),
    ],
)
def test_what_a_database_says_tells_whether_to_wait_for_it(words: str, kind: type[SourceError]) -> None:
    assert type(dead("db://host/shop", "read", RuntimeError(words))) is kind


def test_a_source_out_of_reach_for_too_long_is_an_error(tmp_path: Path) -> None:
    follower = Follower(feed(60, outages=tuple(range(3, 1000))), tmp_path, give_up=0.1)
    follower._thread.join(30)
    (error,) = follower.error
    assert "the feed is away" in str(error)
    assert ids(tmp_path) == [f"r{i}" for i in range(20)]


def test_too_many_bad_rows_stop_it_though_many_good_ones_came_before(tmp_path: Path) -> None:
    rows = {"id": tuple(f"r{i}" for i in range(30_000)), "n": tuple("1" if i < 20_000 else "99" for i in range(30_000))}
    source = Feed(rows=rows, chunk_rows=1000, told=[], looks=[])
    follower = Follower(source, tmp_path, rows=2000)
    follower._thread.join(60)
    (error,) = follower.error
    assert isinstance(error, DataError)
    assert "rows read break the contract" in str(error)
    assert len(ids(tmp_path)) == 20_000


def test_small_commits_are_joined_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelinscale.data._follower.COMPACT_COMMITS", 70)
    follower = Follower(feed(75, chunk_rows=1), tmp_path, rows=1)
    follower.until(75)
    follower.end()
    assert len(list((tmp_path / "lake" / "data").iterdir())) > 70
    assert len(open_table(str(tmp_path / "lake"))._dataset.get_fragments()) < 20


# -- windows


def rules(**checks: Any) -> Contract:
    return contract(SCHEMA, parse_checks({"*" if name == "table" else name: check for name, check in checks.items()}), ())


def test_an_empty_window_breaks_what_asks_for_rows_and_stops_it(tmp_path: Path) -> None:
    follower = Follower(feed(30), tmp_path, rules=rules(table={"rows": {"min": 1}}), window=0.3)
    words = follower.failed()
    assert "a check stops this follower:\n  0 × the table: 0 rows are fewer than 1" in words
    assert "the rows of this window are in the lake and stay" in words
    assert len(ids(tmp_path)) == 30


def test_what_a_window_warns_of_is_news_and_in_the_report_and_it_goes_on(tmp_path: Path) -> None:
    seen: list[tuple[Collected, Brought]] = []
    checks = rules(table={"rows": {"min": 1, "severity": "warn"}}, n={"at_most": 30, "severity": "warn"})
    follower = Follower(feed(50), tmp_path, rules=checks, window=0.3, more={"report": lambda found, brought: seen.append((found, brought))})
    follower.until_it_says("0 rows are fewer than 1")
    assert next(s.note for s in follower.steps if s.what == "judged") == "a check warns: 19 × n: not at most 30 (31, 32, 33)."
    follower.end()
    found, brought = seen[-1]
    assert (brought.n_read, found.n_added, found.n_rows) == (50, 50, 50)
    assert any("0 rows are fewer than 1" in note for note in found.notes)
    assert brought.columns is not None
    assert brought.columns.plain()["n"]["n"] == 50


def test_what_piled_up_before_is_no_window_and_no_fault(tmp_path: Path) -> None:
    follower = Follower(feed(100), tmp_path, rules=rules(table={"rows": {"max": 20}}), rows=30, window=60)
    follower.until(100)
    follower.end()
    assert open_table(str(tmp_path / "lake")).last.facts["collects"] == []


def test_a_row_that_must_stop_it_stops_it_before_its_commit(tmp_path: Path) -> None:
    follower = Follower(feed(100), tmp_path, rules=rules(n={"at_most": 25, "severity": "stop"}), rows=10)
    assert "4 × n: not at most 25 (26, 27, 28)" in follower.failed()
    assert ids(tmp_path) == [f"r{i}" for i in range(20)]


class Bursts(Feed):
    """Ten rows at each command; in between nothing is there."""

    allowed: list[int] = []
    pauses: list[int] = []

    def follow(self, after: Cursor | None, schema: Schema, *, every_s: float, stop: threading.Event) -> Iterator[Chunk | None]:
        while not stop.is_set():
            chunk = next(self.read(after, schema), None) if self.allowed else None
            if chunk is not None:
                self.allowed.pop()
                after = chunk.cursor
            else:
                stop.wait(0.01)
                self.pauses.append(1)
            yield chunk


def test_windows_are_the_collects_that_later_ones_are_held_against(tmp_path: Path) -> None:
    rows = {"id": tuple(f"r{i}" for i in range(100)), "n": ("1",) * 100}
    source = Bursts(rows=rows, chunk_rows=10, allowed=[1], pauses=[])
    follower = Follower(source, tmp_path, rules=rules(table={"rows": {"change": 0.5, "severity": "warn"}}), window=1.0)
    follower.until(10)
    for n in (20, 30, 40, 50):
        time.sleep(1.0)
        source.allowed.append(1)
        follower.until(n)
    follower.until_it_says("0 rows, where")
    source.allowed.append(1)
    follower.until(60)
    follower.end()
    kept = open_table(str(tmp_path / "lake")).last.facts["collects"]
    assert kept[0] in (0, 10), "what came while it caught up is no window"
    assert 10 in kept
    assert len(kept) <= 10


def test_what_rows_refer_to_is_read_again_in_every_window(tmp_path: Path) -> None:
    known = tmp_path / "known.csv"
    known.write_text("id\n" + "".join(f"r{i}\n" for i in range(10)))
    source = Bursts(rows={"id": tuple(f"r{i}" for i in range(20)), "n": ("1",) * 20}, chunk_rows=10, allowed=[1], pauses=[])
    follower = Follower(source, tmp_path, rules=rules(id={"refers": {"file": str(known), "column": "id"}}), window=0.3)
    follower.until(10)
    known.write_text("id\n" + "".join(f"r{i}\n" for i in range(20)))
    time.sleep(0.4)  # longer than a window
    n_pauses = len(source.pauses)
    waits.until(lambda: len(source.pauses) > n_pauses + 2, "the end of the window")
    source.allowed.append(1)
    follower.until(20)
    follower.end()
    assert len(ids(tmp_path)) == 20


class Firehose(Feed):
    """Something is there at every look."""

    def follow(self, after: Cursor | None, schema: Schema, *, every_s: float, stop: threading.Event) -> Iterator[Chunk | None]:
        for chunk in self.read(after, schema):
            if stop.wait(0.01):
                return
            yield chunk

    def behind(self, cursor: Cursor) -> int | None:
        return 15


def test_a_stream_that_never_pauses_is_judged_too(tmp_path: Path) -> None:
    rows = {"id": tuple(f"r{i}" for i in range(20_000)), "n": ("1",) * 20_000}
    source = Firehose(rows=rows, chunk_rows=10, told=[], looks=[])
    follower = Follower(source, tmp_path, rules=rules(table={"rows": {"max": 5, "severity": "warn"}}), rows=10, window=0.5)
    follower.until_it_says("rows are more than 5")
    assert all(step.what != "idle" for step in follower.steps)
    follower.end()


# -- what is kept


def test_old_versions_leave_while_it_follows_and_that_of_a_model_stays(tmp_path: Path) -> None:
    uri, asked = str(tmp_path / "lake"), list[timedelta]()

    def vacuum(older_than: timedelta) -> bool:
        asked.append(older_than)
        table = open_table(uri)
        if len(asked) == 1:
            table.tag("model-o-1")
        table.vacuum(older_than=timedelta(0))
        return True

    follower = Follower(feed(60, chunk_rows=1), tmp_path, rows=1, every=0.1, keep=0.5, more={"vacuum": vacuum})
    follower.until(60)
    follower.end()
    assert set(asked) == {timedelta(seconds=0.5)}
    assert len(asked) > 1
    left, tagged = [v.number for v in open_table(uri).versions()], open_table(uri).tags["model-o-1"]
    assert tagged in left
    assert len(left) < 40
    assert open_table(uri, tagged).n_rows <= 60
    assert ids(tmp_path) == [f"r{i}" for i in range(60)]


def test_it_says_how_far_behind_it_is(tmp_path: Path) -> None:
    follower = Follower(feed(20, outages=(4, 5)), tmp_path, every=0.2)
    follower.until_it_says("the feed is away.")
    waits.until(lambda: len(follower.source.looks) >= 60, "sixty looks")
    waits.until(lambda: [s.behind_s < 0.5 for s in list(follower.steps) if s.what == "idle"][-1:] == [True], "news of a follower that is not behind")
    follower.end()
    waiting = [step.behind_s for step in follower.steps if step.what == "waiting"]
    assert waiting[-1] > waiting[0]


# -- the command


@pytest.fixture
def project(redis_client: Any, tmp_path: Path) -> Path:
    """A project whose source is a Redis stream of 300 rows."""
    address = redis_client.address
    (tmp_path / "address").write_text(address)
    source = f"{{type: redis, url: '{address}', stream: orders}}"
    (tmp_path / "model.yaml").write_text(f"name: o\ntarget: y\nmodel: linear\ndata:\n  source: {source}\n  key: id\n  follow: {{every: 500ms, pause: 1s}}\n")
    send(redis_client, 0, 300)
    return tmp_path


def send(client: Any, start: int, end: int) -> None:
    for i in range(start, end):
        client.xadd("orders", {"id": f"r{i}", "n": str(i % 7), "y": "yes" if i % 7 + i % 5 > 4 else "no"})


@contextmanager
def following(project: Path) -> "Iterator[subprocess.Popen[str]]":
    """The command, at work; ended with the block however that ends."""
    with subprocess.Popen([MIS, "collect", "--follow", "--json", "-f", str(project)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def news(process: "subprocess.Popen[str]", n_rows: int) -> dict[str, Any]:
    """The first news of a table with so many rows."""
    assert process.stdout is not None
    for line in process.stdout:
        found: dict[str, Any] = json.loads(line)
        if found["n_rows"] >= n_rows:
            return found
    raise AssertionError(f"it ended with {process.wait()}: {process.stderr.read() if process.stderr else ''}")


@pytest.mark.slow
def test_a_run_beside_a_follower_takes_the_table_as_it_stands_and_sigterm_ends_it_well(project: Path) -> None:
    import redis

    with following(project) as process:
        first = news(process, 300)
        assert first["state"] == "following"
        found = subprocess.run([MIS, "run", "--json", "-f", str(project)], capture_output=True, text=True, check=False)
        assert found.returncode == 0, found.stderr
        outcome = json.loads(found.stdout)
        assert outcome["table"]["n_rows"] == 300
        assert any("taken as it stands" in note for note in outcome["notes"])
        with redis.Redis.from_url((project / "address").read_text()) as client:
            send(client, 300, 340)
        news(process, 340)
        status = json.loads((project / ".mis" / "follow" / "o.json").read_text())
        assert (status["state"], status["n_rows"], status["process"]) == ("following", 340, process.pid)
        second = subprocess.run([MIS, "plan", "-f", str(project)], capture_output=True, text=True, check=True)
        assert "changed: followed" in second.stdout
        with redis.Redis.from_url((project / "address").read_text()) as client:
            send(client, 340, 345)
        process.send_signal(signal.SIGTERM)
        assert process.stdout
        assert process.stderr
        out, err = process.stdout.read(), process.stderr.read()
        assert (process.wait(waits.LONG_S), err) == (0, "")
        assert json.loads(out.splitlines()[-1])["state"] == "stopped"
        rest = subprocess.run([MIS, "collect", "--json", "-f", str(project)], capture_output=True, text=True, check=False)
        assert rest.returncode == 0, rest.stderr
        assert json.loads(rest.stdout)["table"]["n_rows"] == 345
        assert json.loads((project / ".mis" / "follow" / "o.json").read_text())["state"] == "stopped"


@pytest.mark.slow
def test_a_second_follower_of_a_table_is_refused_and_a_second_signal_ends_the_first_at_once(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from modelinscale.api import Project

    with following(project) as process:
        news(process, 300)
        monkeypatch.setattr("modelinscale.pipeline._follow.WAIT_S", 0.1)
        with pytest.raises(StoreError, match=f"is in use by process {process.pid}"):
            Project(project).follow(stop=threading.Event())
        subprocess.run(["kill", "-STOP", str(process.pid)], check=True)
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
        subprocess.run(["kill", "-CONT", str(process.pid)], check=True)
        assert process.wait(waits.LONG_S) in (0, 128 + signal.SIGINT, 128 + signal.SIGTERM)


COLLECTOR = """
import sys, threading
import lance
from modelinscale.core.schema import Column, Schema
from modelinscale.data.contract import contract
from modelinscale.data.sources import Source
from modelinscale.data.tail import Follow, tail
schema = Schema(columns=(Column(name="id", type="string"), Column(name="n", type="int")))
source = Source.parse({"type": "redis", "url": sys.argv[1], "stream": "orders", "columns": {"id": "string", "n": "int"}, "rows": 7})
how = Follow.model_validate({"every": 0.1, "rows": 30})
tail(source, lake=sys.argv[2] + "/lake", quarantine=sys.argv[2] + "/q", contract=contract(schema, {}, ()), stop=threading.Event(), settings=how,
     news=lambda step: print(step.what, flush=True))
"""


@pytest.mark.slow
def test_collectors_killed_while_rows_arrive_lose_and_double_none(project: Path) -> None:
    """A few of the kills of benchmarks/streams.py, which makes fifty of each kind."""
    import redis

    chance, sent, address = random.Random(3), 300, (project / "address").read_text()
    with redis.Redis.from_url(address) as client:
        for _ in range(5):
            with subprocess.Popen([sys.executable, "-c", COLLECTOR, address, str(project)], stdout=subprocess.PIPE, text=True) as process:
                assert process.stdout is not None
                assert process.stdout.readline(), "the collector ended by itself"
                end = time.monotonic() + chance.uniform(0.0, 0.6)
                while time.monotonic() < end:
                    send(client, sent, sent + 5)
                    sent += 5
                process.kill()
    schema = Schema(columns=(Column(name="id", type="string"), Column(name="n", type="int")))
    source = Source.parse({"type": "redis", "url": address, "stream": "orders", "columns": {"id": "string", "n": "int"}})
    collect(source, lake=str(project / "lake"), quarantine=str(project / "q"), contract=contract(schema, {}, ()))
    assert ids(project) == [f"r{i}" for i in range(sent)]


def test_how_often_to_commit_is_refused_where_nothing_is_followed(tmp_path: Path) -> None:
    found = subprocess.run([MIS, "collect", "--every", "5s"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert "Add --follow" in found.stderr
