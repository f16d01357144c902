"""Parts in time: the last rows test, those before them choose. Where the borders lie is found exactly, by counting, without sorting the table."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.errors import DataError
from modelinscale.core.units import seconds, show_seconds
from modelinscale.data._parts import TEST, TO_SAY, TRAIN, UNUSED, VALID, Parts

if TYPE_CHECKING:
    from modelinscale.data.partitions import Rows

_BITS = 16
"""Of a value, looked at in one pass over the table: 65,536 counters."""


def by_time(parts: Parts, table: "Rows", name: str, valid: float | str, test: float | str, label_delay: float, *, last: int = TEST) -> None:
    """Says the part of every row that is `TO_SAY`, in place; the last rows are part ``last``.

    ``label_delay`` seconds before each of the two later parts are unused, and so are rows without a time. Rows of one moment stay together.
    """
    _check(table, name, valid, test, label_delay)
    times = _Times(parts, table, name)
    if not times.n:
        raise DataError(f"the time column {name!r} is missing in every row with a target.", fix="Name another column under `time`.")
    gap = label_delay * 1e6
    test_from = times.cut(test, times.n, times.high + 1)
    valid_from = test_from
    before = test_from - gap
    if valid and times.count(before):
        valid_from = times.cut(valid, times.n, before, below=before)
    for here, values, present in times.each():
        new = np.full(len(here), UNUSED, np.int8)
        new[present & (values >= test_from)] = last
        new[present & (values >= valid_from) & (values < before)] = VALID
        new[present & (values < valid_from - gap)] = TRAIN
        at = here == TO_SAY
        here[at] = new[at]


def _check(table: "Rows", name: str, valid: float | str, test: float | str, label_delay: float) -> None:
    kind = table.head(1, [name])[name].dtype
    if not (kind.is_temporal() or kind.is_numeric()):
        raise DataError(f"the time column {name!r} holds {str(kind).lower()}, no moments or numbers.", fix=f"Declare its type: `columns: {{{name}: time}}`.")
    durations = [str(size) for size in (valid, test) if isinstance(size, str)] + ([show_seconds(label_delay)] if label_delay else [])
    if durations and not kind.is_temporal():
        raise DataError(
            f"the time column {name!r} holds plain numbers, so {durations[0]} means nothing there.", fix="Write shares such as 0.15, no `label_delay`."
        )


@dataclass
class _Times:
    """The times of the rows whose part is to be said; moments are microseconds since 1970."""

    parts: Parts
    table: "Rows"
    name: str

    def __post_init__(self) -> None:
        self.n = 0
        self.low: Any = None
        self.high: Any = None
        for _, values, present in self.each():
            some = values[present]
            if len(some):
                self.n += len(some)
                low, high = some.min().item(), some.max().item()
                self.low = low if self.low is None else min(self.low, low)
                self.high = high if self.high is None else max(self.high, high)

    def each(self) -> Iterator[tuple[Parts, NDArray[Any], NDArray[np.bool_]]]:
        """Block by block: the parts (a view), the times, and which rows have one and are to be said."""
        for start, block in self.table.blocks([self.name]):
            column = block[self.name]
            here = self.parts[start : start + len(block)]
            if column.dtype.is_temporal():
                column = column.dt.timestamp("us")
            present = column.is_not_null().to_numpy() & (here == TO_SAY)
            values = column.fill_null(0).to_numpy()
            yield here, values, present & ~np.isnan(values) if column.dtype.is_float() else present

    def some(self, below: Any = None) -> Iterator[NDArray[Any]]:
        """The times, those before ``below`` only; None: all."""
        for _, values, present in self.each():
            yield values[present if below is None else present & (values < below)]

    def count(self, below: Any) -> int:
        return sum(len(values) for values in self.some(below))

    def cut(self, size: float | str, n_rows: int, end: Any, below: Any = None) -> Any:
        """The moment from which the last rows are taken: a share of ``n_rows``, or a duration before ``end``. Nearest to the share among distinct moments."""
        if isinstance(size, str):
            return end - seconds(size) * 1e6
        n, wanted = self.n if below is None else self.count(below), max(round(size * n_rows), 1)
        at = self.ranked(max(n - wanted, 0), below)
        n_from = n_later = 0
        later = None
        for values in self.some(below):
            after = values[values > at]
            n_from += int((values >= at).sum())
            n_later += len(after)
            if len(after):
                later = after.min().item() if later is None else min(later, after.min().item())
        return later if later is not None and (n_from == n or wanted - n_later < n_from - wanted) else at

    def ranked(self, rank: int, below: Any = None) -> Any:
        """The time with ``rank`` others before it in order, found 16 bits at a time."""
        kind = np.dtype(np.float64 if isinstance(self.low, float) else np.int64)
        base, top = (int(_keys(np.array([end], kind))[0]) for end in (self.low, self.high))
        for shift in reversed(range(0, max((top - base).bit_length(), 1), _BITS)):
            counts = np.zeros(1 << _BITS, np.int64)
            for values in self.some(below):
                above = _keys(values) - np.uint64(base)  # wraps for those below, which lie far beyond then
                above >>= np.uint64(shift)
                counts += np.bincount(above[above < 1 << _BITS].astype(np.int64), minlength=1 << _BITS)
            ends = np.cumsum(counts)
            digit = int(np.searchsorted(ends, rank, side="right"))
            rank -= int(ends[digit] - counts[digit])
            base += digit << shift
        return _value(base, kind)


def _keys(values: NDArray[Any]) -> NDArray[np.uint64]:
    """Numbers as whole ones in the same order."""
    if values.dtype.kind == "f":
        bits = (values.astype(np.float64) + 0.0).view(np.int64)  # minus zero becomes zero
        return np.where(bits < 0, ~bits, bits ^ np.int64(-(1 << 63))).view(np.uint64)
    return values.astype(np.int64).view(np.uint64) ^ np.uint64(1 << 63)


def _value(key: int, kind: "np.dtype[Any]") -> Any:
    """Back from a key."""
    flipped = key ^ (1 << 63)
    if kind.kind == "f":
        bits = flipped if key >> 63 else ~key & ((1 << 64) - 1)
        return np.array([bits], np.uint64).view(np.float64)[0].item()
    return np.array([flipped], np.uint64).view(np.int64)[0].item()
