"""A network for tables (PyTorch): numbers through learned bins, categories and words through embeddings, a small ensemble that shares its weights.

K members of the ensemble, C scores. See `_network` for the layers and their sources.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from modelinscale.core.encoded import Encoded, Form, Layout
from modelinscale.core.graph import Graph
from modelinscale.core.space import Range, Span
from modelinscale.core.task import Task
from modelinscale.models import Effort, Examples, Model, Scores, Weights
from modelinscale.models._matrix import Block, blocks_of
from modelinscale.models._words import draw_weigh

_MOST_BATCH_ROWS, _BIN_WIDTH = 1024, 8


class Mlp(Model):
    """A modern network for tables; slower to train than trees, often better on smooth or text-like data."""

    form: ClassVar[Form] = "scaled"
    searched: ClassVar[Mapping[str, Span | None]] = {
        "width": Range(32, 512, log=True, start=128),
        "layers": Range(1, 4, start=2),
        "members": Range(1, 8, start=4),
        "bins": Range(0, 48, start=16),
        "dropout": Range(0.0, 0.5, start=0.1),
        "weight_decay": Range(1e-5, 0.1, log=True, start=3e-4),
        "epochs": None,
        "patience": None,
    }

    width: int = Field(128, ge=4, le=4096)
    """Units of a hidden layer."""
    layers: int = Field(2, ge=1, le=16)
    """Hidden layers."""
    members: int = Field(4, ge=1, le=64)
    """Networks of the ensemble; they share nearly all weights."""
    bins: int = Field(16, ge=0, le=128)
    """Bins a number is seen through, at quantiles of the training rows; 0: as it is. Beyond 300 columns of numbers there are none."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Share of hidden units left out at each training step."""
    learning_rate: float = Field(3e-3, gt=0)
    """Step size of AdamW."""
    weight_decay: float = Field(3e-4, ge=0)
    """How fast unused weights shrink, per step and unit of step size."""
    batch_rows: int | None = Field(None, ge=1)
    """Rows a step; null: from the number of rows, 64 to 1024."""
    epochs: int = Field(60, ge=1)
    """Most passes over the rows; it stops earlier when validation rows stop getting better."""
    patience: int = Field(8, ge=1)
    """Looks at the validation rows (one an epoch, at least every 100,000 rows) without a better loss after which it stops."""

    def accepts(self, task: Task, layouts: dict[str, Layout]) -> str:
        if task.several:
            return f"it cannot give {task.several} yet; `network` does"
        return "" if blocks_of(layouts) else "there is no feature to learn from"

    def fit(self, train: Examples, valid: Examples | None, task: Task, effort: Effort) -> Weights:
        """The same seed gives the same weights on the same machine with the same number of threads, killed and resumed in between or not
        (unless the budget ends it: then as far as time allowed)."""
        from modelinscale.models._network_training import fit

        return fit(self, train, valid, task, effort)

    def update(self, weights: Weights, new: Examples, valid: Examples | None, task: Task, effort: Effort) -> Weights:
        """A few passes over the new rows at a fifth of the step size; with validation rows the best state is kept, the old one included."""
        from modelinscale.models._network_training import update

        return update(self, weights, new, valid, task, effort)

    def predict(self, weights: Weights, rows: Encoded) -> Scores:
        from modelinscale.models._network_training import predict

        return predict(weights, rows)

    def step_bytes(self, n_columns: int) -> int:
        """About what one step of training holds, weights and gradients included, over a table of so many columns, each a number seen through bins.

        Measured: 66 MiB for 1,024 rows of 44 columns; this says 69.
        """
        K, H, L = self.members, self.width, self.layers
        D = n_columns * (1 + _BIN_WIDTH)
        per_row = 3 * K * D + 8 * K * H * L + 6 * n_columns * self.bins  # what each layer gives, what is kept of it for its gradient, and that
        n_weights = D * H + H * H * (L - 1)
        return 4 * ((self.batch_rows or _MOST_BATCH_ROWS) * per_row + 8 * n_weights)  # now, average, best, judged, gradient, both moments, copied

    def row_bytes(self, weights: Weights) -> int:
        from modelinscale.models._network import Shape

        shape = Shape.parse(weights.meta["shape"])
        through = 3 * len(shape.binned) * shape.n_bins  # numbers by bin: what is over the border, its share, that within 0 and 1
        return 4 * (through + 2 * shape.n_inputs + shape.members * (shape.n_inputs + 2 * shape.width))

    def graph(self, weights: Weights, task: Task, layouts: dict[str, Layout], graph: Graph, blocks: dict[str, str]) -> str:
        """The mean over members is taken of the scores, so that it needs no logarithm of probabilities."""
        arrays, shape, one = weights.arrays, weights.meta["shape"], np.float32
        known = [Block.parse(b) for b in weights.meta["blocks"]]
        parts = []
        dense = [blocks[b.feature] for b in known if b.role == "dense"]
        if dense:
            numbers = dense[0] if len(dense) == 1 else graph.op("Concat", *dense, axis=1)
            parts.append(numbers)
            if shape["binned"]:
                parts.append(_draw_bins(arrays, shape, graph, numbers))
        start = 0
        for block in known:
            if block.role == "ids":
                table = arrays["id_table"][start : start + block.n_ids]
                parts.append(graph.op("Gather", graph.constant(table, one), blocks[block.feature], axis=0))
                start += block.n_ids
        words = [draw_weigh(graph, blocks[b.feature], arrays[f"rarity.{b.feature}"]) for b in known if b.role == "sparse"]
        if words:
            together = words[0] if len(words) == 1 else graph.op("Concat", *words, axis=1)
            parts.append(graph.op("MatMul", together, graph.constant(arrays["word_table"], one)))
        x = parts[0] if len(parts) == 1 else graph.op("Concat", *parts, axis=1)
        x = graph.op("Mul", graph.op("Unsqueeze", x, graph.constant([0], np.int64)), graph.constant(arrays["signs"], one))  # (K, N, D)
        for i in range(shape["layers"]):
            x = graph.op("MatMul", x, graph.constant(arrays[f"weights.{i}"], one))
            x = graph.op("Relu", graph.op("Add", x, graph.constant(arrays[f"biases.{i}"], one)))
        x = graph.op("Add", graph.op("MatMul", x, graph.constant(arrays["head"], one)), graph.constant(arrays["head_bias"], one))
        x = graph.op("ReduceMean", x, graph.constant([0], np.int64), keepdims=0)  # (N, C)
        if task.type == "regression":
            scale, center = (graph.constant(weights.meta[name], one) for name in ("scale", "center"))
            x = graph.op("Add", graph.op("Mul", x, scale), center)
        return x if task.n_scores > 1 else graph.op("Squeeze", x, graph.constant([1], np.int64))


def _draw_bins(arrays: dict[str, NDArray[Any]], shape: dict[str, Any], graph: Graph, numbers: str) -> str:
    """(N, P * E): numbers through their bins, as the network sees them."""
    edges = arrays["edges"]
    widths = np.diff(edges, axis=1)
    inverse = np.where(widths > 0, 1 / np.maximum(widths, np.float32(1e-30)), 0)
    chosen = graph.op("Gather", numbers, graph.constant(shape["binned"], np.int64), axis=1)
    chosen = graph.op("Unsqueeze", chosen, graph.constant([2], np.int64))  # (N, P, 1)
    through = graph.op("Sub", chosen, graph.constant(edges[:, :-1], np.float32))
    through = graph.op("Mul", through, graph.constant(inverse, np.float32))
    through = graph.op("Clip", through, graph.constant(0.0, np.float32), graph.constant(1.0, np.float32))  # (N, P, T)
    embedded = graph.op("MatMul", graph.op("Transpose", through, perm=[1, 0, 2]), graph.constant(arrays["bin_table"], np.float32))  # (P, N, E)
    size = len(shape["binned"]) * shape["bin_width"]
    return graph.op("Reshape", graph.op("Transpose", embedded, perm=[1, 0, 2]), graph.constant([0, size], np.int64))
