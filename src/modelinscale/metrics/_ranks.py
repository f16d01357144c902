"""Rows in the order of their scores, in at most a few hundred cells: what rank metrics are made of.

Rows with one score share a cell. When there are more scores than cells, neighbouring scores share one too, cut so that a cell holds a small share of
the positives and of the negatives (each of a handful of positives gets its own), and two factors a cell carry what the order inside it is worth:
on all rows the metrics stay exact, and a resample differs from the exact one by far less than its own noise.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modelinscale.metrics import Answers, Table
from modelinscale.metrics._share import share

MAX_CELLS = 512


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
    return tuple(_ranks(answers.probability[:, c], answers.truth == c, answers.weights) for c in (range(n) if n > 2 else (1,)))


def _ranks(score: NDArray[np.float64], positive: NDArray[np.bool_], weight: NDArray[np.float64]) -> Ranks:
    order = np.argsort(-score)
    terms = np.stack([weight * positive, weight * ~positive], axis=1)  # (N, 2)
    sorted_score = score[order]
    starts = np.flatnonzero(np.concatenate([[True], sorted_score[1:] != sorted_score[:-1]]))
    ties = np.add.reduceat(terms[order], starts)  # (T, 2)
    ends = np.cumsum(ties, 0)  # (T, 2): up to and with this score
    cell = _cells(ties, ends)
    first = np.flatnonzero(np.concatenate([[True], cell[1:] != cell[:-1]]))
    sums = np.add.reduceat(ties, first)  # (B, 2)
    until = np.cumsum(sums, 0)

    behind = until[cell, 1] - ends[:, 1]  # negatives further down in the same cell
    won = share(np.add.reduceat(ties[:, 0] * (behind + ties[:, 1] / 2), first), sums[:, 0] * sums[:, 1], otherwise=0.5)
    exact = np.add.reduceat(ties[:, 0] * share(ends[:, 0], ends.sum(1), otherwise=0.0), first)
    kept = share(exact, sums[:, 0] * share(until[:, 0], until.sum(1), otherwise=0.0), otherwise=1.0)

    by_row = np.empty(len(score), np.int64)
    by_row[order] = np.repeat(cell, np.diff(np.append(starts, len(score))))
    return Ranks(by_row, len(sums), terms, won, kept)


def _cells(ties: NDArray[np.float64], ends: NDArray[np.float64]) -> NDArray[np.int64]:
    """(T,) the cell of each distinct score, from 0, rising by at most 1."""
    if len(ties) <= MAX_CELLS:
        return np.arange(len(ties))
    totals = ends[-1]
    place = share(ends - ties, totals, otherwise=0.0).sum(1) / max(1, int((totals > 0).sum()))  # 0 to 1
    wanted = np.minimum((place * MAX_CELLS).astype(np.int64), MAX_CELLS - 1)
    return np.cumsum(np.concatenate([[0], wanted[1:] != wanted[:-1]])).astype(np.int64)
