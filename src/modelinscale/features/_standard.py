"""Numbers of a sequence in deviations from the mean of their channel; the same bits in Python and in the graph. N rows, T steps, D channels, M steps."""

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.graph import Graph

CLIP = 10.0
"""Largest scaled magnitude, in standard deviations."""
Learned = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Mean and one over the deviation of each channel, (D,) each."""


def standardised(x: NDArray[np.float32], learned: Learned) -> NDArray[np.float64]:
    """(M, D): deviations from the mean, cut; never -0; NaN where a number is missing."""
    mean, factor = learned
    with np.errstate(invalid="ignore"):
        z = np.minimum(np.maximum((x.astype(np.float64) - mean) * factor, -CLIP), CLIP)
    return np.where(z == 0, 0.0, z)


def draw_standardised(graph: Graph, tensor: str, learned: Learned) -> str:
    """Draws `standardised`; what it gives for a missing number is not used."""
    mean, factor = learned
    z = graph.op("Sub", graph.op("Cast", tensor, to=graph.FLOAT64), graph.constant(mean[None, None, :]))
    z = graph.op("Mul", z, graph.constant(factor[None, None, :]))
    z = graph.op("Min", graph.op("Max", z, graph.constant(-CLIP, np.float64)), graph.constant(CLIP, np.float64))
    zero = graph.constant(0.0, np.float64)
    return graph.op("Where", graph.op("Equal", z, zero), zero, z)


def ends(graph: Graph, missing: str) -> str:
    """Draws how many steps each row has, int64 (N,): behind the last with a number there are none. ``missing`` bool (N, T, D)."""
    gone = graph.op("ReduceMin", graph.op("Cast", missing, to=graph.INT32), graph.constant([2], np.int64), keepdims=0)  # (N, T)
    n_steps = graph.op("Squeeze", graph.op("Shape", gone, start=1, end=2), graph.constant([0], np.int64))
    number = graph.op("Range", graph.constant(1, np.int64), graph.op("Add", n_steps, graph.constant(1, np.int64)), graph.constant(1, np.int64))
    there = graph.op("Sub", graph.constant(1, np.int64), graph.op("Cast", gone, to=graph.INT64))
    return graph.op("ReduceMax", graph.op("Mul", there, number), graph.constant([1], np.int64), keepdims=0)
