"""Counts of words as models that multiply want them: ``log(1 + count)`` times the inverse document frequency, each row then of length 1."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.encoded import Sparse
from modelinscale.core.graph import Graph

SMALL = 1e-12
"""The least length a row is divided by: one without known words stays zero."""


def rarity(n_with: NDArray[Any], n_rows: int) -> NDArray[np.float64]:
    """(D,): the inverse document frequency of each word, ``log((1 + N) / (1 + rows with it)) + 1``; ``n_with`` (D,): rows with it, of ``n_rows``."""
    found: NDArray[np.float64] = np.log((1 + n_rows) / (1 + n_with)) + 1
    return found


def weigh(part: Sparse, scale: NDArray[np.float64]) -> NDArray[np.float64]:
    """The values of the same cells, weighed."""
    values = np.log1p(part.values.astype(np.float64)) * scale[part.columns]
    sizes = np.diff(part.starts)
    row = np.repeat(np.arange(len(part)), sizes)
    length = np.sqrt(np.bincount(row, values * values, len(part)))
    weighed: NDArray[np.float64] = values / np.repeat(np.maximum(length, SMALL), sizes)
    return weighed


def draw_weigh(graph: Graph, tensor: str, scale: NDArray[np.float64]) -> str:
    """Draws `weigh` on a dense float32 (N, D) tensor of counts."""
    logs = graph.op("Log", graph.op("Add", tensor, graph.constant(1.0, np.float32)))
    values = graph.op("Mul", logs, graph.constant(scale, np.float32))
    length = graph.op("Sqrt", graph.op("ReduceSumSquare", values, graph.constant([1], np.int64), keepdims=1))
    return graph.op("Div", values, graph.op("Max", length, graph.constant(SMALL, np.float32)))
