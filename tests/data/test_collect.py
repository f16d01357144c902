"""Collect: clean, contract, quarantine, cursor; what a rerun does; when it refuses."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from modelinscale.core.errors import DataError, LakeError, SourceError, StoreError
from modelinscale.core.schema import Column, Schema
from modelinscale.data.collect import Collected, collect, open_quarantine
from modelinscale.data.contract import Contract, contract, parse_checks
from modelinscale.data.lake import Table, create_table, open_table, table_exists
from modelinscale.data.sources import Chunk, Cursor
from modelinscale.testing import disks
from modelinscale.testing.lists import Lists

SCHEMA = Schema(columns=(Column(name="id", type="string"), Column(name="n", type="int")))
RULES = contract(SCHEMA, parse_checks({"n": {"between": [0, 100]}}), ("id",))


class Place:
    """A lake and its quarantine in a folder."""

    def __init__(self, folder: Path) -> None:
        self.lake, self.quarantine = str(folder / "lake"), str(folder / "quarantine")

    def collect(self, source: Lists, rules: Contract = RULES, **how: Any) -> Collected:
        return collect(source, lake=self.lake, quarantine=self.quarantine, contract=rules, **how)

    def ids(self) -> list[str]:
        return [v for b in open_table(self.lake).blocks(["id"]) for v in b.column("id").to_pylist()]

    def lines(self) -> list[dict[str, Any]]:
        return [line for b in open_quarantine(self.quarantine, self.lake) for line in b.to_pylist()]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def numbered(n_rows: int, bad: tuple[int, ...] = (), **how: Any) -> Lists:
    cells = [("zz" if i in bad else str(i % 100)) for i in range(n_rows)]
    return Lists(rows={"id": tuple(f"r{i}" for i in range(n_rows)), "n": tuple(cells)}, **how)


def test_rows_go_to_the_lake_and_faults_to_quarantine_with_their_place(place: Place) -> None:
    source = Lists(rows={"id": ("a", "b", "a", "c", None), "n": ("1", "200", "3", "4", "x")}, broken={3: "3 cells, expected 2"})
    collected = place.collect(source, max_quarantined=1.0)
    assert (collected.version, collected.n_rows, collected.n_added, collected.n_quarantined, collected.n_quarantined_now) == (1, 1, 1, 4, 4)
    assert place.ids() == ["a"]
    assert [tuple(line.values()) for line in place.lines()] == [
        (2, "list, from row 1", 2, "n", "not between 0 and 100", "200"),
        (3, "list, from row 1", 3, "id", "an earlier row has the same key", "a"),
        (4, "list, from row 4", 1, "", "3 cells, expected 2", ""),
        (5, "list, from row 4", 2, "id", "missing, but it is the key", ""),
        (5, "list, from row 4", 2, "n", "not a whole number", "x"),
    ]
    assert ("n", "not a whole number", 1) in collected.reasons


def test_only_what_is_new_is_read_and_nothing_new_makes_no_version(place: Place) -> None:
    first = place.collect(numbered(10))
    again = place.collect(numbered(10))
    assert (again.version, again.n_rows, again.n_added) == (first.version, 10, 0)
    assert open_table(place.lake).version == 1
    more = place.collect(numbered(14))
    assert (more.version, more.n_rows, more.n_added) == (2, 14, 4)
    assert place.ids() == [f"r{i}" for i in range(14)]


@pytest.mark.parametrize("commit_rows", [1, 4, 7, 1000])
def test_commits_are_bounded_and_the_result_does_not_depend_on_them(place: Place, commit_rows: int) -> None:
    source = numbered(40, bad=(3, 11, 12))
    repeats = Lists(rows={"id": (*source.rows["id"], "r1", "r39", "new", "new"), "n": (*source.rows["n"], "1", "2", "3", "4")}, chunk_rows=4)
    collected = place.collect(repeats, commit_rows=commit_rows)
    assert place.ids() == [f"r{i}" for i in range(40) if i not in (3, 11, 12)] + ["new"]
    assert [(line["row"], line["column"]) for line in place.lines()] == [(4, "n"), (12, "n"), (13, "n"), (41, "id"), (42, "id"), (44, "id")]
    assert (collected.n_rows, collected.n_quarantined) == (38, 6)
    table = open_table(place.lake)
    assert table.last.facts == {"n_read": 44, "n_quarantined": 6}
    assert len(table.versions()) == (1 if commit_rows == 1000 else -(-44 // (-(-commit_rows // 4) * 4)))


def test_keys_are_known_over_collects_and_row_numbers_go_on(place: Place) -> None:
    place.collect(numbered(5))
    source = numbered(5)
    source = Lists(rows={"id": (*source.rows["id"], "r0", "r9"), "n": (*source.rows["n"], "1", "1")})
    collected = place.collect(source)
    assert place.ids() == ["r0", "r1", "r2", "r3", "r4", "r9"]
    assert [(line["row"], line["reason"]) for line in place.lines()] == [(6, "an earlier row has the same key")]
    assert (collected.n_quarantined, collected.n_quarantined_now) == (1, 1)


def test_new_rows_that_are_all_bad_move_the_cursor_but_not_the_version(place: Place) -> None:
    first = place.collect(numbered(5))
    collected = place.collect(numbered(7, bad=(5, 6)))
    assert (collected.version, collected.n_rows, collected.n_quarantined_now) == (first.version, 5, 2)
    assert place.collect(numbered(7, bad=(5, 6))).n_quarantined_now == 0
    assert len(place.lines()) == 2


def test_rows_whose_target_is_missing_are_kept(place: Place) -> None:
    source = Lists(rows={"id": ("a", "b"), "n": ("1", "")})
    assert place.collect(source).n_added == 2


def test_too_many_bad_rows_stop_a_first_collect_with_nothing_kept(place: Place) -> None:
    with pytest.raises(DataError) as caught:
        place.collect(numbered(10, bad=(0, 1, 2, 3, 4, 5)))
    assert "6 of 10 rows read break the contract (60%, allowed 50%).\n  6 × n: not a whole number" in str(caught.value)
    assert "Change `checks`" in str(caught.value)
    assert not table_exists(place.lake)
    assert not table_exists(place.quarantine)
    assert place.collect(numbered(10, bad=(0, 1, 2, 3, 4, 5)), max_quarantined=0.6).n_rows == 4


def test_too_many_bad_rows_after_a_commit_say_what_of_this_collect_was_kept(place: Place) -> None:
    with pytest.raises(DataError, match=r"150 of 250 rows read break the contract.*") as caught:
        place.collect(numbered(300, bad=tuple(range(100, 300)), chunk_rows=50), commit_rows=50)
    assert "100 good rows before these are in the lake and stay" in caught.value.fix
    assert "nothing of these rows was kept" not in caught.value.fix
    assert len(place.ids()) == 100


def test_a_few_bad_rows_after_good_collects_are_no_reason_to_stop(place: Place) -> None:
    place.collect(numbered(300))
    assert place.collect(numbered(310, bad=tuple(range(300, 310)))).n_quarantined_now == 10
    with pytest.raises(DataError, match="300 of 400 rows read"):
        place.collect(numbered(710, bad=tuple(range(300, 310)) + tuple(range(410, 710)), chunk_rows=1000))
    assert place.collect(numbered(320, bad=tuple(range(300, 310)))).n_added == 10


def test_a_source_without_rows_says_so(place: Place) -> None:
    with pytest.raises(DataError, match="the source has no rows"):
        place.collect(Lists(rows={"id": (), "n": ()}))
    assert not table_exists(place.lake)


def test_an_error_of_the_source_keeps_what_was_committed(place: Place) -> None:
    class Cut(Lists):
        def read(self, after: Cursor | None, schema: Schema) -> Iterator[Chunk]:
            for chunk in super().read(after, schema):
                if chunk.cursor["row"] > 12:
                    raise SourceError("the file ends in the middle")
                yield chunk

    with pytest.raises(SourceError, match="ends in the middle"):
        place.collect(Cut(rows=numbered(30).rows), commit_rows=6)
    assert place.ids() == [f"r{i}" for i in range(12)]
    assert place.collect(numbered(30)).n_rows == 30
    assert place.ids() == [f"r{i}" for i in range(30)]


def test_columns_that_the_table_does_not_have_are_told(place: Place) -> None:
    source = numbered(3)
    collected = place.collect(Lists(rows={**source.rows, "late": ("x", "y", "z")}))
    assert collected.notes == ("the source has columns that the table does not have, left out: late (first in list, from row 1).",)


def test_a_column_that_the_source_lacks_is_missing(place: Place) -> None:
    collected = collect(Lists(rows={"id": ("a", "b")}), lake=place.lake, quarantine=place.quarantine, contract=replace(RULES, checks={}))
    assert collected.n_rows == 2


def test_other_types_than_the_tables_are_refused(place: Place) -> None:
    place.collect(numbered(3))
    other = Schema(columns=(Column(name="id", type="string"), Column(name="n", type="string"), Column(name="m", type="int")))
    with pytest.raises(LakeError, match="n is int in the table and string now; m is not in the table"):
        place.collect(numbered(6), contract(other))


def test_the_tables_own_habits_are_used(place: Place) -> None:
    habits = Schema(columns=(Column(name="id", type="string"), Column(name="n", type="int", thousands=".", decimal=",")))
    place.collect(Lists(rows={"id": ("a",), "n": ("1.000",)}), contract(habits))
    place.collect(Lists(rows={"id": ("a", "b"), "n": ("1.000", "2.000")}), contract(SCHEMA))
    assert pa.Table.from_batches(list(open_table(place.lake).blocks(["n"]))).column("n").to_pylist() == [1000, 2000]


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


@pytest.mark.parametrize("moment", ["before the lake's commit", "after the orphans left"])
def test_quarantine_of_rows_that_never_got_in_is_not_shown_and_comes_once(place: Place, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    place.collect(numbered(6, bad=(1,)))

    def killed(*_: Any, **__: Any) -> Any:
        raise Killed

    real, dropped = Table.append, Table.drop_after
    with monkeypatch.context() as patch:
        patch.setattr(Table, "append", lambda table, *a, **k: killed() if table.uri == place.lake else real(table, *a, **k))
        with pytest.raises(Killed):
            place.collect(numbered(9, bad=(1, 7)))
    assert open_table(place.quarantine).n_rows == 2
    assert [line["row"] for line in place.lines()] == [2]
    if moment == "after the orphans left":
        with monkeypatch.context() as patch:
            patch.setattr(Table, "drop_after", lambda table, seq: killed(dropped(table, seq)))
            with pytest.raises(Killed):
                place.collect(numbered(9, bad=(1, 7)))
        assert open_table(place.quarantine).n_rows == 1
    place.collect(numbered(9, bad=(1, 7)))
    assert [line["row"] for line in place.lines()] == [2, 8]
    assert open_table(place.quarantine).n_rows == 2


def test_quarantine_of_a_table_that_was_removed_is_not_shown(place: Place) -> None:
    create_table(place.quarantine, Schema(columns=(Column(name="row", type="int"),)))
    assert place.lines() == []


def test_a_full_disk_stops_it_with_the_table_whole_and_it_goes_on_when_there_is_room(tmp_path: Path) -> None:
    schema = Schema(columns=(Column(name="id", type="string"), Column(name="n", type="string")))
    n_rows = 40_000
    source = Lists(rows={"id": tuple(f"r{i}" for i in range(n_rows)), "n": tuple(f"{i * 7919 % 99991:060d}{i:x}" for i in range(n_rows))}, chunk_rows=2000)
    try:
        with disks.small(tmp_path / "small", 1 << 20) as folder:
            place = Place(folder)
            with pytest.raises(StoreError, match=r"No space left on device\. Free some space"):
                place.collect(source, contract(schema, key=("id",)), commit_rows=2000)
            had = len(place.ids())
            assert 0 < had < n_rows
            disks.resize(folder, 64 << 20)
            assert place.collect(source, contract(schema, key=("id",)), commit_rows=2000).n_added == n_rows - had
            assert place.ids() == [f"r{i}" for i in range(n_rows)]
    except disks.NoMount as reason:
        pytest.skip(f"this machine lets nothing be mounted: {reason}")


def test_a_read_only_store_is_told_and_nothing_new_is_still_fine(tmp_path: Path) -> None:
    place = Place(tmp_path / "store")
    place.collect(numbered(3))
    try:
        with disks.read_only(tmp_path / "store"):
            assert place.collect(numbered(3)).n_added == 0
            with pytest.raises(StoreError, match="Read-only file system"):
                place.collect(numbered(6))
    except disks.NoMount as reason:
        pytest.skip(f"this machine lets nothing be mounted: {reason}")


def test_progress_tells_rows(place: Place) -> None:
    told: list[str] = []
    place.collect(numbered(10), commit_rows=3, progress=lambda share, note: told.append(note))
    assert told == ["3 rows", "6 rows", "9 rows", "10 rows"]
