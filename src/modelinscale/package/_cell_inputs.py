"""Typed values to graph inputs: the served twin of `encode.tensors`, a value or a whole column at a time. N rows."""

import math
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.encoded import MISSING_MOMENT, InputType
from modelinscale.core.schema import Column
from modelinscale.core.steps import missing
from modelinscale.package._cell_moments import EPOCH
from modelinscale.package._cell_words import DECIMAL, EXACT, Cell, written_float


def fed(value: Any, column: Column, input: InputType) -> Any:
    if input == "vector":
        return np.full(column.width or 0, np.nan, np.float32) if value is None else value
    if input == "sequence":
        return missing(column.width or 1) if value is None else value
    if input == "float64":
        return math.nan if value is None else _as_float(value, column)
    if input == "string":
        return "" if value is None else _as_text(value, column)
    return MISSING_MOMENT if value is None else _as_int(value)


def _as_float(value: Any, column: Column) -> float:
    if column.type == "string":
        return float(value) if DECIMAL.fullmatch(value) else math.nan
    return float(value)


def _as_text(value: Any, column: Column) -> str:
    if column.type == "time":
        return (EPOCH + timedelta(microseconds=value)).isoformat()
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else written_float(value) if isinstance(value, float) else str(value)


def _as_int(value: Any) -> int:
    if isinstance(value, float):
        return int(value) if abs(value) < 2.0**63 else MISSING_MOMENT
    return int(value)


_Fast = Callable[[list[Cell], frozenset[str]], NDArray[Any] | None]
_NUMBERS = {int, float, type(None)}
_WORDS = {str, type(None)}


def fast_road(column: Column, input: InputType) -> _Fast | None:
    return {
        ("float", "float64"): _fast_floats,
        ("int", "float64"): _fast_ints,
        ("bool", "float64"): _fast_flags,
        ("string", "string"): _fast_words,
    }.get((column.type, input))


def _fast_floats(cells: list[Cell], nulls: frozenset[str]) -> NDArray[Any] | None:
    found = _numbers(cells)
    return None if found is None or np.isinf(found).any() else found


def _fast_ints(cells: list[Cell], nulls: frozenset[str]) -> NDArray[Any] | None:
    found = _numbers(cells)
    if found is None or (np.abs(found) >= EXACT).any():  # beyond it a float may have lost digits: the slow road is exact
        return None
    whole = ((np.trunc(found) == found) | np.isnan(found)).all()
    return found + 0.0 if whole else None  # no whole number is -0.0


def _numbers(cells: list[Cell]) -> NDArray[np.float64] | None:
    if not _NUMBERS.issuperset(map(type, cells)):
        return None
    try:
        return np.array(cells, np.float64)
    except OverflowError:  # an integer beyond any float: the slow road names it
        return None


def _fast_flags(cells: list[Cell], nulls: frozenset[str]) -> NDArray[Any] | None:
    return np.array(cells, np.float64) if {bool, type(None)}.issuperset(map(type, cells)) else None


def _fast_words(cells: list[Cell], nulls: frozenset[str]) -> NDArray[Any] | None:
    if not _WORDS.issuperset(map(type, cells)):
        return None
    distinct = set(cells)  # each word is looked at once, however often it stands there
    missing = {c for c in distinct if c is None or (nulls and c.strip() in nulls)}
    try:
        if b"\0" in "".join(distinct - missing).encode():
            return None
    except UnicodeEncodeError:
        return None
    return np.array(["" if c in missing else c for c in cells] if missing else cells, object)


def any_missing(found: NDArray[Any], input: InputType) -> bool:
    return "" in found.tolist() if input == "string" else bool(np.isnan(found).any())
