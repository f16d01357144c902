"""Joining rows to what was known of them: by key, or by key as of a moment, never from the future; bounded memory whatever the size of the other side.

The other side is kept as its rows come, in memory up to a budget and beyond that on disk, cut into partitions by key. Rows on the left keep their number
and order: each gets the one row that belongs to it, or none.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.errors import DataError
from modelinscale.core.files import Scratch
from modelinscale.core.personal import shape

if TYPE_CHECKING:
    import pyarrow as pa

SHOWN_KEYS = 3
_SHARE = 4
"""A partition takes at most this share of the budget: sorting it takes twice as much again."""

_LEAST_BYTES = 16 << 10


@dataclass(frozen=True)
class Rule:
    """How two sides belong together. Names are those of the right side's columns; the left side comes with the same names."""

    keys: tuple[str, ...]
    moment: str | None = None
    """The column of the moment; None: the key alone must name one row."""
    allow_exact: bool = True
    """Whether a row of the very moment counts as known."""
    within: int | None = None
    """A row older than this (µs of moments, units of numbers) counts as unknown."""
    label: str = "the other side"


class Right:
    """The other side. Add its batches, then `lookup`; files on disk are gone when it is closed."""

    def __init__(self, rule: Rule, schema: "pa.Schema", budget_bytes: int) -> None:
        self.rule, self.schema, self._budget = rule, schema, budget_bytes
        self._batches: list[pa.RecordBatch] = []
        self._n_bytes = 0
        self._spill: _Spill | None = None
        self._side: _Side | None = None

    @property
    def on_disk(self) -> bool:
        """Whether it did not fit: then few large lookups are cheaper than many small ones."""
        return self._spill is not None

    def add(self, batch: "pa.RecordBatch") -> None:
        """Some rows, in the order they came: of several with one key and moment the last counts."""
        if self._spill is not None:
            self._spill.add(batch)
            return
        self._batches.append(batch)
        self._n_bytes += batch.nbytes
        if self._n_bytes > self._budget // _SHARE:
            self._spill = _Spill(self.rule, self.schema)
            for one in self._batches:
                self._spill.add(one)
            self._batches.clear()

    def lookup(self, left: "pa.Table") -> "pa.Table":
        """For each row of the left side (its key columns, and the moment) the right side's other columns, null where nothing was known.

        Raises `DataError` when a key without moment names several rows.
        """
        import pyarrow as pa

        if self._spill is None:
            if self._side is None:
                self._side = _Side(self.rule, pa.Table.from_batches(self._batches, self.schema))
                self._batches.clear()
            return self._side.lookup(left)
        partition = _partition(left, self.rule.keys, self._spill.n_parts)
        found, places = [], []
        for number in range(self._spill.n_parts):
            rows = np.flatnonzero(partition == number)
            if len(rows):
                for side, of in self._spill.sides(number, rows, left, max(self._budget // _SHARE, _LEAST_BYTES)):
                    found.append(side.lookup(left.take(pa.array(of))))
                    places.append(of)
        if not found:
            return _Side(self.rule, self.schema.empty_table()).lookup(left)
        order = np.argsort(np.concatenate(places), kind="stable")
        return pa.concat_tables(found).take(pa.array(order))

    def close(self) -> None:
        if self._spill is not None:
            self._spill.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class _Side:
    """Rows in memory, sorted by key, moment and arrival."""

    def __init__(self, rule: Rule, rows: "pa.Table") -> None:
        import polars as pl

        self.rule = rule
        frame = pl.from_arrow(rows.select(list(rule.keys)))
        assert isinstance(frame, pl.DataFrame)
        # Polars names columns of equal names apart, and joins nulls with nothing: rows without a key belong to no row.
        self._codes = frame.drop_nulls().unique(maintain_order=True).with_row_index("_mis_code")
        code = self._code(rows)
        kept = code >= 0
        moment: NDArray[Any] = np.zeros(rows.num_rows, np.int64)
        if rule.moment is not None:
            moment, known = _moments(rows.column(rule.moment))
            kept &= known
        at = np.flatnonzero(kept)
        at = at[np.lexsort((moment[at], code[at]))]  # stable: later arrivals stay behind
        self._at, self._code_at, self._moment_at = at, code[at], moment[at]
        self._times = np.unique(self._moment_at)
        self._step = len(self._times) + 1
        self._place = self._code_at * self._step + np.searchsorted(self._times, self._moment_at)
        self._rows = rows.select([n for n in rows.column_names if n not in rule.keys and n != rule.moment])
        if rule.moment is None:
            self._refuse_doubles(rows)

    def lookup(self, left: "pa.Table") -> "pa.Table":
        import pyarrow as pa

        code = self._code(left)
        known = code >= 0
        moment: NDArray[Any] = np.zeros(left.num_rows, np.int64)
        if self.rule.moment is not None:
            moment, dated = _moments(left.column(self.rule.moment))
            known &= dated
        n_before = np.searchsorted(self._times, moment, side="right" if self.rule.allow_exact else "left")
        # The place of the last row of the same key among those up to the moment: all rows are sorted by key, then moment.
        found = np.searchsorted(self._place, code * self._step + n_before, side="left") - 1
        known &= found >= 0
        found = np.where(known, found, 0)
        if len(self._at):
            known &= self._code_at[found] == code
            if self.rule.within is not None:
                known &= moment - self._moment_at[found] <= self.rule.within
            index = pa.array(self._at[found], mask=~known)
        else:
            index = pa.nulls(left.num_rows, pa.int64())
        return self._rows.take(index)

    def _code(self, rows: "pa.Table") -> NDArray[np.int64]:
        """A number for each row's key, -1 where this side does not know it."""
        import polars as pl

        frame = pl.from_arrow(rows.select(list(self.rule.keys)))
        assert isinstance(frame, pl.DataFrame)
        joined = frame.join(self._codes, on=list(self.rule.keys), how="left", maintain_order="left")
        return joined["_mis_code"].cast(pl.Int64).fill_null(-1).to_numpy()

    def _refuse_doubles(self, rows: "pa.Table") -> None:
        doubled = np.flatnonzero(self._code_at[1:] == self._code_at[:-1])
        if not len(doubled):
            return
        import pyarrow as pa

        different = self._at[doubled[np.unique(self._code_at[doubled], return_index=True)[1]]]
        keys = rows.select(list(self.rule.keys)).take(pa.array(different[:SHOWN_KEYS])).to_pylist()
        # Only what they look like: a key may name a person, and this message goes to logs and lineage.
        shown = "; ".join(", ".join(f"{name} like {shape(str(value))}" for name, value in key.items()) for key in keys)
        raise DataError(
            f"{self.rule.label}: {len(different):,} keys name several rows ({shown}), so it is not clear which one a row is joined to.",
            fix="Join `as_of` a moment, add a column to `on`, or make the key unique in a `query`.",
        )


class _Spill:
    """Rows on disk, cut by key into partitions."""

    n_parts = 64

    def __init__(self, rule: Rule, schema: "pa.Schema") -> None:
        self._rule, self._schema = rule, schema
        self._folder = Scratch("join")
        self._writers: dict[int, tuple[Any, Any]] = {}
        self._finished = False

    def add(self, batch: "pa.RecordBatch") -> None:
        import pyarrow as pa

        table = pa.Table.from_batches([batch])
        partition = _partition(table, self._rule.keys, self.n_parts)
        order = np.argsort(partition, kind="stable")
        sorted_rows, numbers = table.take(pa.array(order)), partition[order]
        edges = np.searchsorted(numbers, np.arange(self.n_parts + 1))
        for number in range(self.n_parts):
            if edges[number] < edges[number + 1]:
                self._writer(number).write_table(sorted_rows.slice(edges[number], edges[number + 1] - edges[number]))

    def sides(self, number: int, rows: NDArray[np.int64], left: "pa.Table", budget_bytes: int) -> "Iterable[tuple[_Side, NDArray[np.int64]]]":
        """A partition's rows as sides that each fit, with the rows of the left that belong to them; a partition that is too large is cut again by key."""
        import pyarrow as pa

        self._finish()
        path = self._path(number)
        if not path.exists():
            yield _Side(self._rule, self._schema.empty_table()), rows
            return
        n_cuts = max(1, -(-path.stat().st_size // budget_bytes))
        cut_left = _partition(left.take(pa.array(rows)), self._rule.keys, n_cuts, seed=1)
        for cut in range(n_cuts):
            of = rows[cut_left == cut]
            if len(of):
                yield _Side(self._rule, self._cut(path, n_cuts, cut)), of

    def _cut(self, path: Path, n_cuts: int, cut: int) -> "pa.Table":
        import pyarrow as pa

        kept = []
        with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as reader:
            for batch in reader:
                table = pa.Table.from_batches([batch])
                kept.append(table if n_cuts == 1 else table.filter(pa.array(_partition(table, self._rule.keys, n_cuts, seed=1) == cut)))
        return pa.concat_tables(kept)

    def _writer(self, number: int) -> Any:
        import pyarrow as pa

        assert not self._finished, "rows are added before the first lookup"
        if number not in self._writers:
            sink = pa.OSFile(str(self._path(number)), "wb")
            self._writers[number] = (pa.ipc.new_stream(sink, self._schema), sink)
        return self._writers[number][0]

    def _finish(self) -> None:
        if not self._finished:
            for writer, sink in self._writers.values():
                writer.close()
                sink.close()
            self._finished = True

    def _path(self, number: int) -> Path:
        return self._folder.path / f"{number}.arrow"

    def close(self) -> None:
        self._finish()
        self._folder.close()


def _partition(rows: "pa.Table", keys: Sequence[str], n_parts: int, seed: int = 0) -> NDArray[np.int64]:
    """The partition of each row, by a hash of its key that does not depend on the machine."""
    from modelinscale.data._hash import hash_rows

    return (hash_rows([rows.column(k) for k in keys], rows.num_rows, seed) % np.uint64(n_parts)).astype(np.int64)


def _moments(column: "pa.ChunkedArray") -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Moments as µs (numbers as they are), and where there is one."""
    import pyarrow as pa
    import pyarrow.types as t

    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], column.type)
    known = array.is_valid().to_numpy(zero_copy_only=False)
    numbers = array.cast(pa.timestamp("us")).view(pa.int64()) if t.is_timestamp(array.type) else array
    return numbers.fill_null(0).to_numpy(zero_copy_only=False), known
