"""Rows in their order, gone through as often as needed: held in memory, or in a file that is read block by block."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from modelinscale.core.files import told

if TYPE_CHECKING:
    import polars as pl


class Stored:
    """Rows by number. A file keeps its blocks, and of these the one read last is at hand."""

    def __init__(self, rows: "pl.DataFrame | Path", starts: Sequence[int], empty: "pl.DataFrame") -> None:
        """``starts``: the number of each block's first row, then that of all rows. ``empty``: the columns without rows."""
        self._rows, self._starts, self._empty = rows, np.asarray(starts), empty
        self._at: tuple[int, tuple[str, ...], Any] | None = None

    @classmethod
    def held(cls, rows: "pl.DataFrame") -> "Stored":
        return cls(rows, [0, len(rows)], rows.head(0))

    @classmethod
    def write(cls, path: Path, blocks: "Iterator[pl.DataFrame]", block_bytes: int, least_rows: int) -> "Stored":
        """Into a file, cut into blocks of about so many bytes. Needs one block at least. Raises `StoreError` where the disk refuses."""
        import polars as pl
        import pyarrow as pa

        first = next(blocks)
        schema = first.head(0).to_arrow(compat_level=pl.CompatLevel.oldest()).schema
        most = max(least_rows, int(block_bytes * len(first) / max(1, first.estimated_size())))
        starts = [0]
        with told(path, "write", scratch=True), pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            for block in _from(first, blocks):
                for a in range(0, len(block), most):
                    table = block.slice(a, most).to_arrow(compat_level=pl.CompatLevel.oldest())
                    writer.write_batch(table.combine_chunks().to_batches()[0])
                    starts.append(starts[-1] + table.num_rows)
        return cls(path, starts, first.head(0))

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def on_disk(self) -> bool:
        return isinstance(self._rows, Path)

    def blocks(self, columns: Sequence[str] | None = None) -> "Iterator[pl.DataFrame]":
        """All rows, block by block; these columns."""
        import pyarrow as pa

        names = list(columns) if columns is not None else self._empty.columns
        if not isinstance(self._rows, Path):
            yield self._rows.select(names)
            return
        with pa.OSFile(str(self._rows)) as file, self._open(file, names) as reader:
            for number in range(reader.num_record_batches):
                yield _frame(reader.get_batch(number), self._empty.select(names))

    def rows(self, start: int, stop: int, columns: Sequence[str]) -> "pl.DataFrame":
        """Rows ``start`` to ``stop``; these columns."""
        import polars as pl

        if not isinstance(self._rows, Path):
            return self._rows.select(columns).slice(start, stop - start)
        first = int(np.searchsorted(self._starts, start, side="right")) - 1
        last = int(np.searchsorted(self._starts, stop, side="left"))
        names = columns if last - first > 2 else self._empty.columns  # short series follow each other in one block, which is kept whole
        found = [self._block(i, tuple(names)) for i in range(first, last)]
        found = [b.slice(max(0, start - at), stop - max(start, at)) for b, at in zip(found, self._starts[first:last].tolist(), strict=True)]
        return pl.concat([b.select(columns) for b in found]) if found else self._empty.select(columns)

    def remove(self) -> None:
        """The file goes."""
        if isinstance(self._rows, Path):
            self._rows.unlink()

    def _block(self, number: int, columns: tuple[str, ...]) -> "pl.DataFrame":
        import pyarrow as pa

        if self._at is None or self._at[:2] != (number, columns):
            with pa.OSFile(str(self._rows)) as file, self._open(file, columns) as reader:
                self._at = (number, columns, _frame(reader.get_batch(number), self._empty.select(columns)))
        found: pl.DataFrame = self._at[2]
        return found

    def _open(self, file: Any, columns: Sequence[str]) -> Any:
        import pyarrow as pa

        names = self._empty.columns
        return pa.ipc.open_file(file, options=pa.ipc.IpcReadOptions(included_fields=sorted(names.index(n) for n in columns)))


def whole(blocks: "Iterator[pl.DataFrame]", by: Sequence[str]) -> "Iterator[pl.DataFrame]":
    """The same rows, sorted by these columns, in blocks that end where their values change."""
    import polars as pl

    rest: list[pl.DataFrame] = []
    for block in blocks:
        if not len(block):
            continue
        same = block.select(pl.all_horizontal(pl.col(n).eq_missing(pl.col(n).last()) for n in by)).to_series().to_numpy()
        n_last = len(same) if same.all() else int(same[::-1].argmin())
        if n_last < len(block):
            yield pl.concat([*rest, block.head(len(block) - n_last)])
            rest = []
        elif rest and not _alike(rest[-1], block, by):
            yield pl.concat(rest)
            rest = []
        rest.append(block.tail(n_last))
    if rest:
        yield pl.concat(rest)


def _alike(one: "pl.DataFrame", other: "pl.DataFrame", by: Sequence[str]) -> bool:
    """Whether what ends with one goes on in the other."""
    return one.select(by).tail(1).equals(other.select(by).head(1))


def _from(first: "pl.DataFrame", rest: "Iterator[pl.DataFrame]") -> "Iterator[pl.DataFrame]":
    yield first
    yield from rest


def _frame(batch: Any, like: "pl.DataFrame") -> "pl.DataFrame":
    import polars as pl

    found = pl.from_arrow(batch)
    assert isinstance(found, pl.DataFrame)
    return found.select(like.columns).cast(like.schema)
