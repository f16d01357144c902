"""LightGBM's own copy of the rows, a byte a cell: made at once of rows in memory, block by block of rows on disk.

N rows, F columns, K trees a round.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.encoded import Encoded
from modelinscale.core.errors import ModelError
from modelinscale.core.seeds import derive, mixed
from modelinscale.core.units import show_bytes
from modelinscale.models import BLOCK_ROWS, Effort, Examples
from modelinscale.models._lightgbm import lightgbm
from modelinscale.models._matrix import Block, as_matrix

LEAST_ROWS = 1_000
_FIXED = 96 << 20
"""What LightGBM takes whatever the rows: the sample that bins are made from, histograms of leaves."""


@dataclass(frozen=True)
class Source:
    """Rows to learn from or to stop by: all, or those at ``index``."""

    examples: Examples
    blocks: tuple[Block, ...]
    index: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.examples) if self.index is None else len(self.index)

    @property
    def sparse(self) -> bool:
        return any(block.role == "sparse" for block in self.blocks)

    @property
    def n_columns(self) -> int:
        return sum(block.n_columns for block in self.blocks)

    @cached_property
    def held(self) -> Examples:
        """The rows in memory."""
        if self.index is None and self.examples.held:
            return self.examples
        return self.examples.take(np.arange(len(self.examples)) if self.index is None else self.index)

    def read(self, start: int, stop: int) -> Examples:
        """Some of them, in memory."""
        index = np.arange(start, min(stop, len(self))) if self.index is None else self.index[start:stop]
        return self.examples.take(index)


def sources(train: Examples, valid: Examples | None, blocks: tuple[Block, ...], n_trees: int, effort: Effort) -> tuple[Source, Source | None]:
    """All rows, or where they would not fit into ``effort.memory`` an even sample of both parts as large as does; then the user is told.

    Raises `ModelError` where not even a few rows fit.
    """
    whole = Source(train, blocks), None if valid is None else Source(valid, blocks)
    if effort.memory is None or train.held:
        return whole
    need = len(train) * row_bytes(blocks, n_trees, train) + (0 if valid is None else len(valid) * row_bytes(blocks, n_trees, valid, learns=False))
    there = effort.memory * 0.85 - _FIXED
    share = there / max(need, 1.0)
    if share >= 1:
        return whole
    if share * len(train) < LEAST_ROWS:
        raise ModelError(
            f"trees of {whole[0].n_columns:,} columns need about {show_bytes(need + _FIXED)}, and {show_bytes(effort.memory)} are left for rows.",
            fix="Raise `compute.memory`, or name fewer columns under `features`.",
        )
    learns = Source(train, blocks, _some(len(train), share, effort.seed, "train"))
    stops = None if valid is None else Source(valid, blocks, _some(len(valid), share, effort.seed, "valid"))
    effort.tell(
        f"all {len(train):,} training rows need about {show_bytes(need + _FIXED)}; "
        f"within `compute.memory` it learned from {len(learns):,} of them, evenly drawn."
    )
    return learns, stops


def row_bytes(blocks: tuple[Block, ...], n_trees: int, examples: Examples, *, learns: bool = True) -> float:
    """Bytes that training takes for a row: bins (twice where it learns: by column and by row), answer and weight, scores, both derivatives, its place.

    With words LightGBM wants the matrix at once: then its filled cells, and bins of them, count as well.
    """
    cells = sum((2 if block.n_ids > 255 else 1) * block.n_columns for block in blocks if block.role != "sparse")
    row: float = (2 if learns else 1) * cells + 8 + 8 * n_trees + (8 * n_trees + 8 if learns else 0)
    if any(block.role == "sparse" for block in blocks):
        filled = getattr(examples, "row_bytes", 0.0)
        row += 6 * filled
    return row


def _some(n: int, share: float, seed: int, part: str) -> NDArray[np.int64]:
    """About that share of the rows, ascending: those whose random number, a function of seed and place, is below it."""
    key, bound = np.uint64(derive(seed, "trees", part)), np.uint64(int(share * 2.0**64))
    found = [np.flatnonzero(mixed(key, np.arange(a, min(a + BLOCK_ROWS, n), dtype=np.uint64)) < bound) + a for a in range(0, n, BLOCK_ROWS)]
    return np.concatenate(found) if found else np.zeros(0, np.int64)


def dataset(source: Source, center: float, scale: float, params: dict[str, Any], reference: Any = None) -> Any:
    """A ``lightgbm.Dataset`` of the rows; ``reference``: that of the training rows, for others."""
    categorical = [i for i, block in enumerate(block for block in source.blocks for _ in block.names) if block.role == "ids"]
    if source.sparse or (source.examples.held and source.index is None):
        X: Any = as_matrix(source.held.rows, source.blocks)
        target: NDArray[Any] = source.held.target
        weight: NDArray[Any] | None = source.held.weight
    else:
        X = _sequence()(source)
        target, weight = _answers(source)
    target = (target - center) / scale if scale != 1.0 or center else target
    return lightgbm().Dataset(
        X, target.astype(np.float32), weight=weight, categorical_feature=categorical, params=params, reference=reference, free_raw_data=not source.examples.held
    )


def _answers(source: Source) -> tuple[NDArray[Any], NDArray[np.float32] | None]:
    """Targets and weights, (N,)."""
    parts = [source.read(start, start + BLOCK_ROWS) for start in range(0, len(source), BLOCK_ROWS)]
    weights = [part.weight.astype(np.float32) for part in parts if part.weight is not None]
    return np.concatenate([part.target for part in parts]), np.concatenate(weights) if weights else None


def _sequence() -> Any:
    """The class, made when LightGBM is there: rows that it asks for one by one (the sample for the bins, ascending) and then block by block."""

    class Sequence(lightgbm().Sequence):  # type: ignore[misc]
        batch_size = BLOCK_ROWS

        def __init__(self, source: Source) -> None:
            self._source = source
            self._at = -1
            self._block: Any = None

        def __len__(self) -> int:
            return len(self._source)

        def __getitem__(self, which: int | slice) -> Any:
            if isinstance(which, slice):
                return self._rows(which.start, which.stop)
            at = int(which) // BLOCK_ROWS
            if at != self._at:
                self._block, self._at = self._rows(at * BLOCK_ROWS, (at + 1) * BLOCK_ROWS).astype(np.float64), at
            return self._block[int(which) - at * BLOCK_ROWS]

        def _rows(self, start: int, stop: int) -> Any:
            rows: Encoded = self._source.read(start, stop).rows
            return as_matrix(rows, self._source.blocks)

    return Sequence
