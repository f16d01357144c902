"""A target that holds lists of labels, each cell a list as JSON has it: which labels there are, and for each row which of them it has.

N rows, C labels.
"""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.errors import DataError
from modelinscale.core.task import Task

if TYPE_CHECKING:
    import polars as pl

MAX_LABELS = 1000
"""More labels than this are no longer a table's target."""
_SHOWN = 6


@dataclass(frozen=True)
class Sets:
    """What a column of lists of labels holds, in short; merges exactly, so that a table can be gone through in partitions."""

    n_rows: int
    """Rows, those without a list among them."""
    counts: dict[str, int]
    """How many rows have each label."""
    odd: tuple[int, str] | None
    """The first row that holds no list of labels, and what it holds; none: all do."""

    @classmethod
    def of(cls, values: "pl.Series") -> "Sets":
        counts: dict[str, int] = {}
        odd: tuple[int, str] | None = None
        for row, cell in enumerate(values.to_list()):
            if cell is None:
                continue
            labels = labels_of(cell)
            if labels is None:
                odd = odd or (row, str(cell)[:80])
                continue
            for label in labels:
                counts[label] = counts.get(label, 0) + 1
        return cls(len(values), counts, odd)

    def merged(self, other: "Sets") -> "Sets":
        """Both, one after the other."""
        counts = dict(self.counts)
        for label, n in other.counts.items():
            counts[label] = counts.get(label, 0) + n
        later = None if other.odd is None else (other.odd[0] + self.n_rows, other.odd[1])
        return Sets(self.n_rows + other.n_rows, counts, self.odd or later)


def holds_sets(present: "pl.Series") -> bool:
    """Whether text cells look like lists."""
    return len(present) > 0 and bool(present.str.starts_with("[").all())


def find_sets(seen: Sets, target: str) -> Task:
    """The task that a column of lists of labels asks for, the labels sorted. Raises `DataError` naming the row where a cell is no such list."""
    if seen.odd is not None:
        row, cell = seen.odd
        raise DataError(
            f"{target!r} cannot be predicted as labels: row {row:,} (counted from 0) holds {cell!r}, which is no list of words.",
            fix='Give every row a list such as ["red", "round"], an empty one where no label is true; a row whose labels are not known has none at all.',
        )
    labels = sorted(seen.counts)
    if not labels:
        raise DataError(f"no row has any label as {target!r}: every list is empty; nothing can be learned.", fix="Bring rows with labels.")
    if len(labels) == 1:
        raise DataError(f"{target!r} holds one label only, {labels[0]!r}.", fix="Make it a column of flags, true where the label is there.")
    if len(labels) > MAX_LABELS:
        raise DataError(f"{target!r} holds {len(labels):,} different labels; a model can tell {MAX_LABELS:,} apart.", fix="Group them.")
    return Task(type="multilabel", target=target, labels=tuple(labels))


def encode_sets(values: "pl.Series", task: Task) -> NDArray[np.int64]:
    """(N, C): 1 where a row has a label. Raises `DataError` for cells that are no list, and for labels that are not known."""
    places = {label: k for k, label in enumerate(task.labels)}
    found = np.zeros((len(values), len(places)), np.int64)
    for row, cell in enumerate(values.to_list()):
        labels = None if cell is None else labels_of(cell)
        if labels is None:
            raise DataError(f"a row has no list of labels as {task.target!r}: {str(cell)[:80]!r}.", fix="Leave such rows out.")
        for label in labels:
            if label not in places:
                known = ", ".join(map(repr, task.labels[:_SHOWN]))
                raise DataError(f"a row has the {task.target!r} {label!r}, which is none of the labels ({known}).", fix="Leave such rows out, or train again.")
            found[row, places[label]] = 1
    return found


def labels_of(cell: Any) -> set[str] | None:
    """The labels of a cell; None: it is no list of words."""
    if isinstance(cell, str):
        try:
            cell = json.loads(cell)
        except ValueError:
            return None
    if not isinstance(cell, list) or not all(isinstance(label, str) and label for label in cell):
        return None
    return set(cell)
