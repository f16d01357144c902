"""Scores of many rows: each block of them is read, encoded and scored in one go, wherever the work is done, and nothing but the scores comes back.

A block is `BLOCK_ROWS` rows of a part, in the order of the table, or fewer where memory is short (`SCORED_ROWS` or a multiple): the last bits of a score
never depend on partitions, on workers or on memory.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.encoded import joined
from modelinscale.models import BLOCK_ROWS, Model, Scores, Weights

if TYPE_CHECKING:
    from modelinscale.data.partitions import Chosen, Rows
    from modelinscale.encode import Encoder

# N rows of the table.


@dataclass(frozen=True)
class Lot:
    """The rows of one block, named rather than held: what is sent to where they are scored."""

    pieces: "tuple[Chosen, ...]"
    """In the order of the table; together at least one row."""

    @property
    def where(self) -> str:
        """What an error calls it."""
        first, last = self.pieces[0].partition, self.pieces[-1].partition
        return f"rows {first.start:,} to {last.start + last.n_rows - 1:,} of the table"


def lots(rows: "Rows", mask: NDArray[Any], value: int, n_rows: int = BLOCK_ROWS) -> Iterator[Lot]:
    """The rows where ``mask``, (N,), holds ``value``, ``n_rows`` a lot, the last one smaller. No row of the table is read for two lots."""
    from modelinscale.data.partitions import Chosen

    pieces: list[Chosen] = []
    n = 0
    for partition in rows.partitions:
        here = np.asarray(mask[partition.start : partition.start + partition.n_rows]) == value
        at = np.flatnonzero(here)
        while len(at):
            taken, at = at[: n_rows - n], at[n_rows - n :]
            a, b = int(taken[0]), int(taken[-1]) + 1
            span = replace(partition, start=partition.start + a, n_rows=b - a, rows=None if partition.rows is None else partition.rows[a:b])
            pieces.append(Chosen.of(span, here[a:b]))
            n += len(taken)
            if n == n_rows:
                yield Lot(tuple(pieces))
                pieces, n = [], 0
    if pieces:
        yield Lot(tuple(pieces))


@dataclass(frozen=True)
class Scorer:
    """Scores lots: small beside the rows, and can be sent to where they are."""

    model: Model
    weights: Weights
    encoder: "Encoder"

    def scores(self, lot: Lot) -> Scores:
        """(n,) or (n, C)."""
        return self.model.predict(self.weights, joined([self.encoder.piece(piece) for piece in lot.pieces]))
