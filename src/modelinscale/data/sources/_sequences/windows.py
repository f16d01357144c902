"""Windows of series: the last numbers known, those that came next, and what is known of these ahead.

A series is gone through in stretches that overlap by one window, so that one longer than memory is cut as one that is held.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.logs import log
from modelinscale.data.sources._sequences import NEW, Wanted
from modelinscale.data.sources._sequences.steps import holes_before, usual_step
from modelinscale.data.sources._sequences.stored import Stored

if TYPE_CHECKING:
    import polars as pl

HISTORY, FUTURE, SERIES = "history", "future", "series"
_SHARE = 16
"""A stretch, and the windows that are cut at once, each take this part of the budget."""


@dataclass
class _Counts:
    """What is left out."""

    windows: int = 0
    holes: int = 0
    gaps: int = 0


def windows(rows: Stored, wanted: Wanted) -> "Iterator[pl.DataFrame]":
    """The windows that new rows complete and that have no hole in time, series by series, value by value, in the order of time."""
    counts = _Counts()
    for start, stop in _series(rows, wanted.by):
        if stop - start >= wanted.history + wanted.horizon:
            yield from _Cut(rows, wanted, start, stop, counts).windows()
    if counts.holes:
        log("modelinscale.data.sources.sequences").warning(
            "windows that reach over a hole in time are left out; where rows are as far apart by nature, `step` says how far they may be",
            extra={"windows": counts.holes, "of": counts.windows},
        )
    if counts.gaps:
        log("modelinscale.data.sources.sequences").warning("windows with gaps in what is to be forecast are left out", extra={"windows": counts.gaps})


def _series(rows: Stored, by: tuple[str, ...]) -> Iterator[tuple[int, int]]:
    """The first row of each series, and that of the next."""
    import polars as pl

    if not by:
        yield 0, len(rows)
        return
    start, at, last = 0, 0, None
    for block in rows.blocks(by):
        both = block if last is None else pl.concat([last, block])
        differs = both.select(pl.any_horizontal(pl.col(n).ne_missing(pl.col(n).shift(1)) for n in by)).to_series().to_numpy()
        for edge in (np.flatnonzero(differs[1:]) + 1 + at - (last is not None)).tolist():
            yield start, edge
            start = edge
        at, last = at + len(block), block.tail(1)
    yield start, at


@dataclass(frozen=True)
class _Cut:
    """One series, cut into windows."""

    rows: Stored
    wanted: Wanted
    start: int
    stop: int
    counts: _Counts

    def windows(self) -> "Iterator[pl.DataFrame]":
        """Value by value."""
        wanted = self.wanted
        step = wanted.step if wanted.step is not None else usual_step(self._moments, self.stop - self.start)
        for i, name in enumerate(wanted.values):
            for first, part in self._stretches([*wanted.place, *wanted.keep, name, *wanted.past, *wanted.ahead, NEW]):
                starts = self._whole(first, part, step, count=i == 0)
                for some in np.array_split(starts, max(1, -(-len(starts) // self._most_windows))):
                    if len(some):
                        yield self._cut(part, some, name)

    def _moments(self) -> "Iterator[pl.Series]":
        """In stretches that overlap by one row."""
        for _, part in self._stretches([self.wanted.order_by], overlap=1):
            yield part[self.wanted.order_by]

    def _whole(self, first: int, part: "pl.DataFrame", step: float, *, count: bool) -> NDArray[np.int64]:
        """Where windows start in a stretch whose first row is number ``first`` of the series: those that a new row completes and that have no hole."""
        width = self._width
        starts = np.arange(-first % self.wanted.every, len(part) - width + 1, self.wanted.every)
        starts = starts[part[NEW].to_numpy()[starts + width - 1]]
        before = holes_before(part[self.wanted.order_by], step)
        unbroken = before[starts] == before[starts + width - 1]
        if count:
            self.counts.windows += len(starts)
            self.counts.holes += len(starts) - int(unbroken.sum())
        kept: NDArray[np.int64] = starts[unbroken]
        return kept

    def _cut(self, part: "pl.DataFrame", starts: NDArray[np.int64], name: str) -> "pl.DataFrame":
        """The windows of one value that start there and have no gap in their future."""
        import polars as pl

        wanted, n = self.wanted, self.wanted.history
        both = _windows_of(part[name], self._width)[starts]
        known = np.asarray(np.isfinite(both[:, n:]).all(axis=1))
        self.counts.gaps += len(known) - int(known.sum())
        both, starts = both[known], starts[known]
        found = part[starts + n - 1].select(*wanted.place, *wanted.keep)
        return found.with_columns(
            pl.lit(name).alias(SERIES),
            _vectors(HISTORY, both[:, :n]),
            *(_vectors(other, _windows_of(part[other], self._width)[starts, :n]) for other in wanted.past),
            *(_vectors(other, _windows_of(part[other], self._width)[starts]) for other in wanted.ahead),
            _vectors(FUTURE, both[:, n:]),
        )

    def _stretches(self, columns: list[str], overlap: int | None = None) -> "Iterator[tuple[int, pl.DataFrame]]":
        """Rows of the series with the number of their first; each stretch begins one window less a row before the last one's end."""
        again, n, most = self._width - 1 if overlap is None else overlap, self.stop - self.start, self._most_rows
        at = 0
        while True:
            stop = min(at + most, n)
            yield at, self.rows.rows(self.start + at, self.start + stop, columns)
            if stop == n:
                return
            at = stop - again

    @property
    def _width(self) -> int:
        return self.wanted.history + self.wanted.horizon

    @property
    def _most_rows(self) -> int:
        """Of a stretch."""
        if not self.rows.on_disk:
            return self.stop - self.start
        cells = len(self.wanted.used) + 1
        return max(2 * self._width, self.wanted.memory // (_SHARE * 16 * cells))

    @property
    def _most_windows(self) -> int:
        """That are cut at once."""
        numbers = self._width + self.wanted.history * len(self.wanted.past) + self._width * len(self.wanted.ahead)
        return max(1, self.wanted.memory // (_SHARE * 8 * numbers))


def _windows_of(values: "pl.Series", width: int) -> NDArray[np.float32]:
    """(n - W + 1, W), a view: the window that starts at each row."""
    import polars as pl

    x: NDArray[np.float32] = values.cast(pl.Float32).fill_null(float("nan")).to_numpy()
    return np.lib.stride_tricks.sliding_window_view(x, width)


def _vectors(name: str, numbers: NDArray[np.float32]) -> Any:
    import polars as pl

    return pl.Series(name, np.ascontiguousarray(numbers), dtype=pl.Array(pl.Float32, numbers.shape[1]))
