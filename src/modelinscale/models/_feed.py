"""Batches for the network of `mlp`: from rows made tensors once, or from rows on disk made tensors as they come. Needs torch; imported only inside functions.

N rows, C scores.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from modelinscale.core import order
from modelinscale.core.encoded import Encoded, Sparse
from modelinscale.core.memory import check as check_memory
from modelinscale.core.seeds import derive
from modelinscale.core.task import Task
from modelinscale.models import Examples
from modelinscale.models._matrix import Block, check
from modelinscale.models._network import Batch, Network
from modelinscale.models._torch import torch
from modelinscale.models._totals import mean_weight
from modelinscale.models._words import weigh

PREDICT_ROWS = 1024
"""Rows scored at once: every member of the network holds its layers of all of them."""
_JUDGED_ROWS = 8 * PREDICT_ROWS
"""Rows of a block of validation rows on disk: whole scorings, so that the last bits are those of rows in memory."""
Arrays = dict[str, NDArray[Any]]


class Step(NamedTuple):
    """Rows of one step, with their answers."""

    batch: Batch
    target: torch.Tensor
    weight: torch.Tensor


class Feed(ABC):
    """Rows and answers as the network wants them."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def steps(self, seed: int, epoch: int, n_rows: int, start: int) -> Iterator[Step]:
        """``n_rows`` at a time, from row ``start`` of the epoch on."""

    @abstractmethod
    def judged(self, network: Network) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Scores (N, C), targets and weights of all rows, in order."""

    @abstractmethod
    def fingerprint(self) -> str:
        """What the rows are, in short."""


def feed(examples: Examples, blocks: tuple[Block, ...], fixed: Arrays, task: Task, center: float, scale: float) -> Feed:
    """``fixed`` holds how rare words are; ``center`` and ``scale`` bring a number to predict near 1."""
    make = _Maker(blocks, fixed, task, center, scale, mean_weight(examples))
    return _Held(*make.all(examples), examples.encoded_bytes) if examples.held else _Streamed(examples, make)


@dataclass(frozen=True)
class Rows:
    """Rows as tensors; words as they are, since batches take them apart row by row."""

    numbers: torch.Tensor  # (N, X)
    ids: torch.Tensor  # (N, I)
    words: Sparse | None

    @classmethod
    def of(cls, rows: Encoded, blocks: tuple[Block, ...], fixed: Arrays) -> "Rows":
        check(rows, blocks)
        n = rows.n_rows
        dense = [np.asarray(rows[b.feature], np.float32) for b in blocks if b.role == "dense"]
        ids = [np.asarray(rows[b.feature], np.int64) for b in blocks if b.role == "ids"]
        words = [_weighed(part, fixed[f"rarity.{b.feature}"]) for b in blocks if isinstance(part := rows[b.feature], Sparse)]
        return cls(
            torch.from_numpy(np.concatenate(dense, axis=1) if dense else np.empty((n, 0), np.float32)),
            torch.from_numpy(np.stack(ids, axis=1) if ids else np.empty((n, 0), np.int64)),
            _beside(words) if words else None,
        )

    def __len__(self) -> int:
        return len(self.numbers)

    def batch(self, index: NDArray[np.int64]) -> Batch:
        at, words = torch.from_numpy(index), None
        if self.words is not None:
            words = _bags(self.words.rows(index))
        return Batch(self.numbers[at], self.ids[at], words)

    def whole(self) -> Batch:
        """All of them as one batch."""
        return Batch(self.numbers, self.ids, None if self.words is None else _bags(self.words))


def scores(network: Network, rows: Rows) -> torch.Tensor:
    """(N, C): the mean over members."""
    network.eval()
    with torch.inference_mode():
        parts = [network(rows.batch(np.arange(i, min(i + PREDICT_ROWS, len(rows))))).mean(dim=0) for i in range(0, len(rows), PREDICT_ROWS)]
        return torch.cat(parts) if parts else torch.empty((0, network.shape.n_scores))


@dataclass(frozen=True)
class _Maker:
    """Makes tensors of examples."""

    blocks: tuple[Block, ...]
    fixed: Arrays
    task: Task
    center: float
    scale: float
    mean_weight: float

    def all(self, examples: Examples) -> tuple[Rows, torch.Tensor, torch.Tensor]:
        """Rows, answers as the loss wants them, and row weights whose mean over all rows is 1."""
        target = torch.from_numpy(np.asarray(examples.target))
        if self.task.type != "multiclass":
            target = ((target - self.center) / self.scale).float()
        weight = np.ones(len(examples)) if examples.weight is None else examples.weight / self.mean_weight
        return Rows.of(examples.rows, self.blocks, self.fixed), target, torch.from_numpy(weight.astype(np.float32))


@dataclass
class _Held(Feed):
    """Deals what `_Streamed` deals: the two train to the same bits."""

    rows: Rows
    target: torch.Tensor
    weight: torch.Tensor
    encoded_bytes: float
    deck: tuple[int, NDArray[np.int64]] | None = None
    """The seed and the rows as it shuffles them."""

    def __len__(self) -> int:
        return len(self.rows)

    def steps(self, seed: int, epoch: int, n_rows: int, start: int) -> Iterator[Step]:
        seed = _seed(seed)
        if self.deck is None or self.deck[0] != seed:
            self.deck = seed, order.shuffled(len(self), seed)
        for places in order.batches(len(self), self.encoded_bytes, seed, epoch, n_rows, start):
            index = self.deck[1][places]
            where = torch.from_numpy(index)
            yield Step(self.rows.batch(index), self.target[where], self.weight[where])

    def judged(self, network: Network) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return scores(network, self.rows), self.target, self.weight

    def fingerprint(self) -> str:
        tensors = (self.target, self.weight, self.rows.numbers, self.rows.ids)
        return " ".join(hashlib.sha256(np.ascontiguousarray(t.numpy()).tobytes()).hexdigest()[:16] for t in tensors)


@dataclass(frozen=True)
class _Streamed(Feed):
    examples: Examples
    make: _Maker

    def __len__(self) -> int:
        return len(self.examples)

    def steps(self, seed: int, epoch: int, n_rows: int, start: int) -> Iterator[Step]:
        for batch in self.examples.batches(_seed(seed), epoch, n_rows, start):
            rows, target, weight = self.make.all(batch)
            yield Step(rows.whole(), target, weight)

    def judged(self, network: Network) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        found = []
        for block in self.examples.blocks(_JUDGED_ROWS):
            check_memory("scoring validation rows")
            rows, target, weight = self.make.all(block)
            found.append((scores(network, rows), target, weight))
        said, targets, weights = (torch.cat(parts) for parts in zip(*found, strict=True))
        return said, targets, weights

    def fingerprint(self) -> str:
        found = hashlib.sha256()
        for block in self.examples.blocks():
            found.update(block.target.tobytes())
            for part in block.rows.values():
                found.update((part.values if isinstance(part, Sparse) else part).tobytes())
        return found.hexdigest()[:32]


def _seed(seed: int) -> int:
    return derive(seed, "mlp")


def _bags(part: Sparse) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.from_numpy(part.columns.astype(np.int64)), torch.from_numpy(part.values), torch.from_numpy(part.starts[:-1])


def _weighed(part: Sparse, scale: NDArray[np.float64]) -> Sparse:
    return Sparse(part.starts, part.columns, weigh(part, scale).astype(np.float32), part.width)


def _beside(parts: list[Sparse]) -> Sparse:
    """Several word blocks as one."""
    if len(parts) == 1:
        return parts[0]
    from scipy.sparse import hstack

    joined = hstack([p.scipy() for p in parts], format="csr")
    return Sparse(joined.indptr.astype(np.int64), joined.indices.astype(np.int32), joined.data.astype(np.float32), joined.shape[1])
