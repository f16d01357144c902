"""One cell to a typed value, as its column's type says: the rule that whole columns are held against."""

import math
import re
from collections.abc import Callable
from datetime import date, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.schema import Column
from modelinscale.package._cell_moments import takes_iso, time_in
from modelinscale.package._cell_words import (
    EXACT,
    HEX,
    LARGEST_INT,
    LONGEST_CHARS,
    LONGEST_INT,
    PLAIN_NUMBERS,
    WHOLE,
    Cell,
    Habits,
    Unreadable,
    decimal_in,
    plain,
    written_float,
)

_WRITTEN_STEPS = 10_000
"""Of a sequence that comes as text, at most."""


def describe(column: Column) -> str:
    """What a cell of the column may be, in words for an error."""
    words = {
        "int": "a whole number",
        "float": "a number",
        "bool": "true or false" + (f" (or {column.true_words[0]!r} / {column.false_words[0]!r})" if column.true_words and column.false_words else ""),
        "string": "text",
        "vector": f"a list of {column.width} numbers",
        "sequence": "a list of numbers" if column.width == 1 else f"a list of steps, each a list of {column.width} numbers",
        "binary": "an image: the bytes of a PNG or JPEG file in base64",
    }
    if column.type != "time":
        return words[column.type]
    if column.format in ("epoch_s", "epoch_ms"):
        return f"a moment as {'seconds' if column.format == 'epoch_s' else 'milliseconds'} since 1970"
    iso = "as ISO 8601 (2024-05-01T13:00:00)"
    if column.format in (None, "iso"):
        return f"a moment {iso}"
    return f"a moment written {column.format}" + (f", or {iso}" if takes_iso(column.format) else "")


def typed_by(column: Column) -> Callable[[Cell], Any]:
    """Reads one cell of the column as its type: int, float, bool, str, microseconds since 1970, a float32 array; None is missing."""
    habits = Habits(column)
    rule: Callable[[Cell, Habits], Any] = {
        "int": _int, "float": _float, "bool": _bool, "string": string_in, "time": time_in, "vector": _vector, "sequence": _sequence,
    }[column.type]  # fmt: skip
    expected = describe(column)
    # No number or moment is longer, and patterns may take long over long text.
    longest = LONGEST_CHARS * (column.width or 1) * (_WRITTEN_STEPS if column.type == "sequence" else 1)

    def read(cell: Cell) -> Any:
        if isinstance(cell, np.generic):
            cell = cell.item()
        if cell is None:
            return None
        if type(cell) is not str or column.type == "string":
            return tried(cell)
        if len(cell) > longest:
            raise Unreadable(expected)
        cell = cell.strip()
        if habits.is_null_word(cell):
            return None
        try:
            return tried(cell)
        except Unreadable:
            return tried(plain(cell))  # written with full-width digits, odd spaces, a Unicode minus

    def tried(cell: Cell) -> Any:
        try:
            return rule(cell, habits)
        except Unreadable as error:
            raise Unreadable(str(error) or expected) from None
        except (ValueError, TypeError, OverflowError):
            raise Unreadable(expected) from None

    return read


def _int(cell: Cell, habits: Habits) -> int | None:
    if type(cell) is str:
        cell = _whole_in(habits.number(cell))
    if type(cell) is float:
        if math.isnan(cell):
            return None
        if not abs(cell) <= EXACT or cell != int(cell):
            raise Unreadable
        cell = int(cell)
    if type(cell) is not int:
        raise Unreadable
    if not -LARGEST_INT - 1 <= cell <= LARGEST_INT:
        raise Unreadable("a whole number of at most 64 bits")
    return cell


def _whole_in(text: str) -> int | float:
    if WHOLE.fullmatch(text):
        return int(text) if len(text) < LONGEST_INT else 1 << 64
    return int(text, 16) if HEX.fullmatch(text) else decimal_in(text)


def _float(cell: Cell, habits: Habits) -> float | None:
    if type(cell) is str:
        cell = decimal_in(habits.number(cell))
    if type(cell) not in (int, float):
        raise Unreadable
    try:
        value = float(cell)
    except OverflowError:
        value = math.inf
    if math.isinf(value):
        raise Unreadable("a finite number")
    return None if math.isnan(value) else value


def _bool(cell: Cell, habits: Habits) -> bool | None:
    if type(cell) is bool:
        return cell
    if type(cell) is str:
        word = cell.lower()
        if word in habits.true_words:
            return True
        if word in habits.false_words:
            return False
    elif type(cell) in (int, float):
        if cell != cell:
            return None
        if cell in (0, 1):
            return bool(cell)
    raise Unreadable


def string_in(cell: Cell, habits: Habits) -> str | None:
    if type(cell) is bool:
        return "true" if cell else "false"
    if type(cell) is int:
        cell = str(cell)
    elif type(cell) is float:
        if math.isnan(cell):
            return None
        cell = written_float(cell)
    elif isinstance(cell, (datetime, date)):
        cell = cell.isoformat()
    elif not isinstance(cell, str):
        raise Unreadable
    if not cell or cell.strip() in habits.text_nulls:
        return None
    if b"\0" in cell.encode():  # where a text tensor of ONNX would end; a lone surrogate is a ValueError
        raise Unreadable("text without NUL characters")
    return str(cell)


def _vector(cell: Cell, habits: Habits) -> NDArray[np.float32] | None:
    width = habits.column.width
    if isinstance(cell, str):
        cell = [decimal_in(part) for part in re.sub(r"\s*[,;\s]\s*", " ", cell.strip("[]() ")).split(" ")]
    if isinstance(cell, np.ndarray):
        cell = cell.tolist()
    if not isinstance(cell, (list, tuple)):
        raise Unreadable
    if len(cell) != width:
        raise Unreadable(f"a list of {width} numbers, not of {len(cell)}")
    if all(v is None or v != v for v in cell):
        return None
    if not PLAIN_NUMBERS.issuperset(map(type, cell)):
        raise Unreadable
    with np.errstate(over="ignore"):
        found = np.array(cell, np.float64).astype(np.float32)
    if not np.isfinite(found).all():
        raise Unreadable(f"a list of {width} finite numbers")
    return found


def _sequence(cell: Cell, habits: Habits) -> NDArray[np.float32]:
    width = habits.column.width or 1
    if isinstance(cell, str):
        numbers = [decimal_in(part) for part in re.sub(r"[\[\](),;\s]+", " ", cell).split()]
        if len(numbers) % width:
            raise Unreadable
        cell = [numbers[i : i + width] for i in range(0, len(numbers), width)]
    if isinstance(cell, np.ndarray):
        cell = cell.tolist()
    if not isinstance(cell, (list, tuple)):
        raise Unreadable
    steps = [step if isinstance(step, (list, tuple)) else [step] if width == 1 else [None] * width if step is None else () for step in cell]
    short = next((step for step in steps if len(step) != width), None)
    if short is not None:
        raise Unreadable(f"{describe(habits.column)}, not of {len(short)}" if short else "")
    flat = [v for step in steps for v in step]
    if not (PLAIN_NUMBERS | {type(None)}).issuperset(map(type, flat)):
        raise Unreadable
    with np.errstate(over="ignore"):
        found = np.array([math.nan if v is None else v for v in flat], np.float64).astype(np.float32)
    if np.isinf(found).any():
        raise Unreadable(f"{describe(habits.column)}, all of them finite")
    return found.reshape(-1, width)
