"""Rows in the order of their scores, in at most a few hundred cells: what rank metrics are made of.

Rows with one score share a cell, and so do the negatives between two neighbouring scores of positives: no rank metric can tell them apart. When that
still makes too many cells, only the first positives get one each (precision changes fastest there); from then on neighbouring scores share one, cut so
that a cell holds a small share of the positives and of the negatives, and two factors a cell carry what the order inside it is worth. On all rows the
metrics stay exact, and a resample differs from the exact one by far less than its own noise.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modelinscale.metrics import Answers, Table
from modelinscale.metrics._share import share

MAX_CELLS = 512
N_FIRST = 100
"""Positive scores from the top that keep a cell each when there are too many for all."""


@dataclass(frozen=True, eq=False)
class Ranks(Table):
    """Cells from the highest score down; terms: weight if positive, weight if negative."""

    won: NDArray[np.float64]
    """(B,): share of the pairs (positive, negative) inside the cell that are in the right order, a tie counting one half."""
    kept: NDArray[np.float64]
    """(B,): mean precision at the cell's positives over the precision at the cell's end."""


def ranks(answers: Answers) -> tuple[Ranks, ...]:
    """For each class against the rest; for two classes only the positive one."""
    assert answers.probability is not None, "rank metrics need probabilities"
    n = answers.n_classes
    if answers.truth.ndim == 2:
        return tuple(_ranks(answers.probability[:, c], answers.truth[:, c] == 1, answers.weights) for c in range(n))
    return tuple(_ranks(answers.probability[:, c], answers.truth == c, answers.weights) for c in (range(n) if n > 2 else (1,)))


def _ranks(score: NDArray[np.float64], positive: NDArray[np.bool_], weight: NDArray[np.float64]) -> Ranks:
    order = np.argsort(-score)
    of_positive = np.where(positive, weight, 0.0)
    terms = np.stack([of_positive, weight - of_positive], axis=1)  # (N, 2)
    ordered = score[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))  # (T,): where each distinct score begins
    yes, no = of_positive[order], (weight - of_positive)[order]
    if len(starts) < len(order):
        yes, no = np.add.reduceat(yes, starts), np.add.reduceat(no, starts)  # (T,)
    yes_until, no_until = np.cumsum(yes), np.cumsum(no)  # up to and with this score
    cell = _cells(yes, no, yes_until, no_until)
    n_cells = int(cell[-1]) + 1
    yes_in, no_in = np.bincount(cell, yes, n_cells), np.bincount(cell, no, n_cells)  # (B,)
    yes_end, no_end = np.cumsum(yes_in), np.cumsum(no_in)

    at = np.flatnonzero(yes)
    here = cell[at]
    behind = no_end[here] - no_until[at] + no[at] / 2  # negatives further down in the same cell, half of those at the same score
    won = share(np.bincount(here, yes[at] * behind, n_cells), yes_in * no_in, otherwise=0.5)
    exact = np.bincount(here, yes[at] * yes_until[at] / (yes_until[at] + no_until[at]), n_cells)
    kept = share(exact, yes_in * share(yes_end, yes_end + no_end, otherwise=0.0), otherwise=1.0)

    by_row = np.empty(len(score), np.int64)
    by_row[order] = cell if len(starts) == len(order) else np.repeat(cell, np.diff(np.append(starts, len(order))))
    return Ranks(by_row, n_cells, terms, won, kept)


def _cells(yes: NDArray[np.float64], no: NDArray[np.float64], yes_until: NDArray[np.float64], no_until: NDArray[np.float64]) -> NDArray[np.int64]:
    """(T,) the cell of each distinct score, from 0, rising by at most 1."""
    positive = yes > 0
    new = np.concatenate([[False], positive[1:] | positive[:-1]])
    if new.sum() >= MAX_CELLS:
        start = int(np.flatnonzero(positive)[N_FIRST])
        sides = [(until - here, until[-1]) for here, until in ((yes, yes_until), (no, no_until)) if until[-1] > 0]
        place = sum((before * (MAX_CELLS / len(sides) / total) for before, total in sides), np.zeros(len(yes))).astype(np.int64)
        new[start + 1 :] = place[start + 1 :] != place[start:-1]
    return np.cumsum(new)
