"""Encoders of a table's own columns: numbers through bins, ids and words through embeddings.

B rows, X numbers, P numbers seen through bins, T bins, E width of an embedding.

Source: Gorishniy et al., On Embeddings for Numerical Features in Tabular Deep Learning, 2022 (piecewise-linear bins).
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.graph import Graph
from modelinscale.models._deep.parts import Part, Tensor, array
from modelinscale.models._torch import torch
from modelinscale.models._words import draw_weigh

_BIN_WIDTH, _ID_WIDTH, _WORD_WIDTH = 8, 12, 48
_OTHER_SHARE = 0.01
"""Share of ids shown as "other" in training, so that the network knows what to make of words it never saw."""


class Numbers(Part):
    """All numbers of a row as they are, and those with enough values also through bins."""

    low: Tensor
    inverse: Tensor
    binned: Tensor

    def __init__(self, n_numbers: int, binned: tuple[int, ...], edges: NDArray[np.float32]) -> None:
        """``edges`` (P, T + 1): ascending borders of the bins of the ``binned`` columns; one with fewer bins repeats its last border."""
        super().__init__()
        widths = torch.from_numpy(np.diff(edges, axis=1))
        self.register_buffer("binned", torch.tensor(binned, dtype=torch.int64), persistent=False)
        self.register_buffer("low", torch.from_numpy(edges[:, :-1].copy()))  # (P, T)
        self.register_buffer("inverse", torch.where(widths > 0, 1 / widths.clamp_min(1e-30), torch.zeros(())))  # (P, T)
        self.table = torch.nn.Parameter(torch.randn(len(binned), edges.shape[1] - 1, _BIN_WIDTH) / math.sqrt(max(edges.shape[1] - 1, 1)))
        self.width = n_numbers + len(binned) * _BIN_WIDTH

    def forward(self, x: Tensor) -> Tensor:
        if not len(self.binned):
            return x
        through = ((x[:, self.binned, None] - self.low) * self.inverse).clamp(0, 1)  # (B, P, T): full up to the value's bin, a part of that, then empty
        return torch.cat([x, (through.transpose(0, 1) @ self.table).transpose(0, 1).flatten(1)], dim=1)

    def draw(self, graph: Graph, tensor: str) -> str:
        if not len(self.binned):
            return tensor
        chosen = graph.op("Gather", tensor, graph.constant(self.binned.cpu().numpy()), axis=1)
        through = graph.op("Sub", graph.op("Unsqueeze", chosen, graph.constant([2], np.int64)), graph.constant(array(self.low)))
        through = graph.op("Mul", through, graph.constant(array(self.inverse)))
        through = graph.op("Clip", through, graph.constant(0.0, np.float32), graph.constant(1.0, np.float32))  # (N, P, T)
        embedded = graph.op("MatMul", graph.op("Transpose", through, perm=[1, 0, 2]), graph.constant(array(self.table)))  # (P, N, E)
        flat = graph.op("Reshape", graph.op("Transpose", embedded, perm=[1, 0, 2]), graph.constant([0, len(self.binned) * _BIN_WIDTH], np.int64))
        return graph.op("Concat", tensor, flat, axis=1)


class Ids(Part):
    """One column of ids."""

    def __init__(self, n_ids: int) -> None:
        super().__init__()
        self.width = min(_ID_WIDTH, max(2, n_ids))
        self.table = torch.nn.Parameter(torch.randn(n_ids, self.width) * 0.3)

    def forward(self, x: Tensor) -> Tensor:
        """x: int64 (B,)."""
        if self.training:
            x = torch.where((torch.rand(x.shape, device=x.device) < _OTHER_SHARE) & (x > 1), 1, x)
        return torch.nn.functional.embedding(x, self.table)

    def draw(self, graph: Graph, tensor: str) -> str:
        return graph.op("Gather", graph.constant(array(self.table)), tensor, axis=0)


class Words(Part):
    """A block of words that occur in a row, each with how often, weighed by how rare it is."""

    rarity: Tensor

    def __init__(self, n_words: int, rarity: NDArray[np.float64]) -> None:
        """``rarity`` (n_words,): see `_words.rarity`."""
        super().__init__()
        self.width = _WORD_WIDTH
        self.register_buffer("rarity", torch.from_numpy(rarity))
        self.table = torch.nn.Parameter(torch.randn(n_words, self.width) * 0.3)

    def forward(self, x: Any) -> Tensor:
        """x: columns, their weighed values, and where each row starts."""
        columns, values, starts = x
        return torch.nn.functional.embedding_bag(columns, self.table, starts, mode="sum", per_sample_weights=values)

    def draw(self, graph: Graph, tensor: str) -> str:
        return graph.op("MatMul", draw_weigh(graph, tensor, self.rarity.cpu().numpy()), graph.constant(array(self.table)))
