"""One network of any columns: an encoder for each, side by side into a trunk whose members share nearly all weights, and a head.

B rows of a batch, K members, D numbers of all encoders together, H width of a hidden layer, C scores.

Source of the members: Gorishniy et al., TabM, 2025 (one network whose members differ by what they multiply its input with).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.encoded import Encoded, Layout, Role, Sparse
from modelinscale.core.errors import ModelError
from modelinscale.core.graph import Graph
from modelinscale.models._deep.convnext import ConvNeXt
from modelinscale.models._deep.images import Cnn
from modelinscale.models._deep.parts import Part, Tensor, array, draw_linear
from modelinscale.models._deep.plan import Shape
from modelinscale.models._deep.sequences import Steps, together
from modelinscale.models._deep.tables import Ids, Numbers, Words
from modelinscale.models._deep.texts import Tokens
from modelinscale.models._torch import torch

Batch = dict[str, Any]
"""What each encoder takes, by its name."""
Block = Tensor | Sparse | tuple[NDArray[Any], ...]
"""Rows for one encoder: one thing a row, words, or sequences of which each feature has its own."""

_SCORED_NUMBERS, _STEP_NUMBERS, _MOST_SCORED = 1 << 21, 64, 9
"""Of images and sequences about so many numbers are scored at once, a step counted as 64; at most 512 rows."""
_HELD_SHARE = 8
"""Of an encoder learned elsewhere: as many of its numbers count as one."""


@dataclass(frozen=True)
class Port:
    """One encoder: which features go in, and all its sizes."""

    kind: Role
    features: tuple[str, ...]
    """One, or several side by side: all numbers; ids or words that share a table; sequences that have their steps in common."""
    widths: tuple[int, ...]
    """Of each feature's layout."""
    shape: tuple[int, ...] = ()
    settings: tuple[tuple[str, Any], ...] = ()
    """Sizes besides, by name."""

    @property
    def row_numbers(self) -> int:
        """Numbers that an encoder learned elsewhere holds of one row; 0 for others."""
        return int(dict(self.settings).get("row_numbers", 0))

    def plain(self) -> dict[str, Any]:
        return {"kind": self.kind, "features": list(self.features), "widths": list(self.widths), "shape": list(self.shape), "settings": dict(self.settings)}

    @classmethod
    def parse(cls, value: dict[str, Any]) -> "Port":
        return cls(value["kind"], tuple(value["features"]), tuple(value["widths"]), tuple(value["shape"]), tuple(value["settings"].items()))

    def build(self, known: Mapping[str, NDArray[Any]]) -> Part:
        """The encoder; ``known`` has what it was given of the training rows, by the names of its buffers, and nothing where weights are loaded next."""
        more = dict(self.settings)
        if self.kind == "dense":
            binned, n_bins = tuple(more["binned"]), more["n_bins"]
            edges, waved = known.get("edges", np.zeros((len(binned), n_bins + 1), np.float32)), tuple(more.get("waved", ()))
            return Numbers(sum(self.widths), binned, edges, waved, more.get("n_waves", 0), more.get("frequency", 1.0))
        if self.kind == "ids":
            return Ids(self.widths, more.get("width"))
        if self.kind == "sparse":
            return Words(self.widths, known.get("rarity", np.zeros(sum(self.widths))))
        if self.kind == "steps":
            return Steps(self.shape[1], self.shape[0], kind=more["encoder"], units=more["units"], noise=more["noise"])
        if self.kind == "tokens" and more["encoder"] == "pretrained":
            from modelinscale.models._deep.languages import Reader

            return Reader(self.shape[0], more["config"], more["share"], dict(known))
        if self.kind == "tokens":
            return Tokens(self.widths[0], self.shape[0], kind=more["encoder"], units=more["units"])
        C = self.shape[2]
        mean, deviation = known.get("mean", np.zeros(C, np.float32)), known.get("deviation", np.ones(C, np.float32))
        if more.get("encoder") == "pretrained":
            from modelinscale.models._deep.pretrained import Body

            return Body(self.shape, more["architecture"], more["share"], dict(known), mirrored=more["mirrored"])
        kind = ConvNeXt if more.get("encoder") == "convnext" else Cnn
        return kind(self.shape, more["maps"], mean, deviation, mirrored=more.get("mirrored", False))


class Net(torch.nn.Module):
    """Rows to one score vector a member."""

    def __init__(self, ports: tuple[Port, ...], shape: Shape, known: Mapping[str, Mapping[str, NDArray[Any]]] | None = None) -> None:
        """``known``: for each encoder's name what it has to know of the training rows."""
        super().__init__()
        self.ports, self.shape = ports, shape
        self.names = tuple(f"{port.kind}{i}" for i, port in enumerate(ports))
        parts = [port.build((known or {}).get(name, {})) for name, port in zip(self.names, ports, strict=True)]
        self.parts = torch.nn.ModuleDict(dict(zip(self.names, parts, strict=True)))
        D, K, C = sum(part.width for part in parts), shape.members, shape.n_scores
        self.signs = torch.nn.Parameter(torch.randint(0, 2, (K, 1, D)).float() * 2 - 1, requires_grad=K > 1)
        if K == 1:
            torch.nn.init.ones_(self.signs)
        sizes = [D, *[shape.width] * shape.layers]
        self.weights = torch.nn.ParameterList([torch.nn.Parameter(torch.randn(a, b) * math.sqrt(2 / a)) for a, b in pairwise(sizes)])
        self.biases = torch.nn.ParameterList([torch.nn.Parameter(torch.zeros(b)) for b in sizes[1:]])
        self.apart = torch.nn.ModuleList()
        """Hidden layers that have the weights and biases themselves, while a process holds a part of each only (`held`)."""
        self.head = torch.nn.Parameter(torch.randn(K, sizes[-1], C) / math.sqrt(sizes[-1]))
        self.head_bias = torch.nn.Parameter(torch.zeros(K, 1, C))

    @property
    def scored_rows(self) -> int:
        """Rows scored at once: a power of two, fewer where a row is large, always as many for one network, so that the last bits of a score are the same."""
        sizes = [math.prod(port.shape) if port.kind == "image" else port.shape[0] * _STEP_NUMBERS for port in self.ports if port.shape]
        sizes += [port.row_numbers // _HELD_SHARE for port in self.ports]
        return 1 << min(_MOST_SCORED, max(0, int(math.log2(_SCORED_NUMBERS / max([1, *sizes])))))

    def forward(self, batch: Batch) -> Tensor:
        """(K, B, C)."""
        return self.trunk([self.parts[name](batch[name]) for name in self.names])

    def trunk(self, parts: list[Tensor]) -> Tensor:
        """(K, B, C) of what the encoders give, (B, D) in all."""
        x = torch.cat(parts, dim=1)
        x = torch.nn.functional.dropout(x, self.shape.dropout, self.training and not self.shape.layers) * self.signs  # (K, B, D)
        for hidden in self.apart or [partial(_hidden, *both) for both in zip(self.weights, self.biases, strict=True)]:
            x = torch.nn.functional.dropout(hidden(x), self.shape.dropout, self.training)  # (K, B, H)
        return x @ self.head + self.head_bias  # (K, B, C)

    def batch(self, rows: Encoded) -> Batch:
        """Encoded rows as its encoders take them, on the processor. Raises `ModelError` for rows of another encoding."""
        return ready(self.blocks(rows))

    def blocks(self, rows: Encoded) -> dict[str, Block]:
        """For each encoder what it takes of these rows, before it is made a batch (`ready`): so that of many rows some can be taken. Shares memory."""
        self._check(rows.layouts)
        found: dict[str, Block] = {}
        for name, port in zip(self.names, self.ports, strict=True):
            blocks = [rows[feature] for feature in port.features]
            words = self.parts[name]
            if isinstance(words, Words):
                found[name] = words.weighed(cast("list[Sparse]", blocks))
            elif port.kind == "dense":
                found[name] = tensor_of(np.concatenate(cast("list[NDArray[Any]]", blocks), axis=1).astype(np.float32, copy=False))
            elif port.kind in ("steps", "tokens"):
                found[name] = tuple(cast("list[NDArray[Any]]", blocks))
            else:
                found[name] = tensor_of(blocks[0] if len(blocks) == 1 else np.stack(cast("list[NDArray[Any]]", blocks), axis=1))
        return found

    def shares(self) -> dict[torch.nn.Parameter, float]:
        """Of parameters that do not move by the whole step size: how much of it."""
        parts = [part for part in self.parts.values() if isinstance(part, Part) and part.share != 1]
        return {p: part.share for part in parts for p in part.parameters()}

    def draw(self, graph: Graph, blocks: Mapping[str, str]) -> str:
        """Draws the mean of the members' scores: float32 (N, C)."""
        parts = []
        for name, port in zip(self.names, self.ports, strict=True):
            tensors = [blocks[feature] for feature in port.features]
            part = self.parts[name]
            assert isinstance(part, Part)
            parts.append(part.draw_all(graph, tensors))
        x = parts[0] if len(parts) == 1 else graph.op("Concat", *parts, axis=1)
        x = graph.op("Mul", graph.op("Unsqueeze", x, graph.constant([0], np.int64)), graph.constant(array(self.signs)))  # (K, N, D)
        for weight, bias in zip(self.weights, self.biases, strict=True):
            x = graph.op("Relu", draw_linear(graph, x, weight, bias))
        return graph.op("ReduceMean", draw_linear(graph, x, self.head, self.head_bias), graph.constant([0], np.int64), keepdims=0)

    def _check(self, layouts: Mapping[str, Layout]) -> None:
        wrong = []
        for port in self.ports:
            for feature, width in zip(port.features, port.widths, strict=True):
                layout = layouts.get(feature)
                if layout is None:
                    wrong.append(f"{feature!r} is missing")
                elif (layout.role, layout.width) != (port.kind, width):
                    wrong.append(f"{feature!r} is {layout.role} of width {layout.width}, learned as {port.kind} of width {width}")
        if wrong:
            raise ModelError(f"These rows are not encoded as those the model learned from: {'; '.join(wrong)}.", fix="Train again with these features.")


def _hidden(weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
    return torch.relu(x @ weight + bias)


class Hidden(torch.nn.Module):
    """A hidden layer by itself."""

    def __init__(self, weight: torch.nn.Parameter, bias: torch.nn.Parameter) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias

    def forward(self, x: Tensor) -> Tensor:
        return _hidden(self.weight, self.bias, x)


def ready(blocks: Mapping[str, Block]) -> Batch:
    """Rows of one batch as encoders take them: whole numbers of 64 bits, words as columns, values and where each row starts, sequences as long as needed."""
    found: Batch = {}
    for name, block in blocks.items():
        if isinstance(block, Sparse):
            found[name] = (torch.from_numpy(block.columns.astype(np.int64)), torch.from_numpy(block.values), torch.from_numpy(block.starts[:-1]))
        elif isinstance(block, tuple):
            found[name] = torch.from_numpy(together(block))
        else:
            found[name] = block.long() if block.dtype == torch.int32 else block
    return found


def rows_of(block: Block, index: NDArray[np.int64]) -> Block:
    """Some rows, in that order."""
    if isinstance(block, Sparse):
        return block.rows(index)
    return tuple(one[index] for one in block) if isinstance(block, tuple) else block.index_select(0, torch.from_numpy(index))


def slice_of(block: Block, start: int, stop: int) -> Block:
    """Rows from ``start`` up to ``stop``; shares memory."""
    if isinstance(block, Sparse):
        return block.slice(start, stop)
    return tuple(one[start:stop] for one in block) if isinstance(block, tuple) else block[start:stop]


def tensor_of(values: Any) -> Tensor:
    """Shares memory where it may be written to, which torch asks for."""
    values = np.ascontiguousarray(values)
    return torch.from_numpy(values if values.flags.writeable else values.copy())


__all__ = ["Batch", "Block", "Hidden", "Net", "Port", "Shape", "ready", "rows_of", "slice_of", "tensor_of"]
