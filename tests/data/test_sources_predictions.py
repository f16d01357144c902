"""A prediction log as rows: each once, whatever servers do meanwhile, and whoever was forgotten."""

import json
import os
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from modelinscale.core.errors import SourceError
from modelinscale.core.predictions import FORMAT, Head, blank, folder_of, read_head, segment_name, segments
from modelinscale.data.clean import clean
from modelinscale.data.sources import Chunk, Cursor, Source
from modelinscale.data.sources.predictions import Predictions
from modelinscale.package import open_package
from modelinscale.serve import Log
from modelinscale.serve._log import PredictionLog
from modelinscale.testing import sources as suite
from modelinscale.testing.packages import ROWS, write_package

pytestmark = pytest.mark.slow

HEAD = Head(FORMAT, "shop", "1", "0123", ({"name": "x", "type": "int"}, {"name": "time", "type": "time"}), "string", ("no", "yes"))


def write(folder: Path, ids: Sequence[str], *, n: int = 0, head: Head = HEAD, **cells: Any) -> Path:
    """Appends a segment's rows."""
    path = folder_of(folder, "shop") / segment_name(datetime(2026, 11, 26, tzinfo=UTC), 7, n)
    path.parent.mkdir(exist_ok=True)
    before = b"" if path.exists() else head.line()
    common = {"time": "2026-11-26T02:03:04.000005Z", "version": head.version, "prediction": "no", "probabilities": {"no": 0.75, "yes": 0.25}}
    lines = [json.dumps({"id": id, **common, "inputs": {"x": i, "time": "2020-01-01T00:00:00", **cells}}) for i, id in enumerate(ids)]
    with path.open("ab") as file:
        file.write(before + "".join(line + "\n" for line in lines).encode())
    return path


def shop(folder: Path, **settings: Any) -> Predictions:
    return Predictions(model="shop", path=folder, **settings)


def ids(chunks: Sequence[Chunk]) -> list[str]:
    return [id for chunk in chunks for id in chunk.batch.column("id").to_pylist()]


def read(source: Source, after: Cursor | None = None) -> list[Chunk]:
    return list(source.read(after, source.columns()))


def test_columns_are_typed_and_an_input_named_like_the_logs_own_is_told_apart(tmp_path: Path) -> None:
    write(tmp_path, ["a/0", "a/1"])
    source = shop(tmp_path)
    expected = {
        "id": "string", "time": "time", "version": "string", "x": "int", "input_time": "time", "prediction": "string", "probability_no": "float",
        "probability_yes": "float",
    }  # fmt: skip
    assert {c.name: c.type for c in source.columns().columns} == expected
    (chunk,) = read(source)
    cleaned = clean(chunk.batch, source.columns())
    assert not len(cleaned.faults)
    row = cleaned.batch.to_pylist()[1]
    assert (row["time"], row["input_time"]) == (datetime(2026, 11, 26, 2, 3, 4, 5), datetime(2020, 1, 1))
    assert (row["x"], row["prediction"], row["probability_no"]) == (1, "no", 0.75)


def test_what_a_server_logged_comes_typed_as_the_manifest_says(tmp_path: Path) -> None:
    package = open_package(write_package(tmp_path / "p", name="tiny"))
    log = PredictionLog(tmp_path, package, Log())
    tensors = package.tensors(ROWS)
    answer = package.run(tensors)
    log.put([("r", len(ROWS))], tensors, answer)
    log.close()
    source = Predictions(model="tiny", path=tmp_path)
    schema = source.columns()
    assert {c.name: c.type for c in schema.columns if c.name in {i.name for i in package.inputs}} == {c.name: c.column.type for c in package.inputs}
    cleaned = clean(read(source)[0].batch, schema)
    assert not len(cleaned.faults)
    found = cleaned.batch.to_pylist()
    assert [row["prediction"] for row in found] == answer.prediction.tolist()
    again = [{c.name: row[c.name] for c in package.inputs} for row in found]
    assert package.predict(again) == package.predict(ROWS)


def test_segments_that_grow_begin_late_or_go_give_each_row_once(tmp_path: Path) -> None:
    first = write(tmp_path, ["a", "b"], n=1)
    source = shop(tmp_path)
    chunks = read(source)
    with first.open("ab") as file:
        file.write(b'{"id": "half')
    write(tmp_path, ["c"], n=0)  # of another server, whose clock is behind
    more = read(source, chunks[-1].cursor)
    assert ids(more) == ["c"]
    with first.open("ab") as file:
        file.write(b'", "inputs": {}}\n')
    write(tmp_path, ["d"], n=2)
    rest = read(source, more[-1].cursor)
    assert ids(rest) == ["half", "d"]
    first.unlink()
    write(tmp_path, ["e"], n=2)
    last = read(source, rest[-1].cursor)
    assert ids(last) == ["e"]
    assert first.name not in last[-1].cursor["segments"]
    assert read(source, last[-1].cursor) == []


def test_new_rows_show_in_the_fingerprint_and_come_once(tmp_path: Path) -> None:
    write(tmp_path, ["a", "b"])

    def grow() -> int:
        write(tmp_path, ["c"])
        write(tmp_path, ["d", "e"], n=1)
        return 3

    suite.new_rows_come_once(shop(tmp_path), grow)


def test_versions_with_other_inputs_give_all_columns(tmp_path: Path) -> None:
    write(tmp_path, ["a"])
    head = HEAD._replace(version="2", columns=({"name": "x", "type": "float"}, {"name": "shop", "type": "string"}, {"name": "time", "type": "string"}))
    write(tmp_path, ["b"], n=1, head=head, x=1.5, shop="s", time="noon")
    source = shop(tmp_path)
    types = {c.name: c.type for c in source.columns().columns}
    assert (types["x"], types["shop"], types["input_time"]) == ("float", "string", "string")
    rows = [row for chunk in read(source) for row in clean(chunk.batch, source.columns()).batch.to_pylist()]
    assert [(r["x"], r["shop"], r["input_time"]) for r in rows] == [(0.0, None, "2020-01-01T00:00:00"), (1.5, "s", "noon")]


def test_rows_that_were_overwritten_are_gone_and_no_other_is_lost_or_doubled(tmp_path: Path) -> None:
    path = write(tmp_path, [f"r{i}" for i in range(40)])
    source = shop(tmp_path, block=1024)
    straight = read(source)
    middle = straight[len(straight) // 2].cursor
    read_before = ids(straight[: len(straight) // 2 + 1])
    about = path.stat()
    assert blank(path, lambda line: b'"r3' in line, dry_run=True)[0] == 11
    assert blank(path, lambda line: b'"r3' in line)[0] == 11
    assert blank(path, lambda line: b'"r3' in line)[0] == 0
    assert b'"r3' not in path.read_bytes()
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (about.st_size, about.st_mtime_ns)
    stay = [f"r{i}" for i in range(40) if not f"r{i}".startswith("r3")]
    assert ids(read(source)) == stay
    assert ids(read(source, middle)) == [id for id in stay if id not in read_before]
    write(tmp_path, ["new"])
    assert ids(read(source, straight[-1].cursor)) == ["new"]


def test_half_a_line_at_the_end_of_a_closed_segment_is_overwritten_too(tmp_path: Path) -> None:
    path = write(tmp_path, ["a"])
    with path.open("ab") as file:
        file.write(b'{"id": "perso')
    assert blank(path, lambda line: False)[0] == 0
    assert b"perso" not in path.read_bytes()
    assert ids(read(shop(tmp_path))) == ["a"]


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="nothing was logged of the model 'shop' yet"):
        shop(tmp_path).columns()
    path = write(tmp_path, ["a", "b"])
    cursor = read(shop(tmp_path))[-1].cursor
    schema = shop(tmp_path).columns()
    content = path.read_bytes()
    os.truncate(path, len(content) - 5)
    with pytest.raises(SourceError, match="shrank"):
        list(shop(tmp_path).read(cursor, schema))
    with pytest.raises(SourceError, match="this cursor is not one of a prediction log"):
        list(shop(tmp_path).read({"form": 2}, schema))
    path.write_bytes(content.replace(b'"mis_predictions": 1', b'"mis_predictions": 2'))
    with pytest.raises(SourceError, match="has format 2; this version of modelinscale reads up to 1"):
        shop(tmp_path).columns()
    path.write_bytes(b'{"a": 1}\n')
    with pytest.raises(SourceError, match="is no segment of a prediction log"):
        shop(tmp_path).columns()
    path.write_bytes(b'{"mis_pred')  # a server that is just beginning
    with pytest.raises(SourceError, match="nothing was logged"):
        shop(tmp_path).columns()


def test_a_damaged_line_is_one_broken_row(tmp_path: Path) -> None:
    path = write(tmp_path, ["a"])
    with path.open("ab") as file:
        file.write(b'{"id": \xff\n')
    write(tmp_path, ["b"])
    (chunk,) = read(shop(tmp_path))
    assert ids([chunk]) == ["a", None, "b"]
    assert [why is not None for why in chunk.batch.column("_mis_broken").to_pylist()] == [False, True, False]


def test_a_reader_of_two_servers_that_write_on_gets_each_row_once_while_persons_are_forgotten(tmp_path: Path) -> None:
    package = open_package(write_package(tmp_path / "p", name="tiny"))
    rows = [{"city": f"c{i % 10}"} for i in range(50)]
    tensors = package.tensors(rows)
    answer = package.run(tensors)
    logs = [PredictionLog(tmp_path, package, Log(segment=20_000)) for _ in range(2)]
    source = Predictions(model="tiny", path=tmp_path, block=4096)
    found: list[tuple[str, str]] = []
    cursor: Cursor | None = None
    expected = 0
    for round_ in range(40):
        for k, log in enumerate(logs):
            log.put([(f"{k}-{round_}", len(rows))], tensors, answer)
            expected += len(rows)
        if round_ == 39:
            for log in logs:
                log.close()
        time.sleep(0.03)
        if not segments(source.place):
            continue
        for segment in segments(source.place):
            blank(segment, lambda line: b'"city":"c3"' in line)
        for chunk in source.read(cursor, source.columns()):
            cursor = chunk.cursor
            found += zip(chunk.batch.column("id").to_pylist(), chunk.batch.column("city").to_pylist(), strict=True)
    assert len(segments(source.place)) > 4
    assert len({id for id, _ in found}) == len(found)
    kept = [id for id, city in found if city != "c3"]
    assert len(kept) == expected * 9 // 10


GOLDEN = Path(__file__).parents[1] / "golden" / "predictions-1"


def test_a_log_of_every_earlier_format_is_still_read() -> None:
    assert [p.name for p in sorted(GOLDEN.parent.glob("predictions-*"))] == [f"predictions-{n}" for n in range(1, FORMAT + 1)]
    source = Predictions(model="tiny", path=GOLDEN)
    assert read_head(segments(source.place)[0]) is not None
    cleaned = clean(read(source)[0].batch, source.columns())
    assert not len(cleaned.faults)
    assert [row["id"] for row in cleaned.batch.to_pylist()] == [f"golden/{i}" for i in range(len(ROWS))]
    assert cleaned.batch.column("amount").to_pylist() == [row["amount"] for row in ROWS]
