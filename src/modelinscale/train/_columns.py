"""Several target columns at once: all of them numbers, or all of them flags.

N rows, W columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.errors import DataError
from modelinscale.core.task import Task, TaskType
from modelinscale.train._lists import MAX_WIDTH
from modelinscale.train._sets import MAX_LABELS

if TYPE_CHECKING:
    import polars as pl

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class Columns:
    """What target columns hold, in short; merges exactly, so that a table can be gone through in partitions."""

    names: tuple[str, ...]
    kinds: tuple[Any, ...]
    """Their types (Polars)."""
    n: int
    """Rows that have a value in each."""
    low: F64
    high: F64
    """(W,) of these rows; NaN where a column holds no numbers, or there are no rows."""
    whole: NDArray[np.bool_]
    """(W,) whether all are whole numbers."""

    @classmethod
    def of(cls, frame: "pl.DataFrame", names: Sequence[str]) -> "Columns":
        import polars as pl

        rows, width = frame.select(names).drop_nulls(), len(names)
        low, high, whole = np.full(width, np.nan), np.full(width, np.nan), np.ones(width, np.bool_)
        for k, name in enumerate(names):
            if len(rows) and _is_number(rows.schema[name]):
                x = rows[name].cast(pl.Float64).to_numpy()
                low[k], high[k], whole[k] = np.fmin.reduce(x), np.fmax.reduce(x), bool((x == np.floor(x)).all())
        return cls(tuple(names), tuple(rows.dtypes), len(rows), low, high, whole)

    def merged(self, other: "Columns") -> "Columns":
        """Both together."""
        low, high = np.fmin(self.low, other.low), np.fmax(self.high, other.high)
        return Columns(self.names, self.kinds, self.n + other.n, low, high, self.whole & other.whole)

    @property
    def flags(self) -> NDArray[np.bool_]:
        """(W,) whether a column holds nothing but 0 and 1."""
        return self.whole & (self.low >= 0) & (self.high <= 1)


def find_columns(seen: Columns, declared: TaskType | None) -> Task:
    """The task that several target columns ask for: several labels where all are flags (true and false, 0 and 1), else several numbers.

    Raises `DataError` for columns that cannot be predicted together.
    """
    shown = ", ".join(seen.names)
    odd = [f"{name!r} holds {_words(kind)}" for name, kind in zip(seen.names, seen.kinds, strict=True) if not _is_number(kind)]
    if odd:
        raise DataError(
            f"`target` names columns that cannot be predicted together: {'; '.join(odd)}. Several targets are all numbers, or all flags.",
            fix="Predict such a column in a model.yaml of its own; words of two kinds can be flags.",
        )
    if not seen.n:
        raise DataError(f"no row has a value in each of {shown}; nothing can be learned.", fix="Choose other targets, or bring rows whose outcomes are known.")
    infinite = [name for name, a, b in zip(seen.names, seen.low, seen.high, strict=True) if np.isinf(a) or np.isinf(b)]
    if infinite:
        raise DataError(f"{', '.join(infinite)}: some rows hold an infinite number.", fix="Leave such rows out, or give them a number.")
    logical = [kind.is_(_boolean()) for kind in seen.kinds]
    if any(logical) and not bool(seen.flags.all()):
        flags = ", ".join(name for name, flag in zip(seen.names, logical, strict=True) if flag)
        numbers = ", ".join(name for name, flag in zip(seen.names, seen.flags, strict=True) if not flag)
        raise DataError(
            f"`target` mixes flags ({flags}) and numbers ({numbers}), which one answer cannot hold.", fix="Predict the two kinds in a model.yaml each."
        )
    if declared == "regression" and any(logical):
        raise DataError(f"`task: regression` needs numbers, and {shown} are flags.", fix="Leave `task` out, or set `task: multilabel`.")
    if declared == "multilabel" and not seen.flags.all():
        numbers = ", ".join(name for name, flag in zip(seen.names, seen.flags, strict=True) if not flag)
        raise DataError(f"`task: multilabel` needs flags, and {numbers} holds other numbers than 0 and 1.", fix="Leave `task` out, or set `task: regression`.")
    same = [f"{name} is {a:g}" for name, a, b in zip(seen.names, seen.low, seen.high, strict=True) if not a < b]
    if same:
        raise DataError(f"some targets are the same in every row ({', '.join(same)}); there is nothing to learn of them.", fix="Leave them out of `target`.")
    labels = declared == "multilabel" or (declared is None and bool(seen.flags.all()))
    most = MAX_LABELS if labels else MAX_WIDTH
    if len(seen.names) > most:
        raise DataError(f"`target` names {len(seen.names):,} columns; a model answers with {most:,} at most.", fix="Predict fewer at a time.")
    if labels:
        return Task(type="multilabel", target=shown, targets=seen.names, labels=seen.names)
    return Task(type="regression", target=shown, targets=seen.names, width=len(seen.names))


def encode_columns(frame: "pl.DataFrame", task: Task) -> F64 | NDArray[np.int64]:
    """(N, W): numbers, or 0 and 1. Raises `DataError` for a cell that is missing, infinite, or no flag where flags were learned."""
    import polars as pl

    found = np.empty((len(frame), len(task.targets)), np.float64)
    for k, name in enumerate(task.targets):
        found[:, k] = frame[name].cast(pl.Float64, strict=False).fill_null(float("nan")).to_numpy()
        bad = np.flatnonzero(~np.isfinite(found[:, k]) if task.numbers else ~np.isin(found[:, k], (0.0, 1.0)))
        if len(bad):
            what = "finite number" if task.numbers else "flag (true or false, 1 or 0)"
            raise DataError(f"{len(bad):,} rows have no {what} as {name!r}; the first: {frame[name][int(bad[0])]!r}.", fix="Leave such rows out.")
    return found if task.numbers else found.astype(np.int64)


def _is_number(kind: Any) -> bool:
    return bool(kind.is_numeric() or kind.is_(_boolean()))


def _boolean() -> Any:
    import polars as pl

    return pl.Boolean


def _words(kind: Any) -> str:
    return "lists" if kind.is_nested() else "moments" if kind.is_temporal() else "words"
