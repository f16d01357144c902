"""A table in partitions is the table, whatever the partitions, and they fit where they are worked on."""

import pickle
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from modelinscale.core.errors import DataError
from modelinscale.core.schema import Column, Schema
from modelinscale.data.arrow import arrow_schema
from modelinscale.data.lake import create_table
from modelinscale.data.partitions import LEAST_ROWS, MOST_ROWS, Chosen, Partition, Rows, open_rows, read, rows_of, size
from modelinscale.encode import Encoder, observe_all, observe_piece
from modelinscale.features.category import Category
from modelinscale.features.number import Number

N = 20_000
SCHEMA = Schema(columns=(Column(name="x", type="float"), Column(name="word", type="string"), Column(name="i", type="int")))


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A table of several commits."""
    place = str(tmp_path_factory.mktemp("lake") / "t")
    table = create_table(place, SCHEMA, _rows(0, N // 2), batch="a")
    for start in range(N // 2, N, 2_500):
        table = table.append(_rows(start, 2_500), batch=str(start))
    return place


def _rows(start: int, n: int) -> pa.Table:
    at = np.arange(start, start + n)
    x = pa.array(np.sin(at), mask=at % 7 == 0)
    return pa.table({"x": x, "word": pa.array([f"w{i % 13}" for i in at]), "i": pa.array(at)}, schema=arrow_schema(SCHEMA))


@pytest.fixture(scope="module")
def held(uri: str) -> Rows:
    return open_rows(uri, 5, SCHEMA.names, hold=True)


@pytest.fixture(scope="module")
def cut(uri: str, held: Rows) -> Rows:
    """The same rows, read 1,500 at a time."""
    first = held.partitions[0]
    step = 1_500
    return Rows(tuple(type(first)(uri, 5, s, min(step, N - s)) for s in range(0, N, step)), SCHEMA.names, held.row_bytes)


def test_partitions_put_together_are_the_table(held: Rows, cut: Rows) -> None:
    assert held.held
    assert not cut.held
    whole = pl.concat([rows for _, rows in cut.blocks(SCHEMA.names)])
    assert whole.equals(pl.concat([rows for _, rows in held.blocks(SCHEMA.names)]))
    assert whole["i"].to_list() == list(range(N))


@pytest.mark.parametrize("n", [1, 1_500, 4_000, N, 2 * N])
def test_the_head_may_reach_over_several_partitions(held: Rows, cut: Rows, n: int) -> None:
    assert cut.head(n, ["i", "word"]).equals(held.head(n, ["i", "word"]))


def test_rows_taken_one_by_one_are_those_of_the_table(held: Rows, cut: Rows) -> None:
    index = np.flatnonzero(np.arange(N) % 977 == 3)
    assert cut.take(index, ["i"])["i"].to_list() == index.tolist()
    assert cut.take(index, SCHEMA.names).equals(held.take(index, SCHEMA.names))
    assert len(cut.take(np.zeros(0, np.int64), ["i"])) == 0


def test_only_chosen_rows_are_read_and_the_choice_travels_as_bits(cut: Rows) -> None:
    parts = (np.arange(N) // 3_000 % 2).astype(np.int8)
    pieces = [pickle.loads(pickle.dumps(piece)) for piece in cut.chosen(parts, 1)]  # noqa: S301  # our own
    assert pl.concat([piece.read(["i"]) for piece in pieces])["i"].to_list() == np.flatnonzero(parts == 1).tolist()
    assert len(pieces) < len(cut.partitions)
    assert all(len(pickle.dumps(piece)) < 1_000 for piece in pieces)


def test_a_piece_names_its_rows(cut: Rows) -> None:
    piece = Chosen.of(cut.partitions[1], np.ones(1_500, np.bool_))
    assert piece.bits is None
    assert piece.where == "rows 1,500 to 2,999 of the table"


def test_a_small_budget_cuts_the_table_and_a_large_one_holds_it(uri: str) -> None:
    assert open_rows(uri, 5, SCHEMA.names, memory_bytes=2 << 30).held
    small = open_rows(uri, 5, SCHEMA.names, hold=False)
    assert not small.held
    assert sum(p.n_rows for p in small.partitions) == N


def test_partitions_shrink_with_the_budget_and_grow_to_a_limit() -> None:
    assert size(100.0, 10 << 30, 2) == MOST_ROWS
    assert size(100.0, 64 << 20, 2) == pytest.approx((64 << 20) * 0.5 / 3 / 5 / 100, rel=0.01)
    assert size(100.0, 64 << 20, 8) < size(100.0, 64 << 20, 2)


def test_rows_too_large_for_the_budget_are_refused_with_what_to_do() -> None:
    with pytest.raises(DataError, match=r"rows of 1,000,000 bytes are too large for 4 workers in 64 MiB.*Raise `compute.memory`"):
        size(1e6, 64 << 20, 4)
    assert size(2e3, 64 << 20, 4) >= LEAST_ROWS


def test_rows_in_memory_are_partitions_too() -> None:
    frame = pl.DataFrame({"a": range(10)})
    rows = rows_of(frame, 3)
    assert [p.n_rows for p in rows.partitions] == [3, 3, 3, 1]
    assert read(rows.partitions[1], ["a"])["a"].to_list() == [3, 4, 5]
    with pytest.raises(DataError, match="there is no column 'b'"):
        rows.take(np.zeros(1, np.int64), ["b"])


def test_a_slice_of_the_lake_ends_where_the_table_ends(uri: str) -> None:
    from modelinscale.data.lake import open_table

    table = open_table(uri)
    assert table.slice(N - 5, 100, ["i"])["i"].to_pylist() == list(range(N - 5, N))
    assert table.slice(9_990, 20, ["i"])["i"].to_pylist() == list(range(9_990, 10_010))  # over the end of a file


@pytest.mark.parametrize("n_rows", [7_000, 120])
def test_words_read_as_codes_teach_and_encode_as_rows_do(n_rows: int, tmp_path: Path) -> None:
    at = np.arange(9_000)
    words = pa.array([None if i % 11 == 0 else "" if i % 13 == 0 else f"w{i % 29}" for i in at.tolist()])
    cells = {"often": words, "once": pa.array([f"id-{i}" for i in at.tolist()]), "number": pa.array(at % 7), "x": pa.array(np.cos(at))}
    types = {"often": "string", "once": "string", "number": "int", "x": "float"}
    schema = Schema.model_validate({"columns": [{"name": name, "type": type} for name, type in types.items()]})
    place = str(tmp_path / "t")
    table = create_table(place, schema, pa.table(cells, schema=arrow_schema(schema)), batch="a")
    features = {"often": Category(keep=20), "once": Category(at_least=1, keep=500), "number": Category(), "x": Number()}
    chosen = Chosen.of(Partition(place, table.version, 1_000, n_rows), at[:n_rows] % 3 > 0)
    _, coded = chosen.read_coded(list(features), ["often", "once", "number"])
    assert list(coded) == ["often"], "words that hardly repeat, and numbers, come as rows"

    assert len(coded["often"].slim().words) <= len(coded["often"].words), "of few rows, only their words are encoded"
    frame = chosen.read(list(features))
    states = observe_piece(features, chosen).settled(features)
    assert states == observe_all(features, frame)
    encoder = Encoder.of(features, states, "scaled")
    for name, block in encoder.encode(frame).blocks.items():
        np.testing.assert_array_equal(np.asarray(encoder.piece(chosen)[name]), np.asarray(block), strict=True)
