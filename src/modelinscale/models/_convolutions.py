"""Random convolutions of sequences as features: how often a kernel answers above a threshold, and which of several kernels answers most and least.

B rows, T steps, D channels, K kernels, Q thresholds a kernel, G groups of kernels that contend. Nothing is learned but thresholds, which are quantiles
of what kernels answer on training rows.

Numbers become whole multiples of a fraction of their deviation, kernels whole numbers, small enough for float32 to hold every sum exactly. So no order
of summing decides whether an answer is above a threshold: the graph finds the same features as Python.
Sources: Dempster, Schmidt, Webb 2021 (MiniRocket, arXiv 2012.08791): the 84 kernels, dilations, thresholds from single rows, half of the kernels only
where they lie within the row; Dempster, Schmidt, Webb 2023 (Hydra, arXiv 2203.13652): groups that contend, on the steps and on their differences.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.encoded import Encoded
from modelinscale.core.graph import Graph
from modelinscale.core.seeds import generator

F32 = NDArray[np.float32]

TAPS = 9
CLIP = 10.0
"""Largest number of a step, in deviations, as features encode them."""
_FINE, _COARSE = 4096.0, 256.0
"""Whole multiples a deviation, for thresholds and for contests: 12 * 10 * 4096 * 8 channels and 400 * 20 * 256 * 8 channels stay below 2**24."""
_KERNEL_SUM = 390
"""Sum of the sizes of a contending kernel's whole numbers, about."""
_MOST_CHANNELS = 8
"""Channels that a kernel adds up at most."""
_IN_GROUP = 8
"""Kernels that contend with each other."""
_DILATIONS = 32
"""Different spacings of a kernel's taps, at most."""
_CELLS = 1 << 21
"""Numbers of kernels' answers held at once while features are found."""

KERNELS = np.full((84, TAPS), -1.0, np.float32)
"""(84, 9): all ways to have three taps of 2 among six of -1; each sums to 0."""
for _row, _taps in zip(KERNELS, combinations(range(TAPS), 3), strict=True):
    _row[list(_taps)] = 2.0


@dataclass(frozen=True)
class Layer:
    """All kernels whose taps lie ``dilation`` steps apart."""

    dilation: int
    kernels: F32  # (TAPS, D, K), whole numbers
    thresholds: F32  # (Q, K), halves of whole numbers, never met; (0, 0) where the kernels contend instead
    differences: bool = False
    """Whether they see the change from each step to the next."""

    @property
    def contends(self) -> bool:
        return not self.thresholds.size

    @property
    def n_features(self) -> int:
        return int(2 * self.kernels.shape[2] if self.contends else self.thresholds.size)

    @property
    def n_open(self) -> int:
        """Of the kernels with thresholds the first so many also count where they reach over an end of the row."""
        return int(self.kernels.shape[2]) // 2


@dataclass(frozen=True)
class Bank:
    """The convolutions of sequences that end together: channels side by side."""

    features: tuple[str, ...]
    """Blocks whose channels these are, in this order."""
    widths: tuple[int, ...]
    """Channels of each."""
    layers: tuple[Layer, ...]

    @property
    def n_features(self) -> int:
        return sum(layer.n_features for layer in self.layers)

    @classmethod
    def draw(cls, rows: Encoded, features: Sequence[str], n_features: int, n_groups: int, seed: int) -> "Bank":
        """About ``n_features`` thresholds and ``n_groups`` contests a spacing, for the sequences of these rows (float32 (B, T, D) each)."""
        chance = generator(seed, "random convolutions", *features)
        x, n_steps = _together([np.asarray(rows[name]) for name in features])
        D = x.shape[2]
        longest = int(n_steps.max(initial=1))
        widths = tuple(np.asarray(rows[name]).shape[2] for name in features)
        layers = [_with_thresholds(x, n_steps, d, n, chance) for d, n in _spacings(longest, max(1, n_features // len(KERNELS)))]
        for d, _ in _spacings(longest, _DILATIONS) if n_groups else ():
            for differences in (False, True) if longest > 1 else (False,):
                layers.append(Layer(d, _contenders(D, n_groups, chance), np.empty((0, 0), np.float32), differences))
        return cls(tuple(features), widths, tuple(layers))

    def found(self, rows: Encoded) -> F32:
        """(N, F): the features of rows, each between 0 and about 3; of a row without steps all 0."""
        blocks = [np.asarray(rows[name]) for name in self.features]
        widest = max((layer.kernels.shape[2] for layer in self.layers), default=1)
        n, at_once = rows.n_rows, max(1, _CELLS // max(1, blocks[0].shape[1] * widest))
        found = np.empty((n, self.n_features), np.float32)
        for a in range(0, n, at_once):
            x, n_steps = _together([block[a : a + at_once] for block in blocks])
            at = 0
            for layer in self.layers:
                found[a : a + at_once, at : at + layer.n_features] = _features(x, n_steps, layer)
                at += layer.n_features
        return found

    def graph(self, graph: Graph, tensors: dict[str, str]) -> str:
        """Draws `found`: float32 (N, F)."""
        parts = [tensors[name] for name in self.features]
        x = parts[0] if len(parts) == 1 else graph.op("Concat", *parts, axis=2)
        return _draw(graph, x, self.layers)

    def plain(self) -> dict[str, Any]:
        layers = [{"dilation": layer.dilation, "differences": layer.differences} for layer in self.layers]
        return {"features": list(self.features), "widths": list(self.widths), "layers": layers}

    def arrays(self) -> dict[str, NDArray[Any]]:
        found: dict[str, NDArray[Any]] = {}
        for i, layer in enumerate(self.layers):
            found |= {f"{i} kernels": layer.kernels.astype(np.int16), f"{i} thresholds": layer.thresholds}
        return found

    @classmethod
    def parse(cls, plain: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> "Bank":
        layers = tuple(
            Layer(one["dilation"], arrays[f"{i} kernels"].astype(np.float32), arrays[f"{i} thresholds"], one["differences"])
            for i, one in enumerate(plain["layers"])
        )
        return cls(tuple(plain["features"]), tuple(plain["widths"]), layers)


def _together(blocks: Sequence[NDArray[np.float32]]) -> tuple[F32, NDArray[np.int64]]:
    """Channels side by side as (T, B, D), 0 behind each row's end and where a number is missing, without the steps that no row has; steps a row, (B,)."""
    x = blocks[0] if len(blocks) == 1 else np.concatenate(blocks, axis=2)
    there = np.asarray(np.isfinite(x).any(axis=2))  # (B, T)
    n_steps = np.where(there.any(axis=1), x.shape[1] - there[:, ::-1].argmax(axis=1), 0)
    x = x[:, : max(1, int(n_steps.max(initial=0)))]
    return np.ascontiguousarray(np.clip(np.nan_to_num(x, nan=0.0), -CLIP, CLIP).transpose(1, 0, 2)), n_steps


def _spacings(longest: int, n: int) -> list[tuple[int, int]]:
    """Spacings of the taps, 1 up to what spans the longest row, evenly on a logarithmic scale; and how many of ``n`` thresholds a kernel fall to each."""
    end = max(0.0, np.log2(max(1, longest - 1) / (TAPS - 1)))
    spacings, counts = np.unique((2.0 ** np.linspace(0.0, end, min(n, _DILATIONS))).astype(np.int64), return_counts=True)
    shares = (counts * n / counts.sum()).astype(np.int64)
    shares[: n - shares.sum()] += 1  # what is left goes to the close ones
    return [(int(d), int(q)) for d, q in zip(spacings, shares, strict=True) if q]


def _channels(n_channels: int, n_kernels: int, chance: np.random.Generator) -> F32:
    """(D, n): the channels that each kernel adds up, 1 where it does: between one and eight, few more often than many."""
    most = min(n_channels, _MOST_CHANNELS)
    sizes = (2.0 ** chance.uniform(0.0, np.log2(most + 1), n_kernels)).astype(np.int64)
    places = chance.random((n_channels, n_kernels)).argsort(axis=0).argsort(axis=0)
    return (places < np.minimum(sizes, most)).astype(np.float32)


def _with_thresholds(x: F32, n_steps: NDArray[np.int64], dilation: int, n_thresholds: int, chance: np.random.Generator) -> Layer:
    """The 84 kernels, each with quantiles of what it answers on one training row, drawn for it."""
    K, D = len(KERNELS), x.shape[2]
    kernels = np.einsum("kt,dk->tdk", KERNELS[chance.permutation(K)], _channels(D, K, chance)).astype(np.float32)
    thresholds = np.full((n_thresholds, K), 0.5, np.float32)
    with_steps = np.flatnonzero(n_steps)
    shares = (np.arange(1, K * n_thresholds + 1) * (np.sqrt(5) - 1) / 2 % 1).reshape(K, n_thresholds)  # spread evenly whatever their number
    if len(with_steps):
        rows = with_steps[chance.integers(0, len(with_steps), K)]
        wide = _widened(np.rint(x[:, rows] * np.float32(_FINE)), dilation)
        # Each kernel on its own row alone: (T, K).
        answers = sum(np.einsum("tkd,dk->tk", wide[j * dilation : j * dilation + len(x)], kernels[j]) for j in range(TAPS))
        for k, row in enumerate(rows):
            thresholds[:, k] = np.floor(np.quantile(answers[: n_steps[row], k], shares[k])) + 0.5
    return Layer(dilation, kernels, thresholds)


def _contenders(n_channels: int, n_groups: int, chance: np.random.Generator) -> F32:
    """(TAPS, D, 8 G): kernels of chance that sum to about 0, the first of all groups, then the second; one choice of channels a group."""
    kernels = chance.normal(size=(TAPS, _IN_GROUP, n_groups))
    kernels -= kernels.mean(axis=0)
    kernels = np.trunc(kernels * (_KERNEL_SUM / np.abs(kernels).sum(axis=0)))
    found = (kernels[:, None] * _channels(n_channels, n_groups, chance)[None, :, None, :]).astype(np.float32)
    return found.reshape(TAPS, n_channels, _IN_GROUP * n_groups)  # type: ignore[no-any-return]


def _answers(x: F32, layer: Layer) -> F32:
    """(T, B, K): the kernels laid on each step of (T, B, D), with zeros before the first and behind the last."""
    T, B, D = x.shape
    wide = _widened(x, layer.dilation)
    laid = np.concatenate([wide[j * layer.dilation : j * layer.dilation + T] for j in range(TAPS)], axis=2)  # (T, B, TAPS * D)
    found: F32 = laid.reshape(T * B, TAPS * D) @ layer.kernels.reshape(TAPS * D, -1)
    return found.reshape(T, B, layer.kernels.shape[2])


def _widened(x: F32, dilation: int) -> F32:
    """With zeros before the first step and behind the last, as far as kernels reach."""
    reach = dilation * (TAPS // 2)
    wide = np.zeros((len(x) + 2 * reach, *x.shape[1:]), np.float32)
    wide[reach : reach + len(x)] = x
    return wide


def _features(x: F32, n_steps: NDArray[np.int64], layer: Layer) -> F32:
    """(B, F) of one layer, from steps in deviations (T, B, D)."""
    at = np.arange(len(x))[:, None]
    if not layer.contends:
        reach, n_open = layer.dilation * (TAPS // 2), layer.n_open
        answers = _answers(np.rint(x * np.float32(_FINE)), layer)
        answers[:, :, :n_open][at >= n_steps] = -np.inf
        answers[:, :, n_open:][(at < reach) | (at >= n_steps - reach)] = -np.inf
        counts: F32 = np.stack([_count(answers, row) for row in layer.thresholds], axis=1)  # (B, Q, K)
        counts[:, :, :n_open] /= np.maximum(n_steps, 1).astype(np.float32)[:, None, None]
        counts[:, :, n_open:] /= np.maximum(n_steps - 2 * reach, 1).astype(np.float32)[:, None, None]
        return counts.reshape(len(n_steps), -1)
    x = np.rint(x * np.float32(_COARSE))
    if layer.differences:
        n_steps = n_steps - 1
        x, at = x[1:] - x[:-1], at[1:] - 1
        x[at >= n_steps] = 0.0
    own = (at < n_steps)[:, :, None, None]
    answers = _answers(x, layer).reshape(len(x), len(n_steps), _IN_GROUP, layer.kernels.shape[2] // _IN_GROUP)  # (T, B, 8, G)
    most, least = answers.max(axis=2, keepdims=True), answers.min(axis=2, keepdims=True)
    length = np.maximum(n_steps, 1).astype(np.float32)[:, None, None]
    size = np.where((answers == most) & own, np.maximum(answers, 0.0), np.float32(0)).sum(axis=0) / (length * np.float32(_KERNEL_SUM * _COARSE))
    times = _truths((answers == least) & own) / length
    found: F32 = np.sqrt(np.concatenate([size, times], axis=1))
    return found.reshape(len(n_steps), -1)


def _count(answers: F32, thresholds: F32) -> F32:
    """(B, K): at how many of T steps the answers (T, B, K) are above."""
    return _truths(answers > thresholds)


def _truths(found: NDArray[np.bool_]) -> F32:
    """How many along the first axis. Bytes are added up in bytes, 255 at a time, which is what processors are quickest at."""
    seen = found.view(np.uint8)
    total = np.zeros(found.shape[1:], np.float32)
    for a in range(0, len(seen), 255):
        total += np.add.reduce(seen[a : a + 255], axis=0, dtype=np.uint8)
    return total


def _draw(graph: Graph, x: str, layers: Sequence[Layer]) -> str:
    """Draws the features of all layers; ``x`` float32 (N, T, D), NaN behind each row's end."""
    one, two = graph.constant([1], np.int64), graph.constant([2], np.int64)
    zero, first = graph.constant(np.float32(0)), graph.constant([0], np.int64)
    missing = graph.op("IsNaN", x)
    gone = graph.op("ReduceMin", graph.op("Cast", missing, to=graph.INT32), two, keepdims=0)  # (N, T)
    T = graph.op("Squeeze", graph.op("Shape", gone, start=1, end=2), first)
    at = graph.op("Range", graph.constant(0, np.int64), T, graph.constant(1, np.int64))  # (T,)
    there = graph.op("Sub", graph.constant(1, np.int64), graph.op("Cast", gone, to=graph.INT64))
    n_steps = graph.op("ReduceMax", graph.op("Mul", there, graph.op("Add", at, graph.constant(1, np.int64))), one, keepdims=1)  # (N, 1)
    x = graph.op("Where", missing, zero, x)
    x = graph.op("Min", graph.op("Max", x, graph.constant(np.float32(-CLIP))), graph.constant(np.float32(CLIP)))
    x = graph.op("Transpose", x, perm=[0, 2, 1])  # (N, D, T)
    fine = graph.op("Round", graph.op("Mul", x, graph.constant(np.float32(_FINE))))
    coarse = graph.op("Round", graph.op("Mul", x, graph.constant(np.float32(_COARSE))))
    before, after = graph.constant([-1], np.int64), graph.constant([1 << 31], np.int64)
    moved = graph.op("Sub", graph.op("Slice", coarse, one, after, two), graph.op("Slice", coarse, first, before, two))
    n_moves = graph.op("Sub", n_steps, graph.constant(1, np.int64))
    at_moves = graph.op("Slice", at, first, before, first)
    moved = graph.op("Where", _unsqueezed(graph, graph.op("Less", at_moves, n_moves), 1), moved, zero)
    parts = []
    for layer in layers:
        if layer.contends:
            own = (moved, at_moves, n_moves) if layer.differences else (coarse, at, n_steps)
            parts.append(_draw_contest(graph, layer, *own))
        else:
            parts.append(_draw_counts(graph, layer, fine, at, n_steps))
    return graph.op("Concat", *parts, axis=1)


def _draw_answers(graph: Graph, layer: Layer, x: str) -> str:
    """(N, K, T) of (N, D, T)."""
    reach = layer.dilation * (TAPS // 2)
    kernels = graph.constant(np.ascontiguousarray(layer.kernels.transpose(2, 1, 0)))  # (K, D, TAPS)
    return graph.op("Conv", x, kernels, dilations=[layer.dilation], pads=[reach, reach])


def _draw_counts(graph: Graph, layer: Layer, x: str, at: str, n_steps: str) -> str:
    reach, n_open, K = layer.dilation * (TAPS // 2), layer.n_open, layer.kernels.shape[2]
    within = graph.op("Sub", n_steps, graph.constant(reach, np.int64))
    open_ = graph.op("Less", at, n_steps)  # (N, T)
    closed = graph.op("And", graph.op("Less", at, within), graph.op("GreaterOrEqual", at, graph.constant(reach, np.int64)))
    below, found = graph.constant(np.float32(-np.inf)), []
    sides = graph.split(_draw_answers(graph, layer, x), [n_open, K - n_open])
    lengths = (n_steps, graph.op("Sub", n_steps, graph.constant(2 * reach, np.int64)))
    for part, own, length, thresholds in zip(sides, (open_, closed), lengths, np.split(layer.thresholds, [n_open], axis=1), strict=True):
        answers = graph.op("Where", _unsqueezed(graph, own, 1), part, below)  # (N, K, T)
        above = graph.op("Greater", _unsqueezed(graph, answers, 1), graph.constant(thresholds[:, :, None]))  # (N, Q, K, T)
        count = graph.op("ReduceSum", graph.op("Cast", above, to=graph.FLOAT32), graph.constant([3], np.int64), keepdims=0)  # (N, Q, K)
        found.append(graph.op("Div", count, _unsqueezed(graph, _length(graph, length), 2)))
    return _flat(graph, graph.op("Concat", *found, axis=2), layer.n_features)


def _draw_contest(graph: Graph, layer: Layer, x: str, at: str, n_steps: str) -> str:
    K, zero = layer.kernels.shape[2], graph.constant(np.float32(0))
    lone = graph.op("Pad", x, graph.constant([0, 0, 0, 0, 0, 1], np.int64))  # one step more: differences of a single step are none, and convolutions need some
    sizes = (graph.op("Shape", x, start=0, end=1), graph.constant([_IN_GROUP, K // _IN_GROUP], np.int64), graph.op("Shape", lone, start=2, end=3))
    answers = graph.op("Reshape", _draw_answers(graph, layer, lone), graph.op("Concat", *sizes, axis=0))  # (N, 8, G, T + 1)
    at = graph.op("Concat", at, graph.constant([1 << 31], np.int64), axis=0)
    own, group = _unsqueezed(graph, graph.op("Less", at, n_steps), 1, 1), graph.constant([1], np.int64)
    last, length = graph.constant([3], np.int64), _unsqueezed(graph, _length(graph, n_steps), 2, 2)
    best = graph.op("And", graph.op("Equal", answers, graph.op("ReduceMax", answers, group, keepdims=1)), own)
    worst = graph.op("And", graph.op("Equal", answers, graph.op("ReduceMin", answers, group, keepdims=1)), own)
    size = graph.op("ReduceSum", graph.op("Where", best, graph.op("Max", answers, zero), zero), last, keepdims=1)
    size = graph.op("Div", size, graph.op("Mul", length, graph.constant(np.float32(_KERNEL_SUM * _COARSE))))
    times = graph.op("Div", graph.op("ReduceSum", graph.op("Cast", worst, to=graph.FLOAT32), last, keepdims=1), length)
    return _flat(graph, graph.op("Sqrt", graph.op("Concat", size, times, axis=1)), layer.n_features)


def _length(graph: Graph, n: str) -> str:
    """float32 (N, 1), at least 1."""
    return graph.op("Cast", graph.op("Max", n, graph.constant(1, np.int64)), to=graph.FLOAT32)


def _unsqueezed(graph: Graph, tensor: str, *axes: int) -> str:
    """With new axes of size 1, one after the other."""
    for axis in axes:
        tensor = graph.op("Unsqueeze", tensor, graph.constant([axis], np.int64))
    return tensor


def _flat(graph: Graph, tensor: str, width: int) -> str:
    n_rows = graph.op("Shape", tensor, start=0, end=1)
    return graph.op("Reshape", tensor, graph.op("Concat", n_rows, graph.constant([width], np.int64), axis=0))
