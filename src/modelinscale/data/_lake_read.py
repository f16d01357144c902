"""A version of a lake table, for reading: its rows in order, its columns, its place in the source, its past."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

from modelinscale.core.errors import UsageError, did_you_mean
from modelinscale.core.schema import Schema
from modelinscale.data import _lake_keep as keeping
from modelinscale.data._lake_base import BLOCK_ROWS, IO_BYTES, SEQ, Commit, Where, last_commit
from modelinscale.data._lake_errors import told
from modelinscale.data._lake_files import spelled
from modelinscale.data._lake_keep import HistoryEntry, Version
from modelinscale.data._lake_open import READ_KEY, schema_of
from modelinscale.data.arrow import arrow_type
from modelinscale.data.sources import Cursor

if TYPE_CHECKING:
    import lance
    import pyarrow as pa

_SLICE_ROWS = 1 << 17
"""Rows of a slice that are decoded together: fewer cost more, and more are not decoded by two threads at once. Workers, of which there are several
anyway, have theirs in one piece, which what comes after need not put together."""


class Reader:
    """What can be read of one version. Reading never blocks a writer and never sees part of a commit."""

    def __init__(self, dataset: "lance.LanceDataset", where: Where) -> None:
        """Use `open_table` or `create_table`."""
        self._dataset = dataset
        self._where = where
        self.uri = where.uri

    @abstractmethod
    def at(self, version: int) -> Self:
        """The table as of a version."""

    @cached_property
    def version(self) -> int:
        return int(self._dataset.version)

    @cached_property
    def n_rows(self) -> int:
        return int(self._dataset.count_rows())

    @cached_property
    def schema(self) -> Schema:
        """The user's columns, habits of their text included."""
        return schema_of(self._dataset, self.uri)

    @cached_property
    def read_schema(self) -> Schema:
        """The columns as the source gives them, before treatments: how cells were read once is how they are read again."""
        found = self._dataset.schema.metadata.get(READ_KEY.encode())
        return self.schema if found is None else Schema.model_validate_json(found)

    @cached_property
    def _last(self) -> tuple[Commit, int]:
        return last_commit(self._dataset, self.uri)

    @property
    def last(self) -> Commit:
        """The newest commit up to this version. Raises `LakeError` when a clean-up by another program removed its record."""
        return self._last[0]

    @property
    def cursor(self) -> Cursor | None:
        """Where the source stood after the last commit."""
        return self.last.cursor

    @property
    def rows_version(self) -> int:
        """The oldest version with exactly these rows in this order: this one, or an earlier one when later commits only moved the cursor or files."""
        commit, version = self._last
        return commit.rows_version or version

    @property
    def tags(self) -> dict[str, int]:
        """Named versions."""
        with told(self.uri, "read"):
            return {name: int(found["version"]) for name, found in sorted(self._dataset.tags.list().items())}

    def versions(self) -> tuple[Version, ...]:
        """Every version that can still be read, oldest first."""
        return keeping.versions(self._dataset, self.uri)

    def history(self, n: int | None = None) -> tuple[HistoryEntry, ...]:
        """The last ``n`` versions (None: all) with who made them, what they did and the models trained on them, oldest first."""
        return keeping.history(self._dataset, self.uri, n)

    def blocks(self, columns: Sequence[str] | None = None, *, n_rows: int = BLOCK_ROWS, since: int | None = None) -> "Iterator[pa.RecordBatch]":
        """Rows in the order they came, the same at every reading, in batches of at most ``n_rows``; memory does not grow with the table.

        ``columns``: all of the user's, or those named, in that order. ``since``: only rows that came, or were replaced, after that version.
        Raises `UsageError` for an unknown column, `LakeError` when the table is damaged.
        """
        names = self._known(self.schema.names if columns is None else columns)
        return self._scan(names, f"{SEQ} > {self.at(since).seq}" if since else None, n_rows)

    def slice(self, start: int, n_rows: int, columns: Sequence[str], *, codes: bool = False) -> "pa.Table":
        """``n_rows`` rows from the ``start``-th on (fewer where the table ends), in the order of `blocks`; memory grows with them alone.

        ``codes``: for a worker; text that is kept as codes stays so: dictionary arrays, which may know words that none of these rows has.
        """
        with told(self.uri, "read"):
            scanner = self._dataset.scanner(
                columns=list(columns),
                offset=start,
                limit=n_rows,
                batch_size=max(1, n_rows if codes else min(n_rows, _SLICE_ROWS)),
                scan_in_order=True,
                io_buffer_size=IO_BYTES,
                batch_readahead=2,
                fragment_readahead=1,
            )
            found = scanner.to_table()
            return found if codes else spelled(found)

    def blocks_after(self, seq: int, columns: Sequence[str]) -> "Iterator[pa.RecordBatch]":
        """As `blocks`, for rows of commits numbered higher than ``seq``."""
        return self._scan(list(columns), f"{SEQ} > {seq}" if seq else None, BLOCK_ROWS)

    def blocks_up_to(self, seq: int) -> "Iterator[pa.RecordBatch]":
        """As `blocks`, for rows of commits numbered ``seq`` or lower."""
        return self._scan(list(self.schema.names), None if self.seq <= seq else f"{SEQ} <= {seq}", BLOCK_ROWS)

    @cached_property
    def seq(self) -> int:
        """The number of the newest commit that brought rows still here, at least; 0 for an empty table."""
        if self.n_rows == 0:
            return 0
        with told(self.uri, "read"):
            return int(self._dataset.take([self.n_rows - 1], columns=[SEQ])[SEQ][0].as_py())

    def rows_of(self, column: str, values: Sequence[Any], versions: Sequence[int] | None = None) -> dict[int, int]:
        """In which versions (None: all that can be read) rows have one of these values, and how many: the models trained on those have seen them."""
        return self._counted(column, values, [v.number for v in self.versions()] if versions is None else versions)

    def _known(self, columns: Sequence[str]) -> list[str]:
        unknown = [name for name in columns if name not in self.schema]
        if unknown:
            raise UsageError(f"{self.uri} has no column {unknown[0]!r}.{did_you_mean(unknown[0], self.schema.names)}")
        return list(columns)

    def _cells(self, column: str, values: Sequence[Any]) -> "pa.Array":
        return keeping.matcher(values, arrow_type(self.schema[self._known([column])[0]]), column, self.uri)

    def _counted(self, column: str, values: Sequence[Any], versions: Sequence[int], *, gone: bool = False) -> dict[int, int]:
        def cells(kind: "pa.DataType") -> "pa.Array":
            return keeping.matcher(values, kind, column, self.uri)

        self._cells(column, values)
        return keeping.counted(((n, self._dataset.checkout_version(n)) for n in versions), column, cells, self.uri, gone=gone)

    def _scan(self, names: list[str], where: str | None, n_rows: int) -> "Iterator[pa.RecordBatch]":
        with told(self.uri, "read"):
            scanner = self._dataset.scanner(
                columns=names,
                filter=where,
                batch_size=n_rows,
                scan_in_order=True,
                io_buffer_size=IO_BYTES,
                batch_readahead=2,
                fragment_readahead=2,
            )
            yield from (spelled(batch) for batch in scanner.to_batches() if batch.num_rows)
