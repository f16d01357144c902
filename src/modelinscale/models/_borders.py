"""Borders of the bins that networks see numbers through. N rows, P columns with bins, T bins, C numbers of an answer.

Source of borders by a tree: Gorishniy et al., On Embeddings for Numerical Features in Tabular Deep Learning, 2022.
"""

import heapq
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from modelinscale.models import Examples

BINNED_COLUMNS = 300
"""Beyond this many columns of numbers none is seen through bins or waves: they are then pieces of a vector, and it would cost more than it brings."""
_CLASSES, _CELLS = 30, 1_000_000
"""A tree tells so many classes apart, the commonest, and the others together from these. It sees so many rows times numbers of an answer (8 MB, about eight
times over), and where there are more, rows spread evenly."""
_LEAST_ROWS = 20
"""Of a bin of a tree; a quarter of an even share where there are many rows."""


def varied_columns(numbers: NDArray[np.float32]) -> tuple[int, ...]:
    """Columns with more than two values; none where there are too many columns."""
    if numbers.shape[1] > BINNED_COLUMNS:
        return ()
    return tuple(column for column in range(numbers.shape[1]) if len(np.unique(numbers[:, column])) > 2)


def borders_of(numbers: NDArray[np.float32], n_bins: int, by: "Examples | None" = None) -> tuple[tuple[int, ...], NDArray[np.float32]]:
    """Columns with more than two values, and the borders of their bins (P, T + 1), fewer where values repeat, the last border repeated.

    They are quantiles; with ``by``, rows with their answers, they lie where these differ most.
    """
    binned, found = [], []
    answers = None if by is None else _answers(by)
    for column in varied_columns(numbers) if n_bins else ():
        values = numbers[:, column]
        if answers is None:
            found_here = np.quantile(values, np.linspace(0, 1, n_bins + 1))
        else:
            full, weight, step = answers
            found_here = np.array([values.min(), *_tree(values[::step], full, weight, n_bins), values.max()])
        borders = np.unique(found_here.astype(np.float32))
        if len(borders) > 1:
            binned.append(column)
            found.append(np.concatenate([borders, np.full(n_bins + 1 - len(borders), borders[-1])]))
    return tuple(binned), np.stack(found).astype(np.float32) if found else np.zeros((0, 1), np.float32)


def _answers(rows: "Examples") -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
    """(M, C), a class as a one in its place, about 0 in the mean; weights (M,); and of which rows: from the first on, each so many after the one before."""
    target = rows.target
    weight = np.ones(len(target)) if rows.weight is None else rows.weight
    classes = target.ndim == 1 and target.dtype.kind == "i"
    if classes and int(target.max()) >= _CLASSES:
        _, place, n = np.unique(target, return_inverse=True, return_counts=True)
        rank = np.argsort(np.argsort(-n, kind="stable"))
        target = np.minimum(rank, _CLASSES)[place]
    C = int(target.max()) + 1 if classes else target[0].size
    step = -(-len(target) * C // _CELLS)
    target, weight = target[::step], weight[::step]
    full = np.eye(C)[target] if classes else target.reshape(len(target), -1).astype(np.float64)
    full -= full.mean(0)
    return full, weight, step


def _tree(values: NDArray[np.float32], answers: NDArray[np.float64], weight: NDArray[np.float64], n_bins: int) -> NDArray[np.float64]:
    """Cuts, ascending: the cut that explains most of the answers' variance (of classes: Gini impurity) is made first, of all there are."""
    order = np.argsort(values, kind="stable")
    at = values[order].astype(np.float64)
    sums, weights = (np.concatenate([np.zeros((1, part.shape[1])), part.cumsum(0)]) for part in ((answers * weight[:, None])[order], weight[order, None]))
    places, least = np.flatnonzero(np.diff(at) > 0) + 1, max(_LEAST_ROWS, len(at) // (4 * n_bins))

    def explained(start: "int | NDArray[np.int64]", stop: "int | NDArray[np.int64]") -> NDArray[np.float64]:
        inside = sums[stop] - sums[start]
        return np.asarray((inside**2).sum(-1) / np.maximum(weights[stop] - weights[start], 1e-12)[..., 0])

    def best(start: int, stop: int) -> tuple[float, int, int, int]:
        own = places[np.searchsorted(places, start + least) : np.searchsorted(places, stop - least, "right")]
        if not len(own):
            return 0.0, start, start, stop
        gain = explained(start, own) + explained(own, stop) - explained(start, stop)
        return -float(gain.max()), int(own[gain.argmax()]), start, stop

    open_parts, cuts = [best(0, len(at))], list[float]()
    while len(cuts) < n_bins - 1 and open_parts:
        gain, cut, start, stop = heapq.heappop(open_parts)
        if gain >= 0:
            break
        cuts.append((at[cut - 1] + at[cut]) / 2)
        heapq.heappush(open_parts, best(start, cut))
        heapq.heappush(open_parts, best(cut, stop))
    return np.array(sorted(cuts))
