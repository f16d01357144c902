"""Tables with versions of their own as sources: Delta, Iceberg and Lance tables as their own libraries write them."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from modelinscale.core.errors import SourceError, SpecError
from modelinscale.data.collect import collect
from modelinscale.data.contract import contract
from modelinscale.data.lake import open_table
from modelinscale.data.sources import Cursor, Source
from modelinscale.testing import sources as suite

pytestmark = pytest.mark.slow

FORMATS = ("delta", "iceberg", "lance")
SCHEMA = pa.schema({"id": pa.int64(), "note": pa.string()})


def rows(first: int, n: int) -> pa.Table:
    return pa.table({"id": range(first, first + n), "note": [f"n{i}" for i in range(first, first + n)]}, SCHEMA)


@dataclass
class Writer:
    """Writes a table as its users do."""

    folder: Path
    format: str

    def __post_init__(self) -> None:
        self.catalog: Any = None
        if self.format == "iceberg":
            from pyiceberg.catalog import load_catalog

            self.folder.mkdir(exist_ok=True)
            self.catalog = load_catalog("default", type="sql", uri=f"sqlite:///{self.folder}/catalog.db", warehouse=f"file://{self.folder}/warehouse")
            self.catalog.create_namespace_if_not_exists("shop")

    @property
    def path(self) -> str:
        return str(self.folder / "table")

    def source(self, **settings: Any) -> Source:
        if self.format == "iceberg":
            place = {"table": "shop.t", "catalog": {"type": "sql", "uri": f"sqlite:///{self.folder}/catalog.db"}}
        else:
            place = {"path": self.path}
        return Source.parse({"type": self.format, "rows": 7, **place, **settings})

    def append(self, table: pa.Table) -> None:
        if self.format == "delta":
            from deltalake import write_deltalake

            write_deltalake(self.path, table, mode="append", schema_mode="merge")
        elif self.format == "lance":
            import lance

            lance.write_dataset(table, self.path, mode="append" if Path(self.path).exists() else "create", enable_stable_row_ids=True)
        else:
            self.catalog.create_table_if_not_exists("shop.t", schema=table.schema).append(table)

    def compact(self) -> None:
        if self.format == "delta":
            from deltalake import DeltaTable

            DeltaTable(self.path).optimize.compact()
        elif self.format == "lance":
            import lance

            lance.dataset(self.path).optimize.compact_files()
        else:
            pytest.skip("this Iceberg library does not compact")

    def delete(self, where: str) -> None:
        if self.format == "delta":
            from deltalake import DeltaTable

            DeltaTable(self.path).delete(where)
        elif self.format == "lance":
            import lance

            lance.dataset(self.path).delete(where)
        else:
            self.catalog.load_table("shop.t").delete(where)

    def replace(self, table: pa.Table) -> None:
        """Another table in its place."""
        if self.format == "iceberg":
            self.catalog.drop_table("shop.t")
        else:
            shutil.rmtree(self.path)
        self.append(table)

    def close(self) -> None:
        if self.catalog is not None:
            self.catalog.close()


@pytest.fixture(params=FORMATS)
def writer(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Writer]:
    made = Writer(tmp_path / "made", request.param)
    yield made
    made.close()


def read(source: Source, after: Cursor | None = None) -> tuple[list[int], Cursor | None]:
    found: list[int] = []
    for chunk in source.read(after, source.columns()):
        found += chunk.batch.column("id").to_pylist()
        after = chunk.cursor
    return found, after


def test_what_is_appended_comes_once(writer: Writer) -> None:
    writer.append(rows(0, 30))

    def grow() -> int:
        writer.append(rows(30, 12))
        return 12

    suite.new_rows_come_once(writer.source(), grow)


def test_several_versions_come_as_one_step_that_can_be_entered_anywhere(writer: Writer) -> None:
    writer.append(rows(0, 5))
    source = writer.source()
    _, first = read(source)
    for i in range(3):
        writer.append(rows(5 + 20 * i, 20))
    schema = source.columns()
    chunks = list(source.read(first, schema))
    assert sorted(v for c in chunks for v in c.batch.column("id").to_pylist()) == list(range(5, 65))
    for i, chunk in enumerate(chunks):
        rest = [v for c in source.read(chunk.cursor, schema) for v in c.batch.column("id").to_pylist()]
        assert rest == [v for c in chunks[i + 1 :] for v in c.batch.column("id").to_pylist()]


def test_rows_moved_into_other_files_do_not_come_again(writer: Writer) -> None:
    for i in range(4):
        writer.append(rows(10 * i, 10))
    source = writer.source()
    found, after = read(source)
    writer.compact()
    assert read(source, after) == ([], after)
    writer.append(rows(40, 10))
    writer.append(rows(50, 10))
    writer.compact()
    writer.append(rows(60, 10))
    more, after = read(source, after)
    assert sorted(found + more) == list(range(70))
    assert read(source, after)[0] == []


def test_a_step_that_was_begun_is_finished_though_the_table_went_on(writer: Writer) -> None:
    writer.append(rows(0, 30))
    source = writer.source()
    chunk = next(iter(source.read(None, source.columns())))
    writer.append(rows(30, 10))
    found, _ = read(source, chunk.cursor)
    assert sorted(chunk.batch.column("id").to_pylist() + found) == list(range(40))


@pytest.mark.parametrize("where", ["id = 3"])
def test_rows_that_were_removed_after_they_were_read_stop_it(writer: Writer, where: str) -> None:
    writer.append(rows(0, 30))
    source = writer.source()
    _, after = read(source)
    writer.append(rows(30, 10))
    writer.delete(where)
    with pytest.raises(SourceError, match=r"did more than append rows: version \d+ is a .*(?i:delete|overwrite).*new rows with the same key"):
        read(source, after)
    assert sorted(read(source)[0]) == [i for i in range(40) if i != 3], "a new table begins with what is there now"


def test_another_table_in_its_place_is_told(writer: Writer) -> None:
    writer.append(rows(0, 10))
    source = writer.source()
    _, after = read(source)
    writer.replace(rows(100, 10))
    writer.append(rows(110, 10))
    with pytest.raises(SourceError, match=r"is another table than the one that was read before|cannot be read|has no snapshot"):
        read(source, after)


def test_a_column_that_is_gone_is_named(writer: Writer) -> None:
    writer.append(rows(0, 10))
    source = writer.source()
    schema = source.columns()
    _, after = read(source)
    writer.replace(rows(0, 10).select(["id"]))
    with pytest.raises(SourceError, match=r"has no column 'note' any more|another table|has no snapshot"):
        list(source.read(after, schema))
    with pytest.raises(SourceError, match="has no column 'note' any more"):
        list(source.read(None, schema))


def test_columns_may_be_left_out(writer: Writer) -> None:
    writer.append(rows(0, 10))
    assert writer.source(without="note").columns().names == ("id",)
    with pytest.raises(SourceError, match=r"names 'nota'.*Did you mean 'note'"):
        writer.source(without="nota").columns()


def test_a_table_that_is_not_there_is_told(writer: Writer) -> None:
    with pytest.raises(SourceError, match=r"cannot be (read|opened) as an? \w+ table"):
        writer.source().columns()


def test_it_goes_into_the_lake_once_over_several_collects(writer: Writer, tmp_path: Path) -> None:
    source = writer.source()
    for i in range(3):
        writer.append(rows(25 * i, 25))
        collect(source, lake=str(tmp_path / "lake"), quarantine=str(tmp_path / "bad"), contract=contract(source.columns()), commit_rows=10)
    found = [v for b in open_table(str(tmp_path / "lake")).blocks(["id"]) for v in b.column("id").to_pylist()]
    assert sorted(found) == list(range(75))


def test_a_log_that_was_cleaned_up_too_far_is_told(tmp_path: Path) -> None:
    from deltalake import DeltaTable

    writer = Writer(tmp_path / "made", "delta")
    writer.append(rows(0, 10))
    source = writer.source()
    _, after = read(source)
    for i in range(3):
        writer.append(rows(10 + i, 1))
    DeltaTable(writer.path).create_checkpoint()
    for number in range(3):
        (Path(writer.path) / "_delta_log" / f"{number:020d}.json").unlink()
    with pytest.raises(SourceError, match=r"cannot be read|no longer in the table's log"):
        read(source, after)


def test_partition_columns_come_along(tmp_path: Path) -> None:
    from deltalake import write_deltalake

    write_deltalake(tmp_path / "t", pa.table({"id": [1, 2, 3], "day": ["a", "b", "a"]}), partition_by=["day"])
    source = Source.parse({"type": "delta", "path": str(tmp_path / "t")})
    found = [row for c in source.read(None, source.columns()) for row in c.batch.to_pylist()]
    assert sorted(found, key=lambda r: r["id"]) == [{"id": 1, "day": "a"}, {"id": 2, "day": "b"}, {"id": 3, "day": "a"}]


def test_our_own_lake_is_a_source_without_its_own_columns(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "made", "lance")
    writer.append(rows(0, 30))
    source = writer.source()
    collect(source, lake=str(tmp_path / "lake"), quarantine=str(tmp_path / "bad"), contract=contract(source.columns()))
    again = Source.parse({"type": "lance", "path": str(tmp_path / "lake")})
    assert again.columns().names == ("id", "note")
    assert sorted(read(again)[0]) == list(range(30))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "named by `table`"),
        ({"table": "a.b", "metadata": "x.json"}, "named by `table`"),
        ({"table": "a.b"}, "`table` needs a `catalog`"),
    ],
)
def test_an_iceberg_table_is_named_in_one_way(settings: dict[str, Any], message: str) -> None:
    with pytest.raises((SpecError, ValueError), match=message):
        Source.parse({"type": "iceberg", **settings})


def test_a_password_in_a_catalogue_must_be_a_reference() -> None:
    with pytest.raises(ValueError, match="must not hold a password"):
        Source.parse({"type": "iceberg", "table": "a.b", "catalog": {"type": "sql", "uri": "postgresql://mis:hunter2@db/catalog"}})
