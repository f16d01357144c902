"""All rows of the other source in the order of key and moment, those that are new marked, and held against those that were there before.

It is read after the cursor, then from the start, then what came meanwhile. All three are sorted together: rows of one place then stand side by side, and
what a row is follows from which readings brought it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from modelinscale.core.errors import SourceError
from modelinscale.core.schema import Schema
from modelinscale.data.sources import Cursor, Source
from modelinscale.data.sources._sequences import NEW, Wanted
from modelinscale.data.sources._sequences.checks import Checks
from modelinscale.data.sources._sequences.sorting import Sorter
from modelinscale.data.sources._sequences.stored import Stored, whole

if TYPE_CHECKING:
    import polars as pl

_HASH, _FROM, _PLACE = "_mis_hash", "_mis_from", "_mis_place"
_ALL, _SINCE, _LATER = 0, 1, 2
"""Which reading brought a row."""
_BLOCKS = 32
"""A block of the ordered rows takes this part of the budget."""
_MASK = (1 << 63) - 1


@dataclass(frozen=True)
class Held:
    """Rows in their order, and where the other source stands then."""

    rows: Stored
    cursor: Cursor
    told: list[int]
    """How many rows, and the sum of their hashes: the same for the same rows in any order."""


def hold(source: Source, wanted: Wanted, since: Cursor | None, until: Cursor | None, known: list[int] | None, folder: Path) -> Held | None:
    """Rows up to ``until`` (left out: up to the last of those after ``since``); None where none came after ``since``. ``known``: what stood there then.

    Raises `SourceError` where rows have no place of their own, were changed or removed, or are not what is wanted.
    """
    theirs = source.columns().only(list(wanted.used))
    sorter = Sorter([*wanted.place, _FROM], wanted.memory, folder)
    resumed = until is not None
    if since is None and not resumed:
        until, n = _read(source, theirs, None, sorter, _ALL, wanted)
        if not n:
            return None
    else:
        if since is not None:
            end, n = _read(source, theirs, since, sorter, _SINCE, wanted)
            if not n and not resumed:
                return None
            until = until or end
        _read(source, theirs, None, sorter, _ALL, wanted)
        assert until is not None
        # Read last: whatever came while the others were read is among these, and is left for the next collect.
        _read(source, theirs, until, sorter, _LATER, wanted)
    assert until is not None
    found = _Reduced(wanted, all_new=since is None)
    rows = _kept(found.of(sorter.blocks()), sorter, wanted, folder)
    found.refuse_same()
    if found.n_new != found.n_expected or (resumed and not found.n_new):
        raise SourceError(f"{wanted.label}: rows were changed or removed while they were read.", fix="Collect again when nobody writes to it.")
    if known is not None:  # None: a cursor of a version that did not tell
        _refuse_changed(found, known, wanted, resumed=resumed)
    found.checks.refuse()
    return Held(rows, until, found.told) if found.n_new and rows is not None else None


def _read(source: Source, theirs: Schema, after: Cursor | None, sorter: Sorter, reading: int, wanted: Wanted) -> tuple[Cursor | None, int]:
    """The other source's rows after a cursor into the sorter, each with a hash of what it says; the cursor behind them, and how many they are."""
    import polars as pl
    import pyarrow as pa

    from modelinscale.data._hash import hash_rows
    from modelinscale.data.clean import clean

    n_missing, n_rows, end = dict.fromkeys(wanted.place, 0), 0, after
    for chunk in source.read(after, theirs):
        cleaned = clean(chunk.batch, theirs)
        if len(cleaned.faults):
            raise SourceError(f"{chunk.where}: {len(cleaned.faults):,} cells cannot be read.", fix="Give their types, or mend them: a sequence needs all.")
        batch, end = cleaned.batch, chunk.cursor
        # Whole numbers as decimals: a column that had none but these may have decimals once rows have come.
        cells = [batch.column(c.name).cast(pa.float64(), safe=False) if c.type == "int" else batch.column(c.name) for c in theirs.columns]
        frame = pl.from_arrow(pa.Table.from_batches([batch]))
        assert isinstance(frame, pl.DataFrame)
        frame = frame.select(theirs.names).with_columns(pl.Series(_HASH, hash_rows(cells, batch.num_rows)), pl.lit(reading, pl.Int8).alias(_FROM))
        for name in n_missing:
            n_missing[name] += frame[name].null_count()
        if len(frame):
            n_rows += len(frame)
            sorter.add(frame)
    for name, n in n_missing.items():
        if n and reading == _ALL:
            raise SourceError(f"{n:,} rows have no {name!r}, so they belong to no place in a sequence.", fix="Leave them out where they are read.")
    return end, n_rows


class _Reduced:
    """The readings as one table: each place once, without what is left for the next collect."""

    def __init__(self, wanted: Wanted, *, all_new: bool) -> None:
        self._wanted, self._all_new = wanted, all_new
        self.checks = Checks(wanted)
        self.n = self.n_new = self.n_expected = self._n_same = 0
        self._sum = self._sum_new = 0

    def of(self, blocks: "Iterator[pl.DataFrame]") -> "Iterator[pl.DataFrame]":
        """Rows in order, with `NEW`; what they were found to be stands here once they are through."""
        for block in whole(blocks, self._wanted.place):
            own = self._own(block)
            hashes, new = own[_HASH].to_numpy() >> np.uint64(1), own[NEW].to_numpy()
            self.n, self.n_new = self.n + len(own), self.n_new + int(new.sum())
            self._sum += int(np.sum(hashes, dtype=np.uint64))
            self._sum_new += int(np.sum(hashes[new], dtype=np.uint64))
            found = own.select(*self._wanted.used, NEW)
            if len(found):
                self.checks.add(found)
                yield found

    def _own(self, block: "pl.DataFrame") -> "pl.DataFrame":
        """Of some places, all their rows, those that stay; with `NEW`."""
        import polars as pl

        place = self._wanted.place
        starts = block.select(pl.any_horizontal(pl.col(n).ne_missing(pl.col(n).shift(1)) for n in place)).to_series()
        if block[_FROM].max() == _ALL:  # most rows: no other reading brought any of these
            n_places = int(starts.sum())
            self._n_same += len(block) - n_places
            self.n_expected += n_places if self._all_new else 0
            return block.with_columns(pl.lit(self._all_new).alias(NEW))
        block = block.with_columns(starts.cum_sum().alias(_PLACE))
        marks = block.group_by(_PLACE, maintain_order=True).agg(
            (pl.col(_FROM) == _ALL).sum().alias("n"), (pl.col(_FROM) == _SINCE).any().alias(NEW), (pl.col(_FROM) == _LATER).any().alias("later")
        )
        if self._all_new:
            marks = marks.with_columns((pl.col("n") > 0).alias(NEW))
        self.n_expected += int((marks[NEW] & ~marks["later"]).sum())
        self._n_same += int((marks["n"].cast(pl.Int64) - 1).clip(0).sum())
        own = block.filter(pl.col(_FROM) == _ALL)
        return own.join(marks.select(_PLACE, NEW, "later"), on=_PLACE, how="left", maintain_order="left").filter(~pl.col("later"))

    @property
    def told(self) -> list[int]:
        """Of all rows."""
        return [self.n, self._sum & _MASK]

    @property
    def told_old(self) -> list[int]:
        """Of those that are not new."""
        return [self.n - self.n_new, (self._sum - self._sum_new) & _MASK]

    def refuse_same(self) -> None:
        """Raises `SourceError` where a key and moment do not say where a row stands."""
        if self._n_same:
            raise SourceError(
                f"{self._n_same:,} rows have the same {' and '.join(self._wanted.place)} as another: their order is not known.",
                fix="Add a column to `by`, or order by one that differs.",
            )


def _refuse_changed(found: _Reduced, known: list[int], wanted: Wanted, *, resumed: bool) -> None:
    """Rows that stood there before must stand there still. With one row a key those may differ that came again: their keys come again too."""
    there = found.told if resumed else found.told_old
    if there == known:
        return
    came_again = 0 < known[0] - there[0] <= found.n - there[0]
    if resumed or wanted.history or not came_again:
        raise SourceError(
            f"{wanted.label}: rows that were read before have changed: of {known[0]:,} rows then, {there[0]:,} are there now, or with other numbers.",
            fix="What was made of them would be wrong: collect anew into another store.",
        )


def _kept(rows: "Iterator[pl.DataFrame]", sorter: Sorter, wanted: Wanted, folder: Path) -> Stored | None:
    """Where they were held they stay held; else they go to a file. None: there are none."""
    import polars as pl

    first = next(rows, None)
    if first is None:
        return None
    if not sorter.on_disk:
        return Stored.held(pl.concat([first, *rows], rechunk=True))
    return Stored.write(folder / "ordered.arrow", _chain(first, rows), wanted.memory // _BLOCKS, 1)


def _chain(first: "pl.DataFrame", rest: "Iterator[pl.DataFrame]") -> "Iterator[pl.DataFrame]":
    yield first
    yield from rest
