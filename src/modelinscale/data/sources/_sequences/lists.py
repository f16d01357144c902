"""One row a key: its numbers as lists, in the order of time."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from modelinscale.data.sources._sequences import NEW, Wanted
from modelinscale.data.sources._sequences.stored import Stored, whole

if TYPE_CHECKING:
    import polars as pl


def lists(rows: Stored, wanted: Wanted) -> "Iterator[pl.DataFrame]":
    """The keys that have new rows, whole, in order. What is held is a block and the rows of its last key, which are `Wanted.longest` at most."""
    import polars as pl

    numbers = [pl.col(n).cast(pl.Float32).fill_null(float("nan")) for n in wanted.values]
    for block in whole(rows.blocks(), wanted.by):
        found = block.group_by(list(wanted.by), maintain_order=True).agg(
            pl.col(wanted.order_by).last(), *(pl.col(n).first() for n in wanted.keep), *numbers, pl.col(NEW).any()
        )
        yield found.filter(NEW)
