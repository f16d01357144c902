"""One part of the rows through the package: raw cells, typed cells, graph inputs, answers. N rows, C classes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from modelinscale.core.errors import DataError, MisError
from modelinscale.core.schema import Schema

if TYPE_CHECKING:
    import pyarrow as pa

    from modelinscale.data.clean import Cleaned
    from modelinscale.data.sources import Chunk
    from modelinscale.package import Answer, Package

RUN_ROWS = 4096
"""Rows that go through the graph at once: larger ones leave the processor's cache (measured flat from 512 to 4096 for networks, from 8 up for trees)."""


class HasChunk(Protocol):
    """What `Predictor.answer` takes."""

    @property
    def chunk(self) -> "Chunk":
        """The raw rows."""


def columns_of(package: "Package") -> Schema:
    """The columns a package reads: its inputs, and those from which missing cells of these are filled."""
    beside = {name: column for one in package.inputs for name, column in one.beside.items()}
    return Schema(columns=tuple((beside | {c.name: c.accepts for c in package.inputs}).values()))


def _noted(broken: list[tuple[int, str, str]], name: str) -> "Callable[[int, MisError], None]":
    return lambda row, error: broken.append((row, name, error.message))


@dataclass(frozen=True)
class Answered:
    """Answers to one part."""

    table: "pa.Table"
    n_faults: int


class Predictor:
    """Answers parts. Holds nothing that changes, so that threads may share it."""

    def __init__(self, package: "Package", *, strict: bool) -> None:
        self._package = package
        from modelinscale.data.cleaners._treatment import served_cleaning
        from modelinscale.data.privacy import served_privacy

        self._strict = strict
        self._columns = columns_of(package)
        self._treatments = [one for one in (served_cleaning(package.inputs), served_privacy(package.inputs)) if one is not None]
        self._required = [c.name for c in package.inputs if c.required]

    @property
    def schema(self) -> "pa.Schema":
        """The columns written: ``prediction``, then ``probability_<class>``."""
        import pyarrow as pa

        labels, task = self._package.task.labels, self._package.task
        if task.answer_keys:
            return pa.schema([(f"prediction_{key}", pa.float32()) for key in task.answer_keys])
        if task.type == "multilabel":
            return pa.schema([("prediction", pa.list_(pa.string())), *((f"probability_{key}", pa.float32()) for key in self._package.label_keys)])
        if task.numbers and task.several:
            return pa.schema([("prediction", pa.list_(pa.float32(), task.n_scores))])
        kind = {bool: pa.bool_(), int: pa.int64(), str: pa.string()}[type(labels[0])] if labels else pa.float32()
        return pa.schema([("prediction", kind), *((f"probability_{key}", pa.float32()) for key in self._package.label_keys)])

    def answer(self, part: HasChunk) -> Answered:
        """Answers as many rows as came. Raises `DataError` for a cell that cannot be read, if strict."""
        import polars as pl
        import pyarrow as pa

        from modelinscale.data.clean import clean
        from modelinscale.data.treatment import treat
        from modelinscale.encode.tensors import to_input, to_numpy

        chunk = part.chunk
        cleaned = treat(clean(chunk.batch, self._columns), self._treatments)
        n_faults = self._faults(cleaned, chunk.where)
        frame = pl.DataFrame(cleaned.batch)
        broken: list[tuple[int, str, str]] = []
        tensors = {c.name: to_numpy(to_input(frame[c.name], c.input), c.input, _noted(broken, c.name)) for c in self._package.inputs}
        if broken and self._strict:
            row, name, why = broken[0]
            raise DataError(f"{chunk.where}, row {row + 1} of this part, column {name!r}: {why}", fix="Mend it, or leave --strict out to answer it as missing.")
        n_faults += len(broken)
        n_rows = cleaned.batch.num_rows
        batches = []
        for start in range(0, n_rows, RUN_ROWS):
            answer = self._package.run({name: values[start : start + RUN_ROWS] for name, values in tensors.items()})
            batches.append(self._batch(answer))
        return Answered(pa.Table.from_batches(batches, self.schema), n_faults)

    def _batch(self, answer: "Answer") -> "pa.RecordBatch":
        import pyarrow as pa

        schema = self.schema
        said: Any = answer.prediction
        if self._package.task.answer_keys:
            return pa.record_batch([pa.array(np.ascontiguousarray(column)) for column in said.T], schema=schema)
        if self._package.task.type == "multilabel":
            said = np.array([None, *map(self._package.given, said.tolist())], object)[1:]  # an array of lists, whatever their lengths
        arrays: list[Any] = [pa.array(said if said.ndim == 1 else list(said), schema.field(0).type)]
        if answer.probability is not None:
            arrays.extend(pa.array(np.ascontiguousarray(column)) for column in answer.probability.T)
        return pa.record_batch(arrays, schema=schema)

    def _faults(self, cleaned: "Cleaned", where: str) -> int:
        faults = cleaned.faults
        if self._strict and len(faults):
            row, name = faults.row[0].as_py(), faults.column[0].as_py()
            place = f"{where}, row {row + 1} of this part"
            if not name:
                raise DataError(f"{place}: {faults.reason[0].as_py()}.", fix="Repair the row, or leave --strict out to answer it as if all of it were missing.")
            raise DataError(
                f"{place}, column {name!r}: found {faults.value[0].as_py()!r}: {faults.reason[0].as_py()}.",
                fix="Repair the cell, or leave --strict out to answer it as missing.",
            )
        n_faults = len(faults)
        broken = sum(1 for name in faults.column.to_pylist() if not name) if self._required and n_faults else 0
        for name in self._required:
            known = sum(1 for n in faults.column.to_pylist() if n == name) + broken
            n_missing = cleaned.batch.column(name).null_count - known
            if n_missing > 0 and self._strict:
                row = cleaned.batch.column(name).is_null().index(True).as_py()
                raise DataError(f"{where}, row {row + 1} of this part, column {name!r}: nothing is there, but the model needs a value.", fix="Fill the cell.")
            n_faults += max(n_missing, 0)
        return n_faults
