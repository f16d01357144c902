"""The network of `mlp`, in PyTorch. Imported only inside functions: torch costs 2.6 s of CPU time.

B rows of a batch, K members of the ensemble, X numbers, P numbers seen through bins, T bins, I id columns, E width of an embedding,
S words of all text blocks, D width of the input vector, H width of a hidden layer, C scores.

Sources: Gorishniy et al., On Embeddings for Numerical Features, 2022 (piecewise-linear bins); Gorishniy et al., TabM, 2025 (one network whose
members differ by what they multiply its input and output with).
"""

import math
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelinscale.models._torch import torch


@dataclass(frozen=True)
class Shape:
    """All sizes a network is built from."""

    n_numbers: int
    binned: tuple[int, ...]
    """Columns among the numbers that are also seen through bins."""
    n_bins: int
    n_ids: tuple[int, ...]
    """Number of ids of each id column."""
    n_words: int
    width: int
    layers: int
    members: int
    dropout: float
    n_scores: int
    bin_width: int = 8
    id_width: int = 12
    word_width: int = 48

    @property
    def n_inputs(self) -> int:
        return self.n_numbers + len(self.binned) * self.bin_width + len(self.n_ids) * self.id_width + (self.word_width if self.n_words else 0)

    def plain(self) -> dict[str, Any]:
        return {**asdict(self), "binned": list(self.binned), "n_ids": list(self.n_ids)}

    @classmethod
    def parse(cls, value: dict[str, Any]) -> "Shape":
        return cls(**{**value, "binned": tuple(value["binned"]), "n_ids": tuple(value["n_ids"])})


@dataclass(frozen=True)
class Batch:
    """Rows as tensors."""

    numbers: torch.Tensor  # (B, X)
    ids: torch.Tensor  # (B, I)
    words: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None
    """Columns, their values, and where each row starts."""

    def __len__(self) -> int:
        return len(self.numbers)


class Network(torch.nn.Module):
    """Rows to one score vector a member."""

    binned: torch.Tensor
    low: torch.Tensor
    inverse: torch.Tensor
    starts: torch.Tensor

    def __init__(self, shape: Shape, edges: NDArray[np.float32]) -> None:
        """``edges`` (P, T + 1): ascending borders of the bins; a column with fewer bins repeats its last border."""
        super().__init__()
        self.shape = shape
        self.register_buffer("binned", torch.tensor(shape.binned, dtype=torch.int64), persistent=False)
        low, widths = torch.from_numpy(edges[:, :-1].copy()), torch.from_numpy(np.diff(edges, axis=1))
        self.register_buffer("low", low, persistent=False)  # (P, T)
        self.register_buffer("inverse", torch.where(widths > 0, 1 / widths.clamp_min(1e-30), torch.zeros(())), persistent=False)  # (P, T)
        starts = np.concatenate([[0], np.cumsum(shape.n_ids)[:-1]]) if shape.n_ids else np.empty(0)
        self.register_buffer("starts", torch.tensor(starts, dtype=torch.int64), persistent=False)
        P, T, K, H = len(shape.binned), shape.n_bins, shape.members, shape.width
        self.bin_table = torch.nn.Parameter(torch.randn(P, T, shape.bin_width) / math.sqrt(max(T, 1)))
        self.id_table = torch.nn.Parameter(torch.randn(sum(shape.n_ids), shape.id_width) * 0.3)
        self.word_table = torch.nn.Parameter(torch.randn(shape.n_words, shape.word_width) * 0.3)
        self.signs = torch.nn.Parameter(torch.randint(0, 2, (K, 1, shape.n_inputs)).float() * 2 - 1)
        sizes = [shape.n_inputs, *[H] * shape.layers]
        self.weights = torch.nn.ParameterList([torch.nn.Parameter(torch.randn(a, b) * math.sqrt(2 / a)) for a, b in pairwise(sizes)])
        self.biases = torch.nn.ParameterList([torch.nn.Parameter(torch.zeros(b)) for b in sizes[1:]])
        self.head = torch.nn.Parameter(torch.randn(K, H, shape.n_scores) / math.sqrt(H))
        self.head_bias = torch.nn.Parameter(torch.zeros(K, 1, shape.n_scores))

    def forward(self, batch: Batch) -> torch.Tensor:
        """(K, B, C)."""
        parts = [batch.numbers]
        if self.shape.binned:
            through = batch.numbers[:, self.binned, None]  # (B, P, 1)
            through = ((through - self.low) * self.inverse).clamp(0, 1)  # (B, P, T): full up to the value's bin, a part of that bin, then empty
            parts.append((through.transpose(0, 1) @ self.bin_table).transpose(0, 1).flatten(1))  # (B, P * E)
        if self.shape.n_ids:
            parts.append(torch.nn.functional.embedding(batch.ids + self.starts, self.id_table).flatten(1))  # (B, I * E)
        if batch.words is not None:
            columns, values, starts = batch.words
            parts.append(torch.nn.functional.embedding_bag(columns, self.word_table, starts, mode="sum", per_sample_weights=values))  # (B, E)
        x = torch.cat(parts, dim=1) * self.signs  # (K, B, D)
        for weight, bias in zip(self.weights, self.biases, strict=True):
            x = torch.relu(x @ weight + bias)  # (K, B, H)
            x = torch.nn.functional.dropout(x, self.shape.dropout, self.training)
        return x @ self.head + self.head_bias  # (K, B, C)

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """Every parameter by name, copied."""
        return {name: p.detach().numpy().copy() for name, p in self.named_parameters()}

    def load(self, arrays: dict[str, NDArray[Any]]) -> None:
        """Sets every parameter."""
        with torch.no_grad():
            for name, p in self.named_parameters():
                p.copy_(torch.from_numpy(np.ascontiguousarray(arrays[name])))
