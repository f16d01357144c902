"""What rows in the order of key and moment must be, told before anything is made of them: found as they pass, a block at a time."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.errors import SourceError
from modelinscale.data.sources._sequences import NEW, Wanted

if TYPE_CHECKING:
    import polars as pl


class Checks:
    """Add all rows in their order, then `refuse`."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._last: pl.DataFrame | None = None
        """The last row so far."""
        self._n_last = 0
        """Rows of its key so far."""
        self._several = dict.fromkeys(wanted.keep, 0)
        """Keys that have several values of a column to keep."""
        self._in_last = dict.fromkeys(wanted.keep, False)
        """Whether the last key is one of them."""
        self._longest = 0
        self._late = False

    def add(self, rows: "pl.DataFrame") -> None:
        """The next rows; one at least."""
        import polars as pl

        seen = rows.select(*self._wanted.by, *self._wanted.keep, NEW)
        both = seen if self._last is None else pl.concat([self._last, seen])
        fresh = np.zeros(len(both), np.bool_)  # a key starts here
        for name in self._wanted.by:
            fresh |= _differs(both[name])
        fresh[0] = self._last is None
        key = np.cumsum(fresh)
        for name in self._wanted.keep:
            several = np.unique(key[_differs(both[name]) & ~fresh])
            known = self._in_last[name]
            self._several[name] += len(several) - int(known and key[0] in several)
            self._in_last[name] = bool(key[-1] in several or (known and key[-1] == key[0]))
        counts = np.bincount(key - key[0])
        counts[0] += self._n_last - (self._last is not None)
        self._longest, self._n_last = max(self._longest, int(counts.max())), int(counts[-1])
        new = both[NEW].to_numpy()
        self._late |= bool((new[:-1] & ~new[1:] & ~fresh[1:]).any())
        self._last = seen.tail(1)

    def refuse(self) -> None:
        """Raises `SourceError` for keys that are no sequence, and for series whose windows would be wrong."""
        for name, n in self._several.items():
            if n:
                raise SourceError(f"{n:,} keys have several {name!r}.", fix="`keep` names columns that are the same in all rows of a key.")
        if not self._wanted.history and self._longest > self._wanted.longest:
            raise SourceError(
                f"a key has {self._longest:,} rows, more than `longest` ({self._wanted.longest:,}).", fix="Name a finer key in `by`, or raise `longest`."
            )
        if self._wanted.history and self._late:
            raise SourceError(
                "rows came later than others of their series with a newer moment; windows made before would be wrong.",
                fix="Collect anew into another store, or wait until rows are complete.",
            )


def _differs(values: "pl.Series") -> NDArray[np.bool_]:
    """Whether each is another than the one before; the first is not."""
    found = values.ne_missing(values.shift(1)).to_numpy().copy()
    found[0] = False
    return found
