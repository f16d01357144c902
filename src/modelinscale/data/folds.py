"""Folds: the rows of training and validation in parts of about the same size, by the rule that split them; none where that rule goes by time."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.seeds import derive
from modelinscale.core.task import Targets, names_of
from modelinscale.data._drawn import Draw
from modelinscale.data._parts import TRAIN, VALID, Parts
from modelinscale.data.split import Split

if TYPE_CHECKING:
    from modelinscale.data.partitions import Rows

_LEAST_SHARE = 0.4
"""A fold may be as much smaller than the others; else there are too few groups to fold."""


def folds(rows: "Rows", parts: Parts, split: Split, *, time: str | None, content: Sequence[str], target: Targets, n: int = 5) -> NDArray[np.int8] | None:
    """(M,): the fold of each row of training, then of each row of validation; None where folds would learn from what only the future, or another part
    that a person drew, would tell. Equal rows, and rows of one group, are in one fold.

    ``content``: the columns whose equality, with the target's, makes two rows equal. ``time``: the declared time column.
    """
    kind = split.resolved(time)
    if kind == "time" or (kind == "column" and (time is not None or _given(rows, parts, split))):
        return None
    by = split.group if kind == "group" else tuple(sorted({*content, *names_of(target)}))
    draw = Draw("random" if kind == "random" else "group" if kind == "group" else "hash", by, derive(split.seed, "folds") % (1 << 31))
    found = np.zeros(len(parts), np.int8)
    for start, block in rows.blocks(list(by) if kind != "random" else names_of(target)[:1]):
        # Not the numbers' own bounds: those of the parts may not show in the folds.
        found[start : start + len(block)] = (draw.numbers(start, block) >> np.uint64(7)) % np.uint64(n)
    chosen = np.concatenate([found[parts == TRAIN], found[parts == VALID]])
    sizes = np.bincount(chosen, minlength=n)
    return chosen if sizes.min() >= _LEAST_SHARE * len(chosen) / n else None


def _given(rows: "Rows", parts: Parts, split: Split) -> bool:
    """Whether the column itself names the rows that choose."""
    assert split.column is not None, "settings were checked"
    import polars as pl

    seen: dict[int, set[object]] = {TRAIN: set(), VALID: set()}
    for start, block in rows.blocks([split.column]):
        here = np.asarray(parts[start : start + len(block)])
        for part, values in seen.items():
            values.update(block[split.column].filter(pl.Series(here == part)).unique().to_list())
    return not seen[TRAIN] & seen[VALID]
