"""Chunks of a first source with what others know of their rows. N rows of a chunk."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from modelinscale.core.schema import Column, Schema
from modelinscale.data.sources import Chunk
from modelinscale.data.sources._join_rules import Other, lookups

if TYPE_CHECKING:
    import pyarrow as pa

    from modelinscale.data.join import Right


class Taken(NamedTuple):
    """What is taken from another source."""

    other: Other
    theirs: Schema
    """All of its columns."""
    columns: dict[str, Column]
    """Its own name of a column, and the column as it is called and held here."""


def with_others(unit: list[Chunk], taken: list[Taken], rights: "list[Right]", main: Schema, schema: Schema) -> Iterator[Chunk]:
    """The chunks with the others' columns, in the order of the schema."""
    import pyarrow as pa

    from modelinscale.data.arrow import BROKEN
    from modelinscale.data.clean import clean

    found: dict[str, pa.ChunkedArray] = {}
    for (other, _, columns), right in zip(taken, rights, strict=True):
        join = other.join
        numbers = lookups(join)
        typed = main.only(tuple(dict.fromkeys(numbers.values())))
        left = pa.Table.from_batches([clean(c.batch, typed).batch for c in unit]) if unit else None
        if left is not None:
            looked = right.lookup(pa.table({name: left.column(of) for name, of in numbers.items()}))
            found |= {column.name: looked.column(i) for i, column in enumerate(columns.values())}
    start = 0
    for chunk in unit:
        n, own = chunk.batch.num_rows, chunk.batch.schema.names
        cells = {
            name: _joined(found[name].slice(start, n)) if name in found else chunk.batch.column(name) for name in schema.names if name in found or name in own
        }
        if BROKEN in own:
            cells[BROKEN] = chunk.batch.column(BROKEN)
        yield Chunk(pa.record_batch(cells), {"main": chunk.cursor}, chunk.where, tuple(n for n in chunk.more if n not in main), chunk.again)
        start += n


def _joined(parts: "pa.ChunkedArray") -> "pa.Array":
    import pyarrow as pa

    return pa.concat_arrays(parts.chunks) if parts.num_chunks != 1 else parts.chunk(0)


def units(first: Chunk, rest: Iterator[Chunk], n_rows: int) -> Iterator[list[Chunk]]:
    """Chunks gathered up to a number of rows."""
    unit, n = [first], first.batch.num_rows
    for chunk in rest:
        if n >= n_rows:
            yield unit
            unit, n = [], 0
        unit.append(chunk)
        n += chunk.batch.num_rows
    yield unit
