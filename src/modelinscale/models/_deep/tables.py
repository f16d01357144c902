"""Encoders of a table's own columns: numbers through bins and waves, ids and words through embeddings.

B rows, X numbers, P numbers seen through bins, T bins, W numbers seen through waves, F waves, I columns of ids, E width of an embedding.

Sources: Gorishniy et al., On Embeddings for Numerical Features in Tabular Deep Learning, 2022 (piecewise-linear bins; periodic embeddings); Holzmüller et
al., Better by Default, 2024 (a cosine with a phase in place of sine and cosine).
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.encoded import Sparse
from modelinscale.core.graph import Graph
from modelinscale.models._deep.parts import Part, Tensor, array
from modelinscale.models._torch import torch
from modelinscale.models._words import draw_weigh, weigh

_BIN_WIDTH, _WAVE_WIDTH, ID_WIDTH, _WORD_WIDTH = 8, 8, 12, 48
_OTHER_SHARE = 0.01
"""Share of ids shown as "other" in training, so that the network knows what to make of words it never saw."""


class Numbers(Part):
    """All numbers of a row as they are, and those with enough values also through bins, through waves, or both."""

    low: Tensor
    inverse: Tensor
    binned: Tensor
    waved: Tensor

    def __init__(
        self, n_numbers: int, binned: tuple[int, ...], edges: NDArray[np.float32], waved: tuple[int, ...] = (), n_waves: int = 0, frequency: float = 1.0
    ) -> None:
        """``edges`` (P, T + 1): ascending borders of the bins of the ``binned`` columns; one with fewer bins repeats its last border.
        ``frequency``: deviation of the frequencies that the ``waved`` columns begin with, in waves for each unit of a number."""
        super().__init__()
        widths = torch.from_numpy(np.diff(edges, axis=1))
        self.register_buffer("binned", torch.tensor(binned, dtype=torch.int64), persistent=False)
        self.register_buffer("low", torch.from_numpy(edges[:, :-1].copy()))  # (P, T)
        self.register_buffer("inverse", torch.where(widths > 0, 1 / widths.clamp_min(1e-30), torch.zeros(())))  # (P, T)
        self.table = torch.nn.Parameter(torch.randn(len(binned), edges.shape[1] - 1, _BIN_WIDTH) / math.sqrt(max(edges.shape[1] - 1, 1)))
        self.register_buffer("waved", torch.tensor(waved if n_waves else (), dtype=torch.int64), persistent=False)
        W, F = len(self.waved), n_waves
        if W:  # flat: weight decay, which is for all that has two axes, would make every wave long
            self.frequencies = torch.nn.Parameter(torch.randn(W * F) * (2 * math.pi * frequency))
            self.phases = torch.nn.Parameter((torch.rand(W * F) * 2 - 1) * math.pi)
            self.wave_table = torch.nn.Parameter(torch.randn(W, F, _WAVE_WIDTH) / math.sqrt(F))
            self.wave_bias = torch.nn.Parameter(torch.zeros(W * _WAVE_WIDTH))
        self.width = n_numbers + len(binned) * _BIN_WIDTH + W * _WAVE_WIDTH

    def forward(self, x: Tensor) -> Tensor:
        found = [x]
        if len(self.binned):
            through = ((x[:, self.binned, None] - self.low) * self.inverse).clamp(0, 1)  # (B, P, T): full up to the value's bin, a part of that, then empty
            found.append((through.transpose(0, 1) @ self.table).transpose(0, 1).flatten(1))
        if W := len(self.waved):
            waves = torch.cos(x[:, self.waved, None] * self.frequencies.view(W, -1) + self.phases.view(W, -1))  # (B, W, F)
            found.append(torch.relu((waves.transpose(0, 1) @ self.wave_table).transpose(0, 1).flatten(1) + self.wave_bias))
        return found[0] if len(found) == 1 else torch.cat(found, dim=1)

    def draw(self, graph: Graph, tensor: str) -> str:
        found = [tensor]
        if len(self.binned):
            through = graph.op("Sub", _each(graph, tensor, self.binned), graph.constant(array(self.low)))
            through = graph.op("Mul", through, graph.constant(array(self.inverse)))
            through = graph.op("Clip", through, graph.constant(0.0, np.float32), graph.constant(1.0, np.float32))  # (N, P, T)
            found.append(_draw_embed(graph, through, self.table))
        if W := len(self.waved):
            waves = graph.op("Mul", _each(graph, tensor, self.waved), graph.constant(array(self.frequencies).reshape(W, -1)))
            waves = graph.op("Cos", graph.op("Add", waves, graph.constant(array(self.phases).reshape(W, -1))))  # (N, W, F)
            found.append(graph.op("Relu", graph.op("Add", _draw_embed(graph, waves, self.wave_table), graph.constant(array(self.wave_bias)))))
        return tensor if len(found) == 1 else graph.op("Concat", *found, axis=1)


def _each(graph: Graph, tensor: str, columns: Tensor) -> str:
    """Some columns, each by itself: (N, P, 1)."""
    chosen = graph.op("Gather", tensor, graph.constant(columns.cpu().numpy()), axis=1)
    return graph.op("Unsqueeze", chosen, graph.constant([2], np.int64))


def _draw_embed(graph: Graph, tensor: str, table: Tensor) -> str:
    """Each column's numbers (N, P, T) through a table of its own (P, T, E), side by side: (N, P * E)."""
    embedded = graph.op("MatMul", graph.op("Transpose", tensor, perm=[1, 0, 2]), graph.constant(array(table)))  # (P, N, E)
    return graph.op("Reshape", graph.op("Transpose", embedded, perm=[1, 0, 2]), graph.constant([0, table.shape[0] * table.shape[2]], np.int64))


class Ids(Part):
    """Columns of ids, side by side in one table, so that one lookup finds all of them."""

    starts: Tensor

    def __init__(self, n_ids: tuple[int, ...], width: int | None = None) -> None:
        """``n_ids``: of each column; ``width``: numbers an id becomes; None: up to 12, fewer where a column has few ids."""
        super().__init__()
        self.n_ids = n_ids
        self.each = width or min(ID_WIDTH, max(2, *n_ids))
        """Numbers that a column becomes."""
        self.width = self.each * len(n_ids)
        self.register_buffer("starts", torch.from_numpy(np.cumsum([0, *n_ids[:-1]])), persistent=False)
        self.table = torch.nn.Parameter(torch.randn(sum(n_ids), self.each) * 0.3)

    def forward(self, x: Tensor) -> Tensor:
        """x: ids (B,), or (B, I) of several columns."""
        if self.training:
            x = torch.where((torch.rand(x.shape, device=x.device) < _OTHER_SHARE) & (x > 1), 1, x)
        if len(self.n_ids) == 1:
            return torch.nn.functional.embedding(x, self.table)
        return torch.nn.functional.embedding(x + self.starts, self.table).flatten(1)

    def draw(self, graph: Graph, tensor: str) -> str:
        return self.draw_all(graph, [tensor])

    def draw_all(self, graph: Graph, tensors: Sequence[str]) -> str:
        tables = np.split(array(self.table), np.cumsum(self.n_ids)[:-1])
        found = [graph.op("Gather", graph.constant(table), tensor, axis=0) for table, tensor in zip(tables, tensors, strict=True)]
        return found[0] if len(found) == 1 else graph.op("Concat", *found, axis=1)


class Words(Part):
    """Blocks of words that occur in a row, each with how often, weighed by how rare it is; those of several blocks are added up."""

    rarity: Tensor

    def __init__(self, n_words: tuple[int, ...], rarity: NDArray[np.float64]) -> None:
        """``n_words``: of each block; ``rarity`` (of all words,): see `_words.rarity`."""
        super().__init__()
        self.n_words, self.width = n_words, _WORD_WIDTH
        self.register_buffer("rarity", torch.from_numpy(rarity))
        self.table = torch.nn.Parameter(torch.randn(sum(n_words), self.width) * 0.3)

    def forward(self, x: Any) -> Tensor:
        """x: columns, their weighed values, and where each row starts."""
        columns, values, starts = x
        return torch.nn.functional.embedding_bag(columns, self.table, starts, mode="sum", per_sample_weights=values)

    def weighed(self, blocks: Sequence[Sparse]) -> Sparse:
        """Counts of all blocks as `forward` wants them: side by side, the values weighed."""
        found = [
            Sparse(one.starts, one.columns, weigh(one, rarity).astype(np.float32), one.width) for one, rarity in zip(blocks, self._rarities(), strict=True)
        ]
        return found[0] if len(found) == 1 else _beside(found)

    def apart(self, x: Any) -> list[Tensor]:
        """What each block adds to what `forward` gives."""
        columns, values, starts = x
        ends = np.cumsum([0, *self.n_words]).tolist()
        return [self((columns, values * ((columns >= a) & (columns < b)), starts)) for a, b in pairwise(ends)]

    def draw(self, graph: Graph, tensor: str) -> str:
        return self.draw_all(graph, [tensor])

    def draw_all(self, graph: Graph, tensors: Sequence[str]) -> str:
        found = [draw_weigh(graph, tensor, rarity) for tensor, rarity in zip(tensors, self._rarities(), strict=True)]
        return graph.op("MatMul", found[0] if len(found) == 1 else graph.op("Concat", *found, axis=1), graph.constant(array(self.table)))

    def _rarities(self) -> list[NDArray[np.float64]]:
        return np.split(self.rarity.cpu().numpy(), np.cumsum(self.n_words)[:-1])


def _beside(parts: list[Sparse]) -> Sparse:
    """Several blocks of words as one."""
    from scipy.sparse import hstack

    joined = hstack([part.scipy() for part in parts], format="csr")
    return Sparse(joined.indptr.astype(np.int64), joined.indices.astype(np.int32), joined.data.astype(np.float32), joined.shape[1])
