"""Text that repeats, kept in a lake table as codes and a dictionary: the same table to everybody, and no word of a row that is gone."""

from pathlib import Path

import duckdb
import lance
import polars as pl
import pyarrow as pa
import pytest
from tests.data.test_lake_change import bytes_of, column

from modelinscale.core.schema import Column, Schema
from modelinscale.data.arrow import arrow_schema
from modelinscale.data.lake import Table, create_table, open_table

SCHEMA = Schema(columns=(Column(name="id", type="int"), Column(name="mail", type="string"), Column(name="city", type="string")))
CITIES = ("Bern", "Ünterwald", "", None)


def rows(start: int, n: int = 12, cities: tuple[str | None, ...] = CITIES) -> pa.Table:
    cells = [{"id": i, "mail": f"mail-{i}@example.org", "city": cities[i % len(cities)]} for i in range(start, start + n)]
    return pa.Table.from_pylist(cells, schema=arrow_schema(SCHEMA))


def kinds(table: Table) -> dict[str, str]:
    return {f.name: str(f.type) for f in lance.dataset(table.uri).schema}


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return create_table(str(tmp_path / "t"), SCHEMA, rows(0), batch="a", cursor={"n": 12})


def test_text_that_repeats_in_the_first_rows_is_kept_as_codes_and_reads_as_text(table: Table) -> None:
    assert (kinds(table)["mail"], kinds(table)["city"]) == ("string", "dictionary<values=string, indices=int32, ordered=0>")
    for block in (next(table.blocks()), table.slice(0, 12, ["id", "mail", "city"])):
        assert block.schema == arrow_schema(SCHEMA)
        assert block.column("city").to_pylist() == [CITIES[i % 4] for i in range(12)]
    assert str(table.slice(3, 4, ["city"], codes=True).column("city").type).startswith("dictionary")


@pytest.mark.parametrize(
    ("cities", "kind"),
    [(tuple(f"c{i}" for i in range(7)), "string"), (tuple(f"c{i}" for i in range(6)), "dictionary"), ((None,), "string"), (("x", None), "dictionary")],
    ids=["more than half are different", "half are different", "all missing", "one word"],
)
def test_which_text_repeats_is_seen_in_the_first_rows(tmp_path: Path, cities: tuple[str | None, ...], kind: str) -> None:
    made = create_table(str(tmp_path / "t"), SCHEMA, rows(0, 12, cities), batch="a")
    assert kinds(made)["city"].startswith(kind)
    assert kinds(made.append(rows(12, 500, tuple(f"c{i}" for i in range(500))), batch="b"))["city"].startswith(kind)
    assert column(open_table(made.uri), "city")[-2:] == ["c10", "c11"]


def test_a_key_that_is_kept_as_codes_replaces_rows_and_tells_changes(table: Table) -> None:
    more = rows(100, 2, ("Bern", "Basel"))
    after = table.upsert(more, ["city"], batch="b", cursor={"n": 14})
    assert column(after, "city") == [*(c for c in (CITIES[i % 4] for i in range(12)) if c != "Bern"), "Bern", "Basel"]
    found = after.changes_since(1, ["city"])
    assert [sorted(set(t.column("city").to_pylist())) for t in (found.inserted, found.updated, found.deleted)] == [["Basel"], ["Bern"], []]
    assert after.rows_of("city", ["Bern"]) == {1: 3, after.version: 1}


def test_columns_are_added_and_widened_beside_codes(table: Table) -> None:
    wide = table.evolve(Schema(columns=(Column(name="id", type="float"), Column(name="ok", type="bool"), Column(name="note", type="string"))))
    assert kinds(wide)["city"].startswith("dictionary")
    assert kinds(wide)["note"] == "string"
    assert column(wide, "city") == [CITIES[i % 4] for i in range(12)]
    joined = pa.concat_tables([rows(12)]).to_pylist()
    more = pa.Table.from_pylist([row | {"ok": True, "note": "n"} for row in joined], schema=arrow_schema(wide.schema))
    after = wide.append(more, batch="b", cursor={"n": 24}).compact(n_files=1)
    assert column(after, "city") == [CITIES[i % 4] for i in range(24)]
    assert column(after, "id") == [float(i) for i in range(24)]


def test_an_erased_word_is_in_no_dictionary(table: Table) -> None:
    table = table.append(rows(12, 12, ("Bern", "Anna Muster")), batch="b", cursor={"n": 24}).compact(n_files=1)
    assert b"Anna Muster" in bytes_of(Path(table.uri))
    assert table.erase("city", ["Anna Muster"]).n_rows == 6
    assert b"Anna Muster" not in bytes_of(Path(table.uri))
    assert "Anna Muster" not in column(open_table(table.uri), "city")


def test_a_word_of_a_person_who_is_erased_by_another_column_is_in_no_dictionary(table: Table) -> None:
    table = table.append(rows(12, 12, ("Bern",) * 11 + ("Only Hers",)), batch="b", cursor={"n": 24}).compact(n_files=1)
    (mine,) = (i for i in range(12, 24) if column(table, "city")[i] == "Only Hers")
    assert table.erase("mail", [f"mail-{mine}@example.org"]).n_rows == 1
    assert b"Only Hers" not in bytes_of(Path(table.uri))
    assert b"Bern" in bytes_of(Path(table.uri))


def test_reworded_text_leaves_nothing_of_the_old_words(table: Table) -> None:
    after = table.append(rows(12), batch="b", cursor={"n": 24}).reword({"city": str.upper})
    assert column(after, "city") == [c and c.upper() for c in (CITIES[i % 4] for i in range(24))]
    assert b"Bern" not in bytes_of(Path(table.uri))
    assert kinds(after)["city"].startswith("dictionary")


def test_two_other_engines_read_codes_as_text(table: Table) -> None:
    table = table.append(rows(12, 12, ("Basel", "Bern", "Chur")), batch="b", cursor={"n": 24})
    ours = [c for c in column(table, "city") if c is not None]
    dataset = lance.dataset(table.uri)
    theirs = pl.scan_pyarrow_dataset(dataset).select(pl.col("city").cast(pl.String)).collect()["city"].drop_nulls().to_list()
    assert sorted(theirs) == sorted(ours)
    with duckdb.connect() as connection:
        connection.register("t", dataset)
        assert connection.sql("select count(*) from t where city = 'Bern'").fetchall() == [(ours.count("Bern"),)]
        assert sorted(c for (c,) in connection.sql("select city from t where city is not null").fetchall()) == sorted(ours)


def test_a_table_of_format_3_is_still_read() -> None:
    table = open_table(str(Path(__file__).parent.parent / "golden" / "lake-3"))
    ids = [2, 3, 4, 5, 6, 7, 8, 9, 20, 21, 0, 1, 30]
    assert (column(table), column(table, "city")) == (ids, [CITIES[i % 4] for i in ids])
    assert (column(table, "n")[-3:], column(table, "ok")[-2:], table.cursor) == ([99.0, 99.0, 30.0], [None, True], {"n": 15})
    assert kinds(table)["city"].startswith("dictionary")
    assert [p.what for p in table.history()] == ["append", "append", "upsert", "evolve", "compact", "append"]


def test_rows_staged_for_a_table_with_codes_are_kept_as_codes(table: Table) -> None:
    table = table.append_staged([table.stage(rows(12, 5)), table.stage(rows(17, 7))], batch="b", cursor={"n": 24})
    assert column(table, "city") == [CITIES[i % 4] for i in range(24)]
