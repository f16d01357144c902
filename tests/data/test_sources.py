"""All sources by the shared suite."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modelinscale.core.kinds import names
from modelinscale.data.sources import Source
from modelinscale.testing import sources as suite

Make = Callable[[Path], Source]


def _csv(folder: Path) -> Source:
    for part in ("a", "b"):
        rows = [f'{i},{i / 4},"word, {i}","{"two" if i % 3 else "a"}\nlines",2024-01-{i % 28 + 1:02d}' for i in range(150)]
        (folder / f"{part}.csv").write_text("id,share,note,more,day\n" + "\n".join(rows) + "\n")
    return Source.parse({"type": "csv", "path": str(folder / "*.csv"), "block": 1024})


def _jsonl(folder: Path) -> Source:
    rows = [json.dumps({"id": i, "share": i / 4, "note": f"word {i}" if i % 3 else None, "mixed": i if i % 2 else f"t{i}"}) for i in range(150)]
    (folder / "a.jsonl").write_text("\n".join(rows) + "\n")
    (folder / "b.jsonl").write_text("[" + ",\n ".join(rows) + "]\n")
    return Source.parse({"type": "jsonl", "path": str(folder / "*.jsonl"), "block": 1024})


def _parquet(folder: Path) -> Source:
    table = pa.table({"id": range(300), "share": [i / 4 for i in range(300)], "note": [None if i % 7 == 0 else f"word {i}" for i in range(300)]})
    for part in ("a", "b"):
        pq.write_table(table, folder / f"{part}.parquet", row_group_size=70)
    return Source.parse({"type": "parquet", "path": str(folder / "*.parquet"), "rows": 32})


def _rows(n: int, first: int = 0) -> pa.Table:
    """Rows as tables with versions hold them."""
    number = range(first, first + n)
    columns = {"id": list(number), "share": [i / 4 for i in number], "note": [None if i % 7 == 0 else f"word {i}" for i in number]}
    return pa.table(columns, pa.schema({"id": pa.int64(), "share": pa.float64(), "note": pa.string()}))


def _delta(folder: Path) -> Source:
    from deltalake import write_deltalake

    for part in range(3):
        write_deltalake(folder / "t", _rows(100, 100 * part), mode="append")
    return Source.parse({"type": "delta", "path": str(folder / "t"), "rows": 32})


def _lance(folder: Path) -> Source:
    import lance

    for part in range(3):
        lance.write_dataset(_rows(100, 100 * part), folder / "t.lance", mode="append" if part else "create")
    return Source.parse({"type": "lance", "path": str(folder / "t.lance"), "rows": 32})


def _iceberg(folder: Path) -> Source:
    from pyiceberg.catalog import load_catalog

    catalog = {"type": "sql", "uri": f"sqlite:///{folder}/catalog.db"}
    made = load_catalog("default", warehouse=f"file://{folder}/warehouse", **catalog)
    made.create_namespace("shop")
    table = made.create_table("shop.orders", schema=_rows(0).schema)
    for part in range(3):
        table.append(_rows(100, 100 * part))
    made.close()
    return Source.parse({"type": "iceberg", "table": "shop.orders", "catalog": catalog, "rows": 32})


def _predictions(folder: Path) -> Source:
    from modelinscale.core.predictions import FORMAT, Head, folder_of, segment_name

    columns = ({"name": "amount", "type": "float"}, {"name": "id", "type": "int"}, {"name": "place", "type": "vector", "width": 2})
    head = Head(FORMAT, "shop", "1", "0123", columns, "bool", ("false", "true"))
    place = folder_of(folder, "shop")
    place.mkdir()
    for part in range(2):
        rows = [
            {
                "id": f"r{i}/0",
                "time": f"2026-11-26T02:{i % 60:02d}:04.5Z",
                "version": "1",
                "inputs": {"amount": None if i % 7 == 0 else i / 4, "id": i, "place": [i / 2, 1.0]},
                "prediction": i % 2 == 0,
                "probabilities": {"false": 0.25, "true": 0.75},
            }
            for i in range(100)
        ]
        name = segment_name(datetime(2026, 11, 26, part, tzinfo=UTC), 7, part)
        (place / name).write_bytes(head.line() + "\n".join(json.dumps(row) for row in rows).encode() + b'\n{"id": "torn')
    return Source.parse({"type": "predictions", "model": "shop", "path": str(folder), "block": 2048})


MAKERS: dict[str, Make] = {
    "delta": _delta,
    "iceberg": _iceberg,
    "lance": _lance,
    "csv": _csv,
    "jsonl": _jsonl,
    "predictions": _predictions,
    "parquet": _parquet,
    "dataset": lambda folder: Source.parse({"type": "dataset", "name": "wine", "rows": 20}),
    "simulator": lambda folder: Source.parse({"type": "simulator", "days": 14, "customers": 60, "terminals": 300}),
}

ELSEWHERE = {
    "http": "test_sources_http.py",
    "images": "test_sources_images.py",
    "joined": "test_join_sources.py",
    "kafka": "test_sources_streams.py",
    "nats": "test_sources_streams.py",
    "objects": "test_sources_objects.py",
    "redis": "test_sources_streams.py",
    "sequences": "test_sources_sequences.py",
    "sql": "test_sources_sql.py",
}
"""Sources that need more than a folder: they go through the suite where their servers are started."""


@pytest.fixture(scope="module", params=MAKERS)
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Source:
    """To be read only: made once for all tests."""
    return MAKERS[request.param](tmp_path_factory.mktemp(request.param))


@pytest.mark.parametrize("name", names("data.sources"))
def test_every_source_goes_through_the_suite(name: str) -> None:
    if name not in MAKERS:
        assert name in ELSEWHERE, f"the source {name} needs an example here"
        text = (Path(__file__).parent / ELSEWHERE[name]).read_text(encoding="utf-8")
        assert f'"{name}"' in text or f"{name}_" in text
        assert "suite.from_every_cursor_the_rest_comes_once" in text


def test_from_every_cursor_the_rest_comes_once(source: Source) -> None:
    suite.from_every_cursor_the_rest_comes_once(source)


def test_reading_twice_gives_the_same_chunks(source: Source) -> None:
    suite.reading_twice_gives_the_same_chunks(source)


def test_chunks_match_the_schema(source: Source) -> None:
    suite.chunks_match_the_schema(source)


def test_only_asked_columns_come(source: Source) -> None:
    suite.only_asked_columns_come(source)


def test_at_the_end_nothing_comes(source: Source) -> None:
    suite.at_the_end_nothing_comes(source)


def test_the_fingerprint_is_plain_and_still(source: Source) -> None:
    suite.the_fingerprint_is_plain_and_still(source)


def test_settings_round_trip(source: Source) -> None:
    suite.settings_round_trip(source)


def test_lines_added_to_a_file_come_once(tmp_path: Path) -> None:
    for make, line in ((_csv, '7,1.5,new,"x",2024-05-05\n'), (_jsonl, '{"id": 7, "share": 1.0, "note": "new", "mixed": null}\n')):
        source = make(tmp_path)
        file = next(tmp_path.glob(f"a.{source.type}"))

        def grow(file: Path = file, line: str = line) -> int:
            with file.open("a") as out:
                out.write(line * 3)
            return 3

        suite.new_rows_come_once(source, grow)


def test_a_new_file_that_the_pattern_matches_comes_once(tmp_path: Path) -> None:
    for make in (_csv, _parquet):
        source = make(tmp_path)

        def grow(kind: str = source.type) -> int:
            (tmp_path / f"0.{kind}").write_bytes((tmp_path / f"a.{kind}").read_bytes())
            return 150 if kind == "csv" else 300

        suite.new_rows_come_once(source, grow)


def test_an_array_that_grew_gives_the_new_elements_once(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text('[\n  {"a": 1},\n  {"a": 2}\n]\n')

    def grow() -> int:
        file.write_text('[\n  {"a": 1},\n  {"a": 2},\n  {"a": 3}\n]\n')
        return 1

    suite.new_rows_come_once(Source.parse({"type": "jsonl", "path": str(file)}), grow)


@pytest.mark.parametrize(
    ("kind", "text", "place"),
    [
        ("csv", "a,b\n1,2\n3,4,5\n6,7\n", "line 3"),
        ("csv", 'a,b\n1,"x\ny"\n\n3\n6,7\n', "line 5"),
        ("csv", 'a,b\n1,2\n3,"4\n', "line 3"),
        ("jsonl", '{"a": 1}\n\n{"a": \n{"a": 3}\n', "line 3"),
        ("jsonl", '{"a": 1}\n[1]\n{"a": 3}\n', "line 2"),
        ("jsonl", '[{"a": 1}, {"a": }, {"a": 3}]', "element 2"),
    ],
)
def test_a_broken_row_names_itself(tmp_path: Path, kind: str, text: str, place: str) -> None:
    (tmp_path / "x").write_text(text)
    suite.a_broken_row_names_itself(Source.parse({"type": kind, "path": str(tmp_path / "x")}), place, 2 if place == "line 3" and '"4' in text else 3)


@pytest.mark.parametrize(("kind", "text"), [("csv", ""), ("csv", "\n\n"), ("csv", "a,b\n"), ("csv", "a,b"), ("jsonl", ""), ("jsonl", "[]"), ("jsonl", " \n")])
def test_an_empty_source_is_told(tmp_path: Path, kind: str, text: str) -> None:
    (tmp_path / "x").write_text(text)
    suite.an_empty_source_is_told(Source.parse({"type": kind, "path": str(tmp_path / "x")}))


def test_an_empty_parquet_file_is_told(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": pa.array([], pa.int64())}), tmp_path / "x.parquet")
    suite.an_empty_source_is_told(Source.parse({"type": "parquet", "path": str(tmp_path / "x.parquet")}))
