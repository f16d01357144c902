"""JSON cells to graph inputs, a column at a time: the served twin of `data.clean` followed by `encode.tensors`.

A cell is first read as its column's type says (with the habits found at collection: null words, decimal marks, formats), then put in the form the
graph takes. `read_one` is the rule; the vectorised roads beside it give the same for cells that need no thought. N rows.
"""

import math
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.encoded import MISSING_MOMENT, InputType
from modelinscale.core.schema import Column
from modelinscale.package.manifest import InputColumn

_LARGEST_INT = 2**63 - 1
_EXACT = 2.0**53
_EPOCH = datetime(1970, 1, 1)
_MICROSECOND = timedelta(microseconds=1)
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|[+-]?(?:inf|infinity|nan)", re.IGNORECASE)
_SHOWN_CHARS = 80
_REMEMBERED = 100_000

Cell = Any
"""What JSON holds: None, bool, int, float, str, a list. Python callers may also give datetimes and NumPy scalars."""


class BadCell(Exception):
    """A cell that cannot be read: its position in the column, what it is, what was expected."""

    def __init__(self, row: int, found: str, expected: str) -> None:
        super().__init__(row, found, expected)
        self.row, self.found, self.expected = row, found, expected


class _Unreadable(Exception):
    """A cell that cannot be read; holds what was expected."""


def shown(cell: Cell) -> str:
    """A cell as an error message shows it, cut to a bearable length."""
    if cell is None:
        return "null"
    if isinstance(cell, bool):
        return str(cell).lower()
    if isinstance(cell, dict):
        return "a JSON object"
    if isinstance(cell, list):
        return f"a list of {len(cell)}"
    text = f'"{cell}"' if isinstance(cell, str) else repr(cell)
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}… ({len(text):,} characters)"


class Reader:
    """Reads one column. Holds no state that changes an answer, so threads may share it."""

    def __init__(self, spec: InputColumn) -> None:
        self.name = spec.name
        self.column = spec.column
        self.input = spec.input
        self.required = spec.required
        self._typed = _typed(spec.column)
        self._fast = _fast_road(spec.column, spec.input)
        self._nulls = frozenset(spec.column.nulls)

    def read(self, cells: list[Cell]) -> NDArray[Any]:
        """(N,) or (N, width) in graph-input form. Raises `BadCell` for the first cell that cannot be read."""
        if self._fast is not None:
            found = self._fast(cells, self._nulls)
            if found is not None and not (self.required and _any_missing(found, self.input)):
                return found
        return self._one_by_one(cells)

    def read_one(self, cell: Cell) -> Any:
        """One cell in graph-input form. Raises `_Unreadable` with what was expected."""
        value = self._typed(cell)
        if value is None and self.required:
            raise _Unreadable(f"{describe(self.column)} (this column may not be missing)")
        return _fed(value, self.column, self.input)

    def _one_by_one(self, cells: list[Cell]) -> NDArray[Any]:
        known: dict[Any, Any] = {}
        values: list[Any] = []
        for row, cell in enumerate(cells):
            # True == 1 == 1.0 as dictionary keys, so only text is remembered: it is also what is costly to read.
            remembered = type(cell) is str
            if remembered and cell in known:
                values.append(known[cell])
                continue
            try:
                value = self.read_one(cell)
            except _Unreadable as error:
                raise BadCell(row, shown(cell), str(error)) from None
            if remembered and len(known) < _REMEMBERED:
                known[cell] = value
            values.append(value)
        if self.input == "vector":
            assert self.column.width is not None
            return np.array(values, np.float32).reshape(len(values), self.column.width)
        return np.array(values, {"float64": np.float64, "int64": np.int64, "string": object}[self.input])


def describe(column: Column) -> str:
    """What a cell of the column may be, in words for an error."""
    words = {
        "int": "a whole number",
        "float": "a number",
        "bool": "true or false" + (f" (or {column.true_words[0]!r} / {column.false_words[0]!r})" if column.true_words and column.false_words else ""),
        "string": "text",
        "vector": f"a list of {column.width} numbers",
    }
    if column.type != "time":
        return words[column.type]
    if column.format in ("epoch_s", "epoch_ms"):
        return f"a moment as {'seconds' if column.format == 'epoch_s' else 'milliseconds'} since 1970"
    return "a moment as ISO 8601 (2024-05-01T13:00:00)" if column.format in (None, "iso") else f"a moment written {column.format}"


# -- cell to typed value: the rule


def _typed(column: Column) -> Callable[[Cell], Any]:
    rule = {"int": _int, "float": _float, "bool": _bool, "string": _string, "time": _time, "vector": _vector}[column.type]
    expected = describe(column)

    def read(cell: Cell) -> Any:
        if isinstance(cell, np.generic):
            cell = cell.item()
        if cell is None:
            return None
        if isinstance(cell, str) and column.type != "string":
            cell = cell.strip()
            if cell == "" or cell in column.nulls:
                return None
        try:
            return rule(cell, column)
        except (_Unreadable, ValueError, TypeError, OverflowError) as error:
            raise _Unreadable(str(error) if isinstance(error, _Unreadable) and str(error) else expected) from None

    return read


def _int(cell: Cell, column: Column) -> int | None:
    if type(cell) is str:
        cell = _number_in(cell, column)
    if isinstance(cell, float):
        if math.isnan(cell):
            return None
        if cell != int(cell):
            raise _Unreadable
        cell = int(cell)
    if type(cell) is not int:
        raise _Unreadable
    if not -_LARGEST_INT - 1 <= cell <= _LARGEST_INT:
        raise _Unreadable("a whole number of at most 64 bits")
    return cell


def _float(cell: Cell, column: Column) -> float | None:
    if type(cell) is str:
        cell = _number_in(cell, column)
    if type(cell) not in (int, float):
        raise _Unreadable
    try:
        value = float(cell)
    except OverflowError:
        raise _Unreadable("a number a 64-bit float can hold") from None
    return None if math.isnan(value) else value


def _bool(cell: Cell, column: Column) -> bool | None:
    if isinstance(cell, bool):
        return cell
    if isinstance(cell, str):
        word = cell.lower()
        if word in (column.true_words or ("true",)):
            return True
        if word in (column.false_words or ("false",)):
            return False
    elif isinstance(cell, (int, float)):
        if math.isnan(cell):
            return None
        if cell in (0, 1):
            return bool(cell)
    raise _Unreadable


def _string(cell: Cell, column: Column) -> str | None:
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, int):
        cell = str(cell)
    elif isinstance(cell, float):
        if math.isnan(cell):
            return None
        cell = written_float(cell)
    elif isinstance(cell, (datetime, date)):
        cell = cell.isoformat()
    elif not isinstance(cell, str):
        raise _Unreadable
    return None if not cell or cell.strip() in column.nulls else cell


def _time(cell: Cell, column: Column) -> int | None:
    if isinstance(cell, datetime):
        return _microseconds(cell)
    if isinstance(cell, date):
        return _microseconds(datetime(cell.year, cell.month, cell.day))
    form = column.format
    if form in ("epoch_s", "epoch_ms"):
        number = _number_in(cell, column) if isinstance(cell, str) else cell
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            raise _Unreadable
        if isinstance(number, float) and math.isnan(number):
            return None
        scale = 1_000_000 if form == "epoch_s" else 1_000
        moment = number * scale if isinstance(number, int) else round(number * scale)
        if not -_LARGEST_INT <= moment <= _LARGEST_INT:
            raise _Unreadable
        return moment
    if not isinstance(cell, str):
        raise _Unreadable
    return _microseconds(datetime.fromisoformat(cell) if form in (None, "iso") else datetime.strptime(cell, form))


def _microseconds(moment: datetime) -> int:
    if moment.tzinfo is not None:
        moment = moment.astimezone(UTC).replace(tzinfo=None)
    return (moment - _EPOCH) // _MICROSECOND


def _vector(cell: Cell, column: Column) -> list[float] | None:
    if isinstance(cell, np.ndarray):
        cell = cell.tolist()
    if not isinstance(cell, (list, tuple)):
        raise _Unreadable
    if len(cell) != column.width:
        raise _Unreadable(f"a list of {column.width} numbers, not of {len(cell)}")
    if any(type(v) not in (int, float, type(None)) for v in cell):
        raise _Unreadable
    values = [math.nan if v is None else float(v) for v in cell]
    return None if all(map(math.isnan, values)) else values


def _number_in(text: str, column: Column) -> int | float:
    """A number written with the column's habits. Raises `_Unreadable`."""
    for affix in column.affixes:
        text = text.removeprefix(affix).removesuffix(affix).strip()
    if column.thousands and column.thousands in text:
        if not re.fullmatch(rf"[+-]?\d{{1,3}}(?:{re.escape(column.thousands)}\d{{3}})+(?:{re.escape(column.decimal)}\d*)?", text):
            raise _Unreadable
        text = text.replace(column.thousands, "")
    if column.decimal != ".":
        if "." in text:
            raise _Unreadable
        text = text.replace(column.decimal, ".")
    if not _NUMBER.fullmatch(text):
        raise _Unreadable
    return int(text) if text.lstrip("+-").isdigit() and len(text) < 40 else float(text)


# -- typed value to graph input: the twin of encode.tensors


def _fed(value: Any, column: Column, input: InputType) -> Any:
    if input == "vector":
        return [math.nan] * (column.width or 0) if value is None else value
    if input == "float64":
        return math.nan if value is None else _as_float(value, column)
    if input == "string":
        return "" if value is None else _as_text(value, column)
    return MISSING_MOMENT if value is None else _as_int(value)


def _as_float(value: Any, column: Column) -> float:
    if column.type == "string":
        return float(value) if _NUMBER.fullmatch(value) else math.nan
    return float(value)


def _as_text(value: Any, column: Column) -> str:
    if column.type == "time":
        return (_EPOCH + timedelta(microseconds=value)).isoformat()
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else written_float(value) if isinstance(value, float) else str(value)


def _as_int(value: Any) -> int:
    if isinstance(value, float):
        return int(value) if abs(value) < 2.0**63 else MISSING_MOMENT
    return int(value)


def written_float(value: float) -> str:
    """One float as text: its shortest form, whole ones below 2**53 without ``.0``.

    >>> written_float(3.0), written_float(0.1), written_float(-0.0), written_float(1e300)
    ('3', '0.1', '0', '1e+300')
    """
    if math.isfinite(value) and value == int(value) and abs(value) < _EXACT:
        return str(int(value))
    return repr(value)


# -- whole columns that need no thought


_Fast = Callable[[list[Cell], frozenset[str]], NDArray[Any] | None]
_NUMBERS = {int, float, type(None)}
_WORDS = {str, type(None)}


def _fast_road(column: Column, input: InputType) -> _Fast | None:
    return {
        ("float", "float64"): _fast_floats,
        ("int", "float64"): _fast_ints,
        ("bool", "float64"): _fast_flags,
        ("string", "string"): _fast_words,
    }.get((column.type, input))


def _fast_floats(cells: list[Cell], nulls: frozenset[str]) -> NDArray[Any] | None:
    if not _NUMBERS.issuperset(map(type, cells)):
        return None
    try:
        return np.array(cells, np.float64)
    except OverflowError:  # an integer beyond any float: the slow road names it
        return None


def _fast_ints(cells: list[Cell], nulls: frozenset[str]) -> NDArray[Any] | None:
    found = _fast_floats(cells, nulls)
    if found is None or (np.abs(found) >= _EXACT).any():  # beyond it a float may have lost digits: the slow road is exact
        return None
    return found if ((np.trunc(found) == found) | np.isnan(found)).all() else None


def _fast_flags(cells: list[Cell], nulls: frozenset[str]) -> NDArray[Any] | None:
    return np.array(cells, np.float64) if {bool, type(None)}.issuperset(map(type, cells)) else None


def _fast_words(cells: list[Cell], nulls: frozenset[str]) -> NDArray[Any] | None:
    kinds = set(map(type, cells))
    if not _WORDS.issuperset(kinds):
        return None
    if nulls:
        cells = ["" if c is None or c.strip() in nulls else c for c in cells]
    elif type(None) in kinds:
        cells = ["" if c is None else c for c in cells]
    return np.array(cells, object)


def _any_missing(found: NDArray[Any], input: InputType) -> bool:
    return "" in found.tolist() if input == "string" else bool(np.isnan(found).any())
