"""Rows of a long table in the order of key and moment, whatever their number, and what is made of them: lists a key, or windows of a series."""

from collections.abc import Sequence
from dataclasses import dataclass

NEW = "_mis_new"
"""The column that says whether a row came since the last collect."""


@dataclass(frozen=True)
class Wanted:
    """What is read of the other source, and what its rows must be."""

    by: tuple[str, ...]
    order_by: str
    keep: tuple[str, ...]
    values: tuple[str, ...]
    past: tuple[str, ...]
    """Columns of which windows have what was, up to their moment."""
    ahead: tuple[str, ...]
    """Columns of which windows have what is to come as well."""
    longest: int
    """Rows of a key; of no moment for windows."""
    history: int
    horizon: int
    """Numbers before and after the moment of a window; 0: one row a key."""
    every: int
    step: float | None
    memory: int
    """Bytes that rows may take; what is more lies on disk."""
    label: str
    """The other source, for messages."""

    @property
    def place(self) -> list[str]:
        """The columns that say which row it is."""
        return [*self.by, self.order_by]

    @property
    def used(self) -> Sequence[str]:
        """All that are read."""
        return (*self.by, self.order_by, *self.keep, *self.values, *self.past, *self.ahead)
