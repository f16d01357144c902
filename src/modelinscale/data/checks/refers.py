"""Values that exist elsewhere."""

import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, PrivateAttr, model_validator

from modelinscale.core.errors import SpecError, did_you_mean
from modelinscale.core.schema import NESTED, Column, Schema
from modelinscale.data.checks import RowCheck

if TYPE_CHECKING:
    from collections.abc import Iterator

    import polars as pl
    import pyarrow as pa

    from modelinscale.data._keys import KeyIndex
    from modelinscale.data.lake import Table
    from modelinscale.data.sources import Source

SUFFIXES = {".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}


class _Held:
    """The other side's keys once they were read; no part of what a check is."""

    index: "KeyIndex | None" = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Held)

    def __hash__(self) -> int:
        return 0


class Refers(RowCheck):
    """Refuses values that a column of a file or of another lake table does not have (a foreign key): ``shop: {refers: {file: shops.csv, column: id}}``.

    The other side is read once a collect (a follower: once a window); its keys lie sorted on disk, so memory stays bounded.
    """

    file: Path | None = None
    """A CSV, JSON-lines or Parquet file, taken from where model.yaml lies."""
    table: Path | None = None
    """The folder of a lake table (see `mis show lake`)."""
    column: str = Field(min_length=1)
    """The column that has the values."""
    _held: _Held = PrivateAttr(default_factory=lambda: _Held())

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.file is None) == (self.table is None):
            raise SpecError("`refers` needs a `file` or a `table`, one of the two.", fix="Write `refers: {file: shops.csv, column: id}`.")
        if self.file is not None and self.file.suffix.lower() not in SUFFIXES:
            raise SpecError(f"`refers` cannot tell what kind of file {self.file} is.", fix=f"Name one that ends in {', '.join(SUFFIXES)}.")
        return self

    @classmethod
    def suits(cls, column: Column) -> bool:
        return column.type not in NESTED

    def at(self, base: Path) -> Self:
        return self.but(**{name: base / path for name, path in (("file", self.file), ("table", self.table)) if path is not None})

    def renew(self) -> None:
        self._held = _Held()

    def ready(self) -> None:
        self._there()

    def demand(self) -> str:
        return f"in {self.column} of {(self.file or self.table or Path()).name}"

    def failing(self, values: "pl.Series") -> "pl.Series":
        import numpy as np
        import polars as pl
        import pyarrow as pa

        from modelinscale.data._keys import keys_of
        from modelinscale.data.arrow import column_of

        mask = np.zeros(len(values), np.bool_)
        at = np.flatnonzero(values.is_not_null().to_numpy())
        if len(at):
            array = values.to_arrow()
            array = array.cast(pa.string()) if values.dtype == pl.String else array
            column = column_of("key", array.type)
            keys = keys_of(pa.table({"key": array.take(pa.array(at))}), [column])
            if self._held.index is None:
                self._held.index = self._read(column)
            mask[at[keys.rows]] = ~self._held.index.find(keys)
        return pl.Series(values.name, mask)

    def _read(self, column: Column) -> "KeyIndex":
        import pyarrow as pa

        from modelinscale.core.files import Scratch
        from modelinscale.data._keys import keys_of, open_index

        folder = Scratch("refers")
        weakref.finalize(self._held, folder.close)
        index = open_index(folder.path, [column], None)
        for n, block in enumerate(self._blocks(column)):
            index.claim(keys_of(pa.table({"key": block.drop_null()}), [column]))
            index.keep(n + 1, 0)
        return index

    def _blocks(self, column: Column) -> "Iterator[pa.Array]":
        """The cells of the other side as the checked column's type."""
        from modelinscale.data._cells import read_cells
        from modelinscale.data.lake import Table

        other, there = self._there()
        if isinstance(other, Table):
            for batch in other.blocks([self.column]):
                yield read_cells(batch.column(0), column)[0]
            return
        wanted: Any = there[self.column]
        schema = Schema(columns=tuple(wanted.but(type=column.type) if c.name == self.column and column.type != "vector" else c for c in there.columns))
        for chunk in other.read(None, schema):
            yield read_cells(chunk.batch.column(self.column), schema[self.column])[0]

    def _there(self) -> "tuple[Table | Source, Schema]":
        """The other side and its columns. Raises `SpecError` when the column is not among them, and what opening it raises."""
        from modelinscale.data.lake import open_table
        from modelinscale.data.sources import Source

        other: Table | Source
        if self.table is not None:
            other = open_table(str(self.table))
            there = other.schema
        else:
            assert self.file is not None
            other = Source.parse({"type": SUFFIXES[self.file.suffix.lower()], "path": [str(self.file)]})
            there = other.columns()
        if self.column not in there:
            near = did_you_mean(self.column, there.names)
            raise SpecError(f"`refers`: {self.file or self.table} has no column {self.column!r}.{near}", fix=f"It has: {', '.join(there.names[:20])}.")
        return other, there
