"""The lake: appends, versions, order, cursor; what it refuses."""

import json
import random
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import lance
import pyarrow as pa
import pytest

from modelinscale.core.errors import LakeError, StoreError, UsageError
from modelinscale.core.identity import identity
from modelinscale.core.schema import Column, Schema
from modelinscale.data.arrow import arrow_schema
from modelinscale.data.lake import SEQ, Table, create_table, open_table, table_exists
from modelinscale.testing import disks

SCHEMA = Schema(
    columns=(
        Column(name="n", type="int"),
        Column(name="x", type="float", decimal=",", nulls=("NA",)),
        Column(name="ok", type="bool"),
        Column(name="word", type="string"),
        Column(name="at", type="time", format="%d/%m/%Y"),
        Column(name="v", type="vector", width=2),
    )
)


def rows(*numbers: int) -> pa.Table:
    """One row for each number."""
    cells: dict[str, list[Any]] = {
        "n": list(numbers),
        "x": [None if n % 7 == 0 else n / 2 for n in numbers],
        "ok": [n % 2 == 0 for n in numbers],
        "word": ["" if n % 5 == 0 else f"wörd {n} 🙂" for n in numbers],
        "at": [datetime(1, 1, 1) + timedelta(days=n) for n in numbers],
        "v": [None if n % 3 == 0 else [n, -n] for n in numbers],
    }
    return pa.table(cells, schema=arrow_schema(SCHEMA))


def numbers(table: Table, **how: Any) -> list[int]:
    return [n for block in table.blocks(["n"], **how) for n in block.column("n").to_pylist()]


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return str(tmp_path / "lake" / "t")


def test_a_table_gives_back_its_rows_types_and_habits(uri: str) -> None:
    create_table(uri, SCHEMA, rows(*range(50)), batch="1")
    table = open_table(uri)
    assert table.schema == SCHEMA
    assert pa.Table.from_batches(list(table.blocks())).equals(rows(*range(50)))
    assert table.n_rows == 50
    assert SEQ not in next(table.blocks()).schema.names


def test_an_empty_table_has_a_version_and_no_rows(uri: str) -> None:
    table = create_table(uri, SCHEMA)
    assert (table.version, table.n_rows, table.cursor, list(table.blocks())) == (1, 0, None, [])
    assert numbers(table.append(rows(1), batch="1")) == [1]


def test_versions_say_when_and_how_many_and_stay_readable(uri: str) -> None:
    table = create_table(uri, SCHEMA, rows(1, 2), batch="1")
    table = table.append(rows(3), batch="2")
    before = datetime.now(UTC)
    table.append(rows(4, 5, 6), batch="3")
    versions = open_table(uri).versions()
    assert [(v.number, v.n_rows, v.n_added) for v in versions] == [(1, 2, 2), (2, 3, 1), (3, 6, 3)]
    assert before - timedelta(minutes=1) < versions[-1].time < before + timedelta(minutes=1)
    assert numbers(open_table(uri, 2)) == [1, 2, 3]
    assert numbers(table.at(1)) == [1, 2]
    assert [v.number for v in open_table(uri, 2).versions()] == [1, 2]


def test_rows_since_a_version(uri: str) -> None:
    table = create_table(uri, SCHEMA, rows(1, 2), batch="1").append(rows(3), batch="2").append(rows(4), batch="3")
    assert [numbers(table, since=v) for v in (1, 2, 3)] == [[3, 4], [4], []]
    assert numbers(table.at(2), since=1) == [3]


def test_blocks_are_bounded_in_order_and_take_columns_in_the_order_asked(uri: str) -> None:
    table = create_table(uri, SCHEMA, rows(*range(100)), batch="1").append(rows(*range(100, 150)), batch="2")
    blocks = list(table.blocks(["word", "n"], n_rows=32))
    assert max(b.num_rows for b in blocks) <= 32
    assert blocks[0].schema.names == ["word", "n"]
    assert [n for b in blocks for n in b.column("n").to_pylist()] == list(range(150))


def test_an_unknown_column_names_the_nearest(uri: str) -> None:
    table = create_table(uri, SCHEMA, rows(1), batch="1")
    with pytest.raises(UsageError, match=r"no column 'wrd'. Did you mean 'word'\?"):
        list(table.blocks(["wrd"]))


def test_cursor_batch_run_and_facts_are_in_the_commit(uri: str) -> None:
    create_table(uri, SCHEMA, rows(1), batch="a", cursor={"row": 1}, run="r1", facts={"n_read": 1})
    table = open_table(uri).append(rows(2), batch="b", cursor={"row": 2}, run="r2", facts={"n_read": 2})
    assert open_table(uri).cursor == {"row": 2}
    assert (table.last.batch, table.last.run, dict(table.last.facts)) == ("b", "r2", {"n_read": 2})
    assert table.at(1).cursor == {"row": 1}


def test_a_batch_that_is_in_already_is_not_added_again(uri: str) -> None:
    old = create_table(uri, SCHEMA, rows(1), batch="a", cursor={"row": 1})
    old.append(rows(2), batch="b", cursor={"row": 2})
    again = old.append(rows(2), batch="b", cursor={"row": 2})  # a writer that did not hear of its own success
    assert (numbers(again), again.version) == ([1, 2], 2)


def test_a_cursor_on_top_of_rows_never_seen_is_refused(uri: str) -> None:
    old = create_table(uri, SCHEMA, rows(1), batch="a", cursor={"row": 1})
    old.append(rows(2), batch="b", cursor={"row": 2})
    with pytest.raises(LakeError, match="changed by another writer"):
        old.append(rows(7), batch="c", cursor={"row": 3})
    assert numbers(open_table(uri)) == [1, 2]


def test_rows_without_a_cursor_keep_the_last_one(uri: str) -> None:
    old = create_table(uri, SCHEMA, rows(1), batch="a", cursor={"row": 1}, facts={"n": 1})
    old.append(rows(2), batch="b")
    table = old.append(rows(3), batch="c")
    assert (numbers(table), table.cursor, dict(table.last.facts)) == ([1, 2, 3], {"row": 1}, {"n": 1})


def test_a_commit_without_rows_moves_the_cursor_but_not_the_rows_version(uri: str) -> None:
    table = create_table(uri, SCHEMA, rows(1), batch="a", cursor={"row": 1})
    table = table.append(rows(), batch="b", cursor={"row": 9})
    assert (table.version, table.rows_version, table.cursor) == (2, 1, {"row": 9})
    table = table.append(rows(2), batch="c", cursor={"row": 10})
    assert (table.version, table.rows_version) == (3, 3)


def test_rows_of_other_columns_are_refused_whole(uri: str) -> None:
    table = create_table(uri, SCHEMA, rows(1), batch="1")
    for wrong in (rows(2).drop_columns(["x"]), rows(2).append_column("extra", pa.array([1])), rows(2).select(["x", "n", "ok", "word", "at", "v"])):
        with pytest.raises(LakeError, match="rows of other columns"):
            table.append(wrong, batch="2")
    assert open_table(uri).version == 1


def test_the_tables_own_names_are_refused_in_columns(uri: str) -> None:
    with pytest.raises(LakeError, match="a column cannot be called '_mis_seq'"):
        create_table(uri, Schema(columns=(Column(name="_mis_seq", type="int"),)))
    assert not table_exists(uri)


def test_a_second_table_in_the_same_place_is_refused(uri: str) -> None:
    create_table(uri, SCHEMA, rows(1), batch="1")
    with pytest.raises(LakeError, match=r"there is a table at .* already"):
        create_table(uri, SCHEMA, rows(2), batch="1")
    assert numbers(open_table(uri)) == [1]


def test_tags_name_versions_and_keep_them_through_clean_up(uri: str) -> None:
    table = create_table(uri, SCHEMA, rows(1), batch="1", cursor={"row": 1})
    for n in (2, 3, 4):
        table = table.append(rows(n), batch=str(n), cursor={"row": n})
    table.tag("model-1", 1)
    table.tag("model-2")
    table.tag("model-2", 2)
    table.tag("gone")
    table.untag("gone")
    table.untag("never there")
    with pytest.raises(LakeError, match="has no version 9"):
        table.tag("x", 9)
    assert table.tags == {"model-1": 1, "model-2": 2}
    table.vacuum(older_than=timedelta(0))
    assert [numbers(open_table(uri, v)) for v in (1, 2)] == [[1], [1, 2]]
    assert open_table(uri).cursor == {"row": 4}
    with pytest.raises(LakeError, match=r"has no version 3\. There are"):
        open_table(uri, 3)


def test_small_files_are_joined_and_nothing_else_changes(uri: str) -> None:
    table = create_table(uri, SCHEMA, rows(0), batch="0", cursor={"row": 0})
    for i in range(1, 12):
        table = table.append(rows(i), batch=str(i), cursor={"row": i})
    compacted = table.compact(n_files=4)
    assert compacted.version > table.version
    assert compacted.rows_version == table.version
    assert (compacted.cursor, compacted.last.seq) == (table.cursor, table.last.seq)
    assert numbers(compacted) == list(range(12))
    assert numbers(compacted, since=5) == list(range(5, 12))
    assert compacted.compact(n_files=4).version == compacted.version
    compacted.vacuum(older_than=timedelta(0))
    assert numbers(open_table(uri)) == list(range(12))
    assert open_table(uri).append(rows(12), batch="12", cursor={"row": 12}).last.seq == 13


def test_rows_of_later_commits_can_be_dropped(uri: str) -> None:
    table = create_table(uri, SCHEMA, rows(1), batch="1").append(rows(2), batch="2").append(rows(3), batch="3")
    assert numbers(table.drop_after(1)) == [1]
    assert open_table(uri).drop_after(5).version == open_table(uri).version
    assert numbers(open_table(uri).append(rows(4), batch="4")) == [1, 4]


@pytest.mark.parametrize("seed", [1, *(pytest.param(s, marks=pytest.mark.slow) for s in range(2, 7))])
def test_random_histories_equal_a_list(uri: str, seed: int) -> None:
    chance = random.Random(seed)
    table, known, count = create_table(uri, SCHEMA, batch="0", cursor={"row": 0}), {1: [0, 0]}, 0
    history: list[int] = []
    seqs: list[int] = []
    for step in range(40):
        act = chance.choice(["append", "append", "append", "nothing", "compact", "clean", "sweep", "reopen"])
        if act == "append":
            added = list(range(count, count + chance.randint(1, 20)))
            count += len(added)
            table = table.append(rows(*added), batch=f"b{step}", cursor={"row": count})
            history += added
            seqs += [table.last.seq] * len(added)
        elif act == "nothing":
            table = table.append(rows(), batch=f"b{step}", cursor={"row": count})
        elif act == "compact":
            table = table.compact(n_files=2)
        elif act == "clean":
            table.vacuum(older_than=timedelta(0))
            table = open_table(uri)
            known = {}
        elif act == "sweep":
            assert table.sweep() == 0
        else:
            table = open_table(uri)
        known[table.version] = [len(history), table.last.seq]
        assert numbers(table, n_rows=chance.randint(1, 64)) == history
        assert table.cursor == {"row": count}
        assert numbers(table.at(table.rows_version)) == history if table.rows_version in known else True
        version = chance.choice(sorted(known))
        assert numbers(table.at(version)) == history[: known[version][0]]
        assert numbers(table, since=version) == history[known[version][0] :]
    # What we count ourselves and what the library tells by row ids agree.
    first = min(known)
    inserted = lance.dataset(uri).delta(begin_version=first, end_version=table.version).get_inserted_rows() if first < table.version else []
    assert sorted(n for b in inserted for n in b.column("n").to_pylist()) == sorted(history[known[first][0] :])


# What is refused.


def test_no_table_says_what_to_do(uri: str) -> None:
    with pytest.raises(LakeError, match=r"there is no table at .*mis collect"):
        open_table(uri)


def test_a_foreign_table_is_refused(uri: str) -> None:
    lance.write_dataset(pa.table({"a": [1]}), uri, enable_stable_row_ids=True)
    with pytest.raises(LakeError, match="not one of ours"):
        open_table(uri)


def test_a_table_without_stable_row_ids_is_refused(uri: str) -> None:
    create_table(uri, SCHEMA, rows(1), batch="1")
    metadata = lance.dataset(uri).schema
    shutil.rmtree(uri)
    lance.write_dataset(pa.table({name: [] for name in metadata.names}, schema=metadata), uri)
    with pytest.raises(LakeError, match="no stable row ids"):
        open_table(uri)


def test_a_table_of_a_later_format_is_refused(uri: str) -> None:
    create_table(uri, SCHEMA, rows(1), batch="1")
    dataset = lance.dataset(uri)
    dataset.update_schema_metadata({"mis.format": "99"})
    with pytest.raises(LakeError, match=r"has format 99; this version reads up to 3\. Upgrade"):
        open_table(uri)


def test_a_table_whose_columns_another_program_changed_is_refused(uri: str) -> None:
    create_table(uri, SCHEMA, rows(1), batch="1")
    lance.dataset(uri).drop_columns(["x"])
    with pytest.raises(LakeError, match="its columns are not those it declares"):
        open_table(uri)
    assert numbers(open_table(uri, 1)) == [1]


def test_a_table_cleaned_up_by_another_program_says_that_its_cursor_is_gone(uri: str) -> None:
    create_table(uri, SCHEMA, rows(1), batch="1", cursor={"row": 1})
    dataset = lance.dataset(uri)
    dataset.update_config({"x": "y"})
    dataset.cleanup_old_versions(older_than=timedelta(0))
    with pytest.raises(LakeError, match="the record of its last commit is gone"):
        _ = open_table(uri).cursor


@pytest.mark.parametrize("part", ["_versions", "data"])
def test_a_cut_file_is_told_as_damage(uri: str, part: str) -> None:
    create_table(uri, SCHEMA, rows(*range(100)), batch="1")
    for path in (Path(uri) / part).iterdir():
        path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(LakeError, match=r"Cannot (open|read) the table .*damaged"):
        list(open_table(uri).blocks())


def test_a_missing_file_is_told_as_damage(uri: str) -> None:
    create_table(uri, SCHEMA, rows(*range(100)), batch="1")
    shutil.rmtree(Path(uri) / "data")
    with pytest.raises(LakeError, match=r"Cannot read the table .*damaged"):
        list(open_table(uri).blocks())


def test_metadata_that_no_longer_reads_is_told_as_damage(uri: str) -> None:
    create_table(uri, SCHEMA, rows(1), batch="1")
    lance.dataset(uri).update_schema_metadata({"mis.schema": "{"})
    with pytest.raises(LakeError, match="cannot be read"):
        open_table(uri)


# Disks and writers.


@pytest.mark.slow  # a full disk under a collect is tried quickly
def test_a_full_disk_is_told_and_the_table_stays_as_it_was(small_disk: Path) -> None:
    uri = str(small_disk / "t")
    table = create_table(uri, SCHEMA, rows(1, 2), batch="1", cursor={"row": 2})
    big = rows(*random.Random(7).sample(range(700_000), 200_000))
    with pytest.raises(StoreError, match=r"Cannot write .*No space left on device\. Free some space"):
        table.append(big, batch="2", cursor={"row": 3})
    assert (numbers(open_table(uri)), open_table(uri).cursor) == ([1, 2], {"row": 2})
    for path in (small_disk / "t" / "data").iterdir():  # what room the failed files take is given back by the next one that fits
        assert path.stat().st_size <= 4 << 20
    with pytest.raises(StoreError, match="No space left"):
        create_table(str(small_disk / "u"), SCHEMA, big, batch="1")
    assert not table_exists(str(small_disk / "u"))


def test_a_read_only_disk_is_told_and_can_still_be_read(tmp_path: Path) -> None:
    create_table(str(tmp_path / "ro" / "t"), SCHEMA, rows(1, 2), batch="1")
    try:
        with disks.read_only(tmp_path / "ro") as folder:
            table = open_table(str(folder / "t"))
            assert numbers(table) == [1, 2]
            with pytest.raises(StoreError, match="Read-only file system"):
                table.append(rows(3), batch="2")
            with pytest.raises(StoreError, match="Read-only file system"):
                table.tag("x")
            with pytest.raises(StoreError, match="Read-only file system"):
                create_table(str(folder / "u"), SCHEMA, rows(1), batch="1")
    except disks.NoMount as reason:
        pytest.skip(f"this machine lets nothing be mounted: {reason}")


def test_a_limit_on_file_sizes_is_told(uri: str) -> None:
    table = create_table(uri, SCHEMA, rows(1), batch="1")
    with disks.no_file_larger_than(100_000), pytest.raises(StoreError, match=r"File too large\. Raise the limit on file sizes"):
        table.append(rows(*range(10_000)), batch="2")
    assert numbers(open_table(uri)) == [1]


@pytest.mark.slow  # three processes; one writer between the read and the commit of another is tried above
def test_many_writers_at_once_lose_and_double_nothing(uri: str) -> None:
    create_table(uri, SCHEMA, batch="0")
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_lake as t
who = int(sys.argv[2])
for i in range(5):
    t.open_table(sys.argv[1]).append(t.rows(who * 100 + i), batch=f"{{who}}-{{i}}")
"""
    writers = [subprocess.Popen([sys.executable, "-c", code, uri, str(who)]) for who in range(2)]
    assert [w.wait() for w in writers] == [0, 0]
    table = open_table(uri)
    assert sorted(numbers(table)) == [who * 100 + i for who in range(2) for i in range(5)]
    # Commit numbers go up by one with every commit, whoever made it.
    assert table.last.seq == 11
    seqs = lance.dataset(uri).to_table(columns=[SEQ]).column(SEQ).to_pylist()
    assert seqs == sorted(seqs)
    assert len(set(seqs)) == 10


def test_a_table_of_format_1_is_still_read() -> None:
    table = open_table(str(Path(__file__).parent.parent / "golden" / "lake-1"))
    assert numbers(table) == list(range(30))
    assert pa.Table.from_batches(list(table.blocks())).equals(rows(*range(30)))
    assert table.schema == SCHEMA
    assert (table.cursor, table.tags, [v.n_rows for v in table.versions()]) == ({"row": 30}, {"model-1": 1}, [10, 30])


def test_the_commit_record_is_plain_json(uri: str) -> None:
    create_table(uri, SCHEMA, rows(1), batch="1-ä", cursor={"file": "ü", "row": 2**53})
    transaction = lance.dataset(uri).get_transactions(1)[0]
    assert transaction is not None
    record = json.loads((transaction.transaction_properties or {})["mis.commit"])
    assert re.fullmatch(r".+@.+ process \d+, modelinscale [\d.]+\S*", record.pop("by"))
    assert record == {
        "seq": 1,
        "batch": "1-ä",
        "cursor": {"file": "ü", "row": 2**53},
        "run": "",
        "facts": {},
        "rows_version": None,
        "what": "append",
        "n_added": 1,
        "n_removed": 0,
        "recent": [identity("1-ä")[:16]],
    }
