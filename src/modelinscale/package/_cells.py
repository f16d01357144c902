"""JSON cells to graph inputs, a column at a time: the served twin of `data.clean` followed by `encode.tensors`.

A cell is first read as its column's type says (with the habits found at collection: null words, decimal marks, formats), then put in the form the
graph takes. `read_one` is the rule; the vectorised roads beside it give the same for cells that need no thought. N rows.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modelinscale.package._cell_inputs import any_missing, fast_road, fed
from modelinscale.package._cell_rules import describe, typed_by
from modelinscale.package._cell_words import Cell, Unreadable, shown
from modelinscale.package.manifest import InputColumn

if TYPE_CHECKING:
    from modelinscale.package._clean import Chain


_FEW = 4
"""Up to this many cells NumPy costs more than it saves."""
_REMEMBERED = 100_000


class BadCell(Exception):
    """A cell that cannot be read: its position in the column, what it is, what was expected."""

    def __init__(self, row: int, found: str, expected: str) -> None:
        super().__init__(row, found, expected)
        self.row, self.found, self.expected = row, found, expected


class ColumnReader(ABC):
    """Reads one column. Holds no state that changes an answer, so threads may share it."""

    def __init__(self, spec: InputColumn) -> None:
        self.name = spec.name
        self.column = spec.column
        self.input = spec.input
        self.required = spec.required
        self.accepts = spec.accepts
        self.is_personal = spec.personal is not None
        self.beside: tuple[str, ...] = ()
        """Other columns that must be given to `read`: a missing cell is filled from them."""
        self.cleans = bool(spec.clean) or self.is_personal
        """Whether a cell may become another one: then no short cut past `read` is right."""

    @abstractmethod
    def read(self, cells: list[Cell], others: Mapping[str, Sequence[Cell]] | None = None) -> NDArray[Any]:
        """(N,) or (N, width) in graph-input form. Raises `BadCell` for the first cell that cannot be read.

        ``others``: the columns `beside`, N cells each; one that is not there has no cells.
        """


class Reader(ColumnReader):
    """Reads a column whose cells are values of JSON."""

    def __init__(self, spec: InputColumn) -> None:
        super().__init__(spec)
        chain = _cleaned(spec) if spec.clean else None
        self.beside = chain.beside if chain is not None else ()
        self._typed = _treated(spec, chain or typed_by(spec.cleaned))
        self._fast = None if self.cleans else fast_road(spec.column, spec.input)
        self._nulls = frozenset(spec.column.nulls)

    def read(self, cells: list[Cell], others: Mapping[str, Sequence[Cell]] | None = None) -> NDArray[Any]:
        if self._fast is not None and len(cells) > _FEW:
            found = self._fast(cells, self._nulls)
            if found is not None and not (self.required and any_missing(found, self.input)):
                return found
        if self.beside:
            there = {name: others[name] for name in self.beside if name in others} if others else {}
            return self._array([self._told(row, cell, {name: column[row] for name, column in there.items()}) for row, cell in enumerate(cells)])
        return self._one_by_one(cells)

    def read_one(self, cell: Cell, others: Mapping[str, Cell] | None = None) -> Any:
        """One cell in graph-input form. Raises `Unreadable` with what was expected."""
        value = self._typed(cell, others) if self.beside else self._typed(cell)
        if value is None and self.required:
            raise Unreadable(f"{describe(self.accepts)} (this column may not be missing)")
        return fed(value, self.column, self.input)

    def _one_by_one(self, cells: list[Cell]) -> NDArray[Any]:
        known: dict[Any, Any] = {}
        values: list[Any] = []
        for row, cell in enumerate(cells):
            # True == 1 == 1.0 as dictionary keys, so only text is remembered: it is also what is costly to read.
            remembered = type(cell) is str
            if remembered and cell in known:
                values.append(known[cell])
                continue
            value = self._told(row, cell)
            if remembered and len(known) < _REMEMBERED:
                known[cell] = value
            values.append(value)
        return self._array(values)

    def _told(self, row: int, cell: Cell, others: Mapping[str, Cell] | None = None) -> Any:
        try:
            return self.read_one(cell, others)
        except Unreadable as error:
            raise BadCell(row, "a value that is not shown" if self.is_personal else shown(cell), str(error)) from None

    def _array(self, values: list[Any]) -> NDArray[Any]:
        if self.input == "vector":
            assert self.column.width is not None
            return np.stack(values) if values else np.zeros((0, self.column.width), np.float32)
        if self.input == "sequence":
            found = np.empty(len(values), object)
            for i, one in enumerate(values):
                found[i] = one
            return found
        return np.array(values, {"float64": np.float64, "int64": np.int64, "string": object}[self.input])


def _cleaned(spec: InputColumn) -> "Chain":
    from modelinscale.package._clean import Chain  # here: it stands on this module

    return Chain(spec.accepts, spec.clean, spec.cleaned)


def _treated(spec: InputColumn, typed: Callable[..., Any]) -> Callable[..., Any]:
    """A personal cell without what is personal; a cell that comes treated already stays."""
    if spec.personal is None:
        return typed
    treat, is_treated = spec.personal.treatment()
    as_text = spec.column.type == "string"

    def read(cell: Cell) -> Any:
        if as_text and type(cell) is str and is_treated(cell):
            return cell
        value = typed(cell)
        return None if value is None else treat(value)

    return read
