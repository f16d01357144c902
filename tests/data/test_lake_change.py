"""The lake beyond appending: staged rows, rows replaced by key, columns added and widened, what is kept and what is erased; read by other engines."""

import json
import pickle
import shutil
import subprocess
import sys
import zlib
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import lance
import polars as pl
import pyarrow as pa
import pytest

from modelinscale.core.errors import LakeError, StoreError, UsageError
from modelinscale.core.schema import Column, Schema
from modelinscale.data._lake_base import Where
from modelinscale.data._lake_turns import at_work
from modelinscale.data.arrow import arrow_schema
from modelinscale.data.lake import SEQ, Staged, Table, create_table, open_table

SCHEMA = Schema(columns=(Column(name="id", type="int"), Column(name="mail", type="string"), Column(name="n", type="int")))
GOLDEN = Path(__file__).parent.parent / "golden"


def rows(*ids: int, n: int = 0, schema: Schema = SCHEMA) -> pa.Table:
    made = [{"id": i, "mail": f"mail-{i}@example.org", "n": n} for i in ids]
    return pa.Table.from_pylist(made, schema=arrow_schema(schema))


def column(table: Table, name: str = "id", **how: Any) -> list[Any]:
    return [cell for block in table.blocks([name], **how) for cell in block.column(name).to_pylist()]


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return str(tmp_path / "t")


# Staged rows.


def test_staged_rows_are_seen_only_after_their_commit(uri: str) -> None:
    table = create_table(uri, SCHEMA, rows(1), batch="a", cursor={"n": 1})
    staged = [table.stage(rows(2, 3)), table.stage(rows()), table.stage(rows(4))]
    assert column(open_table(uri)) == [1]
    sent: list[Staged] = pickle.loads(pickle.dumps(staged))  # noqa: S301 (as a task would send them)
    table = table.append_staged(sent, batch="b", cursor={"n": 4})
    assert (column(table), table.cursor, table.last.n_added) == ([1, 2, 3, 4], {"n": 4}, 3)
    assert column(table, since=1) == [2, 3, 4]
    again = open_table(uri, 1).append_staged(sent, batch="b", cursor={"n": 4})
    assert column(again) == [1, 2, 3, 4]


def test_rows_staged_with_other_columns_are_refused(uri: str) -> None:
    table = create_table(uri, SCHEMA, rows(1), batch="a")
    staged = table.stage(rows(2))
    table.evolve(Schema(columns=(Column(name="n", type="float"),)))
    with pytest.raises(LakeError, match=r"staged with other columns .* Stage them again"):
        table.append_staged([staged], batch="b")


def test_many_rows_are_written_once_and_numbered_like_few(uri: str) -> None:
    table = create_table(uri, SCHEMA, rows(1), batch="a").append(rows(*range(100_000)), batch="b").append(rows(7), batch="c")
    seqs = lance.dataset(uri).to_table(columns=[SEQ]).column(SEQ).to_pylist()
    assert (seqs[0], set(seqs[1:-1]), seqs[-1]) == (1, {2}, 3)
    assert column(table, since=2) == [7]


def test_a_batch_is_known_though_others_came_after_it(uri: str) -> None:
    table = create_table(uri, SCHEMA, batch="0")
    for i in range(20):
        table = table.append(rows(i), batch=f"b{i}")
    assert column(open_table(uri).append(rows(3), batch="b3")) == list(range(20))


def test_the_place_in_the_source_survives_a_writer_without_one(uri: str) -> None:
    reader = create_table(uri, SCHEMA, rows(1), batch="a", cursor={"n": 1})
    open_table(uri).append(rows(2), batch="b")
    with pytest.raises(LakeError, match="changed by another writer"):
        reader.append(rows(3), batch="c", cursor={"n": 3})


# Rows replaced by key.


def test_a_later_row_takes_the_place_of_the_one_with_its_key(uri: str) -> None:
    table = create_table(uri, SCHEMA, rows(1, 2, 3), batch="a", cursor={"n": 3})
    table = table.upsert(pa.concat_tables([rows(2, n=5), rows(9), rows(2, n=6)]), ["id"], batch="b", cursor={"n": 6})
    assert (column(table), column(table, "n"), table.cursor) == ([1, 3, 9, 2], [0, 0, 0, 6], {"n": 6})
    assert (table.last.what, table.last.n_added, table.last.n_removed) == ("upsert", 2, 1)
    assert column(table.at(1)) == [1, 2, 3]
    assert column(table, since=1) == [9, 2]
    again = open_table(uri, 1).upsert(rows(2, n=7), ["id"], batch="b", cursor={"n": 6})
    assert column(again, "n") == [0, 0, 0, 6]


def test_changes_tell_inserted_updated_and_deleted_keys(uri: str) -> None:
    table = create_table(uri, SCHEMA, rows(1, 2, 3, 4), batch="a").upsert(rows(2, 8), ["id"], batch="b")
    open_table(uri).erase("id", [8])
    table = open_table(uri).upsert(rows(9), ["id"], batch="c")
    with pytest.raises(LakeError, match="has no version 2"):
        table.changes_since(2, ["id"])
    found = table.changes_since(1, ["id"])
    assert [sorted(t.column("id").to_pylist()) for t in (found.inserted, found.updated, found.deleted)] == [[9], [2], []]
    with pytest.raises(UsageError, match="no column 'idd'"):
        table.changes_since(1, ["idd"])


def test_a_key_of_several_columns(uri: str) -> None:
    table = create_table(uri, SCHEMA, rows(1, 2), batch="a")
    table = table.upsert(pa.concat_tables([rows(1, n=1), rows(2)]), ["id", "n"], batch="b")
    assert sorted(zip(column(table), column(table, "n"), strict=True)) == [(1, 0), (1, 1), (2, 0)]


def test_a_key_that_cannot_tell_rows_apart_is_refused(uri: str) -> None:
    table = create_table(uri, SCHEMA, rows(1), batch="a")
    missing = pa.Table.from_pylist([{"id": None, "mail": "x", "n": 1}], schema=arrow_schema(SCHEMA))
    with pytest.raises(UsageError, match="the key 'id' is missing in 1 rows"):
        table.upsert(missing, ["id"], batch="b")
    with pytest.raises(UsageError, match="no column 'idd'"):
        table.upsert(rows(1), ["idd"], batch="b")
    with pytest.raises(UsageError, match="can only be replaced by key"):
        table.upsert(rows(1), [], batch="b")
    wide = table.evolve(Schema(columns=(Column(name="n", type="float"),)))
    with pytest.raises(UsageError, match="the key 'n' is double"):
        wide.upsert(rows(1, schema=wide.schema), ["n"], batch="b")


# Columns.


def test_a_new_column_is_missing_in_old_rows_and_no_data_file_is_written(uri: str) -> None:
    table = create_table(uri, SCHEMA, rows(1, 2), batch="a", cursor={"n": 2})
    before = sorted((Path(uri) / "data").iterdir())
    table = table.evolve(Schema(columns=(*SCHEMA.columns, Column(name="ok", type="bool"))))
    assert sorted((Path(uri) / "data").iterdir()) == before
    assert (column(table, "ok"), table.cursor, table.last.what, table.rows_version) == ([None, None], {"n": 2}, "evolve", 2)
    more = pa.Table.from_pylist([{"id": 3, "mail": "x", "n": 1, "ok": True}], schema=arrow_schema(table.schema))
    table = table.append(more, batch="b", cursor={"n": 3})
    assert (column(table, "ok"), table.at(1).schema, table.schema.names) == ([None, None, True], SCHEMA, ("id", "mail", "n", "ok"))
    assert table.evolve(SCHEMA).version == table.version  # a column that is not asked for stays


def test_whole_numbers_become_numbers_with_a_point_by_one_file_beside_each(uri: str) -> None:
    table = create_table(uri, SCHEMA, rows(1, n=4), batch="a").append(rows(2, 3, n=5), batch="b").upsert(rows(2, n=6), ["id"], batch="c")
    before = {p: p.stat().st_mtime_ns for p in (Path(uri) / "data").iterdir()}
    wider = table.evolve(Schema(columns=(Column(name="n", type="float"),)))
    after = {p: p.stat().st_mtime_ns for p in (Path(uri) / "data").iterdir()}
    assert {p: after[p] for p in before} == before
    assert len(after) - len(before) == 3
    assert (column(wider), column(wider, "n"), wider.schema["n"].type) == ([1, 3, 2], [4.0, 5.0, 6.0], "float")
    assert (column(table, "n"), column(wider.at(3), "n")) == ([4, 5, 6], [4, 5, 6])
    assert column(wider.compact(n_files=1).append(rows(7, schema=wider.schema), batch="d"), "n") == [4.0, 5.0, 6.0, 0.0]


def test_other_changes_of_a_type_are_refused(uri: str) -> None:
    table = create_table(uri, SCHEMA, rows(1), batch="a")
    with pytest.raises(LakeError, match="mail is string in the table and cannot become float"):
        table.evolve(Schema(columns=(Column(name="mail", type="float"),)))
    table = table.append(rows(2, n=2**60 + 1), batch="b")
    with pytest.raises(LakeError, match="too large to be held exactly"):
        table.evolve(Schema(columns=(Column(name="n", type="float"),)))
    assert open_table(uri).version == 2


def test_a_writer_with_the_old_columns_is_told(uri: str) -> None:
    old = create_table(uri, SCHEMA, rows(1), batch="a")
    old.evolve(Schema(columns=(Column(name="ok", type="bool"),)))
    with pytest.raises(LakeError, match="rows of other columns than the table's"):
        old.append(rows(2), batch="b")


# What is kept.


def test_vacuum_keeps_what_is_named_new_or_in_use_and_says_why(uri: str) -> None:
    table = create_table(uri, SCHEMA, rows(0), batch="0")
    for i in range(1, 8):
        table = table.append(rows(i), batch=str(i))
    table.tag("model-m-1", 2)
    planned = table.vacuum(older_than=timedelta(0), keep_versions=2, dry_run=True)
    reasons = {2: "named model-m-1", 7: "one of the newest 2", 8: "holds the rows that the newest version has", 9: "the newest: it records this vacuum"}
    assert (planned.removed, planned.kept) == ((1, 3, 4, 5, 6), reasons)
    assert len(open_table(uri).versions()) == 8
    done = table.vacuum(older_than=timedelta(0), keep_versions=2)
    assert (done.removed, done.kept) == (planned.removed, planned.kept)
    assert planned.bytes_freed > 0
    assert done.bytes_freed > 0
    assert (column(open_table(uri, 2)), column(open_table(uri))) == ([0, 1], list(range(8)))
    assert open_table(uri).vacuum(older_than=timedelta(days=1)).removed == ()
    assert open_table(uri).rows_version == 8


def test_a_vacuum_does_what_its_dry_run_said_after_commits_that_brought_no_rows(uri: str) -> None:
    table = create_table(uri, SCHEMA, rows(0), batch="0")
    for i in range(1, 4):
        table = table.append(rows(i), batch=str(i))
    table.evolve(Schema(columns=(*SCHEMA.columns, Column(name="later", type="bool"))))
    for _ in range(2):  # the second time nothing is left to remove, but the commits that removed
        planned = open_table(uri).vacuum(older_than=timedelta(0), dry_run=True)
        done = open_table(uri).vacuum(older_than=timedelta(0))
        assert (done.removed, done.kept) == (planned.removed, planned.kept)
        assert [v.number for v in open_table(uri).versions()] == list(done.kept)
    assert (done.removed, column(open_table(uri))) == ((), [0, 1, 2, 3])


def test_history_says_who_did_what(uri: str) -> None:
    table = create_table(uri, SCHEMA, rows(1, 2), batch="a", run="r1").upsert(rows(2), ["id"], batch="b", run="r2")
    table.tag("model-m-1")
    past = table.evolve(Schema(columns=(Column(name="ok", type="bool"),))).history()
    assert [p.commit and (p.commit.what, p.commit.run, p.commit.n_added, p.commit.n_removed) for p in past] == [
        ("append", "r1", 2, 0),
        ("upsert", "r2", 1, 1),
        ("evolve", "r2", 0, 0),
    ]
    assert [p.tags for p in past] == [(), ("model-m-1",), ()]
    assert all(p.commit and "@" in p.commit.by and p.version.size_bytes > 0 for p in past)


@pytest.mark.slow
def test_many_small_appends_join_their_files_by_themselves(uri: str) -> None:
    table = create_table(uri, SCHEMA, batch="0")
    for i in range(200):
        table = table.append(rows(i), batch=f"b{i}")
    assert column(table) == list(range(200))
    assert len(lance.dataset(uri).get_fragments()) < 80
    assert column(table, since=150) == list(range(open_table(uri, 150).last.seq - 1, 200))


# Erasure.


def bytes_of(folder: Path) -> bytes:
    """Everything a table wrote, and what can be unpacked of it by the library itself."""
    raw = b"".join(p.read_bytes() for p in folder.rglob("*") if p.is_file())
    decoded = b""
    for number in [v["version"] for v in lance.dataset(str(folder)).versions()]:
        for fragment in lance.dataset(str(folder), version=number).get_fragments():
            found = fragment.scanner(with_row_id=True, include_deleted_rows=True).to_table()
            decoded += json.dumps(found.to_pylist(), default=str).encode()
    return raw + decoded + zlib.compress(b"")


def test_an_erased_person_is_in_no_file_and_names_move(uri: str) -> None:
    table = create_table(uri, SCHEMA, rows(1, 2), batch="a", cursor={"n": 2})
    table = table.append(rows(3, 4, 5), batch="b", cursor={"n": 5})
    table.tag("model-m-1", 1)
    table.tag("model-m-2", 2)
    table = table.upsert(rows(3, n=8), ["id"], batch="c", cursor={"n": 6}).append(rows(6), batch="d", cursor={"n": 7})
    (Path(uri) / "_mis_keys" / "id").mkdir(parents=True)
    assert table.rows_of("mail", ["mail-3@example.org"]) == {2: 1, 3: 1, 4: 1}
    assert b"mail-3@" in bytes_of(Path(uri))
    done = open_table(uri).erase("mail", ["mail-3@example.org", "nobody"], run="r9")
    table = open_table(uri)
    assert (done.n_rows, done.versions_removed[:3], done.tags_moved) == (1, (2, 3, 4), {"model-m-2": (2, table.version)})
    assert b"mail-3@" not in bytes_of(Path(uri))
    assert b"mail-4@" in bytes_of(Path(uri))
    assert (column(table), table.cursor, table.tags) == ([1, 2, 4, 5, 6], {"n": 7}, {"model-m-1": 1, "model-m-2": table.version})
    assert column(open_table(uri, 1)) == [1, 2]
    assert column(table.at(table.rows_version)) == [1, 2, 4, 5, 6]
    assert table.rows_of("mail", ["mail-3@example.org"]) == {}
    assert not (Path(uri) / "_mis_keys").exists()
    assert column(table.append(rows(7), batch="e", cursor={"n": 8})) == [1, 2, 4, 5, 6, 7]


def test_a_row_that_was_replaced_before_is_erased_too(uri: str) -> None:
    table = create_table(uri, SCHEMA, rows(1, 2), batch="a")
    other = pa.Table.from_pylist([{"id": 2, "mail": "new@example.org", "n": 0}], schema=arrow_schema(SCHEMA))
    table = table.upsert(other, ["id"], batch="b")
    done = table.erase("mail", ["mail-2@example.org"])
    assert (done.n_rows, done.versions_removed[:2]) == (0, (1, 2))
    assert b"mail-2@" not in bytes_of(Path(uri))
    assert column(open_table(uri), "mail") == ["mail-1@example.org", "new@example.org"]


def test_erasing_everybody_leaves_an_empty_table_that_goes_on(uri: str) -> None:
    table = create_table(uri, SCHEMA, rows(1, 2), batch="a", cursor={"n": 2})
    assert table.erase("id", [1, 2]).n_rows == 2
    table = open_table(uri)
    assert (column(table), table.cursor) == ([], {"n": 2})
    assert column(table.append(rows(3), batch="b", cursor={"n": 3})) == [3]


def test_erasing_waits_for_writers_and_refuses_values_of_another_type(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    table = create_table(uri, SCHEMA, rows(1), batch="a")
    with pytest.raises(UsageError, match="a value is no int64, which the column 'id' holds"):
        table.erase("id", ["one"])
    with at_work(Where(uri)):
        assert table.sweep() == 0
        monkeypatch.setattr("modelinscale.data.lake.at_work", lambda where, **how: at_work(where, alone=how.get("alone", False), wait_s=0.1))
        with pytest.raises(StoreError, match="is being written to"):
            table.erase("id", [1])
    assert column(open_table(uri)) == [1]


# Other engines, other versions, power cuts.


def test_two_other_engines_read_the_same_rows(uri: str) -> None:
    table = create_table(uri, SCHEMA, rows(*range(20)), batch="a").upsert(rows(3, 4, n=9), ["id"], batch="b")
    table = table.evolve(Schema(columns=(Column(name="n", type="float"), Column(name="ok", type="bool"))))
    table.erase("id", [7])
    table = open_table(uri)
    ours = list(zip(column(table), column(table, "n"), column(table, "ok"), strict=True))
    dataset = lance.dataset(uri)  # a pyarrow dataset to them
    assert pl.scan_pyarrow_dataset(dataset).select("id", "n", "ok").collect().rows() == ours
    with duckdb.connect() as connection:
        connection.register("t", dataset)
        assert connection.sql("select id, n, ok from t").fetchall() == ours
        assert connection.sql("select count(*), sum(n) from t where id between 3 and 8").fetchall() == [(5, 18.0)]


def test_a_table_of_format_1_is_written_to_after_an_upgrade(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "lake-1", tmp_path / "t")
    table = open_table(str(tmp_path / "t"))
    more = pa.Table.from_batches(list(table.blocks())).slice(0, 1)
    table = table.append(more, batch="new", cursor={"row": 31})
    assert [p.commit and p.commit.what for p in table.history()] == ["append", "append", "upgrade", "append"]
    assert (table.n_rows, table.cursor, table.last.seq) == (31, {"row": 31}, 3)
    assert (table.at(3).rows_version, [v.n_rows for v in table.versions()]) == (2, [10, 30, 30, 31])


def test_a_table_of_format_2_is_still_read() -> None:
    table = open_table(str(GOLDEN / "lake-2"))
    assert column(table) == [0, 1, 2, 5, 6, 7, 8, 9, 3, 4, 20, 21, 30]
    assert (column(table, "n")[-5:], column(table, "ok")[-2:]) == ([5.0, 5.0, 0.0, 0.0, 1.5], [None, True])
    assert [(p.what, p.version.n_rows, p.tags) for p in table.history()] == [
        ("append", 10, ()),
        ("upsert", 10, ("model-m-1",)),
        ("append", 12, ()),
        ("evolve", 12, ()),
        ("compact", 12, ()),
        ("append", 13, ()),
    ]
    assert ({p.by for p in table.history()}, table.cursor) == ({"ada@desk process 1, modelinscale 0.1.0"}, {"n": 15})
    assert (column(table.at(1)), column(table, since=3)) == (list(range(10)), [30])


@pytest.mark.slow
def test_writers_at_once_and_kills_in_commits(tmp_path: Path) -> None:
    """A short form of what benchmarks/lake.py does at full length."""
    script = GOLDEN.parent.parent / "benchmarks" / "lake.py"
    words = ["--writers", "3", "--appends", "12", "--kills", "2", "--out", str(tmp_path / "lake.md")]
    done = subprocess.run([sys.executable, str(script), *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "36 commits, 1,800 rows, every row once" in (tmp_path / "lake.md").read_text(encoding="utf-8")


def test_a_durable_commit_is_on_the_disk_before_it_returns(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    monkeypatch.setattr("os.fsync", lambda handle: synced.append(Path(f"/proc/self/fd/{handle}").resolve().name))
    table = create_table(uri, SCHEMA, rows(1), batch="a", durable=True)
    table.append(rows(2), batch="b", durable=True)
    files = {p.name for p in (Path(uri) / "data").iterdir()} | {p.name for p in (Path(uri) / "_versions").glob("*.manifest")}
    assert files <= set(synced)


def test_versions_are_listed_though_another_process_removes_one_meanwhile(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    table = create_table(uri, SCHEMA, rows(1), batch="a").append(rows(2), batch="b")
    whole, fails = lance.LanceDataset.versions, iter([True, True, False])

    def versions(self: lance.LanceDataset) -> Any:
        if next(fails):
            raise ValueError(f"Not found: {uri}/_versions/18446744073709551613.manifest, manifest.rs:52:15")
        return whole(self)

    monkeypatch.setattr(lance.LanceDataset, "versions", versions)
    assert [v.number for v in table.versions()] == [1, 2]
    monkeypatch.setattr(lance.LanceDataset, "versions", lambda self: (_ for _ in ()).throw(ValueError("Not found: x/_versions/1.manifest")))
    with pytest.raises(LakeError):
        table.versions()
