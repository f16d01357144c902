"""Partitions: rows of a table named rather than held, small enough to be worked on a few at a time within a memory budget.

N rows of the table.
"""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from modelinscale.core import memory
from modelinscale.core.errors import DataError, did_you_mean

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

    from modelinscale.data.lake import Table

MOST_ROWS, LEAST_ROWS = 262_144, 512
"""Rows of a partition. More are no faster; fewer pay for the opening of files."""
WORK = 5
"""What working on a partition holds at its fullest, in sizes of its rows: as read, as columns, as numbers, sorted, encoded."""
SHARE = 0.5
"""The share of what a budget leaves for rows that partitions in work may take; the rest is for what is learned from them."""
HELD = 3
"""A table is held in memory where it is allowed to be this many times its size: its rows, and what is made of them."""
_LOOKS, _LOOK_ROWS = 3, 2_048


@dataclass(frozen=True)
class Partition:
    """``n_rows`` rows of a table version from the ``start``-th on. Small, so that it can be sent to where the work is done."""

    uri: str
    version: int
    start: int
    n_rows: int
    rows: "pl.DataFrame | None" = field(default=None, compare=False, repr=False)
    """The rows themselves, where the whole table is held in memory."""
    options: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """What the table's object store needs (`lake.open_table`)."""
    run: str = field(default="", compare=False, repr=False)
    """For whom it was opened: a table that was removed and made again may have the same name and number."""

    @property
    def where(self) -> str:
        """What an error calls it."""
        return f"rows {self.start:,} to {self.start + self.n_rows - 1:,} of the table"


class Coded(NamedTuple):
    """A column of N words as W words, and which of them each row has."""

    words: "pa.Array"
    """(W,) some may be alike, and some in no row."""
    codes: NDArray[np.int32]
    """(N,); W where it is missing."""

    def distinct(self) -> "pl.Series":
        """(W + 1,): the words, then a missing one."""
        import polars as pl
        import pyarrow as pa

        return pl.Series("", pa.concat_arrays([self.words, pa.nulls(1, self.words.type)]))

    def slim(self) -> "Coded":
        """Without words that are in no row, where most may be such: a file of the lake has the words of all its rows."""
        import pyarrow as pa

        n_words = len(self.words)
        if n_words <= len(self.codes) // 8:
            return self
        there = np.bincount(self.codes, minlength=n_words + 1)[:n_words] > 0
        place = np.cumsum(there, dtype=np.int32)
        return Coded(self.words.filter(pa.array(there)), np.append(place - 1, place[-1:]).take(self.codes))

    def counts(self) -> "tuple[pa.Array, NDArray[np.int64]]":
        """The words that occur, and how often; they take no memory of the others."""
        import pyarrow as pa

        n = np.bincount(self.codes).astype(np.int64)
        there = np.flatnonzero(n)
        return self.words.take(pa.array(there, mask=there == len(self.words))), n[there]


@dataclass(frozen=True)
class Chosen:
    """Some of the rows of a partition: what is sent along is a bit a row."""

    partition: Partition
    bits: NDArray[np.uint8] | None = None
    """Packed, a bit for each row of the partition; None: all."""

    @classmethod
    def of(cls, partition: Partition, mask: NDArray[np.bool_]) -> "Chosen":
        """The rows where ``mask``, (n_rows,), is set."""
        return cls(partition, None if mask.all() else np.packbits(mask))

    @property
    def where(self) -> str:
        return self.partition.where

    @property
    def mask(self) -> NDArray[np.bool_] | None:
        """(n_rows,); None: all."""
        return None if self.bits is None else np.unpackbits(self.bits, count=self.partition.n_rows).view(np.bool_)

    def read(self, columns: Sequence[str]) -> "pl.DataFrame":
        """The chosen rows, in the order of the table."""
        import polars as pl

        rows, mask = read(self.partition, columns), self.mask
        return rows if mask is None else rows.filter(pl.Series(mask))

    def read_coded(self, columns: Sequence[str], words: Sequence[str]) -> "tuple[pl.DataFrame, dict[str, Coded]]":
        """As `read`, but of the columns ``words`` those that are text and repeat come as codes, which saves making rows of them; they are not in the frame."""
        import polars as pl

        if self.partition.rows is not None:
            return self.read(columns), {}
        from modelinscale.data.lake import spelled

        memory.check(f"reading {self.where}")
        table, mask, coded = _slice(self.partition, columns, codes=True), self.mask, {}
        for name in words:
            found = _coded(table.column(name), mask)
            if found is not None:
                coded[name], table = found, table.drop_columns([name])
        rows = pl.from_arrow(spelled(table))
        assert isinstance(rows, pl.DataFrame)
        return rows if mask is None or not rows.width else rows.filter(pl.Series(mask)), coded


def read(partition: Partition, columns: Sequence[str]) -> "pl.DataFrame":
    """The rows of a partition, the named columns in that order. Raises `DataError` when the process is over its budget (`memory.guarded`)."""
    import polars as pl

    memory.check(f"reading {partition.where}")
    if partition.rows is not None:
        return partition.rows.select(columns)
    rows = pl.from_arrow(_slice(partition, columns))
    assert isinstance(rows, pl.DataFrame)
    return rows


def _slice(partition: Partition, columns: Sequence[str], *, codes: bool = False) -> "pa.Table":
    table = _open(partition.uri, partition.version, partition.options, partition.run)
    return table.slice(partition.start, partition.n_rows, columns, codes=codes)


def _coded(column: "pa.ChunkedArray", mask: NDArray[np.bool_] | None) -> Coded | None:
    """A column of text as codes; None where it is no text, or where words hardly repeat."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type) and column.num_chunks:  # kept as codes in the lake
        if len({_memory(chunk.dictionary) for chunk in column.chunks}) > 1:
            column = column.unify_dictionaries()
        words, cells = column.chunk(0).dictionary, pa.chunked_array([chunk.indices for chunk in column.chunks])
    elif pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        head = column.slice(0, _LOOK_ROWS)
        if len(head.unique()) > len(head) // 2:
            return None
        found = column.combine_chunks().dictionary_encode()
        words, cells = found.dictionary, found.indices
    else:
        return None
    codes = (cells.fill_null(len(words)) if cells.null_count else cells).to_numpy()
    if len(words) > len(codes) // 2 and np.count_nonzero(np.bincount(codes)) > len(codes) // 2:  # they may be of other rows of the file
        return None
    return Coded(words, codes if mask is None else codes[mask])


def _memory(words: "pa.Array") -> tuple[int, ...]:
    """Where an array lies: pieces read together share their dictionary, and to compare its words would take longer than to read the rows."""
    return (words.offset, len(words), *(one.address for one in words.buffers() if one is not None))


@lru_cache(maxsize=4)
def _open(uri: str, version: int, options: tuple[tuple[str, str], ...], run: str) -> "Table":
    """A version never changes while a run lasts, so that one opening serves all its partitions, in each process."""
    from modelinscale.data.lake import open_table

    return open_table(uri, version, options=dict(options) or None)


class Rows:
    """The rows of one table version: held in memory where that is comfortable, else read partition by partition. Both ways give the same."""

    def __init__(self, partitions: tuple[Partition, ...], columns: tuple[str, ...], row_bytes: float) -> None:
        """Use `open_rows` or `rows_of`. The partitions follow each other from row 0 on."""
        self.partitions, self.columns, self.row_bytes = partitions, columns, row_bytes
        self.n_rows = partitions[-1].start + partitions[-1].n_rows if partitions else 0

    def __len__(self) -> int:
        return self.n_rows

    @property
    def held(self) -> bool:
        """Whether the rows are in memory."""
        return not self.partitions or self.partitions[0].rows is not None

    def blocks(self, columns: Sequence[str]) -> "Iterator[tuple[int, pl.DataFrame]]":
        """The table in order, partition by partition: the number of the first row, and the rows. Raises `DataError` for a column that is not there."""
        self._known(columns)
        for partition in self.partitions:
            yield partition.start, read(partition, columns)

    def head(self, n_rows: int, columns: Sequence[str] | None = None) -> "pl.DataFrame":
        """The first rows; at least one partition must exist."""
        import polars as pl

        names = self.columns if columns is None else columns
        found, n = [], 0
        for partition in self.partitions:
            found.append(read(partition, names))
            n += partition.n_rows
            if n >= n_rows:
                break
        return (found[0] if len(found) == 1 else pl.concat(found)).head(n_rows)

    def take(self, index: NDArray[np.int64], columns: Sequence[str]) -> "pl.DataFrame":
        """The rows at ``index``, which ascends; only partitions that have some are read."""
        import polars as pl

        self._known(columns)
        found = [read(p, columns)[index[a:b] - p.start] for p, a, b in self._spans(index) if b > a]
        return pl.concat(found) if found else read(self.partitions[0], columns).head(0)

    def chosen(self, mask: NDArray[Any], value: int) -> Iterator[Chosen]:
        """The rows where ``mask``, (N,), holds ``value``, as pieces of work; partitions without any are left out."""
        for partition in self.partitions:
            here = np.asarray(mask[partition.start : partition.start + partition.n_rows]) == value
            if here.any():
                yield Chosen.of(partition, here)

    def _spans(self, index: NDArray[np.int64]) -> Iterator[tuple[Partition, int, int]]:
        cuts = np.searchsorted(index, [p.start for p in self.partitions] + [self.n_rows])
        yield from zip(self.partitions, cuts[:-1].tolist(), cuts[1:].tolist(), strict=True)

    def _known(self, columns: Sequence[str]) -> None:
        for name in columns:
            if name not in self.columns:
                raise DataError(f"there is no column {name!r}.{did_you_mean(name, self.columns)}", fix="Is it still in the source?")


def open_rows(
    uri: str,
    version: int,
    columns: Sequence[str],
    *,
    memory_bytes: int | None = None,
    workers: int = 2,
    hold: bool | None = None,
    options: Mapping[str, str] | None = None,
) -> Rows:
    """The rows of a table version, cut to a budget.

    ``memory_bytes``: what one process may hold in all (None: what is free). ``hold``: whether rows are kept in memory; None: where it is comfortable.
    """
    place, run = tuple((options or {}).items()), uuid.uuid4().hex
    table = _open(uri, version, place, run)
    row_bytes, n = measured(table, columns), table.n_rows
    there = memory.room(memory_bytes)
    if n and (hold or (hold is None and n * row_bytes * HELD <= there)):
        frame = _whole(table, columns)
        return Rows(
            tuple(Partition(uri, version, p.start, p.n_rows, frame[p.start : p.start + p.n_rows]) for p in _cut(uri, version, n, MOST_ROWS)),
            tuple(columns),
            row_bytes,
        )
    cut = (replace(p, options=place, run=run) for p in _cut(uri, version, n, size(row_bytes, there, workers)))
    return Rows(tuple(cut), tuple(columns), row_bytes)


def rows_of(frame: "pl.DataFrame | pa.Table", n_rows: int = MOST_ROWS) -> Rows:
    """Rows that are in memory already, in partitions of ``n_rows``."""
    import polars as pl
    import pyarrow as pa

    held = pl.from_arrow(frame) if isinstance(frame, pa.Table) else frame
    assert isinstance(held, pl.DataFrame)
    parts = (Partition("", 0, p.start, p.n_rows, held[p.start : p.start + p.n_rows]) for p in _cut("", 0, len(held), n_rows))
    return Rows(tuple(parts), tuple(held.columns), held.estimated_size() / max(1, len(held)))


def size(row_bytes: float, there: int, workers: int) -> int:
    """Rows of a partition, so that all in work at once stay within their share of what is there. Raises `DataError` where not even the fewest do."""
    most = there * SHARE / (workers + 1) / WORK / max(row_bytes, 1.0)  # one more: its answer waits to be taken
    if most < LEAST_ROWS:
        raise DataError(
            f"rows of {row_bytes:,.0f} bytes are too large for {workers} workers in {there >> 20:,} MiB.",
            fix="Raise `compute.memory`, lower `compute.workers`, or name fewer columns under `features`.",
        )
    return int(min(MOST_ROWS, most))


def measured(table: "Table", columns: Sequence[str]) -> float:
    """Bytes of a row in memory, from a few looks spread over the table."""
    import polars as pl

    n, n_looked, n_bytes = table.n_rows, 0, 0
    for i in range(_LOOKS):
        start = (n - min(n, _LOOK_ROWS)) * i // max(1, _LOOKS - 1)
        rows = pl.from_arrow(table.slice(start, min(n, _LOOK_ROWS), columns))
        assert isinstance(rows, pl.DataFrame)
        n_looked, n_bytes = n_looked + len(rows), n_bytes + int(rows.estimated_size())
        if n <= _LOOK_ROWS:
            break
    return n_bytes / max(1, n_looked)


def _cut(uri: str, version: int, n: int, n_rows: int) -> Iterator[Partition]:
    for start in range(0, n, n_rows):
        yield Partition(uri, version, start, min(n_rows, n - start))


def _whole(table: "Table", columns: Sequence[str]) -> "pl.DataFrame":
    import polars as pl
    import pyarrow as pa

    rows = pl.from_arrow(pa.Table.from_batches(list(table.blocks(list(columns)))))
    assert isinstance(rows, pl.DataFrame)
    return rows
