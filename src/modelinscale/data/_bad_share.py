"""The share of rows that break the contract, above which a collect stops: then the source is broken, not some rows of it."""

from collections import Counter

from modelinscale.core.errors import DataError
from modelinscale.data._brought import most_frequent, reasons_of
from modelinscale.data.contract import Judged

ENOUGH_ROWS = 100
"""Fewer rows than this say nothing about a source that gave good rows before."""


class BadShare:
    """Over the rows judged since a collect began, or since it was taken anew."""

    def __init__(self, allowed: float, *, is_new: bool) -> None:
        """``allowed``: the share, 0 to 1; ``is_new``: whether the source never gave a row before, so that few rows tell."""
        self._allowed, self._is_new = allowed, is_new
        self._n_rows = self._n_bad = 0
        self._reasons: Counter[tuple[str, str]] = Counter()

    def see(self, judged: Judged, n_rows: int) -> None:
        """The rows of one commit."""
        self._n_rows += n_rows
        self._n_bad += judged.n_bad
        self._reasons.update(reasons_of(judged))

    def refuse(self, kept: str) -> None:
        """Raises `DataError` when too many rows are bad; ``kept`` says what is in the lake by now."""
        if self._n_bad <= self._allowed * self._n_rows or (not self._is_new and self._n_rows < ENOUGH_ROWS):
            return
        top = "\n".join(f"  {n:,} × {column or 'whole row'}: {reason}" for column, reason, n in most_frequent(self._reasons, 5))
        raise DataError(
            f"{self._n_bad:,} of {self._n_rows:,} rows read break the contract ({self._n_bad / self._n_rows:.0%}, allowed {self._allowed:.0%}).\n{top}\n",
            fix=f"Change `checks`, `key` or the types under `columns`, or mend the source; {kept}.",
        )

    def take_anew(self, after_rows: int) -> None:
        """Begins anew once so many rows were judged: rows of last week say nothing of a source that goes wrong now."""
        if self._n_rows >= after_rows:
            self._is_new = False
            self._n_rows = self._n_bad = 0
            self._reasons.clear()
