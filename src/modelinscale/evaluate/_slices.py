"""Rows by what they share: the values of a column, or fifths of its range."""

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.errors import DataError, did_you_mean

if TYPE_CHECKING:
    import polars as pl

MAX_VALUES = 20
"""Most values of one column that are looked at; the commonest."""
FEW_VALUES = 10
"""A column of numbers with no more distinct values is taken value by value."""
N_RANGES = 5


class Group(NamedTuple):
    """Some rows, and what they share."""

    column: str
    value: str
    rows: NDArray[np.int64]
    """Positions, ascending."""


def groups(names: tuple[str, ...], columns: "pl.DataFrame | None", *, least: int) -> Iterator[Group]:
    """The groups of each named column with at least ``least`` rows. Raises `DataError` for a missing column."""
    for name in names:
        known = columns.columns if columns is not None else []
        if columns is None or name not in known:
            raise DataError(f"evaluate.slices: there is no column {name!r}.{did_you_mean(name, known)}", fix=f"Columns: {', '.join(known[:30])}.")
        for value, rows in _of(columns[name]):
            if len(rows) >= least:
                yield Group(name, value, rows)


def _of(series: "pl.Series") -> Iterator[tuple[str, NDArray[np.int64]]]:
    import polars as pl

    missing = series.is_null()
    if series.dtype.is_float():
        missing = missing | series.is_nan().fill_null(True)
    elif series.dtype == pl.String:
        missing = missing | (series == "").fill_null(True)
    there = (~missing).arg_true()
    known = series.gather(there)
    if missing.any():
        yield "(missing)", missing.arg_true().to_numpy().astype(np.int64)
    if len(known) == 0:
        return
    if series.dtype.is_nested():
        raise DataError(f"evaluate.slices: column {series.name!r} holds vectors, whose values have no groups.", fix="Name a column of words, numbers or times.")
    if (series.dtype.is_numeric() or series.dtype.is_temporal()) and known.n_unique() > FEW_VALUES:
        yield from _ranges(known, there.to_numpy().astype(np.int64))
    else:
        yield from _values(known, there.to_numpy().astype(np.int64))


def _values(known: "pl.Series", there: NDArray[np.int64]) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """The commonest values; the rest together."""
    counts = known.rename("value").value_counts().sort(["count", "value"], descending=[True, False])
    common = counts["value"].head(MAX_VALUES)
    for value in common:
        yield _word(value), there[(known == value).to_numpy()]
    if len(counts) > len(common):
        yield "(other)", there[(~known.is_in(common.implode())).to_numpy()]


def _ranges(known: "pl.Series", there: NDArray[np.int64]) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Up to five ranges of about equal size; equal values stay together."""
    ordered = known.sort()
    cuts = sorted({ordered[min(len(ordered) - 1, round(len(ordered) * i / N_RANGES))] for i in range(1, N_RANGES)} - {ordered[0]})
    edges = [None, *cuts, None]
    for low, high in pairwise(edges):
        inside = np.ones(len(known), bool)
        if low is not None:
            inside &= (known >= low).to_numpy()
        if high is not None:
            inside &= (known < high).to_numpy()
        words = " and ".join(part for part in (f"from {_word(low)}" if low is not None else "", f"below {_word(high)}" if high is not None else "") if part)
        yield words or "(all)", there[inside]


def _word(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6g}" if isinstance(value, float) else str(value)
