"""Batches for a network: from rows made tensors once, or from rows on disk made tensors as they come; both deal the same rows in the same order.

N rows, B rows of a batch.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from modelinscale.core import order
from modelinscale.core.memory import check
from modelinscale.core.task import Task
from modelinscale.models import Examples
from modelinscale.models._deep.net import Batch, Block, Net, ready, rows_of, slice_of
from modelinscale.models._deep.parts import Tensor
from modelinscale.models._torch import torch
from modelinscale.models._totals import Middle, mean_weight

_READ_BLOCKS = 16
"""As many times the rows scored at once are read from disk at once: whole scorings, so that the last bits are those of rows in memory."""


@dataclass(frozen=True)
class Other:
    """Second answers of rows that were mixed with others, and how much they count."""

    target: Tensor
    weight: Tensor | None
    share: float
    """From 0 to 1; the first answers count for the rest."""


@dataclass(frozen=True)
class Step:
    """Rows of one step, with their answers as the loss wants them."""

    batch: Batch
    target: Tensor
    weight: Tensor | None
    """None: all rows weigh the same."""
    other: Other | None = None

    def __len__(self) -> int:
        return len(self.target)

    def pieces(self, n: int) -> "Iterator[Step]":
        """The same rows in up to ``n`` pieces, whose sizes differ by one at most; of two rows at least, where there are so many, to normalise over."""
        n = max(1, min(n, len(self) // 2))
        borders = [len(self) * i // n for i in range(n + 1)]
        for start, stop in pairwise(borders):
            batch = {name: _cut(value, start, stop) for name, value in self.batch.items()}
            other = self.other
            if other is not None:
                other = Other(other.target[start:stop], None if other.weight is None else other.weight[start:stop], other.share)
            yield Step(batch, self.target[start:stop], None if self.weight is None else self.weight[start:stop], other)

    def to(self, device: "torch.device") -> "Step":
        if device.type == "cpu":
            return self
        batch = {k: tuple(one.to(device) for one in v) if isinstance(v, tuple) else v.to(device, non_blocking=True) for k, v in self.batch.items()}
        other = self.other
        if other is not None:
            other = Other(other.target.to(device), None if other.weight is None else other.weight.to(device), other.share)
        return Step(batch, self.target.to(device, non_blocking=True), None if self.weight is None else self.weight.to(device, non_blocking=True), other)


class Feed(ABC):
    """Rows and answers as a network wants them."""

    n_rows: int
    encoded_bytes: float
    make: "Maker"

    @abstractmethod
    def steps(self, seed: int, epoch: int, n_rows: int, start: int) -> Iterator[Step]:
        """``n_rows`` at a time, from row ``start`` of the epoch on."""

    @abstractmethod
    def blocks(self) -> Iterator[Step]:
        """All rows in order, as many at a time as the network scores at once."""

    def rows_of(self, seed: int, epoch: int, n_rows: int, start: int) -> NDArray[np.int64]:
        """Which rows the step has that begins at row ``start`` of the epoch."""
        places = next(order.batches(self.n_rows, self.encoded_bytes, seed, epoch, n_rows, start))
        return order.shuffled(self.n_rows, seed)[places]


def feed(examples: Examples, net: Net, task: Task, center: Middle, scale: Middle) -> Feed:
    """``center`` and ``scale`` bring a number to predict near 0 and 1."""
    make = Maker(net, task, center, scale, mean_weight(examples))
    return (_Held.of if examples.held else _Streamed)(examples, make)


@dataclass(frozen=True)
class Maker:
    """Makes tensors of examples."""

    net: Net
    task: Task
    center: Middle
    scale: Middle
    mean_weight: float

    def step(self, examples: Examples) -> Step:
        return Step(self.net.batch(examples.rows), *self.answers(examples))

    def answers(self, examples: Examples) -> tuple[Tensor, Tensor | None]:
        """Answers, and row weights whose mean over all rows is 1."""
        target = examples.target
        classes = self.task.type == "multiclass"
        found = target.astype(np.int64) if classes else ((target - self.center) / self.scale).astype(np.float32)
        weight = None if examples.weight is None else torch.from_numpy((examples.weight / self.mean_weight).astype(np.float32))
        return torch.from_numpy(found), weight


class _Held(Feed):
    def __init__(self, n_rows: int, encoded_bytes: float, make: Maker, parts: dict[str, Block], target: Tensor, weight: Tensor | None) -> None:
        self.n_rows, self.encoded_bytes, self.make = n_rows, encoded_bytes, make
        self.parts, self.target, self.weight = parts, target, weight
        self.deck: dict[int, NDArray[np.int64]] = {}  # by the seed they are shuffled with: which row lies where

    @classmethod
    def of(cls, examples: Examples, make: Maker) -> "_Held":
        return cls(len(examples), examples.encoded_bytes, make, make.net.blocks(examples.rows), *make.answers(examples))

    def steps(self, seed: int, epoch: int, n_rows: int, start: int) -> Iterator[Step]:
        if seed not in self.deck:
            self.deck = {seed: order.shuffled(self.n_rows, seed)}
        for places in order.batches(self.n_rows, self.encoded_bytes, seed, epoch, n_rows, start):
            index = self.deck[seed][places]
            at = torch.from_numpy(index)
            parts = {name: rows_of(part, index) for name, part in self.parts.items()}
            yield Step(ready(parts), self.target.index_select(0, at), None if self.weight is None else self.weight.index_select(0, at))

    def blocks(self) -> Iterator[Step]:
        size = self.make.net.scored_rows
        for start in range(0, self.n_rows, size):
            yield self._slice(start, min(start + size, self.n_rows))

    def _slice(self, a: int, b: int) -> Step:
        parts = {name: slice_of(part, a, b) for name, part in self.parts.items()}
        return Step(ready(parts), self.target[a:b], None if self.weight is None else self.weight[a:b])


class _Streamed(Feed):
    def __init__(self, examples: Examples, make: Maker) -> None:
        self.n_rows, self.encoded_bytes, self.make, self.examples = len(examples), examples.encoded_bytes, make, examples

    def steps(self, seed: int, epoch: int, n_rows: int, start: int) -> Iterator[Step]:
        for examples in self.examples.batches(seed, epoch, n_rows, start):
            yield self.make.step(examples)

    def blocks(self) -> Iterator[Step]:
        for examples in self.examples.blocks(_READ_BLOCKS * self.make.net.scored_rows):
            check("scoring validation rows")
            yield from _Held.of(examples, self.make).blocks()


def _cut(value: "Tensor | tuple[Tensor, ...]", start: int, stop: int) -> "Tensor | tuple[Tensor, ...]":
    if not isinstance(value, tuple):
        return value[start:stop]
    columns, values, starts = value  # of words: where each row starts
    first, last = int(starts[start]), int(starts[stop]) if stop < len(starts) else len(columns)
    return columns[first:last], values[first:last], starts[start:stop] - first


__all__ = ["Feed", "Maker", "Other", "Step", "feed"]
