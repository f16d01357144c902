"""What a sequence comes to in a few numbers, for families without an encoder for steps: the same bits in Python and in the graph.

N rows, R rows with steps, T steps, D channels. Sums are of whole numbers (deviations in units of 1 / 4096), so that their order changes nothing.
"""

from math import inf, nan

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.encoded import Form
from modelinscale.core.graph import Graph
from modelinscale.features._ragged import Ragged
from modelinscale.features._standard import CLIP, Learned, draw_standardised, ends, standardised

NAMES = ("mean", "deviation", "first", "last", "smallest", "largest")
"""Of each channel, in the order of the columns; the number of steps comes last."""
_UNITS = 4096.0
"""Of a standard deviation: what mean and deviation are counted in."""


def summary(rows: Ragged, learned: Learned, lengths: tuple[float, float], form: Form) -> NDArray[np.float32]:
    """(N, 6 D + 1). ``lengths``: mean and deviation of the number of steps."""
    with_steps = rows.sizes > 0
    starts = (np.cumsum(rows.sizes) - rows.sizes)[with_steps]
    ends = np.cumsum(rows.sizes)[with_steps] - 1
    missing, z = np.isnan(rows.numbers), standardised(rows.numbers, learned)
    whole = np.where(missing, 0, np.rint(np.where(missing, 0.0, z) * _UNITS)).astype(np.int64)
    n, total, squares = (_all(with_steps, _sums(v, starts), 0).astype(np.float64) for v in ((~missing).astype(np.int64), whole, whole * whole))
    mean, deviation = _moments(n, total, squares)
    x = z if form == "scaled" else np.where(rows.numbers == 0, np.float32(0), rows.numbers).astype(np.float64)
    first, last = (_all(with_steps, x[at], nan) for at in (starts, ends))
    least = _all(with_steps, np.minimum.reduceat(np.where(missing, inf, x), starts) if len(starts) else x[:0], nan)
    most = _all(with_steps, np.maximum.reduceat(np.where(missing, -inf, x), starts) if len(starts) else x[:0], nan)
    steps = rows.sizes.astype(np.float64)[:, None]
    gone = n == 0
    if form == "scaled":
        parts = [np.where(gone | np.isnan(v), 0.0, v) for v in (mean, deviation, first, last, least, most)]
        return np.concatenate([*parts, _scaled_steps(steps, lengths)], axis=1).astype(np.float32)
    mean, deviation = mean / learned[1] + learned[0], deviation / learned[1]
    return np.concatenate([*(np.where(gone, nan, v) for v in (mean, deviation, first, last, least, most)), steps], axis=1).astype(np.float32)


def draw_summary(graph: Graph, tensor: str, learned: Learned, lengths: tuple[float, float], form: Form) -> str:
    """Draws `summary` of a tensor (N, T, D) with NaN behind each row's end, T at least 1."""
    along, none, zero = graph.constant([1], np.int64), graph.constant(nan, np.float64), graph.constant(0.0, np.float64)
    missing, z = graph.op("IsNaN", tensor), draw_standardised(graph, tensor, learned)
    whole = graph.op("Round", graph.op("Mul", graph.op("Where", missing, zero, z), graph.constant(_UNITS, np.float64)))
    whole = graph.op("Cast", whole, to=graph.INT64)
    present = graph.op("Cast", graph.op("Not", missing), to=graph.INT64)
    sums = (graph.op("ReduceSum", v, along, keepdims=0) for v in (present, whole, graph.op("Mul", whole, whole)))
    n, total, squares = (graph.op("Cast", v, to=graph.FLOAT64) for v in sums)
    mean, deviation = _draw_moments(graph, n, total, squares)
    plain = graph.op("Where", graph.op("Equal", tensor, graph.constant(np.float32(0))), graph.constant(np.float32(0)), tensor)
    x = z if form == "scaled" else graph.op("Cast", plain, to=graph.FLOAT64)
    steps = ends(graph, missing)  # (N,)
    at = graph.op("Unsqueeze", graph.op("Max", graph.op("Sub", steps, graph.constant(1, np.int64)), graph.constant(0, np.int64)), along)
    known = graph.op("Where", missing, none, x)
    first, last = graph.op("Gather", known, graph.constant(0, np.int64), axis=1), graph.op("GatherND", known, at, batch_dims=1)
    least = graph.op("ReduceMin", graph.op("Where", missing, graph.constant(inf, np.float64), x), along, keepdims=0)
    most = graph.op("ReduceMax", graph.op("Where", missing, graph.constant(-inf, np.float64), x), along, keepdims=0)
    steps = graph.op("Cast", graph.op("Unsqueeze", steps, along), to=graph.FLOAT64)
    gone = graph.op("Equal", n, zero)
    if form == "scaled":
        parts = [graph.op("Where", graph.op("Or", gone, graph.op("IsNaN", v)), zero, v) for v in (mean, deviation, first, last, least, most)]
        steps = _draw_scaled_steps(graph, steps, lengths)
    else:
        factor = graph.constant(learned[1][None, :])
        mean = graph.op("Add", graph.op("Div", mean, factor), graph.constant(learned[0][None, :]))
        parts = [graph.op("Where", gone, none, v) for v in (mean, graph.op("Div", deviation, factor), first, last, least, most)]
    return graph.op("Cast", graph.op("Concat", *parts, steps, axis=1), to=graph.FLOAT32)


def _sums(v: NDArray[np.int64], starts: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.add.reduceat(v, starts) if len(starts) else v[:0]


def _all(with_steps: NDArray[np.bool_], values: NDArray[np.float64] | NDArray[np.int64], other: float) -> NDArray[np.float64]:
    """(R, D) of the rows with steps to (N, D) of all."""
    found = np.full((len(with_steps), values.shape[1]), other)
    found[with_steps] = values
    return found


def _moments(n: NDArray[np.float64], total: NDArray[np.float64], squares: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    count = np.maximum(n, 1.0)
    mean = total / count
    variance = np.maximum(squares / count - mean * mean, 0.0)
    return mean / _UNITS, np.sqrt(variance) / _UNITS


def _draw_moments(graph: Graph, n: str, total: str, squares: str) -> tuple[str, str]:
    units, count = graph.constant(_UNITS, np.float64), graph.op("Max", n, graph.constant(1.0, np.float64))
    mean = graph.op("Div", total, count)
    variance = graph.op("Sub", graph.op("Div", squares, count), graph.op("Mul", mean, mean))
    variance = graph.op("Max", variance, graph.constant(0.0, np.float64))
    return graph.op("Div", mean, units), graph.op("Div", graph.op("Sqrt", variance), units)


def _scaled_steps(steps: NDArray[np.float64], lengths: tuple[float, float]) -> NDArray[np.float64]:
    return np.minimum(np.maximum((steps - lengths[0]) / (lengths[1] or 1.0), -CLIP), CLIP)


def _draw_scaled_steps(graph: Graph, steps: str, lengths: tuple[float, float]) -> str:
    z = graph.op("Div", graph.op("Sub", steps, graph.constant(lengths[0], np.float64)), graph.constant(lengths[1] or 1.0, np.float64))
    return graph.op("Min", graph.op("Max", z, graph.constant(-CLIP, np.float64)), graph.constant(CLIP, np.float64))
