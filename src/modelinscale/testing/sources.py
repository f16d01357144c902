"""What every source must do."""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from modelinscale.core.errors import SourceError
from modelinscale.core.schema import Schema
from modelinscale.data.sources import Chunk, Cursor, Source

if TYPE_CHECKING:
    import pyarrow as pa

MOST_CURSORS = 12
"""Cursors tried by one check, evenly spread: reading again from each costs a read of the rest."""


def _cleaned(chunks: list[Chunk], schema: Schema) -> "pa.Table":
    """The rows of some chunks in the lake's types."""
    import pyarrow as pa

    from modelinscale.data.arrow import arrow_schema
    from modelinscale.data.clean import clean

    return pa.Table.from_batches([clean(c.batch, schema).batch for c in chunks], schema=arrow_schema(schema))


def _stored(cursor: Cursor) -> Cursor:
    """A cursor as it comes back from where it was kept."""
    found = json.loads(json.dumps(cursor, allow_nan=False))
    assert isinstance(found, dict)
    return found


def from_every_cursor_the_rest_comes_once(source: Source) -> None:
    """Reading again from any cursor, kept as JSON meanwhile, gives exactly the rows that followed it. Needs a source of several chunks."""
    schema = source.columns()
    chunks = list(source.read(None, schema))
    assert len(chunks) > 1, f"{source.type}: one chunk shows nothing; give a source with more rows or smaller chunks"
    for i in sorted({round(k * (len(chunks) - 1) / MOST_CURSORS) for k in range(MOST_CURSORS + 1)}):
        rest = list(source.read(_stored(chunks[i].cursor), schema))
        found, expected = _cleaned(rest, schema), _cleaned(chunks[i + 1 :], schema)
        assert found.equals(expected), f"{source.type}: after chunk {i} came {found.num_rows} rows, expected {expected.num_rows}, or other ones"


def reading_twice_gives_the_same_chunks(source: Source) -> None:
    """The same rows, cut at the same places: chunks do not depend on which thread was faster."""
    schema = source.columns()
    one, two = list(source.read(None, schema)), list(source.read(None, schema))
    assert [(c.batch.num_rows, c.cursor, c.where) for c in one] == [(c.batch.num_rows, c.cursor, c.where) for c in two]
    assert _cleaned(one, schema).equals(_cleaned(two, schema))


def chunks_match_the_schema(source: Source) -> None:
    """Every chunk has rows, says where they are from, holds the schema's columns and cleans without a fault."""
    from modelinscale.data.arrow import BROKEN
    from modelinscale.data.clean import clean

    schema = source.columns()
    assert schema.columns, f"{source.type}: no columns"
    for chunk in source.read(None, schema):
        assert chunk.batch.num_rows > 0, f"{source.type}: a chunk without rows"
        assert chunk.where, f"{source.type}: a chunk that does not say where it is from"
        assert [n for n in chunk.batch.schema.names if n != BROKEN] == list(schema.names)
        faults = clean(chunk.batch, schema).faults
        assert not len(faults), f"{source.type}: {faults.table().slice(0, 3).to_pylist()}"


def only_asked_columns_come(source: Source) -> None:
    """A reader that asks for some columns, in an order of its own, gets those, with the same values."""
    schema = source.columns()
    asked = schema.only(schema.names[::-2])
    some, all_ = _cleaned(list(source.read(None, asked)), asked), _cleaned(list(source.read(None, schema)), schema)
    assert some.equals(all_.select(list(asked.names)))


def at_the_end_nothing_comes(source: Source) -> None:
    """After the last cursor there is nothing until something new is there."""
    schema = source.columns()
    *_, last = source.read(None, schema)
    assert list(source.read(_stored(last.cursor), schema)) == []


def new_rows_come_once(source: Source, grow: Callable[[], int]) -> None:
    """After ``grow`` added rows (it returns how many), the last cursor gives those and no other, and the fingerprint is another."""
    schema = source.columns()
    chunks = list(source.read(None, schema))
    before = source.fingerprint()
    n_new = grow()
    assert source.fingerprint() != before, f"{source.type}: the fingerprint does not show new rows"
    found = _cleaned(list(source.read(_stored(chunks[-1].cursor), schema)), schema)
    assert found.num_rows == n_new
    old = _cleaned(chunks, schema).num_rows
    everything = _cleaned(list(source.read(None, schema)), schema)
    assert everything.num_rows == old + n_new


def the_fingerprint_is_plain_and_still(source: Source) -> None:
    """It can be kept as JSON, and stays while nothing changes; so does the feed."""
    assert json.loads(json.dumps(source.fingerprint())) == json.loads(json.dumps(source.fingerprint()))
    assert json.loads(json.dumps(source.feed())) == json.loads(json.dumps(source.feed()))


def an_empty_source_is_told(source: Source) -> None:
    """Without rows there are either no columns, said by `SourceError`, or columns and no chunk."""
    try:
        schema = source.columns()
    except SourceError:
        return
    assert list(source.read(None, schema)) == []


def a_broken_row_names_itself(source: Source, place: str, n_rows: int) -> None:
    """Of ``n_rows`` rows exactly one is broken: it is kept, all null, says why, and names its ``place`` (``line 3``)."""
    import pyarrow as pa

    from modelinscale.data.arrow import BROKEN
    from modelinscale.data.clean import clean

    schema = source.columns()
    chunks = list(source.read(None, schema))
    assert sum(c.batch.num_rows for c in chunks) == n_rows
    reasons = [r for c in chunks if BROKEN in c.batch.schema.names for r in c.batch.column(BROKEN).to_pylist() if r is not None]
    assert len(reasons) == 1, f"{source.type}: {len(reasons)} broken rows, expected one"
    assert place in reasons[0], f"{source.type}: {reasons[0]!r} does not name {place}"
    for chunk in chunks:
        cleaned = clean(chunk.batch, schema)
        for row in cleaned.faults.row.to_pylist():
            cells = pa.Table.from_batches([cleaned.batch]).slice(row, 1).to_pylist()[0]
            assert set(cells.values()) == {None}, f"{source.type}: a broken row has cells: {cells}"


def settings_round_trip(source: Source) -> None:
    """As plain data and back it is the same source."""
    again = Source.parse(json.loads(json.dumps(source.plain())))
    assert again == source
    assert again.feed() == source.feed()
