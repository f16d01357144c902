"""Encoders of texts as words in their order.

B rows, T words of a text at most, V known words, E width of an embedding.
"""

import math

import numpy as np

from modelinscale.core.graph import Graph
from modelinscale.models._deep.along import ALONG, Along, draw_pooled, pooled
from modelinscale.models._deep.parts import Part, Tensor, array
from modelinscale.models._deep.sequences import cut
from modelinscale.models._torch import torch

_OTHER_SHARE = 0.02
"""Share of words shown as "unseen" in training, so that the network knows what to make of such."""


class Tokens(Part):
    """int64 (B, T), 0 behind the end, 1 unseen, to mean and largest over the words of what an encoder makes of them. A text without words is 0."""

    def __init__(self, n_ids: int, longest: int, *, kind: str, units: int) -> None:
        """``kind``: bag (the embeddings alone, whatever their order) or of `along.ALONG`."""
        super().__init__()
        self.table = torch.nn.Parameter(torch.randn(max(2, n_ids), units) / math.sqrt(units))
        self.along: Along | None = None if kind == "bag" else ALONG[kind](units, units, longest)
        self.width = 2 * (units if self.along is None else self.along.width)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            x = torch.where((torch.rand(x.shape, device=x.device) < _OTHER_SHARE) & (x > 1), 1, x)
        there = (x > 0).to(torch.float32)[:, :, None]
        words = torch.nn.functional.embedding(x, self.table) * there
        return pooled(words if self.along is None else self.along(words, there), there)

    def draw(self, graph: Graph, tensor: str) -> str:
        there = graph.op("Cast", graph.op("Greater", tensor, graph.constant(0, np.int64)), to=graph.FLOAT32)
        tensor, there = cut(graph, tensor, graph.op("Unsqueeze", there, graph.constant([2], np.int64)))
        words = graph.op("Mul", graph.op("Gather", graph.constant(array(self.table)), tensor, axis=0), there)
        return draw_pooled(graph, words if self.along is None else self.along.draw(graph, words, there), there)
