"""Sequences of a column as one matrix of all steps. N rows, M steps of all rows together, D channels."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.errors import DataError
from modelinscale.features.vector import as_float32

if TYPE_CHECKING:
    import polars as pl


class Ragged(NamedTuple):
    """Rows of steps, the last step of each with a number in it."""

    numbers: NDArray[np.float32]
    """(M, D), row after row; NaN where a number is missing."""
    sizes: NDArray[np.int64]
    """(N,) how many steps each row has."""

    @classmethod
    def of(cls, values: "pl.Series") -> "Ragged":
        """Of a column of lists of numbers, or of lists of arrays of one width. A missing row has no steps."""
        import polars as pl

        kind = values.dtype
        if not isinstance(kind, pl.List):
            raise DataError(f"column {values.name!r}: a sequence is a list of numbers or of lists of numbers, found {kind}.")
        sizes = values.list.len().fill_null(0).to_numpy().astype(np.int64)
        inner = values.explode(empty_as_null=False, keep_nulls=False) if len(values) else pl.Series([], dtype=kind.inner)
        if isinstance(inner.dtype, pl.Array):
            numbers = as_float32(inner)
        else:
            numbers = np.ascontiguousarray(inner.cast(pl.Float32).fill_null(float("nan")).to_numpy(), np.float32)[:, None]
        return cls(numbers, sizes)._trimmed()

    @property
    def width(self) -> int:
        return int(self.numbers.shape[1])

    def rows(self) -> NDArray[np.int64]:
        """(M,) which row each step is of."""
        return np.repeat(np.arange(len(self.sizes)), self.sizes)

    def places(self) -> NDArray[np.int64]:
        """(M,) which step of its row each is, from 0."""
        starts = np.cumsum(self.sizes) - self.sizes
        return np.arange(len(self.numbers)) - np.repeat(starts, self.sizes)

    def cut(self, most: int) -> "Ragged":
        """Of each row the first steps, at most so many."""
        return Ragged(self.numbers[self.places() < most], np.minimum(self.sizes, most))._trimmed()

    def _trimmed(self) -> "Ragged":
        there = ~np.isnan(self.numbers).all(axis=1)
        if there.all():
            return self
        sizes, places = np.zeros_like(self.sizes), self.places()
        np.maximum.at(sizes, self.rows()[there], places[there] + 1)
        return Ragged(self.numbers[places < sizes[self.rows()]], sizes)
