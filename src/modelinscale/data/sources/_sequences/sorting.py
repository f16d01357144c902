"""Rows put in order within a budget: what does not fit lies on disk in sorted runs, which are merged as they are read.

The order is that of one sort of all rows at once, since places differ: no budget changes what comes out.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from modelinscale.data.sources._sequences.stored import Stored

if TYPE_CHECKING:
    import polars as pl

_SHARE = 5
"""A run takes at most this share of the budget: sorting it takes it twice again, and its keys once."""
_MERGED = 32
"""Runs that are merged at once."""
_RUN = "_mis_run"
_LEAST_ROWS = 64


class Sorter:
    """Add frames of the same columns, then go through `blocks` once."""

    def __init__(self, order: Sequence[str], budget_bytes: int, folder: Path) -> None:
        """``folder``: where runs are kept; whoever made it removes it."""
        self._order, self._budget, self._folder = list(order), budget_bytes, folder
        self._waiting: list[pl.DataFrame] = []
        self._n_bytes = 0
        self._runs: list[Stored] = []
        self.n_runs = 0
        """Written so far."""

    @property
    def on_disk(self) -> bool:
        """Whether rows did not fit."""
        return bool(self._runs)

    def add(self, rows: "pl.DataFrame") -> None:
        """Some rows, in any order."""
        self._waiting.append(rows)
        self._n_bytes += int(rows.estimated_size())
        if self._n_bytes > self._budget // _SHARE:
            self._runs.append(self._stored(iter([self._sorted()])))

    def blocks(self) -> "Iterator[pl.DataFrame]":
        """All rows in order; all at once where they were held."""
        if not self._runs:
            if self._waiting:
                yield self._sorted()
            return
        if self._waiting:
            self._runs.append(self._stored(iter([self._sorted()])))
        while len(self._runs) > _MERGED:
            some, self._runs = self._runs[:_MERGED], self._runs[_MERGED:]
            self._runs.append(self._stored(merged([one.blocks() for one in some], self._order)))
            for one in some:
                one.remove()
        yield from merged([one.blocks() for one in self._runs], self._order)
        for one in self._runs:
            one.remove()

    def _sorted(self) -> "pl.DataFrame":
        import polars as pl

        found = pl.concat(self._waiting, rechunk=False).sort(self._order)
        self._waiting.clear()
        self._n_bytes = 0
        return found

    def _stored(self, blocks: "Iterator[pl.DataFrame]") -> Stored:
        self.n_runs += 1
        # While runs are merged two blocks of each are held, twice over while they are sorted.
        return Stored.write(self._folder / f"run-{self.n_runs}.arrow", blocks, self._budget // (4 * _SHARE * _MERGED), _LEAST_ROWS)


def merged(runs: "Sequence[Iterator[pl.DataFrame]]", order: list[str]) -> "Iterator[pl.DataFrame]":
    """Sorted runs, each in blocks, as one, in blocks of other sizes.

    Of every run at least a block is held, or its rest. Rows up to the first of the runs' last held rows are in their place: nothing before them can come.
    """
    import polars as pl

    left = np.ones(len(runs), np.bool_)  # runs that have more blocks
    usual = np.ones(len(runs), np.int64)  # rows of their first block
    held: pl.DataFrame | None = None
    while True:
        n_held = np.zeros(len(runs), np.int64) if held is None else np.bincount(held[_RUN].to_numpy(), minlength=len(runs))
        parts = [] if held is None else [held]
        for number in np.flatnonzero(left & (n_held < usual)).tolist():
            block = next(runs[number], None)
            left[number] = block is not None
            if block is not None:
                usual[number] = max(usual[number], len(block))
                parts.append(block.with_columns(pl.lit(number, pl.Int32).alias(_RUN)))
        if not parts:
            return
        rows = pl.concat(parts, rechunk=False).sort(order) if len(parts) > 1 or held is None else parts[0]
        ends = np.full(len(runs), len(rows) - 1, np.int64)
        ends[rows[_RUN].to_numpy()] = np.arange(len(rows))  # of each run the last row held
        n_safe = int(ends[left].min()) + 1 if left.any() else len(rows)
        yield rows.head(n_safe).drop(_RUN)
        held = rows.slice(n_safe) if n_safe < len(rows) else None
