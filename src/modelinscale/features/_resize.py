"""Images of any size to images of one size: every new pixel a weighted mean of the pixels around its place (a triangle; a wider one to make smaller).

Bit for bit the same in NumPy, in ONNX Runtime and in any other engine: weights are whole numbers, and a whole sum stays below 2**24, where float32
holds every whole number, so the order of additions, fused operations and threads change nothing. Each axis ends in a rounding to whole pixels, as
Pillow does it (differences to its BILINEAR: one level at most).
H x W pixels become S x S, C channels, N images.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.graph import Graph

Fit = Literal["stretch", "crop"]
_ONE = 32768.0
"""Sum of the weights of a new pixel, about: times 255 it is half of 2**24."""
_PIXELS = 1 << 20
"""Pixels that are worked on at once."""
_RED, _GREEN, _BLUE, _HALF = 19595, 38470, 7471, 32768
"""ITU-R 601 in units of 2**-16, as Pillow has it."""


def resize(images: Sequence[NDArray[np.uint8]], size: int, fit: Fit, *, grey: bool) -> NDArray[np.uint8]:
    """N images (H, W, 3), each of its own size, to (N, S, S, 1 or 3). ``crop``: of the square in the middle."""
    found = np.empty((len(images), size, size, 1 if grey else 3), np.uint8)
    alike: dict[tuple[int, ...], list[int]] = {}
    for i, image in enumerate(images):
        alike.setdefault(image.shape, []).append(i)
    for (H, W, _), index in alike.items():
        most = max(1, _PIXELS // (H * W))
        for start in range(0, len(index), most):
            at = index[start : start + most]
            found[at] = _resized(np.stack([images[i] for i in at]), size, fit, grey=grey)
    return found


def _resized(stack: NDArray[np.uint8], size: int, fit: Fit, *, grey: bool) -> NDArray[Any]:
    """(N, H, W, 3) of one size."""
    H, W = stack.shape[1:3]
    if grey:
        whole = np.array([_RED, _GREEN, _BLUE], np.float64)
        stack = np.floor((stack @ whole + _HALF) / 65536)[..., None]  # whole numbers below 2**53: exact
    if H == W == size:
        return stack  # the weights would be 1 at each place and 0 elsewhere
    high, wide = (_weights(length, min(H, W) if fit == "crop" else length, size) for length in (H, W))
    rows = _along(stack.astype(np.float32), *high)  # (N, S, W, C)
    return _along(rows.transpose(0, 2, 1, 3), *wide).transpose(0, 2, 1, 3)


def _along(stack: NDArray[np.float32], weights: NDArray[np.float32], sums: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, L, ...) to (N, S, ...): the same as a product with the weights, of which nearly all are 0. Without BLAS, whose threads cost more than this."""
    first = (weights > 0).argmax(axis=1)
    total: NDArray[np.float32] = np.zeros((len(stack), len(weights), *stack.shape[2:]), np.float32)
    for k in range(int((weights > 0).sum(axis=1).max())):
        place = np.minimum(first + k, weights.shape[1] - 1)
        weight = np.where(first + k < weights.shape[1], weights[np.arange(len(weights)), place], np.float32(0))
        total += weight[:, None, None] * stack[:, place]
    rounded: NDArray[np.float32] = np.rint(total / sums[:, None])
    return rounded


def draw(graph: Graph, tensor: str, size: int, fit: Fit, *, grey: bool) -> str:
    """Draws `resize` of N images: uint8 (N, H, W, 3) to float32 (N, S, S, C), whole numbers from 0 to 255."""
    if grey:
        shares = graph.op("Mul", graph.op("Cast", tensor, to=graph.INT32), graph.constant([_RED, _GREEN, _BLUE], np.int32))
        whole = graph.op("Add", graph.op("ReduceSum", shares, graph.constant([3], np.int64), keepdims=1), graph.constant(_HALF, np.int32))
        tensor = graph.op("Div", whole, graph.constant(65536, np.int32))
    C, S = 1 if grey else 3, graph.constant([size], np.int64)
    pixels = graph.op("Cast", tensor, to=graph.FLOAT32)
    H, W = (graph.op("Shape", tensor, start=axis, end=axis + 1) for axis in (1, 2))
    least = graph.op("Min", H, W)
    (high, high_sum), (wide, wide_sum) = (_draw_weights(graph, length, least if fit == "crop" else length, size) for length in (H, W))
    N = graph.op("Shape", tensor, start=0, end=1)
    flat = graph.op("Reshape", pixels, graph.op("Concat", N, H, graph.constant([-1], np.int64), axis=0))  # (N, H, W * C)
    rows = graph.op("Round", graph.op("Div", graph.op("MatMul", high, flat), high_sum))  # (N, S, W * C)
    rows = graph.op("Reshape", rows, graph.op("Concat", N, S, W, graph.constant([C], np.int64), axis=0))
    return graph.op("Round", graph.op("Div", graph.op("MatMul", wide, rows), wide_sum))  # (N, S, S, C)


@lru_cache(maxsize=256)
def _weights(length: int, used: int, size: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(S, L) whole weights of L old pixels of which the ``used`` in the middle become S new ones, and their sums (S, 1)."""
    step = np.float64(used) / size
    support = np.maximum(step, 1.0)
    centre = (np.arange(size, dtype=np.float64)[:, None] + 0.5) * step + np.float64(length - used) / 2
    distance = np.abs(centre - (np.arange(length, dtype=np.float64)[None] + 0.5)) / support
    weights = np.floor(np.maximum(1.0 - distance, 0.0) * (_ONE / support) + 0.5).astype(np.float32)
    return weights, weights.sum(axis=1, keepdims=True, dtype=np.float32)


def _draw_weights(graph: Graph, length: str, used: str, size: int) -> tuple[str, str]:
    """Draws `_weights`; ``length`` and ``used`` are int64 (1,)."""

    def number(value: float) -> str:
        return graph.constant(value, np.float64)

    wide, inner = (graph.op("Cast", one, to=graph.FLOAT64) for one in (length, used))
    step = graph.op("Div", inner, number(size))
    support = graph.op("Max", step, number(1.0))
    places = graph.constant(np.arange(size, dtype=np.float64)[:, None] + 0.5)
    centre = graph.op("Add", graph.op("Mul", places, step), graph.op("Div", graph.op("Sub", wide, inner), number(2.0)))
    scalar = graph.op("Squeeze", length, graph.constant([0], np.int64))
    old = graph.op("Range", graph.constant(0, np.int64), scalar, graph.constant(1, np.int64))
    old = graph.op("Unsqueeze", graph.op("Add", graph.op("Cast", old, to=graph.FLOAT64), number(0.5)), graph.constant([0], np.int64))  # (1, L)
    distance = graph.op("Div", graph.op("Abs", graph.op("Sub", centre, old)), support)
    height = graph.op("Max", graph.op("Sub", number(1.0), distance), number(0.0))
    whole = graph.op("Floor", graph.op("Add", graph.op("Mul", height, graph.op("Div", number(_ONE), support)), number(0.5)))
    weights = graph.op("Cast", whole, to=graph.FLOAT32)
    return weights, graph.op("ReduceSum", weights, graph.constant([1], np.int64), keepdims=1)
