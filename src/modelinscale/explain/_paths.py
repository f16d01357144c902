"""Networks as functions of pieces that can be moved a little: numbers and pixels as they are, everything else behind its encoder.

B rows, C scores.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from modelinscale.core.encoded import Encoded
from modelinscale.models import Weights
from modelinscale.models._torch import torch

Pieces = dict[str, torch.Tensor]
"""What the network is a smooth function of, by name; each (B, ...)."""


@dataclass(frozen=True)
class Share:
    """Which part of a piece belongs to a feature: columns of its second axis, or (None) all of it."""

    piece: str
    columns: slice | None


class Path(ABC):
    """A network in evaluation."""

    @abstractmethod
    def pieces(self, rows: Encoded) -> Pieces:
        """Of encoded rows."""

    @abstractmethod
    def scores(self, pieces: Pieces) -> torch.Tensor:
        """(B, C): the mean over members, before the target's scale."""

    @abstractmethod
    def shares(self) -> dict[str, Share]:
        """By feature."""


class DeepPath(Path):
    """The network of parts (`network`)."""

    def __init__(self, weights: Weights) -> None:
        from modelinscale.models._deep.learn import built

        self.net = built(weights).eval()

    def pieces(self, rows: Encoded) -> Pieces:
        batch = self.net.batch(rows)
        with torch.no_grad():
            return {
                name: batch[name].float() if port.kind in ("dense", "image") else self.net.parts[name](batch[name])
                for name, port in zip(self.net.names, self.net.ports, strict=True)
            }

    def scores(self, pieces: Pieces) -> torch.Tensor:
        net = self.net
        parts = [net.parts[n](pieces[n]) if port.kind in ("dense", "image") else pieces[n] for n, port in zip(net.names, net.ports, strict=True)]
        x = torch.cat(parts, dim=1) * net.signs
        for weight, bias in zip(net.weights, net.biases, strict=True):
            x = torch.relu(x @ weight + bias)
        found: torch.Tensor = (x @ net.head + net.head_bias).mean(0)
        return found

    def shares(self) -> dict[str, Share]:
        found = {}
        for name, port in zip(self.net.names, self.net.ports, strict=True):
            ends = np.cumsum([0, *port.widths])
            for i, feature in enumerate(port.features):
                found[feature] = Share(name, slice(int(ends[i]), int(ends[i + 1])) if port.kind == "dense" else None)
        return found


class FlatPath(Path):
    """The network for tables (`mlp`)."""

    def __init__(self, weights: Weights) -> None:
        from modelinscale.models._matrix import Block
        from modelinscale.models._network import Network, Shape

        self.arrays = weights.arrays
        self.blocks = tuple(Block.parse(block) for block in weights.meta["blocks"])
        self.net = Network(Shape.parse(weights.meta["shape"]), weights.arrays["edges"])
        self.net.load(weights.arrays)
        self.net.eval()

    def pieces(self, rows: Encoded) -> Pieces:
        from modelinscale.models._feed import Rows
        from modelinscale.models._words import weigh

        net, whole = self.net, Rows.of(rows, self.blocks, self.arrays).whole()
        with torch.no_grad():
            found = {"numbers": whole.numbers}
            if net.shape.n_ids:
                found["ids"] = torch.nn.functional.embedding(whole.ids + net.starts, net.id_table).flatten(1)
            at = 0
            for block in (b for b in self.blocks if b.role == "sparse"):
                words = torch.from_numpy(weigh(rows[block.feature], self.arrays[f"rarity.{block.feature}"]).astype(np.float32))  # type: ignore[arg-type]
                counts = rows[block.feature]
                ends = torch.from_numpy(counts.starts[:-1])  # type: ignore[union-attr]
                columns = torch.from_numpy(counts.columns.astype(np.int64)) + at  # type: ignore[union-attr]
                found[f"words.{block.feature}"] = torch.nn.functional.embedding_bag(columns, net.word_table, ends, mode="sum", per_sample_weights=words)
                at += block.n_columns
        return found

    def scores(self, pieces: Pieces) -> torch.Tensor:
        net, parts = self.net, [pieces["numbers"]]
        if net.shape.binned:
            through = ((pieces["numbers"][:, net.binned, None] - net.low) * net.inverse).clamp(0, 1)  # (B, P, T)
            parts.append((through.transpose(0, 1) @ net.bin_table).transpose(0, 1).flatten(1))
        if "ids" in pieces:
            parts.append(pieces["ids"])
        words = [piece for name, piece in pieces.items() if name.startswith("words.")]
        if words:
            parts.append(torch.stack(words).sum(0))
        x = torch.cat(parts, dim=1) * net.signs
        for weight, bias in zip(net.weights, net.biases, strict=True):
            x = torch.relu(x @ weight + bias)
        found: torch.Tensor = (x @ net.head + net.head_bias).mean(0)
        return found

    def shares(self) -> dict[str, Share]:
        found, numbers, ids = {}, 0, 0
        for block in self.blocks:
            if block.role == "dense":
                found[block.feature] = Share("numbers", slice(numbers, numbers + block.n_columns))
                numbers += block.n_columns
            elif block.role == "ids":
                width = self.net.shape.id_width
                found[block.feature] = Share("ids", slice(ids * width, (ids + 1) * width))
                ids += 1
            else:
                found[block.feature] = Share(f"words.{block.feature}", None)
        return found


def path_of(weights: Weights, family: str) -> Path:
    """The network behind these weights."""
    return DeepPath(weights) if family == "network" else FlatPath(weights)
