"""Encoders of sequences: numbers per step, one or several channels.

B rows, T steps, D channels, W units.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.graph import Graph
from modelinscale.models._deep.along import ALONG, draw_pooled, pooled
from modelinscale.models._deep.parts import Part, Tensor
from modelinscale.models._in_step import in_step as in_step
from modelinscale.models._torch import torch


class Steps(Part):
    """float32 (B, T, D), NaN behind each row's end, to mean and largest of what an encoder makes of the steps, and of the steps themselves: with few rows
    these tell the most. A row without steps is 0."""

    beside = 2

    def __init__(self, n_channels: int, longest: int, *, kind: str, units: int, noise: float = 0.0) -> None:
        """``kind``: of `along.ALONG`. ``longest``: T at most. ``noise``: added in training, in deviations of a channel."""
        super().__init__()
        self.noise = noise
        self.along = ALONG[kind](n_channels, units, longest)
        self.width = 2 * (self.along.width + n_channels)

    def forward(self, x: Tensor) -> Tensor:
        there = torch.isfinite(x).any(2, keepdim=True).to(torch.float32)
        x = torch.nan_to_num(x, nan=0.0)
        if self.training and self.noise:
            x = x + torch.randn_like(x) * self.noise * there
        return torch.cat([pooled(self.along(x, there), there), pooled(x, there)], dim=1)

    def draw(self, graph: Graph, tensor: str) -> str:
        gone = graph.op("Cast", graph.op("IsNaN", tensor), to=graph.FLOAT32)
        there = graph.op("Sub", graph.constant(np.float32(1)), graph.op("ReduceMin", gone, graph.constant([2], np.int64), keepdims=1))
        tensor, there = cut(graph, graph.op("Where", graph.op("IsNaN", tensor), graph.constant(np.float32(0)), tensor), there)
        return graph.op("Concat", draw_pooled(graph, self.along.draw(graph, tensor, there), there), draw_pooled(graph, tensor, there), axis=1)


def cut(graph: Graph, tensor: str, there: str, least: int = 1) -> tuple[str, str]:
    """Without the steps that no row of the call has; ``least`` of them stay. ``there`` (N, T, 1); steps are axis 1 of both."""
    n_steps = graph.op("Reshape", graph.op("ReduceSum", there, graph.constant([1, 2], np.int64), keepdims=0), graph.constant([-1], np.int64))
    most = graph.op("ReduceMax", graph.op("Concat", n_steps, graph.constant([least], np.float32), axis=0), graph.constant([0], np.int64), keepdims=1)
    end, zero, one = graph.op("Cast", most, to=graph.INT64), graph.constant([0], np.int64), graph.constant([1], np.int64)
    return graph.op("Slice", tensor, zero, end, one), graph.op("Slice", there, zero, end, one)


def together(blocks: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Blocks of one batch, channels side by side, without the steps that no row has; one stays. float32 (B, T, D), or tokens int64 (B, T)."""
    first = blocks[0]
    there = first > 0 if first.ndim == 2 else np.any([np.isfinite(one).any((0, 2)) for one in blocks], axis=0)
    there = there.any(0) if first.ndim == 2 else there
    T = max(1, int(np.flatnonzero(there)[-1]) + 1 if there.any() else 1)
    whole = first[:, :T] if len(blocks) == 1 else np.concatenate([one[:, :T] for one in blocks], axis=2)
    return np.ascontiguousarray(whole, np.int64 if first.ndim == 2 else np.float32)
