"""Units of a collect: chunks cleaned and treated, gathered until they make one commit."""

import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from modelinscale.core.schema import Schema
from modelinscale.data.clean import Cleaned, clean
from modelinscale.data.sources import Chunk, Cursor
from modelinscale.data.treatment import Treatment, treat

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

COMMIT_S = 60.0
"""Rows of a slow source wait no longer than this for others to make a commit with: what a kill can cost, in time."""


class Piece(NamedTuple):
    """A chunk without its raw cells, which are not needed any more."""

    cleaned: Cleaned
    cursor: Cursor
    where: str
    again: bool = False
    """See `Chunk`."""


def piece_of(schema: Schema, treatments: tuple[Treatment, ...], chunk: Chunk) -> Piece:
    """The chunk's rows as ``schema`` has them, treated."""
    return Piece(treat(clean(chunk.batch, schema), treatments), chunk.cursor, chunk.where, chunk.again)


@dataclass
class Unit:
    """The rows of one commit."""

    pieces: list[Piece] = field(default_factory=list)
    n_rows: int = 0
    n_bytes: int = 0
    facts: dict[str, Any] = field(default_factory=dict)
    """What the table keeps once these rows are in it."""

    def add(self, piece: Piece) -> None:
        self.pieces.append(piece)
        self.n_rows += piece.cleaned.batch.num_rows
        self.n_bytes += piece.cleaned.batch.nbytes

    def rows(self) -> "pa.Table":
        """All rows, in order."""
        import pyarrow as pa

        return pa.Table.from_batches([p.cleaned.batch for p in self.pieces])

    def again(self) -> "NDArray[np.bool_]":
        """(N,) by row: whether it may have come before."""
        import numpy as np

        return np.repeat([p.again for p in self.pieces], [p.cleaned.batch.num_rows for p in self.pieces])

    def faults(self) -> "pa.Table":
        """What cleaning found, by row of the unit: row, column, reason, value."""
        import pyarrow as pa

        empty = pa.table({"row": pa.array([], pa.int64()), **{n: pa.array([], pa.string()) for n in ("column", "reason", "value")}})
        found, before = [empty], 0
        for piece in self.pieces:
            if len(piece.cleaned.faults):
                part = piece.cleaned.faults.table()
                found.append(part.set_column(0, "row", pa.array(part.column("row").to_numpy() + before)))
            before += piece.cleaned.batch.num_rows
        return pa.concat_tables(found)


def units_of(
    pieces: Iterator[Piece], max_rows: int, max_bytes: int, *, max_s: float = COMMIT_S, pin: bool, clock: Callable[[], float] = time.monotonic
) -> Generator[Unit, None, None]:
    """Pieces gathered up to a commit's size, or for ``max_s`` seconds by ``clock``. A piece without rows still moves the cursor if rows follow or came before.

    ``pin``: or if there is no table yet. A source that is read from now on says in such a piece where that is.
    """
    unit, began = Unit(), clock()
    moved: Cursor | None = None  # the cursor of the last commit
    for piece in pieces:
        unit.add(piece)
        if unit.n_rows >= max_rows or unit.n_bytes >= max_bytes or (unit.n_rows and clock() - began >= max_s):
            moved = piece.cursor
            yield unit
            unit, began, pin = Unit(), clock(), False
    if unit.n_rows or (pin and unit.pieces) or (moved is not None and unit.pieces and unit.pieces[-1].cursor != moved):
        yield unit


def with_last(units: Iterator[Unit], *, wait: bool) -> Iterator[tuple[Unit, bool]]:
    """Each unit, and whether it is the last one: to know it takes holding a unit back, so only if somebody waits for it."""
    if not wait:
        yield from ((unit, False) for unit in units)
        return
    held: Unit | None = None
    for unit in units:
        if held is not None:
            yield held, False
        held = unit
    if held is not None:
        yield held, True
