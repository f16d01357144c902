"""Databases as sources: real servers, started here."""

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from modelinscale.api import Project
from modelinscale.core.errors import MisError, SourceError, SpecError
from modelinscale.data.arrow import BROKEN
from modelinscale.data.clean import clean
from modelinscale.data.collect import Collected, collect
from modelinscale.data.contract import contract
from modelinscale.data.lake import open_table
from modelinscale.data.sources import Chunk, Cursor, Source
from modelinscale.data.sources._sql_read import ANEW
from modelinscale.testing import sources as suite
from modelinscale.testing.databases import PASSWORD, NoServer, Server, mariadb, postgres

NAMES = (f"t{i}" for i in count())


def _server(make: Any) -> Iterator[Server]:
    os.environ["MIS_TEST_PASSWORD"] = PASSWORD
    try:
        with make() as server:
            yield server
    except NoServer as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def pg() -> Iterator[Server]:
    yield from _server(postgres)


@pytest.fixture(scope="module")
def maria() -> Iterator[Server]:
    yield from _server(mariadb)


@pytest.fixture
def lite(tmp_path: Path) -> Iterator[tuple[str, sqlite3.Connection]]:
    """An address, and a connection that writes."""
    connection = sqlite3.connect(tmp_path / "shop.db", isolation_level=None)
    yield f"sqlite:///{tmp_path / 'shop.db'}", connection
    connection.close()


def sql(url: str, **settings: Any) -> Source:
    return Source.parse({"type": "sql", "url": url, **settings})


def rows(chunks: list[Chunk], source: Source) -> list[dict[str, Any]]:
    schema = source.columns()
    return [row for chunk in chunks for row in clean(chunk.batch, schema).batch.to_pylist()]


def read(source: Source, after: Cursor | None = None) -> tuple[list[dict[str, Any]], Cursor | None]:
    """The rows after a cursor, and the cursor after them."""
    chunks = list(source.read(after, source.columns()))
    return rows(chunks, source), chunks[-1].cursor if chunks else after


def gathered(source: Source, folder: Path) -> Collected:
    schema = source.columns()
    return collect(source, lake=str(folder / "t"), quarantine=str(folder / "q"), contract=contract(schema, {}, ()), commit_rows=500)


def ids(folder: Path) -> list[int]:
    return [i for batch in open_table(str(folder / "t")).blocks(["id"]) for i in batch.column(0).to_pylist()]


# -- what every source must do


def conforms(source: Source, grow: Callable[[], int]) -> None:
    suite.from_every_cursor_the_rest_comes_once(source)
    suite.reading_twice_gives_the_same_chunks(source)
    suite.chunks_match_the_schema(source)
    suite.only_asked_columns_come(source)
    suite.at_the_end_nothing_comes(source)
    suite.the_fingerprint_is_plain_and_still(source)
    suite.settings_round_trip(source)
    suite.new_rows_come_once(source, grow)


@pytest.mark.slow
@pytest.mark.parametrize("more", [{"cursor": ["day", "at"], "key": "id"}, {"cursor": "price"}, {"cursor": "id", "lag": 50}], ids=str)
def test_a_table_of_postgres_is_a_source_like_any_other(pg: Server, more: dict[str, Any]) -> None:
    name = next(NAMES)
    insert = f"INSERT INTO {name} (day, price, word) SELECT date '2026-01-01' + i % 7, i / 8.0, 'w' || i % 5 FROM generate_series"
    pg.run(f"""CREATE TABLE {name} (id bigserial PRIMARY KEY, at timestamptz NOT NULL DEFAULT clock_timestamp(), day date NOT NULL,
        price numeric NOT NULL, word text); {insert}(1, 30) AS i""")
    conforms(sql(pg.url(), table=name, rows=7, **more), lambda: (pg.run(f"{insert}(31, 34) AS i"), 4)[1])


@pytest.mark.slow
@pytest.mark.parametrize("more", [{"cursor": "id", "lag": 0}, {"cursor": "price", "lag": 0}, {"cursor": ["day", "id"], "lag": "0s"}], ids=str)
def test_a_table_of_mariadb_is_a_source_like_any_other(maria: Server, more: dict[str, Any]) -> None:
    name = next(NAMES)
    insert = f"INSERT INTO {name} (day, price, word) SELECT date_add('2026-01-01', interval seq day), seq / 8, concat('w', seq % 5) FROM"
    maria.run(
        f"CREATE TABLE {name} (id bigint PRIMARY KEY AUTO_INCREMENT, day date NOT NULL, price decimal(20,5) NOT NULL, word varchar(20)); {insert} seq_1_to_60"
    )
    conforms(sql(maria.url(), table=name, rows=7, **more), lambda: (maria.run(f"{insert} seq_61_to_64"), 4)[1])


@pytest.mark.parametrize("more", [{"cursor": "id"}, {"cursor": "price"}, {"cursor": "at", "lag": 0}, {"cursor": ["day", "id"]}], ids=str)
def test_a_table_of_sqlite_is_a_source_like_any_other(lite: tuple[str, sqlite3.Connection], more: dict[str, Any]) -> None:
    url, db = lite
    db.execute("CREATE TABLE t (id integer PRIMARY KEY, at text NOT NULL UNIQUE, day text NOT NULL, price real NOT NULL UNIQUE, word text)")

    def grow(first: int, last: int) -> int:
        some = [(i, f"2026-01-01 00:{i // 60:02}:{i % 60:02}", f"2026-01-{1 + i // 10:02}", i / 8, None if i < 20 else f"w{i % 5}") for i in range(first, last)]
        db.executemany("INSERT INTO t VALUES (?, ?, ?, ?, ?)", some)
        return len(some)

    grow(0, 60)
    if more["cursor"] == ["day", "id"]:
        grow(60, 61)  # the newest day waits until there is another
        source = sql(url, table="t", rows=7, **more)
        assert read(source)[0][-1]["id"] == 59
        suite.from_every_cursor_the_rest_comes_once(source)
        return
    conforms(sql(url, table="t", rows=7, **more), lambda: grow(60, 64))


def test_a_table_without_a_cursor_that_grew_is_collected_again_as_the_error_says(lite: tuple[str, sqlite3.Connection], tmp_path: Path) -> None:
    url, db = lite
    db.execute("CREATE TABLE t (id integer PRIMARY KEY, x real, y text)")
    db.executemany("INSERT INTO t VALUES (?, ?, ?)", [(i, i / 7, "ny"[i % 2]) for i in range(50)])
    spec = f"name: m\ndata: {{source: {{type: sql, url: '{url}', table: tMORE}}, checks: {{x: {{at_least: 1}}}}}}\ntarget: y\nfeatures: {{x: number}}\n"

    def collect_now(more: str) -> tuple[int, int]:
        (tmp_path / "model.yaml").write_text(spec.replace("tMORE", f"t{more}"))
        found = Project(tmp_path).run(until="collect").collected
        return found["n_rows"], found["n_quarantined"]

    assert collect_now("") == (43, 7)
    db.execute("INSERT INTO t VALUES (50, 9, 'n')")
    with pytest.raises(SourceError, match="into a table of its own"):
        collect_now("")
    assert collect_now(", cursor: id") == (44, 7), "a cursor begins another table, and nothing needs moving"
    (tmp_path / "model.yaml").write_text(spec.replace("tMORE", "t"))
    shutil.move(Project(tmp_path).describe("lake").facts["uri"], tmp_path / "away")
    assert ANEW.startswith("move the table's folder away (`mis show lake`")
    assert collect_now("") == (44, 7), "moved away, it is read anew"


def test_a_whole_table_is_read_once_and_then_only_compared(lite: tuple[str, sqlite3.Connection]) -> None:
    url, db = lite
    db.execute("CREATE TABLE t (id integer PRIMARY KEY, word text)")
    db.executemany("INSERT INTO t VALUES (?, ?)", [(i, f"w{i}") for i in range(50)])
    source = sql(url, table="t", rows=7)
    suite.from_every_cursor_the_rest_comes_once(source)
    suite.at_the_end_nothing_comes(source)
    found, cursor = read(source)
    assert len(found) == 50
    db.execute("UPDATE t SET word = 'other' WHERE id = 3")
    with pytest.raises(SourceError, match=r"t changed since it was read: 50 rows now, 50 then.*`cursor`.*everything once more, into a table of its own"):
        read(source, cursor)


def test_a_broken_off_read_without_any_order_says_why_it_cannot_go_on(lite: tuple[str, sqlite3.Connection]) -> None:
    url, db = lite
    db.execute("CREATE TABLE t (word text)")
    db.executemany("INSERT INTO t VALUES (?)", [(f"w{i}",) for i in range(50)])
    source = sql(url, table="t", rows=7)
    first = next(iter(source.read(None, source.columns())))
    with pytest.raises(SourceError, match=r"broken off after 6 rows.*`key`"):
        read(source, first.cursor)


# -- exactly once while others write


@pytest.mark.slow
def test_rows_that_become_visible_late_are_read_once(pg: Server, tmp_path: Path) -> None:
    """Two sessions take ids 1 and 2; the second commits first, is read, then the first commits; a savepoint gives it a transaction number of its own."""
    name = next(NAMES)
    pg.run(f"CREATE TABLE {name} (id bigserial PRIMARY KEY, who text)")
    source = sql(pg.url(), table=name, cursor="id")
    with session(pg) as slow, session(pg) as fast:
        slow(f"BEGIN; INSERT INTO {name} (who) VALUES ('slow'); SAVEPOINT s; INSERT INTO {name} (who) VALUES ('slow, in a savepoint'); RELEASE s;")
        fast(f"INSERT INTO {name} (who) VALUES ('fast');")
        none, cursor = read(source)
        assert none == [], "what a running transaction may precede waits for it"
        slow("COMMIT;")
        found, cursor = read(source, cursor)
        assert [r["id"] for r in found] == [1, 2, 3]
        slow(f"BEGIN; INSERT INTO {name} (who) VALUES ('slow again');")
        fast(f"INSERT INTO {name} (who) VALUES ('fast again');")
        assert read(source, cursor)[0] == []
        slow("COMMIT;")
        found, cursor = read(source, cursor)
        assert [r["id"] for r in found] == [4, 5]
        assert read(source, cursor)[0] == []


@pytest.mark.slow
def test_every_row_of_many_writers_is_collected_exactly_once(pg: Server, tmp_path: Path) -> None:
    """Writers hold their transactions open for different times, so ids and moments become visible out of order; some roll back, some use savepoints."""
    name = next(NAMES)
    pg.run(f"CREATE TABLE {name} (id bigserial PRIMARY KEY, at timestamptz NOT NULL DEFAULT now(), who int)")
    stop = threading.Event()

    def write(who: int) -> None:
        chance = random.Random(who)
        with session(pg) as run:
            while not stop.is_set():
                n = chance.randint(1, 20)
                run(f"BEGIN; INSERT INTO {name} (who) SELECT {who} FROM generate_series(1, {n});")
                if chance.random() < 0.3:
                    run(f"SAVEPOINT s; INSERT INTO {name} (who) SELECT {who} FROM generate_series(1, 5); {chance.choice(['RELEASE s', 'ROLLBACK TO s'])};")
                time.sleep(chance.choice([0, 0, 0.02, 0.1]))
                run("ROLLBACK;" if chance.random() < 0.1 else "COMMIT;")

    writers = [threading.Thread(target=write, args=(i,)) for i in range(4)]
    for one in writers:
        one.start()
    by_id, by_time = sql(pg.url(), table=name, cursor="id", rows=64), sql(pg.url(), table=name, cursor="at", key="id", rows=64)
    n_collects = 0
    while n_collects < 8:
        for source, folder in ((by_id, tmp_path / "id"), (by_time, tmp_path / "at")):
            if pg.run(f"SELECT 1 FROM {name} LIMIT 1"):
                try:
                    gathered(source, folder)
                    n_collects += 1
                except MisError as error:
                    assert "no rows" in str(error)  # noqa: PT017 - everything was still undecided
    stop.set()
    for one in writers:
        one.join()
    expected = Counter(int(i) for i in pg.run(f"SELECT id FROM {name}").split())
    for source, folder in ((by_id, tmp_path / "id"), (by_time, tmp_path / "at")):
        gathered(source, folder)
        assert Counter(ids(folder)) == expected


@pytest.mark.slow
def test_a_collector_killed_at_any_moment_goes_on_without_loss(pg: Server, tmp_path: Path) -> None:
    name = next(NAMES)
    pg.run(f"CREATE TABLE {name} (id bigserial PRIMARY KEY, x float8); INSERT INTO {name} (x) SELECT random() FROM generate_series(1, 60000)")
    program = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from modelinscale.data.sources import Source
from modelinscale.data.collect import collect
from modelinscale.data.contract import contract
source = Source.parse({{"type": "sql", "url": {pg.url()!r}, "table": {name!r}, "cursor": "id", "rows": 500}})
print("go", flush=True)
collect(source, lake={str(tmp_path / "t")!r}, quarantine={str(tmp_path / "q")!r}, contract=contract(source.columns(), {{}}, ()), commit_rows=500)
print("done", flush=True)
"""
    chance, n_kills = random.Random(3), 0
    for _ in range(5):
        process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "go\n"
        try:
            process.wait(0.3 + chance.random() * 2)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            n_kills += 1
        process.wait()
        process.stdout.close()
        pg.run(f"INSERT INTO {name} (x) SELECT random() FROM generate_series(1, 100)")
    gathered(sql(pg.url(), table=name, cursor="id"), tmp_path)
    assert Counter(ids(tmp_path)) == Counter(int(i) for i in pg.run(f"SELECT id FROM {name}").split())
    assert n_kills


@pytest.mark.slow
@pytest.mark.parametrize("which", ["pg", "maria"])
def test_a_database_that_dies_while_it_is_read_costs_nothing_but_time(which: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    server, name = request.getfixturevalue(which), next(NAMES)
    if which == "pg":
        server.run(
            f"CREATE TABLE {name} (id bigserial PRIMARY KEY, word text);"
            f"INSERT INTO {name} (word) SELECT repeat(md5(i::text), 60) FROM generate_series(1, 20000) i"
        )
        kill = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%{name}%' AND pid <> pg_backend_pid()"
    else:
        server.run(
            f"CREATE TABLE {name} (id bigint PRIMARY KEY AUTO_INCREMENT, word text);INSERT INTO {name} (word) SELECT repeat(md5(seq), 60) FROM seq_1_to_20000"
        )
        kill = f"SELECT id FROM information_schema.processlist WHERE info LIKE 'SELECT `id`%`{name}`%'"
    source = sql(server.url(), table=name, cursor="id", rows=100, lag=0)
    found: list[Chunk] = []
    with pytest.raises(SourceError, match=r"cannot read.*the next collect goes on"):  # noqa: PT012
        for chunk in source.read(None, source.columns()):
            found.append(chunk)
            if len(found) == 3:
                while not (killed := server.run(kill).split()):  # a server that cannot lock a busy connection at once does not show its query
                    time.sleep(0.01)
                if which == "maria":
                    server.run("".join(f"KILL {i};" for i in killed))
    found += source.read(found[-1].cursor, source.columns())
    assert [r["id"] for r in rows(found, source)] == list(range(1, 20001))


# -- what tables may do between two collects


@pytest.mark.slow
def test_a_changed_row_comes_again_where_the_cursor_says_so_or_not(pg: Server) -> None:
    name = next(NAMES)
    pg.run(f"CREATE TABLE {name} (id int PRIMARY KEY, v int); INSERT INTO {name} SELECT i, 0 FROM generate_series(1, 1000) i")
    source = sql(pg.url(), table=name, cursor="id")
    near = source.but(lag=10)
    _, cursor = read(source)
    pg.run(f"UPDATE {name} SET v = 1 WHERE id IN (500, 995)")
    assert [r["id"] for r in read(source, cursor)[0]] == [500, 995]
    assert [r["id"] for r in read(near, cursor)[0]] == [995], "no further back than `lag`"


@pytest.mark.slow
def test_a_table_written_anew_does_not_come_twice(pg: Server) -> None:
    name = next(NAMES)
    pg.run(f"CREATE TABLE {name} (id int PRIMARY KEY, v int); INSERT INTO {name} SELECT i, 0 FROM generate_series(1, 1000) i")
    source = sql(pg.url(), table=name, cursor="id")
    _, cursor = read(source)
    pg.run(f"VACUUM FULL {name}; INSERT INTO {name} VALUES (1001, 0)")
    found, cursor = read(source, cursor)
    assert [r["id"] for r in found] == [1001], "VACUUM FULL keeps the numbers of transactions"
    pg.run(f"ALTER TABLE {name} ALTER id TYPE bigint; INSERT INTO {name} VALUES (1002, 0)")
    with pytest.raises(SourceError, match=r"was written anew.*1,001 rows that are in the lake look new.*`lag`"):
        read(source, cursor)
    found, cursor = read(source.but(lag=100), cursor)
    assert [r["id"] for r in found] == [1002]
    assert read(source, cursor)[0] == []


@pytest.mark.slow
def test_a_type_that_changed_stops_the_collect_before_anything_is_read(pg: Server, tmp_path: Path) -> None:
    name = next(NAMES)
    pg.run(f"CREATE TABLE {name} (id int PRIMARY KEY, v int); INSERT INTO {name} SELECT i, i FROM generate_series(1, 10) i")
    source = sql(pg.url(), table=name, cursor="id")
    gathered(source, tmp_path)
    pg.run(f"ALTER TABLE {name} ALTER v TYPE text; INSERT INTO {name} VALUES (11, 'eleven')")
    table = open_table(str(tmp_path / "t"))
    with pytest.raises(SourceError, match=r"v was int4 and is text now. Nothing was read"):
        list(source.read(table.cursor, table.schema))
    pg.run(f"DELETE FROM {name} WHERE id = 11; ALTER TABLE {name} ALTER v TYPE int USING v::int; DROP TABLE {name}")
    with pytest.raises(SourceError, match=f'relation "{name}" does not exist'):
        source.columns()
    assert ids(tmp_path) == list(range(1, 11))


@pytest.mark.slow
def test_a_table_whose_rows_have_no_cursor_is_refused(pg: Server) -> None:
    name = next(NAMES)
    pg.run(f"CREATE TABLE {name} (id int, v int); INSERT INTO {name} VALUES (1, 1), (NULL, 2)")
    with pytest.raises(SourceError, match="there are rows without 'id'"):
        read(sql(pg.url(), table=name, cursor="id"))


@pytest.mark.slow
def test_a_query_needs_to_be_told_how_late_rows_come(pg: Server) -> None:
    name = next(NAMES)
    pg.run(
        f"CREATE TABLE {name} (id int PRIMARY KEY, at timestamptz);INSERT INTO {name} SELECT i, now() - i * interval '1 minute' FROM generate_series(1, 100) i"
    )
    query = f"SELECT id, at, id * 2 AS twice FROM {name}"
    with pytest.raises(SourceError, match=r"a row may become visible after others with a greater 'id'.*`lag: 0`"):
        read(sql(pg.url(), query=query, cursor="id"))
    assert len(read(sql(pg.url(), query=query, cursor="id", lag=10))[0]) == 90
    assert len(read(sql(pg.url(), query=query, cursor="at", key="id", lag="30m"))[0]) == 71
    with pytest.raises(SourceError, match="is a duration, and 'id' holds numbers"):
        read(sql(pg.url(), query=query, cursor="id", lag="1h"))


@pytest.mark.slow
def test_rows_with_one_cursor_value_stay_together_without_a_key(pg: Server) -> None:
    name = next(NAMES)
    pg.run(
        f"CREATE TABLE {name} (at timestamp NOT NULL, v int);"
        f"INSERT INTO {name} SELECT timestamp '2026-01-01' + i / 10 * interval '1 s', i FROM generate_series(0, 99) i"
    )
    source = sql(pg.url(), table=name, cursor="at", rows=7)
    suite.from_every_cursor_the_rest_comes_once(source)
    assert sorted(r["v"] for r in read(source)[0]) == list(range(100))


@pytest.mark.slow
def test_numbers_of_transactions_that_came_round_need_a_lag() -> None:
    """The server is told that it has lived through 4 billion transactions; rows from before carry numbers that will be given again."""
    os.environ["MIS_TEST_PASSWORD"] = PASSWORD
    try:
        with postgres() as server:
            server.run("CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t SELECT i, 0 FROM generate_series(1, 100) i")
            source = sql(server.url(), table="t", cursor="id", rows=9)
            found, _ = read(source)
            assert len(found) == 100
            server.live_through(epochs=1)
            found, cursor = read(source)
            assert len(found) == 100
            server.run("INSERT INTO t VALUES (101, 0), (102, 0)")
            with pytest.raises(SourceError, match=r"has given transaction numbers twice.*`lag: 1d`"):
                read(source, cursor)
            found, cursor = read(source.but(lag=50), cursor)
            assert [r["id"] for r in found] == [101, 102]
            assert read(source.but(lag=50), cursor)[0] == []
    except NoServer as reason:
        pytest.skip(str(reason))


# -- types


@pytest.mark.slow
def test_postgres_types_arrive_as_ours(pg: Server) -> None:
    name = next(NAMES)
    pg.run(f"""CREATE TYPE {name}_mood AS ENUM ('sad', 'ok');
        CREATE TABLE {name} (id smallint PRIMARY KEY, mood {name}_mood, j jsonb, n numeric, money money, flag bool, u uuid, d date, at timestamptz,
            local timestamp, span interval, clock time, ip inet, v float8[], c char(3), big numeric(40, 2), f real);
        INSERT INTO {name} VALUES (1, 'ok', '{{"a": 1}}', 1.25, '$3.50', true, '00000000-0000-0000-0000-000000000001', '2026-01-02',
            '2026-01-02 03:04:05+02', '2026-01-02 03:04:05', '1 day 1 second', '01:02:03', '10.0.0.1', '{{1, 2.5}}', 'ab', 1e30, 0.5),
            (2, 'sad', '[]', 'NaN', NULL, false, NULL, 'infinity', '-infinity', 'infinity', NULL, NULL, NULL, '{{3, 4}}', NULL, NULL, NULL)""")
    one, two = read(sql(pg.url(), table=name, cursor="id"))[0]
    from datetime import datetime

    assert one == {
        "id": 1, "mood": "ok", "j": '{"a": 1}', "n": 1.25, "money": 3.5, "flag": True, "u": "00000000-0000-0000-0000-000000000001",
        "d": datetime(2026, 1, 2), "at": datetime(2026, 1, 2, 1, 4, 5), "local": datetime(2026, 1, 2, 3, 4, 5), "span": 86401.0, "clock": "01:02:03",
        "ip": "10.0.0.1/32", "v": [1.0, 2.5], "c": "ab ", "big": 1e30, "f": 0.5,
    }  # fmt: skip
    assert two == {**dict.fromkeys(one), "id": 2, "mood": "sad", "j": "[]", "flag": False, "v": [3.0, 4.0]}
    pg.run(f"ALTER TABLE {name} ADD raw bytea")
    assert sql(pg.url(), table=name, cursor="id").columns()["raw"].type == "binary"
    assert "raw" not in sql(pg.url(), table=name, cursor="id", without="raw").columns()


@pytest.mark.slow
def test_mariadb_types_arrive_as_ours(maria: Server) -> None:
    name = next(NAMES)
    maria.run(f"""SET sql_mode = ''; SET time_zone = '+02:00';
        CREATE TABLE {name} (id int PRIMARY KEY, ub bigint unsigned, j json, e enum('a', 'b'), t time, dt datetime(3), z date, at timestamp NULL,
            bits bit(3), y year, big decimal(40, 5), f float, flag boolean, word varchar(9) CHARACTER SET latin1);
        INSERT INTO {name} VALUES (1, 7, '{{"a": 1}}', 'a', '-12:00:01', '2026-01-02 03:04:05.678', '0000-00-00', '2026-01-02 03:04:05',
            5, 2024, 1.5, 0.5, true, 'é'),
            (2, {", ".join(["NULL"] * 13)})""")
    one, two = read(sql(maria.url(), table=name, cursor="id", lag=0))[0]
    from datetime import datetime

    assert one == {
        "id": 1, "ub": 7, "j": '{"a": 1}', "e": "a", "t": "-12:00:01", "dt": datetime(2026, 1, 2, 3, 4, 5, 678000), "z": None,
        "at": datetime(2026, 1, 2, 1, 4, 5), "bits": 5, "y": 2024, "big": 1.5, "f": 0.5, "flag": 1, "word": "é",
    }  # fmt: skip
    assert two == {**dict.fromkeys(one), "id": 2}


def test_a_cell_of_another_type_than_declared_makes_a_broken_row(lite: tuple[str, sqlite3.Connection]) -> None:
    url, db = lite
    db.execute("CREATE TABLE t (id integer PRIMARY KEY, price real, n int)")
    db.executemany("INSERT INTO t VALUES (?, ?, ?)", [(i, None if i < 30 else i / 2, i) for i in range(60)])
    db.execute("UPDATE t SET n = 'many' WHERE id = 41")
    source = sql(url, table="t", cursor="id", rows=7)
    suite.a_broken_row_names_itself(source, "many", 60)
    why = [r for c in source.read(None, source.columns()) if BROKEN in c.batch.schema.names for r in c.batch.column(BROKEN).drop_null().to_pylist()]
    assert why == ["n holds text: many"]


# -- secrets and slips


@pytest.mark.slow
@pytest.mark.parametrize("which", ["pg", "maria"])
def test_a_wrong_password_or_host_is_told_and_nothing_of_the_secret(which: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    server = request.getfixturevalue(which)
    monkeypatch.setenv("MIS_WRONG", "wr0ng/p@ss word")
    wrong = sql(server.url("${ENV:MIS_WRONG}"), table="t", cursor="id", timeout="3s")
    for source in (wrong, wrong.but(url=wrong.url.replace("127.0.0.1", "no.such.host")), wrong.but(url=wrong.url.replace(str(server.port), "1"))):  # type: ignore[attr-defined]
        with pytest.raises(SourceError, match="cannot connect") as caught:
            source.columns()
        told = "".join(map(str, (caught.value, caught.value.fix, repr(caught.value.__cause__), source, source.feed())))
        assert "wr0ng" not in told
        assert "p%40ss" not in told


def test_addresses_are_checked_when_the_file_is_read() -> None:
    with pytest.raises(ValueError, match="must not hold a password"):
        sql("postgresql://mis:geheim@db/shop", table="t")
    with pytest.raises(ValueError, match=r"no database known here. Did you mean 'postgresql'"):
        sql("postgresl://db/shop", table="t")
    with pytest.raises(ValueError, match="either a `table` or a `query`"):
        sql("postgresql://db/shop")
    with pytest.raises(ValueError, match="needs a `cursor`"):
        sql("postgresql://db/shop", table="t", lag="10m")
    from modelinscale.spec._source import settings_of

    with pytest.raises(SpecError, match="an address alone does not say what to read"):
        settings_of("postgresql://db/shop")


def test_a_database_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="there is no database"):
        sql(f"sqlite:///{tmp_path}/none.db", table="t").columns()
    (tmp_path / "no.db").write_bytes(b"no database" * 100)
    with pytest.raises(SourceError, match="is not a database"):
        sql(f"sqlite:///{tmp_path}/no.db", table="t").columns()


class session:  # noqa: N801 - used as a verb
    """One connection of psql that runs what it is given and waits until it is done."""

    def __init__(self, server: Server) -> None:
        command = ["psql", "-X", "-q", "-A", "-t", "-h", "127.0.0.1", "-p", str(server.port), "-U", "mis", "shop"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PGPASSWORD": PASSWORD})

    def __enter__(self) -> "session":
        return self

    def __call__(self, statements: str) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(statements + "\n\\echo done\n")
        self._process.stdin.flush()
        while self._process.stdout.readline() not in ("done\n", ""):
            pass

    def __exit__(self, *_: object) -> None:
        self._process.communicate("")
