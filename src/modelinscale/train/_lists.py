"""A target that holds lists of numbers, all of one length: what it holds, and its numbers as an array.

N rows, W numbers of a list.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.errors import DataError
from modelinscale.core.task import Task

if TYPE_CHECKING:
    import polars as pl

MAX_WIDTH = 4096
"""Longer lists are no answer any more."""
_SHOWN = 8


@dataclass(frozen=True)
class Lists:
    """What a column of lists holds, in short; merges exactly, so that a table can be gone through in partitions."""

    n_rows: int
    """Rows, those without a list among them."""
    n: int
    """Rows with a list."""
    width: int
    """Numbers of the first list; 0 where there is none."""
    first: int
    """The row of it."""
    odd: tuple[int, str] | None
    """The first row that cannot be a target, and why; none: all can."""
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    """(W,): least and greatest of each number."""

    @classmethod
    def of(cls, values: "pl.Series") -> "Lists":
        flat, lengths, there = _flat(values)
        if not len(there):
            return cls(len(values), 0, 0, 0, None, np.zeros(0), np.zeros(0))
        width, first = int(lengths[0]), int(there[0])
        other = np.flatnonzero(lengths != width)
        starts = np.cumsum(lengths) - lengths
        broken = np.flatnonzero(~np.isfinite(flat))
        found: list[tuple[int, str]] = []
        if len(other):
            found.append((int(there[other[0]]), _unequal(int(lengths[other[0]]), first, width)))
        if len(broken):
            place = int(np.searchsorted(starts, broken[0], side="right")) - 1
            at = int(broken[0] - starts[place])
            what = "missing" if np.isnan(flat[broken[0]]) else "infinite"
            found.append((int(there[place]), f"its number {at + 1} of {lengths[place]} is {what}"))
        odd = min(found) if found else None
        if odd or not width:
            return cls(len(values), len(there), width, first, odd, np.zeros(width), np.zeros(width))
        whole = flat.reshape(-1, width)
        return cls(len(values), len(there), width, first, None, whole.min(0), whole.max(0))

    def merged(self, other: "Lists") -> "Lists":
        """Both, one after the other."""
        if not self.n or not other.n:
            one, before = (self, 0) if self.n else (other, self.n_rows)
            odd = None if one.odd is None else (one.odd[0] + before, one.odd[1])
            return Lists(self.n_rows + other.n_rows, one.n, one.width, one.first + before, odd, one.low, one.high)
        odd, first = self.odd, other.first + self.n_rows
        if odd is None and other.width != self.width:
            odd = (first, _unequal(other.width, self.first, self.width))
        elif odd is None and other.odd is not None:
            odd = (other.odd[0] + self.n_rows, other.odd[1])
        alike = self.width == other.width
        low = np.minimum(self.low, other.low) if alike else self.low
        high = np.maximum(self.high, other.high) if alike else self.high
        return Lists(self.n_rows + other.n_rows, self.n + other.n, self.width, self.first, odd, low, high)


def find_lists(seen: Lists, target: str) -> Task:
    """The task that a column of lists asks for. Raises `DataError` naming the row where the lists are no answer of one length."""
    if seen.odd is not None:
        row, why = seen.odd
        raise DataError(
            f"{target!r} cannot be predicted: in row {row:,} (counted from 0) {why}.",
            fix="Give every row as many numbers, all of them finite; a row without an answer has no list at all.",
        )
    if seen.width < 2:
        what = "empty lists" if not seen.width else "lists of one number"
        raise DataError(f"{target!r} holds {what}, which are no answer.", fix="Give lists of two or more numbers, or the number itself.")
    if seen.width > MAX_WIDTH:
        raise DataError(f"{target!r} holds lists of {seen.width:,} numbers; a model answers with {MAX_WIDTH:,} at most.", fix="Predict fewer at a time.")
    same = np.flatnonzero(seen.low == seen.high)
    if len(same):
        shown = ", ".join(f"number {k + 1} is {seen.low[k]:g}" for k in same[:_SHOWN])
        more = f" and {len(same) - _SHOWN} more" if len(same) > _SHOWN else ""
        raise DataError(
            f"some numbers of {target!r} are the same in every row ({shown}{more}); there is nothing to learn of them.", fix="Leave them out of the lists."
        )
    return Task(type="regression", target=target, width=seen.width)


def encode_lists(values: "pl.Series", task: Task) -> NDArray[np.float64]:
    """(N, W). Raises `DataError` for a missing list, one of another length, and one with a number that is missing or infinite."""
    flat, lengths, there = _flat(values)
    assert task.width is not None
    bad = np.flatnonzero(lengths != task.width)
    n_bad = len(bad) + len(values) - len(there)
    if n_bad:
        found = f"the first has {lengths[bad[0]]}" if len(bad) else "they have none"
        raise DataError(f"{n_bad:,} rows have no list of {task.width} numbers as {task.target!r}; {found}.", fix="Leave such rows out, or train again.")
    broken = np.unique(np.flatnonzero(~np.isfinite(flat)) // task.width)
    if len(broken):
        raise DataError(f"{len(broken):,} rows have a list with a number missing or infinite as {task.target!r}.", fix="Leave such rows out.")
    return np.ascontiguousarray(flat.reshape(-1, task.width), np.float64)


def _flat(values: "pl.Series") -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """All numbers one after the other (NaN: missing), and of each row that has a list its length and place."""
    import polars as pl

    there = values.is_not_null().arg_true().to_numpy().astype(np.int64)
    lists = values.drop_nulls().cast(pl.List(pl.Float64))
    lengths = lists.list.len().to_numpy().astype(np.int64)
    numbers = lists.filter(lists.list.len() > 0).explode()
    return numbers.fill_null(float("nan")).to_numpy().astype(np.float64, copy=False), lengths, there


def _unequal(length: int, first: int, width: int) -> str:
    return f"its list has {length} numbers, that of row {first:,} has {width}"
